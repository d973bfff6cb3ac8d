"""The embedded data set: it keeps the data contract, is written whole or not at all, its bytes are always the same."""

import csv
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from common.errors import UserError
from vqa import shapes
from vqa.shapes import embedded_shapes, write_shapes

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"train": 4, "validation": 2, "test": 3}


def test_the_files_keep_the_data_contract(tmp_path):
    folder = write_shapes(tmp_path / "shapes", seed=3, size=48, **SMALL)
    groups = {}
    for split, count in SMALL.items():
        with open(folder / f"{split}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [*rows[0]] == ["image", "group", "question", "answer", "type", "boxes"]
        groups[split] = {row["group"] for row in rows}
        assert len(groups[split]) == len({row["image"] for row in rows}) == count
        for row in rows:
            assert (folder / row["image"]).is_file()
            assert unicodedata.is_normalized("NFC", row["question"] + row["answer"])
            for box in json.loads(row["boxes"] or "[]"):
                assert len(box) == 4 and all(0 <= edge <= 1 for edge in box)
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["validation"]
    assert len(list((folder / "images").iterdir())) == sum(SMALL.values())


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_in_any_process(tmp_path):
    written = []
    for salt, validation in (("1", "2"), ("2", "5")):
        folder = tmp_path / salt
        counts = ["--train", "4", "--validation", validation, "--test", "3"]
        environment = os.environ | {"PYTHONHASHSEED": salt}
        command = [sys.executable, "-m", "vqa.shapes", folder, *counts]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        written.append(_bytes(folder))
    one, other = written
    assert one["validation.csv"] != other["validation.csv"]  # of another length; all that both hold is the same
    assert all(one[name] == other[name] for name in one if name != "validation.csv")
    assert other["validation.csv"].startswith(one["validation.csv"])
    assert one["train.csv"] != _bytes(write_shapes(tmp_path / "seed", seed=1, **SMALL))["train.csv"]


def test_the_cache_is_written_once_and_named_after_everything(tmp_path):
    folder = embedded_shapes(tmp_path / "cache", **SMALL)
    (folder / "train.csv").write_text("mine", encoding="utf-8")
    assert embedded_shapes(tmp_path / "cache", **SMALL) == folder
    assert (folder / "train.csv").read_text(encoding="utf-8") == "mine"
    changes = ({"seed": 1}, {"size": 32}, {"test": 2})
    others = [embedded_shapes(tmp_path / "cache", **(SMALL | change)) for change in changes]
    assert len({folder, *others}) == 4
    assert f"v{shapes.VERSION}" in folder.name


def test_a_run_that_dies_leaves_nothing(tmp_path, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "draw", die)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "shapes", **SMALL)
    assert not list(tmp_path.iterdir())


def test_of_two_writers_the_first_stays(tmp_path, monkeypatch):
    """While ours is being written, another process finishes: its set is kept and ours goes."""
    folder = tmp_path / "shapes-of-both"
    write_split = shapes._write_split

    def lose(temporary, split, *rest):
        write_split(temporary, split, *rest)
        if split == "test":
            folder.mkdir()
            (folder / "test.csv").write_text("the winner's", encoding="utf-8")

    monkeypatch.setattr(shapes, "_write_split", lose)
    assert write_shapes(folder, **SMALL) == folder
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert _bytes(folder) == {"test.csv": b"the winner's"}


@pytest.mark.parametrize(
    "change", [{"train": 0}, {"test": 100_001}, {"validation": -1}, {"size": 16}, {"size": 513}, {"seed": -1}]
)
def test_what_is_out_of_range_is_refused(tmp_path, change):
    ((name, value),) = change.items()
    for write in (write_shapes, embedded_shapes):
        with pytest.raises(UserError, match=f"--{name} {value}: "):
            write(tmp_path / "shapes", **(SMALL | change))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="already holds something"):
        write_shapes(tmp_path, **SMALL)
    with pytest.raises(UserError, match="cannot be written"):
        write_shapes(tmp_path / "mine.txt" / "shapes", **SMALL)
