"""Tables of records from a file, a folder of split files, or a Hugging Face data set; every error names file and row.

Belongs here: CSV, TSV, JSON, JSON lines, Parquet, saved data sets and Hub ids as columns of values with row
numbers, and which file is which split. Does not belong here: what the columns mean (the tasks' data modules).

In CSV and TSV the header is row 1 and every value stays text; elsewhere the first record is row 1.
"""

import csv
import functools
import gc
import io
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants

from common.errors import UserError, reason
from common.files import MOST_PARTS, read_text
from common.parquet_files import open_parquet, refuse_packed
from common.places import refuse_outside

SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid", "dev"), "test": ("test",)}
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".json", ".jsonl", ".parquet")

# A table is other people's bytes, and a few of them can stand for many: these keep the largest within 4 GB of memory.
MOST_COLUMNS = 1_000
MOST_ROWS = 3_000_000
MOST_CELLS = 50_000_000
"""Rows times columns that are read: rows may leave most of their columns out, and a few bytes are a row."""
_AT_ONCE = 50_000  # rows that are laid in columns together

Columns = dict[str, list[Any]]
_Column = Callable[[str, slice], list[Any]]


@dataclass(kw_only=True)
class Source:
    """One file (or split of a Hugging Face data set) whose header has been read."""

    where: str
    root: Path
    stem: str  # begins the ids of its rows
    names: list[str]
    batches: Callable[[list[str]], Iterator[tuple[Sequence[int], Columns]]]  # wanted columns → row numbers and values


def find_sources(source: str, cache: Path, *, only: str | None = None) -> dict[str, Source]:
    """Split → source, of all splits or of one that must be there. A single file is "train"."""
    path = to_path(source)
    if os.path.isfile(path):
        return {"train": open_file(path)}
    found: dict[str, Any] = (
        (_split_files(path) or _open_saved(path, cache)) if os.path.isdir(path) else _open_hub(source)
    )
    if only is not None and only not in found:
        raise UserError(f"{source}: has no {only} split; it has {', '.join(found)}")
    return {
        split: open_file(part, stem=split) if isinstance(part, Path) else part
        for split, part in found.items()
        if only in (None, split)
    }


def to_path(source: str | Path) -> Path:
    return Path(os.path.expanduser(source))


def _open_hub(source: str) -> dict[str, Source]:
    # OWNER/NAME, unless more likely a misspelt path: asking the Hub takes half a minute where there is no network.
    named = re.fullmatch(r"([\w.-]+)/[\w.-]+", source)
    if named is None or os.path.isdir(named[1]) or source.lower().endswith(SUFFIXES):
        raise UserError(f"--data {source}: no such file or folder")
    try:
        loaded = datasets.load_dataset(source)
    except Exception as error:  # the network, the Hub, its data: a dozen kinds
        raise UserError(
            f"--data {source}: no such file or folder, and the Hugging Face Hub gave no data set of that name "
            f"({reason(error)})"
        ) from None
    return _open_hugging_face(loaded, source, Path(constants.HF_HUB_CACHE))


def _split_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    stems = {alias: split for split, aliases in SPLITS.items() for alias in aliases}
    try:
        files_here = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    for file in files_here:
        split = stems.get(file.stem.lower())
        if split and file.suffix.lower() in SUFFIXES:
            if split in files:
                raise UserError(f"{folder}: both {files[split].name} and {file.name} could be its {split}; keep one")
            refuse_outside(file, folder)
            files[split] = file
    return {split: files[split] for split in SPLITS if split in files}


def _open_saved(folder: Path, cache: Path) -> dict[str, Source]:
    """A folder that `datasets` wrote (`save_to_disk`) or can read (Parquet files, photos with metadata)."""
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            for file in folder.rglob("*.arrow"):
                refuse_packed(file)
            loaded = datasets.load_from_disk(str(folder))
            for part in loaded.values() if isinstance(loaded, dict) else [loaded]:
                part.data.validate(full=True)  # Arrow itself believes whatever offsets a file holds
            return _open_hugging_face(loaded, str(folder), folder)
        # Only where there is a sign of a data set: `datasets` goes through all that is under a folder.
        signs = ("*.parquet", "*.arrow", "metadata.csv", "metadata.jsonl")
        if any(next(folder.glob(place + sign), None) for place in ("", "*/") for sign in signs):
            for file in folder.rglob("*.parquet"):
                refuse_packed(file)
            loaded = datasets.load_dataset(str(folder), cache_dir=str(cache / "datasets"))
            return _open_hugging_face(loaded, str(folder), folder)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{folder}: `datasets` cannot read it ({reason(error)})") from None
    raise UserError(f"{folder}: no train file in it (train{', train'.join(SUFFIXES)}), nor a Hugging Face data set")


def _open_hugging_face(loaded: Any, where: str, root: Path) -> dict[str, Source]:
    parts = loaded if isinstance(loaded, dict) else {"train": loaded}
    found = {}
    for split, aliases in SPLITS.items():
        named = [name for name in parts if name.lower() in aliases]
        if len(named) > 1:
            raise UserError(f"{where}: both {named[0]} and {named[1]} could be its {split} split; keep one")
        if named:
            found[split] = _open_part(parts[named[0]], f"{where} ({named[0]})", root, split)
    if not found:
        raise UserError(f"{where}: none of its splits ({', '.join(parts)}) is called train, validation or test")
    return found


def _open_part(rows: datasets.Dataset, where: str, root: Path, stem: str) -> Source:
    def batches(wanted: list[str]) -> Iterator[tuple[Sequence[int], Columns]]:
        part, first = rows.with_format(None).select_columns(wanted), 1
        classes = {name: kind for name, kind in part.features.items() if isinstance(kind, datasets.ClassLabel)}
        for name, kind in part.features.items():
            if isinstance(kind, datasets.Image):
                part = part.cast_column(name, datasets.Image(decode=False))  # bytes or path, as they are stored
        for batch in part.iter(batch_size=1000):
            for name, kind in classes.items():
                batch[name] = [None if value is None else kind.names[value] for value in batch[name]]
            count = len(batch[wanted[0]])
            yield range(first, first + count), batch
            first += count

    return Source(where=where, root=root, stem=stem, names=rows.column_names, batches=batches)


def open_file(path: Path, *, stem: str | None = None) -> Source:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: of this kind no rows can be read; give {', '.join(SUFFIXES)}, or a folder of these")
    try:
        if not path.is_file():
            raise UserError(f"{path}: " + ("is not a file" if path.exists() else "no such file"))
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty")
        if suffix == ".parquet":
            names, rows, batches = open_parquet(path)
            _check_names(str(path), names)
            _check_count(str(path), rows)
        else:
            text = read_text(path)
            if not text.strip():
                raise UserError(f"{path}: the file is empty")
            if "\0" in text:
                line = text.count("\n", 0, text.index("\0")) + 1
                raise UserError(f"{path}, line {line}: holds a null character; save the file as UTF-8 text")
            read = _read_json if suffix in (".json", ".jsonl") else functools.partial(_read_csv, DELIMITERS[suffix])
            with _without_collection():
                names, numbers, column = read(str(path), text)

            def batches(wanted: list[str]) -> Iterator[tuple[Sequence[int], Columns]]:
                if len(numbers) * len(wanted) > MOST_CELLS:
                    size = f"{len(numbers):,} rows of {len(wanted):,} columns"
                    raise UserError(f"{path}: {size} are more than {MOST_CELLS:,} cells; split the table")
                for first in range(0, len(numbers), _AT_ONCE):
                    part = slice(first, first + _AT_ONCE)
                    yield numbers[part], {name: column(name, part) for name in wanted}

    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return Source(where=str(path), root=path.parent, stem=stem or path.stem, names=names, batches=batches)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Python's search for circles would go through millions of new rows again and again, in which there are none."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _check_names(where: str, names: Sequence[str]) -> None:
    if len(names) > MOST_COLUMNS:
        raise UserError(f"{where}: has {len(names):,} columns; a table has at most {MOST_COLUMNS:,}")
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise UserError(f"{where}: two columns are called '{twice[0]}'")


def _check_count(where: str, rows: int) -> None:
    if rows > MOST_ROWS:
        raise UserError(f"{where}: more than {MOST_ROWS:,} rows; split the table")


def _read_csv(delimiter: str, where: str, text: str) -> tuple[list[str], list[int], _Column]:
    """→ names, row numbers, and a function that makes a part of a column; every value stays text ("01", "NA" and
    "null" are answers like any other)."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    numbers: list[int] = []
    records: list[list[str]] = []  # as long as they are: what a row leaves out takes no room
    row = blank = 0
    try:
        for row, record in enumerate(reader, start=1):
            if not record:  # blank lines count, but are no rows
                blank += 1
                _check_count(where, blank)
                continue
            if not names:
                names = [name.strip() for name in record]
                _check_names(where, names)
                continue
            if len(record) > len(names):
                raise UserError(
                    f"{where}, row {row}: {len(record)} fields, but the header has {len(names)} (quote a text that "
                    "holds the separator)"
                )
            numbers.append(row)
            records.append(record)
            if len(records) > MOST_ROWS:
                _check_count(where, len(records))
    except csv.Error as error:
        raise UserError(f"{where}, row {row + 1}: {error} (is a quote not closed, or not doubled?)") from None
    if not numbers:
        raise UserError(f"{where}: has a header but no rows")
    places = {name: place for place, name in enumerate(names)}

    def column(name: str, part: slice) -> list[str]:
        place = places[name]
        return [record[place] if place < len(record) else "" for record in records[part]]

    return names, numbers, column


def _read_json(where: str, text: str) -> tuple[list[str], list[int], _Column]:
    """A list of objects, or one object per line."""
    parts = text.count("[") + text.count("{")
    if parts > MOST_PARTS:
        raise UserError(f"{where}: holds {parts:,} lists and objects; at most {MOST_PARTS:,} are read; split the table")
    try:
        records = json.loads(text)
        if isinstance(records, dict):  # a single line of JSON lines
            records = [records]
    except RecursionError:
        raise UserError(f"{where}: JSON nested too deeply") from None
    except ValueError as whole:
        if not (where.lower().endswith(".jsonl") or str(whole).startswith("Extra data")):
            raise UserError(f"{where}: is not valid JSON ({whole})") from None
        records = []
        for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 is no new line in JSON
            try:
                records.append(json.loads(line) if line.strip() else None)
                _check_count(where, len(records))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}, row {number}: is not valid JSON ({error})") from None
    if not isinstance(records, list):
        raise UserError(f"{where}: must hold a list of objects, or one object per line")
    _check_count(where, len(records))
    numbers = [number for number, record in enumerate(records, start=1) if record is not None]
    rows = [record for record in records if record is not None]
    for number, record in zip(numbers, rows, strict=True):
        if not isinstance(record, dict):
            raise UserError(f'{where}, row {number}: is no JSON object ({{"question": ..., ...}})')
    if not rows:
        raise UserError(f"{where}: has no rows")
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    _check_names(where, names)
    return names, numbers, lambda name, part: [record.get(name) for record in rows[part]]
