"""Which task a run is of, before its options can be read: each task's scoring has options of its own.

Belongs here: that question alone, without torch. The run directory itself is `common/runs.py`'s.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError


def task_of_command(known: Sequence[str], arguments: Sequence[str] | None = None) -> str:
    """The task of the first run directory among the command's arguments; the first of `known` if there is none, whose
    options then tell what is missing. Raises `UserError` for a run of an unknown task."""
    for argument in sys.argv[1:] if arguments is None else arguments:
        path = Path(argument) / "environment.json"
        try:
            task = json.loads(path.read_text(encoding="utf-8"))["task"] if path.is_file() else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # damaged: what reads it says so
        if task is not None:
            if task not in known:
                raise UserError(f"{argument} is a {task} run; runs of {', '.join(known)} can be used here")
            return task
    return known[0]
