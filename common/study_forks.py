"""Runs of a study as forks of one process that has imported the libraries already: seconds less for each.

Belongs here: that process and its forks, which `common/study_processes.py` treats as it does processes of their own.
Python's own forkserver does the work; nothing is shared but what was imported. Not used beside a GPU, whose driver may
not be touched before a fork.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import forkserver, reduction
from pathlib import Path
from typing import BinaryIO

# What training scripts import, and what takes long to import. A name that is not installed is passed over.
LIBRARIES = (
    "accelerate",
    "datasets",
    "einops",
    "evaluate",
    "matplotlib.pyplot",
    "safetensors.torch",
    "sklearn.metrics",
    "sklearn.model_selection",
    "torchvision.transforms.v2",
    "transformers",
)
_GPUS = [Path("/dev", name) for name in ("nvidiactl", "kfd", "dxg")]  # of NVIDIA, AMD, and Windows beneath Linux


def can_fork() -> bool:
    """Whether runs may be forks here."""
    return sys.platform == "linux" and not any(driver.exists() for driver in _GPUS)


class Forks:
    """Starts scripts as forks of a process with `environment`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(LIBRARIES))
        self._environment = dict(environment)

    def start(self, script: Path, arguments: Sequence[str], log: BinaryIO) -> "Fork":
        """Run `python script arguments`, all it says into `log`, which stays locked as long as it lives."""
        before = dict(os.environ)
        # The server is started with the first fork, and takes ours. Safe path: a file in the folder it is started in
        # may be called like a library.
        os.environ.update(self._environment | {"PYTHONSAFEPATH": "1"})
        try:
            with _deaf():
                forkserver.ensure_running()
            target = self._context.Process(target=_run, args=(str(script), list(arguments), _Handle(log.fileno())))
            target.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        return Fork(target)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Without Ctrl-C, which what is started here is not to hear either: it would end in a traceback of its imports."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Fork:
    """A fork, with what `subprocess.Popen` has of it."""

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        assert process.pid is not None  # it has been started
        self._process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()


class _Handle:
    """An open file's number, which reaches the fork as a number of its own for the same open file."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self):
        return _opened, (reduction.DupFd(self.number),)


def _opened(handle) -> int:
    return handle.detach()


def _run(script: str, arguments: list[str], log: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():
        os._exit(1)  # the study was ended while the server still imported: nobody waits for this run
    os.setsid()  # Ctrl-C reaches the study alone, which then ends the group
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("PYTHONSAFEPATH", None)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    multiprocessing.set_start_method(None, force=True)  # what a script starts by itself is started as ever
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")
