#!/usr/bin/env python
"""Baselines of visual question answering: `python scripts/baseline_vqa.py --baseline majority`; `--help` lists more."""

from common.config import parse
from common.errors import command
from vqa.baseline_options import BaselineOptions


@command
def main() -> None:
    options = parse(BaselineOptions)
    from vqa.baselines import run_baseline  # after the options are read: `--help` needs no torch

    run_baseline(options)


if __name__ == "__main__":
    main()
