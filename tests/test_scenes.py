"""Scenes: every answer is right, questions alone tell nothing, and pixels show what the names say."""

import itertools
import random
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from vqa import scenes as composing
from vqa.scenes import COLORS, Question, Scene, draw
from vqa.shapes import scenes

KIND = "hình tròn|hình vuông|hình tam giác|hình ngôi sao|hình chữ thập"
COLOR = "đỏ|xanh lá|xanh dương|vàng|tím|cam|hồng"
PLACE = "góc (?:trên|dưới) bên (?:trái|phải)|ở giữa"
MOST = "lớn nhất|to nhất|nhỏ nhất|bé nhất"


def answer(scene: Scene, text: str) -> str:
    """What a reader of the question answers, by its words alone: it shares nothing with the text's generator."""
    if "hơn" in text:
        # In "so với B thì A có to hơn không" the second is the one asked about.
        name = rf"(?:{KIND}|hình)(?: màu (?:{COLOR})|(?: ở)? (?:{PLACE}))?"
        one, other = (_meant(scene, found) for found in re.findall(name, text))
        if text.startswith("so với"):
            one, other = other, one
        if "nhiều hơn" in text or "ít hơn" in text:
            return _yes(len(one) > len(other) if "nhiều hơn" in text else len(one) < len(other))
        (one,), (other,) = one, other
        return _yes(one.size > other.size if re.search("to hơn|lớn hơn", text) else one.size < other.size)
    if re.search("bao nhiêu|mấy|đếm", text):
        return ["không", "một", "hai", "ba", "bốn", "năm"][len(_meant(scene, text))]
    if text.endswith("không"):
        return _yes(_meant(scene, text))
    (shape,) = _meant(scene, text)
    if re.search("màu gì|màu của", text):
        return shape.color
    return shape.place if re.search("đâu|vị trí", text) else shape.kind


def _meant(scene: Scene, text: str) -> list:
    """The shapes of which everything in the text holds."""
    found = list(scene.shapes)
    for pattern, feature in ((KIND, "kind"), (f"(?<=màu )(?:{COLOR})", "color"), (PLACE, "place")):
        for value in re.findall(pattern, text):
            found = [shape for shape in found if getattr(shape, feature) == value]
    if most := re.search(MOST, text):
        sizes = sorted(shape.size for shape in found)
        extreme = sizes[-1] if most.group() in ("lớn nhất", "to nhất") else sizes[0]
        found = [shape for shape in found if shape.size == extreme]
    return found


def _yes(true: object) -> str:
    return "có" if true else "không"


def asked(split: str, count: int, seed: int = 0) -> list[tuple[Scene, Question]]:
    return [(scene, question) for scene, questions in scenes(split, count, seed=seed) for question in questions]


def test_every_answer_follows_from_the_scene():
    pairs = asked("train", 400)
    for scene, question in pairs:
        assert answer(scene, question.text) == question.answer, question
    assert {question.type for _, question in pairs} == {"color", "shape", "place", "yes/no", "number", "comparison"}


def test_boxes_are_of_what_is_asked_about():
    for scene, question in asked("train", 200):
        if question.type != "comparison" and (question.type != "yes/no" or question.answer == "có"):
            assert [*question.boxes] == [shape.box for shape in _meant(scene, question.text)]
        if question.type == "number":
            assert len(question.boxes) == ["không", "một", "hai", "ba", "bốn", "năm"].index(question.answer)


def test_a_scene_has_six_to_eight_questions_and_most_need_where():
    pairs = asked("train", 500)
    assert 6.5 <= len(pairs) / 500 <= 8
    assert max(Counter(id(scene) for scene, _ in pairs).values()) <= 8
    where = [question.type == "place" or bool(re.search(PLACE, question.text)) for _, question in pairs]
    assert 0.45 <= np.mean(where) <= 0.65


def test_no_type_has_a_favourite_answer():
    answers = defaultdict(Counter)
    for _, question in asked("train", 1500):
        answers[question.type][question.answer] += 1
    for kind, count in answers.items():
        assert max(count.values()) / count.total() <= 1 / len(count) + 0.1, (kind, count)


def test_the_question_alone_tells_almost_nothing():
    """The best blind answer: the most frequent of this very question in train, or else of its type."""
    by_text, by_type = defaultdict(Counter), defaultdict(Counter)
    for _, question in asked("train", 1000):
        by_text[question.text][question.answer] += 1
        by_type[question.type][question.answer] += 1
    right = defaultdict(list)
    for _, question in asked("test", 500):
        known = by_text[question.text] or by_type[question.type]
        right[question.type].append(known.most_common(1)[0][0] == question.answer)
    assert np.mean(list(itertools.chain(*right.values()))) < 0.30
    assert np.mean(right["yes/no"]) < 0.60


def test_half_of_the_absent_pairs_are_there_but_apart():
    apart = []
    for scene, question in asked("train", 1500):
        if question.type == "yes/no" and question.answer == "không" and not re.search(PLACE, question.text):
            kind, color = re.search(KIND, question.text).group(), re.search(COLOR, question.text).group()
            kinds, colors = {shape.kind for shape in scene.shapes}, {shape.color for shape in scene.shapes}
            apart.append(kind in kinds and color in colors)
    assert 0.45 <= np.mean(apart) <= 0.7


def test_shapes_are_apart_in_their_places_and_inside_the_image():
    for scene, _ in scenes("train", 500):
        assert len({shape.place for shape in scene.shapes}) == len(scene.shapes)
        for shape in scene.shapes:
            x0, y0, x1, y1 = shape.box
            assert 0 < x0 < x1 < 1 and 0 < y0 < y1 < 1
            assert 8 <= max(x1 - x0, y1 - y0) * 64 <= 26
            if shape.place == "ở giữa":
                assert abs(shape.x - 0.5) < 0.07 and abs(shape.y - 0.5) < 0.07
            else:
                assert (shape.x < 0.35) == ("trái" in shape.place) and (shape.x > 0.65) == ("phải" in shape.place)
                assert (shape.y < 0.35) == ("trên" in shape.place) and (shape.y > 0.65) == ("dưới" in shape.place)
        for one, other in itertools.combinations(scene.shapes, 2):
            (a0, b0, a1, b1), (c0, d0, c1, d1) = one.box, other.box
            assert a1 < c0 or c1 < a0 or b1 < d0 or d1 < b0


@pytest.mark.parametrize("ranges", [composing.CROWDED, composing.ROOMY])
@pytest.mark.parametrize("kinds", list(itertools.product(composing.KINDS, repeat=2)))
def test_the_largest_sizes_fit_whoever_has_them(ranges, kinds):
    """Otherwise the search for places would never end, for one seed in a million."""
    places = (
        ["ở giữa", "góc trên bên trái"] if ranges is composing.CROWDED else ["góc trên bên phải", "góc trên bên trái"]
    )
    for odd, others in ranges.values():
        for sizes in itertools.permutations((odd[1], others[1])):
            drawn = list(zip(kinds, ["đỏ", "tím"], places, sizes, strict=True))
            assert len(composing._arrange(random.Random(0), drawn)) == 2


def test_pixels_show_the_named_color_and_kind():
    filled = {"hình tròn": 0.785, "hình vuông": 1, "hình tam giác": 0.5, "hình ngôi sao": 0.427, "hình chữ thập": 5 / 9}
    names = list(COLORS)
    palette = np.array(list(COLORS.values()))
    for scene, _ in scenes("test", 25):
        small, large = np.array(draw(scene), dtype=int), np.array(draw(scene, size=512), dtype=int)
        background = composing._background(scene.background, 512).astype(int)
        assert small.shape == (64, 64, 3)
        for shape in scene.shapes:
            centre = small[int(shape.y * 64), int(shape.x * 64)]
            distance = np.abs(palette - centre).max(axis=1)
            assert names[distance.argmin()] == shape.color and distance.min() <= 12
            x0, y0, x1, y1 = (round(edge * 512) for edge in shape.box)
            own = np.abs(large - shape.rgb).sum(axis=2) < np.abs(large - background).sum(axis=2)
            assert own[y0:y1, x0:x1].mean() == pytest.approx(filled[shape.kind], abs=0.025)


def test_the_background_never_looks_like_a_shape():
    palette = np.array(list(COLORS.values()))
    for seed in range(60):
        pixels = composing._background(seed, 64).astype(int).reshape(-1, 3)
        assert np.abs(pixels[:, None] - palette).max(axis=2).min() > 30
