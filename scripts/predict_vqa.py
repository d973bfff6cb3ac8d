#!/usr/bin/env python
"""Ask a trained run: `python scripts/predict_vqa.py --run RUN --image photo.jpg --question "món này là món gì"`."""

from common.config import parse
from common.errors import command
from vqa.options import PredictVqaOptions


@command
def main() -> None:
    options = parse(PredictVqaOptions)
    from vqa.predict import predict

    predict(options)


if __name__ == "__main__":
    main()
