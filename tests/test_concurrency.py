"""Caches and studies filled by several processes at once, one of which may be killed: equal, whole, and nobody waits
for ever."""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from classifier_helpers import write_photo
from safetensors.torch import load_file
from test_study import FAKE
from tqdm import tqdm
from video_helpers import write_clip

from common import features, photos
from common.encoders import build_encoder
from common.features import FeatureStore, PhotoViews, ViewSource, cached_features
from common.images import Preprocessing, content_hash
from common.runs import write_text
from common.settling import settle
from common.training import make_accelerator
from video.clips import check_clips
from video.frames import ClipViews
from video.motions import embedded_motions
from video.sampling import Sampling
from vqa.options import TrainVqaOptions
from vqa.shapes import embedded_shapes

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 300  # on a machine that others use; alone it takes two
SMALL = Preprocessing(size=32)
VIEWS = {
    "photo": PhotoViews(preprocessing=SMALL),
    "clip": ClipViews(sampling=Sampling(frames=3), preprocessing=Preprocessing(size=32, resize="squash")),
}
forks = multiprocessing.get_context("fork")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(features, "_SHARD_BYTES", 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("made")
    return {
        "photo": [str(write_photo(folder / f"{number}.jpg", number)) for number in range(6)],
        "clip": [str(write_clip(folder / f"{number}.avi", seed=number)) for number in range(6)],
    }


def _work(start: float, answer, work: Callable[[], object]) -> None:
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # forks share the one they are born with, and one that is killed may hold it
    while time.monotonic() < start:  # no barrier: one that is killed at it would hold the others for ever
        time.sleep(0.001)
    answer.send(work())


def together(work: Callable[[], object], count: int = 3, *, kill: Callable[[], bool] | None = None) -> list[object]:
    """What so many processes that start at once make of it. With `kill` the first is killed when that is true, if it
    has not ended by then."""
    start, until = time.monotonic() + 0.3, time.monotonic() + SECONDS
    pipes = [forks.Pipe(duplex=False) for _ in range(count)]  # a shared one could be torn
    processes = [forks.Process(target=_work, args=(start, answer, work)) for _, answer in pipes]
    for process in processes:
        process.start()
    if kill is not None:
        while not kill() and time.monotonic() < until and processes[0].is_alive():
            time.sleep(0.005)
        processes[0].kill()
    for process in processes:
        process.join(max(0, until - time.monotonic()))
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
    assert not hung
    codes = [process.exitcode for process in processes]
    assert codes[1:] == [0] * (count - 1) and codes[0] in (0, *[-signal.SIGKILL] * (kill is not None)), codes
    return [reading.recv() for (reading, _), code in zip(pipes, codes, strict=True) if code == 0]


def fill(paths: list[str], views: ViewSource, cache: Path, *, seconds: float = 0) -> str:
    """Fill the cache, a row a shard, `seconds` for each; → a hash of all that is in it."""
    torch.manual_seed(0)
    encoder = build_encoder("custom_cnn", depth=2, width=4)
    forward = encoder.forward

    def slow(pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(seconds)
        return forward(pixels)

    encoder.forward = slow
    hashes = [content_hash(path) for path in paths]
    accelerator = make_accelerator(TrainVqaOptions())
    more = {"precision": "fp32", "batch_size": 1, "workers": 0}
    store = cached_features(encoder, paths, hashes, source=views, cache=cache, accelerator=accelerator, **more)
    rows = [(digest, 0) for digest in hashes]
    return _hash(store.take_clips(rows)[0] if views.unit == "clip" else store.take(rows)[0])


def _hash(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("features/*/*.safetensors"))


@pytest.mark.parametrize("kind", VIEWS)
def test_one_cache_of_features(made, tmp_path, kind):
    alone = fill(made[kind], VIEWS[kind], tmp_path / "alone")
    found = together(lambda: fill(made[kind], VIEWS[kind], tmp_path / "shared", seconds=0.01))
    assert found == [alone] * 3
    rows = [
        json.loads(features.safe_open(path, framework="pt").metadata()["rows"]) for path in shards(tmp_path / "shared")
    ]
    assert sum(map(len, rows)) == len(made[kind])  # each was made once
    assert not list((tmp_path / "shared").rglob("*.new"))
    json.loads(next((tmp_path / "shared").glob("features/*/about.json")).read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", VIEWS)
def test_a_process_killed_while_it_fills_the_cache(made, tmp_path, kind):
    alone = fill(made[kind], VIEWS[kind], tmp_path / "alone")
    shared = tmp_path / "shared"
    # Whichever of them has the lock then: the others must get it, and what was whole is not made again.
    found = together(lambda: fill(made[kind], VIEWS[kind], shared, seconds=0.1), kill=lambda: len(shards(shared)) >= 2)
    assert set(found) == {alone} and len(found) >= 2
    store = FeatureStore(shards(shared)[0].parent)
    assert all((content_hash(path), 0) in store for path in made[kind])


def test_one_encoders_statistics(made, tmp_path):
    views = VIEWS["photo"]

    def settled() -> str:
        torch.manual_seed(0)
        encoder = build_encoder("custom_cnn", depth=2, width=4).eval()
        settle(encoder, [(path, content_hash(path)) for path in made["photo"]], views, tmp_path)
        return _hash(torch.cat([buffer.flatten().float() for buffer in encoder.backbone.buffers()]))

    found = together(settled, 4)
    assert len(set(found)) == 1
    (kept,) = (tmp_path / "settled").iterdir()  # no other is left
    assert load_file(kept)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("write", [embedded_shapes, embedded_motions])
def test_one_embedded_set(tmp_path, write, kill):
    more = {"train": 12, "validation": 2, "test": 2, "size": 64} | (
        {"progress": False} if "motion" in write.__name__ else {}
    )

    def make(place: Path) -> str:
        folder = write(place, **more)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()

    alone = make(tmp_path / "alone")
    begun = lambda: bool(list((tmp_path / "shared").glob(".*/*")))  # noqa: E731
    (tmp_path / "shared").mkdir()
    found = together(lambda: make(tmp_path / "shared"), kill=begun if kill else None)
    assert set(found) == {alone}
    assert len([path for path in (tmp_path / "shared").iterdir() if not path.name.startswith(".")]) == 1
    assert kill or len(list((tmp_path / "shared").iterdir())) == 1


def test_one_record_of_good_files(made, tmp_path):
    def check() -> int:
        found = [*photos.check_photos(made["photo"], tmp_path, stop=True).values()]
        found += check_clips(made["clip"], tmp_path, stop=True).values()
        return len(found)

    assert together(check) == [12] * 3
    lines = (tmp_path / "checked-photos.txt").read_text(encoding="utf-8").splitlines()
    assert set(lines) == {content_hash(path) for path in made["photo"]}
    lines = (tmp_path / "checked-clips.txt").read_text(encoding="utf-8").splitlines()
    assert {line.split()[0] for line in lines} == {content_hash(path) for path in made["clip"]}
    assert all(re.fullmatch(r"[0-9a-f]{64} \d+", line) for line in lines)


def test_one_file_of_text(tmp_path):
    """A study's table, say: whole, whosever it is."""
    path = tmp_path / "table.md"

    def write() -> int:
        text = f"{os.getpid()}\n" * 20_000
        for _ in range(5):
            write_text(path, text)
            assert len(set(path.read_text(encoding="utf-8").splitlines())) == 1
        return os.getpid()

    writers = together(write)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 20_000 and len(set(lines)) == 1 and int(lines[0]) in writers
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.md"]


STUDY = """
title: shared
script: train_fake
options: {accuracy: 0.1, sleep: 0.2}
seeds: [0, 1]
grid: {size: {Big: {accuracy: 0.5}, Small: {accuracy: 0.25}}}
"""
START = """
import sys
from pathlib import Path
from common.config import parse
from common.errors import command
from common.study import StudyOptions
from common.study_runs import run_study

@command
def main():
    sys.exit(run_study(parse(StudyOptions), scripts=Path("scripts")))

if __name__ == "__main__":
    main()
"""


def test_one_study_by_two(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "train_fake.py").write_text(FAKE, encoding="utf-8")
    (tmp_path / "s.yaml").write_text(STUDY, encoding="utf-8")
    (tmp_path / "start.py").write_text(START, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(output: str) -> subprocess.Popen:
        command = [sys.executable, "start.py", "s.yaml", "--output", output]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True)

    both = [start("shared"), start("shared")]
    said = [process.communicate(timeout=SECONDS) for process in both]
    for process, (out, error) in zip(both, said, strict=True):
        assert process.returncode in (0, 1) and "Traceback" not in error, out + error
        assert process.returncode == 0 or "another process runs it now" in error
    last, alone = start("shared"), start("alone")  # whatever one left to the other is there
    assert last.communicate(timeout=SECONDS) and last.returncode == 0
    assert alone.communicate(timeout=SECONDS) and alone.returncode == 0
    began = (tmp_path / "starts.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(began) == sorted(
        2 * [f"{size}-seed{seed}" for size in ("big", "small") for seed in (0, 1)]
    )  # once each

    def figures(folder: str) -> list:
        found = json.loads((tmp_path / folder / "table.json").read_text(encoding="utf-8"))["cells"]
        return [(cell["name"], cell["seeds"], cell["measured"]["accuracy"]) for cell in found]

    assert figures("shared") == figures("alone")
    assert not list((tmp_path / "shared").rglob("*.new"))
