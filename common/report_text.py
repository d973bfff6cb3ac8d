"""Text for reports that people open: escaped for Markdown, and without this machine's absolute paths.

Belongs here: turning one text into another. HTML is escaped by jinja2; what a report says is
`common/study_report.py`'s.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

# Characters that could begin markup. Underscores inside of a word, and brackets around numbers (an interval), cannot.
_MARKUP = re.compile(r"[\\`*|~]|(?<!\w)_|_(?!\w)|\[(?![-+−–\d., ]+\](?![(\[:]))|^(?=[#>+=-])")
_ABSOLUTE = re.compile(r"(?<![\w.~/:<])(?:file://)?(/[^\s'\"`,;:()<>|]+)")


def markdown_text(text: object) -> str:
    """One line of plain text for Markdown, in a paragraph, a heading, an item or a cell of a table: nothing in it is
    markup, and no HTML."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(lambda found: "\\" + found.group(), line)


def fenced(text: str) -> str:
    """A block of code, whatever is in it."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def without_machine(text: str, base: Path, *, known: Iterable[str] = ()) -> str:
    """`text` whose absolute paths are relative to the folder `base`; `known` paths even if there are blanks in them.

    What only looks like one, "/" for "or", stays: a path has two names at least, or is there.
    """

    return _with_paths(text, lambda path: os.path.relpath(path, base.resolve()), known)


def without_folders(text: str, *, known: Iterable[str] = ()) -> str:
    """`text` whose absolute paths are names alone, for strangers: folders tell who somebody is and where they work."""
    return _with_paths(text, lambda path: os.path.basename(path.rstrip("/")), known)


def _with_paths(text: str, written: Callable[[str], str], known: Iterable[str]) -> str:
    for path in sorted({path for path in known if os.path.isabs(path)}, key=len, reverse=True):
        text = text.replace(path, written(path))

    def shown(found: re.Match[str]) -> str:
        path = found.group(1)
        is_path = path.strip("/").count("/") or os.path.exists(path)
        return written(path) if is_path and path.strip("/.") else found.group()

    return _ABSOLUTE.sub(shown, text)
