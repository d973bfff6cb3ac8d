"""Pictures: curves of a run, maps over a photo, matrices and sheets of answers.

Belongs here: drawing with matplotlib, and nothing that computes; style and files are `common/drawing.py`'s. Imported
only where a picture is drawn: matplotlib is slow to load. Matrices and sheets are laid out here in inches: their labels
decide how large they are, which matplotlib's own layouts only do by trying, and slowly.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from common.confusion import Confusion
from common.drawing import (
    ACCENT,
    LABEL,
    OUTLINE,
    RIGHT,
    SHARES,
    TITLE,
    TRAIN,
    VALIDATION,
    WRONG,
    axes_at,
    fit_text,
    plt,
    save_figure,
    text_width,
    write_at,
)
from common.looks import LEGEND, looked, small

_WRITTEN = 12  # gold answers up to which the counts are written into a matrix


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Loss, accuracy and learning rate per epoch, from the rows of `history.jsonl`, as PNG and SVG."""
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.0), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for panel, name in zip(panels, ("loss", "accuracy"), strict=False):
        for split, colour, dash, mark in (("train", TRAIN, "--", "."), ("validation", VALIDATION, "-", "o")):
            curve = {"color": colour, "linestyle": dash, "marker": mark, "markersize": 4, "label": split}
            panel.plot(epochs, [row[f"{split}_{name}"] for row in history], **curve)
        panel.set_title(name)
        panel.legend(frameon=False, fontsize=LABEL + 1)
    panels[2].plot(epochs, [row["learning_rate"] for row in history], color=ACCENT, marker="o", markersize=4)
    panels[2].set_title("learning rate")
    panels[2].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
    for panel in panels:
        panel.set_xlabel("epoch", fontsize=LABEL + 1)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        panel.tick_params(labelsize=LABEL + 1)
        panel.grid(axis="y", color="0.92")
    if title:
        figure.suptitle(title, fontsize=TITLE + 1, x=0.01, ha="left")
    save_figure(figure, path, with_svg=True)


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
    """The photo, and where each glimpse looked on it (`common.looks`).

    `maps (G, h, w)` are attention weights; `box` (x0, y0, x1, y1 in the photo's pixels) is the part of the plane that
    the grid covers. `word_maps (G, T)` are weights over `words`. Either may be empty.
    """
    glimpses = len(maps)
    bars = 0 if word_maps is None else 1
    panels = 1 + glimpses + bars
    figure, axes = plt.subplots(1, panels, figsize=(3.2 * panels, 3.8), layout="constrained", squeeze=False)
    axes = axes[0]
    axes[0].imshow(small(photo))
    axes[0].set_title("photo", fontsize=TITLE)
    for place, weights in enumerate(maps):
        axis = axes[1 + place]
        axis.imshow(looked(photo, weights, box))
        axis.set_title(f"glimpse {place + 1}: strongest cell {weights.max():.0%}", fontsize=TITLE)
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
        axis.set_title("weight of each word", fontsize=TITLE)
        axis.legend(frameon=False, fontsize=LABEL)
    figure.suptitle(title, fontsize=TITLE + 1)
    if glimpses:
        figure.supxlabel(LEGEND, fontsize=LABEL, color="0.35")
    save_figure(figure, path)


# --- matrices of answers ---------------------------------------------------------------------------------------------


def draw_confusion(confusions: Sequence[Confusion], path: Path, *, title: str) -> None:
    """A matrix per group of answers: rows are gold answers, columns predicted ones, dark a large share of its row.

    As PNG and SVG. Up to a dozen gold answers the counts are written too, but for zeros. A panel is as large as its
    answers need, and a line sets apart what was pooled.
    """
    blocks = [_Matrix(confusion) for confusion in confusions]
    width = max([9.6, *(block.width for block in blocks)])
    places, height = _shelve([(block.width, block.height) for block in blocks], width)
    width = max([6.0, *(x + block.width for (x, _), block in zip(places, blocks, strict=True))])
    top, bottom = 0.45, 0.65
    figure = plt.figure(figsize=(width, height + top + bottom))
    write_at(figure, title, 0.15, height + bottom + top - 0.3, size=TITLE + 1)
    for block, (x, y) in zip(blocks, places, strict=True):
        image = block.draw(figure, x, bottom + height - y)
    bar = axes_at(figure, width - 2.75, 0.42, 2.4, 0.12)
    figure.colorbar(image, cax=bar, orientation="horizontal", ticks=[0, 0.5, 1], format="{x:.0%}")
    bar.tick_params(labelsize=LABEL)
    write_at(figure, "share of the gold answer's rows", width - 2.95, 0.44, size=LABEL, ha="right")
    save_figure(figure, path, with_svg=True)


class _Matrix:
    """One matrix of a picture, its sizes in inches known before it is drawn."""

    def __init__(self, confusion: Confusion) -> None:
        self.confusion = confusion
        rows, columns = confusion.counts.shape
        self.cell = max(0.42, 1.7 / rows) if rows <= _WRITTEN else 0.17
        self.rows = [fit_text(name, 2.0) for name in confusion.gold]
        self.columns = [fit_text(name, 2.0) for name in confusion.predicted]
        self.title = f"{confusion.name}: accuracy {confusion.accuracy:.4f}, n = {confusion.n:,}"
        self.upright = max(map(text_width, self.columns)) > self.cell - 0.05
        self.left = max(map(text_width, self.rows)) + 0.4  # labels, and the axis's name
        below = (max(map(text_width, self.columns)) if self.upright else 0.15) + 0.45
        # Half a label may reach beyond the matrix, and the title may be wider than all of it.
        self.width = max(self.left + columns * self.cell, 0.15 + text_width(self.title, TITLE)) + 0.35
        self.height = 0.4 + rows * self.cell + below

    def draw(self, figure: Any, x: float, top: float) -> Any:
        """Draw it with its upper left corner at `(x, top)`, inches from the figure's lower left one."""
        confusion = self.confusion
        rows, columns = confusion.counts.shape
        wide, high = columns * self.cell, rows * self.cell
        axis = axes_at(figure, x + self.left, top - 0.4 - high, wide, high)
        shares = confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(shares, cmap=SHARES, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axis.set_xticks(range(columns), self.columns, rotation=90 if self.upright else 0)
        axis.set_yticks(range(rows), self.rows)
        axis.tick_params(labelsize=LABEL, length=0, pad=3)
        axis.set_xlabel("predicted", fontsize=LABEL, color="0.35")
        axis.set_ylabel("gold", fontsize=LABEL, color="0.35")
        axis.spines[:].set(visible=True, color="0.6")
        own = confusion.own
        for line, edge, end in ((axis.axvline, own, columns), (axis.axhline, own, rows)):
            if edge < end:
                line(edge - 0.5, color="0.35", linewidth=0.8)
        if rows <= _WRITTEN:
            for (row, column), count in np.ndenumerate(confusion.counts):
                if count:
                    colour = "white" if shares[row, column] > 0.55 else "0.1"
                    axis.text(column, row, f"{count}", ha="center", va="center", fontsize=LABEL, color=colour)
        else:  # where right answers are, among so many
            axis.plot((-0.5, own - 0.5), (-0.5, own - 0.5), color="0.75", linewidth=0.5)
        write_at(figure, self.title, x + 0.15, top - 0.27, size=TITLE)
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


def draw_answers(rows: Sequence[ShownRow], path: Path, *, title: str, with_svg: bool = False) -> None:
    """A sheet of photos with what was asked, the gold answer, and the predicted one with its probability.

    Right ones are blue and ticked, wrong ones vermilion and crossed: told apart in every colour vision, and in print.
    Where there are attention weights, it is shown where was looked (`common.looks`).
    """
    wide, high, gap, caption = 2.5, 1.9, 0.2, 0.85  # of a photo, around it and under it, inches
    head = 0.34
    columns = max([2, *(len(row.answers) for row in rows)])  # the headings need some width
    headings = [("✓ " if row.right else "✗ ") + row.heading for row in rows]
    texts = [text_width(title, TITLE + 1), *(text_width(heading, TITLE) for heading in headings)]
    width = max(columns * (wide + gap) + gap, *(text + 2 * gap for text in texts))
    heights = [head + (high + caption if row.answers else 0) for row in rows]
    figure = plt.figure(figsize=(width, sum(heights) + 0.6))
    y = sum(heights) + 0.6 - 0.38
    write_at(figure, title, gap, y, size=TITLE + 1)
    y -= 0.12
    for row, heading, tall in zip(rows, headings, heights, strict=True):
        colour = RIGHT if row.right else WRONG
        write_at(figure, heading, gap, y - 0.22, size=TITLE, color=colour, weight="bold")
        for column, answer in enumerate(row.answers):
            x = gap + column * (wide + gap)
            axis = axes_at(figure, x, y - head - high, wide, high)
            _show(axis, answer)
            axis.set(xticks=[], yticks=[], anchor="SW")
            axis.spines[:].set(visible=True, color=colour, linewidth=1.5)
            below = y - head - high - 0.17
            for line, (text, of) in enumerate(_caption(answer, wide)):
                write_at(figure, text, x, below - 0.155 * line, size=LABEL, color=of)
        y -= tall
    save_figure(figure, path, with_svg=with_svg)


def _show(axis: Any, answer: Shown) -> None:
    """The photo, and on it where was looked, and boxes."""
    width, height = answer.size
    picture = answer.photo
    if answer.weights is not None:
        picture = looked(picture, answer.weights, answer.box, size=answer.size)
    axis.imshow(picture, extent=(0, width, height, 0))
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
    yield fit_text(sign + answer.predicted, width - text_width(chance)) + chance, colour
