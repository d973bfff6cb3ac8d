#!/usr/bin/env python
"""Measure side by side what loading, extraction and training cost: `python scripts/benchmark.py --output FILE.json`."""

from common.benchmark_options import BenchmarkOptions
from common.config import parse
from common.errors import command


@command
def main() -> None:
    options = parse(BenchmarkOptions)
    from common.benchmark_run import run_benchmark  # after the options are read: `--help` needs no torch
    from video.benchmark import PARTS as CLIPS
    from vqa.benchmark import PARTS as PHOTOS

    names = sorted(CLIPS | PHOTOS)
    run_benchmark(options, {name: [*CLIPS.get(name, []), *PHOTOS.get(name, [])] for name in names})


if __name__ == "__main__":
    main()
