"""Question sets: made from labelled photos and from boxes, balanced, group-safe, the same each time; ours, rebuilt."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.config import parse
from common.errors import UserError
from common.near_duplicates import near_duplicate_groups
from vqa.color_names import ColorRule, color_shares, dominant_color
from vqa.data import load_vqa
from vqa.prepare import prepare
from vqa.prepare_options import PrepareOptions
from vqa.questions import Photo, Question, balance, chance, count_word, other_names, place_of

COLORS = {"do": (220, 20, 20), "xanh_la": (20, 180, 60), "xanh_duong": (20, 60, 220)}


def picture(number: int, color: tuple[int, int, int] = (128, 128, 128), size: int = 64) -> Image.Image:
    """A pattern of its own for each number, in shades of one colour."""
    cells = np.random.default_rng(number).uniform(0.5, 1, (8, 8, 1)) * np.array(color)
    return Image.fromarray(cells.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """12 photos of each of three colours, in a folder per class; of each class the first photo is there twice, once
    smaller and of lower quality."""
    folder = tmp_path_factory.mktemp("photos") / "by class"
    for place, (label, color) in enumerate(COLORS.items()):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            picture(100 * place + number, color).save(folder / label / f"{number}.png")
        picture(100 * place, color).resize((48, 48)).save(folder / label / "again.jpg", quality=60)
    return folder


@pytest.fixture(scope="module")
def names(labelled) -> Path:
    path = labelled.parent / "names.csv"
    path.write_text(
        "label,name,category\ndo,đỏ thắm,nóng\nxanh_la,lá cây,lạnh\nxanh duong,biển,lạnh\n", encoding="utf-8"
    )
    return path


def make(*arguments: object) -> Path:
    return prepare(parse(PrepareOptions, [str(argument) for argument in arguments]))


def rows_of(folder: Path, split: str) -> list[dict[str, str]]:
    with open(folder / f"{split}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def whole(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labelled_photos_become_a_set_that_the_loader_takes(labelled, names, tmp_path, capsys) -> None:
    made = make("labels", labelled, "--output", tmp_path / "set", "--names", names, "--cache", tmp_path / "cache")
    data = load_vqa(str(made), cache_directory=tmp_path / "cache")  # refuses leaks of groups, photos and rows
    assert data.leaks == [] and sum(len(set(rows["image"][:])) for rows in data.splits.values()) == 39
    answers = {name: set() for name in ("object", "yes/no", "category")}
    for rows in data.splits.values():
        for row in rows:
            label = Path(row["image"]).parent.name
            told = {"do": "đỏ thắm", "xanh_la": "lá cây", "xanh_duong": "biển"}[label]
            if row["type"] == "object":
                assert row["answer"] == told
            if row["type"] == "yes/no":
                assert row["answer"] == ("có" if told in row["question"] else "không")
            if row["type"] == "category":
                assert row["answer"] == ("nóng" if label == "do" else "lạnh")
            answers.setdefault(row["type"], set()).add(row["answer"])
    assert answers["yes/no"] == {"có", "không"} and answers["color"] <= {"đỏ", "xanh lá", "xanh dương"}
    assert {path.name for path in made.iterdir()} >= {"README.md", "about.json", "images", "train.csv"}
    printed = capsys.readouterr().out
    assert "majority per type" in printed and "scripts/train_vqa.py" in printed


def test_near_duplicates_share_a_group_and_a_split(labelled, tmp_path) -> None:
    made = make("labels", labelled, "--output", tmp_path / "set", "--cache", tmp_path)
    place = {
        row["image"]: (split, row["group"]) for split in ("train", "validation", "test") for row in rows_of(made, split)
    }
    for label in COLORS:
        assert place[f"images/{label}/0.png"] == place[f"images/{label}/again.jpg"]
        assert place[f"images/{label}/0.png"] != place[f"images/{label}/1.png"]
    apart = make("labels", labelled, "--output", tmp_path / "apart", "--near-duplicates", "none", "--cache", tmp_path)
    groups = {row["image"]: row["group"] for split in ("train", "validation", "test") for row in rows_of(apart, split)}
    assert len(set(groups.values())) == len(groups) == 39


def test_the_same_photos_and_seed_give_the_same_files_in_whatever_order_they_were_written(labelled, tmp_path) -> None:
    other = tmp_path / "elsewhere" / "by class"
    for path in sorted(labelled.rglob("*.*g"), reverse=True):
        (other / path.relative_to(labelled)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other / path.relative_to(labelled))
    sets = [
        whole(make("labels", source, "--output", tmp_path / name, "--seed", seed, "--cache", tmp_path))
        for source, name, seed in ((labelled, "a", 1), (other, "b", 1), (labelled, "c", 2))
    ]
    tables = [{name: text for name, text in files.items() if name.endswith(".csv")} for files in sets]
    assert tables[0] == tables[1] and tables[0] != tables[2]


def test_the_source_s_own_splits_stay_and_a_leak_in_them_is_refused(labelled, tmp_path) -> None:
    source = tmp_path / "source"
    for path in sorted(labelled.rglob("*.png")):
        part = source / ("test" if int(path.stem) < 3 else "train") / path.parent.name
        part.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, part / path.name)
    made = make("labels", source, "--output", tmp_path / "set", "--cache", tmp_path)
    assert {Path(row["image"]).name for row in rows_of(made, "test")} == {"0.png", "1.png", "2.png"}
    shutil.copy(labelled / "do" / "again.jpg", source / "train" / "do")  # nearly test's do/0.png
    with pytest.raises(UserError, match="leak: .* in train .*--no-keep-splits"):
        make("labels", source, "--output", tmp_path / "leaky", "--cache", tmp_path)
    assert not (tmp_path / "leaky").exists()
    make("labels", source, "--output", tmp_path / "anew", "--cache", tmp_path, "--no-keep-splits")


def test_a_pattern_of_the_name_groups_photos(labelled, tmp_path) -> None:
    made = make("labels", labelled, "--output", tmp_path / "set", "--group-pattern", r"(\d)\.", "--cache", tmp_path)
    splits = {split: {row["image"][-5] for row in rows_of(made, split)} for split in ("train", "validation", "test")}
    assert not splits["train"] & splits["test"] - {"n"} and not splits["train"] & splits["validation"] - {"n"}
    with pytest.raises(UserError, match="is in no photo's path"):
        make("labels", labelled, "--output", tmp_path / "x", "--group-pattern", "(video7)", "--cache", tmp_path)


def test_photos_that_stay_are_named_from_their_own_folder(labelled, tmp_path) -> None:
    made = make("labels", labelled, "--output", tmp_path / "set", "--photos", "stay", "--cache", tmp_path)
    assert not (made / "images").exists()
    data = load_vqa(str(made), images=str(labelled), cache_directory=tmp_path)
    assert Path(data.splits["train"][0]["image"]).is_relative_to(labelled)


def test_what_is_there_is_replaced_only_if_this_command_made_it(labelled, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    for extra, wrong in (((), "exists"), (("--overwrite",), "something else")):
        with pytest.raises(UserError, match=wrong):
            make("labels", labelled, "--output", tmp_path / "mine", "--cache", tmp_path, *extra)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    made = make("labels", labelled, "--output", tmp_path / "set", "--cache", tmp_path)
    before = (made / "train.csv").read_bytes()
    make("labels", labelled, "--output", made, "--cache", tmp_path, "--overwrite", "--seed", 5)
    assert (made / "train.csv").read_bytes() != before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".set")]  # nothing half, nothing old
    with pytest.raises(UserError, match="lies in the source"):
        make("labels", labelled, "--output", labelled / "set", "--cache", tmp_path)


def test_what_is_wrong_is_told_in_a_line_and_nothing_is_written(labelled, tmp_path) -> None:
    def refused(match: str, *arguments: object, source: Path = labelled, kind: str = "labels") -> None:
        with pytest.raises(UserError, match=match):
            make(kind, source, "--output", tmp_path / "no", "--cache", tmp_path, *arguments)
        assert not (tmp_path / "no").exists()

    for text, wrong in {
        "label,name\ndo,đỏ\ndo,hồng\n": "row 3: the label 'do' is named twice",
        "label,name\ndoo,đỏ\n": "row 2: no photo has the label 'doo'",
        "label\ndo\n": "no column 'name'",
        "label,name,countable\ndo,đỏ,maybe\n": "countable is 'maybe'",
    }.items():
        (tmp_path / "names.csv").write_text(text, encoding="utf-8")
        refused(wrong, "--names", tmp_path / "names.csv")
    refused("write {} once", "--yes-no", "đây là gì")
    refused("can be asked: what, yes/no, color, category", "--questions", "number")
    refused("needs --names", "--questions", "category")
    refused("all photos have the label", source=labelled / "..", kind="labels")
    refused("^nowhere: no such file or folder", source=Path("nowhere"))
    refused("no regular expression", "--group-pattern", "(")
    refused("put the group in parentheses", "--group-pattern", "a")
    bad = tmp_path / "bad"
    shutil.copytree(labelled, bad)
    (bad / "do" / "0.png").write_bytes(b"no photo")
    refused("cannot be read as an image", source=bad)
    make("labels", bad, "--output", tmp_path / "skipped", "--cache", tmp_path, "--on-bad-image", "skip")


def test_the_command_makes_a_set_that_trains_and_answers(run_script, labelled, tmp_path) -> None:
    run_script("scripts/prepare_data.py", "labels", labelled, "--output", tmp_path / "set")
    small = (
        "--encoder custom_cnn --weights none --image-size 32 --epochs 1 --hidden 8 --embedding 8 --examples 0".split()
    )
    run_script("scripts/train_vqa.py", "--data", tmp_path / "set", "--output", tmp_path / "run", *small)
    photo = labelled / "do" / "1.png"
    said = run_script("scripts/predict_vqa.py", "--run", tmp_path / "run", "--image", photo, "--question", "đây là gì")
    assert any(name in said.stdout for name in ("do", "xanh la", "xanh duong", "có", "không"))
    again = run_script("scripts/prepare_data.py", "labels", labelled, "--output", tmp_path / "set", check=False)
    assert again.returncode == 2 and again.stderr.count("\n") == 1 and "exists" in again.stderr


# --- the rules --------------------------------------------------------------------------------------------------------


def test_each_name_is_denied_as_often_as_it_is_true() -> None:
    names = ["a"] * 10 + ["b"] * 7 + ["c"] * 5
    given = other_names(names, chance(0))
    assert all(one != two for one, two in zip(names, given, strict=True)) and Counter(given) == Counter(names)
    half = other_names(["a"] * 6 + ["b"] * 2, chance(0))  # four a's are left without a partner
    assert Counter(half) == {"a": 2, "b": 2, "": 4}
    within = other_names(["a", "b", "c", "d"], chance(0), among={"a": 1, "b": 1, "c": 2, "d": 2}.get)
    assert within == ["b", "a", "d", "c"]


def test_places_and_numbers() -> None:
    def at(x: float, y: float, size: float = 0.1) -> str | None:
        return place_of((x - size / 2, y - size / 2, x + size / 2, y + size / 2))

    assert [at(0.2, 0.5), at(0.8, 0.5), at(0.5, 0.2), at(0.5, 0.8), at(0.55, 0.45)] == [
        "bên trái",
        "bên phải",
        "phía trên",
        "phía dưới",
        "ở giữa",
    ]
    assert at(0.62, 0.5) is None and at(0.2, 0.22) is None and at(0.5, 0.5, size=0.7) is None
    assert [count_word(number, 5) for number in (1, 5, 6)] == ["một", "năm", "nhiều"]


def test_no_answer_of_a_thing_is_a_good_guess() -> None:
    photo = Photo(path="", name="", digest="")

    def some(thing: str, answer: str, count: int, type_: str = "number") -> list[Question]:
        return [Question(photo=photo, question="?", answer=answer, type=type_, thing=thing)] * count

    questions = some("tôm", "một", 9) + some("tôm", "hai", 4) + some("cơm", "một", 5) + some("", "có", 7, "yes/no")
    left, gone = balance(questions, types=("number",), most=1, seed=0, split="train")
    assert Counter((q.thing, q.answer) for q in left) == {("tôm", "một"): 4, ("tôm", "hai"): 4, ("", "có"): 7}
    assert gone == 10


def test_colours_of_plain_photos_and_of_mixed_ones() -> None:
    rule = ColorRule(middle=0.5)
    told = {
        "đỏ": (230, 10, 20),
        "cam": (240, 140, 20),
        "vàng": (240, 220, 30),
        "xanh lá": (30, 160, 50),
        "xanh dương": (30, 60, 200),
        "tím": (130, 40, 200),
        "hồng": (250, 90, 180),
        "nâu": (110, 65, 25),
        "đen": (12, 10, 10),
        "trắng": (250, 250, 250),
        "xám": (128, 128, 130),
    }
    assert {name: dominant_color(Image.new("RGB", (40, 30), color), rule) for name, color in told.items()} == {
        name: name for name in told
    }
    mixed = Image.new("RGB", (40, 40), told["đỏ"])
    mixed.paste(told["vàng"], (0, 0, 40, 22))  # of the middle 10…30: 12 rows of 20
    assert color_shares(mixed, rule)["vàng"] == pytest.approx(0.6)
    assert dominant_color(mixed, rule, clear=0.7) is None
    assert dominant_color(Image.new("RGB", (1, 1), told["tím"]), ColorRule(middle=0.1)) == "tím"


def test_plain_photos_of_different_colours_are_not_alike(tmp_path) -> None:
    paths = []
    for place, color in enumerate(COLORS.values()):
        paths.append(str(tmp_path / f"{place}.png"))
        Image.new("RGB", (32, 32), color).save(paths[-1])
    assert len(set(near_duplicate_groups(paths, ["a", "b", "c"], bits=6))) == 3
    picture(1).save(tmp_path / "0.png")
    picture(1, size=50).save(tmp_path / "1.png")
    assert near_duplicate_groups(paths, ["b", "a", "c"], bits=6) == ["a", "a", "c"]  # named after the smallest


# --- boxes ------------------------------------------------------------------------------------------------------------


def boxes_of(number: int) -> list[tuple[str, tuple[float, float, float, float]]]:
    """One to three cups, and a spoon on one side in every second photo; 0-1."""
    cups = [("cup", (0.1 + 0.3 * place, 0.4, 0.3 + 0.3 * place, 0.6)) for place in range(1 + number % 3)]
    x = 0.05 if number % 4 == 1 else 0.75
    return cups + [("spoon", (x, 0.4, x + 0.2, 0.6))] * (number % 2)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory) -> Path:
    """24 photos with boxes, told in every format, each in a folder of its own."""
    root = tmp_path_factory.mktemp("boxed")
    for format in ("table", "coco", "yolo", "voc"):
        photos = root / format / "images"
        photos.mkdir(parents=True)
        for number in range(24):
            picture(1000 + number, size=80).save(photos / f"{number:02d}.png")
    found = [(f"{number:02d}", label, box) for number in range(24) for label, box in boxes_of(number)]
    lines = [f"images/{name}.png,{label},{','.join(str(round(80 * v)) for v in box)}" for name, label, box in found]
    (root / "table" / "boxes.csv").write_text("\n".join(["image,label,x0,y0,x1,y1", *lines]), encoding="utf-8")
    coco = {
        "images": [{"id": n, "file_name": f"images/{n:02d}.png", "width": 80, "height": 80} for n in range(24)],
        "categories": [{"id": 7, "name": "cup"}, {"id": 9, "name": "spoon"}],
        "annotations": [
            {"image_id": int(name), "category_id": {"cup": 7, "spoon": 9}[label], "iscrowd": 0}
            | {"bbox": [80 * x0, 80 * y0, 80 * (x1 - x0), 80 * (y1 - y0)]}
            for name, label, (x0, y0, x1, y1) in found
        ],
    }
    (root / "coco" / "instances.json").write_text(json.dumps(coco), encoding="utf-8")
    (root / "yolo" / "data.yaml").write_text("names: {0: cup, 1: spoon}\n", encoding="utf-8")
    for name in {name for name, _, _ in found}:
        (root / "yolo" / "labels").mkdir(exist_ok=True)
        own = [(label, box) for photo, label, box in found if photo == name]
        text = [
            f"0 {(x0 + x1) / 2} {(y0 + y1) / 2} {x1 - x0} {y1 - y0}"
            if label == "cup"
            else f"1 {x0} {y0} {x1} {y0} {x1} {y1}"
            for label, (x0, y0, x1, y1) in own
        ]
        (root / "yolo" / "labels" / f"{name}.txt").write_text("\n".join(text), encoding="utf-8")
        things = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{80 * x0}</xmin><ymin>{80 * y0}</ymin><xmax>{80 * x1}</xmax>"
            f"<ymax>{80 * y1}</ymax></bndbox></object>"
            for label, (x0, y0, x1, y1) in own
        )
        size = "<size><width>80</width><height>80</height></size>"
        (root / "voc" / "annotations").mkdir(exist_ok=True)
        (root / "voc" / "annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename>{size}{things}</annotation>", encoding="utf-8"
        )
    return root


def sources(boxed: Path) -> dict[str, Path]:
    return {
        "table": boxed / "table" / "boxes.csv",
        "coco": boxed / "coco" / "instances.json",
        "yolo": boxed / "yolo",
        "voc": boxed / "voc",
    }


def test_every_format_of_boxes_gives_the_same_set(boxed, tmp_path) -> None:
    tables = {}
    for format, source in sources(boxed).items():
        made = make("boxes", source, "--output", tmp_path / format, "--cache", tmp_path, "--balance", "none")
        tables[format] = [row for split in ("train", "validation", "test") for row in rows_of(made, split)]
        for row in tables[format]:
            row["boxes"] = np.round(json.loads(row["boxes"] or "[]"), 3).tolist()  # corners were computed differently
            row["image"] = Path(row["image"]).name
    assert tables["table"] == tables["coco"] == tables["yolo"] == tables["voc"]


def test_numbers_places_and_presence_are_those_of_the_boxes(boxed, tmp_path) -> None:
    made = make("boxes", boxed / "yolo", "--output", tmp_path / "set", "--cache", tmp_path)
    data = load_vqa(str(made), cache_directory=tmp_path, check_boxes=True)
    seen = Counter()
    for rows in data.splits.values():
        answers = Counter((row["type"], row["answer"]) for row in rows if row["type"] == "yes/no")
        assert answers["yes/no", "có"] == answers["yes/no", "không"]
        for row in rows:
            thing = "spoon" if "spoon" in row["question"] else "cup"
            own = [box for label, box in boxes_of(int(Path(row["image"]).stem)) if label == thing]
            if row["type"] == "yes/no":
                assert row["answer"] == ("có" if own else "không")
            if row["type"] == "number":
                assert row["answer"] == ["một", "hai", "ba"][len(own) - 1]
            if row["type"] == "place":
                assert len(own) == 1 and row["answer"] == place_of(own[0])
            if row["answer"] != "không":
                np.testing.assert_allclose(json.loads(row["boxes"]), own, atol=1e-4)
            seen[row["type"]] += 1
    assert min(seen[kind] for kind in ("yes/no", "number", "place")) > 0


@pytest.mark.parametrize(
    ("format", "old", "new", "wrong"),
    [
        ("table", "cup,8,32,24,48", "cup,8,32,8,48", "row 2: the box of 'cup' has no area"),
        ("table", "cup,8,32,24,48", "cup,8,x,24,48", "row 2: y0 is 'x', not a number"),
        ("table", "images/00.png,cup", "../secret.png,cup", "leads out of the data folder"),
        ("coco", '"width": 80', '"width": 90', "boxes of a photo of 90 x 80 pixels"),
        ("coco", '"category_id": 9', '"category_id": 8', "its image_id or category_id is none of the file's"),
        ("coco", '"annotations"', '"notes"', "is not COCO's"),
        ("yolo", "0 0.2", "5 0.2", "line 1: class '5' is none of 0 to 1"),
        ("yolo", "0 0.2", "0 1.9", "YOLO's numbers are parts of the photo"),
        ("yolo", "0 0.2", "0.2", "must be 'class x y width height'"),
        ("voc", "<filename>", "<filenam>", "is no XML"),
        ("voc", "<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "declares entities"),
        ("voc", "<xmin>8.0</xmin>", "", "xmin is 'None', not a number"),
    ],
)
def test_wrong_boxes_are_told_with_file_and_line(boxed, tmp_path, format, old, new, wrong) -> None:
    source = sources(boxed)[format]
    copy = tmp_path / format
    shutil.copytree(boxed / format, copy)
    file = {"yolo": copy / "labels" / "00.txt", "voc": copy / "annotations" / "00.xml"}.get(format, copy / source.name)
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    named = copy if source.is_dir() else copy / source.name
    with pytest.raises(UserError, match="(?s)" + wrong.replace("(", r"\(")):
        make("boxes", named, "--output", tmp_path / "set", "--cache", tmp_path)
    assert not (tmp_path / "set").exists()


# --- our own sets -----------------------------------------------------------------------------------------------------


def test_dishes_are_rebuilt_from_their_source_s_folders(tmp_path) -> None:
    from vqa.set_names import FOOD

    number = 0
    for part in ("Test", "Train"):
        for dishes in FOOD.values():
            for folder in dishes:
                (tmp_path / "src" / "data" / part / folder).mkdir(parents=True)
                for _ in range(2):
                    number += 1
                    picture(number, size=24).save(tmp_path / "src" / "data" / part / folder / f"{number}.jpg")
    made = make("vifood", tmp_path / "src", "--output", tmp_path / "set", "--cache", tmp_path / "cache")
    everything = [row for split in ("train", "validation", "test", "heldout") for row in rows_of(made, split)]
    photos = {row["image"] for row in everything}
    assert len(photos) == 120 and photos == {f"images/{number:04d}.jpg" for number in range(120)}
    kinds = Counter((row["image"], row["type"], row["answer"] if row["type"] == "yes/no" else "") for row in everything)
    assert set(kinds.values()) == {1, 2} and len(everything) == 8 * 120
    first = [row["answer"] for row in everything if row["image"] == "images/0000.jpg" and row["type"] == "dish"]
    assert first == ["bánh bèo", "bánh bèo"]  # sorted by path: data/Test/Banh beo comes first
    load_vqa(str(made), cache_directory=tmp_path / "cache")
    shutil.rmtree(tmp_path / "src" / "data" / "Test" / "Pho")
    shutil.rmtree(tmp_path / "src" / "data" / "Train" / "Pho")
    with pytest.raises(UserError, match="no photos in data/Test/DISH .*: phở"):
        make("vifood", tmp_path / "src", "--output", tmp_path / "other", "--cache", tmp_path / "cache")


def test_the_rules_give_the_answers_that_our_sets_have(real_data) -> None:
    """Colours of a sample, as often as docs/data.md tells; all numbers and places."""
    from vqa.prepare_sets import FOOD_COLORS, THING_COLORS

    for name, rule, least in (("vifood_vqa", FOOD_COLORS, 0.90), ("viphoto_vqa", THING_COLORS, 0.88)):
        rows = [row for row in rows_of(real_data / name, "validation") if row["type"] == "color"][::2]
        right = [dominant_color(Image.open(real_data / name / row["image"]), rule) == row["answer"] for row in rows]
        assert np.mean(right) > least, name
    for row in rows_of(real_data / "viparts_vqa", "train"):
        boxes = json.loads(row["boxes"] or "[]")
        if row["type"] == "number":
            assert row["answer"] == count_word(len(boxes), 5)
        if row["type"] == "place":
            assert row["answer"] == place_of(tuple(boxes[0]))


def test_things_are_rebuilt_from_one_photo_of_each_class(tmp_path) -> None:
    source = tmp_path / "src"
    (source / "imagen").mkdir(parents=True)
    for number in range(1000):  # plain: what is in them is not looked at but for the colour
        shade = (number % 256, 40 * (number // 256), 255 - number % 256)
        Image.new("RGB", (8, 8), shade).save(source / f"n{10_000_000 + 7 * number}_name.JPEG")
    Image.new("RGB", (8, 8), (250, 120, 10)).save(source / "imagen" / "n02084071_1365_dog.jpg")
    Image.new("RGB", (8, 8), (9, 250, 10)).save(source / "imagen" / "n00007846_1_person.jpg")  # of no label
    made = make("viphoto", source, "--output", tmp_path / "set", "--cache", tmp_path, "--near-duplicates", "none")
    everything = [row for split in ("train", "validation", "test", "heldout") for row in rows_of(made, split)]
    labels = Counter(row["answer"] for row in everything if row["type"] == "object")
    assert len(labels) == 23 and labels["chó"] == 118 + 1 and labels["chim"] == 59 and labels["mèo"] == 5
    kinds = {row["answer"] for row in everything if row["type"] == "category"}
    assert kinds == {"động vật", "đồ vật", "thực phẩm"} and len(everything) == 5 * labels.total()
    (source / "n10000000_name.JPEG").unlink()
    with pytest.raises(UserError, match="has photos of 999 of ImageNet's 1,000 classes"):
        make("viphoto", source, "--output", tmp_path / "other", "--cache", tmp_path)


def test_meals_are_rebuilt_from_boxes(tmp_path) -> None:
    from vqa.set_names import COUNTED, MEALS, PARTS

    classes = sorted(PARTS | COUNTED | MEALS)
    source = tmp_path / "src" / "dataset.v2i.yolov8"
    source.mkdir(parents=True)
    (source / "data.yaml").write_text("names: " + json.dumps(classes), encoding="utf-8")
    for number in range(24):
        part = source / ("test" if number < 4 else "train")
        for kind in ("images", "labels"):
            (part / kind).mkdir(parents=True, exist_ok=True)
        picture(2000 + number, size=32).save(part / "images" / f"{number:02d}.jpg")
        told = [("com ga", 0.5, 0.5, 0.9), ("com", 0.2, 0.5, 0.2), *[("tom", 0.3, 0.8, 0.1)] * (1 + number % 7)]
        lines = [f"{classes.index(name)} {x} {y} {size} {size}" for name, x, y, size in told]
        (part / "labels" / f"{number:02d}.txt").write_text("\n".join(lines), encoding="utf-8")
    made = make("viparts", tmp_path / "src", "--output", tmp_path / "set", "--cache", tmp_path)
    everything = [row for split in ("train", "validation", "test", "heldout") for row in rows_of(made, split)]
    assert {row["answer"] for row in everything if row["type"] == "dish"} == {"cơm gà"}
    assert {row["group"] for row in everything} == {f"p{number:04d}" for number in range(24)}
    for row in everything:
        count = 1 + int(row["group"][1:]) % 7
        if row["type"] == "number":
            assert "tôm" in row["question"] and row["answer"] == count_word(count, 5)
        if row["type"] == "place":  # what is there several times is nowhere
            assert row["answer"] == ("phía dưới" if "tôm" in row["question"] else "bên trái")
            assert "cơm" in row["question"] or count == 1
        if row["type"] == "yes/no":
            named = {"cơm", "tôm"} & {row["question"].rpartition(" có ")[2].removesuffix(" không")}
            assert row["answer"] == ("có" if named else "không") and bool(row["boxes"]) == bool(named)
    load_vqa(str(made), cache_directory=tmp_path, check_boxes=True)
