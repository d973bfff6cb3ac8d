"""`vifood_vqa`, `viphoto_vqa` and `viparts_vqa` made again from the downloads that their photos came from.

Belongs here: the rules by which these three sets were made, as far as the sets show them. What is certain, what is a
guess, and what nobody can make again (which photo was in which split, which wording was drawn) stands in docs/data.md:
a set made here has the same photos, names, numbers and kinds of question, and splits of the same sizes, but not the
same rows in them. Figures measured on it don't belong beside figures measured on ours.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

from common.errors import UserError
from common.images import read_image
from common.photos import SUFFIXES, check_photos, walk_files
from common.records import to_path
from common.splits import group_split
from vqa.box_files import yolo_boxes, yolo_labels
from vqa.color_names import ColorRule, commonest_color
from vqa.prepare_options import PrepareOptions
from vqa.prepare_splits import group_photos
from vqa.questions import NO, WORDINGS, YES, Photo, Question, as_json, chance, count_word, place_of
from vqa.set_names import COUNTED, FOOD, MEALS, PARTS, THINGS

PARTS_OF = {"vifood": (0.21, 0.21, 0.10), "viphoto": (0.15, 0.15, 0.10), "viparts": (0.19, 0.20, 0.12)}
"""heldout (which ours keep aside), test and validation, as parts of all photos"""
FOOD_COLORS = ColorRule(
    middle=0.75, black=0.18, white=0.67, brown=(10, 40, 0.59), red=8, orange=38, yellow=68, green=160, pink=342
)
THING_COLORS = ColorRule(
    middle=2 / 3, grey=0.19, white=0.78, brown=(8, 48, 0.65), red=16, yellow=72, green=148, purple=310
)
# Wordings that no other set has.
THING_CATEGORY = ("đây là động vật, thực phẩm hay đồ vật", "trong ảnh là động vật, thực phẩm hay đồ vật")
PART_YES_NO = ("trong món này có {} không", "trong ảnh có {} không", "món ăn này có {} không")
PART_NUMBER = ("có bao nhiêu {} trong ảnh", "số lượng {} trong ảnh là bao nhiêu", "món này có mấy {}")
PART_DISH = ("món này là món gì", "đây là món gì", "món này là gì")
MOST_ASKED = {"yes": 3, "number": 3, "place": 2}

Asked = dict[str, list[Question]]


def rebuild(options: PrepareOptions, cache: Path) -> tuple[Asked, dict[str, str], list[str]]:
    """→ questions by split, photo → its path in the set, and notes. Raises `UserError` for a folder that is not the
    download, with what is missing."""
    folder = to_path(options.source)
    if not folder.is_dir():
        raise UserError(f"{options.source}: no such folder; docs/data.md says what to download")
    photos, ask = {"vifood": _food, "viphoto": _things, "viparts": _meals}[options.kind](folder)
    checked = check_photos([photo.path for photo in photos], cache, stop=options.on_bad_image == "fail")
    bad = [str(found) for found in checked.values() if isinstance(found, UserError)]
    if bad and options.on_bad_image == "fail":
        raise UserError(f"{bad[0]}; --on-bad-image skip leaves such photos out")
    numbers = {photo.name: f"{number:04d}" for number, photo in enumerate(photos)}
    photos = [photo for photo in photos if isinstance(checked.get(photo.path), str)]
    for photo in photos:
        photo.digest = checked[photo.path]
    notes = group_photos(photos, bits=options.near_duplicates, pattern=options.group_pattern)
    _name_groups(photos, numbers, "p" if options.kind == "viparts" else "g")
    parts = [("heldout", 0), ("test", 1), ("validation", 2)]
    left, whole = list(photos), len(photos)
    for split, place in parts:
        part = PARTS_OF[options.kind][place] * whole / len(left)
        labels, groups = [photo.label for photo in left], [photo.group for photo in left]
        _, taken = group_split(labels, groups, fraction=part, seed=options.seed, what=options.source)
        for number in taken:
            left[number].split = split
        left = [photo for photo in left if not photo.split]
    for photo in left:
        photo.split = "train"
    asked: Asked = {split: [] for split in ("train", "validation", "test", "heldout")}
    for photo in photos:
        asked[photo.split] += ask(photo, options.seed)
    notes += [f"skipped: {len(bad):,} photos; the first: {first}" for first in bad[:1]]
    notes.append("splits and wordings are drawn anew: not those of the set that the project's own figures are from")
    named = {photo.name: f"images/{numbers[photo.name]}{PurePath(photo.path).suffix.lower()}" for photo in photos}
    return asked, named, notes


def _name_groups(photos: Sequence[Photo], numbers: Mapping[str, str], letter: str) -> None:
    """Groups are named after the number of their first photo."""
    first: dict[str, str] = {}
    for photo in photos:
        first.setdefault(photo.group, f"{letter}{numbers[photo.name]}")
        photo.group = first[photo.group]


def _photo(path: str, root: Path, label: str) -> Photo:
    return Photo(path=path, name=PurePath(os.path.relpath(path, root)).as_posix(), digest="", label=label)


def _row(photo: Photo, wording: str, answer: str, type_: str, *, thing: str = "", boxes: str = "") -> Question:
    question = wording.replace("{}", thing or photo.label)
    return Question(photo=photo, question=question, answer=answer, type=type_, thing=thing, boxes=boxes)


def _photos_in(folder: Path) -> list[str]:
    return [path for path in walk_files(folder) if path.lower().endswith(SUFFIXES)]


# --- vifood -----------------------------------------------------------------------------------------------------------


def _food(folder: Path):
    """Photos in `data/Test/DISH` and `data/Train/DISH`, numbered in the order of their paths."""
    names = {source: name for part in FOOD.values() for source, name in part.items()}
    category = {name: kind for kind, part in FOOD.items() for name in part.values()}
    photos = []
    for path in sorted(_photos_in(folder), key=lambda path: PurePath(path).parts):
        dish, split = PurePath(path).parent.name, PurePath(path).parent.parent.name
        if split in ("Test", "Train") and dish in names:
            photos.append(_photo(path, folder, names[dish]))
    missing = sorted(set(names.values()) - {photo.label for photo in photos})
    if missing:
        raise UserError(f"{folder}: no photos in data/Test/DISH and data/Train/DISH of: {', '.join(missing[:5])}")

    def ask(photo: Photo, seed: int) -> list[Question]:
        rng, food = chance(seed, photo.name), WORDINGS["food"]
        kind = category[photo.label]
        same = [name for name in category if category[name] == kind and name != photo.label]
        other = [name for name in category if category[name] != kind]
        rows = [_row(photo, wording, photo.label, "dish") for wording in rng.sample(food["what"], 2)]
        things = (photo.label, photo.label, rng.choice(same), rng.choice(other))
        for wording, thing, answer in zip(rng.sample(food["yes/no"], 4), things, (YES, YES, NO, NO), strict=True):
            rows.append(_row(photo, wording, answer, "yes/no", thing=thing))
        color = commonest_color(read_image(photo.path, shrink_to=256), FOOD_COLORS)
        rows.append(_row(photo, rng.choice(food["color"]), color, "color"))
        rows.append(_row(photo, rng.choice(food["category"]), kind, "category"))
        return rows

    return photos, ask


# --- viphoto ----------------------------------------------------------------------------------------------------------


def _things(folder: Path):
    """Photos named `n01440764_tench.JPEG`, one of each of ImageNet's 1,000 classes, whose order is that of the classes;
    and `n02084071_1365_dog.jpg`, five of each of the 200 of its detection task."""
    label_of: dict[int | str, str] = {}
    category: dict[str, str] = {}
    for kind, labels in THINGS.items():
        for label, (numbers, names) in labels.items():
            category[label] = kind
            label_of |= dict.fromkeys([*numbers, *names.split()], label)
    single: dict[str, str] = {}
    found: dict[str, list[str]] = defaultdict(list)
    for path in _photos_in(folder):
        name = PurePath(path).stem
        if match := re.fullmatch(r"n\d{8}_\d+_(.+)", name):
            if its := label_of.get(match[1].lower()):
                found[its].append(path)
        elif match := re.fullmatch(r"(n\d{8})_.+", name):
            single[match[1]] = path
    if len(single) != 1000:
        raise UserError(
            f"{folder}: has photos of {len(single):,} of ImageNet's 1,000 classes, named n01440764_tench.JPEG; which "
            "class a photo is of is told by its place among all 1,000"
        )
    for number, synset in enumerate(sorted(single)):
        if its := label_of.get(number):
            found[its].append(single[synset])
    photos = [_photo(path, folder, label) for label in category for path in sorted(found[label])]

    def ask(photo: Photo, seed: int) -> list[Question]:
        rng, words = chance(seed, photo.name), WORDINGS["photo"]
        same = [name for name in category if category[name] == category[photo.label] and name != photo.label]
        other = rng.choice(same if rng.random() < 0.5 else [name for name in category if name != photo.label])
        color = commonest_color(read_image(photo.path, shrink_to=256), THING_COLORS)
        return [
            _row(photo, rng.choice(words["what"]), photo.label, "object"),
            _row(photo, rng.choice(words["yes/no"]), YES, "yes/no", thing=photo.label),
            _row(photo, rng.choice(words["yes/no"]), NO, "yes/no", thing=other),
            _row(photo, rng.choice(words["color"]), color, "color"),
            _row(photo, rng.choice(THING_CATEGORY), category[photo.label], "category"),
        ]

    return photos, ask


# --- viparts ----------------------------------------------------------------------------------------------------------


def _meals(folder: Path):
    """Roboflow's export, `{test,train,valid}/{images,labels}` and data.yaml, numbered in the order of the paths."""
    found = next((path.parent for path in sorted(folder.glob("**/data.yaml"))), None)
    if found is None:
        raise UserError(f"{folder}: no data.yaml in it, which says what the classes of the boxes are")
    labels = yolo_labels(found)
    missing = sorted((PARTS | COUNTED | MEALS).keys() - set(labels))
    if missing:
        raise UserError(f"{found / 'data.yaml'}: is not that of viparts, it lacks the classes {', '.join(missing[:5])}")
    photos = []
    boxes: dict[str, dict[str, list[tuple[float, float, float, float]]]] = {}
    paths = [path for path in _photos_in(found) if PurePath(path).parent.name == "images"]
    for path in sorted(paths, key=lambda path: PurePath(path).parts):
        text = Path(path).parent.parent / "labels" / (PurePath(path).stem + ".txt")
        things: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
        for label, box in yolo_boxes(text, labels) if text.is_file() else ():
            things[label].append(box)
        meals = [label for label in things if label in MEALS]
        photos.append(_photo(path, found, meals[0] if meals else ""))
        boxes[photos[-1].name] = dict(things)
    often = {label: sum(label in things for things in boxes.values()) for label in PARTS}

    def ask(photo: Photo, seed: int) -> list[Question]:
        return _meal_rows(photo, boxes[photo.name], often, seed)

    return photos, ask


def _meal_rows(photo: Photo, things: Mapping[str, list], often: Mapping[str, int], seed: int) -> list[Question]:
    """Up to three things that are there and as many that are not, drawn as often as they occur anywhere; the number of
    those that can be counted; the place of two that are there once and clearly somewhere; and the dish."""
    rng = chance(seed, photo.name)
    there = [label for label in things if label in PARTS]
    absent = [label for label in PARTS if label not in things]
    yes = _few(there, MOST_ASKED["yes"], rng)
    no: list[str] = []
    while len(no) < len(yes):
        rest = [label for label in absent if label not in no]
        no += rng.choices(rest, [often[label] + 1 for label in rest])
    rows = []
    for answer, labels in ((YES, yes), (NO, no)):
        for label in labels:
            shown = as_json(things[label]) if answer == YES else ""
            rows.append(_row(photo, rng.choice(PART_YES_NO), answer, "yes/no", thing=PARTS[label], boxes=shown))
    for label in _few([label for label in things if label in COUNTED], MOST_ASKED["number"], rng):
        count = count_word(len(things[label]), 5)
        shown = as_json(things[label])
        rows.append(_row(photo, rng.choice(PART_NUMBER), count, "number", thing=COUNTED[label], boxes=shown))
    lone = [label for label in there if len(things[label]) == 1]
    placed = {label: place for label in lone if (place := place_of(things[label][0]))}
    for label in _few(list(placed), MOST_ASKED["place"], rng):
        wording = rng.choice(WORDINGS["photo"]["place"])
        rows.append(_row(photo, wording, placed[label], "place", thing=PARTS[label], boxes=as_json(things[label])))
    meals = [label for label in things if label in MEALS]
    if len(meals) == 1:
        shown = as_json(things[meals[0]])
        rows.append(_row(photo, rng.choice(PART_DISH), MEALS[meals[0]], "dish", boxes=shown))
    return rows


def _few(labels: Iterable[str], most: int, rng) -> list[str]:
    labels = list(labels)
    return rng.sample(labels, min(most, len(labels)))
