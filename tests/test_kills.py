"""Runs killed at any moment and resumed end bit for bit as those that nobody touched: weights, history, figures.

By default two kinds of run are killed once; `HOIANH_KILLS=20 pytest -s tests/test_kills.py` kills each of the four
twenty times, a fresh run every time, at random moments that are spread over all its epochs, the last ones while it is
scored.
"""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from video.motions import write_motions
from vqa.shapes import write_shapes

ROOT = Path(__file__).resolve().parent.parent
KILLS = int(os.environ.get("HOIANH_KILLS", "1"))
PHOTOS = 48 if KILLS == 1 else 160  # to train on, and so many clips: for epochs of a second and more
EPOCHS = 4
UNTIL = 4.6  # epochs after the first step: until then runs are killed, the last ones while they are scored
# A checkpoint every 0.6 seconds, within epochs, too; dropout and views, so that random numbers matter.
TASKS = {
    "vqa": f"--epochs {EPOCHS} --batch-size 4 --width 8 --dropout 0.3 --augment flip --checkpoint-minutes 0.01".split(),
    "video": f"--epochs {EPOCHS} --batch-size 4 --width 8 --frames 4 --head gru --dropout 0.3 --augment color "
    "--checkpoint-minutes 0.01".split(),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    write_shapes(folder / "vqa", train=PHOTOS, validation=8, test=8, size=32)
    write_motions(folder / "video", train=PHOTOS, validation=12, test=12, size=32)
    return {name: folder / name for name in TASKS}


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """(task, processes) → a run that nobody touches, and the seconds of its quickest epoch."""
    made: dict[tuple[str, int], tuple[Path, float]] = {}

    def run(task: str, processes: int) -> tuple[Path, float]:
        if (task, processes) not in made:
            path = tmp_path_factory.mktemp("unbroken") / f"{task}{processes}"
            process = start(task, processes, path, ["--data", data[task], *TASKS[task]])
            assert process.wait(600) == 0, log_of(path).read_text(encoding="utf-8")
            history = (path / "history.jsonl").read_text(encoding="utf-8").splitlines()
            made[task, processes] = path, min(json.loads(row)["seconds"] for row in history)
        return made[task, processes]

    return run


def log_of(run: Path) -> Path:
    return run.with_name(run.name + ".log")


def start(task: str, processes: int, run: Path, arguments: list) -> subprocess.Popen:
    """The training script, in a session of its own."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*(launcher if processes > 1 else [sys.executable]), str(ROOT / "scripts" / f"train_{task}.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    environment |= {"HOIANH_CACHE": str(run.parent / "cache")}
    with log_of(run).open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [*command, "--output", str(run), "--workers", "1", *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for_first_batch(process: subprocess.Popen, run: Path) -> None:
    while "first batch" not in log_of(run).read_text(encoding="utf-8"):
        assert process.poll() is None, log_of(run).read_text(encoding="utf-8")
        time.sleep(0.02)


def kill(process: subprocess.Popen) -> None:
    """All of its processes: those that `torchrun` starts are in sessions of their own."""
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in every:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(60)
    psutil.wait_procs(every, timeout=60)


def epochs_of(run: Path) -> int:
    """How many it has finished."""
    history = run / "history.jsonl"
    return history.read_text(encoding="utf-8").count("\n") if history.exists() else 0


def rows_of(run: Path) -> list[dict]:
    lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in ("seconds", "resumed")} for line in lines
    ]


def differences(run: Path, other: Path) -> list[str]:
    """Names of what the two runs do not have in common, bit for bit."""
    found = [] if rows_of(run) == rows_of(other) else ["history"]
    for name in ("metrics.json", "predictions-test.csv", "predictions-validation.csv"):
        found += [] if (run / name).read_bytes() == (other / name).read_bytes() else [name]
    for name in ("last", "best_loss", "best_accuracy"):
        ours, theirs = (load_file(path / "checkpoints" / name / "model.safetensors") for path in (run, other))
        same = ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)
        found += [] if same else [name]
    return found


@pytest.mark.parametrize("place", range(KILLS))
@pytest.mark.parametrize(("task", "processes"), [("vqa", 1), ("video", 1), ("vqa", 2), ("video", 2)])
def test_a_killed_run_ends_as_the_unbroken_one(task, processes, place, data, unbroken, tmp_path):
    if KILLS == 1 and (task, processes) not in (("vqa", 1), ("video", 2)):
        pytest.skip("one of each is enough here; HOIANH_KILLS=20 kills all of them")
    whole, seconds = unbroken(task, processes)
    run = tmp_path / "killed"
    epoch, part = divmod(UNTIL * (place + random.Random(f"{task}{processes}{place}").random()) / KILLS, 1)
    process = start(task, processes, run, ["--data", data[task], *TASKS[task]])
    wait_for_first_batch(process, run)
    while process.poll() is None and epochs_of(run) < epoch:
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(part * seconds)
    over = process.poll() is not None
    kill(process) if not over else None
    done = epochs_of(run)
    where = f"in epoch {done + 1} of {EPOCHS}" if done < EPOCHS else "after its epochs"
    if not over:
        process = start(task, processes, run, ["--resume"])
        told = "was stopped before its first checkpoint; start it anew with --overwrite"
        if process.wait(600) != 0 and told in log_of(run).read_text(encoding="utf-8"):  # so that is done
            assert done <= 1  # an epoch's row is written before its checkpoint
            process = start(task, processes, run, ["--data", data[task], *TASKS[task], "--overwrite"])
        assert process.wait(600) == 0, log_of(run).read_text(encoding="utf-8")
    resumed = [
        row["resumed"] for row in map(json.loads, (run / "history.jsonl").open(encoding="utf-8")) if "resumed" in row
    ]
    apart = differences(run, whole)
    steps = " and ".join(str(step) for steps in resumed for step in steps)
    ended = f"killed {where}, taken up at step {steps or '0'} of an epoch" if not over else "ended before it was killed"
    verdict = f"differs in {', '.join(apart)}" if apart else "the same to the bit"
    print(f"{task}, {processes} process(es): {ended}: {verdict}")
    assert apart == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_writes_a_checkpoint_and_says_how_to_go_on(number, data, unbroken, tmp_path):
    """The signal reaches all processes of the group, as a terminal's Ctrl-C and a scheduler's SIGTERM do."""
    whole, _ = unbroken("vqa", 1)
    run = tmp_path / "interrupted"
    process = start("vqa", 1, run, ["--data", data["vqa"], *TASKS["vqa"], "--checkpoint-minutes", "0"])
    wait_for_first_batch(process, run)
    os.killpg(process.pid, number)
    assert process.wait(120) == 130
    said = log_of(run).read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert re.search(
        r"stopped (in epoch \d after step \d+ of \d+|after epoch \d); .*train_vqa.py --resume --output", said
    )
    process = start("vqa", 1, run, ["--resume"])
    assert process.wait(600) == 0, log_of(run).read_text(encoding="utf-8")
    assert differences(run, whole) == []
