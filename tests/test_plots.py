"""Confusion matrices counted by hand, and pictures: no label over another, none cut off, no letter missing."""

import unicodedata
import warnings
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from common import plots
from common.accuracy_bars import draw_accuracies
from common.confusion import confusions
from common.drawing import save_figure
from common.errors import UserError
from common.looks import looked
from common.plots import Shown, ShownRow, draw_answers, draw_attention, draw_confusion, draw_curves


def row(gold: str, predicted: str, type: str = "màu") -> dict:
    return {"type": type, "gold": gold, "predicted": predicted}


@pytest.fixture
def figure(monkeypatch):
    """The figure that is drawn, kept open to be looked at."""
    kept = []
    monkeypatch.setattr(plots.plt, "close", kept.append)
    yield kept
    monkeypatch.undo()
    plt.close("all")


def assert_tidy(figure) -> None:
    """Every text lies inside of the picture, and no two on each other."""
    figure.draw_without_rendering()  # at this resolution, which need not be the saved one
    renderer = figure.canvas.get_renderer()
    boxes = [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip()
    ]
    assert boxes
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (one, first), (other, second) in combinations(boxes, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert wide < 1 or high < 1, (one, other)


def test_counts():
    rows = [row("đỏ", "đỏ")] * 3 + [row("đỏ", "xanh")] + [row("xanh", "xanh")] * 2 + [row("xanh", "mèo")]
    rows += [row("có", "không", "đúng sai"), row("không", "không", "đúng sai")]
    second, first = confusions(rows)
    assert (first.name, second.name) == ("đúng sai", "màu")
    assert second.gold == ["đỏ", "xanh"] and second.predicted == ["đỏ", "xanh", "outside (1)"]
    np.testing.assert_array_equal(second.counts, [[3, 1, 0], [0, 2, 1]])
    assert (second.n, second.own) == (7, 2) and second.accuracy == pytest.approx(5 / 7)
    np.testing.assert_array_equal(first.counts, [[0, 1], [0, 1]])


def test_the_rare_are_pooled_and_pooling_makes_nothing_right():
    rows = [row("a", "a")] * 3 + [row("b", "a")] * 2 + [row("c", "d"), row("d", "c"), row("e", "z"), row("a", "y")]
    (found,) = confusions(rows, most=2, rest="khác", outside="ngoài loại")
    assert found.gold == ["a", "b", "khác (3)"] and found.predicted == [*found.gold, "ngoài loại (2)"]
    np.testing.assert_array_equal(found.counts, [[3, 0, 0, 1], [2, 0, 0, 0], [0, 0, 2, 1]])
    assert found.own == 2 and found.accuracy == pytest.approx(3 / 9)


def test_an_answer_spelled_as_a_pool_stays_itself():
    (found,) = confusions([row("other (1)", "other (1)")] * 2 + [row("a", "outside (1)")], most=1)
    assert found.gold == ["other (1)", "other (1)"]
    np.testing.assert_array_equal(found.counts, [[2, 0, 0], [0, 0, 1]])


def test_only_the_largest_groups():
    rows = [row("a", "a", f"t{number:02}") for number in range(20) for _ in range(number + 1)]
    assert [found.name for found in confusions(rows, most_groups=3)] == ["t17", "t18", "t19"]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_matrices_of_any_size_are_tidy(tmp_path, figure, suffix):
    chance = np.random.default_rng(0)
    rows = []
    for name, answers in (("có/không", 2), ("màu sắc", 9), ("món", 40), ("số", 1)):
        words = [f"bánh tráng nướng {number}" if answers > 9 else f"{number} Ữ$" for number in range(answers)]
        rows += [row(*chance.choice(words, 2), name) for _ in range(400)]
    rows += [row("một câu trả lời rất dài, dài hơn mọi câu trả lời khác ở đây", "x", "dài" * 30)]
    path = tmp_path / f"ma trận{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that the font lacks
        draw_confusion(confusions(rows), path, title="lượt chạy: validation")
    both = {path.name, path.with_suffix(".svg").name}
    assert path.stat().st_size > 10_000 and {file.name for file in tmp_path.iterdir()} == both
    assert_tidy(figure[0])
    texts = [text.get_text() for text in figure[0].findobj(Text)]
    assert "other (10)" in texts and "outside (1)" in texts
    counted = sum(int(text) for text in texts if text.isdigit())
    assert counted == 400 * 3 + 1  # 40 answers are too many to write their counts


def shown(**changes) -> Shown:
    usual = {
        "photo": Image.new("RGB", (40, 30), "white"),
        "size": (400, 300),
        "weights": None,
        "box": (0, 0, 400, 300),
        "caption": "hình ở góc trên bên trái màu gì",
        "gold": "xanh dương",
        "predicted": "đỏ",
        "probability": 0.25,
    }
    return Shown(**usual | changes)


def test_a_sheet_is_tidy_and_says_what_is_right(tmp_path, figure):
    long = "có phải " * 40
    rows = [
        ShownRow(heading="màu: right", right=True, answers=[shown(predicted="xanh dương")]),
        ShownRow(heading="màu: wrong", right=False, answers=[shown(caption=long, gold=long, predicted=long)] * 3),
        ShownRow(heading="số: right", right=True, answers=[]),
        ShownRow(heading="số: wrong", right=False, answers=[shown(caption="giá $5 hay $6"), shown(size=(30, 900))]),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_answers(rows, tmp_path / "sheet.png", title="một lượt chạy, validation")
    assert_tidy(figure[0])
    texts = {text.get_text(): text.get_color() for text in figure[0].findobj(Text)}
    assert texts["✓ xanh dương (25%)"] == texts["✓ số: right"] == plots.RIGHT
    assert texts["✗ đỏ (25%)"] == plots.WRONG != plots.RIGHT
    assert "giá $5 hay $6" in texts and any(text.endswith("… (25%)") for text in texts)


def test_a_title_has_its_room_on_a_narrow_sheet(tmp_path, figure):
    title = "một lượt chạy, validation: typical answers; clear, within the line: where it looked"
    draw_answers([ShownRow(heading="x", right=True, answers=[shown()])], tmp_path / "sheet.png", title=title)
    figure[0].draw_without_rendering()  # at this resolution, not the saved one
    (text,) = (text for text in figure[0].findobj(Text) if text.get_text() == title)
    assert text.get_window_extent().x1 < figure[0].bbox.width


def test_attention_has_one_look(tmp_path, monkeypatch):
    """On a sheet and over a photo that was asked about: what `common.looks` makes of it, and the same words."""
    made = []
    monkeypatch.setattr(plots, "looked", lambda *given, **keywords: made.append(looked(*given, **keywords)) or made[-1])
    weights = np.array([[0.7, 0.1], [0.1, 0.1]])
    photo, box = Image.new("RGB", (80, 40), "white"), (20, 0, 60, 40)
    answer = shown(photo=photo, size=(80, 40), weights=weights, box=box)
    draw_answers([ShownRow(heading="x", right=True, answers=[answer])], tmp_path / "one.png", title="x")
    draw_attention(photo, np.stack([weights, weights]), box, tmp_path / "two.png", title="x")
    assert len(made) == 3 and all(one == made[0] for one in made)
    for name, panels in (("one.png", 1), ("two.png", 2)):
        with Image.open(tmp_path / name) as picture:
            grey = np.asarray(picture.convert("RGB")) == np.asarray(made[0])[20, 20]
        assert grey.all(axis=-1).sum() > panels * 5_000


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    history = [
        {"epoch": 1, "learning_rate": 0.1}
        | {f"{split}_{name}": 0.5 for split in ("train", "validation") for name in ("loss", "accuracy")}
    ]
    for name in ("curves.xyz", "curves", "nowhere/curves.png"):
        with pytest.raises(UserError, match="the picture cannot be written"):
            draw_curves(history, tmp_path / name)
    assert not list(tmp_path.iterdir())
    draw_curves(history, tmp_path / "curves.png")
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "curves.svg"}


def test_bars_are_tidy_and_say_how_sure_they_are(tmp_path, figure):
    few = {"ngũ quả ở đâu, phở": {"accuracy": 0.25, "n": 4}, "giá $5 hay $6": {"accuracy": 1.0, "n": 3}}
    many = few | {f"lớp {number} " + "dài " * 20: {"accuracy": number / 60, "n": 60} for number in range(60)}
    for name, groups in (("few", few), ("many", many)):
        n = sum(its["n"] for its in groups.values())
        right = sum(round(its["accuracy"] * its["n"]) for its in groups.values())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figures = {"by_class": groups, "accuracy": right / n, "n": n}
            draw_accuracies(figures, tmp_path / f"{name}.png", by="by_class", title="một lượt chạy: test")
        assert_tidy(figure[-1])
    (axis,) = figure[0].axes
    lows = [tuple(line.get_xdata()) for line in axis.lines if line.get_marker() == "|"]
    assert lows[1] == pytest.approx((0.0456, 0.6994), abs=1e-4)  # Wilson's of 1 in 4
    assert [text.get_text() for text in axis.get_yticklabels()] == ["giá $5 hay $6", "ngũ quả ở đâu, phở", "", "all"]
    assert len(figure[1].axes[0].patches) == 41  # 20 highest, 20 lowest, all
    texts = [text.get_text() for text in figure[1].findobj(Text)]
    assert any("the 20 highest and lowest of 62 classes" in text for text in texts)


def test_the_same_picture_is_the_same_file(tmp_path):
    """PNG and SVG, so that a repeated run changes no file; the SVG's letters are outlines, which need no font."""
    rows = [row("ngũ quả", "phở"), row("phở", "phở")]
    for name in ("one", "two"):
        draw_confusion(confusions(rows), tmp_path / f"{name}.png", title="ngũ quả ở đâu, phở")
    for suffix in (".png", ".svg"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
    svg = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert "<text" not in svg and "<dc:date>" not in svg and svg.count("<use") > 20


def test_every_vietnamese_letter_can_be_drawn(tmp_path):
    marks = ("", "\u0300", "\u0301", "\u0303", "\u0309", "\u0323")
    letters = [unicodedata.normalize("NFC", vowel + mark) for vowel in "aăâeêioôơuưy" for mark in marks] + ["đ"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a glyph that is missing
        figure = plt.figure()
        figure.text(0, 0.5, "".join(letters + [letter.upper() for letter in letters]) + " ngũ quả ở đâu, phở")
        save_figure(figure, tmp_path / "letters.svg")
    assert all(len(letter) == 1 for letter in letters)
