"""Clips with labels: from any supported source to checked splits of `datasets.Dataset`.

    data = load_video("FOLDER", cache_directory=Path("cache"))
    data.splits["train"][0]      # id, path, hash, label, group, frames, row

Belongs here: where rows come from and which of their columns is what. Does not belong here: how tables are read
(`common/records.py`), clips found and checked (`video/clips.py`), UCF101's lists and names (`video/ucf101.py`), splits
made and compared (`video/splits.py`), features without clips (`video/stored.py`).

A source is a table (.csv, .tsv, .json, .jsonl, .parquet) or a folder of train, validation and test tables with the
columns path, label and, if there are any, group, split and id; or a folder per class, DIR/Class/CLIP or
DIR/train/Class/CLIP and so on; or UCF101's clips. What is wrong with it is told once, at load, with file and row.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import datasets

from common import records
from common.columns import map_columns
from common.errors import UserError
from common.photos import broken_text, plain_text
from common.records import SPLITS, Source, find_sources, to_path
from common.splits import Rows, limit_note, spread_of_each, summary
from video.clips import SUFFIXES, ClipFolder, check_clips, find_clips
from video.splits import (
    UNIT,
    VideoData,
    choose_split,
    make_splits,
    name_groups,
    select_classes,
    split_keys,
    to_dataset,
)
from video.ucf101 import find_lists, name_class, official_split, place_by_lists

__all__ = ["VideoData", "check_clips", "load_clips", "load_video", "read_rows", "split_keys"]

COLUMNS = ("path", "label", "group", "split", "id")
_ALIASES = {alias: split for split, aliases in SPLITS.items() for alias in aliases}


# --- loading ----------------------------------------------------------------------------------------------------------


def load_video(
    source: str,
    *,
    clips: str | None = None,
    split_list: int | None = None,
    classes: Sequence[str] = (),
    lists: str | None = None,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_clip: str = "fail",
    allow_leaky_split: bool = False,
    columns: Mapping[str, str] | None = None,
    random_split: bool = False,
    random_test_fraction: float | None = None,
    swap_splits: bool = False,
    folds: int = 0,
    fold: int = 0,
    cache_directory: Path,
    limit: int | None = None,
) -> VideoData:
    """Load and check the three splits of `source`.

    Columns: `id`, `path` (absolute), `hash` (SHA-256 of the clip's bytes), `label`, `group`, `frames` (how many it
    has), `row`. Without a `group` column a clip named as UCF101's are belongs to its source video, any other to its
    content. Ids that are missing or not unique are SPLIT-ROW, in a folder the path.

    clips: folder that the paths of a table start from; default the table's own.
    split_list: the clips and splits of UCF101's official lists 1, 2 or 3, which are looked for in `lists`, else in,
      beneath and beside the folder (`video/ucf101.py`).
    classes: use only these, in any case, in this order.
    validation_fraction, test_fraction, split_seed: a split the source lacks is taken from train, in whole groups,
      stratified by label; test first, validation from what is left.
    folds, fold: validation is number `fold` of so many group folds of train, for cross-validation.
    on_bad_clip: "fail", or "skip": clips that are missing or cannot be decoded are left out and counted in the notes.
    columns: ours → theirs, for tables that name them otherwise.
    random_split: clips of train and test, when these are made, change places at random, whatever their group: what the
      leak is shown with (`scripts/show_leak.py`). The sizes and the validation clips stay; or with
      random_test_fraction that part of all clips becomes test, and validation_fraction of the rest validation, both at
      random (report R1).
    swap_splits: train and test change names, before anything else is made of them.
    limit: use only so many clips of each split (each file), evenly spread over it, for smoke tests.

    Raises `UserError` for anything wrong with the source: see the module.
    """
    skip = _check_choices(on_bad_clip, limit)
    rows, root, notes = _read(source, columns or {}, cache_directory, clips)
    if split_list is not None:
        folder = find_lists(root, lists, split_list)
        mixed = random_split and random_test_fraction is not None
        official = official_split(folder, split_list, classes)
        rows, more = place_by_lists(rows, official, where=source, skip=skip, mixed=mixed)
        notes += [f"splits: UCF101's official lists {split_list} in {folder}", *more]
        rows = [row | {"split": "train"} for row in rows] if mixed else rows  # all of them are split anew
    rows, names, more = select_classes(rows, classes, where=source)
    notes += more
    rows, more = _add_clips(spread_of_each(rows, limit), root, skip=skip, cache=cache_directory)
    return make_splits(
        rows,
        names,
        notes + more + limit_note(limit, unit=UNIT),
        where=source,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
        allow_leaky_split=allow_leaky_split,
        random_split=random_split,
        random_test_fraction=random_test_fraction,
        swap_splits=swap_splits,
        folds=folds,
        fold=fold,
    )


def load_clips(
    source: str,
    *,
    clips: str | None = None,
    split: str = "test",
    classes: Sequence[str],
    split_list: int | None = None,
    lists: str | None = None,
    on_bad_clip: str = "fail",
    columns: Mapping[str, str] | None = None,
    cache_directory: Path,
    limit: int | None = None,
) -> tuple[datasets.Dataset, list[str]]:
    """Load clips to be scored by a run of `classes`: → rows as from `load_video`, and notes.

    Of a source with splits the one named `split`, else all. Labels in another case than the run's become the run's;
    one that is not among them is kept and noted. UCF101's lists give the clips of the run's classes only.
    """
    skip = _check_choices(on_bad_clip, limit)
    rows, root, notes = _read(source, columns or {}, cache_directory, clips)
    if split_list is not None:
        try:
            official = official_split(find_lists(root, lists, split_list), split_list, classes)
        except UserError as error:
            raise UserError(f"--split-list {split_list} gives the clips of the run's classes: {error}") from None
        rows, more = place_by_lists(rows, official, where=source, skip=skip, needed=(split,))
        notes += more
    rows, unknown = choose_split(rows, split, classes, where=source)
    rows, more = _add_clips(spread_of_each(rows, limit), root, skip=skip, cache=cache_directory)
    return to_dataset(rows), [summary(split, rows, unit=UNIT), *notes, *more, *unknown, *limit_note(limit, unit=UNIT)]


def _check_choices(on_bad_clip: str, limit: int | None) -> bool:
    """Whether bad clips are skipped."""
    if on_bad_clip not in ("fail", "skip"):
        raise UserError(f"--on-bad-clip {on_bad_clip!r}: allowed are fail, skip")
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: give a number of clips, 1 or more")
    return on_bad_clip == "skip"


# --- tables -----------------------------------------------------------------------------------------------------------


def read_rows(source: Source, given: Mapping[str, str]) -> Rows:
    """The rows of a table: `COLUMNS` as text ("" where there is none), `where` and `row`.

    given: ours → theirs. Raises `UserError` with file and row for a blank path or label and an unknown split.
    """
    names = map_columns(source.names, given, COLUMNS, source.where, needed=("path", "label"))
    rows: Rows = []
    for numbers, batch in source.batches(list(dict.fromkeys(names.values()))):
        for place, number in enumerate(numbers):
            values = {ours: batch[theirs][place] for ours, theirs in names.items()}
            try:
                texts = dict.fromkeys(COLUMNS, "") | {ours: _text(ours, value) for ours, value in values.items()}
            except UserError as error:
                raise UserError(f"{source.where}, row {number}: {error}") from None
            rows.append(texts | {"where": source.where, "row": number})
    if not rows:
        raise UserError(f"{source.where}: has no rows")
    blank = next((row["row"] for row in rows if not row["split"]), None)
    if blank is not None and any(row["split"] for row in rows):
        raise UserError(f"{source.where}, row {blank}: split is blank, but other rows have one; fill it in")
    ids = {row["id"] for row in rows}
    if len(ids) < len(rows) or "" in ids:
        rows = [row | {"id": f"{source.stem}-{row['row']}"} for row in rows]
    return rows


def _text(name: str, value: Any) -> str:
    text = plain_text(value).strip()
    if broken_text(text):
        raise UserError(f"{name} holds a broken Unicode character")
    if not text and name in ("path", "label"):
        raise UserError(f"{name} is blank; fill it in or remove the row")
    if name == "split" and text:
        if text.lower() not in _ALIASES:
            raise UserError(f"split {text[:50]!r} is none of {', '.join(SPLITS)}")
        text = _ALIASES[text.lower()]
    return text


# --- sources ----------------------------------------------------------------------------------------------------------


def _read(source: str, columns: Mapping[str, str], cache: Path, clips_in: str | None) -> tuple[Rows, Path, list[str]]:
    """→ the rows of a source, the folder that their paths start from, notes."""
    path = to_path(source)
    is_folder = os.path.isdir(path)
    if is_folder and not _has_tables(path) and (clips := find_clips(path)):
        if clips_in is not None:
            raise UserError(f"--clips names the folder of the clips that a table lists, and {source} is no table")
        rows, notes = _folder_rows(path, clips)
        return rows, path, notes
    try:
        found = find_sources(source, cache)
    except UserError as error:
        kinds = f", nor a clip ({' '.join(SUFFIXES)}) in a folder per class" if is_folder else ""
        raise UserError(f"{error}{kinds}") from None
    rows = []
    for split, part in found.items():
        read = read_rows(part, columns)
        if len(found) > 1 or not (os.path.isfile(path) or read[0]["split"]):
            read = [row | {"split": split} for row in read]
        rows += read
    root = next(iter(found.values())).root if clips_in is None else to_path(clips_in)
    if not root.is_dir():
        raise UserError(f"--clips {clips_in}: no such folder")
    return rows, root, []


def _has_tables(folder: Path) -> bool:
    try:
        files = [PurePath(name) for name in os.listdir(folder)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    return any(file.stem.lower() in _ALIASES and file.suffix.lower() in records.SUFFIXES for file in files)


def _folder_rows(folder: Path, clips: Sequence[str]) -> tuple[Rows, list[str]]:
    """Rows of DIR/Class/CLIP, or of DIR/train/Class/CLIP; clips named as UCF101's need no folder of their class."""
    tops = [_split_of(clip) for clip in clips]
    in_splits = "train" in tops or all(tops)
    rows: Rows = []
    for number, clip in enumerate(clips, start=1):
        split = _split_of(clip) if in_splits else ""
        if split is None:
            continue
        inside = PurePath(clip).parts[1 if in_splits else 0 :]
        label = inside[0] if len(inside) > 1 else name_class(clip)
        if label is None:
            raise UserError(f"{folder}: {clip} lies in no class's folder; put it into one, or list clips in a table")
        texts = {"path": clip, "id": PurePath(clip).as_posix(), "label": label, "group": "", "split": split}
        rows.append(texts | {"where": str(folder), "row": number})
    beside = len(clips) - len(rows)
    return rows, [f"left out: {beside:,} clips of {folder} beside its train, validation and test"] * bool(beside)


def _split_of(clip: str) -> str | None:
    """The split whose folder a clip lies in: DIR/train is one if classes, or clips named as UCF101's, are in it."""
    top, *inside = PurePath(clip).parts
    return _ALIASES.get(top.lower()) if len(inside) > 1 or (inside and name_class(clip)) else None


def _add_clips(rows: Rows, root: Path, *, skip: bool, cache: Path) -> tuple[Rows, list[str]]:
    """Rows with absolute paths, hashes, numbers of frames and groups, without those of bad clips; and notes."""
    folder = ClipFolder(root)
    for row in rows:
        try:
            row["path"] = folder.find(row["path"])
        except UserError as error:
            raise UserError(f"{row['where']}, row {row['row']}: {error}") from None
    checked = check_clips(list(dict.fromkeys(row["path"] for row in rows)), cache, stop=not skip)
    kept: Rows = []
    bad: dict[str, list[str]] = {}  # split → what is wrong with its clips
    for row in rows:
        found = checked.get(row["path"])  # None: after the first bad one
        if isinstance(found, UserError):
            bad.setdefault(row["split"], []).append(f"{row['where']}, row {row['row']}: {found}")
        elif found is not None:
            kept.append(row | found._asdict())
    if not bad:
        return kept, name_groups(kept)
    first = next(iter(bad.values()))[0]
    if not skip:
        raise UserError(f"{first}; --on-bad-clip skip leaves such rows out")
    for split in set(bad) - {row["split"] for row in kept}:
        raise UserError(
            f"no clip{' of ' * bool(split)}{split} is left, for all are missing or unreadable: {bad[split][0]}"
        )
    count = sum(map(len, bad.values()))
    note = f"skipped: {count:,} of {len(rows):,} clips, which are missing or unreadable; the first: {first}"
    return kept, [note, *name_groups(kept)]
