"""The one way in which a person's mistake is told: one line, exit code 2, no traceback.

Belongs here: the exception and the wrapper of every script's `main`. Does not belong here: any particular check;
each check lives where the value enters.
"""

import errno
import functools
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where (file and row), and what to do about it."""

    def __init__(self, message: str = "") -> None:
        if message.startswith("Caught UserError in DataLoader"):  # torch repeats a worker's error with its traceback
            message = message.rpartition("UserError: ")[2].strip()
        super().__init__(message)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a signal, after what was to be saved is saved. The message is one line: where, and how to go on."""


def reason(error: Exception) -> str:
    """What is wrong with a stranger's file or network, as one short line for our own message."""
    text = " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())
    return text if len(text) <= 200 else text[:200] + " ..."


def plain_line(text: str) -> str:
    """A text on one line, without what a terminal would obey: names in other people's files may hold anything."""
    shown = (letter if letter.isprintable() else ascii(letter)[1:-1] for letter in " ".join(text.split()))
    return "".join(shown)


def command(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a script's `main`: a `UserError` becomes one line on standard error and exit code 2.

    An interruption leaves with 130, and its line if it has one. Any other exception is a defect of ours and keeps its
    traceback. Under several processes each of them leaves with the code, but only the first speaks.
    """

    @functools.wraps(main)
    def wrapped(*arguments, **keywords) -> None:
        _leave_scripts()
        try:
            main(*arguments, **keywords)
        except UserError as error:
            if os.environ.get("RANK", "0") == "0":
                message = plain_line(str(error))
                print(f"{os.path.basename(sys.argv[0])}: error: {message}", file=sys.stderr, flush=True)
            sys.exit(2)
        except KeyboardInterrupt as interrupt:
            if str(interrupt) and os.environ.get("RANK", "0") == "0":
                print(str(interrupt), file=sys.stderr, flush=True)
            sys.exit(130)
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except OSError as error:
            too_long = error.errno == errno.ENAMETOOLONG  # a path that an option or a file holds
            if not (_is_full(error) or too_long):
                raise
            if os.environ.get("RANK", "0") == "0":
                where = f" ({str(error.filename)[:200]})" if error.filename else ""
                advice = "" if too_long else ": make room, or set TMPDIR to another folder"
                message = plain_line(f"{error.strerror or error}{where}{advice}")
                print(f"{os.path.basename(sys.argv[0])}: error: {message}", file=sys.stderr, flush=True)
            sys.exit(2)

    return wrapped


def _is_full(error: OSError) -> bool:
    """Whether a library, which knows nothing of our errors, found no room: for its cache, or for a temporary file."""
    full = (errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", -1))
    return error.errno in full or "temporary directory" in str(error)


def _leave_scripts() -> None:
    """Python looks for modules beside a script first, where `scripts/evaluate.py` would hide the package `evaluate`."""
    if sys.path and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(sys.argv[0])):
        del sys.path[0]
