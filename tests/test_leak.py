"""The leak shown: both splits trained and scored alike, the figures of the table, going on, and what is refused.

Clips are stored features, so that nothing is decoded: what a group's clips have in common is the group, not its class,
which can be remembered but not learned.
"""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from video_helpers import read_csv, read_json

import video.leak
from common.config import parse, read_yaml
from common.errors import UserError
from video.leak import show_leak
from video.leak_options import ShowLeakOptions
from video.options import EvaluateVideoOptions
from video.scoring import evaluate_run
from video.stored import write_stored

SIZE, GROUPS, CLIPS = 96, 40, 4
SMALL = "--head mean --dropout 0 --epochs 5 --learning-rate 0.02 --batch-size 8 --score last --seeds 0 1".split()


def write_features(folder: Path, *, groups: int = GROUPS, apart: bool = False) -> Path:
    """Groups of clips around a point of their own; with `apart` every clip is a group."""
    draw = torch.Generator().manual_seed(0)

    def rows():
        for group in range(groups):
            center = 2 * torch.randn(SIZE, generator=draw)
            for clip in range(CLIPS):
                name = f"g{group}c{clip}"
                row = {"path": f"{name}.avi", "label": "ab"[group % 2], "group": name if apart else f"g{group}"}
                yield row, center + 0.2 * torch.randn(2, SIZE, generator=draw)

    folder.mkdir(parents=True, exist_ok=True)
    return write_stored(folder / "features.safetensors", rows())


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    return write_features(tmp_path_factory.mktemp("data"))


def options(features: Path, output: Path, *more: object) -> ShowLeakOptions:
    return parse(ShowLeakOptions, list(map(str, ["--features", features, "--output", output, *SMALL, *more])))


@pytest.fixture(scope="module")
def shown(features, tmp_path_factory) -> tuple[Path, dict]:
    """Two seeds on both splits → their folder, only read by the tests, and what was found."""
    output = tmp_path_factory.mktemp("runs") / "leak"
    return output, show_leak(options(features, output))


@pytest.fixture
def copied(shown, tmp_path) -> Path:
    return Path(shutil.copytree(shown[0], tmp_path / "leak"))


def asked(options) -> str:
    """A run, and how it is started."""
    how = {(True, False): ", goes on", (False, True): ", anew", (False, False): ""}
    return Path(options.output).name + how[options.resume, options.overwrite]


@pytest.fixture
def trained(monkeypatch, shown) -> list[str]:
    """The runs that are trained from here on: not really, they become copies of those with seed 0."""
    names = []

    def train(options):
        names.append(asked(options))
        split = "random" if options.random_split else "group"
        shutil.copytree(shown[0] / f"{split}-seed0", options.output, dirs_exist_ok=True)

    monkeypatch.setattr(video.leak, "train", train)
    return names


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as refused:
        call(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- the table --------------------------------------------------------------------------------------------------------


def test_what_can_only_be_remembered_shows_as_the_gap(shown):
    _, found = shown
    group, random = found["splits"]["group"], found["splits"]["random"]
    assert random["accuracy"]["mean"] > 0.9 and abs(group["accuracy"]["mean"] - 0.5) < 0.3
    assert found["gap"]["accuracy"]["mean"] == pytest.approx(random["accuracy"]["mean"] - group["accuracy"]["mean"])
    assert found["gap"]["accuracy"]["mean"] > 0.2
    assert "remembered" in found["meaning"]


def test_figures_are_those_of_the_runs(shown):
    output, found = shown
    for split, figures in found["splits"].items():
        for name in ("accuracy", "macro_f1", "loss"):
            values = [read_json(output / f"{split}-seed{seed}" / "metrics.json")["test"][name] for seed in (0, 1)]
            assert list(figures[name]["by_seed"].values()) == values
            assert figures[name]["mean"] == pytest.approx(sum(values) / 2)
            assert figures[name]["std"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    assert read_json(output / "table.json") == json.loads(json.dumps(found))


def test_leaked_clips_are_counted_by_their_groups(shown):
    """By hand: the groups of the test clips, and of all clips that are neither in test nor in validation."""
    output, found = shown
    everything = {f"g{group}": CLIPS for group in range(GROUPS)}
    for split in ("group", "random"):
        rest = dict(everything)
        test = [row["group"] for row in read_csv(output / f"{split}-seed0" / "predictions-test.csv")]
        for group in [*test, *(row["group"] for row in read_csv(output / f"{split}-seed0/predictions-validation.csv"))]:
            rest[group] -= 1
        leaked = sum(rest[group] > 0 for group in test)
        assert found["splits"][split]["leaked"]["by_seed"]["0"] == leaked
        assert len(test) == found["n"]
        assert leaked == 0 if split == "group" else leaked > len(test) / 2


def test_both_splits_have_the_same_sizes_and_validation_clips(shown):
    output, _ = shown
    read = {split: read_csv(output / f"{split}-seed0" / "predictions-validation.csv") for split in ("group", "random")}
    assert [row["clip"] for row in read["group"]] == [row["clip"] for row in read["random"]]
    tests = {split: read_csv(output / f"{split}-seed0" / "predictions-test.csv") for split in ("group", "random")}
    assert len(tests["group"]) == len(tests["random"])
    assert {row["clip"] for row in tests["group"]} != {row["clip"] for row in tests["random"]}


def test_seeds_share_the_splits(shown):
    output, found = shown
    for split in ("group", "random"):
        clips = [
            {row["clip"] for row in read_csv(output / f"{split}-seed{s}" / "predictions-test.csv")} for s in (0, 1)
        ]
        assert clips[0] == clips[1]
        losses = found["splits"][split]["loss"]["by_seed"]
        assert losses["0"] != losses["1"]  # two trainings all the same


def test_the_table_is_printed_and_written(shown, features, trained, capsys):
    """And printed again, though nothing is trained, where all runs are finished."""
    output, found = shown
    assert show_leak(options(features, output))["splits"] == found["splits"] and trained == []
    printed, text = capsys.readouterr().out, (output / "table.md").read_text(encoding="utf-8")
    gap = f"{100 * found['gap']['accuracy']['mean']:+.1f} points"
    accuracy = found["splits"]["random"]["accuracy"]
    for shown_text in (printed, text):
        rows = {line.split("|")[1].strip(): line for line in shown_text.splitlines() if line.startswith("| ")}
        assert list(rows) == ["split", "group", "random", "gap"]
        assert gap in rows["gap"] and f"{accuracy['mean']:.4f} ± {accuracy['std']:.4f}" in rows["random"]
        assert f"0 of {found['n']} (0 %)" in rows["group"]
        assert found["meaning"] in shown_text and "seeds: 0, 1" in shown_text
    assert "4 runs, 4 of them finished before" in printed


def test_where_nothing_is_gained_the_sentence_says_so(shown):
    found = video.leak._meaning(0.95, -0.01)
    assert "gained nothing" in found and "remembered" not in found and "95 %" in found


def test_runs_are_ordinary_runs(shown):
    output, found = shown
    run = output / "group-seed1"
    assert "seeds" not in read_yaml(run / "config.yaml")
    figures = evaluate_run(parse(EvaluateVideoOptions, [str(run)]))
    assert figures["test"]["accuracy"] == pytest.approx(found["splits"]["group"]["accuracy"]["by_seed"]["1"])


# --- going on ---------------------------------------------------------------------------------------------------------


def test_an_interrupted_command_goes_on(copied, features, shown, monkeypatch):
    (copied / "random-seed0" / "metrics.json").unlink()  # stopped after its last epoch
    shutil.rmtree(copied / "group-seed1" / "checkpoints")  # in its first
    (copied / "group-seed1" / "metrics.json").unlink()
    names, train = [], video.leak.train
    monkeypatch.setattr(video.leak, "train", lambda options: names.append(asked(options)) or train(options))
    found = show_leak(options(features, copied))
    assert names == ["random-seed0, goes on", "group-seed1, anew"]
    assert found["splits"] == shown[1]["splits"]


def test_a_further_seed_is_trained_alone(copied, features, trained):
    found = show_leak(options(features, copied, "--seeds", 0, 2))
    assert trained == ["group-seed2", "random-seed2"] and found["seeds"] == [0, 2]


def test_runs_of_other_options_are_refused_or_replaced(copied, features, trained):
    message = refusal(show_leak, options(features, copied, "--epochs", 6))
    assert "group-seed0 was run with epochs = 5, not 6; choose another --output" in message
    for run in copied.glob("*-seed*"):
        shutil.rmtree(run) if run.name != "random-seed1" else (run / "metrics.json").unlink()
    message = refusal(show_leak, options(features, copied, "--hidden", 8))
    assert "random-seed1 was run with hidden = 128, not 8" in message  # a broken-off one is not mixed in either
    assert trained == []
    show_leak(options(features, copied, "--hidden", 8, "--seeds", 1, "--overwrite"))
    assert trained == ["group-seed1", "random-seed1, anew"]


def test_paths_may_be_written_otherwise(copied, features, trained, monkeypatch):
    monkeypatch.chdir(features.parent)
    show_leak(options(Path(features.name), copied, "--workers", 1))
    assert trained == []


def test_runs_of_other_test_clips_are_not_compared(copied, features):
    table = copied / "random-seed1" / "predictions-test.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    assert "so the data changed" in refusal(show_leak, options(features, copied))
    table.unlink()
    assert "predictions-test.csv: missing or damaged" in refusal(show_leak, options(features, copied))


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_clips_that_are_their_own_groups_cannot_leak(tmp_path, trained):
    features = write_features(tmp_path / "apart", groups=6, apart=True)
    message = refusal(show_leak, options(features, tmp_path / "leak"))
    assert "is a group of its own, so that nothing can leak" in message and "features.safetensors" in message
    assert trained == [] and not (tmp_path / "leak").exists()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (["--no-test"], "--no-test: a leak shows in the score of test"),
        (["--random-split"], "--random-split: both splits"),
        (["--allow-leaky-split"], "--allow-leaky-split: the group split must not leak"),
        (["--seed", 3], "--seed 3: write --seeds 3"),
        (["--seeds", 1, 1], "--seeds 1 1: one comes twice"),
        (["--seeds"], "--seeds"),
        (["--seeds", -1], "--seeds"),
    ],
)
def test_options_that_make_no_sense_are_refused(features, tmp_path, given, match):
    assert match in refusal(options, features, tmp_path / "leak", *given)


def test_folds_take_turns_with_the_seeds(features, tmp_path):
    planned = options(features, tmp_path, "--folds", 3)
    folds = [video.leak._planned(planned, tmp_path, "random", seed).options.fold for seed in (0, 1, 4)]
    assert folds == [0, 1, 1]
    planned = options(features, tmp_path, "--folds", 3, "--fold", 2)
    assert video.leak._planned(planned, tmp_path, "group", 1).options.fold == 2


def test_several_processes_are_refused(features, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "start it with python" in refusal(show_leak, options(features, tmp_path / "leak"))


def test_the_script_refuses_in_one_line(run_script):
    result = run_script("scripts/show_leak.py", check=False)
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "show_leak.py: error: the embedded clips are each a group of their own" in result.stderr
