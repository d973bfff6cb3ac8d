"""Runs of a study as jobs: what they leave behind, how they fail, are cancelled and go on; and what SLURM is asked for.

SLURM is played by a few shell scripts, which start a job at once and know its id; nothing of submitit is.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from study_helpers import FAKE

from common.config import parse
from common.errors import UserError
from common.study import StudyOptions
from common.study_jobs import Script, slurm_parameters
from common.study_processes import run_all
from common.study_runs import run_study
from common.study_start import Ended, Run, is_busy, locked_log

submitit = pytest.importorskip("submitit")
TEXT = "script: train_fake\nrows:\n"
ROW = "  - {{name: {}, options: {{accuracy: 0.25, {}}}}}\n"
SLURM = {  # $CLUSTER: a folder for the jobs' scripts and process ids
    "sbatch": """
        id=$(($(ls "$CLUSTER" | grep -c sh$) + 1))
        grep -q partition=full "$1" && { echo "sbatch: error: no place in it" >&2; exit 1; }
        cp "$1" "$CLUSTER/$id.sh"
        SLURM_JOB_ID=$id setsid bash "$CLUSTER/$id.sh" > "$CLUSTER/$id.out" 2>&1 &
        echo $! > "$CLUSTER/$id.pid"
        echo "Submitted batch job $id"
    """,
    "srun": """
        echo $$ > "$CLUSTER/$SLURM_JOB_ID.task"
        out=${3/\\%j/$SLURM_JOB_ID}  # --unbuffered --output FILE COMMAND
        exec "${@:4}" >> "${out/\\%t/0}" 2>&1
    """,
    "scancel": 'echo "$1" >> "$CLUSTER/cancelled"; kill -TERM "$(cat "$CLUSTER/$1.task")"',
    "scontrol": """
        echo "$*" >> "$CLUSTER/requeued"
        SLURM_JOB_ID=$2 setsid bash -c "sleep 1; bash '$CLUSTER/$2.sh'" > "$CLUSTER/$2.out" 2>&1 &
        echo $! > "$CLUSTER/$2.pid"
    """,
    "sacct": """
        echo "JobID|State|NodeList"
        for file in "$CLUSTER"/*.pid; do
            kill -0 "$(cat "$file")" 2>/dev/null && state=RUNNING || state=NODE_FAIL
            echo "$(basename "$file" .pid)|$state|here"
        done
    """,
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "train_fake.py").write_text(FAKE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def cluster(here, monkeypatch) -> Path:
    """A cluster's commands, first on the path; the folder where they keep their jobs."""
    (here / "bin").mkdir()
    (here / "cluster").mkdir()
    for name, text in SLURM.items():
        (here / "bin" / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (here / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CLUSTER", str(here / "cluster"))
    submitit.SlurmJob.watcher.clear()  # which remembers jobs 1 and 2 of the test before
    return here / "cluster"


def study(rows: dict[str, str], *arguments: object) -> int:
    Path("s.yaml").write_text(TEXT + "".join(ROW.format(*row) for row in rows.items()), encoding="utf-8")
    return run_study(parse(StudyOptions, ["s.yaml", *map(str, arguments)]), scripts=Path("scripts"))


def starts() -> list[str]:
    return Path("starts.txt").read_text(encoding="utf-8").splitlines() if Path("starts.txt").exists() else []


def until(found, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not found() and time.monotonic() < end:
        time.sleep(0.1)
    assert found()


def test_jobs_leave_what_processes_leave(here, capsys):
    """Two at once, one of which fails, through a launcher; then only what failed is run again."""
    rows = {"a": "sleep: 0", "b": "fail: phở"}
    assert study(rows, "--executor", "local", "--jobs", 2, "--launcher", "env -u NOTHING python") == 1
    out, error = capsys.readouterr()
    why = "b, seed 0: train_fake.py: error: no such thing as phở (exit code 2; runs/s/runs/b-seed0.log)"
    assert why in error and "a, seed 0: test accuracy 0.2500" in out
    log = Path("runs/s/runs/a-seed0.log").read_text(encoding="utf-8").splitlines()
    assert log[0].startswith("$ env -u NOTHING python scripts/train_fake.py --config runs/s/cells/a-seed0.yaml")
    assert 0 < json.loads(Path("runs/s/runs/a-seed0/study.json").read_text(encoding="utf-8"))["seconds"] < 60
    assert {path.name for path in Path("runs/s").iterdir()} - {"jobs"} == {
        "accuracy.png", "accuracy.svg", "cells", "report.html", "report.md", "runs",
        "table.csv", "table.json", "table.md", "table.tex",
    }  # fmt: skip
    assert {path.name for path in Path("runs/s/runs").iterdir()} == {"a-seed0", "a-seed0.log", "b-seed0.log"}
    assert study(rows, "--executor", "local", "--launcher", "env -u NOTHING python") == 1
    assert sorted(starts()) == ["a-seed0", "b-seed0", "b-seed0"]


def run_of(name: str, *, sleep: int = 0) -> Run:
    from common.study import Cell

    cell = Cell(name=name, parts=(), script="train_fake", shared={}, own_data={}, own={}, seeds=(0,), reported={})
    for folder in ("runs", "cells"):
        Path("out", folder).mkdir(parents=True, exist_ok=True)
    path, file = Path("out/runs", f"{name}-seed0"), Path("out/cells", f"{name}-seed0.yaml")
    options = {"accuracy": 0.5, "seed": 0, "sleep": sleep}
    return Run(cell=cell, seed=0, options=options, path=path, file=file, resumes=True)


def test_a_run_that_another_study_has_or_had_is_not_started(here, capsys):
    pytest.importorskip("fcntl")
    run = run_of("a")
    script = Script(run, Path("scripts"), [sys.executable], 1, local=True)
    with locked_log(run):  # taken while the job waited in the queue
        assert script() == Ended(code=1, seconds=0.0, why="another process runs it now (out/runs/a-seed0.log)")
    run.path.mkdir()
    (run.path / "metrics.json").write_text("{}", encoding="utf-8")
    assert script() == Ended(code=0, seconds=None) and not starts()
    Path("runs/s/runs").mkdir(parents=True)
    with open("runs/s/runs/a-seed0.log", "w", encoding="utf-8") as log:
        import fcntl

        fcntl.flock(log, fcntl.LOCK_EX)
        assert study({"a": "sleep: 0"}, "--executor", "local") == 1
    assert "a, seed 0: another process runs it now" in capsys.readouterr().err and not starts()


def test_slurm_is_asked_for_what_was_given(cluster, capsys):
    given = ["partition=gpu", "gpus=2", "cpus=3", "time=1:30:00", "memory=16G"]
    assert study({"a": "sleep: 0"}, "--executor", "slurm", "--slurm", *given) == 0
    text = (cluster / "1.sh").read_text(encoding="utf-8")
    asked = {line.split("--", 1)[1] for line in text.splitlines() if line.startswith("#SBATCH")}
    expected = {"partition=gpu", "gpus-per-node=2", "cpus-per-task=3", "time=90", "mem=16G", "job-name=a-seed0"}
    assert expected <= asked
    assert "a, seed 0: test accuracy 0.2500" in capsys.readouterr().out and starts() == ["a-seed0"]
    with pytest.raises(UserError, match="a, seed 0 cannot be submitted: sbatch: error: no place in it"):
        study({"a": "sleep: 0"}, "--executor", "slurm", "--slurm", "partition=full", "--output", "other")


def test_a_job_put_back_into_the_queue_goes_on_and_a_lost_one_is_told(cluster, monkeypatch, capsys):
    from submitit.core.core import Job as SubmititJob

    from common.study_jobs import Jobs

    monkeypatch.setattr(SubmititJob, "_results_timeout_s", 1)  # it waits 15 seconds for a slow file system
    jobs = Jobs("slurm", Path("out"), 1, Path("scripts"), [sys.executable])
    run = run_of("a", sleep=600)
    job = jobs.start(run)
    until(lambda: (run.path / "checkpoints" / "last").exists())
    Path("awake").touch()
    os.kill(int((cluster / "1.task").read_text(encoding="utf-8")), signal.SIGUSR2)  # as SLURM says that time is up
    until(lambda: job.poll(now=True) is not None)
    assert job.poll().code == 0 and run.finished and starts() == ["a-seed0", "a-seed0 resume"]
    assert (cluster / "requeued").read_text(encoding="utf-8") == "requeue 1\n"

    Path("awake").unlink()
    lost = run_of("b", sleep=600)
    job = jobs.start(lost)
    until(lambda: (lost.path / "checkpoints" / "last").exists())
    task = psutil.Process(int((cluster / "2.task").read_text(encoding="utf-8")))
    everything = [task, *task.children(recursive=True)]
    for process in everything:  # as a node that fails takes all along
        process.kill()
    until(lambda: job.poll(now=True) is not None)
    assert job.poll().code == 1 and job.poll().why.startswith("job 2 ended without a result (NODE_FAIL: ")
    assert not is_busy(lost)


def test_an_interruption_cancels_the_jobs_of_slurm(cluster, capsys):
    """After Ctrl-C, scancel; and the run, which its job ended, can be started at once."""

    class Interrupted:
        def __init__(self, jobs) -> None:
            self.start, self.stop = jobs.start, jobs.stop

    from common.study_jobs import Jobs

    jobs = Jobs("slurm", Path("out"), 2, Path("scripts"), [sys.executable])
    runs = [run_of("a", sleep=600), run_of("b", sleep=600)]

    def start(run: Run):
        job = jobs.start(run)
        until(lambda: (run.path / "checkpoints" / "last").exists())
        if run is runs[1]:
            raise KeyboardInterrupt
        return job

    executor = Interrupted(jobs)
    executor.start = start
    with pytest.raises(KeyboardInterrupt):
        run_all(runs, 2, executor)
    assert "cancelled 2 jobs" in capsys.readouterr().err
    assert sorted((cluster / "cancelled").read_text(encoding="utf-8").split()) == ["1", "2"]
    for run in runs:
        with locked_log(run) as log:
            assert log is not None and not run.finished


@pytest.mark.parametrize(
    "given, says",
    [
        ("gpus", "--slurm 'gpus': write KEY=VALUE"),
        ("colour=red", "--slurm colour: is unknown; allowed: partition, account, qos, time, gpus, cpus, memory"),
        ("gpus=two", "--slurm gpus=two: must be a whole number above zero"),
        ("cpus=0", "--slurm cpus=0: must be a whole number above zero"),
        ("memory=16", "--slurm memory=16: must be a number with its unit"),
        ("time=soon", "--slurm time=soon: must be minutes"),
        ("time=0", "--slurm time=0: must be minutes"),
        ("partition=a b", "--slurm partition=a b: must be a name"),
        ("partition=", "--slurm partition=: must be a name"),
    ],
)
def test_bad_parameters_are_refused(here, given, says):
    with pytest.raises(UserError, match=says):
        study({"a": "sleep: 0"}, "--executor", "slurm", "--slurm", given, "--dry-run")
    assert not Path("runs").exists()


def test_times_are_read_as_slurm_reads_them():
    times = {"90": 90, "0:30": 1, "2:00": 2, "1:30:00": 90, "1-0": 1440, "1-2:30": 1590, "1-02:30:01": 1591}
    for text, minutes in times.items():
        assert slurm_parameters([f"time={text}"]) == {"time": minutes}, text
    assert slurm_parameters([]) == {"time": 24 * 60}
    with pytest.raises(UserError, match="--slurm qos: is given twice"):
        slurm_parameters(["qos=a", "qos=b"])


def test_what_is_not_there_is_told_in_a_line(here, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(UserError, match="--executor slurm: there is no sbatch here"):
        study({"a": "sleep: 0"}, "--executor", "slurm", "--launcher", sys.executable)
    with pytest.raises(UserError, match="--slurm is of jobs that go to SLURM: add --executor slurm"):
        study({"a": "sleep: 0"}, "--slurm", "gpus=1")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="--executor local needs submitit: pip install 'submitit>=1.5'"):
        study({"a": "sleep: 0"}, "--executor", "local", "--launcher", sys.executable)
    assert not Path("runs").exists() and not starts()
