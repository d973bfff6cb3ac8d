"""How every picture looks and is written: one style, one palette, one way to save, for runs, studies and commands.

Belongs here: matplotlib's settings, colours, sizes of text, places in inches, and the file. What is drawn is in
`common/plots.py`, `common/accuracy_bars.py`, `common/photo_sheets.py`, `common/study_curves.py` and
`common/study_tables.py`. Imported only where a picture is drawn: matplotlib is slow to load.

A picture is about as wide as a README or a column shows it (800 pixels, where 8 points are some 11 pixels high); its
colours are told apart in every colour vision and, with their marks, in print. Its letters are DejaVu Sans, which comes
with matplotlib and has all of Vietnamese; in SVG they are outlines, which need no font.
"""

import bisect
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws without a display

import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
from matplotlib.font_manager import FontProperties  # noqa: E402
from matplotlib.textpath import text_to_path  # noqa: E402

from common.errors import UserError  # noqa: E402
from common.files import beside, remove  # noqa: E402

# Okabe & Ito's palette: told apart by every kind of colour vision.
TRAIN, VALIDATION, ACCENT = "#0072B2", "#D55E00", "#009E73"
RIGHT, WRONG, OUTLINE = TRAIN, VALIDATION, "#F0E442"
SHARES = "Blues"  # a map whose lightness falls evenly: in grey, too, more is more
LABEL, TITLE = 8, 10  # font sizes, points
_DOTS = 120  # an inch

matplotlib.rcParams |= {
    "font.family": "DejaVu Sans",
    "axes.prop_cycle": plt.cycler(
        color=[TRAIN, VALIDATION, ACCENT, "#CC79A7", "#E69F00", "#56B4E9", "#000000", OUTLINE]
    ),
    "image.cmap": "viridis",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": TITLE,
    "text.parse_math": False,  # a question with two "$" in it is no formula
    "svg.fonttype": "path",
    "svg.hashsalt": "hoianh",  # else each drawing has names of its own in the file
}


def save_figure(figure: Any, path: Path, *, with_svg: bool = False) -> None:
    """Write a picture as PNG or SVG, as `path` is named, beside and renamed, and forget it.

    `with_svg`: of a PNG write the SVG, too, under the same name: for the pictures that a run or a study leaves. The
    same figure gives the same bytes. Raises `UserError` if it cannot be written.
    """
    paths = [path, path.with_suffix(".svg")] if with_svg and path.suffix == ".png" else [path]
    fresh = [beside(each) for each in paths]
    try:
        for each, place in zip(fresh, paths, strict=True):
            kind = place.suffix[1:]
            figure.savefig(each, dpi=_DOTS, format=kind, metadata={"Date": None} if kind == "svg" else None)
        for each, place in zip(fresh, paths, strict=True):
            each.replace(place)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: the picture cannot be written ({error}); name it .png or .svg, in a folder that exists"
        ) from None
    finally:
        for each in fresh:
            remove(each)
        plt.close(figure)


def axes_at(figure: Any, x: float, y: float, width: float, height: float) -> Any:
    """Axes at a place in inches."""
    whole = figure.get_size_inches()
    return figure.add_axes((x / whole[0], y / whole[1], width / whole[0], height / whole[1]))


def write_at(figure: Any, text: str, x: float, y: float, *, size: float, **keywords: Any) -> None:
    """Text whose baseline begins at a place in inches."""
    whole = figure.get_size_inches()
    figure.text(x / whole[0], y / whole[1], text, fontsize=size, **keywords)


def text_width(text: str, size: float = LABEL) -> float:
    """How wide a text is, inches."""
    font = FontProperties(family=matplotlib.rcParams["font.family"], size=size)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def fit_text(text: str, width: float, size: float = LABEL) -> str:
    """`text` on one line, its end cut off where it is wider than so many inches."""
    text = " ".join(text.split())
    if text_width(text, size) <= width:
        return text
    kept = bisect.bisect_right(range(len(text)), width, key=lambda end: text_width(text[:end] + "…", size)) - 1
    return text[: max(kept, 0)].rstrip() + "…"
