"""One run of a study: what it is, its log, which is locked as long as it lives, and how its processes are ended.

Belongs here: what is needed wherever a run is started, beside the study (`common/study_processes.py`) or in a job on
another machine (`common/study_jobs.py`), which imports this first: nothing heavy.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from common.errors import UserError
from common.files import write_whole
from common.study import Cell
from common.yaml_files import dump_yaml

try:
    import fcntl
except ImportError:  # not on Windows, where nobody looks whether another study runs the same cell
    fcntl = None  # type: ignore[assignment]

WAIT = 15  # seconds that a run may take to end before it is killed
NO_METRICS = "it ended without metrics.json"


@dataclass(kw_only=True)
class Run:
    """One cell with one seed."""

    cell: Cell
    seed: int
    options: dict[str, Any]
    path: Path  # of the run directory
    file: Path  # of the options it is started with
    resumes: bool  # its script can go on with an interrupted run

    @property
    def name(self) -> str:
        return f"{self.cell.name}, seed {self.seed}"

    @property
    def log(self) -> Path:
        return self.path.with_name(self.path.name + ".log")

    @property
    def busy(self) -> str:
        """Why it is not started while another process has its log."""
        return f"another process runs it now ({self.log})"

    @property
    def goes_on(self) -> bool:
        if not self.resumes or not (self.path / "checkpoints").is_dir():
            return False
        from common.checkpoints import has_checkpoint  # loads torch

        return has_checkpoint(self.path)

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").is_file()

    def arguments(self) -> list[str]:
        """Of its script: from the start, on from its last checkpoint, or anew over what was left without one."""
        if self.goes_on:
            return ["--resume", "--output", str(self.path)]
        anew = ["--overwrite"] if self.path.exists() else []
        return ["--config", str(self.file), "--output", str(self.path), *anew]


@dataclass(kw_only=True)
class Ended:
    """How a run ended."""

    code: int  # of its process
    seconds: float | None  # that it took; None if another process had finished it before
    why: str | None = None  # it failed, where its log does not tell


class Started(Protocol):
    """A run under way."""

    def poll(self) -> Ended | None:
        """How it ended, or None as long as it has not."""
        ...


@contextlib.contextmanager
def locked_log(run: Run) -> Iterator[BinaryIO | None]:
    """Its log, opened to append and locked as long as whoever inherits it lives; None if another process has it.

    Raises `UserError` where the run cannot be started in it.
    """
    try:
        with run.log.open("ab") as log:
            yield log if _lock(log) else None
    except OSError as error:
        raise UserError(f"{run.path} cannot be started ({error.strerror}: {error.filename or run.log})") from None


def is_busy(run: Run) -> bool:
    """Whether another process has its log now."""
    with locked_log(run) as log:
        return log is None


def begin(run: Run, log: BinaryIO, scripts: Path, launcher: Sequence[str], python: str) -> list[str]:
    """The command that starts it, which its log says first; from the start, its options are written, too."""
    arguments = run.arguments()
    # What cannot resume does not train: several processes would only do the same work over one another.
    command = [*(launcher if run.resumes else [python]), str(scripts / f"{run.cell.script}.py"), *arguments]
    if "--resume" not in arguments:
        log.truncate(0)
        text = dump_yaml(run.options)
        write_whole(run.file, lambda file: file.write(f"# script: {run.cell.script}\n{text}"))
    log.write(f"$ {shlex.join(command)}\n".encode())
    log.flush()
    return command


def environment(threads: int) -> dict[str, str]:
    """That of a run: ours, with so many threads unless it says how many."""
    ours = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"} | os.environ
    return ours | {"PYTHONIOENCODING": "utf-8"}  # the log is UTF-8 whatever the terminal is


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def popen(command: Sequence[str], log: BinaryIO, threads: int) -> subprocess.Popen:
    """Its process, in a session of its own: Ctrl-C reaches the study alone, which then ends the whole group."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment(threads),
        start_new_session=True,
    )


def stop(processes: Sequence[Any]) -> None:
    """End processes (or forks) and their children: asked first, killed if they do not listen."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        for process in processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number) if hasattr(os, "killpg") else process.terminate()
        until = time.monotonic() + WAIT
        while any(process.poll() is None for process in processes) and time.monotonic() < until:
            time.sleep(0.05)


def _lock(log: BinaryIO) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
