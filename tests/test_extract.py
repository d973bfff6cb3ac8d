"""Features as a file: heads learn from it what they learn from the clips, and its index keeps the splits."""

import csv
import shutil
from pathlib import Path, PurePath

import pytest
import torch
from safetensors.torch import load_file
from video_helpers import read_csv, read_json, write_clip, write_csv, write_set

import video.extract
from common.config import parse
from common.errors import UserError
from video.extract import extract
from video.extract_options import ExtractOptions
from video.model import VideoModel
from video.options import TrainVideoOptions
from video.scoring import load_source
from video.stored import INDEX, load_stored
from video.train import train

ENCODER = "--depth 2 --width 4 --image-size 16 --sampling all --frames 3 --seed 5 --workers 0".split()  # random weights
CLIP_FRAMES = [1 + number % 6 for number in range(24)]  # as `write_set` makes them
POOL = ("--pool", 2)
SPLITS = {"train": 12, "validation": 6, "test": 6}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "clips")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def options(clips, cache):
    def options(output: Path, *more: object, data: Path = clips) -> ExtractOptions:
        given = ["--data", data, "--output", output, "--cache", cache, *ENCODER, *POOL, *more]
        return parse(ExtractOptions, list(map(str, given)))

    return options


@pytest.fixture(scope="module")
def file(options, tmp_path_factory) -> Path:
    """Features of the small set, only read by the tests."""
    return extract(options(tmp_path_factory.mktemp("features") / "small.safetensors"))


@pytest.fixture
def copied(file, tmp_path) -> Path:
    return Path(shutil.copytree(file.parent, tmp_path / "copied")) / file.name


def refusal(call, *arguments, **keywords) -> str:
    with pytest.raises(UserError) as refused:
        call(*arguments, **keywords)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def same_head(monkeypatch):
    """Heads start alike whatever was drawn before them: with clips, the encoder's weights are."""
    original = VideoModel.post_init

    def post_init(model):
        original(model)
        draw = torch.Generator().manual_seed(0)
        for parameter in model.head.parameters():
            with torch.no_grad():
                parameter.uniform_(-0.3, 0.3, generator=draw)

    monkeypatch.setattr(VideoModel, "post_init", post_init)


@pytest.mark.parametrize("head", ["lstm", "mean"])
def test_heads_learn_from_the_file_what_they_learn_from_the_clips(file, clips, cache, tmp_path, same_head, head):
    shared = ["--cache", cache, "--head", head, "--hidden", 8, "--batch-size", 4, "--epochs", 2]
    from_clips = ["--data", clips, "--train-encoder", "none", *ENCODER, *POOL]
    sources = {"clips": from_clips, "file": ["--features", file, "--seed", 5]}
    runs = [
        train(parse(TrainVideoOptions, [str(value) for value in (*given, *shared, "--output", tmp_path / name)]))
        for name, given in sources.items()
    ]
    metrics, others = (read_json(run / "metrics.json") for run in runs)
    assert metrics == others and metrics["test"]["n"] == 6
    said, also = (read_csv(run / "predictions-test.csv") for run in runs)
    names = ("group", "gold", "predicted", "probability")
    assert [[row[name] for name in names] for row in said] == [[row[name] for name in names] for row in also]
    assert len({row["probability"] for row in said}) > 1


def test_the_cache_of_trainings_is_used(file, options, tmp_path, monkeypatch):
    """Nothing is computed a second time, and the same bytes come out."""
    monkeypatch.setattr("common.features._extract", lambda *_, **__: pytest.fail("computed again"))
    (tmp_path / "again").mkdir()
    again = extract(options(tmp_path / "again" / "again.safetensors"))
    assert again.read_bytes() == file.read_bytes()


def test_every_frame_of_every_clip_is_in_it(file):
    tensors = load_file(file)
    assert tensors["features"].dtype == torch.float16
    assert tensors["features"].shape == (sum(CLIP_FRAMES), 8 * 2 * 2)  # channels of the second block, pool × pool cells
    assert tensors["lengths"].tolist() == CLIP_FRAMES


def test_the_index_names_clips_labels_groups_and_splits_and_no_place_on_this_machine(file, clips):
    rows = read_csv(file.with_name(INDEX))
    wanted = []
    for split in SPLITS:
        for row in read_csv(clips / f"{split}.csv"):
            wanted.append(row | {"path": PurePath(row["path"]).name, "split": split})
    assert rows == wanted
    assert sorted(path.name for path in file.parent.iterdir()) == [INDEX, file.name]


def test_splits_that_were_made_stay_the_same(cache, options, tmp_path):
    """From one table: whoever trains on the file has the validation and test clips of a training on the clips."""
    rows = []
    for number in range(16):
        path = write_clip(tmp_path / "set" / "ab"[number // 2 % 2] / f"{number:02d}.avi", seed=number, count=2)
        rows.append({"path": f"{path.parent.name}/{path.name}", "label": "ab"[number // 2 % 2], "group": number // 2})
    table = write_csv(tmp_path / "set" / "all.csv", rows)
    made = ["--split-seed", 3, "--test-fraction", 0.4, "--validation-fraction", 0.3]
    file = extract(options(tmp_path / "made.safetensors", *made, data=table))
    stored, _ = load_stored(str(file))
    given = ["--data", table, "--cache", cache, *made]
    data, _ = load_source(parse(TrainVideoOptions, list(map(str, given))), cache)
    for split, clips in data.splits.items():
        paths = [Path(path).relative_to(table.parent).as_posix() for path in clips["path"][:]]
        assert stored.splits[split]["path"][:] == paths
        assert stored.splits[split]["group"][:] == clips["group"][:]


def test_what_comes_next_is_told(file, options, tmp_path, capsys):
    path = tmp_path / "two.safetensors"
    extract(options(path, "--classes", "nhảy", "chạy"))
    told = capsys.readouterr().out
    assert f"{path}: 16 clips (train 8, validation 4, test 4)" in told and "32 numbers each" in told
    assert f"python scripts/train_video.py --features {path} --classes nhảy chạy" in told.replace("'", "")


# --- what is there already --------------------------------------------------------------------------------------------


def test_a_file_is_replaced_only_when_asked(copied, options):
    before = copied.read_bytes(), copied.with_name(INDEX).read_bytes()
    assert "add --overwrite" in refusal(extract, options(copied))
    assert (copied.read_bytes(), copied.with_name(INDEX).read_bytes()) == before
    extract(options(copied, "--classes", "chạy", "ngã", "--overwrite"))
    assert {row["label"] for row in read_csv(copied.with_name(INDEX))} == {"chạy", "ngã"}
    assert len(load_file(copied)["lengths"]) == 16
    assert sorted(path.name for path in copied.parent.iterdir()) == [INDEX, copied.name]


def test_a_failure_leaves_what_was_there(copied, options, monkeypatch):
    before = copied.read_bytes(), copied.with_name(INDEX).read_bytes()
    original = video.extract._clips

    def broken(*arguments):
        for number, (row, features) in enumerate(original(*arguments)):
            yield row, features if number < 20 else features.float() * 1e9

    monkeypatch.setattr(video.extract, "_clips", broken)
    assert "not all finite numbers in float16" in refusal(extract, options(copied, "--overwrite"))
    assert (copied.read_bytes(), copied.with_name(INDEX).read_bytes()) == before
    assert sorted(path.name for path in copied.parent.iterdir()) == [INDEX, copied.name]


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_the_index_of_something_else_is_never_replaced(options, tmp_path, more):
    index = tmp_path / INDEX
    with index.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(["somebody's", "table"])
    before = index.read_bytes()
    assert "is there and is not its index" in refusal(extract, options(tmp_path / "new.safetensors", *more))
    assert index.read_bytes() == before and list(tmp_path.iterdir()) == [index]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (["--output", "features.npz"], "features.npz: features are written to a .safetensors file"),
        (["--train-encoder", "all"], "--train-encoder all: features are a frozen encoder's"),
        (["--augment", "flip", "--views", 2], "--augment: belongs to a training"),
        (["--frame-order", "shuffled"], "--frame-order: belongs to a training"),
        (["--sampling", "random"], "--sampling random: a file holds one choice"),
        (["--resize", "pad"], "--resize pad: frames are cropped"),
        (["--encoder", "mobilenet"], "mobilenet"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, tmp_path, given, match):
    assert match in refusal(lambda: extract(options(tmp_path / "new.safetensors", *given)))
    assert list(tmp_path.iterdir()) == []


def test_features_are_not_extracted_from_features(file, tmp_path):
    given = ["--features", file, "--output", tmp_path / "new.safetensors"]
    assert "computed already" in refusal(parse, ExtractOptions, list(map(str, given)))


def test_bad_clips_are_told_or_left_out(clips, options, tmp_path):
    bad = Path(shutil.copytree(clips, tmp_path / "bad"))
    (bad / "clips" / "train03.avi").write_bytes(b"")
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "new.safetensors"
    assert "train03.avi: the file is empty" in refusal(extract, options(output, data=bad))
    assert list(output.parent.iterdir()) == []
    extract(options(output, "--on-bad-clip", "skip", data=bad))
    assert len(load_file(output)["lengths"]) == 23


def test_the_script_needs_an_output(run_script):
    result = run_script("scripts/extract_features.py", check=False)
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "extract_features.py: error: --output is missing" in result.stderr
