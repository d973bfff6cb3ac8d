"""The answer vocabulary: its order, its thresholds, its coverage, and its one file."""

import unicodedata

import pytest

from common.errors import UserError
from vqa.answers import AnswerVocabulary


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


ANSWERS = ["Phở", "phở.", "có", "không", "CÓ", nfd("phở"), "bún bò", "hòa", "hoà", "?"]
# by hand: phở 3, có 2, hoà 2, bún bò 1, không 1; "?" is no answer


def test_answers_by_hand():
    vocabulary = AnswerVocabulary.build(ANSWERS)
    assert vocabulary.to_list() == ["phở", "có", "hoà", "bún bò", "không"] and len(vocabulary) == 5
    assert vocabulary.encode(["PHỞ", nfd("Không."), "hòa", "cơm", "", "bún\u00a0bò"]) == [0, 4, 2, -1, -1, 3]
    assert [vocabulary.decode(index) for index in range(5)] == vocabulary.to_list()
    for index in (-1, 5):
        with pytest.raises(IndexError, match="0 to 4"):
            vocabulary.decode(index)


def test_answer_thresholds():
    assert AnswerVocabulary.build(ANSWERS, min_count=2).to_list() == ["phở", "có", "hoà"]
    assert AnswerVocabulary.build(ANSWERS, top=1).to_list() == ["phở"]
    assert AnswerVocabulary.build(ANSWERS, min_count=3, top=4).to_list() == ["phở"]


def test_coverage():
    vocabulary = AnswerVocabulary.build(ANSWERS, top=2)
    assert vocabulary.coverage(["Phở", "có", "không", "hoà"]) == 0.5
    assert vocabulary.coverage(ANSWERS) == 0.5
    assert vocabulary.coverage(["cơm"]) == 0.0
    with pytest.raises(UserError, match="no answers"):
        vocabulary.coverage([])


@pytest.mark.parametrize("options", [{"min_count": 0}, {"top": 0}, {"min_count": 9}, {"answers": []}])
def test_bad_answer_vocabularies(options):
    with pytest.raises(UserError, match="must be 1 or more|is empty"):
        AnswerVocabulary.build(**{"answers": ANSWERS, **options})


def test_answers_round_trip(tmp_path):
    vocabulary = AnswerVocabulary.build(ANSWERS)
    vocabulary.save_pretrained(tmp_path / "saved")
    assert AnswerVocabulary.from_pretrained(tmp_path / "saved").to_list() == vocabulary.to_list()
    assert AnswerVocabulary.from_list(vocabulary.to_list()).encode(ANSWERS) == vocabulary.encode(ANSWERS)


@pytest.mark.parametrize("content", [None, "", "[", "{}", "[1, 2]", "[]", '["có", "có"]', b"\xff"])
def test_damaged_answers_are_named(tmp_path, content):
    if content is not None:
        (tmp_path / "answers.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match="answers.json"):
        AnswerVocabulary.from_pretrained(tmp_path)
