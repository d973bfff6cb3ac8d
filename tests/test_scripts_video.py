"""The video commands as a user runs them: what a run leaves behind, what repeats, what is refused and how.

Most of it runs in this process; what only a process has (its memory, several of them, an answer without torch) is run
for real, for each start costs seconds of imports.
"""

import json
import math
import re
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path

import av
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from test_decode import write_sound
from video_helpers import LABELS, history, read_csv, read_json, write_clip, write_csv, write_set

import video.motions
from common.config import parse
from common.errors import UserError
from common.options import CHECKPOINTS
from common.runs import fingerprints
from video.batches import ClipBatches
from video.decode import count_frames
from video.motions import write_motions
from video.options import EvaluateVideoOptions, PredictVideoOptions, TrainVideoOptions
from video.predict import Classifier, predict
from video.scoring import evaluate_run, load_source
from video.train import train

ROOT = Path(__file__).resolve().parent.parent
SMALL = (
    "--depth 2 --width 4 --image-size 16 --frames 3 --hidden 8 --pool 2 --batch-size 4 --epochs 2 --workers 0"
).split()
TWO_PROCESSES = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
FIGURES = {"accuracy", "loss", "macro_f1", "n", "by_class"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """A small data set: 12 clips to train on, 6 and 6 to score."""
    return write_set(tmp_path_factory.mktemp("data") / "clips")


@pytest.fixture
def copied(clips, tmp_path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(clips, tmp_path / "copied"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def start(clips, cache):
    """Train a small model, as `scripts/train_video.py` would; `data` None: what `more` says."""

    def start(output: Path, *more: object, data: Path | None = clips) -> Path:
        given = ["--data", data] if data is not None else []
        given += ["--output", output, "--cache", cache, *SMALL, *more]
        return train(parse(TrainVideoOptions, list(map(str, given))))

    return start


@pytest.fixture(scope="module")
def run(start, tmp_path_factory) -> Path:
    """One trained run, only read by the tests."""
    return start(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def script(monkeypatch, capsys):
    """Run `scripts/NAME` in this process: → exit code, standard output, standard error."""

    def script(name: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        path, code = ROOT / "scripts" / name, 0
        monkeypatch.setattr("sys.argv", [str(path), *map(str, arguments)])
        monkeypatch.setattr("sys.path", list(sys.path))
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return script


def evaluated(*arguments: object) -> dict:
    return evaluate_run(parse(EvaluateVideoOptions, [*map(str, arguments), "--workers", "0"]))


def predicted(*arguments: object) -> None:
    predict(parse(PredictVideoOptions, list(map(str, arguments))))


def refusal(call, *arguments, **keywords) -> str:
    """The one line with which something is refused."""
    with pytest.raises(UserError) as refused:
        call(*arguments, **keywords)
    message = str(refused.value)
    assert message and "\n" not in message and "Traceback" not in message
    return message


def assert_one_line(result: tuple[int, str, str], *parts: str) -> None:
    """Exit code 2 and one line on standard error that has these parts."""
    code, _, errors = result
    lines = errors.strip().splitlines()
    assert code == 2 and len(lines) == 1, result
    for part in parts:
        assert part in lines[0]


def assert_same_figures(found: dict, wanted: dict, tolerance: float = 1e-6) -> None:
    """Those of one split, but for the last digits."""
    assert found.keys() == wanted.keys() and found["by_class"].keys() == wanted["by_class"].keys()
    rows = [(found | {"by_class": None}, wanted | {"by_class": None})]
    rows += [(found["by_class"][name], row) for name, row in wanted["by_class"].items()]
    for one, other in rows:
        assert one == pytest.approx(other, abs=tolerance)


def assert_same_run(one: Path, other: Path) -> None:
    """The same figures and the same weights, to the bit."""
    assert read_json(one / "metrics.json") == read_json(other / "metrics.json")
    assert history(one) == history(other)
    for name in CHECKPOINTS:
        weights, others = (load_file(path / "checkpoints" / name / "model.safetensors") for path in (one, other))
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[key], others[key]) for key in weights), name


def stored(folder: Path, clips_of: dict[str, int]) -> Path:
    """Features of so many clips of each split, of 2 to 5 frames, whose class is their level, with index.csv beside."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    features, lengths, rows = [], [], []
    for split, count in clips_of.items():
        for place in range(count):
            label = place // 2 % len(LABELS)
            lengths.append(2 + place % 4)
            features.append(torch.randn(lengths[-1], 6, generator=generator) + 0.5 * label)
            name = f"{split}{place}"
            group = f"{split}-{place // 2}"
            rows.append({"path": f"{name}.avi", "label": LABELS[label], "group": group, "split": split})
    tensors = {"features": torch.cat(features).half(), "lengths": torch.tensor(lengths)}
    save_file(tensors, folder / "features.safetensors")
    write_csv(folder / "index.csv", rows)
    return folder / "features.safetensors"


# --- the run directory ------------------------------------------------------------------------------------------------


def test_what_a_run_leaves_behind(run):
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["epochs"] == 2 and config["head"] == "lstm" and config["frames"] == 3
    environment = read_json(run / "environment.json")
    weights = load_file(run / "checkpoints" / "last" / "model.safetensors")
    assert environment["task"] == "video" and environment["parameters"]["trained"] == sum(
        tensor.numel() for name, tensor in weights.items() if "running" not in name and "batches" not in name
    )
    assert [row["epoch"] for row in history(run)] == [1, 2]

    metrics = read_json(run / "metrics.json")
    assert set(metrics) == {"validation", "test"}
    for split, figures in metrics.items():
        assert FIGURES <= set(figures) and figures["n"] == 6 and figures["loss"] > 0
        assert list(figures["by_class"]) == list(LABELS)
        assert all(set(row) >= {"accuracy", "n", "f1"} and row["n"] == 2 for row in figures["by_class"].values())
        samples = read_csv(run / f"predictions-{split}.csv")
        assert list(samples[0])[:6] == ["id", "group", "type", "gold", "predicted", "probability"]
        right = sum(row["gold"] == row["predicted"] for row in samples) / len(samples)
        assert len({row["id"] for row in samples}) == 6 and right == pytest.approx(figures["accuracy"])

        pairs = Counter((row["gold"], row["predicted"]) for row in samples)
        table = read_csv(run / f"confusion-{split}.csv")
        gold = list(table[0])[0]
        assert [row[gold] for row in table] == list(LABELS) == list(table[0])[1:]
        assert {(row[gold], name): int(row[name]) for row in table for name in LABELS} == {
            (gold, name): pairs[gold, name] for gold in LABELS for name in LABELS
        }
        for label in LABELS:  # F1 by hand
            said, gold = sum(pairs[name, label] for name in LABELS), sum(pairs[label, name] for name in LABELS)
            assert figures["by_class"][label]["f1"] == pytest.approx(2 * pairs[label, label] / (said + gold))
        values = [row["f1"] for row in figures["by_class"].values()]
        assert figures["macro_f1"] == pytest.approx(sum(values) / len(values))

    for picture in ("curves.png", "accuracy-test.png", "confusion-validation.png", "confusion-test.png"):
        with Image.open(run / picture) as image:
            assert min(image.size) > 100 and len(image.convert("RGB").getcolors(10**6)) > 10
    for name in CHECKPOINTS:
        files = {path.name for path in (run / "checkpoints" / name).iterdir()}
        assert {"model.safetensors", "config.json"} <= files
        assert ("state.safetensors" in files) is (name == "last")
    assert not [path for path in run.rglob("*") if path.suffix in {".pt", ".pth", ".pkl", ".bin", ".new", ".old"}]
    report = (run / "report.md").read_text(encoding="utf-8")
    assert "| chạy" in report and "test f1" in report and "curves.png" in report and "confusion-test.png" in report
    assert "parameters by Keras's count" in report and "scored: checkpoints/best_accuracy" in report


def test_the_first_command_needs_no_data(start, monkeypatch, cache, tmp_path, capsys):
    def few(directory):
        return (
            directory / "few"
            if (directory / "few").exists()
            else write_motions(directory / "few", train=16, validation=8, test=8, size=32)
        )

    monkeypatch.setattr(video.motions, "embedded_motions", few)
    run = start(tmp_path / "run", "--epochs", 1, data=None)
    said = capsys.readouterr().out
    for part in (
        "train: 16 clips",
        "lstm 8, last state",
        "first batch",
        "| all ",
        "motions",
        "they cover 100.00% of validation",
    ):
        assert part in said
    told = json.loads(said.splitlines()[-1])
    assert told == {"run": str(run), "task": "video", "metrics": read_json(run / "metrics.json")}
    assert read_json(run / "metrics.json")["test"]["n"] == 8
    assert evaluated(run)["test"] == read_json(run / "metrics.json")["test"]
    assert sorted(read_json(run / "metrics.json")["test"]["by_class"]) == sorted(video.motions.MOTIONS)


def test_a_folder_per_class(start, tmp_path):
    for number in range(24):
        label = LABELS[number % 3]
        name = f"v_{label}_g{number // 3:02d}_c{number}.mp4"  # as UCF101 names clips: gNN is the group
        write_clip(tmp_path / "theirs" / label / name, seed=number, brightness=40 + 70 * (number % 3))
    run = start(tmp_path / "run", "--epochs", 1, data=tmp_path / "theirs")
    metrics = read_json(run / "metrics.json")
    assert list(metrics["test"]["by_class"]) == list(LABELS) and metrics["test"]["n"] >= 3
    known = set(read_json(run / "trained-on.json")["groups"])
    for split in metrics:
        groups = {row["group"] for row in read_csv(run / f"predictions-{split}.csv")}
        assert groups and not known & set(fingerprints(groups))
    assert evaluated(run)["test"] == metrics["test"]


def test_one_table_is_split_by_its_groups(start, copied, tmp_path):
    rows = [row for split in ("train", "validation", "test") for row in read_csv(copied / f"{split}.csv")]
    write_csv(
        copied / "all.csv", [{"video": row["path"], "class": row["label"], "source": row["group"]} for row in rows]
    )
    named = ("--columns", "path=video", "label=class", "group=source")
    run = start(tmp_path / "run", *named, "--epochs", 1, data=copied / "all.csv")
    known = set(read_json(run / "trained-on.json")["groups"])
    seen = [{row["group"] for row in read_csv(run / f"predictions-{split}.csv")} for split in ("validation", "test")]
    assert all(seen) and not seen[0] & seen[1]
    assert not known & set(fingerprints(seen[0] | seen[1])) and len(known) + len(seen[0] | seen[1]) == 12
    assert evaluated(run)["test"] == read_json(run / "metrics.json")["test"]


def test_folds_take_turns(clips, cache):
    seen = []
    for seed in range(3):
        given = ["--data", str(clips), "--folds", "3", "--seed", str(seed)]
        options = parse(TrainVideoOptions, given)
        assert options.fold == seed and parse(TrainVideoOptions, [*given, "--fold", "1"]).fold == 1
        splits = load_source(options, cache)[0].splits
        assert not set(splits["train"]["group"]) & set(splits["validation"]["group"])
        assert len(splits["train"]) + len(splits["validation"]) == 18 and len(splits["test"]) == 6
        seen += splits["validation"]["path"]
    assert len(seen) == len(set(seen)) == 18  # each clip of train and validation once
    assert parse(TrainVideoOptions, ["--folds", "3", "--seed", "7"]).fold == 1


def test_no_test_leaves_test_unopened(run, start, copied, tmp_path):
    """The figures that are left are the same ones, whatever is in the test split."""
    rows = read_csv(copied / "test.csv")
    write_csv(copied / "test.csv", [row | {"label": LABELS[0]} for row in rows])
    tuned = start(tmp_path / "tuned", "--no-test", data=copied)
    assert read_json(tuned / "metrics.json") == {"validation": read_json(run / "metrics.json")["validation"]}
    assert not list(tuned.glob("*-test.*"))
    assert "test was not opened" in (tuned / "report.md").read_text(encoding="utf-8")


RECIPES = {
    "frozen, copies": "--train-encoder none --augment flip erase --copies 1 --head gru",
    "frozen, views": "--train-encoder none --augment color --views 2 --head lstm --layers 2 --dropout 0.2",
    "partly frozen, random frames": "--train-encoder block2 --sampling random --head rnn --readout mean",
    "frozen, random frames kept": "--train-encoder none --sampling random --views 2 --head max --feature-norm",
    "partly": "--train-encoder block2 --augment crop --copies 1 --bidirectional --readout attention --projection 6",
    "trained, shuffled": "--frame-order shuffled --augment erase --copies 1 --augment-per frame --sampling all",
    "trained, black": "--sampling first --short zeros --head last --initialisation keras",
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_scored_as_it_predicts(start, clips, tmp_path, name):
    run = start(tmp_path / "run", "--epochs", 1, *RECIPES[name].split(), "--feature-precision", "fp32")
    figures = read_json(run / "metrics.json")["test"]
    assert_same_figures(evaluated(run, "--data", clips / "test.csv")["test"], figures)
    classifier = Classifier.from_pretrained(run / "checkpoints" / "best_accuracy")
    for row in read_csv(run / "predictions-test.csv"):
        best = classifier.best(classifier(clips / row["clip"])[0], 1)[0]
        assert best["class"] == row["predicted"]
        assert best["probability"] == pytest.approx(float(row["probability"]), abs=2e-6)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert parse(TrainVideoOptions, ["--config", str(run / "config.yaml")]).views == config["views"]


def test_a_cache_changes_no_figure(start, tmp_path):
    """Of frozen stages: features that are kept, and the same ones computed for each batch."""
    given = ("--train-encoder", "block2", "--feature-precision", "fp32", "--frames", 6)  # clips have no more
    kept, computed = start(tmp_path / "kept", *given), start(tmp_path / "computed", *given, "--sampling", "random")
    for row, other in zip(history(kept), history(computed), strict=True):
        assert row == pytest.approx(other, abs=1e-5)


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    ["--augment flip --copies 1 --dropout 0.3", "--train-encoder none --augment flip --views 2 --schedule plateau"],
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(start, tmp_path, monkeypatch, recipe):
    more = ("--epochs", 3, *recipe.split())
    whole = start(tmp_path / "whole", *more)
    original, per_epoch = ClipBatches.__getitems__, (6 if "copies" in recipe else 3) + 2
    asked = []

    def interrupted(self, keys):
        asked.append(keys)
        if len(asked) > 2 * per_epoch + 1:  # in epoch 3
            raise KeyboardInterrupt
        return original(self, keys)

    broken = tmp_path / "broken"
    with monkeypatch.context() as patched:
        patched.setattr(ClipBatches, "__getitems__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start(broken, *more)
    assert [row["epoch"] for row in history(broken)] == [1, 2] and not (broken / "metrics.json").exists()
    train(parse(TrainVideoOptions, ["--output", str(broken), "--resume"]))  # with its own saved options
    assert_same_run(whole, broken)


def test_resume_refuses_other_options_and_other_data(start, run, copied, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    assert "started with hidden = 8, not 9" in refusal(start, other, "--resume", "--hidden", 9)
    assert "started with data = " in refusal(start, other, "--resume", data=copied)
    assert "started with sampling = uniform" in refusal(start, other, "--resume", "--sampling", "all")
    assert_same_run(run, other)


# --- scoring again ----------------------------------------------------------------------------------------------------


def test_evaluate_gives_the_run_its_own_figures(run, clips, script, tmp_path):
    metrics, out = read_json(run / "metrics.json"), tmp_path / "out.json"
    code, said, errors = script("evaluate.py", run, "--output", out, "--workers", 0)
    assert code == 0 and not errors and f"{metrics['test']['accuracy']:.4f}" in said and "best_accuracy" in said
    assert read_json(out) == {"test": metrics["test"]}
    assert evaluated(run, "--split", "validation") == {"validation": metrics["validation"]}
    last = evaluated(run, "--split", "validation", "--checkpoint", "last")["validation"]
    assert last["loss"] == pytest.approx(history(run)[-1]["validation_loss"], abs=1e-6)
    assert evaluated(run, "--data", clips) == {"test": metrics["test"]}  # a folder: its test split
    assert_one_line(script("evaluate.py", run, "--output", out), "evaluate.py: error: --output", "exists")
    code, said, _ = script("evaluate.py", run, "--help")  # the options are those of the run's task
    assert code == 0 and "--on-bad-clip" in said and "--on-bad-image" not in said


def test_evaluate_scores_any_other_table(run, copied, tmp_path):
    rows = read_csv(copied / "test.csv")
    write_csv(copied / "heldout.csv", [row | {"label": row["label"].upper()} for row in rows[:4]])
    samples = tmp_path / "samples.csv"
    found = evaluated(run, "--data", copied / "heldout.csv", "--predictions", samples)
    assert set(found) == {"heldout"} and found["heldout"]["n"] == 4
    for one, other in zip(read_csv(samples), read_csv(run / "predictions-test.csv")[:4], strict=True):
        assert one | {"id": ""} == other | {"id": ""}
    write_csv(copied / "strange.csv", [rows[0] | {"label": "bay"}, *rows[1:]])
    figures = evaluated(run, "--data", copied / "strange.csv", "--output", tmp_path / "out.json")["strange"]
    assert figures["by_class"]["bay"]["accuracy"] == figures["by_class"]["bay"]["f1"] == 0
    assert math.isnan(figures["by_class"]["bay"]["loss"]) and figures["n_outside_vocabulary"] == 1
    assert read_json(tmp_path / "out.json")["strange"]["by_class"]["bay"]["loss"] is None


def test_clips_that_were_trained_on_are_refused(run, copied, script, tmp_path):
    out = tmp_path / "out.json"
    given = ("evaluate.py", run, "--data", copied / "train.csv", "--output", out)
    assert_one_line(script(*given), "evaluate.py: error: leak: 100 %", "clips 12 of 12", "--allow-leaky-split")
    assert not out.exists()
    rows, first = read_csv(copied / "test.csv"), read_csv(copied / "train.csv")[0]
    shutil.copy(copied / first["path"], copied / "clips" / "new.avi")  # the same bytes by another name
    write_csv(copied / "renamed.csv", [*rows, first | {"path": "clips/new.avi", "group": "new"}])
    assert "leak: 14 % of " in refusal(evaluated, run, "--data", copied / "renamed.csv")
    other = write_clip(copied / "clips" / "other.avi", seed=99)  # another clip of the same group
    write_csv(copied / "group.csv", [*rows, first | {"path": f"clips/{other.name}"}])
    assert "groups 1 of 4" in refusal(evaluated, run, "--data", copied / "group.csv")
    assert evaluated(run, "--data", copied / "group.csv", "--allow-leaky-split")["group"]["n"] == 7
    assert "leak" in refusal(evaluated, run, "--data", copied, "--split", "train")
    assert evaluated(run, "--split", "train")["train"]["n"] == 12  # asked for by its own name


def test_evaluate_refuses_what_it_cannot_use(run, clips, tmp_path, script):
    features = stored(tmp_path / "features", {"test": 4})
    assert "cannot score --features" in refusal(evaluated, run, "--features", features)
    assert_one_line(script("evaluate.py", tmp_path), "not a run directory")
    assert_one_line(script("evaluate.py", run, "--split-list", 1), "--split-list is of --data")
    assert_one_line(script("evaluate.py", run, "--classes", "chạy"), "unrecognized arguments: --classes")
    assert_one_line(script("evaluate.py", run, "--checkpoint", "first"), "--checkpoint 'first'", "best_loss")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "environment.json").write_text('{"task": "sound"}', encoding="utf-8")
    assert_one_line(script("evaluate.py", foreign), "is a sound run; runs of vqa, image, video can be used here")
    bare = Path(shutil.copytree(run, tmp_path / "bare"))
    shutil.rmtree(bare / "checkpoints" / "best_accuracy")
    assert "best_accuracy: no such checkpoint" in refusal(evaluated, bare)


def test_random_split_is_told(start, copied, tmp_path, capsys):
    """Two groups that are cut in two, by force."""
    run = start(tmp_path / "run", "--random-split", "--epochs", 1, "--split-seed", 1, data=copied)
    assert "LEAKY: " in (run / "report.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert evaluated(run)["test"] == read_json(run / "metrics.json")["test"]
    assert "LEAKY: " in capsys.readouterr().out


def test_splits_may_be_swapped_and_train_be_scored(start, clips, tmp_path):
    """As report R2 may have done; the random encoder is the same for all seeds, the head is not."""
    more = [
        "--swap-splits",
        "--score-train",
        "--timed",
        1,
        "--encoder-seed",
        5,
        "--train-encoder",
        "none",
        "--epochs",
        1,
    ]
    runs = [start(tmp_path / f"run{seed}", *more, "--seed", seed) for seed in (0, 1)]
    metrics = read_json(runs[0] / "metrics.json")
    assert list(metrics) == ["validation", "test", "train"] and metrics["test"]["n"] == 18
    assert metrics["train"]["n"] + metrics["validation"]["n"] == 6 and metrics["test"]["seconds_per_32"] > 0
    assert "seconds_per_32" not in metrics["validation"]
    assert len(read_csv(runs[0] / "predictions-train.csv")) == metrics["train"]["n"]
    assert evaluated(runs[0])["test"]["accuracy"] == metrics["test"]["accuracy"]
    one, other = (load_file(run / "checkpoints" / "last" / "model.safetensors") for run in runs)
    same = {name: torch.equal(tensor, other[name]) for name, tensor in one.items()}
    assert all(equal for name, equal in same.items() if name.startswith("encoder.")) and not all(same.values())


def test_random_splits_are_asked_for(start, tmp_path):
    assert "--random-test-fraction is of --random-split" in refusal(
        start, tmp_path / "run", "--random-test-fraction", 0.5
    )
    assert "--random-split makes new splits" in refusal(start, tmp_path / "run", "--random-split", "--swap-splits")


# --- asking -----------------------------------------------------------------------------------------------------------


def test_classify_one_clip(run, clips, script):
    row = read_csv(run / "predictions-test.csv")[0]
    clip = clips / row["clip"]
    code, said, errors = script("predict_video.py", "--run", run, "--video", clip)
    lines = said.splitlines()
    assert code == 0 and not errors and lines[0] == str(clip) and len(lines) == 4
    assert all(re.fullmatch(r" +\d+\.\d%  \S+", line) for line in lines[1:])
    assert lines[1].split()[1] == row["predicted"]
    _, said, _ = script("predict_video.py", "--run", run, "--video", clip, "--json", "--top", 2)
    (line,) = said.splitlines()
    printed = json.loads(line)
    assert printed["clip"] == str(clip) and [set(each) for each in printed["classes"]] == [{"class", "probability"}] * 2
    assert printed["classes"][0] == {"class": row["predicted"], "probability": float(row["probability"])}
    assert printed["classes"][0]["probability"] >= printed["classes"][1]["probability"]


def test_any_checkpoint_answers(run, clips, tmp_path, capsys):
    """Each is made to favour another class, so that one can tell which was asked."""
    spoiled = Path(shutil.copytree(run, tmp_path / "spoiled"))
    for name, label in zip(CHECKPOINTS, range(3), strict=True):
        path = spoiled / "checkpoints" / name / "model.safetensors"
        weights = load_file(path)
        weights["classifier.bias"][label] += 50
        save_file(weights, path, metadata={"format": "pt"})
        (path.parent / "checksums.json").unlink()  # it was changed on purpose
    asked = ("--video", clips / "clips" / "test00.avi", "--json")
    for name, label in zip(CHECKPOINTS, LABELS, strict=True):
        for given in (("--run", spoiled, "--checkpoint", name), ("--run", spoiled / "checkpoints" / name)):
            predicted(*given, *asked)
            assert json.loads(capsys.readouterr().out)["classes"][0]["class"] == label
        figures = evaluated(spoiled, "--checkpoint", name)["test"]
        assert figures["by_class"][label]["accuracy"] == 1 and figures["accuracy"] == pytest.approx(1 / 3)
        capsys.readouterr()
    predicted("--run", spoiled, *asked)  # the one that the run was scored with
    assert json.loads(capsys.readouterr().out)["classes"][0]["class"] == LABELS[CHECKPOINTS.index("best_accuracy")]


def test_a_marked_clip(run, tmp_path, capsys):
    clip, out = write_clip(tmp_path / "clip.avi", seed=5, size=96), tmp_path / "marked.mp4"
    predicted("--run", run, "--video", clip, "--output", out)
    assert str(out) in capsys.readouterr().out
    assert count_frames(out) == count_frames(clip) > 1
    with av.open(str(out)) as marked, av.open(str(clip)) as plain:
        pictures = [next(each.decode(video=0)).to_ndarray(format="rgb24").astype(int) for each in (marked, plain)]
    assert pictures[0].shape == pictures[1].shape
    changed = abs(pictures[0] - pictures[1])
    assert changed[:24, :24].mean() > 50 and changed[48:].mean() < 10  # words above, nothing below
    assert "exists" in refusal(predicted, "--run", run, "--video", clip, "--output", out)
    predicted("--run", run, "--video", clip, "--output", out, "--overwrite")
    assert "name it .mp4" in refusal(predicted, "--run", run, "--video", clip, "--output", tmp_path / "marked.avi")


def test_a_folder_of_clips(run, copied, tmp_path, capsys):
    folder = copied / "clips"
    (folder / "notes.txt").write_text("no clip", encoding="utf-8")
    out = tmp_path / "classes.csv"
    predicted("--run", run, "--video", folder, "--output", out)
    rows = {row["clip"]: row for row in read_csv(out)}
    assert sorted(rows) == sorted(path.name for path in folder.glob("*.avi")) and len(rows) == 24
    for row in read_csv(run / "predictions-test.csv"):
        found = rows[Path(row["clip"]).name]
        assert found["class"] == row["predicted"]
        assert float(found["probability"]) == pytest.approx(float(row["probability"]), abs=2e-6)
    said = capsys.readouterr().out
    assert "24 clip(s) classified" in said and "test00.avi\n" in said
    assert "exists" in refusal(predicted, "--run", run, "--video", folder, "--output", out)
    few = tmp_path / "few"
    (few / "in").mkdir(parents=True)
    for name, place in (("a.avi", "test00.avi"), ("in/b.avi", "test05.avi")):
        shutil.copy(folder / place, few / name)
    predicted("--run", run, "--video", few, "--output", tmp_path / "marked", "--workers", 1)
    assert [count_frames(tmp_path / "marked" / name) for name in ("a.mp4", "in/b.mp4")] == [
        count_frames(few / name) for name in ("a.avi", "in/b.avi")
    ]
    assert "holds something" in refusal(predicted, "--run", run, "--video", few, "--output", tmp_path / "marked")
    shutil.copy(few / "a.avi", few / "a.mkv")
    message = refusal(predicted, "--run", run, "--video", few, "--output", tmp_path / "again")
    assert "two clips" in message and "a.mp4" in message and not (tmp_path / "again").exists()


def test_bad_clips_among_those_to_classify(run, copied, tmp_path, capsys, script):
    folder = tmp_path / "few"
    folder.mkdir()
    shutil.copy(copied / "clips" / "test00.avi", folder)
    (folder / "bad.avi").write_bytes(b"RIFF, but no more")
    out = tmp_path / "classes.csv"
    given = ("predict_video.py", "--run", run, "--video", folder)
    assert_one_line(script(*given, "--output", out), "predict_video.py: error: ", "bad.avi", "--on-bad-clip skip")
    assert not out.exists()
    code, said, errors = script(*given, "--on-bad-clip", "skip", "--output", out)
    assert code == 0 and "1 bad clip(s) skipped; the first: " in said and "bad.avi: cannot be read" in said
    assert [row["clip"] for row in read_csv(out)] == ["test00.avi"]
    code, said, errors = script(*given, "--on-bad-clip", "skip", "--json")
    assert code == 0 and [json.loads(line)["clip"] for line in said.splitlines()] == ["test00.avi"]
    assert "1 bad clip(s) skipped" in errors  # not among the objects
    assert "bad.avi" in refusal(predicted, "--run", run, "--video", folder / "bad.avi", "--on-bad-clip", "skip")
    assert "nowhere.avi" in refusal(predicted, "--run", run, "--video", folder / "nowhere.avi")
    (folder / "test00.avi").unlink()
    assert "not one clip could be read" in refusal(predicted, "--run", run, "--video", folder, "--on-bad-clip", "skip")
    (folder / "bad.avi").unlink()
    assert "no clips in this folder" in refusal(predicted, "--run", run, "--video", folder)
    assert "not a run directory" in refusal(predicted, "--run", folder, "--video", copied)


def test_a_damaged_checkpoint_is_told(run, clips, tmp_path):
    clip = clips / "clips" / "test00.avi"
    broken = Path(shutil.copytree(run, tmp_path / "broken")) / "checkpoints" / "best_accuracy"
    (broken / "model.safetensors").write_bytes(b"\0" * 64)
    told = refusal(predicted, "--run", broken.parent.parent, "--video", clip)
    assert "is damaged: model.safetensors is not what was written" in told
    (broken / "checksums.json").unlink()
    assert "damaged" in refusal(predicted, "--run", broken.parent.parent, "--video", clip)
    (broken / "config.json").unlink()
    assert "config.json: missing" in refusal(predicted, "--run", broken.parent.parent, "--video", clip)
    assert "no such checkpoint" in refusal(
        predicted, "--run", start_of_nothing(run, tmp_path), "--video", clip, "--checkpoint", "last"
    )


def start_of_nothing(run: Path, folder: Path) -> Path:
    """A run that was stopped in its first epoch."""
    bare = folder / "bare"
    bare.mkdir()
    for name in ("config.yaml", "environment.json"):
        shutil.copy(run / name, bare)
    return bare


# --- features without clips -------------------------------------------------------------------------------------------


def test_features_that_someone_computed_before(start, clips, run, tmp_path, script):
    features = stored(tmp_path / "theirs", {"train": 12, "validation": 6, "test": 6})
    own = start(tmp_path / "run", "--features", features, "--head", "gru", "--readout", "attention", data=None)
    metrics = read_json(own / "metrics.json")
    assert metrics["test"]["n"] == 6 and list(metrics["test"]["by_class"]) == list(LABELS)
    assert not [name for name in load_file(own / "checkpoints" / "last" / "model.safetensors") if "encoder" in name]
    code, said, errors = script("evaluate.py", own)
    assert code == 0 and not errors and f"{metrics['test']['accuracy']:.4f}" in said
    other = stored(tmp_path / "others", {"test": 6})
    index = other.with_name("index.csv").rename(tmp_path / "others.csv")
    rows = [row | {"path": f"new-{row['path']}", "group": f"new-{row['group']}"} for row in read_csv(index)]
    write_csv(index, rows)
    found = evaluated(own, "--features", other, "--index", index)
    assert set(found) == {"features"} and found["features"]["n"] == 6
    assert "leak" in refusal(evaluated, own, "--features", features, "--split", "train")
    clip = clips / "clips" / "test00.avi"
    assert "it reads no clips" in refusal(predicted, "--run", own, "--video", clip)
    assert "cannot score clips" in refusal(evaluated, own, "--data", clips)
    classifier = Classifier.from_pretrained(own / "checkpoints" / "best_accuracy")
    assert "it reads no clips" in refusal(classifier, clip)
    probabilities, output = classifier(torch.randn(4, 6))
    assert probabilities.sum().item() == pytest.approx(1) and output.attention.shape == (1, 4)
    wide = tmp_path / "wide"
    wide.mkdir()
    save_file({"features": torch.randn(6, 2, 9)}, wide / "features.safetensors")
    write_csv(wide / "index.csv", rows)
    assert "9 numbers a frame" in refusal(evaluated, own, "--features", wide / "features.safetensors")


# --- bad input --------------------------------------------------------------------------------------------------------

BAD_CLIPS = {
    "truncated.mp4": lambda path, good: path.write_bytes(good.read_bytes()[: good.stat().st_size // 2]),
    "empty.avi": lambda path, good: path.write_bytes(b""),
    "sound.mp4": lambda path, good: write_sound(path),
    "text.mp4": lambda path, good: path.write_text("đây không phải là video\n" * 50, encoding="utf-8"),
    "missing.mp4": lambda path, good: None,
}


@pytest.fixture
def with_bad_clips(copied) -> Path:
    """All kinds of bad clips in front of train.csv."""
    good = write_clip(copied / "clips" / "good.mp4", seed=77)
    bad = []
    for number, (name, write) in enumerate(BAD_CLIPS.items()):
        write(copied / "clips" / name, good)
        bad.append({"path": f"clips/{name}", "label": LABELS[0], "group": f"bad{number}"})
    write_csv(copied / "train.csv", [*bad, *read_csv(copied / "train.csv")])
    return copied


@pytest.mark.parametrize("name", BAD_CLIPS)
def test_a_bad_clip_is_one_line_that_names_it(with_bad_clips, script, tmp_path, name):
    rows = read_csv(with_bad_clips / "train.csv")
    write_csv(
        with_bad_clips / "train.csv",
        [row for row in rows if name in row["path"] or Path(row["path"]).name not in BAD_CLIPS],
    )
    result = script("train_video.py", "--data", with_bad_clips, "--output", tmp_path / "run", "--cache", tmp_path)
    assert_one_line(result, "train_video.py: error: ", "train.csv, row 2: ", name, "--on-bad-clip skip")
    assert not (tmp_path / "run").exists()


def test_bad_clips_are_skipped_and_counted(start, run, with_bad_clips, tmp_path):
    skipped = start(tmp_path / "run", "--on-bad-clip", "skip", data=with_bad_clips)
    report = (skipped / "report.md").read_text(encoding="utf-8")
    assert "skipped: 5 of 29 clips" in report and "truncated.mp4" in report
    assert read_json(skipped / "metrics.json") == read_json(run / "metrics.json")  # as if they had not been there


BAD_OPTIONS = {
    "head": (("--head", "transformer"), "--head 'transformer': ", "'lstm'"),
    "sampling": (("--sampling", "middle"), "--sampling 'middle': ", "'uniform'"),
    "short": (("--short", "cut"), "--short 'cut': ", "'loop'"),
    "augmentation": (("--augment", "turn"), "--augment", "'turn'", "'erase'"),
    "frames": (("--frames", 0), "--frames '0': ", "greater than or equal to 1"),
    "dropout": (("--dropout", 1.5), "--dropout '1.5': ", "less than 1"),
    "list": (("--split-list", 4), "--split-list '4': ", "less than or equal to 3"),
    "unknown": (("--frame", 3), "unrecognized arguments: --frame", "did you mean --frames?"),
    "encoder": (("--encoder", "mobilenet_v3"), "unknown encoder 'mobilenet_v3'; did you mean 'mobilenet_v2'?"),
    "pad": (("--resize", "pad"), "--resize pad: frames are cropped"),
    "columns": (("--columns", "path"), "--columns 'path': write OURS=THEIRS"),
    "index": (("--index", "index.csv"), "--index is the table of --features"),
    "lists": (("--lists", "folder"), "--lists is the folder of the lists of --split-list"),
    "copies alone": (("--copies", 1), "--copies 1 needs --augment"),
    "views alone": (("--views", 2, "--train-encoder", "none"), "--views 2 needs --augment"),
    "copies and views": (("--copies", 1, "--views", 2, "--augment", "flip"), "give one of them"),
    "views of nothing kept": (("--views", 2, "--augment", "flip"), "--views caches what frozen stages make"),
    "random frames, frozen": (("--sampling", "random", "--train-encoder", "none"), "needs cached views: add --views"),
    "augment, frozen": (("--augment", "flip", "--train-encoder", "none"), "needs cached views: add --views"),
    "layers of a mean": (
        ("--head", "mean", "--layers", 2),
        "--layers 2 is of a recurrent net, and --head mean has none",
    ),
    "states of a last frame": (
        ("--head", "last", "--readout", "attention"),
        "--readout attention is of a recurrent net",
    ),
    "one fold": (("--folds", 1), "give 2 or more folds"),
    "no such fold": (("--folds", 3, "--fold", 3), "--folds 3, --fold 3"),
    "both sources": (("--data", "x.csv", "--features", "f.safetensors"), "give them or --data, not both"),
    "lists of features": (("--features", "f.safetensors", "--split-list", 1), "--split-list is of clips"),
    "views of features": (("--features", "f.safetensors", "--augment", "flip", "--views", 2), "no frames that vary"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_are_one_line_and_exit_code_2(script, name):
    given, *parts = BAD_OPTIONS[name]
    assert_one_line(script("train_video.py", *given), "train_video.py: error: ", *parts)


def test_what_only_the_data_show_is_refused_before_a_run_is_made(start, copied, tmp_path):
    output = tmp_path / "run"
    assert "bay" in refusal(start, output, "--classes", "chạy", "bay")
    assert "no stage" in refusal(start, output, "--stages", "layer4")
    assert "block7" in refusal(start, output, "--train-encoder", "block7")
    assert "--batch-size 1" in refusal(start, output, "--batch-size", 1, "--accumulation", 2)
    assert "--max-frames 2" in refusal(start, output, "--sampling", "all", "--max-frames", 2)
    write_csv(copied / "test.csv", read_csv(copied / "train.csv"))
    assert re.search("leak: 100 % of test clips are in train.*--allow-leaky-split", refusal(start, output, data=copied))
    assert not output.exists()


def test_a_typing_error_is_answered_without_torch(run_script, tmp_path):
    """In a process of its own, in which torch cannot be imported."""
    config = tmp_path / "typo.yaml"
    config.write_text("frame: 3\n", encoding="utf-8")
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')", encoding="utf-8")
    for name, given, part in (
        ("train_video.py", ("--config", config), "typo.yaml: unknown option 'frame'; did you mean 'frames'?"),
        ("predict_video.py", ("--run", "x"), "--video is missing"),
    ):
        result = run_script(f"scripts/{name}", *given, check=False, PYTHONPATH=str(tmp_path))
        assert_one_line((result.returncode, result.stdout, result.stderr), f"{name}: error: ", part)


# --- processes --------------------------------------------------------------------------------------------------------

SCHEDULES = {
    "plateau": "--schedule plateau --plateau-patience 0 --learning-rate 1e-5 --optimizer sgd",
    "cosine per epoch": "--schedule cosine --schedule-per epoch --warmup 0",
    "cosine per step": "--schedule cosine --warmup 0",
}
TRAIN_EACH = """
import json, sys
from accelerate import Accelerator
from common.config import parse
from video.options import TrainVideoOptions
from video.train import train
Accelerator.end_training = lambda self: None  # would end the group of processes: it cannot be made a second time
for given in json.load(open(sys.argv[1], encoding="utf-8")):
    train(parse(TrainVideoOptions, given))
"""


def test_learning_rates_are_the_same_in_two_processes(run_script, start, clips, tmp_path):
    """Of three trainings, in one pair of processes one after another; the last on clips, whose features both make."""
    stored_before = ("--features", stored(tmp_path / "theirs", {"train": 12, "validation": 6, "test": 2}))
    sources = [
        stored_before,
        stored_before,
        ("--data", clips, *"--train-encoder none --feature-precision fp32".split()),
    ]
    plans = []
    for (name, words), source in zip(SCHEDULES.items(), sources, strict=True):
        given = (*source, "--epochs", 4, "--dropout", 0, "--no-test", *words.split())
        start(tmp_path / "one" / name, *given, data=None)
        given = ("--output", tmp_path / "two" / name, "--cache", tmp_path / "cache", *SMALL, *given)
        plans.append(list(map(str, given)))
    (tmp_path / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (tmp_path / "each.py").write_text(TRAIN_EACH, encoding="utf-8")
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = run_script(tmp_path / "each.py", tmp_path / "plans.json", launcher=TWO_PROCESSES, **environment)
    assert result.stdout.count("2 process(es)") == 3
    assert len(list((tmp_path / "cache" / "features").rglob("*.safetensors"))) == 4  # of train and validation, by both
    rates = {}
    for name in SCHEDULES:
        one, two = history(tmp_path / "one" / name), history(tmp_path / "two" / name)
        assert [row["learning_rate"] for row in two] == [row["learning_rate"] for row in one]
        assert [row["train_loss"] for row in two] == pytest.approx([row["train_loss"] for row in one], abs=1e-4)
        rates[name] = [row["learning_rate"] for row in one]
    assert rates["cosine per epoch"] == pytest.approx([0.001 * (1 + math.cos(math.pi * k / 4)) for k in range(4)])
    assert rates["cosine per step"] == pytest.approx(rates["cosine per epoch"])  # where an epoch begins, alike
    assert rates["plateau"] == pytest.approx([1e-5, 1e-5, 1e-6, 1e-7])  # no epoch is better by 0.01 %


PEAKS = """
import json, resource, sys
from common.config import parse
from video.options import TrainVideoOptions
from video.train import train
for given in json.load(open(sys.argv[1], encoding="utf-8")):
    train(parse(TrainVideoOptions, given))
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="tells no peak of memory")
def test_memory_does_not_grow_with_the_number_of_clips(run_script, tmp_path):
    """Ten clips, then, in the same process, a hundred links to them, whose frames together would be 160 MB."""
    plans = []
    for links in (1, 10):
        folder = write_set(tmp_path / str(links), clips={"train": 10, "validation": 2, "test": 2})
        rows = []
        for row in read_csv(folder / "train.csv"):
            name = Path(row["path"])
            write_clip(folder / name, seed=int(name.stem[-2:]), count=16)
            for number in range(links):
                path = name.with_suffix(f".{number}.avi")
                (folder / path).symlink_to(name.name)
                rows.append(row | {"path": str(path)})
        write_csv(folder / "train.csv", rows)
        plan = ["--data", folder, "--output", tmp_path / f"run{links}", "--cache", tmp_path / "cache", "--no-test"]
        sizes = "--image-size 192 --frames 16 --depth 1 --width 4 --pool 1 --head mean --batch-size 1 --epochs 1"
        plans.append([*map(str, plan), *sizes.split(), "--workers", "0"])
    (tmp_path / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (tmp_path / "peaks.py").write_text(PEAKS, encoding="utf-8")
    result = run_script(tmp_path / "peaks.py", tmp_path / "plans.json", OMP_NUM_THREADS="1")
    assert "train: 10 clips" in result.stdout and "train: 100 clips" in result.stdout
    few, many = map(int, re.findall(r"peak (\d+)", result.stdout))
    assert many < 1.1 * few


# --- real clips -------------------------------------------------------------------------------------------------------


def test_every_real_clip_is_classified(run, real_data, tmp_path, capsys):
    if not (real_data / "ucf101_clips").is_dir():
        pytest.skip("../shared/data/ucf101_clips is not here")
    predicted("--run", run, "--video", real_data / "ucf101_clips", "--output", tmp_path / "classes.csv")
    wanted = [path for path in (real_data / "ucf101_clips").rglob("*.avi") if not path.name.startswith(".")]
    assert len(read_csv(tmp_path / "classes.csv")) == len(wanted) > 0
