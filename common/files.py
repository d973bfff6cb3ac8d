"""Files that are on the disk whole or not at all, whatever ends the process that writes them; and text read with care.

Belongs here: the one way to write beside, wait for the disk and rename, and the one way to read a whole text or JSON
file that somebody else may have made. What is in the files is the caller's business; folders of files are
`common/checkpoints.py`'s and `common/folders.py`'s.
"""

import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from common.errors import UserError, reason

MOST_BYTES = 100_000_000
"""Of a text or JSON file that is read whole."""
MOST_PARTS = 10_000_000
"""Lists and objects in a JSON text: each takes a hundred bytes and more, and two letters are enough for one."""
MOST_DIGITS = 20
"""Of a whole number, in JSON and YAML: 64 bits have no more, and nothing that counts or measures needs more."""


def write_whole(path: Path, write: Callable[[TextIO], object]) -> None:
    """Write UTF-8 text by `write` beside `path` and put it in its place: a reader finds the old file or the new one.

    It is on the disk before it gets its name, so that a loss of power leaves one of them, too. Several processes may
    write one file: the last one's stays. Raises `UserError` if it cannot be written; what was there is untouched then.
    """
    fresh = beside(path)
    try:
        with fresh.open("w", encoding="utf-8", newline="") as file:
            write(file)
        to_disk(fresh)
        fresh.replace(path)
    except (OSError, UnicodeEncodeError) as error:
        why = getattr(error, "strerror", None) or reason(error)
        raise UserError(
            f"{path}: cannot be written ({why}); make room or choose another place. What was there before is untouched"
        ) from None
    finally:
        remove(fresh)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_whole` does, Vietnamese as it is written. NaN, such as a mean over nothing, becomes null."""
    text = json.dumps(finite(value), ensure_ascii=False, indent=1) + "\n"
    write_whole(path, lambda file: file.write(text))


def beside(path: Path) -> Path:
    """A name for what will be `path` once it is whole, which no other process uses."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.new")


def remove(path: Path) -> None:
    """Delete a file that need not be there."""
    with suppress(OSError):  # what cannot be written to can often not be tidied either
        path.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name != "posix":  # elsewhere folders cannot be opened
        return
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read_bytes(path: str | Path, *, most: int = MOST_BYTES) -> bytes:
    """What a file holds. Raises `UserError` if it is missing, larger than `most` bytes, or no file at all: a pipe would
    be waited for, a device never ends."""
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"{path}: " + ("is not a file" if path.exists() else "cannot be read (no such file)"))
        if path.stat().st_size > most:
            raise UserError(f"{path}: has {path.stat().st_size:,} bytes; at most {most:,} are read of such a file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path that holds a null byte
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or reason(error)})") from None


def read_text(path: str | Path, *, most: int = MOST_BYTES) -> str:
    """A UTF-8 text, with or without a byte order mark. Raises `UserError`, as `read_bytes` and for other bytes."""
    content = read_bytes(path, most=most)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: is not UTF-8 text; save the file as UTF-8") from None


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. Raises `UserError`, as `read_text` and for what is no JSON."""
    try:
        return parse_json(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested without end
        raise UserError(f"{path}: is damaged ({reason(error)})") from None


def parse_json(text: str) -> Any:
    """What a JSON text holds. Raises `ValueError` for what is no JSON, for more parts than `MOST_PARTS`, and for whole
    numbers that nothing could compute with, and `RecursionError` for parts nested without end."""
    parts = text.count("[") + text.count("{")
    if parts > MOST_PARTS:
        raise ValueError(f"it holds {parts:,} lists and objects; at most {MOST_PARTS:,} are read")
    return json.loads(text, parse_int=whole_number)


def whole_number(digits: str) -> int:
    """The whole number that a text spells. Raises `ValueError` for one of more digits than `MOST_DIGITS`: `float`, a
    tensor's index and even printing it would fail wherever it is used."""
    if len(digits) > MOST_DIGITS + digits.startswith("-"):
        raise ValueError(f"a whole number of {len(digits):,} digits; at most {MOST_DIGITS} are read")
    return int(digits)


def read_object(path: str | Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises `UserError`, as `read_json`."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: is damaged (it holds a {type(found).__name__}, not an object)")
    return found


def finite(value: Any) -> Any:
    """`value` with null for what Python would write as `NaN` or `Infinity`, which is no JSON."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
