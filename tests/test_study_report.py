"""The report of a study: what stands in it, that nothing of the data becomes markup, that it needs no other file."""

import base64
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from test_study_curves import history
from test_study_tables import read, tables

from common.report_text import fenced, markdown_text, without_machine
from common.study import Study
from common.study_pictures import as_data, best_seed, median_seed

EVIL = "<script>alert('x')</script>"
STUDY = """
title: "R9 <b>bold</b> & more | R9"
script: train
rows:
  - {name: "seeing <script>alert('x')</script>", options: {attention: true, hidden: 8}}
  - {name: "blind *and* [deaf](http://x.example)", options: {attention: false, hidden: 8}}
  - {name: guess}
reported: {guess: {accuracy: 0.25}}
compare:
  - {name: sight, cells: ["seeing <script>alert('x')</script>", "blind *and* [deaf](http://x.example)"]}
"""


def write_run(path: Path, marks: str, *, trained: bool = True, note: str = "", **environment: object) -> Path:
    """A run as the scripts leave it: right where there is a +, of two types of questions, one of a single answer."""
    path.mkdir(parents=True)
    lines = ["id,group,type,gold,predicted,probability"]
    for row, mark in enumerate(marks):
        gold = EVIL if row % 2 else "đỏ, | và xanh"
        lines.append(f'{row},g{row // 2},màu,"{gold}","{gold if mark == "+" else "khác"}",0.5')
    lines += [f"n{number},g{number},tên,tên{number},tên0,0.5" for number in range(30)]
    (path / "predictions-test.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    n = len(marks) + 30
    accuracy = (marks.count("+") + 1) / n
    by = {"màu": {"accuracy": marks.count("+") / len(marks), "n": len(marks)}, EVIL: {"accuracy": 1 / 30, "n": 30}}
    figures = {"accuracy": accuracy, "loss": 1.0, "n": n, "by_type": by}
    (path / "metrics.json").write_text(json.dumps({"test": figures}), encoding="utf-8")
    about = {"python": "3.11", "packages": {"torch": "2.9.0"}, "device": "cpu"} | environment
    (path / "environment.json").write_text(json.dumps(about), encoding="utf-8")
    notes = ["train: 9 questions in 3 groups", f"test: {n} questions, of {path.parent.resolve()}/data/x.csv", note]
    (path / "report.md").write_text("".join(f"- {line}\n" for line in notes if line), encoding="utf-8")
    if trained:
        rows = "".join(json.dumps(row) + "\n" for row in history(3))
        (path / "history.jsonl").write_text(rows, encoding="utf-8")
    return path


@pytest.fixture
def made(tmp_path, monkeypatch) -> tuple[Study, dict]:
    """Three cells, the first with three seeds (1 is the median, 2 the best), the last one a baseline."""
    monkeypatch.chdir(tmp_path)
    study = read(tmp_path, STUDY)
    seeing, blind, guess = (cell.name for cell in study.cells)
    marks = {(seeing, 0): "+---", (seeing, 1): "++--", (seeing, 2): "++++", (blind, 0): "+-+-", (guess, 0): "+---"}
    runs = {}
    for number, (key, its) in enumerate(marks.items()):
        leak = "LEAKY: 49 % of <test> photos are in train" if key[0] == blind else ""
        name = f"run{number}"
        runs[key] = write_run(tmp_path / "runs" / name, its, trained=key[0] != guess, note=leak)
    Image.effect_noise((2000, 900), 60).save(runs[seeing, 2] / "examples.png")
    return study, runs


def written(folder: Path, study: Study, runs: dict, **more) -> tuple[str, str]:
    (folder / "out").mkdir(exist_ok=True)
    command = f"scripts/run_study.py s.yaml --data {folder}/data '--set' 'x=`<i>`'"
    failed = {f"guess{EVIL}, seed 7": f"no such thing as {EVIL} ({folder / 'out'}/runs/x.log)"}
    given = {"command": command, "title": study.title, "failed": failed} | more
    tables(folder / "out", study, runs, **given)
    return tuple((folder / "out" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_everything_stands_in_it_in_order(tmp_path, made):
    html, markdown = written(tmp_path, *made)
    parts = [
        "R9",
        "measured on: test (n = 34)",
        "0.2500",
        "not a primary comparison",
        "Curves",
        "ccuracy by type",
        "What was taken for what",
        "seed 1, the median in accuracy of 3 seeds; test, n = 34; left out, with more than 25 answers: tên (30)",
        "Examples",
        "seed 2, the most accurate of 3 seeds",
        "Leak check",
        "49 %",
        "train: 9 questions in 3 groups",
        "Environment",
        "2.9.0",
        "Commands",
        "scripts/run",
        "hidden = 8",
        "attention = ",
        "Failures",
        "no such thing as",
    ]
    for text in (Page(html).text, markdown):
        place = 0
        for part in parts:
            assert part in text[place:], part
            place = text.index(part, place)
        assert "same environment" not in text
    assert '<th class="group" colspan="1" scope="colgroup">reported</th>' in html


def test_what_comes_from_data_is_no_markup(tmp_path, made):
    html, markdown = written(tmp_path, *made)
    page = Page(html)
    assert not {tag for tag, _ in page.found} & {"script", "b", "i", "test", "iframe", "object", "link"}
    assert EVIL in page.text and "<script" not in html
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
    outside = re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", markdown)
    assert not re.search(r"<(?!\d)", outside) and "&lt;script&gt;" in outside
    assert not re.search(r"(?<!\\)\[[^]]*\]\(http", outside) and r"\[deaf](http" in outside and r"\*and\*" in outside
    assert "R9 &lt;b&gt;bold" in outside and r"more \| R9" in outside


def test_the_page_needs_nothing_else_and_knows_no_machine(tmp_path, made):
    html, markdown = written(tmp_path, *made)
    page = Page(html)
    sources = [attributes["src"] for tag, attributes in page.found if tag == "img"]
    assert len(sources) == 6  # bars, curves, three matrices, one sheet
    for source in sources:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,([\w+/=]+)", source).groups()
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.format.lower() == kind and picture.width <= 1400
    assert all(attributes["href"].startswith("#") for tag, attributes in page.found if tag == "a")
    targets = {attributes.get("id") for _, attributes in page.found}
    assert {attributes["href"][1:] for tag, attributes in page.found if tag == "a"} <= targets
    assert "http" not in re.sub(r"http-equiv|http://x\.example", "", page.text + re.sub(r"data:[^\"]+", "", html))
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", markdown):
        assert (tmp_path / "out" / link).is_file(), link
    assert len(re.findall(r"!\[", markdown)) == 6
    for text in (html, markdown):
        assert str(tmp_path) not in text and "runs/x.log" in text


def test_environments_that_differ_are_told(tmp_path, made):
    study, runs = made
    (first, *_) = runs.values()
    about = {"python": "3.11", "packages": {"torch": "2.8.0"}, "device": "cuda", "commit": "abc1234"}
    (first / "environment.json").write_text(json.dumps(about), encoding="utf-8")
    html, markdown = written(tmp_path, study, runs)
    for text in (Page(html).text, markdown):
        assert "were not all made in the same environment: it differs in device, commit, torch." in text
        assert "cuda" in text and "abc1234" in text and "and 1 more" in text and "not saved" in text


def test_what_is_damaged_or_missing_is_told_and_the_rest_is_there(tmp_path, made):
    study, runs = made
    paths = list(runs.values())
    (paths[2] / "examples.png").write_bytes(b"no picture")
    (paths[3] / "predictions-test.csv").unlink()
    (paths[4] / "report.md").unlink()
    html, markdown = written(tmp_path, study, runs)
    for text in (Page(html).text, markdown):
        assert "there is no predictions-test.csv" in text
        assert "run4 has no report.md: nothing is known of its splits" in text
    assert "run2/examples.png: cannot be read as a picture" in Page(html).text
    assert (tmp_path / "out" / "curves.png").is_file()


def test_nothing_finished_is_a_report_too(tmp_path, made):
    study, _ = made
    html, markdown = written(tmp_path, study, {(study.cells[0].name, 0): tmp_path / "not-there"})
    assert "No run has finished." in html and "No run has finished." in markdown and "![" not in markdown


def test_pictures_are_of_the_seed_that_is_the_median_now(tmp_path, made):
    study, runs = made
    first = study.cells[0]
    alone = {key: path for key, path in runs.items() if key != (first.name, 1) and key != (first.name, 2)}
    written(tmp_path, study, alone)
    matrix = tmp_path / "out" / f"confusion-{first.slug}-seed0.png"
    assert matrix.is_file()
    os.utime(matrix, ns=(2**62, 2**62))
    written(tmp_path, study, alone)
    assert matrix.stat().st_mtime_ns == 2**62  # not drawn again
    written(tmp_path, study, runs)
    assert not matrix.exists() and (tmp_path / "out" / f"confusion-{first.slug}-seed1.png").is_file()
    assert median_seed({"0": 0.5, "1": 0.25, "2": 0.75, "3": 1.0}) == "0" and best_seed({"0": 0.5, "1": 0.5}) == "0"


def test_a_page_does_not_grow_without_end(tmp_path, made, monkeypatch):
    monkeypatch.setattr("common.study_report._MOST_DATA", 100_000)
    html, markdown = written(tmp_path, *made)
    assert "run2/examples.png: not shown, this page would be too large" in Page(html).text
    assert len(html) < 140_000 and "examples.png)" in markdown


def test_pictures_are_made_small(tmp_path):
    Image.effect_noise((3000, 500), 50).save(tmp_path / "wide.png")
    source, width = as_data(tmp_path / "wide.png")
    assert source.startswith("data:image/png;base64,") and width == 1400
    source, width = as_data(tmp_path / "wide.png", photos=True)
    assert source.startswith("data:image/jpeg;base64,") and width == 1100


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vifood_vqa: 5.0 points [-7.9, -1.8]", "vifood_vqa: 5.0 points [-7.9, -1.8]"),
        ("*a* _b_ `c` ~~d~~ a|b", r"\*a\* \_b\_ \`c\` \~\~d\~\~ a\|b"),
        ("[1](x) ![2](y) [z]: u", r"\[1](x) !\[2](y) \[z]: u"),
        ("# no\nheading", r"\# no heading"),
        ("a <b>&amp;", "a &lt;b&gt;&amp;amp;"),
    ],
)
def test_markdown_is_escaped(text, shown):
    assert markdown_text(text) == shown


def test_code_ends_where_it_should():
    assert fenced("a ``` b") == "````\na ``` b\n````"


def test_paths_are_relative(tmp_path):
    base = tmp_path / "study"
    assert without_machine(f"at {tmp_path}/data/x.csv, yes/no", base) == "at ../data/x.csv, yes/no"
    assert without_machine(f"'{tmp_path}/my data/x'", base, known=[f"{tmp_path}/my data"]) == "'../my data/x'"
    assert without_machine("a / b, 1/2, http://x.example/y/z, ~/x", base) == "a / b, 1/2, http://x.example/y/z, ~/x"
    assert without_machine(f"--data={tmp_path}/d", base) == "--data=../d"
