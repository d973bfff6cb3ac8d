"""What pages tell people to type: their bash and Python blocks, and whose options a command gives.

Belongs here: finding and taking apart. What is done with a command is the tests' business.
"""

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import accelerate.commands.launch
import torch.distributed.run

import common.config

ROOT = Path(__file__).resolve().parent.parent
SHELL = re.compile(r"\$\(|\||;|\bwhile\b")  # what only a shell can run
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Asked(Exception):
    """Raised in place of reading the options, with their class."""


def options_of(script: str, *arguments: str) -> type:
    """The class of the options that `scripts/SCRIPT` reads (for evaluate.py, the arguments tell which)."""

    def ask(cls: type, *_: object) -> None:
        raise Asked(cls)

    before = sys.argv, list(sys.path), common.config.parse
    sys.argv, common.config.parse = [f"scripts/{script}", *arguments], ask
    try:
        runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    except Asked as asked:
        return asked.args[0]
    finally:
        sys.argv, sys.path[:], common.config.parse = before
    raise AssertionError(f"{script} reads no options")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command as a page prints it: the program and what it is told, without what a launcher is told."""

    text: str
    words: tuple[str, ...]
    """all of it, a shell's braces spread out, and without the … that says "and so on" """

    @property
    def program(self) -> str:
        """`pip install`, `git`, `srun`, `pytest`, `python -m MODULE`, or the name of a script."""
        words = [word for word in self.words if not re.match(r"[A-Z_]+=", word)]
        scripts = [Path(word).name for word in words if (ROOT / "scripts" / Path(word).name).is_file()]
        if words[0] in ("python", "accelerate", "torchrun") and "-m" not in words[:2]:
            return scripts[0]
        return " ".join(words[: {"python": 3, "pip": 2}.get(words[0], 1)])

    @property
    def place(self) -> int:
        """Where in `words` the script, or the module, stands."""
        name = self.program.rpartition(" ")[2]
        return next(place for place, word in enumerate(self.words) if Path(word).name == name)

    @property
    def arguments(self) -> list[str]:
        """What the script is told."""
        return list(self.words[self.place + 1 :])

    def check_launcher(self) -> None:
        """What stands before the script is read by the launcher's own parser, which leaves with 2 if it refuses."""
        before = [word for word in self.words[: self.place] if not re.match(r"[A-Z_]+=", word)]
        if before[:2] == ["accelerate", "launch"]:
            given = accelerate.commands.launch.launch_command_parser().parse_args([*before[2:], "SCRIPT"])
            assert given.config_file is None or Path(given.config_file).is_file(), self.text
        elif before[:1] == ["torchrun"]:
            torch.distributed.run.get_args_parser().parse_args([*before[1:], "SCRIPT"])
        else:
            assert before in ([], ["python"]) or before[1:] == ["-m"], self.text


def sections(page: str) -> dict[str, list[tuple[str, str]]]:
    """Heading → its blocks `(language, text)`, both in the page's order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for part in re.split(r"^(?=##? )", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE):
        heading = part.splitlines()[0].lstrip("# ") if part.strip() else ""
        blocks = [(match[1], match[2]) for match in _BLOCK.finditer(part)]
        if blocks:
            found[heading] = blocks
    return found


def commands(block: str) -> Iterator[Command]:
    """The commands of a bash block, one for each line and each part of `a && b`."""
    line = ""
    for given in block.splitlines():
        line += given
        if line.rstrip().endswith("\\"):
            line = line.rstrip()[:-1]
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quotation that goes on
            line += "\n"
            continue
        text, line = line.strip(), ""
        if SHELL.search(shlex_plain(text)):
            yield Command(text=text, words=tuple(words))
            continue
        words = [spread for word in words if word != "…" for spread in _spread(word)]
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield Command(text=text, words=tuple(words[:end]))
            words = words[end + 1 :]
    assert not line, f"a quotation without an end: {block}"


def shlex_plain(text: str) -> str:
    """A command without its comment and its quoted parts, but for what a shell puts into double quotes."""
    text = re.sub(r"'[^']*'", "", text)
    text = re.sub(r'"(?![^"]*\$\()[^"]*"', "", text)
    return re.sub(r"(^|\s)#.*", "", text)


def _spread(word: str) -> list[str]:
    """As a shell does: `a{0..2}` → a0 a1 a2."""
    match = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", word)
    return [f"{match[1]}{n}{match[4]}" for n in range(int(match[2]), int(match[3]) + 1)] if match else [word]
