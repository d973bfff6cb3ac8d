#!/usr/bin/env python
"""Top-k error of a pretrained classifier: `python scripts/evaluate_encoder.py --data FOLDER --encoder alexnet`."""

from common.config import parse
from common.encoder_scoring_options import EvaluateEncoderOptions
from common.errors import command


@command
def main() -> None:
    options = parse(EvaluateEncoderOptions)
    from common.encoder_scoring import evaluate_encoder  # after the options are read: `--help` needs no torch

    evaluate_encoder(options)


if __name__ == "__main__":
    main()
