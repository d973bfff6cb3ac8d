"""One training in processes of its own, for the benchmark: `python -m vqa.benchmark_child --data …`.

Belongs here: what only a process of its own can tell, the most memory it ever took. It prints one line of JSON.
"""

import json
import os
import threading
import time
from pathlib import Path

import psutil

from common.config import parse
from common.errors import command
from vqa.options import TrainVqaOptions

_PAUSE = 0.05  # seconds between looks


@command
def main() -> None:
    options = parse(TrainVqaOptions)
    from vqa.train import train

    memory = Memory()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_PAUSE):
            memory.look()

    threading.Thread(target=watch, daemon=True).start()
    started = time.perf_counter()
    train(options)
    seconds = time.perf_counter() - started
    done.set()
    if os.environ.get("RANK", "0") == "0":
        found = {"peak": peak_bytes(), "own": memory.own, "worker": memory.worker, "seconds": seconds}
        print("benchmark " + json.dumps(found), flush=True)


class Memory:
    """The most that this process and one of its loading processes were seen to have, in bytes; None: nobody tells."""

    def __init__(self) -> None:
        self.own: int | None = None
        self.worker: int | None = None
        self._arguments = psutil.Process().cmdline()
        self._before: set[int] = set()

    def look(self) -> None:
        """Look once. What is of another program, or was not there at the last look, is no loading process: a command
        that is just being started still shows the memory of the process that starts it."""
        self.own = _larger(self.own, _status("self", "RssAnon"))
        forks = set()
        for process in psutil.Process().children(recursive=True):
            try:
                if process.cmdline() == self._arguments:
                    forks.add(process.pid)
            except psutil.Error:  # it has ended
                continue
        for pid in forks & self._before:
            self.worker = _larger(self.worker, _status(str(pid), "VmHWM"))
        self._before = forks


def peak_bytes() -> int | None:
    """The most memory that this process ever had, since it is this program; None where the system does not tell.

    Not `getrusage`'s `ru_maxrss`: that keeps the size of the process that started this one, if it was larger.
    """
    return _status("self", "VmHWM") or getattr(psutil.Process().memory_info(), "peak_wset", None)


def _larger(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _status(process: str, name: str) -> int | None:
    """A line of Linux's account of a process, in bytes: VmHWM, the most it had; RssAnon, what is in no file, which the
    system could not take back."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


if __name__ == "__main__":
    main()
