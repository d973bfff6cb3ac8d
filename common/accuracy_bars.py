"""Bars of accuracy: each type of question, or each class, of a scored split, with what its few samples leave open.

Belongs here: one picture of a run. The figures are `common/metrics.py`'s, intervals `common/statistics.py`'s; bars of a
study's cells are in `common/study_tables.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.drawing import LABEL, TITLE, TRAIN, axes_at, fit_text, plt, save_figure, text_width, write_at
from common.statistics import wilson

_MOST = 40  # bars; of more types the highest and the lowest are shown
_ROW = 0.27  # inches of a bar
_WIDE = 8.0  # of the picture
_ALL = "all"


def draw_accuracies(figures: Mapping[str, Any], path: Path, *, by: str, title: str) -> None:
    """Draw the accuracy of each group in `figures[by]`, highest first, and of all, from one split of `metrics.json`.

    As PNG and SVG. The thin line of a bar is Wilson's 95 % interval, as if the samples were independent. Of more than
    40 groups the 20 highest and the 20 lowest are drawn, with a gap between.
    """
    groups = sorted(figures[by].items(), key=lambda item: (-item[1]["accuracy"], item[0]))
    total, kind = len(groups), by.removeprefix("by_")
    plural = kind + ("es" if kind.endswith("s") else "s")
    shown = groups if total <= _MOST else [*groups[: _MOST // 2], None, *groups[-(_MOST // 2) :]]
    left_out = f"the {_MOST // 2} highest and lowest of {total} {plural}" if total > _MOST else ""
    rows = [*shown, None, (_ALL, figures)]
    names = [fit_text(row[0], 2.4) if row else "" for row in rows]
    left = max(map(text_width, names)) + 0.35
    right, top, bottom = 1.55, 0.5, 0.75
    high = len(rows) * _ROW
    figure = plt.figure(figsize=(_WIDE, high + top + bottom))
    write_at(figure, fit_text(title, _WIDE - 0.4, TITLE + 1), 0.15, high + bottom + 0.2, size=TITLE + 1)
    axis = axes_at(figure, left, bottom, _WIDE - left - right, high)
    for place, row in enumerate(rows):
        if row is None:
            continue
        accuracy, n = row[1]["accuracy"], row[1]["n"]
        low, upper = wilson(accuracy, n)
        colour = "0.35" if row[0] == _ALL and place == len(rows) - 1 else TRAIN
        axis.barh(place, accuracy, height=0.66, color=colour, alpha=0.75)
        axis.plot((low, upper), (place, place), color="0.1", linewidth=1.2, marker="|", markersize=6)
        y = bottom + high - (place + 0.62) * _ROW
        write_at(figure, f"{accuracy:.4f}", _WIDE - right + 0.12, y, size=LABEL, weight="bold")
        write_at(figure, f"n = {n:,}", _WIDE - 0.1, y, size=LABEL, color="0.35", ha="right")
    axis.axvline(figures["accuracy"], color="0.35", linewidth=1, linestyle=":")
    axis.set_yticks(range(len(rows)), names)
    axis.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    axis.tick_params(labelsize=LABEL, length=0, pad=4)
    axis.grid(axis="x", color="0.92")
    axis.set_axisbelow(True)
    axis.spines[:].set(visible=False)
    told = "accuracy, with Wilson's 95 % interval; dotted: all" + (f"; {left_out}" if left_out else "")
    write_at(figure, told, left, 0.2, size=LABEL, color="0.35")
    save_figure(figure, path, with_svg=True)
