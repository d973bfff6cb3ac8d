"""Completion of a command's options in a shell, by shtab (extra `completion`), from the parser that reads them.

Belongs here: what shtab has to know beside the names of the options. shtab is imported only where it is asked for.

    eval "$(python scripts/train_vqa.py --print-completion bash)"      # in ~/.bashrc, say
    scripts/train_vqa.py --ep<Tab>
"""

import argparse
from collections.abc import Sequence
from typing import Any

from common.errors import UserError

SHELLS = ("bash", "zsh", "tcsh")


class PrintCompletion(argparse.Action):
    """`--print-completion SHELL`: print a script for that shell, and leave as `--help` does."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, dest, default=argparse.SUPPRESS, choices=SHELLS, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        try:
            import shtab
        except ImportError:
            raise UserError('--print-completion needs shtab: pip install -e ".[completion]"') from None
        actions: list[Any] = parser._actions  # with what is noted on them
        for action in actions:  # choices that argparse itself does not check: pydantic does
            values, files = getattr(action, "suggested", ((), False))
            if values:
                action.choices = values
            elif files:
                action.complete = shtab.FILE
        print(shtab.complete(parser, given[1]))
        parser.exit(0)


def suggest(action: Any, values: Sequence[str], *, files: bool) -> None:
    """Note what an option may be completed with: its values, or files."""
    action.suggested = (values, files)
