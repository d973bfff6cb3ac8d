"""Vietnamese questions about labelled photos and about boxes: wordings, answers, and which of them are asked.

Belongs here: from photos with a label or boxes to questions with answers, so that a model which does not look gains
little. Does not belong here: where the photos come from and which split they are in (`vqa/prepare.py`), nor what a
colour is called (`vqa/color_names.py`).

What is chance here depends on the seed and the photo's name alone, or on the seed and all photos of a split: never on
the order in which a file system names them.
"""

import json
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

YES, NO = "có", "không"
COUNTS = ("một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín", "mười")
MANY = "nhiều"
LEFT, RIGHT, ABOVE, BELOW, CENTRE = "bên trái", "bên phải", "phía trên", "phía dưới", "ở giữa"

WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "photo": {
        "what": ("đây là gì", "trong ảnh có gì", "vật chính trong ảnh là gì"),
        "yes/no": ("đây có phải là {} không", "trong ảnh có {} không", "bức ảnh này có {} không"),
        "color": ("màu chủ đạo của bức ảnh là gì", "màu sắc chủ đạo của ảnh là gì", "bức ảnh có màu chủ đạo là màu gì"),
        "category": ("thứ trong ảnh thuộc loại nào", "đây thuộc loại gì"),
        "number": ("có bao nhiêu {} trong ảnh", "số lượng {} trong ảnh là bao nhiêu"),
        "place": ("{} ở phía nào của ảnh", "{} nằm ở đâu trong ảnh", "vị trí của {} trong ảnh là ở đâu"),
    },
    "food": {
        "what": ("món này là món gì", "đây là món gì", "món này là gì", "tên của món ăn này là gì"),
        "yes/no": (
            "đây có phải là {} không",
            "món này có phải là {} không",
            "đây là món {} phải không",
            "đây có phải là món {} không",
        ),
        "color": (
            "màu chủ đạo của món ăn là gì",
            "màu sắc chủ đạo của món ăn là gì",
            "màu chủ đạo của {} là gì",
        ),
        "category": ("món này thuộc loại món gì", "đây là loại món ăn gì"),
    },
}
TYPES = {"photo": {"what": "object"}, "food": {"what": "dish"}}
"""Kind → type in the table, where it is not the kind's own name."""

Box = tuple[float, float, float, float]


@dataclass(kw_only=True)
class Photo:
    """A photo on its way to a set."""

    path: str
    """where it is"""
    name: str
    """its path in the source: what chance depends on"""
    digest: str
    """SHA-256 of its bytes"""
    group: str = ""
    """photos of one group are in one split"""
    split: str = ""
    """"" where the source says none"""
    label: str = ""
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    """thing → its boxes, in 0-1 of the photo"""
    crowds: frozenset[str] = frozenset()
    """things of which one box holds several, so that they cannot be counted or placed"""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row of a table; `thing` is what the wording names, if anything."""

    photo: Photo
    question: str
    answer: str
    type: str
    thing: str = ""
    boxes: str = ""


def chance(*parts: object) -> random.Random:
    """A generator of its own for each seed, photo and purpose: Python seeds by the text, alike on every machine."""
    return random.Random("\t".join(map(str, parts)))


def spelled(text: str) -> str:
    """A name as it is written: composed Unicode (macOS decomposes), single blanks."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def ask(photo: Photo, wordings: Sequence[str], answer: str, type_: str, seed: int, *, thing: str = "", boxes: str = ""):
    """A question in one of the wordings."""
    wording = chance(seed, type_, photo.name, thing).choice(wordings)
    named = thing or photo.label
    return Question(
        photo=photo,
        question=wording.replace("{}", named),
        answer=answer,
        type=type_,
        thing=thing or (named if "{}" in wording else ""),
        boxes=boxes,
    )


# --- labels -----------------------------------------------------------------------------------------------------------


def other_names(names: Sequence[str], rng: random.Random, *, among: Callable[[str], object] | None = None) -> list[str]:
    """For each name another one, such that each name is given as often as it occurs: "is it X?" is then answered no as
    often as yes, for every X. Names that make up more than half cannot be matched: theirs are drawn from the others
    as often as these occur, and "" stands for the rest. With `among` only names of which it says the same are given.
    """
    parts: dict[object, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        parts[among(name) if among else None].append(place)
    given = [""] * len(names)
    for key in sorted(parts, key=str):
        places = parts[key]
        rng.shuffle(places)
        # Sorted by name, and turned by the size of the largest class: nobody gets their own, unless that class is
        # more than half. Then pairs of others are swapped at random, or each class would be asked of one other.
        by_name = sorted(places, key=lambda place: names[place])
        most = max(Counter(names[place] for place in places).values())
        for place, source in zip(by_name, by_name[most:] + by_name[:most], strict=True):
            given[place] = "" if names[source] == names[place] else names[source]
        for _ in range(8 * len(places)):
            one, two = rng.choice(places), rng.choice(places)
            if given[one] not in ("", names[two]) and given[two] not in ("", names[one]):
                given[one], given[two] = given[two], given[one]
    return given


def _pairs(photo: Photo, others: Sequence[str], wordings: Sequence[str], seed: int) -> list[Question]:
    """For each other name a question that is so and one that is not; none is asked twice."""
    drawn = {answer: chance(seed, "yes/no", photo.name, answer) for answer in (YES, NO)}
    ways = {answer: rng.sample(wordings, min(len(wordings), len(others))) for answer, rng in drawn.items()}
    return [
        ask(photo, [ways[answer][place]], answer, "yes/no", seed, thing=thing)
        for place, other in enumerate(others[: len(wordings)])
        for answer, thing in ((YES, photo.label), (NO, other))
    ]


def ask_labels(
    photos: Sequence[Photo],
    kinds: Sequence[str],
    wordings: dict[str, tuple[str, ...]],
    *,
    style: str,
    seed: int,
    split: str,
    categories: dict[str, str],
    color_of: Callable[[Photo], str | None],
) -> list[Question]:
    """The questions about the labelled photos of one split, photo by photo.

    Yes/no: one that is so and one that is not; where there are categories one more of each, its "no" about another of
    the same category.
    """
    photos = sorted(photos, key=lambda photo: photo.name)
    names = [photo.label for photo in photos]
    rounds = [other_names(names, chance(seed, split, "other names"))]
    if categories:
        rng = chance(seed, split, "other names of the category")
        rounds.insert(0, other_names(names, rng, among=lambda name: categories.get(name, "")))
    types = {kind: TYPES[style].get(kind, kind) for kind in kinds}
    found = []
    for place, photo in enumerate(photos):
        if "what" in kinds:
            found.append(ask(photo, wordings["what"], photo.label, types["what"], seed))
        if "yes/no" in kinds:
            others = dict.fromkeys(other for given in rounds if (other := given[place]))
            found += _pairs(photo, list(others), wordings["yes/no"], seed)
        if "color" in kinds and (color := color_of(photo)):
            found.append(ask(photo, wordings["color"], color, "color", seed))
        if "category" in kinds and categories.get(photo.label):
            found.append(ask(photo, wordings["category"], categories[photo.label], "category", seed))
    return found


# --- boxes ------------------------------------------------------------------------------------------------------------


def as_json(boxes: Sequence[Box]) -> str:
    """Boxes as the column `boxes` has them, four decimals."""
    return json.dumps([[round(value, 4) for value in box] for box in boxes])


def place_of(box: Box) -> str | None:
    """Where a box lies: "bên trái", "bên phải", "phía trên", "phía dưới" or "ở giữa"; None where that is not clear.

    A box of more than 0.35 of the photo is everywhere. Of its centre's distances from the middle along both axes:
    up to 0.08 is "ở giữa"; a side is named if the larger distance is above 0.14 and above the other by 0.05. This
    is the rule of `viparts_vqa`.
    """
    x0, y0, x1, y1 = box
    if (x1 - x0) * (y1 - y0) > 0.35:
        return None
    x, y = (x0 + x1) / 2 - 0.5, (y0 + y1) / 2 - 0.5
    if max(abs(x), abs(y)) <= 0.08:
        return CENTRE
    if max(abs(x), abs(y)) <= 0.14 or abs(abs(x) - abs(y)) <= 0.05:
        return None
    if abs(x) > abs(y):
        return LEFT if x < 0 else RIGHT
    return ABOVE if y < 0 else BELOW


def count_word(count: int, most: int) -> str:
    """1 → "một" … `most`; more are "nhiều"."""
    return COUNTS[count - 1] if count <= most else MANY


def ask_boxes(
    photos: Sequence[Photo],
    kinds: Sequence[str],
    wordings: dict[str, tuple[str, ...]],
    *,
    seed: int,
    split: str,
    most_counted: int,
    uncountable: frozenset[str] = frozenset(),
) -> list[Question]:
    """The questions about what is in the photos of one split, photo by photo.

    Yes/no: of each thing as many photos without it as with it are asked, so many as there are of both. Number: of each
    thing that can be counted. Place: of a thing that is there once, where `place_of` is clear.
    """
    photos = sorted(photos, key=lambda photo: photo.name)
    asked: dict[tuple[str, str], str] = {}  # (photo, thing) → yes or no
    for thing in sorted({thing for photo in photos for thing in photo.boxes}) * ("yes/no" in kinds):
        rng = chance(seed, split, "yes/no", thing)
        parts = {answer: [p.name for p in photos if (thing in p.boxes) == (answer == YES)] for answer in (YES, NO)}
        for answer, some in parts.items():
            for name in rng.sample(some, min(map(len, parts.values()))):
                asked[name, thing] = answer
    by_photo = defaultdict(list)
    for (name, thing), answer in asked.items():
        by_photo[name].append((thing, answer))
    found = []
    for photo in photos:
        for thing, answer in by_photo[photo.name]:
            boxes = as_json(photo.boxes[thing]) if answer == YES else ""
            found.append(ask(photo, wordings["yes/no"], answer, "yes/no", seed, thing=thing, boxes=boxes))
        for thing, its in sorted(photo.boxes.items()):
            if "number" in kinds and thing not in photo.crowds | uncountable:
                answer = count_word(len(its), most_counted)
                found.append(ask(photo, wordings["number"], answer, "number", seed, thing=thing, boxes=as_json(its)))
        for thing, its in sorted(photo.boxes.items()):
            if "place" in kinds and len(its) == 1 and thing not in photo.crowds:
                if place := place_of(its[0]):
                    found.append(ask(photo, wordings["place"], place, "place", seed, thing=thing, boxes=as_json(its)))
    return found


# --- what a blind model would gain ------------------------------------------------------------------------------------


def balance(
    questions: Sequence[Question], *, types: Sequence[str], most: float, seed: int, split: str
) -> tuple[list[Question], int]:
    """Leave out questions of `types` until, of each type and thing, the commonest answer stands at most `most` times as
    often as the next; one that has a single answer in the split is not asked. → what is left, in its order, and how
    many are gone."""
    together: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, question in enumerate(questions):
        if question.type in types:
            together[question.type, question.thing][question.answer].append(place)
    gone: set[int] = set()
    for key in sorted(together):
        counts = sorted(map(len, together[key].values()), reverse=True)
        cap = int(most * counts[1]) if len(counts) > 1 else 0
        for answer, places in sorted(together[key].items()):
            if len(places) > cap:
                gone.update(chance(seed, split, "balance", *key, answer).sample(places, len(places) - cap))
    return [question for place, question in enumerate(questions) if place not in gone], len(gone)
