"""Photos with labels: from any supported source to classes and checked splits of `datasets.Dataset`.

    data = load_photos("FOLDER", cache_directory=Path("cache"))
    data.splits["train"][0]      # id, image, hash, label, group, row

Belongs here: which class each label is, splits made and compared. Does not belong here: where rows come from
(`common/classifier_rows.py`), and groups and leaks of plain strings (`common/splits.py`).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from common.classifier_rows import label_names, read_photos
from common.errors import UserError
from common.records import SPLITS
from common.splits import (
    Overlap,
    Rows,
    describe,
    find_leaks,
    limit_note,
    sample_keys,
    split_off,
    spread_of_each,
    summary,
)

UNIT = "photos"  # what notes and leaks call the samples
_SHOWN = 10  # labels named in a line


@dataclass(kw_only=True)
class ImageData:
    """A loaded source."""

    splits: dict[str, datasets.Dataset]
    """train and validation, and test unless the source has splits of its own without one; see `load_photos`"""
    classes: list[str]
    """the labels of train, by alphabet"""
    notes: list[str]
    """lines for a person: sizes, how splits were made, what was left out, what leaks"""
    leaks: list[Overlap]
    """overlaps between splits, empty unless `allow_leaky_split`"""


def load_photos(
    source: str,
    *,
    images: str | None = None,
    columns: Mapping[str, str] | None = None,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_image: str = "fail",
    allow_leaky_split: bool = False,
    cache_directory: Path,
    limit: int | None = None,
) -> ImageData:
    """Load and check the splits of `source`.

    Columns: `id`, `image` (absolute path), `hash` (SHA-256 of the file's bytes), `label` (its class), `group` (as
    given, else from the hash), `row`. Labels that differ in case or separators alone ("fan_capacitor", "Fan
    capacitor") are one class, spelled as it mostly is.

    validation_fraction, test_fraction, split_seed: validation is taken from train where there is none, in whole groups,
      stratified by label; test is only if the source has no splits at all: else what is not there stays so.
    limit: use only so many photos of each split, evenly spread over it, for smoke tests.

    Raises `UserError` for anything wrong with the source: a file that is no photo, a class folder without one, a label
    of validation or test that train has not, a leak.
    """
    skip = _check_choices(on_bad_image, limit)
    rows, notes = read_photos(source, images=images, columns=columns or {}, skip=skip, cache=cache_directory)
    train = [row for row in rows if row["split"] in ("", "train")]
    if not train:
        raise UserError(f"{source}: has no train split, only {', '.join(dict.fromkeys(row['split'] for row in rows))}")
    classes = _find_classes(train)
    if len(classes) < 2:
        raise UserError(f"{source}: only one class, {classes[0]}; nothing can be learned from fewer than two")
    rows = name_classes(rows, classes, whose=f"the training photos of {source}")
    rows = spread_of_each(rows, limit)
    splits: dict[str, Rows] = {}
    for row in rows:
        splits.setdefault(row["split"] or "train", []).append(row)
    keys = {split: split_keys(splits[split]) for split in SPLITS if split in splits}
    leaks = find_leaks(keys, allow=allow_leaky_split)
    named = any(row["split"] for row in rows)
    for split, fraction in ([] if named else [("test", test_fraction)]) + [("validation", validation_fraction)]:
        if split not in splits:
            splits["train"], splits[split], note = _take(splits["train"], split, fraction, split_seed, source)
            notes.append(note)
    if "test" not in splits:
        notes.append(f"test: none; {source} has splits without one, and nothing is taken from its train")
    notes += limit_note(limit, unit=UNIT)
    splits = {split: splits[split] for split in SPLITS if split in splits}
    return ImageData(
        splits={split: to_dataset(part) for split, part in splits.items()},
        classes=classes,
        notes=[summary(split, part, unit=UNIT) for split, part in splits.items()]
        + notes
        + [f"LEAKY: {describe(leak)}" for leak in leaks],
        leaks=leaks,
    )


def load_scored(
    source: str,
    *,
    classes: Sequence[str],
    split: str = "test",
    images: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad_image: str = "fail",
    cache_directory: Path,
) -> tuple[datasets.Dataset, list[str]]:
    """The photos of a source (of its `split`, if it has any) for a run of `classes`, and notes.

    Raises `UserError` also for labels that no class has, by name.
    """
    skip = _check_choices(on_bad_image, None)
    rows, notes = read_photos(source, images=images, columns=columns or {}, skip=skip, cache=cache_directory)
    chosen = [row for row in rows if row["split"] in ("", split)]
    if not chosen:
        there = ", ".join(dict.fromkeys(row["split"] for row in rows))
        raise UserError(f"{source}: has no {split} split; it has {there}: name one with --split")
    chosen = name_classes(chosen, classes, whose="the run")
    return to_dataset(chosen), [summary(split, chosen, unit=UNIT), *notes]


# --- labels -----------------------------------------------------------------------------------------------------------


def label_key(label: str) -> str:
    """What is left of a label without what spellings differ in: case, separators (_, -, spaces) and Unicode's forms."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", label).casefold())


def name_classes(rows: Rows, classes: Sequence[str], *, whose: str) -> Rows:
    """`rows` with the class of each as its label. Raises `UserError` that names the labels which are of no class."""
    spelled = {label_key(name): name for name in classes}
    unknown: dict[str, list[str]] = {}
    named = []
    for row in rows:
        keys = [label_key(name) for name in label_names(row)]
        known = next((spelled[key] for key in keys if key in spelled), None)
        if known is None:
            unknown.setdefault(label_names(row)[-1], []).append(row["id"])
        named.append(row | {"label": known})
    if unknown:
        listed = [
            f"'{label}' ({ids[0]}{f' and {len(ids) - 1} more' if len(ids) > 1 else ''})"
            for label, ids in unknown.items()
        ]
        more = _and_more(len(listed) - _SHOWN)
        what = "label matches" if len(listed) == 1 else "labels match"
        raise UserError(
            f"{rows[0]['where']}: {len(listed)} {what} no class of {whose}: {', '.join(listed[:_SHOWN])}{more}; "
            f"its classes: {', '.join(classes[:50])}{' …' * (len(classes) > 50)}"
        )
    return named


def _and_more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _find_classes(rows: Rows) -> list[str]:
    """The classes of training rows: their labels, each spelled as it mostly is, by alphabet."""
    counts = Counter(label_names(row)[-1] for row in rows)
    spelled: dict[str, str] = {}
    for label, _ in counts.most_common():
        spelled.setdefault(label_key(label), label)
    return sorted(spelled.values())


# --- splits -----------------------------------------------------------------------------------------------------------


def split_keys(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What `find_overlap` compares: the photos (by content), groups and rows (photo and label) of a split."""
    rows = list(rows)
    return sample_keys(rows, [row["hash"] for row in rows], unit=UNIT)


def to_dataset(rows: Rows) -> datasets.Dataset:
    """Complete rows with their columns for a model and for tables."""
    features = dict.fromkeys(("id", "image", "hash", "label", "group"), datasets.Value("string"))
    features["row"] = datasets.Value("int64")
    columns = {name: [row[name] for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _take(rows: Rows, split: str, fraction: float, seed: int, where: str) -> tuple[Rows, Rows, str]:
    """`split_off`, refused where it would leave a class without a photo to learn from."""
    stay, go, note = split_off(rows, split, fraction=fraction, seed=seed, where=where, unit=UNIT)
    missing = sorted({row["label"] for row in rows} - {row["label"] for row in stay})
    if missing:
        raise UserError(
            f"{where}: {split} would take the only photos of {', '.join(missing[:_SHOWN])} from train; give these "
            "classes more photos, another --split-seed, or a split as a folder or table of its own"
        )
    return stay, go, note


def _check_choices(on_bad_image: str, limit: int | None) -> bool:
    """Whether bad photos are skipped."""
    if on_bad_image not in ("fail", "skip"):
        raise UserError(f"--on-bad-image {on_bad_image!r}: allowed are fail, skip")
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: give a number of photos, 1 or more")
    return on_bad_image == "skip"
