"""Boxes around what a question asks about, and where they lie on the grid that a model looks at.

Belongs here: reading a `boxes` cell and plain geometry. Boxes are for scoring where attention looks
(`vqa/pointing.py`) and never an input of a model.
"""

import numpy as np

from common.errors import UserError
from common.files import parse_json
from common.images import Preprocessing, shown_box

MOST_BOXES = 1_000
"""Of one question: with all their digits they fit into a cell's text."""
_ROUNDED = 1e-3  # how far beyond the photo's edge a rounded number may lie


def read_boxes(text: str) -> np.ndarray:
    """A `boxes` cell, JSON `[[x0, y0, x1, y1], …]` in 0–1 of the photo, → `(K, 4)`; blank means none.

    Raises `UserError` (whose text follows the name of the column) for anything else.
    """
    if not text.strip():
        return np.zeros((0, 4))
    wrong = UserError(
        "must be JSON such as [[0.1, 0.2, 0.5, 0.9]]: x0, y0, x1, y1 of each box in 0–1 of the photo, x0 < x1 and "
        f"y0 < y1; it is {text[:80]!r}"
    )
    try:
        given = parse_json(text)
    except (ValueError, RecursionError):
        raise wrong from None
    if not isinstance(given, list) or not all(isinstance(box, list) and len(box) == 4 for box in given):
        raise wrong
    check_count(given)
    numbers = [value for box in given for value in box]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers):
        raise wrong
    boxes = np.array(given, dtype=float).reshape(-1, 4)
    inside = (boxes >= -_ROUNDED) & (boxes <= 1 + _ROUNDED)  # also refuses NaN, which Python's JSON reads
    boxes = boxes.clip(0, 1)
    if not inside.all() or not (boxes[:, :2] < boxes[:, 2:]).all():
        raise wrong
    return boxes


def check_count(boxes: list) -> None:
    """Raises `UserError` for more boxes than a question has."""
    if len(boxes) > MOST_BOXES:
        raise UserError(f"holds {len(boxes):,} boxes; a question has at most {MOST_BOXES:,}")


def on_square(boxes: np.ndarray, photo: tuple[int, int], preprocessing: Preprocessing) -> np.ndarray:
    """`boxes (K, 4)` in 0–1 of a photo of `(width, height)` pixels → in 0–1 of the square that the encoder sees.

    What was cropped away lies outside 0–1; padding is part of the square.
    """
    x0, y0, x1, y1 = shown_box(photo, preprocessing)
    size, start, extent = np.array(photo * 2), np.array((x0, y0) * 2), np.array((x1 - x0, y1 - y0) * 2)
    return (boxes * size - start) / extent


def covered(boxes: np.ndarray, h: int, w: int) -> np.ndarray:
    """How much of each cell of an `h x w` grid over the square lies in the union of `boxes (K, 4)`: `(h, w)`, 0–1."""
    xs, ys = (np.unique(np.append(boxes[:, side::2].clip(0, 1), np.arange(n + 1) / n)) for side, n in ((0, w), (1, h)))
    # Between neighbouring edges, of boxes or cells, a rectangle is wholly inside a box and a cell, or wholly outside.
    x, y = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    areas = np.outer(np.diff(ys), np.diff(xs)) * _inside(boxes, x, y)
    shares = np.zeros((h, w))
    np.add.at(shares, np.ix_((y * h).astype(int), (x * w).astype(int)), areas)
    return shares * h * w


def centres_inside(boxes: np.ndarray, h: int, w: int) -> np.ndarray:
    """Which cells of an `h x w` grid over the square have their centre in one of `boxes (K, 4)`: `(h, w)` bool."""
    return _inside(boxes, (np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h)


def _inside(boxes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which points `(y, x)` lie in one of the boxes, their edges included: `(len(y), len(x))`."""
    x0, y0, x1, y1 = boxes.T[:, :, None]  # each (K, 1)
    across, down = (x0 <= x) & (x <= x1), (y0 <= y) & (y <= y1)
    return (down[:, :, None] & across[:, None, :]).any(axis=0)
