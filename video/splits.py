"""Labelled clips in splits: from rows of any source to checked train, validation and test.

Belongs here: which classes and rows are used, what group a clip is in, splits made where there are none, and that none
leaks into another; the same for clips (`video/data.py`) and for stored features (`video/stored.py`). Does not belong
here: where rows come from, and groups and leaks of plain strings (`common/splits.py`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from sklearn.model_selection import train_test_split

from common.errors import UserError
from common.records import SPLITS
from common.splits import Overlap, Rows, describe, find_leaks, sample_keys, split_off, summary
from video.ucf101 import match_classes, source_group

UNIT = "clips"
"""What notes and leaks call the samples."""

# Rows on their way to a split have id, path, hash, label, group, split ("" where the source has none), frames, and
# `where` and `row` for messages; of stored features also `place`.


@dataclass(kw_only=True)
class VideoData:
    """A loaded source."""

    splits: dict[str, datasets.Dataset]
    """train, validation, test; see `load_video` for the columns"""
    classes: list[str]
    """those asked for in their order, else the labels of train by alphabet"""
    notes: list[str]
    """lines for a person: sizes, groups, how splits were made, what was left out, what leaks"""
    leaks: list[Overlap]
    """overlaps between splits, empty unless `allow_leaky_split` or `random_split`"""


# --- splits -----------------------------------------------------------------------------------------------------------


def make_splits(
    rows: Rows,
    classes: list[str],
    notes: Sequence[str],
    *,
    where: str,
    validation_fraction: float,
    test_fraction: float,
    split_seed: int,
    allow_leaky_split: bool,
    random_split: bool,
    random_test_fraction: float | None = None,
    swap_splits: bool = False,
    folds: int = 0,
    fold: int = 0,
) -> VideoData:
    """Check the splits that complete `rows` have, and make those that they lack; or with `folds` validation is number
    `fold` of so many parts of train (and of a validation split, if there is one)."""
    splits: dict[str, Rows] = {}
    for row in rows:
        splits.setdefault(row["split"] or "train", []).append(row)
    if "train" not in splits:
        raise UserError(f"{where}: has no train split, only {', '.join(splits)}")
    leaks, notes = _find_leaks(splits, allow=allow_leaky_split), list(notes)
    if swap_splits:
        if "test" not in splits:
            raise UserError(f"--swap-splits: {where} has no test split of its own")
        more = " and validation" * ("validation" in splits)
        splits = {"train": splits["test"], "test": splits["train"] + splits.pop("validation", [])}
        leaks = _find_leaks(splits, allow=allow_leaky_split)
        notes.append(f"swapped: trained on what is called test, tested on what is called train{more}")
    if folds:
        splits["train"] = splits["train"] + splits.pop("validation", [])
    fractions = {"test": test_fraction, "validation": validation_fraction}
    for split, fraction in fractions.items() if random_test_fraction is None else ():
        if split not in splits:
            in_folds = {"folds": folds, "fold": fold} if split == "validation" else {}
            splits["train"], splits[split], note = split_off(
                splits["train"], split, fraction=fraction, seed=split_seed, where=where, unit=UNIT, **in_folds
            )
            notes.append(note)
    if random_split:
        splits = _mix(splits, random_test_fraction, validation_fraction, split_seed)
        leaks = _find_leaks(splits, allow=True)
        which = "train and test" if random_test_fraction is None else "all splits"
        notes.append(f"random split: clips of {which} mixed, whatever their group (split seed {split_seed})")
    splits = {split: splits[split] for split in SPLITS}
    for split, part in splits.items():
        notes += _note_unknown(part, {row["label"] for row in splits["train"]}, f"{split}: ", "train has no clip of")
    return VideoData(
        splits={split: to_dataset(part) for split, part in splits.items()},
        classes=classes,
        notes=[summary(split, part, unit=UNIT) for split, part in splits.items()]
        + notes
        + [f"LEAKY: {describe(leak)}" for leak in leaks],
        leaks=leaks,
    )


# --- rows -------------------------------------------------------------------------------------------------------------


def select_classes(rows: Rows, wanted: Sequence[str], *, where: str) -> tuple[Rows, list[str], list[str]]:
    """→ the rows of the wanted classes (default all), the classes in order, notes.

    Labels that differ in case alone are one class, spelled as it mostly is.
    """
    counts = Counter(row["label"] for row in rows)
    spelled: dict[str, str] = {}
    for label, _ in counts.most_common():
        spelled.setdefault(label.casefold(), label)
    rows = [row | {"label": spelled[row["label"].casefold()]} for row in rows]
    others = [f"{label} = {spelled[label.casefold()]}" for label in counts if label not in spelled.values()]
    names = sorted({row["label"] for row in rows if row["split"] in ("", "train")})
    if wanted:
        names = match_classes(wanted, spelled.values(), where=where)
        rows = [row for row in rows if row["label"] in names]
    if len(names) == 1:
        raise UserError(f"{where}: only one class, {names[0]}; nothing can be learned from fewer than two")
    return rows, names, [f"labels that differ in case are one class: {', '.join(others[:10])}"] * bool(others)


def choose_split(rows: Rows, split: str, classes: Sequence[str], *, where: str) -> tuple[Rows, list[str]]:
    """The rows to be scored by a run of `classes`, labels spelled as the run does; and notes of labels it lacks."""
    chosen = [row for row in rows if row["split"] in ("", split)]
    if not chosen:
        there = dict.fromkeys(row["split"] for row in rows)
        raise UserError(f"{where}: has no {split} split; it has {', '.join(there)}")
    spelled = {name.casefold(): name for name in classes}
    chosen = [row | {"label": spelled.get(row["label"].casefold(), row["label"])} for row in chosen]
    return chosen, _note_unknown(chosen, classes, "", "never right, for the run has no class")


def name_groups(rows: Rows) -> list[str]:
    """Fill in the groups that the source does not name, and tell by what. Rows have `path`, `hash` and `label`."""
    counts: Counter[str] = Counter()
    for row in rows:
        if row["group"]:
            counts["named by the source"] += 1
        elif group := source_group(row["path"], row["label"]):
            row["group"] = group
            counts["by UCF101's names, v_Class_gNN_cNN"] += 1
        else:
            row["group"] = row["hash"][:16]
            counts["each clip for itself, by content"] += 1
    return [f"groups: {', '.join(f'{how} ({count:,} clips)' for how, count in counts.items())}"]


def to_dataset(rows: Rows) -> datasets.Dataset:
    """Complete rows with their columns for a model and for tables; there is at least one."""
    names = ("id", "path", "hash", "label", "group")
    features = {name: datasets.Value("string") for name in names}
    features |= {name: datasets.Value("int64") for name in ("frames", "row", "place") if name in rows[0]}
    columns = {name: [row[name] for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def split_keys(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What `find_overlap` compares: the clips, groups and rows (clip and label) of a split.

    A clip is its content; of stored features, where there is no clip, its path.
    """
    rows = list(rows)
    return sample_keys(rows, [row["path"] if "place" in row else row["hash"] for row in rows], unit=UNIT)


def _find_leaks(splits: Mapping[str, Rows], *, allow: bool) -> list[Overlap]:
    return find_leaks({split: split_keys(splits[split]) for split in SPLITS if split in splits}, allow=allow)


def _mix(
    splits: Mapping[str, Rows], test_fraction: float | None, validation_fraction: float, seed: int
) -> dict[str, Rows]:
    """The clips anew, whatever their group: into train and test of the same sizes; with a fraction, all three."""
    if test_fraction is None:
        train, test = _draw(splits["train"] + splits["test"], len(splits["test"]), seed)
        return {**splits, "train": train, "test": test}
    pool = [row for rows in splits.values() for row in rows]
    tested = max(1, round(len(pool) * test_fraction))
    validated = max(1, round((len(pool) - tested) * validation_fraction))
    if tested + validated >= len(pool):
        raise UserError(
            f"--random-test-fraction {test_fraction}, --validation-fraction {validation_fraction}: "
            f"of {len(pool)} clips that leaves none to train on"
        )
    train, test = _draw(pool, tested, seed)
    train, validation = _draw(train, validated, seed)
    return {"train": train, "validation": validation, "test": test}


def _draw(pool: Rows, size: int, seed: int) -> tuple[Rows, Rows]:
    """→ the rest, and so many of the clips at random, stratified by label where each part can have every label."""
    counts = Counter(row["label"] for row in pool)
    possible = min(counts.values()) > 1 and min(len(pool) - size, size) >= len(counts)
    labels = [row["label"] for row in pool] if possible else None
    return tuple(train_test_split(pool, test_size=size, random_state=seed, stratify=labels))


def _note_unknown(rows: Rows, known: Iterable[str], start: str, why: str) -> list[str]:
    known = set(known)
    counts = Counter(row["label"] for row in rows if row["label"] not in known)
    if not counts:
        return []
    return [f"{start}{sum(counts.values()):,} clips: {why} {', '.join(sorted(counts)[:10])}"]
