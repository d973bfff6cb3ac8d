#!/usr/bin/env python
"""Train a classifier of photos: `accelerate launch scripts/train_image.py --data FOLDER`; `--help` lists more."""

from common.classifier_options import TrainImageOptions
from common.config import parse
from common.errors import command


@command
def main() -> None:
    options = parse(TrainImageOptions)
    from common.classifier_train import train  # after the options are read: `--help` and a typing error need no torch

    train(options)


if __name__ == "__main__":
    main()
