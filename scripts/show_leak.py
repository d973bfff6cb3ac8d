#!/usr/bin/env python
"""Show what a leak is worth, the random against the group split: `python scripts/show_leak.py --data FOLDER`."""

from common.config import parse
from common.errors import command
from video.leak_options import ShowLeakOptions


@command
def main() -> None:
    options = parse(ShowLeakOptions)
    from video.leak import show_leak  # after the options are read: `--help` and a typing error need no torch

    show_leak(options)


if __name__ == "__main__":
    main()
