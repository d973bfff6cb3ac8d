"""The runs of a study as jobs that submitit submits: to SLURM, or as processes that it starts here.

Belongs here: submitting, watching and cancelling them, and what a job does: its run in a process with the run's own log
locked, as `common/study_processes.py` does it beside the study. Nothing heavy is imported, and submitit only when jobs
are asked for: a job imports this module first.

What submitit writes (a job's pickled function, its result, what itself says) stays in the study's folder `jobs/`.
"""

import contextlib
import math
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import UserError, reason
from common.study_start import NO_METRICS, WAIT, Ended, Run, begin, cores, is_busy, locked_log, popen, stop

SLURM_JOBS = 32  # submitted at once, unless --jobs says how many
_DAY = 24 * 60  # minutes that a job of SLURM may take, unless told: submitit's own default is five
_NO_LIMIT = 365 * _DAY  # submitit would end a local job after two minutes
_POLL = 1.0  # seconds between looks at a job: each asks the file system


def slurm_parameters(given: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` pairs as submitit's parameters. Raises `UserError` for an unknown key or a bad value."""
    parameters: dict[str, Any] = {"time": _DAY}
    seen = set()
    for pair in given:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise UserError(f"--slurm '{pair}': write KEY=VALUE")
        if key not in _KEYS:
            raise UserError(f"--slurm {key}: is unknown; allowed: {', '.join(_KEYS)}")
        if key in seen:
            raise UserError(f"--slurm {key}: is given twice; give it once")
        seen.add(key)
        theirs, read, expected = _KEYS[key]
        found = read(value)
        if found is None:
            raise UserError(f"--slurm {key}={value}: must be {expected}")
        parameters[theirs] = found
    return parameters


class Jobs:
    """Submits runs as jobs, by the executor of submitit that `kind` names: slurm or local.

    Raises `UserError` where submitit or SLURM is not there. `folder`: the study's.
    """

    def __init__(
        self, kind: str, folder: Path, jobs: int, scripts: Path, launcher: Sequence[str], slurm: Sequence[str] = ()
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise UserError(f"--executor {kind} needs submitit: pip install 'submitit>=1.5'") from None
        python = f"{shlex.quote(sys.executable)} -P"  # a file in the folder it starts in may be called like a library
        given: dict[str, Any] = {"folder": folder / "jobs", "python": python}
        self._local = kind == "local"
        if self._local:
            self._executor: Any = submitit.LocalExecutor(**given)
            self._executor.update_parameters(timeout_min=_NO_LIMIT, stderr_to_stdout=True)
        else:
            for needed in ("sbatch", "srun", "scancel"):
                if shutil.which(needed) is None:
                    raise UserError(
                        f"--executor slurm: there is no {needed} here; start the study where jobs are submitted, "
                        "or leave --executor out"
                    )
            self._executor = submitit.SlurmExecutor(**given)
            self._executor.update_parameters(**slurm_parameters(slurm), stderr_to_stdout=True)
        self._scripts, self._launcher = scripts, list(launcher)
        self._threads = max(1, cores() // jobs) if self._local else None
        self._jobs: list[Job] = []

    def start(self, run: Run) -> "Job | _Refused | None":
        """Submit a run; None if another process runs it. Raises `UserError` if the first job is refused."""
        if is_busy(run):
            return None
        if not self._local:
            self._executor.update_parameters(job_name=run.path.name)
        script = Script(run, self._scripts, self._launcher, self._threads, local=self._local)
        try:
            with _uninterrupted():
                job = Job(self._executor.submit(script), run, local=self._local)
                self._jobs.append(job)
        except (OSError, RuntimeError) as error:  # sbatch's own words
            why = f"{run.name} cannot be submitted: {reason(error)}"
            if not self._jobs:  # nor could any other, with the same parameters
                raise UserError(why) from None
            return _Refused(why)
        return job

    def stop(self) -> None:
        """Cancel the jobs that have not ended, and wait until their runs have."""
        alive = [job for job in self._jobs if job.poll(now=True) is None]
        until = time.monotonic() + 2 * WAIT
        for job in alive:
            job.cancel()
        while any(job.alive for job in alive) and time.monotonic() < until:
            time.sleep(0.5)
            if self._local:  # a job that was only about to start its run may not have heard it
                for job in alive:
                    job.cancel()
        if alive:
            late = [str(job) for job in alive if job.alive]
            more = f"; not ended yet: {', '.join(late)}" if late else ""
            print(f"cancelled {len(alive)} job{'s'[: len(alive) > 1]}{more}", file=sys.stderr, flush=True)


class Job:
    """A run as a job."""

    def __init__(self, job: Any, run: Run, *, local: bool) -> None:
        self._job, self._run, self._local = job, run, local
        self._looked = 0.0
        self._ended: Ended | None = None

    def __str__(self) -> str:
        return f"{self._run.name} (job {self._job.job_id})"

    def poll(self, *, now: bool = False) -> Ended | None:
        """How it ended, or None; `now`: looked at again, however short ago that was."""
        if self._ended is None and (now or time.monotonic() - self._looked >= (0.1 if self._local else _POLL)):
            self._looked = time.monotonic()
            if self._job.done():
                self._ended = self._result()
        return self._ended

    def cancel(self) -> None:
        """Ask it to end."""
        if not self._local:
            self._job.cancel(check=False)
        elif not self._job.done():
            # Not submitit's own way, which kills the job after a second, whatever its run needs to end.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self._job.job_id), signal.SIGTERM)

    @property
    def alive(self) -> bool:
        """Whether a cancelled job still runs: SLURM may tell that much later than the run's log does."""
        return not self._job.done() if self._local else is_busy(self._run)

    def _result(self) -> Ended:
        try:
            ended = self._job.result()
        except Exception as error:  # whatever submitit could not run, find or read
            told = [line for line in str(error).partition("You can check")[0].splitlines() if line.strip(" -")]
            what = f"{self._job.state}: {reason(Exception(told[-1]))}; {os.path.relpath(self._job.paths.stdout)}"
            return Ended(code=1, seconds=0.0, why=f"job {self._job.job_id} ended without a result ({what})")
        until = time.monotonic() + WAIT
        while not ended.code and not ended.why and not self._run.finished and time.monotonic() < until:
            time.sleep(0.2)  # what another machine has written may be seen here later
        return ended


class _Refused:
    """A run that was not submitted, as when a cluster takes no more jobs of one user."""

    def __init__(self, why: str) -> None:
        self._why = why

    def poll(self) -> Ended:
        return Ended(code=1, seconds=0.0, why=self._why)


class Script:
    """What a job does: the run, if nobody else runs or has finished it meanwhile.

    Called again when SLURM has put the job back into its queue, and then goes on with the run.
    """

    def __init__(self, run: Run, scripts: Path, launcher: Sequence[str], threads: int | None, *, local: bool) -> None:
        self.run, self.scripts, self.launcher, self.threads = run, scripts, launcher, threads
        self.python = sys.executable
        # submitit hides all GPUs from a local job that asked for none.
        self.gpus = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")} if local else {}

    def __call__(self) -> Ended:
        try:
            with locked_log(self.run) as log:
                if log is None:
                    return Ended(code=1, seconds=0.0, why=self.run.busy)
                if self.run.finished:
                    return Ended(code=0, seconds=None)
                began = time.monotonic()
                code = self._run(log)
        except Exception as error:  # submitit raises one where the job's time is up, for instance
            return Ended(code=1, seconds=0.0, why=f"{reason(error)} ({self.run.log})")
        why = f"{NO_METRICS} (exit code 0; {self.run.log})" if code == 0 and not self.run.finished else None
        return Ended(code=code, seconds=time.monotonic() - began, why=why)

    def checkpoint(self) -> Any:
        """What submitit puts back into the queue when the job's time is up (three times at most)."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _run(self, log: BinaryIO) -> int:
        for name, value in self.gpus.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}
        command = begin(self.run, log, self.scripts, self.launcher, self.python)
        asked = []
        for number in (signal.SIGTERM, signal.SIGINT):  # how a job is cancelled; submitit passes over the first
            signal.signal(number, lambda *_: asked.append(True))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # as the submission left it
        process = popen(command, log, self.threads or int(os.environ.get("SLURM_CPUS_PER_TASK") or cores()))
        try:
            while process.poll() is None and not asked:
                time.sleep(0.1)
        finally:
            stop([process])
        return process.returncode


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """While a job is submitted, Ctrl-C and SIGTERM wait: it would be nobody's job.

    What is started meanwhile never hears Ctrl-C (or that the terminal was closed): the study alone does, and cancels.
    """
    heard: list[int] = []
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ValueError):  # not in the main thread: signals are another's business
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    stack.callback(signal.signal, number, signal.signal(number, lambda n, _: heard.append(n)))
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, masked)
        yield
    if heard:
        signal.raise_signal(heard[0])


def _text(value: str) -> str | None:
    return value if value and not re.search(r"\s", value) else None


def _count(value: str) -> int | None:
    return int(value) if re.fullmatch(r"[0-9]{1,6}", value) and int(value) > 0 else None


def _memory(value: str) -> str | None:
    return value if re.fullmatch(r"[1-9][0-9]*[MGT]B?", value) else None


def _minutes(value: str) -> int | None:
    """A time as SLURM writes it, in whole minutes."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d{1,2}))?(?::(\d{1,2}))?", value)
    if found is None:
        return None
    days, *parts = found.groups()
    first, second, third = (int(part or 0) for part in parts)
    if days is not None or parts[2] is not None:  # [D-]H:MM:SS, D-H, D-H:MM
        seconds = (int(days or 0) * 24 + first) * 3600 + second * 60 + third
    else:  # M, M:SS
        seconds = first * 60 + second
    return math.ceil(seconds / 60) or None


# Our name → submitit's, how its value is read (None if it is bad), and what it must be.
_KEYS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "partition": ("partition", _text, "a name"),
    "account": ("account", _text, "a name"),
    "qos": ("qos", _text, "a name"),
    "time": ("time", _minutes, "minutes, H:MM:SS or D-H:MM:SS, above zero"),
    "gpus": ("gpus_per_node", _count, "a whole number above zero"),
    "cpus": ("cpus_per_task", _count, "a whole number above zero"),
    "memory": ("mem", _memory, "a number with its unit, such as 16G or 800M"),
    "constraint": ("constraint", _text, "text without spaces"),
    "gres": ("gres", _text, "text without spaces"),
    "nodelist": ("nodelist", _text, "text without spaces"),
    "exclude": ("exclude", _text, "text without spaces"),
}
