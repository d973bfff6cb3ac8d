"""Files that somebody made to do harm: each is refused in one line that names it, soon and in little memory."""

import json
import os
import pickle
import resource
import struct
import threading
import time
import zipfile
from pathlib import Path

import fuzzing
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from classifier_helpers import write_folder, write_photo
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from video_helpers import write_clip

from common import files, images, parquet_files, photos, records
from common.checkpoints import CHECKSUMS, load_state, save_state, whole_directory, write_directory
from common.classifier_predict import load_classifier
from common.classifier_rows import read_photos
from common.config import read_yaml
from common.errors import UserError
from common.features import FeatureStore
from common.images import read_image
from common.jpeg_scans import count_scans
from common.photos import walk_files
from common.predictions import read_scored
from common.records import find_sources, open_file
from common.study_values import read_measured
from common.weights import read_weights
from video import decode
from video.clips import check_clips, find_clips
from video.data import read_rows
from video.ucf101 import official_split
from vqa.data import load_rows
from vqa.predict import Answerer


def refused(match: str, named: str | Path, function, *arguments, **keywords) -> None:
    """In one line that names the file, and within seconds."""
    began = time.process_time()
    with pytest.raises(UserError, match=match) as error:
        function(*arguments, **keywords)
    message = str(error.value)
    assert "\n" not in message and str(named) in message and len(message) < 1_500, message[:2_000]
    assert time.process_time() - began < 10


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- pickles and checkpoints


class Mischief:
    def __reduce__(self):
        return os.mkdir, ("mischief",)


@pytest.mark.parametrize("name", ["w.bin", "w.pkl", "w.ckpt", "w.joblib", "W.PICKLE"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "checkpoint" / name, pickle.dumps(Mischief()))
    refused("convert it once: .*weights_only=True", path, read_weights, path)
    write(path.parent / "config.json", "{}")
    for load in (Answerer.from_pretrained, load_classifier):
        refused("is a pickle.*save_file.*model.safetensors", path, load, path.parent)
    assert not (tmp_path / "mischief").exists()


def test_a_packed_pth_is_refused(tmp_path):
    """A zip of 100 kB that would unpack to 100 MB; and one whose records lie in one place."""
    good = tmp_path / "good.pth"
    torch.save({"weight": torch.zeros(25_000_000 // 8)}, good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "bad.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
    assert (tmp_path / "bad.pth").stat().st_size < good.stat().st_size / 50
    refused("packed records", "bad.pth", read_weights, tmp_path / "bad.pth")
    assert len(read_weights(good)) == 1


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    fuzzing._checkpoints(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hidden": 10**7}, "do not fit its config"),
        ({"hidden": 10**12}, "image"),
        ({"layers": 10**9}, "asks for layers 1000000000; at most 1,000"),
        ({"encoder": {"depth": 10**9}}, "asks for depth"),
        ({"answers": 10**8}, "do not fit its config"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "checkpoint"),
        ({"encoder": None, "inputs": "nothing"}, "unknown inputs"),
    ],
)
def test_a_checkpoint_of_giants_is_refused(checkpoints, tmp_path, changes, match):
    for path in (checkpoints / "vqa").iterdir():
        write(tmp_path / "giant" / path.name, path.read_bytes())
    config = json.loads((tmp_path / "giant" / "config.json").read_text(encoding="utf-8"))
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) and config.get(key) else value
    write(tmp_path / "giant" / "config.json", json.dumps(config))
    refused(match if match != "image" else "giant", tmp_path / "giant", Answerer.from_pretrained, tmp_path / "giant")


def test_checksums_name_files_of_the_checkpoint_alone(tmp_path):
    for number, name in enumerate(("../secret", "/dev/zero", "pipe")):
        place = tmp_path / str(number) / "last"
        write_directory(place, lambda folder: save_state(folder, {"a": 1}))
        os.mkfifo(place / "pipe")
        write(place / CHECKSUMS, json.dumps({name: "0"}))
        refused("is no file of a checkpoint|is not a file", place, whole_directory, place)


@pytest.mark.parametrize("plain", ["[" * 100_000, "5", '{"pairs": 1}', '{"pairs": [[{}, 1]]}', "[[]]"])
def test_training_state_of_another_shape(tmp_path, plain):
    save_file({"a": torch.zeros(1)}, tmp_path / "state.safetensors")
    write(tmp_path / "state.json", plain)
    refused("training state is missing or damaged", tmp_path, load_state, tmp_path)


# --- texts


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{new}: &{new}\n  <<: [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (LAUGHS, "aliases stand for more than 100,000 values"),
        (MERGES, "aliases stand for more than 100,000 values"),
        ("a: &a [*a]\n", "holds itself"),
        ("a: " + "[" * 50_000, "nested too deeply"),
        ("a: " + "{b: " * 20_000, "nested too deeply"),
        ("epochs: !!python/object/apply:os.mkdir [mischief]\n", "not valid YAML"),
        ("epochs: !!python/name:os.system\n", "not valid YAML"),
        ("when: 2001-13-01\n", "not valid YAML"),
        ("a: 0x_\n", "not valid YAML"),
        ("a: !!bool x\n", "not valid YAML"),
        ("a: !!timestamp x\n", "not valid YAML"),
        ("a: " + "9" * 5_000 + "\n", "not valid YAML"),
        ("a: 0x" + "f" * 9_000 + "\n", "line 1: .*more than 20 digits"),
        ("a: 1" + ":59" * 160_000 + "\n", "line 1: .*more than 20 digits"),
        ("a: 1" + ":59" * 160_000 + ".5\n", "line 1: .*more than 100 digits"),
        ('a: "\\ud800"\n', "line 1: .*half of one"),
        ('a: "x\\0"\n', "line 1: .*null character"),
        ("a: \0\n", "not valid YAML"),
        ("? [a]\n: b\n", "not valid YAML"),
        ("a: b\n" * 200_000, "bytes; at most"),
        ("1: 2\n", "option: value"),
        (b"a: \xff\n", "not UTF-8"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path, monkeypatch, text, match):
    monkeypatch.chdir(tmp_path)
    refused(match, "o.yaml", read_yaml, write(tmp_path / "o.yaml", text))
    assert not (tmp_path / "mischief").exists()


HEAD = "image,question,answer\n"
MANY = json.dumps([{f"column{number}": 1} for number in range(3_000)])


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("r.csv", HEAD + "a.png,q,a\0b\n", "line 2: holds a null character"),
        ("r.csv", "image,question,answer".encode("utf-16"), "not UTF-8|null character"),
        ("r.csv", HEAD.encode() + b"a.png,\xff,a\n", "line 2: is not UTF-8"),
        ("r.csv", HEAD + 'a.png,"q,a\n' * 3, "row 2: .*quote not closed"),
        ("r.csv", HEAD + f"a.png,{'q' * 200_000},a\n", "row 2: .*larger than field limit"),
        ("r.csv", HEAD + f"a.png,{'q' * 120_000},a\n", "row 2: .*120,000 characters"),
        (
            "r.csv",
            ",".join(f"c{number}" for number in range(1_000_000)) + "\n1\n",
            "1,000,000 columns; .*at most 1,000",
        ),
        ("r.csv", HEAD + "a.png" + "," * 500_000 + "\n", "row 2: 500001 fields"),
        ("r.csv", HEAD + "\n" * 1_000_000, "has a header but no rows"),
        ("r.csv", "\ufeff\ufeffimage,question,answer\na.png,q,a\n", "no column 'image'"),
        ("r.csv", "image,image,answer\na.png,q,a\n", "two columns are called 'image'"),
        ("r.json", "[" * 200_000, "nested too deeply"),
        ("r.json", '[{"image": "a.png", "question": ' + "9" * 5_000 + "}]", "not valid JSON"),
        ("r.json", '[{"image": "a.png", "question": Infinity, "answer": "a"}]', "row 1: .*infinite number"),
        ("r.json", '[{"image": "a.png", "question": 1e999, "answer": "a"}]', "row 1: .*infinite number"),
        ("r.json", '[{"image": "a.png", "question": NaN, "answer": "a"}]', "row 1: question is blank"),
        ("r.json", r'[{"image": "a\u0000.png", "question": "q", "answer": "a"}]', "row 1: .*is no path"),
        ("r.json", r'[{"image": "a.png", "question": "\ud800", "answer": "a"}]', "row 1: .*broken Unicode"),
        ("r.json", MANY, "3,000 columns; .*at most 1,000"),
        ("r.jsonl", '{"image": "a.png", "question": "q", "answer": "a"}\n' + "[" * 100_000, "row 2: is not valid JSON"),
        ("r.parquet", b"PAR1" + b"\xff" * 100 + b"PAR1", "no readable Parquet"),
        ("r.parquet", b"PAR1" + struct.pack("<I", 2**31 - 1) + b"PAR1", "no readable Parquet"),
    ],
)
def test_hostile_tables_are_refused(tmp_path, name, content, match):
    write_photo(tmp_path / "a.png", 0)
    path = write(tmp_path / name, content)
    refused(match, path, load_rows, str(path), cache_directory=tmp_path / "cache")


def test_tables_have_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MOST_ROWS", 3)
    for name, content in (
        ("r.csv", "path\n" + "x\n" * 4),
        ("r.json", "[{}, {}, {}, {}]"),
        ("r.jsonl", '{"a": 1}\n' * 4),
    ):
        path = write(tmp_path / name, content)
        refused("more than 3 rows", path, open_file, path)
    table = pyarrow.table({"path": ["x"] * 4, "label": ["x"] * 4})
    pyarrow.parquet.write_table(table, tmp_path / "r.parquet")
    refused("more than 3 rows", "r.parquet", open_file, tmp_path / "r.parquet")
    monkeypatch.setattr(records, "MOST_ROWS", 3_000_000)
    # four million bytes in a few hundred: one text, repeated
    packed = pyarrow.table({"path": ["x" * 100_001] * 40, "label": ["x"] * 40})
    pyarrow.parquet.write_table(packed, tmp_path / "r.parquet", compression="zstd")
    assert (tmp_path / "r.parquet").stat().st_size < 10_000
    refused("row 1: .*100,001 characters", "r.parquet", read_rows, open_file(tmp_path / "r.parquet"), {})
    monkeypatch.setattr(parquet_files, "MOST_GROUP_BYTES", 50_000)
    refused("smaller ones", "r.parquet", read_rows, open_file(tmp_path / "r.parquet"), {})
    big = write(tmp_path / "r.csv", "path,label\n")
    os.truncate(big, files.MOST_BYTES + 1)  # takes no room on the disk
    refused("bytes; at most 100,000,000", big, open_file, big)


def test_lists_of_ucf101_have_limits(tmp_path):
    write(tmp_path / "classInd.txt", "1 Punch\n")
    for name in ("trainlist01.txt", "testlist01.txt"):
        write(tmp_path / name, "Punch/v_Punch_g08_c01.avi 1\n")
    for line in (" " * 100_000 + "x", "x" + " " * 100_000 + "y", "Punch/v_Punch_g" + "9" * 5_000 + "_c01.avi", "\0"):
        write(tmp_path / "trainlist01.txt", line)
        refused("row 1: ", "trainlist01.txt", official_split, tmp_path, 1)
    write(tmp_path / "classInd.txt", "9" * 5_000 + " Punch\n")
    refused("row 1: ", "classInd.txt", official_split, tmp_path, 1)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"test": 5}',
        '{"test": {"accuracy": "x", "by_class": 3}}',
        '{"test": {"accuracy": 1' + "0" * 400 + "}}",
        "[" * 99_999,
    ],
)
def test_a_run_that_somebody_else_wrote(tmp_path, content):
    write(tmp_path / "metrics.json", content)
    refused("damaged|neither test nor validation|not an object", tmp_path, read_measured, tmp_path)
    write(tmp_path / "predictions-test.csv", "id,gold,predicted\n1,a,a\n")
    if content != "{}":  # without an accuracy there is nothing that predictions could contradict
        refused("damaged|not of the same scoring", tmp_path, read_scored, tmp_path, "test")


# --- pictures and clips


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    device = tmp_path / "device"
    device.symlink_to("/dev/zero")
    for path in (pipe, device):
        for suffix in (".json", ".yaml", ".csv", ".parquet", ".safetensors", ".pth", ".jpg", ".mp4"):
            (tmp_path / f"{path.name}{suffix}").symlink_to(path)
        for read, suffix in (
            (files.read_json, ".json"),
            (read_yaml, ".yaml"),
            (open_file, ".csv"),
            (open_file, ".parquet"),
            (read_weights, ".safetensors"),
            (read_weights, ".pth"),
            (read_image, ".jpg"),
            (decode.count_frames, ".mp4"),
        ):
            named = tmp_path / f"{path.name}{suffix}"
            refused("not a file|no such file", named, read, named)
    for name in ("x.jpg", "x.mp4"):
        os.mkfifo(tmp_path / name)
    found = check_clips([str(tmp_path / "x.mp4")], tmp_path / "cache", stop=True)
    assert "is not a file" in str(found[str(tmp_path / "x.mp4")])
    found = photos.check_photos([str(tmp_path / "x.jpg")], tmp_path / "cache", stop=True)
    assert "is not a file" in str(found[str(tmp_path / "x.jpg")])
    (tmp_path / "shards").mkdir()
    os.mkfifo(tmp_path / "shards" / "a.safetensors")
    refused("is not a file", "a.safetensors", FeatureStore, tmp_path / "shards")


def test_files_that_are_only_large(tmp_path):
    """A terabyte of nothing takes no room, and hours to be read."""
    for name, limit in (("x.jpg", images.MAX_BYTES), ("x.mp4", 4 * 2**30)):
        write(tmp_path / name, b"x")
        os.truncate(tmp_path / name, limit + 1)
    refused("at most", "x.jpg", read_image, tmp_path / "x.jpg")
    found = photos.check_photos([str(tmp_path / "x.jpg")], tmp_path / "cache", stop=True)
    assert "photos of at most" in str(found[str(tmp_path / "x.jpg")])
    found = check_clips([str(tmp_path / "x.mp4")], tmp_path / "cache", stop=True)
    assert "clips of at most" in str(found[str(tmp_path / "x.mp4")])


def png_header(width: int, height: int) -> bytes:
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (head, data)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (60_000, 60_000), (2**31 - 1, 1), (0, 5)])
def test_a_picture_of_more_pixels_than_it_has(tmp_path, width, height):
    path = write(tmp_path / "p.png", png_header(width, height))
    refused("pixels|cannot be read", path, read_image, path)


def jpeg(tmp_path, name: str, **options) -> bytes:
    """A picture of three colours that is no plain one."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    picture.save(tmp_path / name, "JPEG", **options)
    return (tmp_path / name).read_bytes()


def test_a_jpeg_of_many_scans(tmp_path):
    """Each scan goes over the whole picture: 300 of a few bytes take a minute at 100 million pixels."""
    content = jpeg(tmp_path, "p.jpg", progressive=True)
    last = content[content.rindex(b"\xff\xc4") : -2]  # the last scan, with its table
    for times, path in ((300, tmp_path / "many.jpg"), (20, tmp_path / "some.jpg")):
        write(path, content[:-2] + last * times + b"\xff\xd9")
    refused("a JPEG of more than 60 scans", "many.jpg", read_image, tmp_path / "many.jpg")
    refused("a JPEG of more than 60 scans", "many.jpg", read_image, tmp_path / "many.jpg", shrink_to=16)
    content_of_many = (tmp_path / "many.jpg").read_bytes()
    refused("more than 60 scans", "the bytes", images.image_from_bytes, content_of_many, "the bytes")
    assert read_image(tmp_path / "some.jpg").size == (64, 64)


def test_scans_are_those_of_the_picture_alone(tmp_path):
    plain, progressive = jpeg(tmp_path, "p.jpg"), jpeg(tmp_path, "q.jpg", progressive=True)
    assert count_scans(plain) == 1 and count_scans(tmp_path / "q.jpg") == 10
    behind = b"\xff\xda" * 1_000  # a clip behind a phone's photo
    assert count_scans(plain + behind) == 1 and count_scans(progressive + behind) == 10
    comment = b"\xff\xfe" + struct.pack(">H", 2_002) + behind
    assert count_scans(progressive[:2] + comment + progressive[2:]) == 10
    assert count_scans(plain[:50]) == 0 and count_scans(b"\xff\xda") == 1
    path = write(tmp_path / "behind.jpg", progressive + behind)
    assert read_image(path).size == (64, 64)


def test_large_photos_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    """Sixteen threads with a picture of 100 million pixels each would need gigabytes."""
    monkeypatch.setattr(images, "_LARGE", 100)
    together, most = 0, 0
    lock = threading.Lock()
    load = PngImagePlugin.PngImageFile.load

    def counted(self, *arguments):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.01)
        try:
            return load(self, *arguments)
        finally:
            with lock:
                together -= 1

    paths = [write_photo(tmp_path / f"{number}.png", number) for number in range(6)]
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", counted)
    found = photos.check_photos([str(path) for path in paths], tmp_path / "cache", stop=True)
    assert all(isinstance(result, str) for result in found.values()) and most == 1


def test_a_clip_has_so_many_pixels(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "c.avi", seed=0, count=6, size=24)
    monkeypatch.setattr(decode, "MAX_DECODED", 3 * 24 * 24)
    refused("its first 4 frames have 2,304 pixels; cut it", path, lambda: list(decode.iterate_frames(path)))
    monkeypatch.setattr(decode, "MAX_HELD", 3 * 8 * 8 * 2)
    monkeypatch.setattr(decode, "MAX_DECODED", 10**9)
    refused(
        "3 frames of 8 pixels .*at most 2 are held", path, decode.read_clip, path, decode.Sampling(frames=3), size=8
    )


def test_a_clip_of_frames_larger_than_any(tmp_path):
    path = write_clip(tmp_path / "c.avi", seed=0)
    content = bytearray(path.read_bytes())
    for place in range(len(content) - 8):  # the sizes in all headers
        if content[place : place + 8] == struct.pack("<II", 24, 24):
            content[place : place + 8] = struct.pack("<II", 60_000, 60_000)
    path.write_bytes(content)
    assert decode.count_frames(path) == 6  # MPEG-4 says its size again, in each key frame, and that one is believed


def test_an_index_of_more_samples_than_there_are(tmp_path):
    """A few bytes of an MP4's index stand for 80 million samples; FFmpeg would make room for each."""
    path = write_clip(tmp_path / "c.mp4", seed=0)
    content, many = bytearray(path.read_bytes()), 80_000_000
    for box, values, behind in ((b"stsz", (1, many), 8), (b"stts", (many,), 12), (b"stsc", (many,), 16)):
        struct.pack_into(f">{len(values)}I", content, content.index(box) + behind, *values)
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in kB
    refused("not one frame decodes|not a video", path, decode.count_frames, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.5 * 2**20


# --- folders


def test_links_of_folders_and_tables_stay_inside(tmp_path):
    write_folder(tmp_path / "outside")
    write_folder(tmp_path / "data")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "outside")
    options = {"images": None, "columns": {}, "skip": True, "cache": tmp_path / "cache"}
    refused("leads out of the data folder", tmp_path / "data" / "more", read_photos, str(tmp_path / "data"), **options)
    refused("leads out of the data folder", tmp_path / "data" / "more", find_clips, tmp_path / "data")
    (tmp_path / "data" / "more").unlink()
    (tmp_path / "data" / "more").symlink_to(tmp_path / "data" / "red_thing")  # inside: followed
    assert len(read_photos(str(tmp_path / "data"), **options)[0]) == 16

    tables = tmp_path / "tables"
    write(tmp_path / "secret.csv", "path,label\nx,y\n")
    tables.mkdir()
    (tables / "train.csv").symlink_to(tmp_path / "secret.csv")
    refused("leads out of the data folder", tables / "train.csv", find_sources, str(tables), tmp_path / "cache")
    (tables / "train.csv").unlink()
    write(tables / "all.csv", "path,label\nx,y\n")
    (tables / "train.csv").symlink_to(tables / "all.csv")
    assert list(find_sources(str(tables), tmp_path / "cache")) == ["train"]


def test_a_maze_of_links_has_an_end(tmp_path, monkeypatch):
    """Twenty folders, each with two links to the next: a million ways."""
    for number in range(20):
        (tmp_path / f"d{number}").mkdir()
        for name in "ab":
            (tmp_path / f"d{number}" / name).symlink_to(tmp_path / f"d{(number + 1) % 20}")
    monkeypatch.setattr(photos, "MOST_FOLDERS", 500)
    refused("more than 500 folders", tmp_path, lambda: list(walk_files(tmp_path)))
    deep = tmp_path / "deep"
    place = deep
    for _ in range(150):
        place = place / "x"
    place.mkdir(parents=True)
    monkeypatch.setattr(photos, "MOST_FOLDERS", 10**6)
    refused("more than 100 folders one in another", deep, lambda: list(walk_files(deep)))


def test_names_that_are_no_text(tmp_path):
    folder = os.fsencode(tmp_path / "data" / "class")
    os.makedirs(folder)
    with open(folder + b"/\xff.avi", "wb"):
        pass
    refused("is not UTF-8; rename it", tmp_path / "data" / "class", find_clips, tmp_path / "data")
