"""Parquet files that somebody else may have made: their rows in Python, and no more of them than memory holds.

Belongs here: how much a file may unpack to, known before it is unpacked wherever the file tells it and counted where it
does not. What columns mean, and tables of other kinds, are elsewhere (`common/records.py`).

A kilobyte of Parquet can stand for gigabytes in three ways: pages are packed, a dictionary holds a value once that a
million rows have, and a run of equal numbers is one number and a count. Arrow unpacks all of them when asked to.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as compute
import pyarrow.ipc
import pyarrow.parquet
from pyarrow import types

from common.errors import UserError, reason

MOST_BYTES = 2**30
"""Of the columns that are read, unpacked, in the whole file; or `MOST_TIMES` the file's size, if that is more."""
MOST_TIMES = 20
MOST_GROUP_BYTES = 2 * 2**30
"""Of these columns in one row group, however large the file is."""
MOST_TEXT_BYTES = 500_000_000
"""Of texts, which are held all at once; photos pass through. Of a small file, a fifth of it."""
MOST_CELL_BYTES = 4_000_000
"""Of the text in one cell, a list of texts included; each text has its own limit (`common.photos.MOST_TEXT`)."""
MOST_VALUES = 30_000_000
"""In the columns that are read, those in lists counted one by one."""
_ROWS = 1000
_AT_ONCE = 2**28  # bytes that become Python's objects together
_OBJECT = 64  # bytes of a small object of Python's and of its place in a list

Batches = Callable[[list[str]], Iterator[tuple[Sequence[int], dict[str, list[Any]]]]]


def open_parquet(path: Path) -> tuple[list[str], int, Batches]:
    """→ names of the columns, number of rows, and a function: wanted columns → row numbers and values, part by part.

    Raises `UserError`, at once or while the parts are read.
    """
    try:
        told = pyarrow.parquet.ParquetFile(path)
        names, rows = told.schema_arrow.names, told.metadata.num_rows
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        raise _damaged(path, error) from None

    def batches(wanted: list[str]) -> Iterator[tuple[Sequence[int], dict[str, list[Any]]]]:
        try:
            most = max(MOST_BYTES, MOST_TIMES * path.stat().st_size)
            texts = _check_told(path, told, wanted, most)
            yield from _parts(path, _record_batches(path, wanted, texts), most)
        except UserError:
            raise
        except Exception as error:  # a stranger's bytes: Arrow's own errors, and Python's for dates and the like
            raise _damaged(path, error) from None

    return names, rows, batches


def refuse_packed(path: Path) -> None:
    """Refuse (`UserError`) a .parquet or .arrow file that would unpack to more than there may be in `datasets`' hands.

    A .parquet would fill its cache; an .arrow, which `datasets` itself writes unpacked, the memory.
    """
    try:
        size = path.stat().st_size
        if path.suffix == ".arrow":
            with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as stream:
                held = 0
                for batch in stream:
                    held += batch.nbytes
                    if held > 2 * size:
                        raise UserError(
                            f"{path}: is packed; save the data set with `save_to_disk`, which packs nothing"
                        )
            return
        file, most = pyarrow.parquet.ParquetFile(path), max(MOST_BYTES, MOST_TIMES * size)
        texts, total = _check_told(path, file, file.schema_arrow.names, most), 0
        for batch in _record_batches(path, file.schema_arrow.names, texts):
            total += sum(int(unpacked_bytes(column, 0).sum()) for column in batch.columns)
            if total > most:
                raise UserError(f"{path}: unpacks to more than {most:,} bytes; split it into smaller files")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: is no readable Parquet file ({reason(error)})")


def _check_told(path: Path, file: pyarrow.parquet.ParquetFile, wanted: Sequence[str], most: int) -> list[str]:
    """Refuse columns that say of themselves that they unpack to more than there may be. → those of texts and bytes."""
    told, size, values = file.metadata, 0, 0
    chosen = [place for place in range(told.num_columns) if file.schema.column(place).path.split(".")[0] in wanted]
    for group in range(told.num_row_groups):
        columns = [told.row_group(group).column(place) for place in chosen]
        packed = sum(column.total_uncompressed_size for column in columns)
        if packed > MOST_GROUP_BYTES:
            raise UserError(f"{path}: a row group of {packed:,} bytes; write it with smaller ones (row_group_size)")
        # a run of equal numbers, or of equal bytes of one length, is one and a count
        size += max(
            packed,
            sum(
                column.num_values * _width(file.schema.column(place))
                for column, place in zip(columns, chosen, strict=True)
            ),
        )
        values += sum(column.num_values for column in columns)
        if size > most:
            raise UserError(f"{path}: unpacks to more than {most:,} bytes; split it into smaller files")
        if values > MOST_VALUES:
            raise UserError(f"{path}: holds more than {MOST_VALUES:,} values; split it into smaller files")
    return [
        file.schema.column(place).path for place in chosen if file.schema.column(place).physical_type == "BYTE_ARRAY"
    ]


def _width(column: Any) -> int:
    return column.length if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0


def _record_batches(path: Path, wanted: list[str], texts: list[str]) -> Iterator[pyarrow.RecordBatch]:
    """Thousands of rows at a time, of which what many share is one where it is large: Arrow copies it for each row.

    Reading all texts so would be ten times slower, for a dictionary of small ones belongs to many thousand rows.
    """
    plain = pyarrow.parquet.ParquetFile(path)
    shared = pyarrow.parquet.ParquetFile(path, read_dictionary=texts)
    first = pyarrow.parquet.ParquetFile(path, read_dictionary=texts, buffer_size=2**16)  # only what it needs is read
    several = [
        column.path for column in map(plain.schema.column, range(len(plain.schema))) if column.max_repetition_level
    ]
    for group in range(plain.num_row_groups):
        rows = plain.metadata.row_group(group)
        values = max((_values_of(rows, path) for path in several), default=0)
        start = next(first.iter_batches(batch_size=1, row_groups=[group], columns=wanted), None)
        longest = 0 if start is None else max(map(_longest, start.columns), default=0)
        most = next((most for most in (10 * _ROWS, _ROWS) if longest * max(values, most) <= _AT_ONCE), None)
        size = most if most and rows.total_byte_size <= _AT_ONCE else _ROWS
        yield from (plain if most else shared).iter_batches(batch_size=size, row_groups=[group], columns=wanted)


def _values_of(rows: Any, path: str) -> int:
    columns = map(rows.column, range(rows.num_columns))
    return sum(column.num_values for column in columns if column.path_in_schema == path)


def _longest(column: pyarrow.Array) -> int:
    """The longest text or bytes in a column's dictionaries, those of the lists and objects in it included."""
    kind = column.type
    if isinstance(column, pyarrow.ExtensionArray):
        return _longest(column.storage)
    if types.is_dictionary(kind):
        return int(unpacked_bytes(column.dictionary, 0).max(initial=0))
    if types.is_struct(kind):
        return max(map(_longest, column.flatten()), default=0)
    return _longest(column.values) if types.is_nested(kind) and hasattr(column, "values") else 0


def _parts(path: Path, batches: Iterator[pyarrow.RecordBatch], most: int) -> Iterator[tuple[range, dict[str, list]]]:
    first, bytes_seen, text_seen = 1, 0, 0
    most_text = min(MOST_TEXT_BYTES, max(MOST_TEXT_BYTES // 5, MOST_TIMES * path.stat().st_size))
    for batch in batches:
        batch.validate(full=True)  # Arrow itself believes whatever offsets a file holds
        sizes = np.zeros(batch.num_rows, dtype=np.int64)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            held, text = unpacked_bytes(column, 0), not _holds_bytes(column.type)
            if text and held.max(initial=0) > MOST_CELL_BYTES:
                row = first + int(held.argmax())
                raise UserError(
                    f"{path}, row {row}: column '{name}' holds {held.max():,} bytes of text; at most "
                    f"{MOST_CELL_BYTES:,} are read"
                )
            total = int(held.sum())
            bytes_seen, text_seen = bytes_seen + total, text_seen + total * text
            if bytes_seen > most or text_seen > most_text:
                what = f"{most:,} bytes" if bytes_seen > most else f"{most_text:,} bytes of text"
                raise UserError(f"{path}: unpacks to more than {what}; split it into smaller files")
            sizes += unpacked_bytes(column, _OBJECT) if types.is_nested(column.type) else held + _OBJECT
        for start, end in _cuts(sizes):
            part = batch.slice(start, end - start)
            yield (
                range(first + start, first + end),
                {name: _values(column) for name, column in zip(part.schema.names, part.columns, strict=True)},
            )
        first += batch.num_rows


def _cuts(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where to cut rows of these sizes so that no part is larger than what is unpacked at once (or it is one row)."""
    sums, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = sums[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(sums, before + _AT_ONCE, side="right")))
        yield start, end
        start = end


def _values(column: pyarrow.Array) -> list[Any]:
    return (column.dictionary_decode() if types.is_dictionary(column.type) else column).to_pylist()


def _holds_bytes(kind: pyarrow.DataType) -> bool:
    """Whether a column is of photos or clips themselves."""
    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _holds_bytes(kind.storage_type)
    if types.is_nested(kind):
        return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def unpacked_bytes(column: pyarrow.Array, each: int) -> np.ndarray:
    """What each value takes as Python's objects: `(n,)` bytes, `each` for an object and what its text holds.

    What a dictionary holds once is counted for each value that has it. Raises `UserError` for a type that no table has.
    """
    kind = column.type
    if isinstance(column, pyarrow.ExtensionArray):
        return unpacked_bytes(column.storage, each)
    if types.is_dictionary(kind):
        sizes = np.append(unpacked_bytes(column.dictionary, each), each)  # the last one: null
        return sizes[column.indices.fill_null(len(sizes) - 1).to_numpy(zero_copy_only=False)]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        sums = np.append(0, np.cumsum(unpacked_bytes(column.values, each)))
        return np.diff(sums[column.offsets.to_numpy(zero_copy_only=False)]) + each
    if types.is_fixed_size_list(kind):
        inner = column.values[column.offset * kind.list_size : (column.offset + len(column)) * kind.list_size]
        return unpacked_bytes(inner, each).reshape(len(column), kind.list_size).sum(axis=1) + each
    if types.is_struct(kind):
        return sum((unpacked_bytes(field, each) for field in column.flatten()), np.full(len(column), 4 * each))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return compute.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64) + each
    if types.is_fixed_size_binary(kind):
        return np.full(len(column), kind.byte_width + each)
    if types.is_null(kind) or types.is_primitive(kind) or types.is_decimal(kind):
        return np.full(len(column), each)
    raise UserError(f"a column of the type {kind} is not read; write it as text")
