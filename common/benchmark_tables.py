"""What was measured, as Markdown: aims beside figures, times, and where they stand on a page.

Belongs here: from the benchmark's JSON to tables, without torch. Measuring is `common/benchmark.py`'s; what a whole
data set costs on paper is `common/benchmark_costs.py`'s.
"""

import functools
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.benchmark_costs import cost_table
from common.errors import UserError
from common.files import write_whole
from common.tables import markdown


def show(found: Mapping[str, Any]) -> str:
    """All tables, one below the other."""
    tables = {name: table for name, table in page_tables(found).items() if table}
    return "\n\n".join(tables.values())


def page_tables(found: Mapping[str, Any]) -> dict[str, str]:
    """The tables of a page, by the names of its marks."""
    return {name: table(found) for name, table in TABLES.items()}


def _between(table: str, marks: re.Match[str]) -> str:
    return f"{marks[1]}\n{table}\n\n{marks[2]}"


def check_page(path: Path) -> str:
    """The text of a page that has each mark once: `<!-- NAME -->` before each table, `<!-- end -->` behind it.

    Raises `UserError` for any other.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"--page {path}: cannot be read; give a Markdown page with marks like <!-- aims -->") from None
    for name in TABLES:
        count = len(re.findall(_between_marks(name), text, flags=re.DOTALL))
        if count != 1:
            raise UserError(f"--page {path}: {count} marks <!-- {name} --> … <!-- end -->; there must be one")
    return text


def fill_page(path: Path, found: Mapping[str, Any]) -> None:
    """Put the tables between the marks of a page. Raises `UserError`, as `check_page`."""
    text = check_page(path)
    for name, table in page_tables(found).items():
        text = re.sub(_between_marks(name), functools.partial(_between, table), text, flags=re.DOTALL)
    write_whole(path, lambda file: file.write(text))


def _between_marks(name: str) -> str:
    return rf"(<!-- {name} -->\n).*?(<!-- end -->)"


def machine_line(found: Mapping[str, Any]) -> str:
    """The machine and the settings, in two sentences."""
    about, options = found["machine"], found["options"]
    gpu = f"; {about['gpu']}" if about.get("gpu") else ""
    load = about.get("load_before")
    busy = "" if load is None else f" Load before: {load}" + (" (other work ran beside it)." if load > 0.5 else ".")
    data = ", ".join(options["data"]) or "made for the purpose"
    lacking = "".join(f" **Part {name}: {why}.**" for name, why in found.get("missing", {}).items())
    lacking += " fp32 is full fp32, TF32 off." if about.get("gpu") else ""
    return (
        f"{about['cores']} cores ({about['cpu']}: {' '.join(about['cpu_flags'])}), {about['memory_gib']} GiB{gpu}; "
        f"Python {about['python']}, torch {about['torch']}. Data: {data}; {options['encoder']}, weights "
        f"{options['weights']}; medians of {options['repeats']} repeats; {found.get('took_seconds', 0):.0f} s."
        f"{busy}{lacking}"
    )


def aims_table(parts: Mapping[str, Any]) -> str:
    """A row per figure: measured, aim, and whether it was met."""
    rows = []
    for name, part in parts.items():
        for figure in part["figures"]:
            aim = figure["aim"]
            sign = "≤" if figure["at_most"] else "≥"
            met = aim is None or (figure["value"] <= aim if figure["at_most"] else figure["value"] >= aim)
            cores = figure["cores"]
            rows.append(
                {
                    "": name,
                    "what": figure["what"],
                    "measured": _figure(figure["value"], figure["unit"]),
                    "by processor time": "" if cores is None else _figure(cores, figure["unit"]),
                    "aim": "" if aim is None else f"{sign} {_figure(aim, figure['unit'])}",
                    "met": "" if aim is None else "yes" if met else "**no**",
                }
            )
    return markdown(rows) if rows else ""


def times_table(parts: Mapping[str, Any]) -> str:
    """A row per side: seconds, and what a unit costs."""
    rows = []
    for name, part in parts.items():
        for side in part["sides"]:
            wall = statistics.median(side["seconds"])
            per, core = (
                f"{1000 * statistics.median(seconds) / side['units']:.2f} ms a {side['unit']}"
                if side["unit"] and seconds
                else ""
                for seconds in (side["seconds"], side["core_seconds"])
            )
            row = {"": name, "side": side["name"], "seconds": f"{wall:.3f}", "of a unit": per, "of a core": core}
            rows.append(row | {"least – most": f"{min(side['seconds']):.3f} – {max(side['seconds']):.3f}"})
    notes = [f"- {name}: {note}" for name, part in parts.items() for note in part["notes"]]
    return "\n".join([markdown(rows), "", *notes]).strip() if rows else "\n".join(notes)


def _figure(value: float, unit: str) -> str:
    if value and abs(value) < 0.05:
        text = f"{value:.1e}"
    elif not unit and abs(value) <= 1:
        text = f"{value:.4f}"
    else:
        text = f"{value:,.2f}" if abs(value) < 20 else f"{value:,.1f}"
    return f"{text} {unit}".strip()


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "machine": machine_line,
    "aims": lambda found: aims_table(found["parts"]),
    "times": lambda found: times_table(found["parts"]),
    "cost": cost_table,
}
