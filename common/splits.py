"""Splits that keep groups whole, and the overlaps between splits that would make a score too good.

Belongs here: anything about groups, content hashes and row keys as plain strings, and what splits of labelled photos
and of labelled clips share. Does not belong here: where they come from, which is the tasks' business (`vqa/data.py`,
`video/data.py`, `common/classifier_data.py`).

A group is what must not be in two splits: near-duplicates of one photo, clips cut from one video. On photos or clips
that were trained on in part, a score says how well they were remembered.
"""

import itertools
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from common.errors import UserError

_STRATA = 200  # labels that are balanced one by one, the most frequent: bounds the time and memory of a split

Keys = Mapping[str, Iterable[str]]
"""What a split holds, by kind, most telling kind first: {"photos": hashes, "groups": names, "rows": keys}."""

Rows = list[dict[str, Any]]
"""Labelled samples on their way to a split: `label`, `group`, `hash` and `split` ("" where the source has none) are
read here."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What a second split shares with a first: groups, contents (photos, clips) and rows, each counted once."""

    first: str
    second: str
    shared: dict[str, int]
    """kind → how many of the second split's are in the first too"""
    total: dict[str, int]
    """kind → how many the second split has"""

    @property
    def kind(self) -> str:
        """The kind that overlaps most; of equals the first given."""
        return max(self.total, key=lambda kind: self.shared[kind] / max(1, self.total[kind]))

    @property
    def fraction(self) -> float:
        """The part of the second split that is in the first, 0–1, by the kind that overlaps most."""
        return self.shared[self.kind] / max(1, self.total[self.kind])


def find_overlap(first: Keys, second: Keys, *, names: tuple[str, str] = ("train", "test")) -> Overlap | None:
    """What the split `second` shares with `first`, or None where they share nothing. Kinds are those of `second`."""
    known = {kind: set(first.get(kind, ())) for kind in second}
    keys = {kind: set(values) for kind, values in second.items()}
    shared = {kind: len(values & known[kind]) for kind, values in keys.items()}
    if not any(shared.values()):
        return None
    return Overlap(first=names[0], second=names[1], shared=shared, total={kind: len(keys[kind]) for kind in keys})


def describe(overlap: Overlap) -> str:
    """One line: "49 % of test photos are in train (photos 1,373 of 2,789, rows 21 of 3,001)"."""
    part = "less than 1 %" if overlap.fraction < 0.01 else f"{overlap.fraction * 100:.0f} %"
    counts = [f"{kind} {overlap.shared[kind]:,} of {total:,}" for kind, total in overlap.total.items() if total]
    return f"{part} of {overlap.second} {overlap.kind} are in {overlap.first} ({', '.join(counts)})"


def check_overlap(first: Keys, second: Keys, *, names: tuple[str, str], allow: bool) -> Overlap | None:
    """`find_overlap`, refused with its counts (`UserError`) unless `allow`."""
    overlap = find_overlap(first, second, names=names)
    if overlap is not None and not allow:
        raise UserError(
            f"leak: {describe(overlap)}, so scores would be too good; give other data, or go on all the same with "
            "--allow-leaky-split"
        )
    return overlap


def find_leaks(splits: Mapping[str, Keys], *, allow: bool) -> list[Overlap]:
    """What each split shares with those before it, `check_overlap` of every pair."""
    pairs = itertools.combinations(splits, 2)
    found = (check_overlap(splits[one], splits[two], names=(one, two), allow=allow) for one, two in pairs)
    return [overlap for overlap in found if overlap is not None]


def link_groups(groups: Sequence[str], contents: Sequence[str]) -> list[str]:
    """Groups (one per row) joined where rows of several share a content, and named after the first by alphabet.

    So a photo whose bytes occur in two groups holds both together, and a split by the result leaks neither.
    """
    if not groups:
        return []
    names, group = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    _, content = np.unique(np.asarray(contents, dtype=object), return_inverse=True)
    nodes = len(names) + content.max() + 1
    graph = coo_array((np.ones(len(groups)), (group, len(names) + content)), shape=(nodes, nodes))
    _, component = connected_components(graph, directed=False)
    _, smallest = np.unique(component[: len(names)], return_index=True)  # names are sorted: the first is the smallest
    name_of = dict(zip(component[smallest], names[smallest], strict=True))
    return [name_of[component[place]] for place in group]


def group_split(
    labels: Sequence[str], groups: Sequence[str], *, fraction: float, seed: int, what: str = "the data"
) -> tuple[list[int], list[int]]:
    """Split rows so that no group straddles: → indices of what stays, indices of about `fraction` of the rows.

    Both parts have at least one group and labels in about the same proportions (scikit-learn's `StratifiedGroupKFold`).
    The same groups, labels and seed give the same parts in whatever order the rows come. Raises `UserError` (naming
    `what`) for a fraction that is not between 0 and 1 and for fewer than two groups.
    """
    if not 0 < fraction < 1:
        raise UserError(f"{what}: a part of {fraction} cannot be split off; give a fraction between 0 and 1")
    count = len(set(groups))
    if count < 2:
        raise UserError(
            f"{what}: {count} group(s) in {len(groups)} row(s) to split, but a group stays whole and a split needs "
            "two; give more, or the split as a file of its own, or smaller groups"
        )
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[_part(np.asarray(labels, dtype=object), np.asarray(groups, dtype=object), fraction, seed)] = True
    return np.flatnonzero(~chosen).tolist(), np.flatnonzero(chosen).tolist()


def group_fold(
    labels: Sequence[str], groups: Sequence[str], *, folds: int, fold: int, seed: int, what: str = "the data"
) -> tuple[list[int], list[int]]:
    """As `group_split`, but what is split off is number `fold` of `folds` parts that together are all rows: over all
    of them, each row is validated on once. Raises `UserError` for a fold that is not there and for too few groups."""
    count = len(set(groups))
    if not 0 <= fold < folds:
        raise UserError(f"{what}: fold {fold} of {folds}; they count from 0 to {folds - 1}")
    if not 2 <= folds <= count:
        raise UserError(f"{what}: {folds} folds of {count} group(s); a group stays whole, give 2 to {max(2, count)}")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of labels rarer than folds
        stay, go = list(splitter.split(labels, labels, groups))[fold]
    if not len(go):
        raise UserError(f"{what}: no group falls into fold {fold} of {folds}; give fewer folds")
    return stay.tolist(), go.tolist()


def _part(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Indices of about `fraction` of the rows: as many folds as make it up. There are two groups or more."""
    if fraction > 0.5:
        return np.setdiff1d(np.arange(len(labels)), _part(labels, groups, 1 - fraction, seed))
    if fraction < 0.1:  # a part of a part: the time of many folds grows with their square
        tenth = _part(labels, groups, 0.1, seed)
        return tenth[_part(labels[tenth], groups[tenth], fraction * 10, seed)] if len(set(groups[tenth])) > 1 else tenth
    folds = min(Fraction(fraction).limit_denominator(10).denominator, len(set(groups)))
    counts = sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
    kept = {label for label, count in counts[:_STRATA] if count >= folds}
    strata = [label if label in kept else "" for label in labels]  # too rare to be in every fold: together
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ... and the rare ones may be few even together
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        parts = [part for _, part in splitter.split(strata, strata, groups) if len(part)]
    taken = min(max(1, round(fraction * len(parts))), len(parts) - 1)
    return np.concatenate(parts[:taken])


# --- labelled samples -------------------------------------------------------------------------------------------------


def spread_of_each(rows: Rows, limit: int | None) -> Rows:
    """`limit` rows of each split, of every class its share, evenly spread over it.

    Every so many rows of a source that has its classes in turn would be all of the same few.
    """
    if limit is None:
        return rows
    together: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        together.setdefault(row["split"], []).append(place)
    for places in together.values():
        places.sort(key=lambda place: rows[place]["label"])
    kept = {
        places[(2 * number + 1) * len(places) // (2 * limit)] for places in together.values() for number in range(limit)
    }
    return [row for place, row in enumerate(rows) if place in kept]


def limit_note(limit: int | None, *, unit: str) -> list[str]:
    """The note of `spread_of_each`, if it left anything to note. `unit`: what samples are called, "photos"."""
    if limit is None:
        return []
    return [f"limit: only {limit:,} {unit} of each split are used, spread evenly over it and its classes"]


def sample_keys(rows: Iterable[Mapping[str, Any]], contents: Sequence[str], *, unit: str) -> dict[str, list[str]]:
    """What `find_overlap` compares: the samples (by `contents`, one per row), groups and rows (label and content)."""
    pairs = list(zip(rows, contents, strict=True))
    return {
        unit: list(contents),
        "groups": [row["group"] for row, _ in pairs],
        "rows": [f"{row['label']}\t{content}" for row, content in pairs],
    }


def split_off(
    rows: Rows, split: str, *, fraction: float, seed: int, where: str, unit: str, folds: int = 0, fold: int = 0
) -> tuple[Rows, Rows, str]:
    """→ the rows that stay in train, those that become `split` (whole groups, stratified by label), and a note.

    About `fraction` of them, or with `folds` number `fold` of so many parts. Rows that share a content stay together.
    """
    labels = [row["label"] for row in rows]
    linked = link_groups([row["group"] for row in rows], [row["hash"] for row in rows])
    if folds:
        stay, go = group_fold(labels, linked, folds=folds, fold=fold, seed=seed, what=where)
    else:
        stay, go = group_split(labels, linked, fraction=fraction, seed=seed, what=where)
    note = (
        f"{split}: {len(go):,} of {len(rows):,} training {unit} of {where}, whole groups, stratified by label "
        f"(split seed {seed})" + f", fold {fold} of {folds}" * bool(folds)
    )
    return [rows[place] for place in stay], [rows[place] for place in go], note


def summary(split: str, rows: Rows, *, unit: str, shown: int = 10) -> str:
    """One line for a person: how many samples, groups, and of each label."""
    counts = Counter(row["label"] for row in rows).most_common()
    listed = ", ".join(f"{label} {count:,}" for label, count in counts[:shown])
    more = f" and {len(counts) - shown} more" if len(counts) > shown else ""
    return f"{split}: {len(rows):,} {unit} in {len({row['group'] for row in rows}):,} groups; {listed}{more}"
