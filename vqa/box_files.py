"""Boxes from the files that labelling tools write: a table, COCO's JSON, YOLO's folders, Pascal VOC's XML.

Belongs here: from each format to photos with named boxes in 0-1 of the photo. Does not belong here: what is asked about
them (`vqa/questions.py`), nor what the names are in Vietnamese (`vqa/prepare.py`).

Whatever is wrong with a file is one `UserError` with its name and line. Boxes that reach over the photo's edge are cut
there; a box without area is refused.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree

from common.columns import map_columns
from common.config import read_yaml
from common.errors import UserError, reason
from common.files import read_object, read_text
from common.images import read_image
from common.photos import SUFFIXES, PhotoFolder, broken_text, plain_text, walk_files
from common.records import SPLITS, open_file, to_path
from common.records import SUFFIXES as TABLES

Box = tuple[float, float, float, float]
ALIASES = {alias: split for split, aliases in SPLITS.items() for alias in aliases}
CORNERS = ("x0", "y0", "x1", "y1")
FORMATS = ("table", "coco", "yolo", "voc")


@dataclass(kw_only=True)
class Boxed:
    """A photo as a file of boxes tells of it; the photo itself is not looked at yet."""

    path: str
    """absolute"""
    where: str
    """file and line, for messages"""
    size: tuple[float, float] | None
    """width and height that its boxes are in, pixels; None: the photo's own; (1, 1): they are parts of it"""
    things: list[tuple[str, Box, bool]] = field(default_factory=list)
    """label, box, and whether the box holds a crowd"""
    group: str = ""
    split: str = ""


def read_boxed(source: str, *, format: str, images: str | None, columns: Mapping[str, str]) -> tuple[list[Boxed], Path]:
    """→ the photos of a source, by path, and the folder that they are in."""
    path = to_path(source)
    if not path.exists():
        raise UserError(f"{source}: no such file or folder")
    format = _guess(path) if format == "auto" else format
    if columns and format != "table":
        raise UserError(f"--columns names the columns of a table, and {source} is read as {format}")
    root = to_path(images) if images is not None else (path if path.is_dir() else path.parent)
    if not root.is_dir():
        raise UserError(f"--images {images}: no such folder")
    if images is not None and format == "yolo":
        raise UserError("--images names the photos of a table, of COCO's file or of VOC's; YOLO's lie beside")
    read = {"table": _read_table, "coco": _read_coco, "yolo": _read_yolo, "voc": _read_voc}[format]
    found = read(path, PhotoFolder(root), columns)
    if not any(photo.things for photo in found):
        raise UserError(f"{source}: no photo has a box (read as {format}; --format says how else)")
    return sorted(found, key=lambda photo: photo.path), root


def fractions(photo: Boxed) -> list[tuple[str, Box, bool]]:
    """Its things with boxes in 0-1 of the photo. Opens the photo where the file does not tell its size, and where it
    does, too: boxes of another size than the photo's are of another photo. Raises `UserError`."""
    width, height = photo.size or (0, 0)
    if (width, height) != (1, 1):
        try:
            own = read_image(photo.path).size
        except UserError as error:
            raise UserError(f"{photo.where}: {error}") from None
        if photo.size is not None and own != (width, height):
            raise UserError(
                f"{photo.where}: boxes of a photo of {width:g} x {height:g} pixels, and {photo.path} has "
                f"{own[0]} x {own[1]}; export them again, from these photos"
            )
        width, height = own
    found = []
    for label, (x0, y0, x1, y1), crowd in photo.things:
        box = _box(min(max(value, 0.0), 1.0) for value in (x0 / width, y0 / height, x1 / width, y1 / height))
        if not (box[0] < box[2] and box[1] < box[3]):
            raise UserError(
                f"{photo.where}: the box of '{label}' has no area in the photo ({x0:g}, {y0:g}, {x1:g}, {y1:g}); "
                "correct or remove it"
            )
        found.append((label, box, crowd))
    return found


def _box(values: Iterable[float]) -> Box:
    x0, y0, x1, y1 = values
    return x0, y0, x1, y1


def _guess(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() == ".json":
            return "coco"
        if path.suffix.lower() in TABLES:
            return "table"
        raise UserError(f"{path}: boxes are read from {' '.join(TABLES)} (a .json is COCO's), or from a folder")
    files = [PurePath(file) for file in walk_files(path)]
    if any(file.suffix.lower() == ".xml" for file in files):
        return "voc"
    if any("labels" in file.parts and file.suffix.lower() == ".txt" for file in files):
        return "yolo"
    raise UserError(
        f"{path}: neither YOLO's folders (images, labels) nor VOC's XML files are in it; a table or COCO's file is "
        "named itself"
    )


def _numbers(values: Sequence[Any], where: str, names: Sequence[str]) -> list[float]:
    found = []
    for value, name in zip(values, names, strict=True):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number):
            raise UserError(f"{where}: {name} is {str(value)[:40]!r}, not a number")
        found.append(number)
    return found


def _text(value: Any, where: str) -> str:
    """A name as a file gives it. Raises `UserError` for what is no text, or none that can be written down."""
    try:
        text = plain_text(value).strip()
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if broken_text(text):
        raise UserError(f"{where}: holds a broken Unicode character")
    return text


def _split_of(path: str, root: str) -> str:
    """The split that the folders between `root` and a photo name, if any."""
    parts = PurePath(os.path.relpath(path, root)).parts[:-1]
    return next((ALIASES[part.lower()] for part in parts if part.lower() in ALIASES), "")


def _find(folder: PhotoFolder, reference: str, where: str) -> str:
    try:
        return folder.find(reference)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


# --- a table ----------------------------------------------------------------------------------------------------------


def _read_table(path: Path, folder: PhotoFolder, given: Mapping[str, str]) -> list[Boxed]:
    """One row a box: image, label, x0, y0, x1, y1 [, group, split]; in pixels, or in 0-1 if no number of the file is
    above 1. A row with nothing but an image is a photo without anything."""
    source = open_file(path)
    ours = ("image", "label", *CORNERS, "group", "split")
    names = map_columns(source.names, given, ours, source.where, needed=ours[:6])
    photos: dict[str, Boxed] = {}
    largest = 0.0
    for numbers, batch in source.batches(list(dict.fromkeys(names.values()))):
        for place, number in enumerate(numbers):
            where = f"{source.where}, row {number}"
            row = {name: _text(batch[theirs][place], where) for name, theirs in names.items()}
            if not row["image"]:
                raise UserError(f"{where}: image is blank; fill it in or remove the row")
            photo = photos.setdefault(
                row["image"], Boxed(path=_find(folder, row["image"], where), where=where, size=None)
            )
            photo.group = photo.group or row.get("group", "")
            split = row.get("split", "").lower()
            if split and split not in ALIASES:
                raise UserError(f"{where}: split {split[:50]!r} is none of {', '.join(SPLITS)}")
            photo.split = photo.split or ALIASES.get(split, "")
            if not any(row[name] for name in ours[1:6]):
                continue
            if not row["label"]:
                raise UserError(f"{where}: label is blank; fill it in or remove the row")
            box = _numbers([row[name] for name in CORNERS], where, CORNERS)
            largest = max(largest, *box)
            photo.things.append((row["label"], _box(box), False))
    if largest <= 1:
        for photo in photos.values():
            photo.size = (1, 1)
    return list(photos.values())


# --- COCO -------------------------------------------------------------------------------------------------------------


def _read_coco(path: Path, folder: PhotoFolder, given: Mapping[str, str]) -> list[Boxed]:
    if path.is_dir():
        raise UserError(f"{path}: COCO's boxes are a .json file; name that, and the folder of the photos with --images")
    told = read_object(path)
    wrong = UserError(f"{path}: is not COCO's: it needs the lists images, annotations and categories, of objects")
    parts: list[Any] = [told.get(name) for name in ("images", "annotations", "categories")]
    if not all(isinstance(part, list) and all(isinstance(row, dict) for row in part) for part in parts):
        raise wrong
    images, annotations, categories = parts
    labels = {
        row["id"]: _text(row.get("name"), f"{path}, categories, number {number}, name")
        for number, row in enumerate(categories, start=1)
        if _is_key(row.get("id"))
    }
    photos: dict[Any, Boxed] = {}
    for number, row in enumerate(images, start=1):
        where = f"{path}, images, number {number}"
        name = row.get("file_name")
        if not isinstance(name, str) or not name or not _is_key(row.get("id")):
            raise UserError(f"{where}: has no id or no file_name")
        width, height = _numbers([row.get("width"), row.get("height")], where, ("width", "height"))
        if min(width, height) < 1:
            raise UserError(f"{where}: a photo of {width:g} x {height:g} pixels")
        photos[row["id"]] = Boxed(path=_find(folder, name, where), where=where, size=(width, height))
    for number, row in enumerate(annotations, start=1):
        where = f"{path}, annotations, number {number}"
        photo = photos.get(row.get("image_id")) if _is_key(row.get("image_id")) else None
        label = labels.get(row.get("category_id")) if _is_key(row.get("category_id")) else None
        if photo is None or not label:
            raise UserError(f"{where}: its image_id or category_id is none of the file's")
        box = row.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise UserError(f"{where}: bbox must be [x, y, width, height]")
        x, y, width, height = _numbers(box, where, ("x", "y", "width", "height"))
        photo.things.append((label, (x, y, x + width, y + height), bool(row.get("iscrowd"))))
    return list(photos.values())


def _is_key(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


# --- YOLO -------------------------------------------------------------------------------------------------------------


def _read_yolo(path: Path, folder: PhotoFolder, given: Mapping[str, str]) -> list[Boxed]:
    """Photos in folders `images`, beside each a folder `labels` with a text file per photo: `class x y width height`
    or `class` and a polygon's `x y x y …`, of which the box is taken; all in 0-1. Without a file a photo is empty."""
    if not path.is_dir():
        raise UserError(f"{path}: YOLO's boxes are a folder with images and labels in it; name that")
    labels = yolo_labels(path)
    photos = []
    for file in walk_files(path):
        parts = list(PurePath(os.path.relpath(file, path)).parts)
        if not file.lower().endswith(SUFFIXES) or "images" not in parts[:-1]:
            continue
        place = max(place for place, part in enumerate(parts[:-1]) if part == "images")
        text = path.joinpath(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt")
        photo = Boxed(
            path=_find(folder, os.path.relpath(file, path), str(path)),
            where=str(text),
            size=(1, 1),
            split=_split_of(file, str(path)),
        )
        if text.is_file():
            photo.things = [(label, box, False) for label, box in yolo_boxes(text, labels)]
        photos.append(photo)
    return photos


def yolo_labels(folder: Path) -> list[str]:
    """The names of YOLO's classes by number, from `data.yaml` (`names`, a list or a mapping) or `classes.txt`."""
    for file in ("data.yaml", "data.yml", "dataset.yaml"):
        if (folder / file).is_file():
            names = read_yaml(folder / file).get("names")
            if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
                names = [names[number] for number in range(len(names))]
            if not isinstance(names, list) or not names:
                raise UserError(f"{folder / file}: needs 'names', the list of the classes")
            return [_text(name, f"{folder / file}, names, number {number}") for number, name in enumerate(names)]
    for name in ("classes.txt", "obj.names"):
        if (folder / name).is_file():
            return [line.strip() for line in read_text(folder / name).splitlines() if line.strip()]
    raise UserError(f"{folder}: neither data.yaml nor classes.txt says what the numbers of YOLO's classes mean")


def yolo_boxes(file: Path, labels: Sequence[str]) -> list[tuple[str, Box]]:
    """The lines of one file of labels, in their order."""
    found = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not (parts := line.split()):
            continue
        where = f"{file}, line {number}"
        if len(parts) < 5 or len(parts) % 2 == 0:
            raise UserError(f"{where}: must be 'class x y width height' or 'class x y x y …', not {line[:60]!r}")
        digits = parts[0].lstrip("0") or "0"
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 10 and int(digits) < len(labels)):
            raise UserError(f"{where}: class {parts[0][:20]!r} is none of 0 to {len(labels) - 1}")
        values = _numbers(parts[1:], where, [f"number {place}" for place in range(1, len(parts))])
        if not all(-0.01 <= value <= 1.01 for value in values):
            raise UserError(f"{where}: YOLO's numbers are parts of the photo, 0 to 1")
        if len(values) == 4:
            x, y, width, height = values
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        else:
            box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        found.append((labels[int(digits)], box))
    return found


# --- Pascal VOC -------------------------------------------------------------------------------------------------------


def _read_voc(path: Path, folder: PhotoFolder, given: Mapping[str, str]) -> list[Boxed]:
    """An XML file per photo: filename, size, and objects with name and bndbox, in pixels. The photo lies beside the
    file, in JPEGImages or images beside its folder, or where --images says."""
    if not path.is_dir():
        raise UserError(f"{path}: VOC's boxes are a folder of XML files; name that")
    photos = []
    for file in walk_files(path):
        if not file.lower().endswith(".xml"):
            continue
        root = _parse_xml(Path(file))
        if root.tag != "annotation":
            continue
        name = (root.findtext("filename") or "").strip()
        if not name:
            raise UserError(f"{file}: says no filename")
        here = os.path.dirname(file)
        tried = [folder.root, here, *(os.path.join(os.path.dirname(here), part) for part in ("JPEGImages", "images"))]
        there = next((place for place in tried if os.path.isfile(os.path.join(place, name))), here)
        reference = os.path.relpath(os.path.join(os.path.realpath(there), name), folder.root)
        photo = Boxed(path=_find(folder, reference, file), where=file, size=None, split=_split_of(file, str(path)))
        sizes = [root.findtext(f"size/{side}") for side in ("width", "height")]
        if all(sizes) and sizes != ["0", "0"]:
            width, height = _numbers(sizes, file, ("width", "height"))
            if min(width, height) < 1:
                raise UserError(f"{file}: a size of {width:g} x {height:g} pixels is none; correct or remove it")
            photo.size = (width, height)
        for number, thing in enumerate(root.iter("object"), start=1):
            where = f"{file}, object {number}"
            label = (thing.findtext("name") or "").strip()
            if not label:
                raise UserError(f"{where}: has no name")
            corners = ("xmin", "ymin", "xmax", "ymax")
            box = _numbers([thing.findtext(f"bndbox/{corner}") for corner in corners], where, corners)
            photo.things.append((label, _box(box), False))
        photos.append(photo)
    return photos


def _parse_xml(file: Path) -> ElementTree.Element:
    text = read_text(file, most=10_000_000)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # a few bytes of entities can stand for gigabytes
        raise UserError(f"{file}: declares entities, which no tool that writes boxes does; it is not read")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{file}: is no XML ({reason(error)})") from None
