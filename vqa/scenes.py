"""One scene of coloured shapes: composing it, drawing it, and asking Vietnamese questions about it.

Belongs here: `Scene`, `Shape` and `Question`, and what makes each of them from a seed. Does not belong here: splits,
files and folders; `vqa/shapes.py` writes the data set. Whatever changes here changes its bytes: raise `VERSION` there.

The words of a question give nothing away, as in CLEVR (Johnson et al., 2017, https://arxiv.org/abs/1612.06890): no
kind, colour, place or size is preferred, and where a question has an expected answer (having, number, more) the answer
is drawn first, so that under each wording the answers are about equally frequent.
"""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

COLORS = {
    "đỏ": (215, 30, 35),
    "xanh lá": (35, 160, 65),
    "xanh dương": (35, 90, 220),
    "vàng": (245, 215, 40),
    "tím": (125, 45, 165),
    "cam": (245, 130, 20),
    "hồng": (250, 140, 190),
}
PLACES = {  # the column and row of each: -1, 0 or 1 from the middle
    "góc trên bên trái": (-1, -1),
    "góc trên bên phải": (1, -1),
    "góc dưới bên trái": (-1, 1),
    "góc dưới bên phải": (1, 1),
    "ở giữa": (0, 0),
}
NUMBERS = ("không", "một", "hai", "ba", "bốn", "năm")

# Lengths are fractions of the image's side.
MARGIN = 1 / 64  # around the image and between boxes
BIGGER = 1.35  # "to hơn": ratio of sizes from which it is plain to the eye (1.8 in area)
# From which range one size comes, and from which all others. Beside a shape in the middle the largest two must fit
# between edge and middle *whichever of them is where*: shrinking only the middle one would tell where the largest is.
ROOMY = {
    "largest": ((0.305, 0.34), (0.19, 0.225)),
    "smallest": ((0.19, 0.215), (0.292, 0.34)),
    "any": ((0.19, 0.34), (0.19, 0.34)),
}
CROWDED = {
    "largest": ((0.28, 0.3), (0.19, 0.205)),
    "smallest": ((0.185, 0.191), (0.258, 0.268)),
    "any": ((0.19, 0.268), (0.19, 0.268)),
}


def _outline(points: list[tuple[float, float]]) -> np.ndarray:
    """Corners (P, 2) of a polygon of area 0.55 whose box is centred at 0.

    Equal areas for all kinds: otherwise "the largest" would rarely be a star, and the question would say the answer.
    """
    corners = np.array(points)
    following = np.roll(corners, -1, axis=0)
    area = abs((corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]).sum()) / 2
    corners = corners * math.sqrt(0.55 / area)
    return corners - (corners.min(axis=0) + corners.max(axis=0)) / 2


def _around(radii: list[float]) -> list[tuple[float, float]]:
    """Points at these distances from 0, at equal angles, clockwise from the top."""
    angles = [2 * math.pi * k / len(radii) for k in range(len(radii))]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


# No rectangle beside a square: every square is one, and "có hình chữ nhật không" would have two right answers.
KINDS = {
    "hình tròn": _outline(_around([1.0] * 48)),
    "hình vuông": _outline([(0, 0), (1, 0), (1, 1), (0, 1)]),
    "hình tam giác": _outline(_around([1.0] * 3)),
    "hình ngôi sao": _outline(_around([1.0, 0.5] * 5)),
    "hình chữ thập": _outline(
        [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3), (1, 2), (0, 2), (0, 1), (1, 1)]
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One thing of a scene. Lengths are fractions of the image's side."""

    kind: str
    color: str
    place: str
    size: float
    """Of whatever kind, its area is 0.55 size²."""
    x: float
    """Centre of its box, from the left."""
    y: float
    """Centre of its box, from the top."""
    rgb: tuple[int, int, int]
    """The colour's RGB with this shape's own shade."""

    @property
    def outline(self) -> np.ndarray:
        """Corners (P, 2) in the image."""
        return KINDS[self.kind] * self.size + (self.x, self.y)

    @property
    def box(self) -> list[float]:
        """[x0, y0, x1, y1]."""
        return [round(float(v), 4) for v in (*self.outline.min(axis=0), *self.outline.max(axis=0))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What is in one image."""

    shapes: tuple[Shape, ...]
    counted: str
    """The kind or colour whose number was drawn before the scene was composed: the one to ask "how many" of."""
    background: int
    """Seed of the background."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One row of the data set, but for its image."""

    text: str
    answer: str
    type: str
    """color, shape, place, yes/no, number or comparison."""
    boxes: tuple[list[float], ...]
    """Of the shapes asked about; none where what is asked about isn't there."""


# --- Composing -------------------------------------------------------------------------------------------------------


def make_scene(rng: random.Random) -> Scene:
    """2 to 5 shapes, at most one in each place, no kind, colour or place preferred."""
    counted = rng.choice([*KINDS] if rng.random() < 0.5 else [*COLORS])
    number = rng.randint(0, 3)
    total = rng.randint(max(2, number), 5)
    kinds = [rng.choice([kind for kind in KINDS if kind != counted]) for _ in range(total)]
    colors = [rng.choice([color for color in COLORS if color != counted]) for _ in range(total)]
    (kinds if counted in KINDS else colors)[:number] = [counted] * number
    places = rng.sample([*PLACES], total)
    sizes = _sizes(rng, total, CROWDED if "ở giữa" in places else ROOMY)
    shapes = _arrange(rng, list(zip(kinds, colors, places, sizes, strict=True)))
    return Scene(shapes=shapes, counted=counted, background=rng.getrandbits(32))


def _sizes(rng: random.Random, total: int, ranges: dict) -> list[float]:
    """In four scenes of five one shape is plainly the largest or the smallest, by chance any one."""
    odd, others = ranges[rng.choices(["largest", "smallest", "any"], weights=[2, 2, 1])[0]]
    sizes = [rng.uniform(*odd), *(rng.uniform(*others) for _ in range(total - 1))]
    rng.shuffle(sizes)
    return sizes


def _arrange(rng: random.Random, drawn: list[tuple[str, str, str, float]]) -> tuple[Shape, ...]:
    """Put each (kind, color, place, size) somewhere inside its place, so that no box touches another."""
    for attempt in itertools.count():
        spread = 0.9**attempt  # at 0, corners are at the edges and the middle in the middle: that always fits
        shapes = []
        for kind, color, place, size in drawn:
            width, height = np.ptp(KINDS[kind], axis=0) * size
            column, row = PLACES[place]
            x, y = _within(rng, column, width, spread), _within(rng, row, height, spread)
            r, g, b = (min(255, max(0, value + rng.randint(-12, 12))) for value in COLORS[color])
            shapes.append(Shape(kind=kind, color=color, place=place, size=size, x=x, y=y, rgb=(r, g, b)))
        if not any(_touch(one.box, other.box) for one, other in itertools.combinations(shapes, 2)):
            return tuple(shapes)
    raise AssertionError("the next attempt is always made")


def _within(rng: random.Random, side: int, length: float, spread: float) -> float:
    """Where the centre of something `length` long lies: near 0 (side -1), near 1 (side 1) or near 0.5 (side 0)."""
    if side == 0:
        return 0.5 + rng.uniform(-0.06, 0.06) * spread
    nearest = length / 2 + MARGIN
    farthest = max(nearest, min(0.3, 0.5 - MARGIN - length / 2))
    inwards = nearest + (farthest - nearest) * rng.random() * spread
    return inwards if side < 0 else 1 - inwards


def _touch(one: list[float], other: list[float]) -> bool:
    return all(one[a] < other[a + 2] + MARGIN and other[a] < one[a + 2] + MARGIN for a in (0, 1))


# --- Drawing ---------------------------------------------------------------------------------------------------------


def draw(scene: Scene, *, size: int = 64) -> Image.Image:
    """The scene as an RGB image of `size` x `size` pixels; for smooth edges drawn four times as large and averaged."""
    scale = 4 * size
    canvas = Image.fromarray(_background(scene.background, size)).resize((scale, scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    for shape in scene.shapes:
        pen.polygon([tuple(corner) for corner in shape.outline * scale - 0.5], fill=shape.rgb)
    return canvas.reduce(4)


def _background(seed: int, size: int) -> np.ndarray:
    """(size, size, 3) bytes: flat, a gradient, grain or stripes; light, grey or dark, never as vivid as a shape."""
    rng = np.random.default_rng(seed)
    tint = rng.choice([40, 120, 220]) + rng.uniform(-15, 15) + rng.uniform(-10, 10, size=3)
    along = np.linspace(-1, 1, size)
    angle = rng.uniform(0, 2 * math.pi)
    across = along[None, :] * math.cos(angle) + along[:, None] * math.sin(angle)
    strength = rng.uniform(8, 20)
    patterns: list[Callable[[], np.ndarray]] = [
        lambda: np.zeros((size, size)),
        lambda: across,
        lambda: rng.standard_normal((size, size)) * 0.5,
        lambda: np.sign(np.sin(across * rng.uniform(6, 20) + rng.uniform(0, math.pi))) * 0.6,
    ]
    pattern = patterns[rng.integers(len(patterns))]()
    return np.clip(tint + strength * pattern[:, :, None], 0, 255).astype(np.uint8)


# --- Asking ----------------------------------------------------------------------------------------------------------

WORDINGS = {
    "color at a place": ("hình {at} màu gì", "hình {at} có màu gì", "màu của hình {at} là gì", "{at} là hình màu gì"),
    "color of a thing": ("{thing} màu gì", "{thing} có màu gì", "màu của {thing} là gì"),
    "shape at a place": ("{at} là hình gì", "hình {at} là hình gì", "{at} có hình gì", "hình {at} là loại hình nào"),
    "shape of a thing": ("{thing} là hình gì", "{thing} trong ảnh là hình gì", "{thing} là loại hình nào"),
    "place": ("{thing} ở đâu", "{thing} nằm ở đâu", "{thing} ở vị trí nào", "vị trí của {thing} là ở đâu"),
    "existence": ("có {thing} không", "trong ảnh có {thing} không", "có {thing} nào trong ảnh không"),
    "kind there": ("hình {at} có phải là {thing} không", "{at} có phải là {thing} không", "{at} là {thing} phải không"),
    "color there": ("hình {at} có phải {thing} không", "{at} có hình {thing} không", "hình {at} {thing} phải không"),
    "number of": ("có bao nhiêu {thing}", "trong ảnh có mấy {thing}", "số {thing} là bao nhiêu", "đếm số {thing}"),
    "number of all": ("có mấy hình trong ảnh", "trong ảnh có bao nhiêu hình", "có tất cả bao nhiêu hình"),
    "comparison": (
        "{thing} có {more} {other} không",
        "có phải {thing} {more} {other} không",
        "so với {other} thì {thing} có {more} không",
    ),
    "color of extreme": ("hình {most} màu gì", "hình {most} có màu gì", "màu của hình {most} là gì"),
    "shape of extreme": ("hình {most} là hình gì", "{most} là hình gì", "hình {most} là loại hình nào"),
    "place of extreme": ("hình {most} ở đâu", "hình {most} nằm ở đâu", "vị trí của hình {most} là ở đâu"),
}


def ask(scene: Scene, rng: random.Random) -> list[Question]:
    """6 to 8 questions about the scene, as a rule; no two of the same, each with one plain answer."""
    askers: list[Callable[[Scene, random.Random], Question | None]] = [
        partial(_at_place, "color"),
        partial(_at_place, "shape"),
        partial(_at_place, rng.choice(["color", "shape"])),
        partial(_of_thing, rng.choice(["color", "shape"])),
        _place,
        _existence if rng.random() < 0.6 else _fact_at_place,
        _number,
        _comparison,
    ]
    asked: list[Question] = []
    known = set()
    for asker in askers:
        for _ in range(4):  # not every scene lends itself to every question
            question = asker(scene, rng)
            if question is None:
                continue
            same = (question.type, question.answer, str(question.boxes))
            if same not in known:
                known.add(same)
                asked.append(question)
                break
    return asked


def _at_place(type_: str, scene: Scene, rng: random.Random) -> Question:
    shape = rng.choice(scene.shapes)
    answer = shape.color if type_ == "color" else shape.kind
    return _question(rng, f"{type_} at a place", answer, type_, [shape], at=_at(shape.place))


def _of_thing(type_: str, scene: Scene, rng: random.Random) -> Question | None:
    """The colour of the only one of its kind, or the shape of the only one of its colour."""
    known = [shape.kind if type_ == "color" else shape.color for shape in scene.shapes]
    only = [value for value in known if known.count(value) == 1]
    if not only:
        return None
    (shape,) = _matching(scene, value := rng.choice(only))
    answer = shape.color if type_ == "color" else shape.kind
    return _question(rng, f"{type_} of a thing", answer, type_, [shape], thing=_thing(value))


def _place(scene: Scene, rng: random.Random) -> Question | None:
    named = [(shape, name) for shape in scene.shapes for name in _names(scene, shape)]
    if not named:
        return None
    shape, name = rng.choice(named)
    return _question(rng, "place", shape.place, "place", [shape], thing=name)


def _existence(scene: Scene, rng: random.Random) -> Question:
    """Half of the answers are "không"; half of those are about a kind and a colour that are there, but not together."""
    pairs = {(shape.kind, shape.color) for shape in scene.shapes}
    absent = [pair for pair in itertools.product(KINDS, COLORS) if pair not in pairs]
    kinds, colors = zip(*sorted(pairs), strict=True)
    apart = [(kind, color) for kind, color in absent if kind in kinds and color in colors]
    if rng.random() < 0.5:
        kind, color = rng.choice(sorted(pairs))
    else:
        kind, color = rng.choice(apart if apart and rng.random() < 0.5 else absent)
    there = [shape for shape in scene.shapes if (shape.kind, shape.color) == (kind, color)]
    return _question(rng, "existence", _yes(there), "yes/no", there, thing=_name(kind=kind, color=color))


def _fact_at_place(scene: Scene, rng: random.Random) -> Question:
    """What is false of the place asked about is true of another, where the scene has one."""
    shape = rng.choice(scene.shapes)
    true = rng.random() < 0.5
    feature, values = rng.choice([("kind", list(KINDS)), ("color", list(COLORS))])
    own = getattr(shape, feature)
    elsewhere = sorted({getattr(other, feature) for other in scene.shapes} - {own})
    value = own if true else rng.choice(elsewhere or [value for value in values if value != own])
    thing = value if feature == "kind" else f"màu {value}"
    return _question(rng, f"{feature} there", _yes(true), "yes/no", [shape], at=_at(shape.place), thing=thing)


def _number(scene: Scene, rng: random.Random) -> Question:
    if rng.random() < 0.4:
        return _question(rng, "number of all", NUMBERS[len(scene.shapes)], "number", scene.shapes)
    counted = _matching(scene, scene.counted)
    return _question(rng, "number of", NUMBERS[len(counted)], "number", counted, thing=_thing(scene.counted))


def _comparison(scene: Scene, rng: random.Random) -> Question | None:
    """Which is the largest (or smallest); more rarely whether this is larger than that, or there are more of these."""
    about = rng.choices(["extreme", "size", "number"], weights=[6, 1, 1])[0]
    if about == "extreme":
        return _extreme(scene, rng)
    if about == "size":
        names = {shape: [*_names(scene, shape), f"hình {_at(shape.place)}"] for shape in scene.shapes}
        things = [([shape], name, shape.size) for shape in scene.shapes for name in names[shape]]
        return _compare(rng, things, more=["to hơn", "lớn hơn"], less=["nhỏ hơn", "bé hơn"])
    groups = {value: _matching(scene, value) for value in rng.choice([[*KINDS], [*COLORS]])}
    things = [(group, _thing(value), len(group)) for value, group in groups.items() if group]
    return _compare(rng, things, more=["nhiều hơn"], less=["ít hơn"])


def _compare(
    rng: random.Random, things: list[tuple[list[Shape], str, float]], *, more: list[str], less: list[str]
) -> Question | None:
    """Of two things (shapes, name, amount) whose amounts plainly differ: equal ones would leave room for argument."""
    pairs = [
        (one, other)
        for one, other in itertools.permutations(things, 2)
        if max(one[2], other[2]) >= BIGGER * min(one[2], other[2])
    ]
    if not pairs:
        return None
    one, other = rng.choice(pairs)
    words = rng.choice([more, less])
    answer = _yes((one[2] > other[2]) == (words is more))
    slots = {"thing": one[1], "other": other[1], "more": rng.choice(words)}
    return _question(rng, "comparison", answer, "comparison", one[0] + other[0], **slots)


def _extreme(scene: Scene, rng: random.Random) -> Question | None:
    by_size = sorted(scene.shapes, key=lambda shape: shape.size)
    plain = []
    if by_size[-1].size >= BIGGER * by_size[-2].size:
        plain.append((by_size[-1], rng.choice(["lớn nhất", "to nhất"])))
    if by_size[1].size >= BIGGER * by_size[0].size:
        plain.append((by_size[0], rng.choice(["nhỏ nhất", "bé nhất"])))
    if not plain:
        return None
    shape, most = rng.choice(plain)
    asked, answer = rng.choice([("color", shape.color), ("shape", shape.kind), ("place", shape.place)])
    return _question(rng, f"{asked} of extreme", answer, "comparison", [shape], most=most)


def _question(rng: random.Random, wording: str, answer: str, type_: str, shapes, **slots: str) -> Question:
    text = rng.choice(WORDINGS[wording]).format(**slots)
    return Question(text=text, answer=answer, type=type_, boxes=tuple(shape.box for shape in shapes))


def _at(place: str) -> str:
    return place if place.startswith("ở ") else f"ở {place}"


def _yes(true: object) -> str:
    return "có" if true else "không"


def _name(*, kind: str, color: str) -> str:
    return f"{kind} màu {color}"


def _thing(value: str) -> str:
    """A kind or a colour as the name of what has it."""
    return value if value in KINDS else _name(kind="hình", color=value)


def _matching(scene: Scene, value: str) -> list[Shape]:
    return [shape for shape in scene.shapes if value in (shape.kind, shape.color)]


def _names(scene: Scene, shape: Shape) -> list[str]:
    """Every name by which this shape and no other is meant."""
    by_kind, by_color = _matching(scene, shape.kind), _matching(scene, shape.color)
    both = [other for other in by_kind if other in by_color]
    named = [(by_kind, shape.kind), (by_color, _thing(shape.color)), (both, _name(kind=shape.kind, color=shape.color))]
    return [name for meant, name in named if meant == [shape]]
