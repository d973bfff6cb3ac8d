#!/usr/bin/env python
"""Write a source's frozen features as one file: `python scripts/extract_features.py --data FOLDER --output FILE`."""

from common.config import parse
from common.errors import command
from video.extract_options import ExtractOptions


@command
def main() -> None:
    options = parse(ExtractOptions)
    from video.extract import extract  # after the options are read: `--help` and a typing error need no torch

    extract(options)


if __name__ == "__main__":
    main()
