#!/usr/bin/env python
"""Score a trained run again: `python scripts/evaluate.py RUN --data FILE --output OUT.json`."""

from importlib import import_module

from common.config import parse
from common.errors import command
from common.run_tasks import task_of_command

# Of each task, where its options and its scoring are.
TASKS = {
    "vqa": ("vqa.options", "EvaluateOptions", "vqa.scoring"),
    "image": ("common.classifier_options", "EvaluateImageOptions", "common.classifier_scoring"),
    "video": ("video.options", "EvaluateVideoOptions", "video.scoring"),
}


@command
def main() -> None:
    module, name, scoring = TASKS[task_of_command(tuple(TASKS))]
    options = parse(getattr(import_module(module), name))
    import_module(scoring).evaluate_run(options)  # after the options are read: `--help` needs no torch


if __name__ == "__main__":
    main()
