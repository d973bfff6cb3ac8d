"""The processes of a study: one per run, some side by side, each with a log; ended when the study is.

Belongs here: starting, watching, telling of progress, ending. Which runs there are, and whether they may be run, is
decided in `common/study_runs.py`.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from tqdm import tqdm

from common.checkpoints import has_checkpoint, remove_checkpoints
from common.config import read_yaml
from common.errors import UserError
from common.runs import write_json, write_text
from common.study import Cell
from common.study_forks import Fork, Forks, can_fork
from common.study_tables import read_measured

try:
    import fcntl
except ImportError:  # not on Windows, where nobody looks whether another study runs the same cell
    fcntl = None

_WAIT = 15  # seconds that a run may take to end before it is killed


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
    def goes_on(self) -> bool:
        return self.resumes and has_checkpoint(self.path)

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").is_file()

    def arguments(self) -> list[str]:
        """Of its script: from the start, on from its last epoch, or anew over what was left without a checkpoint."""
        if self.goes_on:
            return ["--resume", "--output", str(self.path)]
        anew = ["--overwrite"] if self.path.exists() else []
        return ["--config", str(self.file), "--output", str(self.path), *anew]


def run_all(
    todo: Sequence[Run], jobs: int, scripts: Path, launcher: Sequence[str], *, keep: str = "all"
) -> dict[str, str]:
    """Run them, `jobs` at a time → the name of each that failed, and why. An interruption ends those under way.

    `keep`: which checkpoints of a run stay when it has finished, as `StudyOptions.checkpoints` says.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // jobs)
    environment = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"} | os.environ
    environment["PYTHONIOENCODING"] = "utf-8"  # the log is UTF-8 whatever the terminal is
    forks = Forks(os.environ | environment) if launcher == [sys.executable] and can_fork() else None
    waiting, under_way, failed = list(todo), {}, {}
    began = time.monotonic()
    bar = tqdm(total=len(todo), unit="run", disable=None)
    try:
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                run = waiting.pop(0)
                if run.finished:  # meanwhile, by another process that runs the same study
                    bar.update()
                    continue
                process = _start(run, scripts, launcher, environment, forks)
                if process is None and run.finished:
                    bar.update()
                elif process is None:
                    failed[run.name] = f"another process runs it now ({run.log})"
                    bar.update()
                else:
                    under_way[run.name] = (run, process, time.monotonic())
            for name, (run, process, started) in list(under_way.items()):
                if process.poll() is None:
                    continue
                del under_way[name]
                told = _end(run, process.returncode, time.monotonic() - started, failed, keep)
                bar.update()
                ended = len(todo) - len(waiting) - len(under_way)  # a bar that is not shown does not count
                left = (time.monotonic() - began) / ended * (len(todo) - ended)
                bar.write(f"{ended}/{len(todo)}  {told}  ({_span(left)} left)")
                sys.stdout.flush()
            time.sleep(0.1)
    finally:
        bar.close()
        _stop([process for _, process, _ in under_way.values()])
    return failed


def _start(
    run: Run, scripts: Path, launcher: Sequence[str], environment: dict[str, str], forks: Forks | None
) -> subprocess.Popen | Fork | None:
    """Its process, with a log that stays locked as long as it (or a child of it) lives; None if another has the lock.

    In a session of its own: Ctrl-C reaches the study alone, which then ends the whole group.
    """
    # What cannot resume does not train: several processes would only do the same work over one another.
    command = [*(launcher if run.resumes else [sys.executable]), str(scripts / f"{run.cell.script}.py")]
    try:
        with run.log.open("ab") as log:
            if not _lock(log) or run.finished:  # it may have ended between the two
                return None
            arguments = run.arguments()
            command += arguments
            if "--resume" not in arguments:
                log.truncate(0)
                text = yaml.safe_dump(run.options, allow_unicode=True, sort_keys=False)
                write_text(run.file, f"# script: {run.cell.script}\n{text}")
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            if forks is not None:
                return forks.start(Path(command[1]), command[2:], log)
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
    except OSError as error:
        raise UserError(f"{run.path} cannot be started ({error.strerror}: {error.filename or command[0]})") from None


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


def _end(run: Run, code: int, seconds: float, failed: dict[str, str], keep: str) -> str:
    """Note how a run ended; returns the line that tells of it. One that ended well keeps the checkpoints it should."""
    span = _span(seconds)
    if code == 0 and run.finished:
        try:
            write_json(run.path / "study.json", {"cell": run.cell.name, "seed": run.seed, "seconds": round(seconds, 3)})
            measured = read_measured(run.path)
            if keep != "all" and (run.path / "checkpoints").is_dir():
                scored = read_yaml(run.path / "config.yaml").get("score")
                remove_checkpoints(run.path, but=scored if keep == "scored" else None)
            return f"{run.name}: {measured.split} accuracy {measured.figures.get('accuracy', float('nan')):.4f}  {span}"
        except UserError as error:
            failed[run.name] = str(error)
    else:
        why = _last_line(run.log) if code else "it ended without metrics.json"
        failed[run.name] = f"{why} (exit code {code}; {run.log})"
    return f"{run.name}: failed  {span}"


def _last_line(log: Path) -> str:
    """What a log ends with, or the line with which our scripts refuse something, which a launcher buries."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    refusals = [line for line in lines if re.match(r"\w+\.py: error: ", line)]
    line = (refusals or lines or ["nothing was printed"])[-1]
    return line if len(line) <= 300 else line[:300] + " ..."


def _stop(processes: Sequence[subprocess.Popen | Fork]) -> None:
    """End processes and their children: asked first, killed if they do not listen."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        for process in processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number) if hasattr(os, "killpg") else process.terminate()
        until = time.monotonic() + _WAIT
        while any(process.poll() is None for process in processes) and time.monotonic() < until:
            time.sleep(0.05)


def _span(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {seconds:02} s"
