#!/usr/bin/env python
"""Train a classifier of short clips: `accelerate launch scripts/train_video.py`; `--help` lists the options."""

from common.config import parse
from common.errors import command
from video.options import TrainVideoOptions


@command
def main() -> None:
    options = parse(TrainVideoOptions)
    from video.train import train  # after the options are read: `--help` and a typing error need no torch

    train(options)


if __name__ == "__main__":
    main()
