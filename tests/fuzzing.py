"""Hostile files, made by damaging good ones: photos, clips, tables, configurations, weights, checkpoints, caches, runs.

    python tests/fuzzing.py FOLDER --count 500        # one JSON line per input, on standard output

Belongs here: good files of every kind that is read, ways to damage them, and reading them under limits. What must hold
is `tests/test_fuzz.py`'s. Input number n of a seed is the same on every machine, whatever was read before.

Each input may take 10 seconds of CPU time, and all of them together the memory that loading our libraries takes and
4 GB: a reader that needs more is ended by the system. So the process may die, and is started again at the next input.
"""

import argparse
import io
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SECONDS, WALL_SECONDS = 10, 100  # of CPU; of waiting, on a machine that others use too
MEMORY = 4 * 2**30

Damage = Callable[[bytes, random.Random], bytes]


# --- ways to damage ---------------------------------------------------------------------------------------------------


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 4, 32))):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def flip_head(content: bytes, rng: random.Random) -> bytes:
    """Headers hold what sizes are believed."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        damaged[rng.randrange(min(len(damaged), 64))] = rng.choice((0, 1, 127, 128, 255))
    return bytes(damaged)


def giant(content: bytes, rng: random.Random) -> bytes:
    """A number that is as large as its bytes allow."""
    place, width = rng.randrange(max(1, len(content) - 8)), rng.choice((2, 4, 8))
    value = rng.choice((b"\xff" * width, b"\x7f" + b"\xff" * (width - 1), b"\xff" * (width - 1) + b"\x7f"))
    return content[:place] + value + content[place + width :]


def drop(content: bytes, rng: random.Random) -> bytes:
    first, last = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:first] + content[last:]


def repeat(content: bytes, rng: random.Random) -> bytes:
    first, last = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:last] + content[first:last] * rng.choice((1, 3, 50)) + content[last:]


def blank(content: bytes, rng: random.Random) -> bytes:
    first, last = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:first] + bytes(last - first) + content[last:]


def other_kind(content: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (b"", b"\0" * 100, b"<!doctype html><html></html>", b"%PDF-1.4\n", b"PK\x03\x04" + bytes(40), b"\x80\x04N.")
    )


TOKENS = [
    token.encode("utf-8", "surrogatepass") for token in "\0 \ufeff \x1b[2J \ud800 \u2028 =1+1 @x \U0010ffff".split(" ")
]
TOKENS += [b"\xff\xfe", b'"', b"'", b",", b"\t", b"\r", b"\n\n\n", b"\\", b"{", b"[" * 3000, b"{'a':" * 2000, b"%s%n"]
TOKENS += [b"../../../../etc/hostname", b"/dev/zero", b"/dev/stdin", b"file:///etc/hostname", b"https://example.org/a"]
TOKENS += [b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"-1", b"0x_", b"2001-13-01", b"true", b"null", b"!!bool x"]
TOKENS += [b"x" * 200_000, b"." * 60_000 + b"x", b"_" * 60_000 + b"x", b" " * 60_000 + b"x", b"a," * 5_000]
TOKENS += [b"!!python/object/apply:os.system [exit]", b"*a", b"&a [*a, *a]", b"<<: *a", b"? [a]\n: b\n", b"%TAG ! x"]


def insert(content: bytes, rng: random.Random) -> bytes:
    """Something that means more than it says, at a place where a word ends."""
    ends = [found.end() for found in re.finditer(rb"\W", content)] or [0]
    place = rng.choice(ends)
    return content[:place] + rng.choice(TOKENS) + content[place:]


def replace(content: bytes, rng: random.Random) -> bytes:
    words = list(re.finditer(rb"[\w./-]+", content))
    if not words:
        return content
    word = rng.choice(words)
    return content[: word.start()] + rng.choice(TOKENS) + content[word.end() :]


VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    3.5,
    10**9,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../x",
    "a\0b",
    "\ud800",
]
VALUES += [[], {}, [[]], ["x"], {"a": 1}, "=1+1", "x" * 200_000, list(range(50)), "/dev/zero", [None], [[1, 2], [3]]]


def in_json(content: bytes, rng: random.Random) -> bytes:
    """Well-formed JSON (or lines of it) in which one value is another's."""
    text = content.decode("utf-8")
    try:
        parts, separator = [json.loads(text)], ""
    except ValueError:
        parts, separator = [json.loads(line) for line in text.splitlines() if line], "\n"
    places: list[tuple[Any, Any]] = []

    def look(holder: Any) -> None:
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            places.append((holder, key))
            if isinstance(holder[key], dict | list):
                look(holder[key])

    look(parts)
    holder, key = rng.choice(places)
    what = rng.randrange(4)
    if what == 0 and isinstance(holder, dict):
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[rng.choice(("unknown", "", "quantization_config", "auto_map", "dtype", "layers"))] = rng.choice(VALUES)
    else:
        holder[key] = rng.choice(VALUES)
    return separator.join(json.dumps(part) for part in parts).encode("utf-8", "surrogatepass")


def in_header(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header says something else of its tensors."""
    (size,) = struct.unpack("<Q", content[:8])
    header = in_json(content[8 : 8 + size], rng)
    length = rng.choice((len(header), len(header), len(header) + 1, 2**62, 0))
    return struct.pack("<Q", length) + header + content[8 + size :]


def in_parquet(content: bytes, rng: random.Random) -> bytes:
    """A well-formed Parquet file in which one column is of another type."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(content))
    count = len(table)
    column = rng.choice(
        (
            pyarrow.array([None] * count),
            pyarrow.array([["a", None]] * count),
            pyarrow.array([{"bytes": b"\xff", "path": None}] * count),
            pyarrow.array([{"answer": ["a"]}] * count),
            pyarrow.array([b"\x00\xff"] * count),
            pyarrow.array([2**62] * count, pyarrow.timestamp("s")),
            pyarrow.array([-(2**62)] * count, pyarrow.duration("s")),
            pyarrow.array([float("inf"), float("nan"), 1e300][:count]),
            pyarrow.array(["x" * 150_000] * count).dictionary_encode(),
            pyarrow.array([True] * count),
            pyarrow.array([10**6] * count, pyarrow.date32()),
        )
    )
    out = io.BytesIO()
    place = rng.randrange(table.num_columns)
    pyarrow.parquet.write_table(table.set_column(place, table.column_names[place], column), out)
    return out.getvalue()


def in_pth(content: bytes, rng: random.Random) -> bytes:
    """A file of torch's in which one weight is something else."""
    import torch

    state = torch.load(io.BytesIO(content), weights_only=True)
    inside = state.get("state_dict", state)
    key = rng.choice(list(inside))
    shape = tuple(inside[key].shape)
    inside[key] = rng.choice(
        (
            None,
            3,
            "text",
            [1, 2],
            torch.zeros(()),
            torch.zeros(1).expand(10**6, 10**6),
            torch.zeros(shape).to_sparse() if shape else torch.zeros(2).to_sparse(),
            torch.zeros(shape, dtype=torch.complex64),
            torch.zeros(shape, dtype=torch.bool),
            torch.full(shape, float("nan")),
            torch.zeros(shape, device="meta"),
        )
    )
    if rng.random() < 0.2:
        inside[7] = inside.pop(key)
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


BYTES: list[Damage] = [cut, flip, flip_head, giant, drop, repeat, blank, other_kind]
TEXT: list[Damage] = [insert, insert, insert, replace, replace, replace, cut, flip, drop, repeat, other_kind]
WAYS: dict[str, list[Damage]] = {
    "json": [*[in_json] * 8, *TEXT],
    "jsonl": [*[in_json] * 8, *TEXT],
    "safetensors": [*[in_header] * 5, *BYTES],
    "parquet": [*[in_parquet] * 5, *BYTES],
    "pth": [*[in_pth] * 5, *BYTES],
    "pt": [*[in_pth] * 5, *BYTES],
    **dict.fromkeys(("csv", "tsv", "yaml", "txt"), TEXT),
}


# --- good files and their readers -------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Kind:
    """Files that are read together, and how."""

    files: dict[str, bytes]
    read: Callable[[Path], Any]
    """all of it, from the folder that holds the files"""
    damaged: tuple[str, ...] = ()
    """of the files, those that are damaged; default all"""


def good_kinds(folder: Path) -> dict[str, Kind]:
    """Every kind of input, with good files of it, which are made in `folder`."""
    kinds = {}
    for make in (_photos, _clips, _tables, _boxes, _streams, _texts, _weights, _checkpoints, _caches, _runs):
        place = folder / make.__name__.strip("_")
        place.mkdir(parents=True)
        kinds |= make(place)
    return kinds


def _photos(folder: Path) -> dict[str, Kind]:
    from common.images import Preprocessing, read_image, to_tensor

    kinds = {}
    for name in ("jpg", "png", "webp", "gif", "bmp", "tif", "ppm", "jp2", "avif"):
        path = f"photo.{name}"
        try:
            _photo().save(folder / path)
        except (KeyError, OSError):  # Pillow without this codec
            continue

        def read(place: Path, path: str = path) -> None:
            to_tensor(read_image(place / path), Preprocessing(size=16))

        kinds[name] = Kind(files={path: (folder / path).read_bytes()}, read=read)
    return kinds


def _photo() -> Any:
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8))


def _clips(folder: Path) -> dict[str, Kind]:
    import numpy as np
    from video_helpers import write_clip, write_frames

    from video.decode import count_frames, frame_rate, iterate_frames, read_clip
    from video.sampling import Sampling

    rng = np.random.default_rng(0)
    write_clip(folder / "clip.mp4", seed=0)
    write_clip(folder / "clip.avi", seed=0)
    for name, codec, pixels in (("mkv", "ffv1", "bgra"), ("gif", "gif", "rgb8"), ("ts", "mpeg2video", "yuv420p")):
        frames = [rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(4 if name != "ts" else 12)]
        write_frames(folder / f"clip.{name}", frames, codec=codec, pixels=pixels)

    kinds = {}
    for path in sorted(folder.iterdir()):

        def read(place: Path, name: str = path.name) -> None:
            count_frames(place / name)
            read_clip(place / name, Sampling(frames=3), size=8)
            frame_rate(place / name)
            for _ in itertools.islice(iterate_frames(place / name), 3):
                pass

        kinds[f"clip.{path.suffix[1:]}"] = Kind(files={path.name: path.read_bytes()}, read=read)
    return kinds


_QUESTIONS = [
    {"image": "a.png", "question": "món này là món gì", "answer": "phở bò", "type": "dish", "group": "g1", "id": "1"},
    {"image": "a.png", "question": 'đây là "gì", bạn?', "answer": "bún, chả", "type": "dish", "group": "g1", "id": "2"},
    {"image": "b.png", "question": "có mấy bát", "answer": "2", "type": "number", "group": "g2", "id": "3"},
]


def _tables(folder: Path) -> dict[str, Kind]:
    import csv

    import pyarrow
    import pyarrow.parquet

    from common.classifier_rows import read_photos
    from common.records import open_file
    from video.data import read_rows
    from vqa.data import load_rows, read_questions

    photo = io.BytesIO()
    _photo().save(photo, "PNG")
    photos = {"a.png": photo.getvalue(), "b.png": photo.getvalue() + b"\0"}

    def table(suffix: str, rows: list[dict[str, Any]]) -> bytes:
        if suffix == "parquet":
            out = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
            return out.getvalue()
        if suffix in ("json", "jsonl"):
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            return (f"[{', '.join(lines)}]" if suffix == "json" else "\n".join(lines)).encode()
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()

    def with_answers(row: dict[str, str]) -> dict[str, Any]:
        return row | {"answers": '["phở", "phở bò"]', "boxes": "[[0.1, 0.2, 0.5, 0.9]]"}

    kinds = {}
    for suffix in ("csv", "tsv", "json", "jsonl", "parquet"):
        name = f"rows.{suffix}"

        def read(place: Path, name: str = name) -> None:
            load_rows(str(place / name), cache_directory=place / "cache", check_boxes=True)
            read_questions(place / name)

        def read_plain(place: Path, name: str = name) -> None:
            read_rows(open_file(place / name), {"path": "image", "label": "answer"})
            read_photos(str(place / name), images=None, columns={"label": "answer"}, skip=False, cache=place / "cache")

        content = table(suffix, [with_answers(row) for row in _QUESTIONS])
        kinds[f"vqa.{suffix}"] = Kind(files={name: content} | photos, read=read, damaged=(name,))
        kinds[f"labels.{suffix}"] = Kind(
            files={name: table(suffix, _QUESTIONS)} | photos, read=read_plain, damaged=(name,)
        )
    return kinds


def _boxes(folder: Path) -> dict[str, Kind]:
    from vqa.box_files import fractions, read_boxed

    out = io.BytesIO()
    _photo().save(out, "PNG")
    photo = out.getvalue()
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0}] * 2,
        "categories": [{"id": 1, "name": "bát"}],
    }
    voc = (
        "<annotation><filename>a.png</filename><size><width>32</width><height>24</height></size><object>"
        "<name>bát</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"
    )
    rows = "image,label,x0,y0,x1,y1,split\na.png,bát,1,1,5,5,train\na.png,đũa,2,2,9,9.5,train\n"
    files = {
        "table": {"boxes.csv": rows.encode(), "a.png": photo},
        "coco": {"boxes.json": json.dumps(coco, ensure_ascii=False).encode(), "a.png": photo},
        "yolo": {
            "data.yaml": "names: [bát, đũa]\n".encode(),
            "labels/a.txt": b"1 .5 .5 .1 .1\n0 .1 .1 .5 .1 .5 .5\n",
            "images/a.png": photo,
        },
        "voc": {"a.xml": voc.encode(), "a.png": photo},
    }
    kinds = {}
    for format, parts in files.items():
        named = next(iter(parts)) if format in ("table", "coco") else ""

        def read(place: Path, format: str = format, named: str = named) -> None:
            found, _ = read_boxed(str(place / named), format=format, images=None, columns={})
            for one in found:
                fractions(one)

        damaged = tuple(name for name in parts if not name.endswith(".png"))
        kinds[f"boxes.{format}"] = Kind(files=parts, read=read, damaged=damaged)
    return kinds


def _streams(folder: Path) -> dict[str, Kind]:
    import csv
    import tarfile

    import pyarrow
    import pyarrow.parquet

    from common.images import image_from_bytes
    from common.streams import first_rows, open_stream

    photo = io.BytesIO()
    _photo().save(photo, "PNG")
    rows = [{"question": row["question"], "answer": row["answer"]} for row in _QUESTIONS]
    with tarfile.open(folder / "rows.tar", "w") as tar:
        for number, row in enumerate(rows):
            for suffix, content in (("png", photo.getvalue()), ("json", json.dumps(row).encode())):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    table = pyarrow.Table.from_pylist([row | {"image": photo.getvalue()} for row in rows])
    pyarrow.parquet.write_table(table, folder / "rows.parquet")
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

    def read(place: Path, name: str) -> None:
        for row in first_rows(open_stream(str(place / name)), None):
            for value in row.values():
                if isinstance(value, bytes):
                    image_from_bytes(value, f"{place / name}: a photo")

    return {
        f"stream.{path.suffix[1:]}": Kind(
            files={path.name: path.read_bytes()}, read=lambda place, name=path.name: read(place, name)
        )
        for path in sorted(folder.iterdir())
    }


_STUDY = """title: A study
script: train_vqa
options: {epochs: 2, learning_rate: 1e-3}
seeds: [0, 1]
grid:
  encoder:
    Big: {encoder: resnet18, weights: none}
    Small: {config: small.yaml}
  attention:
    "yes": {attention: true}
    2: {attention: false}
rows:
  - {name: majority, script: baseline_vqa, options: {baseline: majority}, seeds: [0]}
reported:
  Big, 2: {accuracy: 0.75}
compare:
  - {name: helps, cells: ["Big, yes", "Big, 2"], primary: true}
notes: ["one", "two"]
"""
_CONFIG = (
    "# options\nepochs: 3\nbatch_size: 8\nencoder: custom_cnn\naugment: [flip]\nlearning_rate: 0.001\ntest: true\n"
)


def _texts(folder: Path) -> dict[str, Kind]:
    from common.config import parse
    from common.study import read_study
    from video.options import TrainVideoOptions
    from video.ucf101 import official_split
    from vqa.options import TrainVqaOptions

    lists = {
        "classInd.txt": b"1 Punch\r\n2 Diving\r\n",
        "trainlist01.txt": b"Punch/v_Punch_g08_c01.avi 1\r\nDiving/v_Diving_g09_c02.avi 2\r\n",
        "testlist01.txt": b"Punch/v_Punch_g01_c01.avi\r\nDiving/v_Diving_g02_c02.avi\r\n",
    }
    video = _CONFIG.replace("[flip]", "[flip, crop]") + "head: gru\nframes: 4\n"
    return {
        "config.vqa": Kind(
            files={"o.yaml": _CONFIG.encode()},
            read=lambda place: parse(TrainVqaOptions, ["--config", str(place / "o.yaml")]),
        ),
        "config.video": Kind(
            files={"o.yaml": video.encode()},
            read=lambda place: parse(TrainVideoOptions, ["--config", str(place / "o.yaml")]),
        ),
        "study": Kind(
            files={"s.yaml": _STUDY.encode(), "small.yaml": b"encoder: custom_cnn\nwidth: 4\n"},
            read=lambda place: read_study(place / "s.yaml"),
        ),
        "lists": Kind(files=lists, read=lambda place: official_split(place, 1)),
    }


def _encoder() -> Any:
    import torch

    from common.encoders import build_encoder

    torch.manual_seed(0)
    return build_encoder("custom_cnn", depth=2, width=4)


def _weights(folder: Path) -> dict[str, Kind]:
    import torch
    from safetensors.torch import save_file

    from common.weights import load_weights, read_weights

    state = {name: tensor.contiguous() for name, tensor in _encoder().backbone.state_dict().items()}
    save_file(state, folder / "w.safetensors")
    torch.save(state, folder / "w.pth")
    torch.save({"state_dict": state}, folder / "old.pt", _use_new_zipfile_serialization=False)
    kinds = {}
    for path in sorted(folder.iterdir()):

        def read(place: Path, name: str = path.name) -> None:
            load_weights(_encoder(), read_weights(place / name), source=str(place / name))

        kinds[f"weights.{path.name}"] = Kind(files={path.name: path.read_bytes()}, read=read)
    return kinds


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _checkpoints(folder: Path) -> dict[str, Kind]:
    import torch

    from common.checkpoints import load_state, save_state, whole_directory, write_directory
    from common.classifier import ImageClassifier, ImageClassifierConfig
    from common.classifier_predict import classify, load_classifier
    from common.images import Preprocessing
    from video.model import VideoConfig, VideoModel
    from video.predict import Classifier
    from video.sampling import Sampling
    from vqa.answers import AnswerVocabulary
    from vqa.model import VqaConfig, VqaModel
    from vqa.predict import Answerer
    from vqa.processor import VqaProcessor
    from vqa.text import QuestionProcessor

    shape = {"encoder": _encoder().config, "preprocessing": asdict(Preprocessing(size=16))}
    questions = QuestionProcessor.build([row["question"] for row in _QUESTIONS], segmentation="syllable")
    answers = AnswerVocabulary.build([row["answer"] for row in _QUESTIONS])
    small = {"words": questions.vocab_size, "answers": len(answers), "embedding": 4, "hidden": 4, "projection": 4}
    small |= {"fusion_hidden": 4, "attention_hidden": 4}
    processor = VqaProcessor(questions, answers, Preprocessing(size=16))
    Answerer(model=VqaModel(VqaConfig(**shape, **small)), processor=processor).save_pretrained(folder / "vqa")
    video = VideoConfig(**shape, sampling=asdict(Sampling(frames=2)), classes=["chạy", "ngã"], hidden=4)
    VideoModel(video).save_pretrained(folder / "video")
    ImageClassifier(ImageClassifierConfig(**shape, classes=["a", "b"])).save_pretrained(folder / "image")
    state = {"optimizer": {0: torch.zeros(3), "lr": [0.1]}, "progress": {"epoch": 1}}
    write_directory(folder / "state", lambda directory: save_state(directory, state))

    def ask(place: Path) -> None:
        Answerer.from_pretrained(place)([_photo()], ["món gì"])

    def watch(place: Path) -> None:
        model = Classifier.from_pretrained(place)
        assert model.source is not None
        model.source.load  # noqa: B018  (sampling and preprocessing are read here)

    def look(place: Path) -> None:
        _photo().save(place / "p.png")
        classify(load_classifier(place), [place / "p.png"])

    def read_state(place: Path) -> None:
        load_state(place)
        load_state(whole_directory(place))

    def read_vocabulary(place: Path) -> None:
        processor = VqaProcessor.from_pretrained(place)
        processor([_photo()], ["món gì"])

    named = [name for name in _files(folder / "vqa") if name not in ("config.json", "model.safetensors")]
    words = {name: content for name, content in _files(folder / "vqa").items() if name in named}
    reads = {"vqa": ask, "video": watch, "image": look, "state": read_state}
    kinds = {f"checkpoint.{name}": Kind(files=_files(folder / name), read=read) for name, read in reads.items()}
    return kinds | {"vocabulary": Kind(files=words, read=read_vocabulary)}


def _caches(folder: Path) -> dict[str, Kind]:
    import torch
    from safetensors.torch import save_file

    from common.features import FeatureStore
    from common.settling import _given
    from video.stored import load_stored, write_stored

    rows = [["a" * 64, 0], ["b" * 64, 0]]
    tensors = {"features": torch.zeros(5, 4, 2, 2), "valid": torch.zeros(2, 4), "lengths": torch.tensor([2, 3])}
    (folder / "cache").mkdir()
    save_file(tensors, folder / "cache" / "s.safetensors", metadata={"rows": json.dumps(rows)})
    named = ({"path": f"v_X_g0{n}_c01.avi", "label": "ab"[n % 2], "group": f"g{n}", "split": ""} for n in range(8))
    write_stored(
        folder / "stored" / "f.safetensors", ((row, torch.ones(2, 3) * number) for number, row in enumerate(named))
    )
    encoder = _encoder()
    save_file({name: buffer for name, buffer in encoder.backbone.named_buffers()}, folder / "settled.safetensors")

    def take(place: Path) -> None:
        store = FeatureStore(place)
        known = [row for row in (("a" * 64, 0), ("b" * 64, 0)) if row in store]
        if known:
            store.take_clips(known)

    def load(place: Path) -> None:
        data, features = load_stored(str(place / "f.safetensors"))
        features.take(data.splits["train"]["place"][:2])

    settled = {"settled.safetensors": (folder / "settled.safetensors").read_bytes()}
    return {
        "cache": Kind(files=_files(folder / "cache"), read=take),
        "stored": Kind(files=_files(folder / "stored"), read=load),
        "settled": Kind(files=settled, read=lambda place: _given(encoder, place / "settled.safetensors")),
    }


def _runs(folder: Path) -> dict[str, Kind]:
    from common.predictions import align, read_scored
    from common.runs import read_run, read_trained_on, write_csv, write_json
    from common.study_values import read_measured
    from vqa.examples import read_predictions, typical

    rows = [
        {"id": row["id"], "group": row["group"], "type": row["type"], "gold": row["answer"], "predicted": "phở bò"}
        | {"probability": 0.5, "question": row["question"], "image": row["image"]}
        for row in _QUESTIONS
    ]
    write_csv(folder / "predictions-test.csv", rows)
    figures = {"accuracy": 1 / 3, "loss": 1.5, "n": 3, "by_type": {"dish": {"accuracy": 0.5, "n": 2}}}
    write_json(folder / "metrics.json", {"test": figures, "validation": figures})
    write_json(folder / "environment.json", {"task": "vqa", "parameters": {"trained": 5, "frozen": 1}, "figures": {}})
    write_json(folder / "trained-on.json", {"photos": ["ab"], "groups": ["cd"], "rows": []})
    (folder / "history.jsonl").write_text(
        '{"epoch": 1, "seconds": 1.5}\n{"epoch": 2, "seconds": 2.0}\n', encoding="utf-8"
    )
    (folder / "config.yaml").write_text(_CONFIG, encoding="utf-8")

    def read(place: Path) -> None:
        read_run(place)
        read_trained_on(place)
        align([read_scored(place, "test")])
        typical(read_predictions(place, "test"))
        read_measured(place)

    return {"run": Kind(files=_files(folder), read=read)}


# --- inputs, one by one -----------------------------------------------------------------------------------------------


def write_input(kinds: dict[str, Kind], folder: Path, *, seed: int, number: int) -> tuple[str, str]:
    """Write input `number` into an empty folder; → its kind, and what was damaged in which way."""
    rng = random.Random(f"{seed} {number}")
    name = list(kinds)[number % len(kinds)]
    kind = kinds[name]
    target = rng.choice(kind.damaged or sorted(kind.files))
    way = rng.choice(WAYS.get(target.rpartition(".")[2], BYTES))
    for file, content in kind.files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        try:
            (folder / file).write_bytes(way(content, rng) if file == target else content)
        except (ValueError, IndexError):  # too short for this way
            (folder / file).write_bytes(cut(content, rng))
    return name, f"{target}: {way.__name__}"


def read_inputs(folder: Path, *, first: int, count: int, seed: int) -> None:
    """Read inputs `first` to `count`, telling of each, in a line of JSON, that it is begun and how it ended."""
    warnings.filterwarnings("error", module=r"(common|vqa|video)\b")
    kinds = good_kinds(folder / "good")
    for kind in kinds.values():  # good files are read; and what is loaded on the way is no part of the limit
        place = folder / "check"
        for file, content in kind.files.items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_bytes(content)
        kind.read(place)
        shutil.rmtree(place)
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, count):
        place = folder / f"input{number}"
        place.mkdir()
        kind, what = write_input(kinds, place, seed=seed, number=number)
        _tell({"number": number, "kind": kind, "what": what})
        began, cpu = time.monotonic(), time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # nobody handles these signals: they end the process
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        outcome = _outcome(kinds[kind], place)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        spent = {"cpu": round(time.process_time() - cpu, 2), "wall": round(time.monotonic() - began, 2)}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        _tell({"number": number, **outcome, **spent, "gib": round(peak, 2)})
        shutil.rmtree(place)


def _outcome(kind: Kind, place: Path) -> dict[str, str]:
    from common.errors import UserError

    try:
        kind.read(place)
    except UserError as error:
        message = str(error)
        if "\n" in message:
            return {"end": "wrong", "why": f"several lines: {message[:500]}"}
        if re.search(r"MemoryError|malloc|not enough memory|allocate memory", message):
            return {"end": "wrong", "why": f"memory ended before a limit did: {message[:500]}"}
        if str(place) not in message and "--streaming" not in message:  # whose shards are read in `datasets`' own way
            return {"end": "wrong", "why": f"names no file: {message[:500]}"}
        return {"end": "refused", "why": message.replace(str(place), "")[:300]}
    except Exception:
        return {"end": "wrong", "why": traceback.format_exc()[-2000:]}
    return {"end": "read", "why": ""}


def _tell(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Read damaged inputs; one JSON line each.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path[0] = str(Path(__file__).resolve().parent)
    sys.path.insert(1, str(Path(__file__).resolve().parent.parent))
    read_inputs(given.folder, first=given.first, count=given.count, seed=given.seed)
