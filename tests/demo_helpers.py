"""Tiny trained runs and a small study for the tests of the page, made in this process."""

import json
from pathlib import Path

from test_study_curves import history
from test_study_tables import read, tables
from video_helpers import write_set

from common.config import parse
from video.options import TrainVideoOptions
from video.train import train as train_video
from vqa.options import TrainVqaOptions
from vqa.shapes import write_shapes
from vqa.train import train as train_vqa

_SMALL = (
    "--depth 3 --width 4 --image-size 32 --embedding 8 --hidden 16 --projection 16 --attention-hidden 16 "
    "--fusion-hidden 16 --batch-size 8 --epochs 1 --workers 0 --examples 0"
).split()


def train_scenes(folder: Path, *more: str) -> Path:
    data = write_shapes(folder / "scenes", train=24, validation=8, test=8, size=32)
    given = ["--data", str(data), "--output", str(folder / "run"), "--cache", str(folder / "cache"), *_SMALL, *more]
    return train_vqa(parse(TrainVqaOptions, given))


def train_clips(folder: Path, *more: str) -> Path:
    data = write_set(folder / "clips")
    small = "--depth 2 --width 4 --image-size 16 --frames 8 --hidden 8 --pool 2 --batch-size 4 --epochs 1 --workers 0"
    given = ["--data", str(data), "--output", str(folder / "run"), "--cache", str(folder / "cache")]
    return train_video(parse(TrainVideoOptions, [*given, *small.split(), "--examples", "0", *more]))


STUDY = """
title: "R9 <b>bold</b>"
script: train
rows:
  - {name: "with <i>attention</i>", options: {attention: true, hidden: 8}}
  - {name: without, options: {attention: false, hidden: 8}}
reported: {without: {accuracy: 0.25}}
"""


def make_study(folder: Path) -> Path:
    study = read(folder, STUDY)
    runs = {}
    for number, cell in enumerate(study.cells):
        run = folder / "out" / "runs" / f"run{number}"
        run.mkdir(parents=True)
        figures = {"accuracy": 0.5 + number / 10, "loss": 1.0, "n": 4, "by_type": {}}
        (run / "metrics.json").write_text(json.dumps({"test": figures}), encoding="utf-8")
        rows = "".join(json.dumps(row) + "\n" for row in history(3))
        (run / "history.jsonl").write_text(rows, encoding="utf-8")
        runs[cell.name, 0] = run
    tables(folder / "out", study, runs, title=study.title)
    return folder / "out"
