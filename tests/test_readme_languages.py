"""README.md and README.vi.md say the same: blocks, figures, links, headings and what stands in code."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
NUMBER = r"[0-9][0-9.,]*[0-9]|[0-9]"
OWN = {"name: what it is", "tên: nội dung", "docs/"}  # a line as each language writes it; which pages are English


@pytest.fixture(scope="module")
def pages() -> tuple[str, str]:
    return tuple((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.vi.md"))


def tables(text: str) -> list[list[list[str]]]:
    """Tables → rows → cells."""
    found = re.findall(r"(?:^\|.*\n)+", BLOCK.sub("", text), re.MULTILINE)
    return [[row.strip("|").split("|") for row in table.splitlines()] for table in found]


def spans(text: str) -> Counter:
    return Counter(re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)))


def test_the_same_blocks(pages):
    """But for what comments say."""
    english, vietnamese = (
        [re.sub(r"(^| +)# .*", "", block, flags=re.MULTILINE) for block in BLOCK.findall(page)] for page in pages
    )
    assert len(english) > 20 and english == vietnamese


def test_the_same_headings_in_number_and_level(pages):
    english, vietnamese = (re.findall(r"^(#+) \S", BLOCK.sub("", page), re.MULTILINE) for page in pages)
    assert len(english) > 15 and english == vietnamese


def test_the_same_figures(pages):
    english, vietnamese = map(tables, pages)
    assert len(english) == len(vietnamese) > 3
    for ours, theirs in zip(english, vietnamese, strict=True):
        assert [len(row) for row in ours] == [len(row) for row in theirs]
        for row, other in zip(ours, theirs, strict=True):
            assert [re.findall(NUMBER, cell) for cell in row] == [re.findall(NUMBER, cell) for cell in other], row
            assert re.findall("`[^`]+`", row[0]) == re.findall("`[^`]+`", other[0])
    english, vietnamese = (
        Counter(re.findall(r"[0-9]+[.,][0-9]+", BLOCK.sub("", page))) for page in pages
    )  # in the text, too
    assert english == vietnamese


def test_the_same_links_and_names_in_code(pages):
    english, vietnamese = (Counter(re.findall(r"\]\(([^)]+)\)", page)) for page in pages)
    assert english - vietnamese == {"README.vi.md": 1} and vietnamese - english == {"README.md": 1}
    for link in english | vietnamese:
        assert "://" in link or (ROOT / link.partition("#")[0]).exists(), link
    english, vietnamese = map(spans, pages)
    assert set((english - vietnamese) + (vietnamese - english)) <= OWN


def test_each_leads_to_the_other_at_its_top(pages):
    for page, other in zip(pages, ("README.vi.md", "README.md"), strict=True):
        assert f"]({other})" in "\n".join(page.splitlines()[:4])


def test_five_commands_from_a_clone_to_an_answer(pages):
    """Near the top, and no more than five lines."""
    lines = BLOCK.search(pages[0])[0].splitlines()[1:-1]
    assert 1 <= len(lines) <= 5 and pages[0][: pages[0].index(lines[0])].count("\n") < 25
    assert lines[0].startswith("git clone") and "scripts/predict_vqa.py" in lines[-1]


def test_figures_are_those_of_the_page_of_all(pages):
    """A row of a README's table of figures stands as it is in docs/measured.md, and so does the command beside it."""
    measured = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    section = pages[0].split("\n## Measured\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 18
    for line in [*rows, *(line for block in BLOCK.findall(section) for line in block.splitlines())]:
        assert line in measured, line
