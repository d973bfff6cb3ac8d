#!/usr/bin/env python
"""Run a study, a grid of trainings with several seeds, into one table: `python scripts/run_study.py STUDY.yaml`."""

import sys
from pathlib import Path

from common.config import parse
from common.errors import command
from common.study import StudyOptions


@command
def main() -> None:
    options = parse(StudyOptions)
    from common.study_runs import run_study

    sys.exit(run_study(options, scripts=Path(__file__).resolve().parent))


if __name__ == "__main__":
    main()
