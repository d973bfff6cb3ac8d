"""Texts in CSV files that spreadsheets would take for formulas.

Belongs here: making such a text plain, and back again. Every table we write goes through it (`common.runs.write_csv`),
and whoever reads one back through `restored`. Data sets are not tables of ours: a label stays as it is.
"""

import re
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")  # what makes Excel, LibreOffice and Google Sheets calculate
_ESCAPED = re.compile(r"'+[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?%?", re.IGNORECASE)  # "-0.5" is one, and no formula


def no_formula(value: Any) -> Any:
    """A text that a spreadsheet would calculate, with an apostrophe before it; anything else as it is.

    Numbers stay numbers, those written as text too. `restored` takes back what this adds, whatever the text.
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def restored(text: str) -> str:
    """The text that `no_formula` was given."""
    return text[1:] if _ESCAPED.match(text) else text
