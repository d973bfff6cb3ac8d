"""Pictures: curves of a run, maps over a photo, matrices and sheets of answers. PNG or SVG by the file's name.

Belongs here: drawing with matplotlib, without a display, and nothing that computes. Imported only where a picture is
drawn: matplotlib is slow to load. Matrices and sheets are laid out here in inches: their labels decide how large they
are, which matplotlib's own layouts only do by trying, and slowly.
"""

import bisect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
from matplotlib.font_manager import FontProperties  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402
from matplotlib.textpath import text_to_path  # noqa: E402

from common.confusion import Confusion  # noqa: E402
from common.errors import UserError  # noqa: E402
from common.files import beside, remove  # noqa: E402

# Okabe & Ito's palette: told apart by every kind of colour vision.
TRAIN, VALIDATION, ACCENT = "#0072B2", "#D55E00", "#009E73"
RIGHT, WRONG, OUTLINE = TRAIN, VALIDATION, "#F0E442"
matplotlib.rcParams |= {
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a question with two "$" in it is no formula
}

_LABEL, _TITLE = 8, 10  # font sizes, points
_SHADE = 0.75  # how opaque is what darkens what was not looked at
_WRITTEN = 12  # gold answers up to which the counts are written into a matrix


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss, accuracy and learning rate per epoch, from the rows of `history.jsonl`."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for panel, name in zip(panels, ("loss", "accuracy"), strict=False):
        for split, colour in (("train", TRAIN), ("validation", VALIDATION)):
            panel.plot(epochs, [row[f"{split}_{name}"] for row in history], color=colour, marker=".", label=split)
        panel.set(title=name, xlabel="epoch")
        panel.legend(frameon=False)
    panels[2].plot(epochs, [row["learning_rate"] for row in history], color=ACCENT, marker=".")
    panels[2].set(title="learning rate", xlabel="epoch")
    save_figure(figure, path)


def draw_attention(
    photo: Image.Image,
    maps: np.ndarray,
    box: tuple[float, float, float, float],
    path: Path,
    *,
    title: str,
    words: Sequence[str] = (),
    word_maps: np.ndarray | None = None,
) -> None:
    """The photo, and over it where each glimpse looked.

    `maps (G, h, w)` are attention weights; `box` (x0, y0, x1, y1 in the photo's pixels) is the part of the plane that
    the grid covers. `word_maps (G, T)` are weights over `words`. Either may be empty.
    """
    glimpses = len(maps)
    bars = 0 if word_maps is None else 1
    panels = 1 + glimpses + bars
    figure, axes = plt.subplots(1, panels, figsize=(3.2 * panels, 3.8), layout="constrained", squeeze=False)
    axes = axes[0]
    axes[0].imshow(photo)
    axes[0].set_title("photo", fontsize=10)
    for place, weights in enumerate(maps):
        axis = axes[1 + place]
        axis.imshow(photo)
        x0, y0, x1, y1 = box
        axis.imshow(weights, extent=(x0, x1, y1, y0), cmap="inferno", alpha=0.55, interpolation="bilinear", vmin=0)
        axis.set_xlim(0, photo.width)
        axis.set_ylim(photo.height, 0)
        axis.set_title(f"glimpse {place + 1}: strongest cell {weights.max():.0%}", fontsize=10)
    for axis in axes[: 1 + glimpses]:
        axis.axis("off")
    if word_maps is not None:
        axis = axes[-1]
        places = np.arange(len(words))
        height = 0.8 / len(word_maps)
        for place, weights in enumerate(word_maps):
            axis.barh(places + place * height, weights, height=height, label=f"glimpse {place + 1}")
        axis.set_yticks(places + 0.4 - height / 2, words)
        axis.invert_yaxis()
        axis.set_title("weight of each word", fontsize=10)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


# --- matrices of answers ---------------------------------------------------------------------------------------------


def draw_confusion(confusions: Sequence[Confusion], path: Path, *, title: str) -> None:
    """A matrix per group of answers: rows are gold answers, columns predicted ones, dark a large share of its row.

    Up to a dozen gold answers the counts are written too, but for zeros. A panel is as large as its answers need, and
    a line sets apart what was pooled.
    """
    blocks = [_Matrix(confusion) for confusion in confusions]
    width = max([12.0, *(block.width for block in blocks)])
    places, height = _shelve([(block.width, block.height) for block in blocks], width)
    width = max([6.0, *(x + block.width for (x, _), block in zip(places, blocks, strict=True))])
    top, bottom = 0.45, 0.65
    figure = plt.figure(figsize=(width, height + top + bottom))
    write_at(figure, title, 0.15, height + bottom + top - 0.3, size=_TITLE + 1)
    for block, (x, y) in zip(blocks, places, strict=True):
        image = block.draw(figure, x, bottom + height - y)
    bar = axes_at(figure, width - 2.75, 0.42, 2.4, 0.12)
    figure.colorbar(image, cax=bar, orientation="horizontal", ticks=[0, 0.5, 1], format="{x:.0%}")
    bar.tick_params(labelsize=_LABEL)
    write_at(figure, "share of the gold answer's rows", width - 2.95, 0.44, size=_LABEL, ha="right")
    save_figure(figure, path)


class _Matrix:
    """One matrix of a picture, its sizes in inches known before it is drawn."""

    def __init__(self, confusion: Confusion) -> None:
        self.confusion = confusion
        rows, columns = confusion.counts.shape
        self.cell = max(0.42, 1.7 / rows) if rows <= _WRITTEN else 0.17
        self.rows = [fit_text(name, 2.0) for name in confusion.gold]
        self.columns = [fit_text(name, 2.0) for name in confusion.predicted]
        self.title = f"{confusion.name}: accuracy {confusion.accuracy:.4f}, n = {confusion.n:,}"
        self.upright = max(map(_width, self.columns)) > self.cell - 0.05
        self.left = max(map(_width, self.rows)) + 0.4  # labels, and the axis's name
        below = (max(map(_width, self.columns)) if self.upright else 0.15) + 0.45
        # Half a label may reach beyond the matrix, and the title may be wider than all of it.
        self.width = max(self.left + columns * self.cell, 0.15 + _width(self.title, _TITLE)) + 0.35
        self.height = 0.4 + rows * self.cell + below

    def draw(self, figure: Any, x: float, top: float) -> Any:
        """Draw it with its upper left corner at `(x, top)`, inches from the figure's lower left one."""
        confusion = self.confusion
        rows, columns = confusion.counts.shape
        wide, high = columns * self.cell, rows * self.cell
        axis = axes_at(figure, x + self.left, top - 0.4 - high, wide, high)
        shares = confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axis.set_xticks(range(columns), self.columns, rotation=90 if self.upright else 0)
        axis.set_yticks(range(rows), self.rows)
        axis.tick_params(labelsize=_LABEL, length=0, pad=3)
        axis.set_xlabel("predicted", fontsize=_LABEL, color="0.35")
        axis.set_ylabel("gold", fontsize=_LABEL, color="0.35")
        axis.spines[:].set(visible=True, color="0.6")
        own = confusion.own
        for line, edge, end in ((axis.axvline, own, columns), (axis.axhline, own, rows)):
            if edge < end:
                line(edge - 0.5, color="0.35", linewidth=0.8)
        if rows <= _WRITTEN:
            for (row, column), count in np.ndenumerate(confusion.counts):
                if count:
                    colour = "white" if shares[row, column] > 0.55 else "0.1"
                    axis.text(column, row, f"{count}", ha="center", va="center", fontsize=_LABEL, color=colour)
        else:  # where right answers are, among so many
            axis.plot((-0.5, own - 0.5), (-0.5, own - 0.5), color="0.75", linewidth=0.5)
        write_at(figure, self.title, x + 0.15, top - 0.27, size=_TITLE)
        return image


def _shelve(sizes: Sequence[tuple[float, float]], width: float) -> tuple[list[tuple[float, float]], float]:
    """Blocks `(width, height)` from left to right on shelves: → each one's `(x, y)`, y downwards, and the height."""
    places, x, y, shelf = [], 0.0, 0.0, 0.0
    for wide, high in sizes:
        if x and x + wide > width:
            x, y, shelf = 0.0, y + shelf, 0.0
        places.append((x, y))
        x, shelf = x + wide, max(shelf, high)
    return places, y + shelf


# --- sheets of answers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One answer on a sheet."""

    photo: Image.Image
    """may be smaller than the photo it is of"""
    size: tuple[int, int]
    """of that photo, pixels"""
    weights: np.ndarray | None
    """attention `(h, w)`, or None for the bare photo"""
    box: tuple[float, float, float, float]
    """the part of the photo's plane that `weights` covers, x0, y0, x1, y1 in its pixels"""
    caption: str
    """what was asked of it"""
    gold: str
    predicted: str
    probability: float
    boxes: Sequence[tuple[float, float, float, float]] = ()
    """outlined: x0, y0, x1, y1 in the photo's pixels"""


@dataclass(frozen=True, kw_only=True)
class ShownRow:
    """A row of a sheet: answers that are all right or all wrong (or looks that hit or miss), none if there are none."""

    heading: str
    right: bool
    answers: Sequence[Shown]


def draw_answers(rows: Sequence[ShownRow], path: Path, *, title: str) -> None:
    """A sheet of photos with what was asked, the gold answer, and the predicted one with its probability.

    Right ones are blue and ticked, wrong ones vermilion and crossed: told apart in every colour vision, and in print.
    Where there are attention weights, a photo is the darker the less was looked at; what was cropped away is darkest.
    """
    wide, high, gap, caption = 2.5, 1.9, 0.2, 0.85  # of a photo, around it and under it, inches
    head = 0.34
    columns = max([2, *(len(row.answers) for row in rows)])  # the headings need some width
    headings = [("✓ " if row.right else "✗ ") + row.heading for row in rows]
    width = max(columns * (wide + gap) + gap, *(_width(text, _TITLE) + 0.4 for text in [title, *headings]))
    heights = [head + (high + caption if row.answers else 0) for row in rows]
    figure = plt.figure(figsize=(width, sum(heights) + 0.6))
    y = sum(heights) + 0.6 - 0.38
    write_at(figure, title, gap, y, size=_TITLE + 1)
    y -= 0.12
    for row, heading, tall in zip(rows, headings, heights, strict=True):
        colour = RIGHT if row.right else WRONG
        write_at(figure, heading, gap, y - 0.22, size=_TITLE, color=colour, weight="bold")
        for column, answer in enumerate(row.answers):
            x = gap + column * (wide + gap)
            axis = axes_at(figure, x, y - head - high, wide, high)
            _show(axis, answer)
            axis.set(xticks=[], yticks=[], anchor="SW")
            axis.spines[:].set(visible=True, color=colour, linewidth=1.5)
            below = y - head - high - 0.17
            for line, (text, of) in enumerate(_caption(answer, wide)):
                write_at(figure, text, x, below - 0.155 * line, size=_LABEL, color=of)
        y -= tall
    save_figure(figure, path)


def _show(axis: Any, answer: Shown) -> None:
    """The photo, darkened by what the weights lack of the largest: its colours stay, which may be what was asked."""
    width, height = answer.size
    axis.imshow(answer.photo, extent=(0, width, height, 0))
    if answer.weights is not None:
        x0, y0, x1, y1 = answer.box
        shade = np.zeros((*answer.weights.shape, 4))  # black, more or less opaque
        shade[..., 3] = _SHADE * (1 - answer.weights / max(answer.weights.max(), 1e-12))
        axis.imshow(shade, extent=(x0, x1, y1, y0), interpolation="bilinear")
        left, middle = max(x0, 0), min(x1, width) - max(x0, 0)
        for x, y, wide, high in (
            (0, 0, x0, height),
            (x1, 0, width - x1, height),
            (left, 0, middle, y0),
            (left, y1, middle, height - y1),
        ):
            if wide > 0 and high > 0:
                axis.add_patch(Rectangle((x, y), wide, high, color="black", alpha=_SHADE, linewidth=0))
    for x0, y0, x1, y1 in answer.boxes:
        for colour, thick in (("black", 3), (OUTLINE, 1.5)):  # seen on every ground
            axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=thick))
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)


def _caption(answer: Shown, width: float) -> Iterator[tuple[str, str]]:
    """The lines under a photo, each with its colour: what was asked on one or two, gold, predicted."""
    lines = textwrap.wrap(answer.caption, 38, max_lines=2, placeholder=" …") or [""]
    yield from ((fit_text(line, width), "0.1") for line in lines)
    yield fit_text(f"gold: {answer.gold}", width), "0.35"
    chance = f" ({answer.probability:.0%})"
    right = answer.gold == answer.predicted
    sign, colour = ("✓ ", RIGHT) if right else ("✗ ", WRONG)
    yield fit_text(sign + answer.predicted, width - _width(chance)) + chance, colour


# --- what they share -------------------------------------------------------------------------------------------------


def axes_at(figure: Any, x: float, y: float, width: float, height: float) -> Any:
    """Axes at a place in inches."""
    whole = figure.get_size_inches()
    return figure.add_axes((x / whole[0], y / whole[1], width / whole[0], height / whole[1]))


def write_at(figure: Any, text: str, x: float, y: float, *, size: float, **keywords: Any) -> None:
    """Text whose baseline begins at a place in inches."""
    whole = figure.get_size_inches()
    figure.text(x / whole[0], y / whole[1], text, fontsize=size, **keywords)


def _width(text: str, size: float = _LABEL) -> float:
    """How wide a text is, inches."""
    font = FontProperties(family=matplotlib.rcParams["font.family"], size=size)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def fit_text(text: str, width: float, size: float = _LABEL) -> str:
    """`text` on one line, its end cut off where it is wider than so many inches."""
    text = " ".join(text.split())
    if _width(text, size) <= width:
        return text
    kept = bisect.bisect_right(range(len(text)), width, key=lambda end: _width(text[:end] + "…", size)) - 1
    return text[: max(kept, 0)].rstrip() + "…"


def save_figure(figure: Any, path: Path) -> None:
    """Write a picture at 120 dots an inch, beside and renamed, and forget it. Raises `UserError` if it cannot be."""
    fresh = beside(path)
    try:
        figure.savefig(fresh, dpi=120, format=path.suffix[1:])
        fresh.replace(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: the picture cannot be written ({error}); name it .png or .svg, in a folder that exists"
        ) from None
    finally:
        remove(fresh)
        plt.close(figure)
