"""Tables as text: the one way in which figures are shown.

Belongs here: turning rows into aligned Markdown. What is in the rows is the caller's business.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from common.errors import plain_line

_ACTIVE = re.compile(r"[\\|]|<(?=[a-z/!?])", re.IGNORECASE)  # ends a cell, begins a tag, or is an escape


def markdown(rows: Sequence[Mapping[str, Any]], *, escaped: bool = False) -> str:
    """Rows as a GitHub table, columns in the order of the first row; accuracies and losses with four decimals.

    Whatever a text holds, it stays in its cell, and nothing in it is taken for HTML; `escaped` ones are so already.
    """
    keep = str if escaped else _escape
    shown = [{keep(name): keep(_cell(value)) for name, value in row.items()} for row in rows]
    return tabulate(shown, headers="keys", tablefmt="github", disable_numparse=True)


def split_table(metrics: Mapping[str, Mapping[str, Any]], *, by: str = "by_type") -> str:
    """The loss/accuracy table of one run: a row per type, then all, and for each split its accuracy, loss and n.

    By class also its F1; that of all is the mean over the classes.
    """
    kind = by.removeprefix("by_")
    keys = ("accuracy", "loss", "f1", "n") if kind == "class" else ("accuracy", "loss", "n")
    types = sorted({name for split in metrics.values() for name in split[by]})
    rows = []
    for name in [*types, "all"]:
        row: dict[str, Any] = {kind: name}
        for split, figures in metrics.items():
            chosen = {**figures, "f1": figures.get("macro_f1", "–")} if name == "all" else figures[by].get(name, {})
            row |= {f"{split} {key}": chosen.get(key, "–") for key in keys}
        rows.append(row)
    return markdown(rows)


def error_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Top-k errors, a row per k and a column per split; empty where no split has any."""
    keys = sorted({key for figures in metrics.values() for key in figures if re.fullmatch(r"top\d+_error", key)})
    rows = [
        {"error": key.removesuffix("_error").replace("top", "top-")}
        | {split: figures.get(key, "–") for split, figures in metrics.items()}
        for key in keys
    ]
    return markdown(rows) if rows else ""


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4f}"
    return str(value)


def _escape(text: Any) -> str:
    return _ACTIVE.sub(r"\\\g<0>", plain_line(str(text)))
