"""Small tables that stand for large ones: they are refused, or read in the time and the memory of what is wanted."""

import json
import resource
import time

import datasets
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from test_hostile import refused, write

from common import parquet_files, records
from common.parquet_files import _AT_ONCE, _OBJECT, unpacked_bytes
from common.predictions import read_back
from common.records import open_file
from vqa.data import load_rows

WIDE = [f"c{number}" for number in range(998)] + ["question", "answer"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", ",".join(["question", "answer", *WIDE[:998]]) + "\n" + "q,a\n" * 100_000),
        ("r.jsonl", json.dumps(dict.fromkeys(WIDE, "a")) + "\n" + '{"question":"q","answer":"a"}\n' * 100_000),
    ],
)
def test_columns_that_nobody_wants_are_not_made(tmp_path, name, content):
    """A hundred million cells, of which two hundred thousand are read."""
    path = write(tmp_path / name, content)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()  # in kB
    source = open_file(path)
    rows = sum(len(numbers) for numbers, _ in source.batches(["question", "answer"]))
    assert rows in (100_000, 100_001) and time.process_time() - began < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
    refused("1,000 columns are more than 50,000,000 cells", path, lambda: list(source.batches(source.names)))
    refused("1,000 columns are more than 50,000,000 cells", path, read_back, path)


def test_parts_of_a_table_are_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_AT_ONCE", 2)
    path = write(tmp_path / "r.csv", "a,b\n1,x\n\n2\n3,z\n4,\n5,w\n")
    assert list(open_file(path).batches(["b", "a"])) == [
        ([2, 4], {"b": ["x", ""], "a": ["1", "2"]}),
        ([5, 6], {"b": ["z", ""], "a": ["3", "4"]}),
        ([7], {"b": ["w"], "a": ["5"]}),
    ]
    assert read_back(path) == ([2, 4, 5, 6, 7], {"a": ["1", "2", "3", "4", "5"], "b": ["x", "", "z", "", "w"]})
    write(path, "=x,'=x\n1,2\n")
    refused("two of its columns have one name", path, read_back, path)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("r.json", "[" + "[]," * 10_000_000 + "[]]", "10,000,002 lists and objects"),
        ("r.csv", "question,answer\n" + "\n" * 3_100_000, "more than 3,000,000 rows"),
        (
            "r.jsonl",
            json.dumps({"question": "q", "answers": ["a"] * 1_001}),
            "row 1: column 'answers' holds 1,001 answers",
        ),
        ("r.jsonl", json.dumps({"question": "q", "answers": ["a" * 60_000] * 2}), "row 1: .*120,000 characters"),
    ],
)
def test_many_in_little(tmp_path, name, content, match):
    path = write(tmp_path / name, content)
    refused(match, path, load_rows, str(path), cache_directory=tmp_path, need_images=False)


def parquet(path, *, times=1, **columns):
    rows = len(next(iter(columns.values())))
    table = pyarrow.table({"question": ["q"] * rows, "answer": ["a"] * rows} | columns)
    with pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd") as file:
        for _ in range(times):
            file.write_table(table)
    assert path.stat().st_size < 100_000
    return path


SHARED = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1_000, pyarrow.int32()), pyarrow.array(["x" * 10**7]))


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"question": SHARED}, "row 1: column 'question' holds 10,000,000 bytes of text"),  # 10 GB
        ({"question": ["x" * 90_000] * 1_000, "times": 2}, "more than 100,000,000 bytes of text"),
        ({"answers": [["x" * 30_000] * 10] * 1_000}, "more than 100,000,000 bytes of text"),
        ({"answers": [["x" * 300_000] * 20] * 100}, "column 'answers' holds 6,000,000 bytes of text"),
        ({"image": [b"x" * 2_000_000] * 20, "times": 30}, "more than 1,073,741,824 bytes"),
        ({"image": pyarrow.array([b"x" * 3_000_000] * 20, pyarrow.binary(3_000_000)), "times": 20}, "more than"),
        (
            {"boxes": pyarrow.ListArray.from_arrays([0, 31_000_000], pyarrow.nulls(31_000_000))},
            "more than 30,000,000 values",
        ),
    ],
)
def test_a_kilobyte_of_parquet(tmp_path, columns, match):
    path = parquet(tmp_path / "r.parquet", **columns)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    columns = [name for name in columns if name != "times"]
    refused(match, path, lambda: [len(rows) for rows, _ in open_file(path).batches(columns)])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20


def test_photos_that_many_rows_share_are_unpacked_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "_AT_ONCE", 5_000_000)
    path = parquet(tmp_path / "r.parquet", image=[b"x" * 1_000_000] * 20)
    parts = list(open_file(path).batches(["image", "question"]))
    assert [list(numbers) for numbers, _ in parts] == [list(range(n, n + 4)) for n in range(1, 21, 4)]
    assert all(part["image"] == [b"x" * 1_000_000] * 4 and part["question"] == ["q"] * 4 for _, part in parts)


def test_a_saved_data_set_that_is_packed(tmp_path):
    texts = {"question": ["x" * 90_000] * 500, "answer": ["a"] * 500}
    datasets.Dataset.from_dict(texts).save_to_disk(str(tmp_path / "set"))
    (path,) = (tmp_path / "set").glob("*.arrow")
    load_rows(str(tmp_path / "set"), split="train", cache_directory=tmp_path, need_images=False)
    schema = pyarrow.ipc.open_stream(path).schema
    packed = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, schema, options=packed) as stream:
        for _ in range(20):
            stream.write_table(pyarrow.table(texts, schema=schema))
    folder = str(tmp_path / "set")
    refused("is packed", path, load_rows, folder, split="train", cache_directory=tmp_path, need_images=False)


def test_a_folder_of_parquet_that_is_packed(tmp_path):
    (tmp_path / "set").mkdir()
    path = parquet(tmp_path / "set" / "part.parquet", question=["x" * 2_000_000] * 50, times=20)
    folder = str(tmp_path / "set")
    refused("more than", path, load_rows, folder, split="train", cache_directory=tmp_path / "c", need_images=False)
    assert not (tmp_path / "c").exists()


def test_what_values_take():
    """By hand: an object of 10, and its letters; a list is one, too."""
    texts = pyarrow.array(["ab", None, "phở"])
    assert unpacked_bytes(texts, 10).tolist() == [12, 10, 15]
    assert unpacked_bytes(texts.dictionary_encode(), 10).tolist() == [12, 10, 15]
    lists = pyarrow.array([["ab", "c"], None, [], ["d"]])
    assert unpacked_bytes(lists, 10).tolist() == [33, 10, 10, 21]
    assert unpacked_bytes(lists[1:], 10).tolist() == [10, 10, 21]
    assert unpacked_bytes(pyarrow.array([[1, 2], [3, 4]], pyarrow.list_(pyarrow.int8(), 2)), 10).tolist() == [30, 30]
    assert unpacked_bytes(pyarrow.array([{"a": 1, "b": "xy"}]), 10).tolist() == [62]
    assert unpacked_bytes(pyarrow.array([True, None]), 10).tolist() == [10, 10]
    assert _AT_ONCE > 1_000 * _OBJECT
