"""Data that nothing, or hardly anything, can be learned from: a clear line before training, or a run that says so."""

import csv
import json
from pathlib import Path

import pytest
from video_helpers import write_csv, write_set

from common.config import parse
from common.errors import UserError
from video.options import TrainVideoOptions
from video.train import train as train_video
from vqa.options import TrainVqaOptions
from vqa.shapes import write_shapes
from vqa.train import train as train_vqa

SMALL = "--epochs 1 --workers 0 --width 4".split()


@pytest.fixture
def clips(tmp_path) -> Path:
    return write_set(tmp_path / "clips")


@pytest.fixture
def questions(tmp_path) -> Path:
    return write_shapes(tmp_path / "questions", train=12, validation=4, test=4, size=32)


def change(folder: Path, split: str, keep=lambda row: True, **values: str) -> None:
    """Keep some rows of a file, and give a column one value."""
    path = folder / f"{split}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row | values for row in csv.DictReader(file) if keep(row)]
    write_csv(path, rows)


def run_video(folder: Path, *more: str) -> dict:
    output = folder.parent / "run"
    small = [*SMALL, *"--frames 2 --image-size 16 --depth 2 --no-test".split()]
    train_video(parse(TrainVideoOptions, ["--data", str(folder), "--output", str(output), *small, *more]))
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))


def run_vqa(folder: Path, *more: str) -> dict:
    output = folder.parent / "run"
    train_vqa(parse(TrainVqaOptions, ["--data", str(folder), "--output", str(output), "--no-test", *SMALL, *more]))
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))


def test_one_class_is_refused(clips, questions):
    change(clips, "train", lambda row: row["label"] == "ngã")
    with pytest.raises(UserError, match="only one class, ngã"):
        run_video(clips)
    change(questions, "train", lambda row: row["answer"] == "có")
    with pytest.raises(UserError, match="only one answer to learn, 'có'.*answer column"):
        run_vqa(questions)
    assert not (clips.parent / "run").exists()  # nothing was begun


def test_classes_that_train_has_none_of_are_refused_or_counted(clips, questions):
    whole = clips / "validation.csv"
    text = whole.read_text(encoding="utf-8")
    change(clips, "validation", label="lạ")
    with pytest.raises(UserError, match=r"no class of validation \(lạ\) is among the 3"):
        run_video(clips)
    change(questions, "validation", answer="lạ")
    with pytest.raises(UserError, match="no answer of validation is among"):
        run_vqa(questions)
    whole.write_text(text, encoding="utf-8")
    change(clips, "train", lambda row: row["label"] != "ngã")
    assert run_video(clips)["validation"]["n_outside_vocabulary"] == 2


@pytest.mark.parametrize("task", ["video", "vqa"])
def test_a_single_group_cannot_be_split(task, clips, questions):
    folder, run = (clips, run_video) if task == "video" else (questions, run_vqa)
    (folder / "validation.csv").unlink()
    change(folder, "train", group="a")
    with pytest.raises(UserError, match=r"1 group\(s\) in \d+ row\(s\).*a split needs two"):
        run(folder)


@pytest.mark.parametrize("task", ["video", "vqa"])
def test_batches_of_one_are_trained(task, clips, questions):
    """BatchNorm's statistics over one photo's cells are finite, and so is the loss."""
    run = run_video(clips, "--batch-size", "1") if task == "video" else run_vqa(questions, "--batch-size", "1")
    assert 0 < run["validation"]["loss"] < 100


def test_a_rate_beyond_all_measure_stops_with_a_line_and_keeps_what_is_good(questions):
    with pytest.raises(UserError, match=r"epoch 1.*no finite number, at learning rate.*--learning-rate"):
        run_vqa(questions, "--learning-rate", "1e30", "--warmup", "0")
    run = questions.parent / "run"
    assert not (run / "metrics.json").exists() and not (run / "checkpoints").exists()
