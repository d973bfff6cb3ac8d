"""Files of boxes that somebody made to do harm: each is refused in one line that names it and the place in it."""

import json
from pathlib import Path

import pytest
from PIL import Image
from test_hostile import refused, write

from vqa.box_files import fractions, read_boxed
from vqa.boxes import read_boxes
from vqa.data import load_rows

BIG = "1" + "0" * 400
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 1, "name": "x"}],
    }
)
VOC = (
    "<annotation><filename>a.png</filename><size><width>20</width><height>20</height></size><object><name>x</name>"
    "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"
)


def boxes_of(path: Path, format: str) -> list:
    photos, _ = read_boxed(str(path), format=format, images=None, columns={})
    return [fractions(photo) for photo in photos]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.png", "images/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"width": 20', f'"width": {BIG}', "whole number of 401 digits"),
        ("[1, 1", f"[{BIG}, 1", "whole number of 401 digits"),
        ('"width": 20', f'"width": "{BIG}"', "images, number 1: width is"),
        ("a.png", "a" * 5_000, "images, number 1: .*cannot be read"),
        ('"x"', '["x"]', "categories, number 1, name: holds a list"),
        ('"x"', r'"\ud800"', "categories, number 1, name: holds a broken Unicode"),
        ('"images": [', '"more": [' + "[]," * 10_000_000 + '[]], "images": [', "lists and objects"),
    ],
)
def test_coco(folder, old, new, match):
    path = write(folder / "boxes.json", COCO)
    assert boxes_of(path, "coco")
    write(path, COCO.replace(old, new, 1))
    refused(match, path, boxes_of, path, "coco")


@pytest.mark.parametrize(
    ("names", "text", "match"),
    [
        ("[a, b]", "00000000099 .5 .5 .1 .1", r"a.txt, line 1: class '00000000099' is none of 0 to 1"),
        ("[a, b]", "9" * 5_000 + " .5 .5 .1 .1", "a.txt, line 1: class"),
        ("[a, b]", "² .5 .5 .1 .1", "a.txt, line 1: class"),
        ("[a, [b]]", "1 .5 .5 .1 .1", "data.yaml, names, number 1: holds a list"),
        ('[a, "\\ud800"]', "1 .5 .5 .1 .1", "data.yaml, line 1: .*half of one"),
        (f"[0x{'f' * 9_000}, b]", "1 .5 .5 .1 .1", "data.yaml, line 1: .*more than 20 digits"),
    ],
)
def test_yolo(folder, names, text, match):
    write(folder / "data.yaml", f"names: {names}\n")
    write(folder / "labels" / "a.txt", text)
    refused(match, folder, boxes_of, folder, "yolo")


def test_a_class_of_many_zeros_is_class_zero(folder):
    write(folder / "data.yaml", "names: [a, b]\n")
    write(folder / "labels" / "a.txt", "0" * 5_000 + " .5 .5 .1 .1")
    assert boxes_of(folder, "yolo")[0][0][0] == "a"


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("<width>20", "<width>0", "a.xml: a size of 0 x 20 pixels is none"),
        ("<width>20", f"<width>{BIG}", "a.xml: width is"),
        ("a.png", "a" * 5_000, "a.xml: .*cannot be read"),
    ],
)
def test_voc(folder, old, new, match):
    path = write(folder / "a.xml", VOC)
    assert boxes_of(folder, "voc")
    write(path, VOC.replace(old, new, 1))
    refused(match, path, boxes_of, folder, "voc")


def test_a_label_of_a_table_is_text(folder):
    row = {"image": "a.png", "label": "\ud800", "x0": 1, "y0": 1, "x1": 5, "y1": 5}
    path = write(folder / "boxes.jsonl", json.dumps(row))
    refused("row 1: holds a broken Unicode", path, boxes_of, path, "table")


@pytest.mark.parametrize(
    ("boxes", "match"),
    [
        (f"[[{BIG}, 0, 1, 1]]", r"row 1: column 'boxes' must be JSON"),
        (json.dumps([[0, 0, 0.5, 0.5]] * 1_001), "row 1: column 'boxes' holds 1,001 boxes"),
        (json.dumps([[[0] * 60_000]]), "row 1: column 'boxes' holds 180,004 characters"),
    ],
)
def test_the_boxes_of_a_question(folder, boxes, match):
    for content in (boxes, json.dumps(boxes)):
        row = f'{{"image": "a.png", "question": "q", "answer": "a", "boxes": {content}}}\n'
        path = write(folder / "rows.jsonl", row)
        refused(match, path, load_rows, str(path), cache_directory=folder / "cache", check_boxes=True)
    assert len(read_boxes(json.dumps([[0, 0, 0.5, 0.5]] * 1_000))) == 1_000
