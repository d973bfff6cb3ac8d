"""Files that are on the disk whole or not at all, whatever ends the process that writes them.

Belongs here: the one way to write beside, wait for the disk and rename. What is in the files is the caller's business;
folders of files are `common/checkpoints.py`'s and `common/folders.py`'s.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from common.errors import UserError


def write_whole(path: Path, write: Callable[[TextIO], object]) -> None:
    """Write UTF-8 text by `write` beside `path` and put it in its place: a reader finds the old file or the new one.

    It is on the disk before it gets its name, so that a loss of power leaves one of them, too. Raises `UserError` if it
    cannot be written; what was there is untouched then.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        with fresh.open("w", encoding="utf-8", newline="") as file:
            write(file)
        to_disk(fresh)
        fresh.replace(path)
    except OSError as error:
        try:
            fresh.unlink(missing_ok=True)
        except OSError:
            pass  # what cannot be written to can often not be tidied either
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room or choose another place. What was there before "
            "is untouched"
        ) from None


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name != "posix":  # elsewhere folders cannot be opened
        return
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)
