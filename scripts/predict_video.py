#!/usr/bin/env python
"""Classify clips with a trained run: `python scripts/predict_video.py --run RUN --video clip.avi`."""

from common.config import parse
from common.errors import command
from video.options import PredictVideoOptions


@command
def main() -> None:
    options = parse(PredictVideoOptions)
    from video.predict import predict

    predict(options)


if __name__ == "__main__":
    main()
