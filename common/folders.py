"""A folder that appears whole or not at all.

Belongs here: writing an embedded data set beside its place and renaming it. Checkpoints, which replace what was there,
are `common/checkpoints.py`'s.
"""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from common.errors import UserError


def write_folder(directory: Path, fill: Callable[[Path], None], *, last: str) -> Path:
    """Fill a new folder by `fill` and put it in its place; → `directory`.

    A killed process leaves no half folder, and of several at it the first one's stays: `last` is the file that a whole
    one has. Raises `UserError` if it cannot be written.
    """
    whole = directory.resolve()
    temporary = whole.with_name(f".{whole.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        try:
            temporary.rename(whole)
        except OSError:
            if not (directory / last).is_file():
                raise  # nobody was quicker: it really cannot be renamed
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); choose another folder") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory
