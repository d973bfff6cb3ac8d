"""Saved per-sample predictions of runs, read back and laid side by side: which samples each run has right.

Belongs here: reading `predictions-<split>.csv`, and refusing to lay side by side what was scored on different samples.
Does not belong here: writing them (`common/runs.py`), tests and intervals (`common/statistics.py`).

Every task writes the columns id, group, type, gold, predicted, probability, and behind them what it keeps of a sample
(question, image, clip). Only id, gold and predicted are needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from common.errors import UserError
from common.files import read_object
from common.records import open_file
from common.splits import link_groups
from common.spreadsheets import restored

_NEEDED = ("id", "gold", "predicted")
_FILES = ("image", "clip", "path")  # columns that name a sample's file, which is its group where none is named
_ABOUT = ("gold", "question", *_FILES)  # columns that say what the sample is; others are a model's, or of its scoring


class DifferentSamples(UserError):
    """Runs were scored on other samples than those they are to be compared with."""


@dataclass(kw_only=True)
class Scored:
    """One split of one run, n samples in the order of its file."""

    file: Path
    rows: list[int]  # of the file; the header is row 1
    columns: dict[str, list[str]]
    right: np.ndarray  # (n,) bool
    groups: list[str]
    grouped_by: str  # the column that names the groups, or "id": every row for itself


@dataclass(kw_only=True)
class Aligned:
    """R runs scored on the same n samples."""

    right: np.ndarray  # (R, n) bool
    groups: list[str]  # samples share a group if they do in any of the runs
    grouped_by: str


def read_scored(run: str | Path, split: str) -> Scored:
    """The predictions that a run saved of a split. Raises `UserError` if there are none, or others than its metrics."""
    run = Path(run)
    file = run / f"predictions-{split}.csv"
    if not file.is_file():
        others = ", ".join(sorted(path.stem.removeprefix("predictions-") for path in run.glob("predictions-*.csv")))
        has = f"predictions of {others} are there" if others else "it has no predictions; score it again"
        raise UserError(f"{run}: there is no {file.name}; {has}")
    rows, columns = read_back(file)
    for name in _NEEDED:
        if name not in columns:
            raise UserError(f"{file}: has no column '{name}'; it has {', '.join(list(columns)[:20])}")
    seen: dict[str, int] = {}
    for row, name in zip(rows, columns["id"], strict=True):
        if seen.setdefault(name, row) != row:
            raise UserError(f"{file}, row {row}: sample '{name}' is already in row {seen[name]}; score the run again")
    right = np.array(columns["gold"], dtype=object) == np.array(columns["predicted"], dtype=object)
    accuracy = _accuracy(run / "metrics.json", split)
    if accuracy is not None and not abs(accuracy - right.mean()) <= 1e-4:
        raise UserError(
            f"{file}: {right.mean():.4f} of its rows are right, but metrics.json has the accuracy {accuracy:.4f}: they "
            "are not of the same scoring; score the run again"
        )
    named = [name for name in ("group", *_FILES) if any(columns.get(name, ()))]
    grouped_by = named[0] if named else "id"
    alone = (f"row {row}" for row in rows)  # a row without a group is one
    groups = [name or row for name, row in zip(columns[grouped_by], alone, strict=True)]
    return Scored(file=file, rows=rows, columns=columns, right=right, groups=groups, grouped_by=grouped_by)


def read_back(file: Path) -> tuple[list[int], dict[str, list[str]]]:
    """A table that `common.runs.write_csv` wrote: its row numbers, and its columns as they were before. Raises
    `UserError`."""
    source = open_file(file)
    rows: list[int] = []
    columns: dict[str, list[str]] = {restored(name): [] for name in source.names}
    if len(columns) < len(source.names):
        raise UserError(f"{file}: two of its columns have one name; score the run again")
    for numbers, batch in source.batches(source.names):
        rows += numbers
        for name, values in batch.items():
            columns[restored(name)] += map(restored, values)
    return rows, columns


def _accuracy(file: Path, split: str) -> float | None:
    """The accuracy of a split that a metrics.json tells, if there is one."""
    if not file.is_file():
        return None
    figures = read_object(file).get(split, {})
    accuracy = figures.get("accuracy") if isinstance(figures, dict) else figures
    if isinstance(accuracy, bool) or not isinstance(accuracy, int | float | None):
        raise UserError(f"{file}: is damaged (the accuracy of {split} is no number); score the run again")
    return accuracy


def align(scored: Sequence[Scored]) -> Aligned:
    """Lay runs side by side, samples in the order of the first.

    Raises `DifferentSamples`: it names file and row of the first sample that another run was not scored on, or that is
    another there, because its gold, its question or its file differs. A column that either run left empty is not
    compared: a model that sees no photo does not name them.
    """
    first, right, groups = scored[0], [scored[0].right], scored[0].groups
    for other in scored[1:]:
        places = _places(first, other)
        right.append(other.right[places])
        if other.grouped_by != "id" and [other.groups[place] for place in places] != groups:
            groups = link_groups(groups, [other.groups[place] for place in places])
    by = [run.grouped_by for run in scored]
    grouped_by = next(name for name in ("group", *_FILES, "id") if name in by)
    return Aligned(right=np.stack(right), groups=groups, grouped_by=grouped_by)


def _places(first: Scored, other: Scored) -> list[int]:
    """Where the samples of `first` stand in `other`."""
    refusal = "runs scored on different samples cannot be compared"
    where = {name: place for place, name in enumerate(other.columns["id"])}
    shared = [name for name in first.columns if name in _ABOUT and name in other.columns]
    for place, name in enumerate(first.columns["id"]):
        at = f"{first.file}, row {first.rows[place]}: sample '{name}'"
        if name not in where:
            raise DifferentSamples(f"{at} is not in {other.file}; {refusal}")
        for column in shared:
            ours, theirs = first.columns[column][place], other.columns[column][where[name]]
            if column in _FILES:  # the folder may have moved
                ours, theirs = PurePosixPath(ours).name, PurePosixPath(theirs).name
            if ours != theirs and ours and theirs:
                there = f"{other.file}, row {other.rows[where[name]]}"
                raise DifferentSamples(f"{at} has {column} '{ours}', but '{theirs}' in {there}; {refusal}")
    known = set(first.columns["id"])
    for place, name in enumerate(other.columns["id"]):
        if name not in known:
            raise DifferentSamples(
                f"{other.file}, row {other.rows[place]}: sample '{name}' is not in {first.file}; {refusal}"
            )
    return [where[name] for name in first.columns["id"]]
