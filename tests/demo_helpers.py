"""Tiny trained runs for the tests of the page, in this process."""

from pathlib import Path

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
