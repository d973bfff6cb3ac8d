"""Ctrl-C and the signals with which schedulers, notebooks and closed terminals end a process.

Belongs here: hearing them, at once or between two steps. What is saved then is the loop's business
(`common/training.py`); exit codes are `common/errors.py`'s.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_AGAIN = 1.0  # seconds after which a second Ctrl-C means it; launchers repeat the first within less


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM (and a closed terminal, unless `nohup` said to ignore it) raises `KeyboardInterrupt`, as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with _handling(("SIGTERM", "SIGHUP"), interrupt):
        yield


class Stop:
    """While its context is open, Ctrl-C, SIGTERM and SIGHUP are noted (`asked`) instead of ending the process.

    A second Ctrl-C ends it at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._when = 0.0
        self._handling = _handling(("SIGINT", "SIGTERM", "SIGHUP"), self._note)

    def __enter__(self) -> "Stop":
        self._handling.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._handling.__exit__(*error)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT and time.monotonic() - self._when > _AGAIN:
            raise KeyboardInterrupt
        if not self.asked and os.environ.get("RANK", "0") == "0":
            # Not through `print`, which may be what was interrupted.
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once, without a checkpoint\n")
        if not self.asked:
            self._when = time.monotonic()
        self.asked = True


def go_on_with(run: Path) -> str:
    """What is said of a run that can go on."""
    return f"to go on: python {sys.argv[0]} --resume --output {run}"


def ignore_signals(_: int = 0) -> None:
    """For processes that load data: a Ctrl-C reaches them, too, and they must outlive the step that it waits for."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        with contextlib.suppress(ValueError):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextlib.contextmanager
def _handling(names: tuple[str, ...], handler: Any) -> Iterator[None]:
    """Handle signals, but those that are ignored already, until the context closes; in other threads, nothing."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
