"""Where a study's figures come from: what its runs say of their splits and of overlap, their environments, options.

Belongs here: reading what runs left behind, and saying once what holds for several of them. What becomes of it is
`common/study_report.py`'s.
"""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from common.config import read_yaml
from common.errors import UserError
from common.files import read_object
from common.study import first_few
from common.study_values import run_notes

Runs = Mapping[tuple[str, int], Path]  # (cell's name, seed) → directory of a finished run
Value = TypeVar("Value", bound=Hashable)
_OF_SPLITS = re.compile(r"(train|validation|test|groups): ")
_ABOUT = ("python", "machine", "device", "commit")
_PATHS = ("data", "images", "clips", "lists", "features", "index", "weights", "cache", "output")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What some cells have in common."""

    cells: str
    """their names, or "all cells" """
    lines: tuple[str, ...]


def splits(runs: Runs) -> list[Shared]:
    """What the runs' reports say of train, validation, test and groups; of each cell what its first seed says."""
    by_cell: dict[str, list[tuple[str, ...]]] = {}
    for (cell, _), path in runs.items():
        by_cell.setdefault(cell, []).append(tuple(note for note in run_notes(path) if _OF_SPLITS.match(note)))
    said = {}
    for cell, lines in by_cell.items():
        others = ("of the first seed: the others have other splits",) if len(set(lines)) > 1 else ()
        said[cell] = lines[0] + others if lines[0] else ("its report says nothing of its splits",)
    return [Shared(cells=who, lines=lines) for lines, who in _together(said).items()]


def overlaps(runs: Runs) -> list[Shared]:
    """What the runs' reports say of overlap between their splits; no lines for cells whose reports name none."""
    found: dict[str, dict[str, None]] = {}
    for (cell, _), path in runs.items():
        its = found.setdefault(cell, {})
        if not (path / "report.md").is_file():
            its[f"{path.name} has no report.md: nothing is known of its splits"] = None
        its |= dict.fromkeys(note for note in run_notes(path) if "LEAK" in note)
    return [
        Shared(cells=who, lines=lines) for lines, who in _together({c: tuple(its) for c, its in found.items()}).items()
    ]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing about the environment of the runs."""

    name: str
    said: list[tuple[str, str]]
    """value, and the runs that have it (empty if all have the same)"""


def environment(runs: Runs) -> list[Fact]:
    """Versions, machine, device and commit, as the runs saved them. What none of them saved is left out."""
    saved: dict[str, dict[str, Any]] = {}
    for (cell, seed), path in runs.items():
        try:
            about = read_object(path / "environment.json")
        except UserError:
            about = {}
        packages = about.get("packages")
        values = {name: about.get(name) for name in _ABOUT} | (packages if isinstance(packages, dict) else {})
        saved[f"{cell}, seed {seed}"] = values
    facts = []
    for name in dict.fromkeys(name for values in saved.values() for name in values):
        said = {
            run: "not saved" if (value := values.get(name)) is None else str(value) for run, values in saved.items()
        }
        if set(said.values()) != {"not saved"}:
            together = _together(said)
            facts.append(Fact(name=name, said=[(v, who if len(together) > 1 else "") for v, who in together.items()]))
    return facts


def shared_options(entries: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """→ the options that all cells have alike, and cell → its others."""
    all_options = [entry["options"] for entry in entries]
    alike = {
        name: value
        for name, value in (all_options[0] if all_options else {}).items()
        if all(name in options and options[name] == value for options in all_options)
    }
    own = {entry["name"]: {k: v for k, v in entry["options"].items() if k not in alike} for entry in entries}
    return alike, own


def known_paths(runs: Runs) -> set[str]:
    """The absolute paths in the options of the runs."""
    found: set[str] = set()
    for path in runs.values():
        try:
            options = read_yaml(path / "config.yaml") if (path / "config.yaml").is_file() else {}
        except UserError:
            continue
        found |= {value for name in _PATHS if isinstance(value := options.get(name), str) and value.startswith("/")}
    return found


def _together(said: Mapping[str, Value]) -> dict[Value, str]:
    """What is said → by whom; a few names, "all cells" or nothing to tell apart if it is one thing."""
    names: dict[Value, list[str]] = {}
    for name, value in said.items():
        names.setdefault(value, []).append(name)
    return {value: "all cells" if len(names) == 1 and len(said) > 1 else first_few(its) for value, its in names.items()}
