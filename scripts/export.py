#!/usr/bin/env python
"""Share a trained run: `python scripts/export.py RUN --to folder|onnx|hub`."""

from importlib import import_module

from common.config import parse
from common.errors import command
from common.export_options import ExportOptions
from common.run_tasks import task_of_command

# Of each task, where it says what of its models is shared.
TASKS = {"vqa": "vqa.export", "image": "common.classifier_export", "video": "video.export"}


@command
def main() -> None:
    options = parse(ExportOptions)
    from common.export import export_run  # after the options are read: `--help` needs no torch

    export_run(options, import_module(TASKS[task_of_command(tuple(TASKS), [options.run])]).open_shareable)


if __name__ == "__main__":
    main()
