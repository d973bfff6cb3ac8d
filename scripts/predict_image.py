#!/usr/bin/env python
"""Classify photos with a trained run: `python scripts/predict_image.py --run RUN --image photo.jpg`."""

from common.classifier_options import PredictImageOptions
from common.config import parse
from common.errors import command


@command
def main() -> None:
    options = parse(PredictImageOptions)
    from common.classifier_predict import predict

    predict(options)


if __name__ == "__main__":
    main()
