"""The curve of the page: what a model says of a clip after so many of its frames.

Belongs here: drawing it. What is drawn is computed in `video/demo.py`.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.plots import fit_text

_MOST = 4  # classes with a line of their own
# Okabe and Ito's palette, and dashes: told apart by every kind of colour vision, and in print.
_LINES = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"))


def draw_classes(seen: Sequence[int], said: np.ndarray, classes: Sequence[str], *, across: str, up: str) -> str:
    """`said (points, classes)`, probabilities after `seen` frames → a PNG as a data URI; `across` and `up` name axes.

    The classes that are most probable somewhere have a line, at most four. The figure is no part of pyplot's state,
    which is not for several threads.
    """
    chosen = sorted(np.argsort(-said.max(axis=0), kind="stable")[:_MOST], key=lambda place: -said[-1, place])
    figure = Figure(figsize=(4.8, 3.1), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    for place, (color, dashes) in zip(chosen, _LINES, strict=False):
        marker = "." if len(seen) <= 20 else None
        axis.plot(
            seen, said[:, place], dashes, color=color, marker=marker, linewidth=2, label=fit_text(classes[place], 1.6)
        )
    axis.set(ylim=(-0.02, 1.02), xlabel=across, ylabel=up)
    axis.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]  # an AutoLocator
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
