#!/usr/bin/env python
"""Compare runs from their saved predictions: `python scripts/compare_runs.py RUN RUN`."""

from common.compare_options import CompareOptions
from common.config import parse
from common.errors import command


@command
def main() -> None:
    options = parse(CompareOptions)
    from common.compare import compare_runs  # after the options are read: `--help` and a typing error need no torch

    compare_runs(options)


if __name__ == "__main__":
    main()
