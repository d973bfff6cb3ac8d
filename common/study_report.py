"""The report of a study: all that its tables say, its pictures, and where its figures come from, as one page.

`report.html` holds everything in itself, pictures too: it can be sent to somebody and opened offline. `report.md` says
the same beside its pictures. Belongs here: what stands in it, in which order. How it looks is in `common/templates/`.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from common.errors import UserError
from common.report_text import fenced, markdown_text, without_machine
from common.runs import write_text
from common.study_curves import draw_runs
from common.study_pictures import Pictured, as_data, best_seed, cell_confusion, cell_examples, median_seed
from common.study_provenance import Runs, environment, known_paths, overlaps, shared_options, splits
from common.study_values import read_history
from common.tables import markdown

_MOST_DATA = 9_500_000  # characters of pictures in the page
Rows = Sequence[Mapping[str, str]]


@dataclass(kw_only=True)
class Section:
    """A table, with what stands above it, and a list below."""

    rows: Rows
    caption: str = ""
    sentence: str = ""
    findings: Sequence[str] = ()


def write_report(
    output: Path,
    *,
    title: str,
    command: str,
    notes: Sequence[str],
    failed: Mapping[str, str],
    entries: Sequence[Mapping[str, Any]],
    slugs: Mapping[str, str],
    runs: Runs,
    tables: Sequence[Section],
    differences: Section | None,
    groups: Sequence[Section],
) -> None:
    """Write `report.html`, `report.md` and the pictures that they show, `curves.png` and `confusion-*.png`.

    `entries` are those of `table.json`, `slugs` are the cells' names as file names, `runs` the finished ones; `tables`
    begin with the main one, `groups` are accuracies by type or class. A picture that cannot be made is left out, and
    the report says why.
    """
    problems: list[str] = []
    clean = _cleaner(output, known_paths(runs))
    typed = _cleaner(Path.cwd(), known_paths(runs))
    alike, own = shared_options(entries)
    pictures = _pictures(output, title, entries, slugs, runs, problems)
    facts = environment(runs)
    said = {
        "title": title,
        "notes": [clean(note) for note in notes],
        "tables": tables,
        "differences": differences,
        "groups": groups,
        "pictures": pictures,
        "problems": [clean(problem) for problem in problems],
        "splits": [(shared.cells, [clean(line) for line in shared.lines]) for shared in splits(runs)],
        "overlaps": [
            (shared.cells, [clean(line) for line in shared.lines]) for shared in overlaps(runs) if shared.lines
        ],
        "checked": bool(runs),
        "environment": facts,
        "differing": ", ".join(fact.name for fact in facts if len(fact.said) > 1),
        "command": typed(command),
        "folder": os.path.relpath(Path.cwd(), output.resolve()),
        "alike": {name: clean(str(value)) for name, value in alike.items()},
        "cells": [
            (entry["name"], typed(entry["command"]), {n: clean(str(v)) for n, v in own[entry["name"]].items()})
            for entry in entries
        ],
        "failed": {name: clean(why.replace(f"{output}{os.sep}", "")) for name, why in failed.items()},
    }
    write_text(output / "report.html", _html(said))
    write_text(output / "report.md", _markdown(said, output))


# --- pictures ---------------------------------------------------------------------------------------------------------


def _pictures(
    output: Path,
    title: str,
    entries: Sequence[Mapping[str, Any]],
    slugs: Mapping[str, str],
    runs: Runs,
    problems: list[str],
) -> dict[str, list[Pictured]]:
    """Kind of picture → what there is of it; what went wrong joins `problems`."""
    found: dict[str, list[Pictured]] = {"bars": [], "curves": [], "confusion": [], "examples": []}
    if any("accuracy" in entry["measured"] for entry in entries) and (output / "accuracy.png").is_file():
        found["bars"] = [Pictured(cell="", path=output / "accuracy.png", told="measured accuracy, and reported")]
    histories: dict[str, list[list[dict[str, Any]]]] = {}
    for (cell, _), run in runs.items():
        histories.setdefault(cell, []).append(read_history(run))
    try:
        if draw_runs(histories, output / "curves.png", title=title):
            told = "accuracy and loss per epoch, every run"
            found["curves"] = [Pictured(cell="", path=output / "curves.png", told=told)]
    except UserError as error:
        problems.append(str(error))
    for entry in entries:
        by_seed = entry["measured"].get("accuracy", {}).get("by_seed", {})
        if not by_seed:
            continue
        seed, name = median_seed(by_seed), entry["name"]
        out = output / f"confusion-{slugs[name]}-seed{seed}.png"
        _forget_others(out)
        drawn = cell_confusion(entry, runs[name, int(seed)], seed, out)
        found["confusion"] += [drawn] if isinstance(drawn, Pictured) else []
        problems += [drawn] if isinstance(drawn, str) else []
        seed = best_seed(by_seed)
        found["examples"] += filter(None, [cell_examples(entry, runs[name, int(seed)], seed)])
    return found


def _forget_others(out: Path) -> None:
    """Remove the same picture of another seed, which was the median when there were fewer."""
    same = re.compile(re.escape(re.sub(r"\d+\.png$", "", out.name)) + r"\d+\.png")
    for path in out.parent.glob("confusion-*.png"):
        if path != out and same.fullmatch(path.name):
            for old in (path, path.with_suffix(".svg")):
                old.unlink(missing_ok=True)


# --- writing ----------------------------------------------------------------------------------------------------------


def _html(said: Mapping[str, Any]) -> str:
    room = _MOST_DATA
    embedded: dict[str, list[dict[str, Any]]] = {}
    problems = list(said["problems"])
    for kind, its in said["pictures"].items():
        embedded[kind] = []
        for picture in its:
            where = f"{picture.path.parent.name}/{picture.path.name}"
            try:
                source, width = as_data(picture.path, photos=picture.photos)
            except UserError:
                problems.append(f"{where}: cannot be read as a picture")
                continue
            if len(source) > room:
                problems.append(f"{where}: not shown, this page would be too large; report.md shows it")
                continue
            room -= len(source)
            about = {"cell": picture.cell, "told": picture.told, "photos": picture.photos}
            embedded[kind].append(about | {"source": Markup(source), "width": width})
    page = _templates(autoescape=True).get_template("study.html.j2")
    return page.render({**said, "pictures": embedded, "problems": problems}, heads=_heads, tag=_tag) + "\n"


def _heads(rows: Rows) -> list[tuple[str, list[tuple[str, bool]]]]:
    """The columns of a table in groups: those of reported figures, of measured ones, and the others, unnamed.

    Of each column its name, and whether words stand in it.
    """
    found: list[tuple[str, list[tuple[str, bool]]]] = []
    for column in rows[0]:
        group = next((word for word in ("reported", "measured") if column.startswith(f"{word} ")), "")
        if not found or found[-1][0] != group:
            found.append((group, []))
        words = any(row[column][:1].isalpha() for row in rows)
        found[-1][1].append((column.removeprefix(f"{group} ") if group else column, words))
    return found


def _tag(text: str) -> str:
    """A text as the anchor of a heading."""
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")


def _markdown(said: Mapping[str, Any], output: Path) -> str:
    def table(rows: Rows) -> Markup:
        return Markup(
            markdown([{markdown_text(k): markdown_text(v) for k, v in row.items()} for row in rows], escaped=True)
        )

    def link(path: Path) -> Markup:
        return Markup(quote(Path(os.path.relpath(path, output)).as_posix()))

    templates = _templates(autoescape=False, finalize=_escaped)
    page = templates.get_template("study.md.j2").render(said, table=table, link=link, block=_block)
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def _block(text: str) -> Markup:
    return Markup(fenced(text))


def _escaped(value: Any) -> str:
    """What a template writes into Markdown: escaped, unless it was made as Markdown."""
    return value if isinstance(value, Markup) else markdown_text(value)


def _templates(**keywords: Any) -> Environment:
    return Environment(
        loader=PackageLoader("common", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **keywords,
    )


def _cleaner(base: Path, known: set[str]) -> Callable[[str], str]:
    return lambda text: without_machine(text, base, known=known)
