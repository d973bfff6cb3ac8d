#!/usr/bin/env python
"""Score where a trained run looks: `python scripts/evaluate_attention.py RUN --output FILE.json --picture FILE.png`."""

from common.config import parse
from common.errors import command
from vqa.pointing_options import EvaluateAttentionOptions


@command
def main() -> None:
    options = parse(EvaluateAttentionOptions)
    from vqa.pointing import evaluate_attention  # after the options are read: `--help` needs no torch

    evaluate_attention(options)


if __name__ == "__main__":
    main()
