#!/usr/bin/env python
"""Train visual question answering: `accelerate launch scripts/train_vqa.py --attention`; `--help` lists the options."""

from common.config import parse
from common.errors import command
from vqa.options import TrainVqaOptions


@command
def main() -> None:
    options = parse(TrainVqaOptions)
    from vqa.train import train  # after the options are read: `--help` and a typing error need no torch

    train(options)


if __name__ == "__main__":
    main()
