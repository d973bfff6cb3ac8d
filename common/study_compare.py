"""Cells of a study side by side: differences seed by seed, and a grid of two axes as reports print it.

Belongs here: the rows of those tables, made from the entries that `table.json` holds. Which cells are compared is read
in `common/study.py`, what a difference is worth in `common/study_evidence.py`; writing is in `common/study_tables.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from common.study import Cell, Comparison, Pivot
from common.study_evidence import evidence_columns
from common.study_values import as_text, mean_and_spread, signed, with_spread


def differences(entries: Sequence[Mapping[str, Any]], compare: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Accuracy of one cell minus that of another with the same seed, as `table.json` holds it.

    Only seeds that both cells have finished count, and none if the two were scored on different splits. A comparison
    with a cell that is not in the table is left out.
    """
    by_name = {entry["name"]: entry for entry in entries}
    found = []
    for comparison in compare:
        if not by_name.keys() >= set(comparison.cells):
            continue
        scored = [_by_seed(by_name[name]) for name in comparison.cells]
        (first, one), (second, other) = scored
        common = [seed for seed in first if seed in second] if one == other else []
        by_seed = {seed: first[seed] - second[seed] for seed in common}
        mean, deviation = mean_and_spread(list(by_seed.values())) if by_seed else (None, None)
        found.append(
            {
                "name": comparison.name,
                "cells": list(comparison.cells),
                "splits": list(dict.fromkeys(filter(None, (one, other)))),
                "n": list(dict.fromkeys(by_name[name]["n"] for name in comparison.cells)),
                "mean": mean,
                "std": deviation,
                "lowest": min(by_seed.values(), default=None),
                "highest": max(by_seed.values(), default=None),
                "by_seed": by_seed,
            }
        )
    return found


def difference_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Those differences as a table, with what `common/study_evidence.py` has added to them."""
    rows, tested = [], any(difference["primary"] for difference in found)
    for difference in found:
        mean = signed(difference["mean"])
        if difference["std"] is not None:
            mean += f" ± {as_text('accuracy', difference['std'])}"
        rows.append(
            {
                "comparison": difference["name"],
                "cells": " − ".join(difference["cells"]),
                "difference": mean,
                **evidence_columns(difference, tested=tested),
                "seeds": str(len(difference["by_seed"])),
                "n": " / ".join(as_text("n", n) for n in difference["n"]),
                "lowest": signed(difference["lowest"]),
                "highest": signed(difference["highest"]),
            }
        )
    return rows


def pivots(
    entries: Sequence[Mapping[str, Any]], cells: Sequence[Cell], pivot: Pivot
) -> dict[str, list[dict[str, str]]]:
    """Caption → rows: one axis of the grid down, the other across; what is reported and what is measured apart."""
    by_name = {entry["name"]: entry for entry in entries}
    placed = {cell.parts: by_name[cell.name] for cell in cells if len(cell.parts) == 2 and cell.name in by_name}
    rows = [row for row in pivot.rows if any(pivot.parts(row, column) in placed for column in pivot.columns)]
    columns = [column for column in pivot.columns if any(pivot.parts(row, column) in placed for row in rows)]

    def table(reported: bool) -> list[dict[str, str]]:
        def shown(row: str, column: str) -> str:
            entry = placed.get(pivot.parts(row, column), {"reported": {}, "measured": {}})
            return (
                as_text("accuracy", entry["reported"].get("accuracy")) if reported else with_spread("accuracy", entry)
            )

        return [{pivot.axis: row} | {column: shown(row, column) for column in columns} for row in rows]

    tables = {}
    if any("accuracy" in entry["reported"] for entry in placed.values()):
        tables["accuracy, reported"] = table(True)
    if placed:
        tables["accuracy, measured"] = table(False)
    return tables


def _by_seed(entry: Mapping[str, Any]) -> tuple[Mapping[str, float], str | None]:
    """Seed → accuracy of a cell, and the split."""
    return entry["measured"].get("accuracy", {}).get("by_seed", {}), entry["split"]
