"""A folder that appears whole or not at all.

Belongs here: writing a data set beside its place and renaming it. Checkpoints, which keep what was there until the disk
has the new one, are `common/checkpoints.py`'s.
"""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from common.errors import UserError


def write_folder(directory: Path, fill: Callable[[Path], None], *, last: str, replace: bool = False) -> Path:
    """Fill a new folder by `fill` and put it in its place; → `directory`.

    A killed process leaves no half folder, and of several at it the first one's stays: `last` is the file that a whole
    one has. With `replace` what is there goes once the new one is whole. Raises `UserError` if it cannot be written.
    """
    whole = directory.resolve()
    temporary = whole.with_name(f".{whole.name}.{secrets.token_hex(4)}")
    before = temporary.with_name(f"{temporary.name}.old")
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        if replace and whole.exists():
            whole.rename(before)
        try:
            temporary.rename(whole)
        except OSError:
            if not (directory / last).is_file():
                raise  # nobody was quicker: it really cannot be renamed
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); choose another folder") from None
    finally:
        if before.exists() and not whole.exists():  # it could not be put in its place
            before.rename(whole)
        for gone in (temporary, before):
            shutil.rmtree(gone, ignore_errors=True)
    return directory
