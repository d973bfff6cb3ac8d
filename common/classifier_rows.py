"""Labelled photos as rows: from a folder or a table, whatever its layout, before anything is made of them.

Belongs here: which files and rows there are, what label, split and group each names, and that each is a photo. Does not
belong here: which class a label is, and splits (`common/classifier_data.py`).

A folder is DIR/CLASS/PHOTO; DIR/train/CLASS/PHOTO with validation and test beside; or photos named by their label,
`label.jpg` or `label_3.jpg`, in DIR or in one of its splits. A table has the columns image and label.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from common import records
from common.columns import map_columns
from common.errors import UserError
from common.photos import (
    SUFFIXES,
    PhotoFolder,
    broken_text,
    check_photos,
    list_names,
    photo_reference,
    plain_text,
    walk_files,
)
from common.records import SPLITS, Source, find_sources, to_path
from common.splits import Rows

COLUMNS = ("image", "label", "group", "split", "id")
ALIASES = {alias: split for split, aliases in SPLITS.items() for alias in aliases}

# Rows on their way to a split have `id`, `image` (reference, then absolute path), `label`, `named` (the label is the
# file's name, number and all), `group` ("" if not told), `split` ("" if not told), and `where` and `row` for messages.

_JUNK = ("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r")  # what file managers leave in folders of photos
# Of photos that nobody has named: IMG_0001, DSC00012, PXL_20240103_..., 2024-01-03 10.00.00, Screenshot (3).
_CAMERA = re.compile(
    r"(_?img|_?dsc[nf]?|_?mg|pxl|mvimg|gopr|gp|dji|wp|sam|cimg|imag|image|photo|picture|screenshot|untitled|ảnh|hình|received)"
    r"[\W\d_]*(e\d+|wa\d+|bokeh|burst\d*|cover|hdr|portrait|mp|copy)*[\W\d_]*|p\d{6,}|[\W_]*\d{6,}[\W\d_]*|\d{4}(-\d+)+[\W\d_]*"
)
# As long as the text takes, however it is filled: a run of blanks is tried from its start alone.
_NUMBER = re.compile(r"(?:(?<![\s_-])[\s_-]++\d++|(?<!\s)\s*+\(\d++\))$")


def label_names(row: Mapping[str, Any]) -> list[str]:
    """The labels that a row may mean, most likely first: of `type_2.jpg` "type_2", then "type"."""
    label = row["label"]
    plain = _NUMBER.sub("", label)
    return [label, plain] if row["named"] and plain and plain != label else [label]


def read_photos(
    source: str, *, images: str | None, columns: Mapping[str, str], skip: bool, cache: Path
) -> tuple[Rows, list[str]]:
    """→ the rows of a source, each with the photo's absolute path and `hash`, and notes.

    `columns`: ours → theirs, of a table. With `skip`, class folders without a photo and files that are none are left
    out and noted; else they are refused. Raises `UserError` for anything wrong, with file and row.
    """
    path = to_path(source)
    if is_folder_of_photos(source):
        if images is not None:
            raise UserError(f"--images names the folder of the photos that a table lists, and {source} is no table")
        if columns:
            raise UserError(f"--columns names the columns of a table, and {source} is none; leave it out")
        rows, notes = _folder_rows(path, skip=skip)
        root = path
    else:
        rows, root = _table_rows(source, path, columns, cache)
        notes = []
    if images is not None:
        root = to_path(images)
        if not root.is_dir():
            raise UserError(f"--images {images}: no such folder")
    rows, more = _add_photos(rows, root, skip=skip, cache=cache)
    return rows, notes + more


# --- folders ----------------------------------------------------------------------------------------------------------


def is_folder_of_photos(source: str) -> bool:
    """Whether it is a folder whose photos' places or names tell the labels; else it is read as tables."""
    path = to_path(source)
    return os.path.isdir(path) and not _has_tables(path) and _has_photos(path)


def _has_tables(folder: Path) -> bool:
    files = [PurePath(name) for name in list_names(folder)]
    return any(file.stem.lower() in ALIASES and file.suffix.lower() in records.SUFFIXES for file in files)


def _has_photos(folder: Path) -> bool:
    if any(
        (folder / name).is_file() for name in ("metadata.csv", "metadata.jsonl")
    ):  # a data set of photos by `datasets`
        return False
    return any(path.lower().endswith(SUFFIXES) for path in walk_files(folder))


def _folder_rows(folder: Path, *, skip: bool) -> tuple[Rows, list[str]]:
    names = [name for name in list_names(folder) if os.path.isdir(folder / name)]
    splits = {name: ALIASES[name.lower()] for name in names if name.lower() in ALIASES}
    if "train" in splits.values() or (names and len(splits) == len(names)):
        twice = [split for split, count in Counter(splits.values()).items() if count > 1]
        if twice:
            both = " and ".join(name for name, split in splits.items() if split == twice[0])
            raise UserError(f"{folder}: both {both} could be its {twice[0]}; keep one")
        parts = splits
    else:
        parts = {"": ""}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for name, split in parts.items():
        found, more = _part_rows(folder, name, split, skip=skip)
        rows, notes = rows + found, notes + more
    beside = [name for name in names if parts != {"": ""} and name not in parts]
    notes += [f"left out: {folder}'s folders beside its splits: {', '.join(beside[:10])}"] * bool(beside)
    return rows, notes


def _part_rows(folder: Path, part: str, split: str, *, skip: bool) -> tuple[Rows, list[str]]:
    """The photos of a folder of class folders, or of photos named by their label."""
    names = list_names(folder / part)
    classes = [name for name in names if os.path.isdir(folder / part / name)]
    files = [name for name in names if name not in classes]
    photos = [name for name in files if name.lower().endswith(SUFFIXES)]
    others = [name for name in files if name not in photos and name.lower() not in _JUNK]
    if classes and photos:
        raise UserError(
            f"{folder / part}: {photos[0]} lies beside the folders of the classes; put it into one, or remove it"
        )
    if not classes and not photos:
        raise UserError(f"{folder / part}: no folder per class in it, and no photo")
    found = [(os.path.join(part, name), os.path.splitext(name)[0], True) for name in photos]
    unnamed = [name for name in photos if _CAMERA.fullmatch(os.path.splitext(name)[0].lower())]
    if 2 * len(unnamed) > len(photos):
        raise UserError(
            f"{folder / part}: {unnamed[0]} and {len(unnamed) - 1} others are called as a camera calls them, which "
            "tells no label; put the photos into a folder per class, or give a table with image and label"
        )
    empty = []
    for label in classes:
        inside = [os.path.relpath(path, folder) for path in walk_files(folder / part / label, folder)]
        inside = [path for path in inside if PurePath(path).name.lower() not in _JUNK]
        found += [(path, label, False) for path in inside]
        empty += [label] * (not inside)
    notes = []
    if empty and not skip:
        raise UserError(
            f"{folder / part / empty[0]}: a class folder without a photo; put photos into it, remove it, or go on "
            "without it with --on-bad-image skip"
        )
    if empty:
        notes.append(f"left out: class folders without a photo in {folder / part}: {', '.join(empty[:10])}")
    if others:
        notes.append(f"left out: {len(others):,} files of {folder / part} that are no photos: {', '.join(others[:5])}")
    rows = [
        {"id": PurePath(path).as_posix(), "image": path, "label": label, "named": named, "group": "", "split": split}
        | {"where": str(folder), "row": number}
        for number, (path, label, named) in enumerate(found, start=1)
    ]
    return rows, notes


# --- tables -----------------------------------------------------------------------------------------------------------


def _table_rows(source: str, path: Path, columns: Mapping[str, str], cache: Path) -> tuple[Rows, Path]:
    try:
        found = find_sources(source, cache)
    except UserError as error:
        kinds = f", nor a photo ({' '.join(SUFFIXES[:5])} …)" if os.path.isdir(path) else ""
        raise UserError(f"{error}{kinds}") from None
    rows: Rows = []
    for split, part in found.items():
        read = _read_table(part, columns, cache)
        if len(found) > 1 or not (os.path.isfile(path) or read[0]["split"]):
            read = [row | {"split": split} for row in read]
        rows += read
    return rows, next(iter(found.values())).root


def _read_table(source: Source, given: Mapping[str, str], cache: Path) -> Rows:
    names = map_columns(source.names, given, COLUMNS, source.where, needed=("image", "label"))
    rows: Rows = []
    for numbers, batch in source.batches(list(dict.fromkeys(names.values()))):
        for place, number in enumerate(numbers):
            try:
                values = {ours: batch[theirs][place] for ours, theirs in names.items()}
                image = photo_reference(values.pop("image"), cache=cache, write=True)
                if not str(image):
                    raise UserError("image is blank; fill it in or remove the row")
                texts = {ours: _text(ours, value) for ours, value in values.items()}
            except UserError as error:
                raise UserError(f"{source.where}, row {number}: {error}") from None
            row = {"id": "", "group": "", "split": "", "named": False} | texts
            rows.append(row | {"image": image, "where": source.where, "row": number})
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
    if not text and name == "label":
        raise UserError("label is blank; fill it in or remove the row")
    if name == "split" and text:
        if text.lower() not in ALIASES:
            raise UserError(f"split {text[:50]!r} is none of {', '.join(SPLITS)}")
        text = ALIASES[text.lower()]
    return text


# --- photos -----------------------------------------------------------------------------------------------------------


def _add_photos(rows: Rows, root: Path, *, skip: bool, cache: Path) -> tuple[Rows, list[str]]:
    """Rows with absolute paths and hashes, without those whose photo is bad; and notes."""
    folder = PhotoFolder(root)
    for row in rows:
        try:
            image = row["image"]
            row["image"] = str(image) if isinstance(image, Path) else folder.find(image)
        except UserError as error:
            raise UserError(f"{row['where']}, row {row['row']}: {error}") from None
    checked = check_photos(list(dict.fromkeys(row["image"] for row in rows)), cache, stop=not skip)
    kept: Rows = []
    bad: list[str] = []
    for row in rows:
        found = checked.get(row["image"])  # None: after the first bad one
        if isinstance(found, UserError):
            listed = "" if os.path.isdir(row["where"]) else f"{row['where']}, row {row['row']}: "
            bad.append(f"{listed}{found}")
        elif found is not None:
            kept.append(row | {"hash": found, "group": row["group"] or found[:16]})
    if not bad:
        return kept, []
    if not skip:
        raise UserError(f"{bad[0]}; --on-bad-image skip leaves such photos out")
    if not kept:
        raise UserError(f"{root}: no photo is left, for all are missing or unreadable: {bad[0]}")
    return kept, [
        f"skipped: {len(bad):,} of {len(rows):,} photos, which are missing or unreadable; the first: {bad[0]}"
    ]
