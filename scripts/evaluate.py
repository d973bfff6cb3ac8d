"""Score a trained run again: `python scripts/evaluate.py RUN --data FILE --output OUT.json`."""

from common.config import parse
from common.errors import command
from vqa.options import EvaluateOptions


@command
def main() -> None:
    options = parse(EvaluateOptions)
    from vqa.scoring import evaluate_run

    evaluate_run(options)


if __name__ == "__main__":
    main()
