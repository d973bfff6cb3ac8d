"""The VQA commands as a user runs them: what a run leaves behind, what repeats, what is refused and how.

Most of it calls what a script calls, in this process; what only a process has (exit codes, standard error, several
processes) is run for real, a few times, for each start costs seconds of imports.
"""

import csv
import json
import os
import re
import shutil
import sys
import unicodedata
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from accelerate.utils import is_torch_version
from PIL import Image
from safetensors.torch import load_file, save_file

from common.config import parse
from common.encoders import build_encoder
from common.errors import UserError
from common.options import CHECKPOINTS
from vqa.batches import QuestionBatches
from vqa.options import EvaluateOptions, PredictVqaOptions, TrainVqaOptions
from vqa.predict import predict
from vqa.scoring import evaluate_run
from vqa.shapes import write_shapes
from vqa.train import train

SMALL = (
    "--depth 3 --width 4 --image-size 32 --embedding 8 --hidden 16 --projection 16 --attention-hidden 16 "
    "--fusion-hidden 16 --batch-size 8 --epochs 2 --workers 0"
).split()
STEADY = (  # nothing random and nothing that depends on the batch: no dropout, and the encoder frozen
    "--train-encoder none --question-dropout 0 --cell-dropout 0 --attention-dropout 0 --dropout 0 "
    "--feature-precision fp32"
).split()
PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"}
TWO_PROCESSES = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A small data set in the ordinary contract: 24 photos to train on, 12 and 12 to score."""
    return write_shapes(tmp_path_factory.mktemp("data") / "scenes", train=24, validation=12, test=12, size=32)


@pytest.fixture
def copied(scenes, tmp_path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(scenes, tmp_path / "copied"))


@pytest.fixture(scope="module")
def start(scenes, tmp_path_factory):
    """Train on the small data set with a small model, as `scripts/train_vqa.py` would."""
    cache = tmp_path_factory.mktemp("cache")

    def start(output: Path, *more: object, data: Path = scenes) -> Path:
        given = ["--data", data, "--output", output, "--cache", cache, *SMALL, *more]
        return train(parse(TrainVqaOptions, list(map(str, given))))

    return start


@pytest.fixture(scope="module")
def run(start, tmp_path_factory) -> Path:
    """One trained run, only read by the tests."""
    return start(tmp_path_factory.mktemp("runs") / "run")


def evaluated(*arguments: object) -> dict:
    return evaluate_run(parse(EvaluateOptions, list(map(str, arguments))))


def predicted(*arguments: object) -> None:
    predict(parse(PredictVqaOptions, list(map(str, arguments))))


def refusal(call, *arguments, **keywords) -> str:
    """The one line with which something is refused."""
    with pytest.raises(UserError) as refused:
        call(*arguments, **keywords)
    message = str(refused.value)
    assert message and "\n" not in message and "Traceback" not in message
    return message


def assert_one_line(result, *parts: str) -> None:
    """Exit code 2 and one line on standard error that has these parts."""
    assert result.returncode == 2, result.stdout + result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in result.stderr, result.stderr
    for part in parts:
        assert part in lines[0]


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def history(run: Path) -> list[dict]:
    """`history.jsonl` without how long each epoch took, and where it was taken up again."""
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "resumed")} for row in rows]


def assert_same_figures(found: dict, wanted: dict) -> None:
    """Those of one split, but for the last digits."""
    assert found.keys() == wanted.keys() and found["by_type"].keys() == wanted["by_type"].keys()
    rows = [(found | {"by_type": None}, wanted | {"by_type": None})]
    rows += [(found["by_type"][name], row) for name, row in wanted["by_type"].items()]
    for one, other in rows:
        assert one == pytest.approx(other, abs=1e-6)


def assert_same_run(one: Path, other: Path) -> None:
    """The same figures and the same weights, to the bit."""
    assert read_json(one / "metrics.json") == read_json(other / "metrics.json")
    assert history(one) == history(other)
    for name in CHECKPOINTS:
        weights, others = (load_file(path / "checkpoints" / name / "model.safetensors") for path in (one, other))
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[key], others[key]) for key in weights), name


# --- the run directory ------------------------------------------------------------------------------------------------


def test_the_first_command_needs_no_data(run_script, tmp_path):
    """The embedded data set, in a process of its own, and everything the run directory promises."""
    run = tmp_path / "run"
    result = run_script("scripts/train_vqa.py", "--attention", "--limit", 24, "--output", run, *SMALL)
    for part in ("attention over: grid", "first batch", "limit: only the first 24 photos", "| all ", "seed: 0"):
        assert part in result.stdout
    told = json.loads(result.stdout.splitlines()[-1])
    assert told == {"run": str(run), "task": "vqa", "metrics": read_json(run / "metrics.json")}
    assert "next:" not in result.stdout and "%|" not in result.stderr  # nobody looks
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr

    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["epochs"] == 2 and config["limit"] == 24 and config["data"] is None and config["attention"] is True
    assert read_json(run / "environment.json")["packages"]["torch"] == version("torch")
    rows = history(run)
    assert [row["epoch"] for row in rows] == [1, 2]
    figures = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate")
    assert all(isinstance(row[name], float) for row in rows for name in figures)

    metrics = read_json(run / "metrics.json")
    assert set(metrics) == {"validation", "test"}
    for split, of_split in metrics.items():
        assert isinstance(of_split["loss"], float) and isinstance(of_split["accuracy"], float)
        assert 0 <= of_split["accuracy"] <= 1 and isinstance(of_split["n"], int)
        types = of_split["by_type"].values()
        assert sum(row["n"] for row in types) == of_split["n"] > 24
        assert all(isinstance(row["accuracy"], float) and 0 <= row["accuracy"] <= 1 for row in types)
        samples = read_csv(run / f"predictions-{split}.csv")
        assert list(samples[0])[:6] == ["id", "group", "type", "gold", "predicted", "probability"]
        assert len(samples) == of_split["n"] == len({row["id"] for row in samples})
        right = sum(row["gold"] == row["predicted"] for row in samples) / len(samples)
        assert right == pytest.approx(of_split["accuracy"])
        assert all(0 < float(row["probability"]) <= 1 for row in samples)

    for name in CHECKPOINTS:
        files = {path.name for path in (run / "checkpoints" / name).iterdir()}
        assert {"model.safetensors", "config.json", "answers.json", "preprocessing.json"} <= files
        assert ("state.safetensors" in files) is (name == "last")
    everything = [path for path in run.rglob("*") if path.is_file()]
    assert not [path for path in everything if path.suffix in PICKLES | {".new", ".old"}]
    assert not [path for path in everything if path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK")]
    for name in ("curves", "accuracy-test", "confusion-test", "examples"):
        with Image.open(run / f"{name}.png") as picture:
            assert min(picture.size) > 200
        assert "<svg" in (run / f"{name}.svg").read_text(encoding="utf-8")
    report = (run / "report.md").read_text(encoding="utf-8")
    assert (
        "curves.png" in report
        and "](accuracy-validation.png)" in report
        and "scored: checkpoints/best_accuracy" in report
        and "test accuracy" in report
    )
    assert f"{metrics['test']['accuracy']:.4f}" in report and "the ceiling of accuracy" in report


def test_the_same_seed_is_the_same_run_and_another_is_not(run, start, tmp_path):
    assert_same_run(run, start(tmp_path / "again"))
    other = start(tmp_path / "other", "--seed", 1)
    assert history(run) != history(other)


def test_config_yaml_repeats_the_run(run, tmp_path):
    options = parse(TrainVqaOptions, ["--config", str(run / "config.yaml"), "--output", str(tmp_path / "again")])
    assert_same_run(run, train(options))
    assert "exists" in refusal(train, parse(TrainVqaOptions, ["--config", str(run / "config.yaml")]))


def test_no_test_leaves_test_unopened(run, start, copied, tmp_path):
    """The figures that are left are the same ones, whatever is in the test split."""
    rows = read_csv(copied / "test.csv")
    write_csv(copied / "test.csv", [row | {"answer": "bí mật"} for row in rows])
    tuned = start(tmp_path / "tuned", "--no-test", data=copied)
    metrics = read_json(tuned / "metrics.json")
    assert metrics == {"validation": read_json(run / "metrics.json")["validation"]}
    assert not (tuned / "predictions-test.csv").exists()
    assert "test was not opened" in (tuned / "report.md").read_text(encoding="utf-8")


def test_train_may_be_scored_and_a_random_encoder_be_the_same_for_all_seeds(start, tmp_path):
    more = ["--train-encoder", "none", "--encoder-seed", 3, "--epochs", 1, "--score-train", "--no-test"]
    runs = [start(tmp_path / f"run{seed}", *more, "--seed", seed) for seed in (0, 1)]
    metrics = read_json(runs[0] / "metrics.json")
    assert list(metrics) == ["validation", "train"] and metrics["train"]["n"] > metrics["validation"]["n"]
    assert len(read_csv(runs[0] / "predictions-train.csv")) == metrics["train"]["n"]
    one, other = (load_file(run / "checkpoints" / "last" / "model.safetensors") for run in runs)
    names = [name for name in one if name.startswith("encoder.")]
    assert all(torch.equal(one[name], other[name]) for name in names)
    means = [one[name] for name in names if name.endswith("running_mean")]
    assert means and all(mean.abs().max() > 0 for mean in means)  # of training images: a random net has none


def test_without_attention_there_is_nothing_to_attend_with(start, run, scenes, tmp_path):
    blunt = start(tmp_path / "blunt", "--no-attention")
    names = load_file(blunt / "checkpoints" / "last" / "model.safetensors").keys()
    assert not [name for name in names if "attention" in name]
    assert [name for name in load_file(run / "checkpoints" / "last" / "model.safetensors") if "attention" in name]
    photo, out = scenes / "images" / "200000.png", tmp_path / "map.png"
    asked = ("--run", blunt, "--image", photo, "--question", "ở giữa là hình gì")
    assert "trained without attention" in refusal(predicted, *asked, "--attention-map", out)
    assert not out.exists()


def test_a_blind_model_needs_no_photos(start, copied, tmp_path):
    shutil.rmtree(copied / "images")
    blind = start(tmp_path / "blind", "--inputs", "question", data=copied)
    assert set(read_json(blind / "metrics.json")) == {"validation", "test"}
    again = evaluated(blind, "--data", copied / "test.csv", "--workers", 0)
    assert_same_figures(again["test"], read_json(blind / "metrics.json")["test"])
    rows = [{"question": "ở giữa là hình gì"}, {"question": "hình ở giữa màu gì"}]
    questions = write_csv(tmp_path / "questions.csv", rows)
    predicted("--run", blind, "--input", questions, "--output", tmp_path / "answers.csv")
    assert [row["question"] for row in read_csv(tmp_path / "answers.csv")] == [row["question"] for row in rows]


def test_several_reference_answers_are_scored_softly(start, copied, tmp_path):
    for split in ("train", "validation", "test"):
        rows = read_csv(copied / f"{split}.csv")
        lines = [
            {"image": row["image"], "question": row["question"], "answers": [row["answer"]] * 2 + ["khác"]}
            for row in rows
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (copied / f"{split}.jsonl").write_text(text, encoding="utf-8")
        (copied / f"{split}.csv").unlink()
    several = start(tmp_path / "several", data=copied)
    test = read_json(several / "metrics.json")["test"]
    # two of three people: leave one of them out and it is 1/3, leave the third out and it is 2/3
    assert test["soft_accuracy"] == pytest.approx(test["accuracy"] * 2 / 3)


def test_an_answer_never_seen_counts_as_wrong_and_the_report_stays_json(start, copied, tmp_path):
    rows = read_csv(copied / "test.csv")
    write_csv(copied / "test.csv", [row | {"answer": "bí mật", "type": "secret"} for row in rows[:5]] + rows[5:])
    metrics = read_json(start(tmp_path / "run", data=copied) / "metrics.json")["test"]
    assert metrics["by_type"]["secret"] == {"accuracy": 0.0, "n": 5, "loss": None}
    assert metrics["n_outside_vocabulary"] == 5 and metrics["loss"] > 0
    assert "NaN" not in (tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")


def test_tensorboard_has_every_epoch(start, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = start(tmp_path / "run", "--tracker", "tensorboard")
    (events,) = (run / "tensorboard").rglob("events.out.*")
    accumulator = EventAccumulator(str(events.parent))
    accumulator.Reload()
    logged = [round(event.value, 5) for event in accumulator.Scalars("validation_loss")]
    assert logged == [round(row["validation_loss"], 5) for row in history(run)]
    assert evaluated(run, "--workers", 0)["test"]["n"] == read_json(run / "metrics.json")["test"]["n"]


def test_mixed_precision_trains(start, tmp_path):
    AcceleratorState._reset_state(True)  # one process has one precision, but for tests
    try:
        metrics = read_json(start(tmp_path / "run", "--precision", "bf16") / "metrics.json")
    finally:
        AcceleratorState._reset_state(True)
    assert 0 < metrics["test"]["loss"] < 10


# --- going on ---------------------------------------------------------------------------------------------------------


def interrupt(monkeypatch, start, run: Path, *more: object, after: int) -> None:
    """Train as if Ctrl-C were pressed when the batch after so many is asked for."""
    original, asked = QuestionBatches.__getitems__, []

    def interrupted(self, keys):
        asked.append(keys)
        if len(asked) > after:
            raise KeyboardInterrupt
        return original(self, keys)

    with monkeypatch.context() as patched:
        patched.setattr(QuestionBatches, "__getitems__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start(run, *more)


@pytest.mark.parametrize("frozen", [(), ("--train-encoder", "none")], ids=["trained encoder", "frozen encoder"])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(start, tmp_path, monkeypatch, frozen):
    more = ("--epochs", 3, *frozen)
    whole = start(tmp_path / "whole", *more)
    broken = tmp_path / "broken"
    interrupt(monkeypatch, start, broken, *more, after=2 * 5 + 1)  # 3 batches to train, 2 to validate: in epoch 3
    assert [row["epoch"] for row in history(broken)] == [1, 2] and not (broken / "metrics.json").exists()
    train(parse(TrainVqaOptions, ["--output", str(broken), "--resume"]))  # with its own saved options
    assert_same_run(whole, broken)


def test_resume_of_a_run_without_an_epoch_says_what_to_do(start, tmp_path, monkeypatch):
    interrupt(monkeypatch, start, tmp_path / "run", after=2)
    message = refusal(train, parse(TrainVqaOptions, ["--output", str(tmp_path / "run"), "--resume"]))
    assert "stopped before its first checkpoint; start it anew with --overwrite" in message


def test_resume_with_more_epochs_goes_on(start, run, tmp_path):
    longer = Path(shutil.copytree(run, tmp_path / "longer"))
    before = history(longer)
    start(longer, "--resume", "--epochs", 4)
    assert [row["epoch"] for row in history(longer)] == [1, 2, 3, 4] and history(longer)[:2] == before
    assert yaml.safe_load((longer / "config.yaml").read_text(encoding="utf-8"))["epochs"] == 4


def test_resume_refuses_other_options_and_other_data(start, run, copied, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    message = refusal(start, other, "--resume", "--hidden", 32)
    assert "started with hidden = 16, not 32" in message
    assert "started with data = " in refusal(start, other, "--resume", data=copied)
    assert before == {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    own = start(tmp_path / "own", data=copied)
    rows = read_csv(copied / "train.csv")
    write_csv(copied / "train.csv", [rows[0] | {"answer": f"{rows[0]['answer']} mới"}, *rows[1:]])
    assert "training data are not those" in refusal(start, own, "--resume", data=copied)
    assert "holds no run" in refusal(start, tmp_path / "nowhere", "--resume")
    assert "--output" in refusal(parse, TrainVqaOptions, ["--resume"])


def test_an_output_that_exists_is_refused_and_overwritten_only_when_all_is_well(start, run, copied, tmp_path):
    old = Path(shutil.copytree(run, tmp_path / "old"))
    (old / "metrics.json").write_text("{}", encoding="utf-8")
    assert "exists; choose another" in refusal(start, old)
    (copied / "validation.csv").write_text("image,question\n", encoding="utf-8")
    refusal(start, old, "--overwrite", data=copied)
    assert read_json(old / "metrics.json") == {}  # the old run is still there
    assert_same_run(run, start(old, "--overwrite"))


def test_views_need_a_frozen_stage(start, tmp_path):
    given = "--augment flip --views 4 --train-encoder block1".split()
    assert "no stage of custom_cnn is frozen" in refusal(start, tmp_path / "run", *given)
    assert not (tmp_path / "run").exists()


RECIPE = (
    "--stages color block1 block3 --train-encoder block3 --augment flip turn --views 8 --test-augment flip turn "
    "--weight-averaging 0.9 --label-smoothing 0.1"
).split()


def test_kept_views_ways_round_and_averaged_weights_are_scored_as_they_predict(start, scenes, tmp_path):
    run = start(tmp_path / "run", *RECIPE)
    figures = read_json(run / "metrics.json")["test"]
    assert_same_figures(evaluated(run, "--data", scenes / "test.csv")["test"], figures)
    predicted("--run", run, "--input", scenes / "test.csv", "--output", tmp_path / "answers.csv")
    said = [row["answer"] for row in read_csv(tmp_path / "answers.csv")]
    scored = [row["predicted"] for row in read_csv(run / "predictions-test.csv")]
    assert sum(a == b for a, b in zip(said, scored, strict=True)) >= 0.98 * len(
        scored
    )  # but for ties in the last digit
    # on the fly instead of from the cache: the same frozen stages, other views
    fresh = start(tmp_path / "fresh", *RECIPE, "--views", "1")
    assert read_json(fresh / "metrics.json")["test"]["n"] == figures["n"]
    # stopped after one epoch and resumed: the weights in training, not their mean, go on
    start(tmp_path / "broken", *RECIPE, "--epochs", 2, "--schedule", "constant")
    start(tmp_path / "short", *RECIPE, "--epochs", 1, "--schedule", "constant")
    resumed = start(tmp_path / "short", "--resume", "--epochs", 2)
    assert_same_run(tmp_path / "broken", resumed)


# --- scoring again ----------------------------------------------------------------------------------------------------


def test_evaluate_gives_the_run_its_own_figures(run, run_script, scenes, tmp_path):
    out = tmp_path / "out.json"
    result = run_script("scripts/evaluate.py", run, "--data", scenes / "test.csv", "--output", out, "--workers", 0)
    wanted = read_json(run / "metrics.json")["test"]
    assert set(read_json(out)) == {"test"}
    assert_same_figures(read_json(out)["test"], wanted)
    assert f"{wanted['accuracy']:.4f}" in result.stdout and "best_accuracy" in result.stdout


def test_evaluate_takes_the_runs_own_data_and_any_other_file(run, copied, tmp_path):
    metrics = read_json(run / "metrics.json")
    assert evaluated(run, "--workers", 0)["test"]["accuracy"] == metrics["test"]["accuracy"]
    validation = evaluated(run, "--split", "validation", "--workers", 0)
    assert validation["validation"]["loss"] == pytest.approx(metrics["validation"]["loss"], abs=1e-6)
    rows = read_csv(copied / "test.csv")
    heldout = write_csv(copied / "heldout.csv", rows[:10])
    samples = tmp_path / "samples.csv"
    found = evaluated(run, "--data", heldout, "--predictions", samples, "--workers", 0)
    assert set(found) == {"heldout"} and found["heldout"]["n"] == 10
    expected = read_csv(run / "predictions-test.csv")[:10]
    for one, other in zip(read_csv(samples), expected, strict=True):
        assert one | {"id": "", "probability": ""} == other | {"id": "", "probability": ""}
    last = evaluated(run, "--split", "validation", "--checkpoint", "last", "--workers", 0)["validation"]
    assert last["loss"] == pytest.approx(history(run)[-1]["validation_loss"], abs=1e-6)


def test_a_train_file_given_as_test_is_refused_with_the_count(run, run_script, scenes, copied, tmp_path):
    out = tmp_path / "out.json"
    result = run_script("scripts/evaluate.py", run, "--data", scenes / "train.csv", "--output", out, check=False)
    assert_one_line(result, "evaluate.py: error: leak: 100 %", "photos 24 of 24", "--allow-leaky-split")
    assert not out.exists()
    rows = read_csv(copied / "train.csv")
    seen = rows[0]["image"]
    mixed = read_csv(copied / "test.csv") + [row for row in rows if row["image"] == seen]
    mixed = write_csv(copied / "mixed.csv", mixed)
    assert "photos 1 of 13" in refusal(evaluated, run, "--data", mixed)
    # the same photo under another name and in another group is the same photo
    shutil.copy(copied / seen, copied / "images" / "new.png")
    renamed = [row | {"image": "images/new.png", "group": "new"} for row in rows if row["image"] == seen]
    renamed = write_csv(copied / "renamed.csv", renamed)
    assert "photos 1 of 1" in refusal(evaluated, run, "--data", renamed)
    assert evaluated(run, "--data", mixed, "--allow-leaky-split", "--workers", 0)["mixed"]["n"] > 90


def test_evaluate_refuses_what_it_cannot_use(run, copied, tmp_path):
    assert "not a run directory" in refusal(evaluated, copied)
    assert "not a run directory" in refusal(evaluated, tmp_path / "nowhere")
    there = tmp_path / "there.json"
    there.write_text("{}", encoding="utf-8")
    assert "exists" in refusal(evaluated, run, "--output", there)
    assert "no folder" in refusal(evaluated, run, "--output", tmp_path / "nowhere" / "out.json")
    (copied / "empty.csv").write_text("", encoding="utf-8")
    assert "empty.csv" in refusal(evaluated, run, "--data", copied / "empty.csv")
    foreign = Path(shutil.copytree(run, tmp_path / "foreign"))
    environment = read_json(foreign / "environment.json") | {"task": "video"}
    (foreign / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    assert "is a video run" in refusal(evaluated, foreign)
    shutil.rmtree(foreign / "checkpoints" / "best_accuracy")
    (foreign / "environment.json").write_text(json.dumps(environment | {"task": "vqa"}), encoding="utf-8")
    assert "best_accuracy: no such checkpoint" in refusal(evaluated, foreign)


def test_evaluate_skips_bad_photos_and_counts_them(run, copied, capsys):
    rows = read_csv(copied / "test.csv")
    spoiled = {rows[0]["image"], rows[-1]["image"]}
    (copied / rows[0]["image"]).write_bytes(b"no photo")
    (copied / rows[-1]["image"]).unlink()
    count = sum(row["image"] in spoiled for row in rows)
    message = refusal(evaluated, run, "--data", copied / "test.csv")
    assert "test.csv, row 2: " in message and rows[0]["image"] in message
    figures = evaluated(run, "--data", copied / "test.csv", "--on-bad-image", "skip", "--workers", 0)
    assert figures["test"]["n"] == len(rows) - count
    assert f"skipped: {count} of {len(rows)} rows" in capsys.readouterr().out


# --- asking -----------------------------------------------------------------------------------------------------------


def test_ask_one_photo(run, run_script, scenes, capsys):
    photo, question = scenes / "images" / "200000.png", "hình ở góc trên bên trái màu gì"
    result = run_script("scripts/predict_vqa.py", "--run", run, "--image", photo, "--question", question)
    lines = result.stdout.splitlines()
    assert lines[0] == question and len(lines) == 6 and all(re.match(r" +\d+\.\d% +\S", line) for line in lines[1:])
    assert not result.stderr
    answers = []
    for asked in (question, unicodedata.normalize("NFD", question), question.upper(), f"{question.capitalize()} ?"):
        predicted("--run", run, "--image", photo, "--question", asked, "--json", "--top", 3)
        printed = json.loads(capsys.readouterr().out)
        assert set(printed) == {"image", "question", "answers"} and len(printed["answers"]) == 3
        answers.append(printed["answers"])
    assert answers[1:] == answers[:1] * 3
    assert answers[0][0]["answer"] == lines[1].split("%")[1].strip()
    chances = [row["probability"] for row in answers[0]]
    assert chances == sorted(chances, reverse=True) and 0 < sum(chances) <= 1
    predicted("--run", run, "--image", photo, "--question", "ở giữa có hình gì", "--json", "--top", 3)
    assert json.loads(capsys.readouterr().out)["answers"] != answers[0]  # it does read the question


@pytest.mark.parametrize("over", ["grid", "words", "both"])
def test_attention_maps_are_pictures(start, run, tmp_path, capsys, over):
    asked = run if over == "grid" else start(tmp_path / over, "--attention-over", over, "--epochs", 1)
    photo = tmp_path / "ảnh.jpg"
    Image.effect_noise((90, 40), 80).convert("RGB").save(photo)
    out = tmp_path / "map.png"
    predicted("--run", asked, "--image", photo, "--question", "ở giữa là hình gì", "--attention-map", out)
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as picture:
        assert 300 < picture.width < 3000 and 200 < picture.height < 2000
        assert len(picture.convert("RGB").resize((64, 64)).getcolors(4096)) > 50
    predicted("--run", asked, "--image", photo, "--question", "x", "--json", "--attention-map", out.with_suffix(".svg"))
    assert json.loads(capsys.readouterr().out)["attention_map"] == str(out.with_suffix(".svg"))
    assert b"<svg" in out.with_suffix(".svg").read_bytes()
    given = ("--run", asked, "--image", photo, "--question", "x", "--attention-map", tmp_path / "map.xyz")
    assert "map.xyz" in refusal(predicted, *given)


def test_a_table_in_a_table_out(run, scenes, tmp_path, capsys):
    rows = read_csv(scenes / "test.csv")[:40]  # more than one batch
    questions = write_csv(tmp_path / "q.csv", [{"image": row["image"], "question": row["question"]} for row in rows])
    out = tmp_path / "answers.csv"
    predicted("--run", run, "--input", questions, "--images", scenes, "--output", out)
    answers = read_csv(out)
    assert list(answers[0]) == ["image", "question", "answer", "probability"]
    assert [(row["image"], row["question"]) for row in answers] == [(row["image"], row["question"]) for row in rows]
    scored = read_csv(run / "predictions-test.csv")[:40]
    assert [row["answer"] for row in answers] == [row["predicted"] for row in scored]
    for one, other in zip(answers, scored, strict=True):
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-4)
    assert "40 answers" in capsys.readouterr().out
    assert "exists" in refusal(predicted, "--run", run, "--input", questions, "--images", scenes, "--output", out)
    predicted("--run", run, "--input", questions, "--images", scenes, "--output", out, "--overwrite")


def test_a_folder_of_photos_and_one_question(run, copied, tmp_path, capsys):
    photos = sorted(copied.glob("images/2*.png"))
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in photos[:5]:
        shutil.copy(photo, folder)
    (folder / "notes.txt").write_text("not a photo", encoding="utf-8")
    asked = ("--run", run, "--input", folder, "--output", tmp_path / "out.csv")
    assert "--question" in refusal(predicted, *asked)
    predicted(*asked, "--question", "ở giữa là hình gì")
    assert [row["image"] for row in read_csv(tmp_path / "out.csv")] == [photo.name for photo in photos[:5]]
    (folder / photos[1].name).write_bytes(b"no photo")
    bad = refusal(predicted, *asked, "--question", "x", "--overwrite")
    assert photos[1].name in bad and "--on-bad-image skip" in bad
    predicted(*asked, "--question", "x", "--overwrite", "--on-bad-image", "skip")
    assert len(read_csv(tmp_path / "out.csv")) == 4 and "1 bad photos skipped" in capsys.readouterr().out


def test_questions_that_cannot_be_asked_are_one_line(run, run_script, scenes, tmp_path):
    photo = tmp_path / "bad.jpg"
    photo.write_bytes(b"GIF8 but not really")
    result = run_script("scripts/predict_vqa.py", "--run", run, "--image", photo, "--question", "x", check=False)
    assert_one_line(result, "predict_vqa.py: error: ", "bad.jpg")
    good = scenes / "images" / "200000.png"
    assert "no such image file" in refusal(predicted, "--run", run, "--image", tmp_path / "no.png", "--question", "x")
    assert "--question" in refusal(predicted, "--run", run, "--image", good)
    assert "--image" in refusal(predicted, "--run", run)
    assert "--output" in refusal(predicted, "--run", run, "--input", tmp_path)
    assert "not a run directory" in refusal(predicted, "--run", tmp_path, "--image", good, "--question", "x")
    out = tmp_path / "out.csv"
    questions = write_csv(tmp_path / "q.csv", [{"image": "../../secret.png", "question": "x"}])
    assert "leads out of the data folder" in refusal(predicted, "--run", run, "--input", questions, "--output", out)
    write_csv(questions, [{"image": "there.png", "question": "x"}])
    message = refusal(predicted, "--run", run, "--input", questions, "--output", out)
    assert "row 2" in message and "there.png" in message
    write_csv(questions, [{"photo": "there.png", "question": "x"}])
    assert "no column 'image'" in refusal(predicted, "--run", run, "--input", questions, "--output", out)
    assert not out.exists()


# --- bad input --------------------------------------------------------------------------------------------------------


def drop_column(folder: Path) -> None:
    rows = read_csv(folder / "train.csv")
    write_csv(folder / "train.csv", [{name: row[name] for name in row if name != "answer"} for row in rows])


def change_first(folder: Path, **cells: str) -> None:
    first, *rest = read_csv(folder / "train.csv")
    write_csv(folder / "train.csv", [first | cells, *rest])


BAD_DATA = {
    "missing column": (drop_column, r"train\.csv: no column 'answer'; it has: image, group, question.*--columns"),
    "empty file": (lambda folder: (folder / "train.csv").write_bytes(b""), r"train\.csv.*(empty|no rows|no header)"),
    "no rows": (
        lambda folder: (folder / "train.csv").write_text("image,question,answer\n", encoding="utf-8"),
        r"train\.csv: has a header but no rows",
    ),
    "missing photo": (
        lambda folder: (folder / "images" / "000003.png").unlink(),
        r"train\.csv, row \d+: .*000003\.png: no such photo; --on-bad-image skip",
    ),
    "bad photo": (
        lambda folder: (folder / "images" / "100002.png").write_bytes(b"\x89PNG\r\n but no more"),
        r"validation\.csv, row \d+: .*100002\.png: cannot be read as an image",
    ),
    "photo outside": (
        lambda folder: change_first(folder, image="../elsewhere.png"),
        r"train\.csv, row 2: photo \.\./elsewhere\.png leads out of the data folder",
    ),
    "absolute photo": (
        lambda folder: change_first(folder, image="/etc/hostname"),
        r"train\.csv, row 2: photo /etc/hostname leads out of the data folder",
    ),
    "blank answer": (lambda folder: change_first(folder, answer=" "), r"train\.csv, row 2: answer is blank"),
    "train as test": (
        lambda folder: shutil.copy(folder / "train.csv", folder / "test.csv"),
        r"leak: 100 % of test photos are in train \(photos 24 of 24.*--allow-leaky-split",
    ),
    "not UTF-8": (
        lambda folder: (folder / "train.csv").write_bytes("image,question,answer\na,phở,b\n".encode("utf-16")),
        r"train\.csv.*UTF-8",
    ),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_are_refused_before_a_run_is_made(start, copied, tmp_path, kind):
    spoil, message = BAD_DATA[kind]
    spoil(copied)
    assert re.search(message, refusal(start, tmp_path / "run", data=copied))
    assert not (tmp_path / "run").exists()


BAD_OPTIONS = {
    "unknown encoder": (
        ("--encoder", "mobilenet_v3"),
        r"unknown encoder 'mobilenet_v3'; did you mean 'mobilenet_v2'\?",
    ),
    "unknown stage": (("--stages", "layer4"), r"no stage 'layer4'; .*block1"),
    "no weights": (("--weights", "nowhere.safetensors"), r"nowhere\.safetensors"),
    "epochs": (("--epochs", "0"), r"--epochs '0': .*greater than or equal to 1"),
    "fraction": (("--dropout", "1.5"), r"--dropout '1\.5': .*less than 1"),
    "choice": (("--optimizer", "lion"), r"--optimizer 'lion': .*adamw"),
    "unknown option": (("--epoch", "3"), r"unrecognized arguments: --epoch.*did you mean --epochs\?"),
    "views alone": (("--views", "3"), r"--views 3 needs --augment"),
    "no config": (("--config", "nowhere.yaml"), r"nowhere\.yaml: cannot be read"),
    "columns": (("--columns", "answer"), r"--columns 'answer': write OURS=THEIRS"),
    "no such column": (("--columns", "answer=dap_an"), r"no column 'dap_an'"),
    "no photos": (("--images", "nowhere"), r"--images nowhere: no such folder"),
    "rare answers": (("--min-answer-count", "1000"), r"answer vocabulary is empty"),
    "segmentation": (("--segmentation", "nowhere/at/all"), r"nowhere/at/all"),
}


@pytest.mark.parametrize("kind", BAD_OPTIONS)
def test_bad_options_are_refused_before_a_run_is_made(start, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given, message = BAD_OPTIONS[kind]
    assert re.search(message, refusal(start, tmp_path / "run", *given))
    assert not (tmp_path / "run").exists()


def test_weights_of_another_net_are_refused(start, tmp_path):
    save_file(build_encoder("custom_cnn", depth=3, width=8).state_dict(), tmp_path / "wider.safetensors")
    message = refusal(start, tmp_path / "run", "--weights", tmp_path / "wider.safetensors")
    assert "wider.safetensors do not fit encoder custom_cnn" in message
    (tmp_path / "noise.safetensors").write_bytes(b"\0" * 100)
    assert "noise.safetensors" in refusal(start, tmp_path / "run", "--weights", tmp_path / "noise.safetensors")
    assert not (tmp_path / "run").exists()


def test_weights_of_a_file_make_a_frozen_encoder(start, tmp_path):
    torch.manual_seed(5)
    encoder = build_encoder("custom_cnn", depth=3, width=4)
    save_file(encoder.state_dict(), tmp_path / "own.safetensors")
    run = start(tmp_path / "run", "--weights", tmp_path / "own.safetensors")
    assert yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["train_encoder"] == "none"
    saved = load_file(run / "checkpoints" / "last" / "model.safetensors")
    for name, weight in encoder.state_dict().items():
        assert torch.equal(saved[f"encoder.{name}"], weight), name


def test_mistakes_are_one_line_and_exit_code_2(run_script, copied, tmp_path):
    """In processes of their own: a typing error in YAML, answered without torch, and a photo that is missing."""
    config = tmp_path / "typo.yaml"
    config.write_text("epoch: 3\n", encoding="utf-8")
    result = run_script("scripts/train_vqa.py", "--config", config, check=False)
    assert_one_line(result, "train_vqa.py: error: ", "typo.yaml: unknown option 'epoch'; did you mean 'epochs'?")
    assert not result.stdout
    (copied / "images" / "000003.png").unlink()
    given = ("--data", copied, "--output", tmp_path / "run", *SMALL)
    result = run_script("scripts/train_vqa.py", *given, check=False)
    assert_one_line(result, "train.csv, row ", "000003.png: no such photo")
    assert not (tmp_path / "run").exists()


def test_bad_photos_are_skipped_and_counted(start, run, copied, tmp_path):
    rows = read_csv(copied / "train.csv")
    lost = sum(row["image"] == "images/000003.png" for row in rows)
    (copied / "images" / "000003.png").unlink()
    (copied / "images" / "200001.png").write_bytes(b"no photo")
    skipped = start(tmp_path / "run", "--on-bad-image", "skip", data=copied)
    report = (skipped / "report.md").read_text(encoding="utf-8")
    assert f"skipped: {lost} of {len(rows)} rows of" in report and "000003.png: no such photo" in report
    tests = read_csv(copied / "test.csv")
    scored = len(tests) - sum(row["image"] == "images/200001.png" for row in tests)
    assert read_json(skipped / "metrics.json")["test"]["n"] == scored < read_json(run / "metrics.json")["test"]["n"]


def test_a_leaky_split_is_told_in_the_report(start, copied, tmp_path):
    rows = read_csv(copied / "train.csv")
    write_csv(copied / "test.csv", read_csv(copied / "test.csv") + rows[:1])
    leaky = start(tmp_path / "run", "--allow-leaky-split", data=copied)
    assert re.search(r"LEAKY: .*photos 1 of 13", (leaky / "report.md").read_text(encoding="utf-8"))


# --- several processes ------------------------------------------------------------------------------------------------


def in_two_processes(run_script, output: Path, *more: object, check: bool = True):
    given = ("scripts/train_vqa.py", "--output", output, *SMALL, *STEADY, *more)
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return run_script(*given, launcher=TWO_PROCESSES, check=check, **environment)


def test_two_processes_are_as_good_as_one(run_script, start, scenes, tmp_path):
    """Three batches of eight photos: shared evenly, the gradient is the same, so the losses are."""
    one = start(tmp_path / "one", *STEADY)
    cache = tmp_path / "cache"  # its own, so that both processes extract features
    result = in_two_processes(run_script, tmp_path / "two", "--data", scenes, "--cache", cache)
    assert "2 process(es)" in result.stdout and result.stdout.count("Hỏi Ảnh") == 1
    rows, others = history(one), history(tmp_path / "two")
    assert len(rows) == len(others) == 2
    for row, other in zip(rows, others, strict=True):
        assert other["train_loss"] == pytest.approx(row["train_loss"], abs=1e-4)
        assert other["validation_loss"] == pytest.approx(row["validation_loss"], abs=1e-4)
    for split, figures in read_json(one / "metrics.json").items():
        other = read_json(tmp_path / "two" / "metrics.json")[split]
        assert other["n"] == figures["n"] and other["loss"] == pytest.approx(figures["loss"], abs=1e-4)
        ids = [row["id"] for row in read_csv(tmp_path / "two" / f"predictions-{split}.csv")]
        assert ids == [row["id"] for row in read_csv(one / f"predictions-{split}.csv")]
    shards = list((cache / "features").rglob("*.safetensors"))
    assert len(shards) == 4  # each extracted its share, once: of the photos trained on, and of those scored


@pytest.mark.skipif(not is_torch_version(">=", "2.11"), reason="on CPUs --fsdp was tried from torch 2.11 on")
def test_two_processes_share_a_trained_model_out(run_script, start, scenes, tmp_path, capsys):
    trained = ("--train-encoder", "all", "--batch-norm", "eval", "--fsdp")
    one = start(tmp_path / "one", *STEADY, *trained)
    assert "1 process(es) (--fsdp: one alone has nothing to share out)" in capsys.readouterr().out
    result = in_two_processes(run_script, tmp_path / "two", "--data", scenes, *trained)
    assert "2 process(es) (--fsdp: share the model out)" in result.stdout
    for row, other in zip(history(one), history(tmp_path / "two"), strict=True):
        assert other["train_loss"] == pytest.approx(row["train_loss"], abs=1e-4)
    saved = read_json(tmp_path / "two" / "metrics.json")["test"]["loss"]
    assert evaluated(tmp_path / "two")["test"]["loss"] == pytest.approx(saved, abs=1e-6)


def test_two_processes_score_every_sample_of_an_odd_number(run_script, scenes, copied, start, tmp_path):
    """Eleven photos in batches of four; and what one process refuses is told once."""
    run = tmp_path / "two"
    in_two_processes(run_script, run, "--data", scenes, "--limit", 11, "--batch-size", 4, "--epochs", 1)
    for split in ("validation", "test"):
        rows = read_csv(scenes / f"{split}.csv")
        photos = list(dict.fromkeys(row["image"] for row in rows))[:11]
        wanted = sum(row["image"] in photos for row in rows)
        assert read_json(run / "metrics.json")[split]["n"] == wanted == len(read_csv(run / f"predictions-{split}.csv"))
    refused = in_two_processes(run_script, run, "--data", scenes, check=False)
    assert refused.returncode != 0 and refused.stderr.count("train_vqa.py: error: --output") == 1


# --- real photos ------------------------------------------------------------------------------------------------------


def test_real_photos_and_a_second_start_that_is_quick(run_script, real_data, mobilenet_weights, tmp_path):
    given = ("--data", real_data / "vifood_vqa", "--encoder", "mobilenet_v2", "--weights", mobilenet_weights)
    given += ("--limit", 30, "--epochs", 1, "--hidden", 16, "--workers", 0)
    run_script("scripts/train_vqa.py", *given, "--output", tmp_path / "first")
    before = os.times()
    again = run_script("scripts/train_vqa.py", *given, "--output", tmp_path / "second", launcher=(sys.executable,))
    spent = os.times()  # of processor time: other work on the machine makes seconds longer
    assert spent.children_user + spent.children_system - before.children_user - before.children_system < 30
    assert float(re.search(r"first batch ([\d.]+) s after the process started", again.stdout)[1]) > 0
    assert "frozen, features cached" in again.stdout
    assert_same_run(tmp_path / "first", tmp_path / "second")
