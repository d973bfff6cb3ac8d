"""What commands say, at their start, on the way and at their end: to people in a terminal, to programs in a pipe.

Belongs here: the one layout of the block at the start, of a training's bar, of commands to try next, and of the
result for programs. What is said is the caller's business; errors are `common/errors.py`'s, tables
`common/tables.py`'s.

Where standard output is no terminal, no line is broken to fit, there are no suggestions, and the last line of a command
that trains, scores or compares is one JSON object with its figures and where they lie. Bars are drawn on standard
error, and only if that is a terminal.
"""

import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from common.files import finite

_LABEL = 24  # longest name of a line of the block
_BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}s, {elapsed}, {remaining} left{postfix}"


def for_people() -> bool:
    """Whether standard output is a terminal (or a notebook, which says it is one)."""
    return sys.stdout.isatty()


def block(title: str, lines: Sequence[str]) -> str:
    """A title and lines `name: what it is`. In a terminal the names stand in a column, and long lines are broken."""
    if not for_people():
        return "\n".join([title, *lines])
    pairs = [_split(line) for line in lines]
    wide = max([0, *(len(name) for name, _ in pairs)]) + 2
    columns = max(60, min(shutil.get_terminal_size().columns, 120))
    told = []
    for name, text in pairs:
        start, rest = f"  {name:<{wide}}", " " * (wide + 2)
        broken: Any = {"break_long_words": False, "break_on_hyphens": False}
        told.append(textwrap.fill(text, columns, initial_indent=start, subsequent_indent=rest, **broken))
    return "\n".join([title, "─" * min(len(title), columns), *told])


def _split(line: str) -> tuple[str, str]:
    name, colon, text = line.partition(": ")
    return (name, text) if colon and len(name) <= _LABEL else ("", line)


def training_bar(*, total: int, initial: int, shown: bool) -> tqdm:
    """A bar over the steps of all epochs, so that the time left is that of the whole training.

    It is averaged over all that was done, as validation after each epoch takes its share.
    """
    return tqdm(
        total=total,
        initial=initial,
        unit="step",
        smoothing=0,
        miniters=1,
        mininterval=0.5,  # what is shown of a GPU's figures has to be waited for
        bar_format=_BAR,
        dynamic_ncols=True,
        disable=None if shown else True,
    )


def live(loss: float, right: float, samples: float) -> str:
    """What an epoch has come to so far, from its sums."""
    samples = max(1.0, samples)
    return f"loss {loss / samples:.4f}, accuracy {right / samples:.4f}"


def script(name: str, *arguments: object) -> str:
    """A command line for one of our scripts, from where the user stands, to be copied."""
    here = Path(sys.argv[0]).parent
    folder = os.path.relpath(here) if here.name == "scripts" else "scripts"
    return shlex.join(["python", os.path.join(folder, f"{name}.py"), *map(str, arguments)])


def ending(text: str, *, steps: Sequence[tuple[str, str]], result: Mapping[str, Any]) -> str:
    """What a command says last: `text`, then for people what to try next (what for, command), for programs `result`."""
    if not for_people():
        return f"{text}\n{as_line(result)}"
    return "\n".join([text, "", "next:", *[f"  # {why}\n  {command}" for why, command in steps]] if steps else [text])


def say_result(**result: Any) -> None:
    """Print the result of a command as one line of JSON, if programs listen."""
    if not for_people():
        print(as_line(result), flush=True)


def as_line(result: Mapping[str, Any]) -> str:
    """One line of JSON, Vietnamese as it is written, NaN as null, paths as text."""
    return json.dumps(finite(result), ensure_ascii=False, default=str)
