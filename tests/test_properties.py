"""Texts and tables, whatever is in them: properties that hold for every text, tried on odd ones (hypothesis).

Few examples, the same every time: what is hard to find is looked for with `--hypothesis-profile`, not in CI.
"""

import csv
import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.classifier_rows import label_names
from common.config import build, options, read_yaml, write_options
from common.errors import UserError, plain_line
from common.predictions import read_back
from common.runs import write_csv
from common.spreadsheets import no_formula, restored
from common.study_tables import Section, _latex
from common.tables import markdown
from vqa.answers import AnswerVocabulary
from vqa.text import QuestionProcessor, normalise

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
# Vietnamese and what surrounds it, and what tables and terminals take for more than a letter
SIGNS = "aàảãáạăâđêôơưuyioèÒẢhngt0159 ?!.,:;'\"`“”()|\\<>&%$#_{}~^=+-@/\t\n\r\x1b\u00a0\u0301\u0309\u200b\u2028\ufeff…"
odd = st.text(st.one_of(st.sampled_from(SIGNS), st.characters(exclude_categories=("Cs",))), max_size=40)
words = st.lists(st.sampled_from("món này là gì con mèo hòa hoà bên trái phở 2,5 t.v.".split()), min_size=1, max_size=6)


# --- questions and answers


@few
@given(odd)
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once and once == " ".join(once.split()) and once == unicodedata.normalize("NFC", once)


@few
@given(words.map(" ".join))
def test_spelling_is_no_difference(text):
    for other in (
        unicodedata.normalize("NFD", text),
        text.upper(),
        f"  {text} ?",
        text.replace(" ", "\u00a0"),
        f"{text}!?",
    ):
        assert normalise(other) == normalise(text)


@pytest.mark.parametrize("piece", ["?", ".", " ", "'", ". ", "1,", "((", "_", "a.", "\u0301", "(1"])
def test_long_texts_take_no_longer_than_their_length(piece):
    """Regular expressions that try every start of a run need minutes for this."""
    text = piece * (100_000 // len(piece)) + "x"
    began = time.process_time()
    normalise(text)
    label_names({"label": text, "named": True})
    assert time.process_time() - began < 2


@few
@given(st.lists(odd, min_size=1, max_size=8))
def test_answers_survive_their_file(tmp_path_factory, answers):
    if not any(normalise(answer) for answer in answers):
        return
    vocabulary = AnswerVocabulary.build(answers)
    known = vocabulary.to_list()
    assert vocabulary.encode(known) == list(range(len(known))) and "" not in known
    assert all(
        index >= 0 or not normalise(text) for text, index in zip(answers, vocabulary.encode(answers), strict=True)
    )
    folder = tmp_path_factory.mktemp("answers")
    vocabulary.save_pretrained(folder)
    assert AnswerVocabulary.from_pretrained(folder).to_list() == known


@settings(few, max_examples=25)
@given(st.lists(st.one_of(odd, words.map(" ".join)), min_size=1, max_size=6), odd)
def test_questions_survive_their_file(tmp_path_factory, questions, other):
    if not any(normalise(question) for question in questions):
        return
    processor = QuestionProcessor.build(questions, segmentation="syllable", max_length=8)
    for question in (*questions, other):
        ids = processor([question])["input_ids"][0].tolist()
        assert len(ids) == len(processor.tokens(question)) and max(ids) < processor.vocab_size
        seen = processor.tokenizer.convert_ids_to_tokens(ids)
        text = normalise(question).split()[:8]
        if question in questions and text:
            assert seen == text  # every word of a training question is known, and comes back as it was
    folder = tmp_path_factory.mktemp("questions")
    processor.save_pretrained(folder)
    again = QuestionProcessor.from_pretrained(folder)
    assert again([*questions, other])["input_ids"].equal(processor([*questions, other])["input_ids"])


# --- tables


@few
@given(odd)
def test_no_text_is_a_formula_and_all_come_back(text):
    shown = no_formula(text)
    number = re.fullmatch(r"[+-]?[\d,.]+(e[+-]?\d+)?%?", shown, re.IGNORECASE)
    assert number or not shown.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert restored(shown) == text


@pytest.mark.parametrize("number", [-0.5, -3, "-0.5", "+0.0123", "-1,234", "-.5e-3", "-7%", 2])
def test_negative_numbers_stay_numbers(number):
    assert no_formula(number) == number


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1-1", "@SUM(A1)", "\t=1", "-2+3", "--5", "=", "'=x", "''-y", "-x"])
def test_formulas_are_texts_and_come_back(text):
    assert no_formula(text) == f"'{text}" and restored(no_formula(text)) == text


@few
@given(st.lists(st.fixed_dictionaries({"id": st.just("1"), "gold": odd, "=sum": odd}), min_size=1, max_size=4))
def test_what_is_written_as_a_table_is_read_back(tmp_path_factory, rows):
    rows = [{name: row[name].replace("\0", "") for name in ("id", "gold", "=sum")} for row in rows]
    path = tmp_path_factory.mktemp("tables") / "predictions-test.csv"
    write_csv(path, rows)
    columns = read_back(path)[1]
    assert columns == {name: [row[name] for row in rows] for name in ("id", "gold", "=sum")}
    with path.open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(re.match(r"[=+\-@\t\r\n](?![\d.])", cell) for cell in cells)


@few
@given(st.lists(st.fixed_dictionaries({"model": odd, "a|b": odd}), min_size=1, max_size=4))
def test_a_markdown_table_keeps_its_columns(rows):
    rows = [{name: row[name] for name in ("model", "a|b")} for row in rows]
    lines = markdown(rows).split("\n")
    assert len(lines) == len(rows) + 2
    for line, row in zip(lines[2:], rows, strict=True):
        cells = re.findall(r"\| ((?:\\.|[^|\\])*?) +(?=\|)", line)
        plain = [re.sub(r"\\(.)", r"\1", cell).strip() for cell in cells]
        assert plain == [plain_line(value).strip() for value in row.values()]
        assert not re.search(r"(?<!\\)(?:\\\\)*<[A-Za-z/!?]", line)  # no tag


@few
@given(st.lists(st.fixed_dictionaries({"model": odd, "measured": odd}), min_size=1, max_size=4), odd)
def test_a_latex_table_keeps_its_columns(rows, caption):
    rows = [{name: row[name] for name in ("model", "measured")} for row in rows]
    text = _latex("t", ["n"], [Section(rows=rows, caption=caption, sentence=caption, findings=[caption])])
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert sum(line.endswith(r"\\") for line in body) == len(rows) + 1
    for line in body:
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 1
        assert not re.search(r"(?<!\\)[%#]", line)  # nothing of the text begins a comment


@few
@given(odd)
def test_an_error_is_one_line_that_no_terminal_obeys(text):
    line = plain_line(text)
    assert line.isprintable() and "\n" not in line


@options
class _Named:
    """the options of this test"""

    name: str = ""
    """any text"""
    names: tuple[str, ...] = ()
    """any texts"""


@few
@given(odd, st.lists(odd, max_size=3))
@example("", ["\0"])
@example("", ["a\udcff"])
@example("\udcff", [])
@example("\x85", ["a\u2028b", "\u2029"])
def test_options_survive_their_file_or_are_refused(tmp_path_factory, name, names):
    path = tmp_path_factory.mktemp("options") / "config.yaml"
    if re.search("[\0\ud800-\udfff]", name + "".join(names)):
        with pytest.raises(UserError, match="null character"):
            build(_Named, {"name": name, "names": names})
        return
    write_options(path, build(_Named, {"name": name, "names": names}), header="task: test")
    assert read_yaml(path) == {"name": name, "names": names}
