"""Training on shards that nobody holds an index of: every row comes, each process has its share, then again."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from video_helpers import history, read_csv, read_json, write_csv
from video_helpers import write_set as write_clips

from common.batches import steps_of, train_batches
from common.config import parse
from common.errors import UserError
from common.streams import Stream, first_rows, open_stream, plain_row
from video.options import TrainVideoOptions
from video.train import train as train_video
from vqa.options import TrainVqaOptions
from vqa.predict import Answerer
from vqa.shapes import write_shapes
from vqa.train import train as train_vqa

SMALL = (
    "--depth 3 --width 4 --image-size 32 --embedding 8 --hidden 16 --projection 16 --attention-hidden 16 "
    "--fusion-hidden 16 --batch-size 8 --epochs 2 --workers 0 --segmentation syllable"
).split()
SMALL_CLIPS = "--depth 2 --width 4 --image-size 24 --frames 3 --hidden 8 --batch-size 4 --epochs 2 --workers 0".split()


@pytest.fixture(scope="module")
def numbers(tmp_path_factory) -> str:
    """20 rows in 4 shards."""
    folder = tmp_path_factory.mktemp("numbers")
    for shard in range(4):
        rows = {"number": [5 * shard + place for place in range(5)]}
        pyarrow.parquet.write_table(pa.table(rows), folder / f"train-{shard}.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "scenes", train=12, validation=6, test=6, size=32)


def stream(numbers: str, steps: int = 5, buffer: int = 7) -> Stream:
    return Stream(open_stream(numbers), lambda rows: [row["number"] for row in rows], steps=steps, buffer=buffer)


def epoch(source: Stream, number: int, *, rank: int = 0, world: int = 1, accumulation: int = 1, workers: int = 0):
    keywords = {"batch_size": 4, "accumulation": accumulation, "seed": 1, "rank": rank, "world": world}
    return list(train_batches(source, epoch=number, workers=workers, **keywords))


@pytest.mark.parametrize("world", [1, 2])
def test_every_row_comes_once_in_a_pass_whatever_the_processes(numbers, world):
    seen = []
    for rank in range(world):
        steps = epoch(stream(numbers), 1, rank=rank, world=world)
        assert len(steps) == 5 and {len(part) for (part,) in steps} == {4 // world}
        seen += [row for (part,) in steps for row in part]
    assert sorted(seen) == list(range(20))


def test_a_stream_goes_on_and_begins_again_mixed_anew(numbers):
    source = stream(numbers, steps=3)  # 12 of 20 rows an epoch
    assert steps_of(source, 4) == 3
    rows = [row for number in range(1, 6) for (part,) in epoch(source, number) for row in part]
    first, second, third = rows[:20], rows[20:40], rows[40:60]
    assert sorted(first) == sorted(second) == sorted(third) == list(range(20))
    assert first != second != third
    assert [row for (part,) in epoch(stream(numbers, steps=3), 4) for row in part] == rows[36:48]  # resumed


def test_parts_and_workers(numbers):
    assert [len(step) for step in epoch(stream(numbers), 1, accumulation=2)] == [2] * 5
    twice = [row for (part,) in epoch(stream(numbers, steps=10), 1, workers=2) for row in part]  # two shards each
    assert sorted(twice) == sorted([*range(20), *range(20)])
    with pytest.raises(UserError, match="--batch-size 4.*multiple of 3 process"):
        epoch(stream(numbers), 1, world=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_run_has_had_before_is_not_made_again(numbers, workers, tmp_path):
    """Going on in the second epoch: the same batches, and nothing is decoded for those before."""

    def to_batch(rows):
        with (tmp_path / "made").open("a", encoding="utf-8") as file:
            file.write("x")
        return [row["number"] for row in rows]

    keywords = {"batch_size": 4, "accumulation": 1, "seed": 1, "rank": 0, "world": 1, "workers": workers}
    whole = stream(numbers, steps=4)
    every = [rows for number in (1, 2) for (rows,) in train_batches(whole, epoch=number, **keywords)]
    again = Stream(open_stream(numbers), to_batch, steps=4, buffer=7)
    assert [rows for (rows,) in train_batches(again, epoch=2, start=1, **keywords)] == every[5:]
    made = len((tmp_path / "made").read_text(encoding="utf-8"))
    assert made == 3 if workers == 0 else 3 <= made <= 3 + 2 * workers  # workers read ahead, two batches each


def damaged(kind: str, folder: Path) -> str:
    """Two shards, of which the second is damaged, and what is said of it."""
    members = [{"txt": f"{number}".encode()} for number in range(40)]
    source = write_shards(folder, members)
    last = folder / "train-1.tar"
    content = last.read_bytes()
    last.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "cut between members": content[: 10 * 2 * tarfile.BLOCKSIZE],
            "garbage": b"no tar at all" * 1000,
            "blank": bytes(10240),
            "without a byte": b"",
        }[kind]
    )
    return source


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", "train-1.tar: is cut off"),
        ("cut between members", "train-1.tar: is cut off"),
        ("garbage", "train-1.tar: cannot be read as a .tar"),
        ("blank", "train-1.tar: has nothing in it"),
        ("without a byte", "train-1.tar: cannot be read as a .tar|train-1.tar: has nothing in it"),
    ],
)
def test_a_damaged_shard_is_refused_before_anything_is_trained(kind, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_stream(damaged(kind, tmp_path / "shards"))


def test_what_turns_out_to_be_damaged_is_told_in_one_line(tmp_path, numbers):
    for path in sorted(Path(numbers).iterdir()):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    last = tmp_path / "train-3.parquet"
    last.write_bytes(last.read_bytes()[:-40])
    with pytest.raises(UserError, match="cannot read on"):
        epoch(stream(str(tmp_path)), 1)
    with pytest.raises(UserError, match="cannot read on"):
        list(first_rows(open_stream(str(tmp_path)), None))


def test_what_cannot_be_read_is_told(tmp_path):
    (tmp_path / "train.txt").write_text("no rows", encoding="utf-8")
    (tmp_path / "train.csv").write_text("question,answer\n01,NA\n", encoding="utf-8")
    assert list(open_stream(str(tmp_path / "train.csv"))) == [{"question": "01", "answer": "NA"}]
    for source, message in (
        (str(tmp_path / "train-*.tar"), "no file there"),
        (str(tmp_path / "train.txt"), "of the kinds .txt"),
        (str(tmp_path / "nowhere"), "no file there"),
    ):
        with pytest.raises(UserError, match=message):
            open_stream(source)
    with pytest.raises(UserError, match="row a: its .json"):
        plain_row({"__key__": "a", "json": b"{"})


def write_shards(folder: Path, members: list[dict[str, bytes]], *, shards: int = 2) -> str:
    """WebDataset shards, a dict of ending → bytes for each row."""
    folder.mkdir()
    for shard in range(shards):
        with tarfile.open(folder / f"train-{shard}.tar", "w") as tar:
            for number, row in list(enumerate(members))[shard::shards]:
                for ending, content in row.items():
                    member = tarfile.TarInfo(f"{number:06d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return str(folder / "train-*.tar")


def question_members(scenes: Path) -> list[dict[str, bytes]]:
    rows = read_csv(scenes / "train.csv")
    return [
        {
            "png": (scenes / row["image"]).read_bytes(),
            "json": json.dumps({"question": row["question"], "answer": row["answer"], "group": row["group"]}).encode(),
        }
        for row in rows
    ]


def held_out(scenes: Path, folder: Path) -> Path:
    """A folder of validation and test alone."""
    folder.mkdir()
    (folder / "images").symlink_to(scenes / "images")
    for name in ("validation", "test"):
        rows = read_csv(scenes / f"{name}.csv")
        write_csv(folder / f"{name}.csv", [row | {"image": str(scenes / row["image"])} for row in rows])
    return folder


def start_vqa(tmp_path: Path, scenes: Path, source: str, *more: str) -> Path:
    given = ["--streaming", source, "--stream-steps", "4", "--data", str(scenes), "--cache", str(tmp_path / "cache")]
    return train_vqa(parse(TrainVqaOptions, [*given, "--output", str(tmp_path / "run"), *SMALL, *more]))


def test_questions_from_a_webdataset(tmp_path, scenes):
    source = write_shards(tmp_path / "shards", question_members(scenes))
    run = start_vqa(tmp_path, scenes, source)
    assert [row["epoch"] for row in history(run)] == [1, 2]
    assert read_json(run / "metrics.json")["test"]["n"] == len(read_csv(scenes / "test.csv"))
    assert "a stream" in (run / "report.md").read_text(encoding="utf-8")
    answerer = Answerer.from_pretrained(run / "checkpoints" / "last")
    row = read_csv(scenes / "test.csv")[0]
    assert len(answerer([scenes / row["image"]], [row["question"]])[0]) == 1


def test_questions_from_a_table_with_the_words_of_a_checkpoint_and_an_unbroken_resume(tmp_path, scenes):
    rows = [row | {"image": str(Path(row["image"]))} for row in read_csv(scenes / "train.csv")]
    write_csv(tmp_path / "train.csv", rows)
    source = str(tmp_path / "train.csv")
    run = start_vqa(tmp_path, scenes, source, "--no-test")
    words = str(run / "checkpoints" / "last")
    whole = start_vqa(tmp_path, scenes, source, "--no-test", "--vocabulary", words, "--output", str(tmp_path / "whole"))
    assert history(whole) and [r["train_loss"] for r in history(whole)] == [r["train_loss"] for r in history(run)]
    part = ["--output", str(tmp_path / "part"), "--no-test"]
    start_vqa(tmp_path, scenes, source, *part, "--epochs", "1", "--schedule", "constant", "--warmup", "0")
    train_vqa(parse(TrainVqaOptions, ["--resume", "--output", str(tmp_path / "part"), "--epochs", "2"]))
    steady = ["--output", str(tmp_path / "steady"), "--no-test", "--schedule", "constant", "--warmup", "0"]
    start_vqa(tmp_path, scenes, source, *steady)
    losses = [[row["train_loss"] for row in history(tmp_path / name)] for name in ("part", "steady")]
    assert losses[0] == losses[1]


def test_a_streamed_photo_that_is_scored_is_refused(tmp_path, scenes):
    members = question_members(scenes)
    members[3]["png"] = (scenes / read_csv(scenes / "test.csv")[0]["image"]).read_bytes()
    source = write_shards(tmp_path / "shards", members)
    with pytest.raises(UserError, match="row 000003: its photo is in validation or test"):
        start_vqa(tmp_path, scenes, source)


def test_clips_from_a_webdataset(tmp_path):
    clips = write_clips(tmp_path / "clips", clips={"train": 8, "validation": 6, "test": 6})
    members = [
        {"avi": (clips / row["path"]).read_bytes(), "json": json.dumps({"label": row["label"]}).encode()}
        for row in read_csv(clips / "train.csv")
    ]
    source = write_shards(tmp_path / "shards", members)
    given = ["--streaming", source, "--stream-steps", "3", "--data", str(clips), "--cache", str(tmp_path / "cache")]
    run = train_video(parse(TrainVideoOptions, [*given, "--output", str(tmp_path / "run"), *SMALL_CLIPS]))
    assert len(history(run)) == 2 and read_json(run / "metrics.json")["test"]["n"] == 6


def test_what_does_not_go_with_a_stream():
    needed = ["--streaming", "a.tar", "--stream-steps", "3", "--data", "d"]
    for options, arguments, message in (
        (TrainVqaOptions, ["--streaming", "a.tar", "--data", "d"], "--stream-steps"),
        (TrainVqaOptions, ["--streaming", "a.tar", "--stream-steps", "3"], "add --data"),
        (TrainVqaOptions, ["--stream-steps", "3"], "is of --streaming"),
        (TrainVqaOptions, ["--vocabulary", "x"], "are of --streaming"),
        (TrainVqaOptions, [*needed, "--limit", "3"], "need an index"),
        (TrainVqaOptions, [*needed, "--train-encoder", "none"], "BatchNorm"),
        (TrainVideoOptions, [*needed, "--folds", "5"], "leave --folds out"),
        (TrainVideoOptions, [*needed, "--sampling", "random"], "leave --sampling random out"),
    ):
        with pytest.raises(UserError, match=message):
            parse(options, arguments)
