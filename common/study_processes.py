"""The runs of a study: some side by side, each with a log; ended when the study is.

Belongs here: the loop that starts and watches them, tells of progress, notes how they end; and runs as processes beside
the study. Runs as jobs are in `common/study_jobs.py`, what both share in `common/study_start.py`. Which runs there are,
and whether they may be run, is decided in `common/study_runs.py`.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from common.checkpoints import remove_checkpoints
from common.config import read_yaml
from common.errors import UserError
from common.runs import write_json
from common.study_forks import Fork, Forks, can_fork
from common.study_start import NO_METRICS, Ended, Run, Started, begin, cores, environment, locked_log, popen, stop
from common.study_tables import read_measured


class Executor(Protocol):
    """Where runs are started."""

    def start(self, run: Run) -> Started | None:
        """The run under way, or None if another process runs it."""
        ...

    def stop(self) -> None:
        """End all that are under way."""
        ...


def run_all(todo: Sequence[Run], jobs: int, executor: Executor, *, keep: str = "all") -> dict[str, str]:
    """Run them, `jobs` at a time → the name of each that failed, and why. An interruption ends those under way.

    `keep`: which checkpoints of a run stay when it has finished, as `StudyOptions.checkpoints` says.
    """
    waiting, failed = list(todo), {}
    under_way: dict[str, tuple[Run, Started]] = {}
    began = time.monotonic()
    bar = tqdm(total=len(todo), unit="run", disable=None)
    try:
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                run = waiting.pop(0)
                started = executor.start(run)
                if started is None:
                    failed[run.name] = run.busy
                    bar.update()
                else:
                    under_way[run.name] = (run, started)
            for name, (run, started) in list(under_way.items()):
                ended = started.poll()
                if ended is None:
                    continue
                del under_way[name]
                told = _end(run, ended, failed, keep)
                bar.update()
                done = len(todo) - len(waiting) - len(under_way)  # a bar that is not shown does not count
                left = (time.monotonic() - began) / done * (len(todo) - done)
                bar.write(f"{done}/{len(todo)}  {told}  ({_span(left)} left)")
                sys.stdout.flush()
            time.sleep(0.1)
    finally:
        bar.close()
        executor.stop()
    return failed


class Processes:
    """Starts runs beside the study: each a process or, where that is possible, a fork of one that has the libraries."""

    def __init__(self, jobs: int, scripts: Path, launcher: Sequence[str]) -> None:
        self._scripts, self._launcher = scripts, launcher
        self._threads = max(1, cores() // jobs)
        forks = list(launcher) == [sys.executable] and can_fork()
        self._forks = Forks(environment(self._threads)) if forks else None
        self._started: list[_Process] = []

    def start(self, run: Run) -> "_Process | _Finished | None":
        with locked_log(run) as log:
            if log is None:
                return None
            if run.finished:  # meanwhile, by another process that runs the same study
                return _Finished()
            command = begin(run, log, self._scripts, self._launcher, sys.executable)
            process: subprocess.Popen | Fork
            if self._forks is not None:
                process = self._forks.start(Path(command[1]), command[2:], log)
            else:
                process = popen(command, log, self._threads)
            started = _Process(process)
            self._started.append(started)
            return started

    def stop(self) -> None:
        stop([started.process for started in self._started])


class _Finished:
    """A run that another process has finished."""

    def poll(self) -> Ended:
        return Ended(code=0, seconds=None)


class _Process:
    """A run as a process, and how long it has taken."""

    def __init__(self, process: subprocess.Popen | Fork) -> None:
        self.process = process
        self._began = time.monotonic()

    def poll(self) -> Ended | None:
        code = self.process.poll()
        return None if code is None else Ended(code=code, seconds=time.monotonic() - self._began)


def _end(run: Run, ended: Ended, failed: dict[str, str], keep: str) -> str:
    """Note how a run ended; returns the line that tells of it. One that ended well keeps the checkpoints it should."""
    span = _span(ended.seconds or 0)
    if ended.code == 0 and run.finished:
        try:
            if ended.seconds is not None:
                timed = {"cell": run.cell.name, "seed": run.seed, "seconds": round(ended.seconds, 3)}
                write_json(run.path / "study.json", timed)
            measured = read_measured(run.path)
            if keep != "all" and (run.path / "checkpoints").is_dir():
                scored = read_yaml(run.path / "config.yaml").get("score")
                remove_checkpoints(run.path, but=scored if keep == "scored" else None)
            return f"{run.name}: {measured.split} accuracy {measured.figures.get('accuracy', float('nan')):.4f}  {span}"
        except UserError as error:
            failed[run.name] = str(error)
    else:
        why = _last_line(run.log) if ended.code else NO_METRICS
        failed[run.name] = ended.why or f"{why} (exit code {ended.code}; {run.log})"
    return f"{run.name}: failed  {span}"


def _last_line(log: Path) -> str:
    """What a log ends with, or the line with which our scripts refuse something, which a launcher buries."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    refusals = [line for line in lines if re.match(r"\w+\.py: error: ", line)]
    line = (refusals or lines or ["nothing was printed"])[-1]
    return line if len(line) <= 300 else line[:300] + " ..."


def _span(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {seconds:02} s"
