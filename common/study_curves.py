"""Curves of all runs of a study in one picture: how every cell learned, seed by seed.

Belongs here: drawing. Histories are read in `common/study_values.py`; the curves of one run, and what all pictures
share, are in `common/plots.py` and `common/drawing.py`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

History = Sequence[Mapping[str, Any]]  # a row per epoch
_SPLITS = ("train", "validation")
_FIGURES = ("accuracy", "loss")
_DASHES: dict[str, Any] = {"train": (0, (3, 1)), "validation": "-"}  # told apart in print, too
_COLUMNS = 3  # of cells
_CELL = (3.3, 3.6)  # inches of a cell with its two panels
_PANELS = {"accuracy": (0.3, 1.25), "loss": (1.75, 1.25)}  # inches from the cell's top, and height
_OUTLIERS = 0.02  # part of the losses, the highest, for which the others are not flattened


def mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    """The mean over the seeds, epoch by epoch, as far as all have come: beyond it would be a mean of other seeds."""
    return [math.fsum(values) / len(values) for values in zip(*curves, strict=False)]


def draw_runs(cells: Mapping[str, Sequence[History]], path: Path, *, title: str) -> bool:
    """Draw accuracy and loss per epoch of every run, the cells side by side, each with a history per seed.

    Thin lines are seeds, thick ones their mean; all cells share their axes of accuracy and loss. Histories without
    the figures of training and validation are left out, and so is a cell that has no other. Returns whether there was
    anything to draw.
    """
    from common.drawing import TRAIN, VALIDATION, axes_at, fit_text, plt, save_figure

    drawn = {name: [history for history in histories if _complete(history)] for name, histories in cells.items()}
    drawn = {name: histories for name, histories in drawn.items() if histories}
    if not drawn:
        return False
    limits = {figure: _limits(drawn, figure) for figure in _FIGURES}
    columns = min(_COLUMNS, len(drawn))
    width = max(6.6, columns * _CELL[0] + 0.3)
    height = math.ceil(len(drawn) / columns) * _CELL[1] + 0.75
    # One plane in inches for all panels: axes of their own take matplotlib a tenth of a second each.
    plane = axes_at(plt.figure(figsize=(width, height)), 0, 0, width, height)
    plane.set(xlim=(0, width), ylim=(0, height))
    plane.axis("off")
    plane.text(0.15, height - 0.27, fit_text(title, width - 0.4, 11), fontsize=11)
    for place, (split, colour) in enumerate(zip(_SPLITS, (TRAIN, VALIDATION), strict=True)):
        x, y = 0.15 + 1.0 * place, height - 0.5
        plane.plot((x, x + 0.25), (y, y), color=colour, linewidth=2, linestyle=_DASHES[split])
        plane.text(x + 0.3, y, split, fontsize=9, va="center")
    told = (
        "thick: mean over the seeds, as far as all have come" + "; the highest losses are cut off" * limits["loss"][2]
    )
    plane.text(2.4, height - 0.5, told, fontsize=9, va="center", color="0.35")
    for number, (name, histories) in enumerate(drawn.items()):
        row, column = divmod(number, columns)
        left, top = column * _CELL[0] + 0.7, height - 0.7 - row * _CELL[1]
        seeds = f" ({len(histories)} seeds)" if len(histories) > 1 else ""
        plane.text(left, top - 0.2, fit_text(name, _CELL[0] - 0.75 - 0.75 * bool(seeds), 10) + seeds, fontsize=10)
        epochs = [row["epoch"] for history in histories for row in history]
        for figure, (down, high) in _PANELS.items():
            wide = (min(epochs) - 0.3, max(epochs) + 0.3)
            panel = _Panel(plane, left, top - down - high, _CELL[0] - 0.85, high, x=wide, y=limits[figure][:2])
            panel.frame(figure, last=figure == _FIGURES[-1])
            for split, colour in zip(_SPLITS, (TRAIN, VALIDATION), strict=True):
                _draw_seeds(panel, histories, f"{split}_{figure}", color=colour, linestyle=_DASHES[split])
    save_figure(plane.figure, path, with_svg=True)
    return True


def _draw_seeds(panel: "_Panel", histories: Sequence[History], key: str, *, color: str, linestyle: Any) -> None:
    curves = [_values(history, key) for history in histories]
    if len(curves) > 1:
        for history, curve in zip(histories, curves, strict=True):
            panel.line([row["epoch"] for row in history], curve, color=color, linewidth=0.7, alpha=0.45)
    mean = mean_curve(curves)
    epochs = [row["epoch"] for row in histories[0]][: len(mean)]
    alone = {"marker": "o", "markersize": 4} if len(mean) == 1 else {}
    panel.line(epochs, mean, color=color, linestyle=linestyle, linewidth=2, **alone)


class _Panel:
    """A small diagram somewhere on the plane; its place and size are in inches, `x` and `y` its limits."""

    def __init__(
        self,
        plane: Any,
        left: float,
        bottom: float,
        width: float,
        height: float,
        *,
        x: tuple[float, float],
        y: tuple[float, float],
    ) -> None:
        self.plane, self.left, self.bottom, self.width, self.height = plane, left, bottom, width, height
        self.x, self.y = x, y

    def _at(self, x: Any, y: Any) -> tuple[Any, Any]:
        (x0, x1), (y0, y1) = self.x, self.y
        across = self.left + (np.asarray(x, dtype=float) - x0) / (x1 - x0) * self.width
        return across, self.bottom + (np.asarray(y, dtype=float) - y0) / (y1 - y0) * self.height

    def line(self, x: Sequence[float], y: Sequence[float], **keywords: Any) -> None:
        from matplotlib.patches import Rectangle

        (line,) = self.plane.plot(*self._at(x, y), **keywords)
        inside = Rectangle((self.left, self.bottom), self.width, self.height, transform=self.plane.transData)
        line.set_clip_path(inside)

    def frame(self, name: str, *, last: bool) -> None:
        """Axes with their ticks; the last panel of a cell names the epochs."""
        from matplotlib.ticker import MaxNLocator

        right, top = self.left + self.width, self.bottom + self.height
        self.plane.plot((self.left, self.left, right), (top, self.bottom, self.bottom), color="0.2", linewidth=0.8)
        ticks = [tick for tick in MaxNLocator(nbins=4).tick_values(*self.y) if self.y[0] <= tick <= self.y[1]]
        digits = max((len(f"{tick:.6g}".partition(".")[2]) for tick in ticks), default=0)
        for tick in ticks:
            _, y = self._at(self.x[0], tick)
            self.plane.plot((self.left, right), (y, y), color="0.9", linewidth=0.6, zorder=0)
            text = f"{tick + 0.0:.{digits}f}"
            self.plane.text(self.left - 0.06, y, text, fontsize=8, ha="right", va="center")
        middle = self.bottom + self.height / 2
        self.plane.text(self.left - 0.5, middle, name, fontsize=8, color="0.35", rotation=90, ha="center", va="center")
        for tick in MaxNLocator(nbins=5, integer=True, min_n_ticks=1).tick_values(*self.x):
            if self.x[0] <= tick <= self.x[1] and tick == round(tick):
                x, _ = self._at(tick, self.y[0])
                self.plane.plot((x, x), (self.bottom, self.bottom - 0.04), color="0.2", linewidth=0.8)
                if last:
                    self.plane.text(x, self.bottom - 0.08, f"{tick:.0f}", fontsize=8, ha="center", va="top")
        if last:
            x = self.left + self.width / 2
            self.plane.text(x, self.bottom - 0.26, "epoch", fontsize=8, color="0.35", ha="center", va="top")


def _complete(history: History) -> bool:
    wanted = {"epoch"} | {f"{split}_{figure}" for split in _SPLITS for figure in _FIGURES}
    return bool(history) and all(wanted <= row.keys() for row in history)


def _values(history: History, key: str) -> list[float]:
    """A figure per epoch; what is no number (a loss that overflowed is null in JSON) is a gap."""
    values = (row[key] for row in history)
    return [float(value) if isinstance(value, int | float) else math.nan for value in values]


def _limits(cells: Mapping[str, Sequence[History]], figure: str) -> tuple[float, float, bool]:
    """The axis that all cells share, and whether some of what is drawn leaves it."""
    histories = [history for its in cells.values() for history in its]
    values = sorted(
        value
        for history in histories
        for split in _SPLITS
        for value in _values(history, f"{split}_{figure}")
        if math.isfinite(value)
    )
    if not values:
        return 0.0, 1.0, False
    low, high = values[0], values[-1]
    usual = values[min(len(values) - 1, int((1 - _OUTLIERS) * len(values)))]
    cut = figure == "loss" and high > 2 * usual
    high = usual if cut else high
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin, cut
