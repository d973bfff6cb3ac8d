#!/usr/bin/env python
"""Make a question set from photos, or rebuild ours: `python scripts/prepare_data.py labels PHOTOS --output FOLDER`."""

from common.config import parse
from common.errors import command
from vqa.prepare_options import PrepareOptions


@command
def main() -> None:
    options = parse(PrepareOptions)
    from vqa.prepare import prepare  # after the options are read: `--help` and a typing error need no torch

    prepare(options)


if __name__ == "__main__":
    main()
