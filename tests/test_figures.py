"""Figures on pages are those that commands printed: what stands in `results/`, beside its command.

Figures within sentences are looked for anywhere in `results/`; those of the README's tables and of docs/attention.md
cell by cell. (The README's tables are those of docs/measured.md, and README.vi.md's: `test_readme_languages.py`.)
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
MEAN = re.compile(r"[0-9]\.[0-9]{4} ± [0-9]\.[0-9]{4}")
PAGES = ("README.md", "README.vi.md", "docs/measured.md", "docs/attention.md", "results/vqa/validation-photos.md")
REPORTS = [f"docs/reports/r{number}.md" for number in range(5)]
BY_HAND = ("validation-photos.md", "validation-vivqa.md")  # tell of trials; all else there was written by commands

SETS = {  # first column of the README's table of photos → folder, and the cells of its study
    "vifood_vqa": ("r4", "MobileNetV2, attention", "MobileNetV2, no attention", "question only"),
    "viphoto_vqa": ("photo", "attention", "no attention", "question only"),
    "viparts_vqa, attention with grounding": ("parts", "attention", "no attention", "question only"),
}
PLACES = "its questions of place"  # of the last of these
DIFFERENCES = "maximum of the frames with differences"
FIGHT = {  # first column where it is not the cell's name → cell
    "maximum of the frames with their differences": DIFFERENCES,
    "the same from four views (`configs/video/fight.yaml`)": f"{DIFFERENCES}, four views",
}

SEEDS = ("seed0", "seed1", "seed2")
SHAPES, PARTS = "Embedded shapes", "Parts of dishes, real photos"
BOTH, GROUNDING = "mean of glimpses", "grounding"

Rows = list[dict[str, str]]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def tables(page: str) -> list[Rows]:
    """Each table of a page of Markdown: its rows, by the names in its head."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        head, _, *rows = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines())
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def table_with(page: str, column: str, **values: str) -> Rows:
    """The first table with such a column, that has a row with these values."""
    found = (rows for rows in tables(page) if rows and column in rows[0])
    return next(rows for rows in found if any(values.items() <= row.items() for row in rows))


def study(folder: str) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """A study's committed tables, by cell: its figures, and its accuracies by type or class."""
    page = text(RESULTS / folder / "table.md")
    figures = next(rows for rows in tables(page) if "measured accuracy" in rows[0])
    kinds = re.search(r"\n## accuracy by (?:type|class)\n\n((?:\|.*\n)+)", page)
    assert kinds is not None, folder
    by_kind = tables(kinds[1])[0]
    return {row["model"]: row for row in figures}, {row["model"]: row for row in by_kind}


def looked(folder: str, *names: str) -> list[dict]:
    return [json.loads(text(RESULTS / "vqa" / folder / f"where-{name}.json"))["test"] for name in names]


def test_every_mean_over_seeds_is_in_a_table_of_results():
    sources = [text(path) for path in RESULTS.rglob("*.md") if path.name not in BY_HAND]
    known = {figure for source in sources for figure in MEAN.findall(source)}
    pages = [*(ROOT / page for page in (*PAGES, *REPORTS)), *(ROOT / "configs").rglob("*.yaml")]
    found = {figure: path for path in pages for figure in MEAN.findall(text(path))}
    assert len(found) > 200
    assert not {figure: str(path.relative_to(ROOT)) for figure, path in found.items() if figure not in known}


def test_every_table_of_results_has_the_command_that_made_it():
    paths = list(RESULTS.rglob("table.md"))
    assert len(paths) > 10
    for path in paths:
        assert re.search(r"^```\nscripts/\w+\.py .*\n```$", text(path), re.MULTILINE), path


def test_the_readme_s_table_of_shapes():
    figures, kinds = study("vqa/shapes")
    for row in table_with(text(ROOT / "README.md"), "comparison"):
        name = row.pop("")
        assert row.pop("all") == figures[name]["measured accuracy"]
        assert row == {kind: kinds[name][kind] for kind in row} and len(row) == len(kinds[name]) - 1


def test_the_readme_s_table_of_photos():
    columns = ("attention", "no attention", "question only")
    for row in table_with(text(ROOT / "README.md"), "set"):
        places = row["set"] == PLACES
        folder, *cells = list(SETS.values())[-1] if places else SETS[row["set"]]
        figures, kinds = study(f"vqa/{folder}")
        for column, cell in zip(columns, cells, strict=True):
            figure = kinds[cell]["place"] if places else figures[cell]["measured accuracy"]
            assert row[column] == f"{figure} ({figures[cell]['seeds']})", (row["set"], column)
        if places:
            assert row["n"] == kinds["n"]["place"]


def test_the_readme_s_table_of_fight():
    figures, _ = study("video/fight")
    rows = table_with(text(ROOT / "README.md"), "head", head="last frame")
    for row in rows:
        cell = figures[FIGHT.get(row["head"], row["head"])]
        found = row["validation accuracy"], row["test accuracy"]
        assert found == (cell["measured validation accuracy"], cell["measured accuracy"]) and cell["seeds"] == "7"


@pytest.mark.parametrize(("table", "figure", "form"), [(0, "times_uniform", "{:.2f}"), (1, "pointing", "{:.4f}")])
def test_where_attention_looks(table, figure, form):
    """Each cell of the four tables of docs/attention.md."""
    page = text(ROOT / "docs" / "attention.md")
    grounded, alone = looked("parts", *SEEDS), looked("parts", "no-grounding-seed0")
    shapes = looked("shapes", *SEEDS)
    columns = {
        SHAPES: [(shapes, "glimpse 1"), (shapes, "glimpse 2"), (shapes, BOTH)],
        PARTS: [(alone, BOTH), (grounded, BOTH), (grounded, GROUNDING)],
    }
    for heading, maps in columns.items():
        types = maps[0][0][0]["by_type"]
        section = page.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
        rows = [list(row.values()) for row in tables(section)[table]]
        assert [row[0] for row in rows] == list(types)
        for type_, *cells in rows:
            part = types[type_]
            uniform = part["maps"]["uniform"]["mass" if figure == "times_uniform" else "pointing"]
            expected = [f"{part['n']:,}"] if table == 0 else []
            expected.append(f"{uniform:.4f}")
            expected += [
                ", ".join(form.format(run["by_type"][type_]["maps"][name][figure]) for run in runs)
                for runs, name in maps
            ]
            assert cells == expected, (heading, type_)
