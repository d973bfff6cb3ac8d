#!/usr/bin/env python
"""Train a recurrent net to write words letter by letter (report R3): `python scripts/train_letters.py`."""

from common.config import parse
from common.errors import command
from common.letters_options import LettersOptions


@command
def main() -> None:
    options = parse(LettersOptions)
    from common.letters import train_letters  # after the options are read: `--help` needs no torch

    train_letters(options)


if __name__ == "__main__":
    main()
