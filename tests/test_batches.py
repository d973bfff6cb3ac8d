"""Questions as batches of photos."""

import datasets
import torch

from common.images import Preprocessing
from vqa.answers import AnswerVocabulary
from vqa.batches import QuestionBatches
from vqa.processor import VqaProcessor
from vqa.text import QuestionProcessor

QUESTIONS = ["mèo nằm ở đâu", "cái gì ở bên trái", "đây là gì"]
ANSWERS = ["bên trái", "mèo", "mèo"]


class Store:
    """Features that are the number of their view."""

    def take(self, rows):
        return torch.tensor([[[[float(view)]]] for _, view in rows]), torch.tensor([[0.0, 0, 1, 1]] * len(rows))


def batches(answers=ANSWERS, **keywords) -> tuple[QuestionBatches, VqaProcessor]:
    rows = datasets.Dataset.from_dict(
        {
            "question": QUESTIONS,
            "answer": answers,
            "image": ["a.jpg"] * 3,
            "image_hash": ["a" * 64] * 3,
            "group": ["a"] * 3,
        }
    )
    processor = VqaProcessor(
        QuestionProcessor.build([*QUESTIONS, "cái gì ở bên phải phía trên"], segmentation="syllable"),
        AnswerVocabulary.build(["bên trái", "bên phải", "phía trên", "phía dưới", "mèo"]),
        Preprocessing(),
    )
    return QuestionBatches(rows, processor, store=Store(), **keywords), processor


def said(batch, processor) -> list[str]:
    return [processor.answers.decode(int(label)) for label in batch["labels"]]


def test_what_is_said_agrees_with_the_view_that_is_shown():
    source, processor = batches(views=8, augmentation=("flip", "turn"))
    seen = {}
    for draw in range(8):
        batch = source.__getitems__([(0, draw)])
        view = int(batch["inputs"]["features"])
        assert view == draw
        asked = processor.questions([QUESTIONS[1].replace("bên trái", said(batch, processor)[0])])["input_ids"]
        length = int(batch["inputs"]["lengths"][1])
        assert torch.equal(batch["inputs"]["input_ids"][1, :length], asked[0, :length])  # question and answer alike
        seen[view] = said(batch, processor)[0]
        assert said(batch, processor)[1:] == ["mèo", "mèo"]
    assert seen[0] == "bên trái" and seen[1] == "bên phải" and seen[2] == "phía trên"  # plain, mirrored, turned
    assert sorted(seen.values()) == sorted(["bên trái", "bên phải", "phía trên", "phía dưới"] * 2)


def test_scoring_sees_the_plain_view():
    source, processor = batches(views=4, augmentation=("flip",))
    batch = source.__getitems__([(0, 0)])
    assert int(batch["inputs"]["features"]) == 0 and said(batch, processor) == ANSWERS


def test_texts_are_kept_once_where_nothing_speaks_of_sides():
    source, _ = batches(answers=["mèo"] * 3, views=4, augmentation=("flip", "turn"))
    assert len(source.labels) == 8  # a question does
    assert len(batches(views=4, augmentation=("crop",))[0].labels) == 1


def test_what_is_averaged_when_scoring_is_read_back():
    source, processor = batches(views=8, augmentation=("flip", "turn"))
    answers = processor.answers.to_list()
    for draw in range(8):
        batch = source.__getitems__([(0, draw)])
        said_there = torch.eye(len(answers))[batch["labels"]]  # a model that is right about the photo as it is shown
        read = said_there[:, batch["columns"]].argmax(-1)
        assert [answers[int(index)] for index in read] == ANSWERS
