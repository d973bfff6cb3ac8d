"""Studies: what a file means, what is run and what is not run again, and the tables, worked by hand.

Most runs are of a small script that trains nothing and writes what a training script writes; one is of the real one.
"""

import csv
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from study_helpers import FAKE

from common.config import parse
from common.errors import UserError
from common.statistics import ALPHA, smallest_p
from common.study import StudyOptions, read_study
from common.study_runs import run_study
from common.study_tables import draw_bars, mean_and_spread, read_measured, write_tables
from vqa.shapes import write_shapes

ROOT = Path(__file__).resolve().parent.parent
BASELINE = """
import argparse, json, pathlib, yaml

parser = argparse.ArgumentParser()
for name in "config output data baseline".split():
    parser.add_argument("--" + name)
parser.add_argument("--overwrite", action="store_true")
given = parser.parse_args()
options = yaml.safe_load(open(given.config, encoding="utf-8"))
assert set(options) <= {"data", "baseline"}, options
run = pathlib.Path(given.output)
run.mkdir(exist_ok=given.overwrite)
(run / "metrics.json").write_text(json.dumps({"test": {"accuracy": 0.25, "n": 4}}))
"""
GRID = """
title: A | B
script: train_fake
options: {accuracy: 0.1, learning_rate: 1e-3}
grid:
  encoder:
    Big: {accuracy: 0.5, weights: imagenet}
    Small: {config: small.yaml}
  attention:
    "yes": {weights: none}
    2: {}
reported:
  Big, 2: {accuracy: 0.75, loss: 0.3}
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, with a scripts folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "train_fake.py").write_text(FAKE, encoding="utf-8")
    (tmp_path / "scripts" / "baseline_fake.py").write_text(BASELINE, encoding="utf-8")
    (tmp_path / "small.yaml").write_text("accuracy: 0.25\nsleep: 0\n", encoding="utf-8")
    return tmp_path


def write(text: str, name: str = "s.yaml") -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def study(text: str, *arguments: object) -> int:
    given = parse(StudyOptions, [str(write(text)), *map(str, arguments)])
    return run_study(given, scripts=Path("scripts"))


def starts() -> list[str]:
    return Path("starts.txt").read_text(encoding="utf-8").splitlines() if Path("starts.txt").exists() else []


def table(folder: str | Path = "runs/s") -> dict:
    found = json.loads(Path(folder, "table.json").read_text(encoding="utf-8"))
    return found | {"by_name": {cell["name"]: cell for cell in found["cells"]}}


def one(options: str, more: str = "") -> str:
    return f"script: train_fake\nrows: [{{name: a, options: {{accuracy: 0.5, {options}}}}}]\n{more}"


def test_a_grid_is_the_product_of_its_axes_in_order(here):
    cells = read_study(
        write(GRID + "rows: [{name: majority, script: baseline_fake, seeds: [4]}]\n"), seeds=[1, 2]
    ).cells
    assert [cell.name for cell in cells] == ["Big, yes", "Big, 2", "Small, yes", "Small, 2", "majority"]
    assert cells[0].own == {"accuracy": 0.5, "weights": "none"}  # a later axis wins
    assert cells[2].own == {"accuracy": 0.25, "sleep": 0, "weights": "none"}  # its own recipe, beside the study file
    assert cells[0].shared == {"accuracy": 0.1, "learning_rate": "1e-3"}
    assert [cell.seeds for cell in cells] == [(1, 2)] * 4 + [(4,)]
    assert cells[1].reported == {"accuracy": 0.75, "loss": 0.3} and cells[0].reported == {}
    assert cells[0].slug == "big-yes"


def test_every_study_of_the_repository_is_read():
    files = sorted((ROOT / "configs" / "studies").glob("*.yaml"))
    assert files
    for file in files:
        assert read_study(file).cells and file.read_text(encoding="utf-8").startswith("#")
    r4 = {cell.name: cell for cell in read_study(ROOT / "configs/studies/r4_vqa_attention.yaml").cells}
    assert r4["MobileNetV2, attention"].reported == {"loss": 0.4503, "accuracy": 0.8317}
    assert sum(bool(cell.reported) for cell in r4.values()) == 4


def test_every_primary_comparison_of_the_repository_can_pass():
    """By Holm over the study's, with the seeds that both of its cells have."""
    for file in sorted((ROOT / "configs" / "studies").glob("*.yaml")):
        study = read_study(file)
        seeds = {cell.name: set(cell.seeds) for cell in study.cells}
        primary = [comparison.cells for comparison in study.compare if comparison.primary]
        for first, second in primary:
            assert smallest_p(len(seeds[first] & seeds[second])) * len(primary) <= ALPHA, file.name


@pytest.mark.parametrize(
    "text, says",
    [
        (GRID + "epochs: 3\n", "s.yaml: unknown option 'epochs'.*allowed: across, compare, config, grid"),
        (GRID + "rows: [{name: x, seed: 1}]\n", "s.yaml, row 1: unknown option 'seed'; did you mean 'seeds'"),
        (GRID + "rows: [{seeds: [1]}]\n", "s.yaml, row 1: has no name"),
        (GRID + "seeds: [x]\n", "s.yaml: --seeds 'x'"),
        (
            GRID.replace("Big, 2:", "Big, 3:"),
            "reported for cell 'Big, 3' is unknown; did you mean 'Big, 2'.*Small, yes",
        ),
        (GRID.replace("0.75", "lots"), "reported 'Big, 2': accuracy 'lots' is no number"),
        (GRID.replace('"yes"', "yes"), "True is no name; write it in quotes"),
        (GRID.replace("{weights: none}", "[weights]"), "grid 'attention', 'yes' must be 'option: value' pairs"),
        (GRID.replace("{weights: none}", "{seed: 1}"), "seed cannot be given here; seeds:"),
        (GRID.replace("small.yaml", "other.yaml"), "other.yaml: cannot be read"),
        (GRID + "rows: [{name: Big - yes}]\n", "cell 'Big - yes' needs another name: 'Big, yes' is called the same"),
        (GRID + "rows: [{name: ../..}]\n", "needs another name: it holds no letter"),
        (GRID.replace("train_fake", "../train_fake"), "needs script: NAME"),
        ("script: train_fake\n", "s.yaml: a study needs a grid or rows"),
        (
            GRID.replace("train_fake", "train_nothing"),
            "no scripts/train_nothing.py; there are: baseline_fake, train_fake",
        ),
        (
            GRID.replace("{weights: none}", "{weight: none}"),
            "'Big, yes': option of scripts/train_fake.py 'weight' is unkn",
        ),
        (
            GRID.replace("learning_rate: 1e-3", "learning_rat: 1"),
            "'learning_rat' is unknown; did you mean 'learning_rate'",
        ),
    ],
)
def test_a_wrong_study_is_refused_before_anything_starts(here, text, says):
    with pytest.raises(UserError, match=says) as refused:
        study(text)
    assert "\n" not in str(refused.value) and not starts() and not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--only", "big, yes"], "--only 'big, yes' is unknown; did you mean 'Big, yes'"),
        (["--set", "epoch"], "--set 'epoch': write OPTION=VALUE"),
        (["--set", "sleeep=1"], "--set: option 'sleeep' is unknown; did you mean 'sleep'"),
        (["--set", "seed=1"], "--set: seed cannot be given here"),
        (["--weights", "w.pth"], "--weights w.pth: no such file"),
        (["--launcher", "no-such-launcher run"], "--launcher .* there is no such command"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_starts(here, arguments, says):
    with pytest.raises(UserError, match=says):
        study(GRID, *arguments)
    assert not starts() and not Path("runs").exists()


def test_mean_and_spread_by_hand():
    assert mean_and_spread([0.5]) == (0.5, None)
    mean, deviation = mean_and_spread([0.5, 0.6, 1.0])  # squares of −0.2, −0.1, 0.3 sum to 0.14; half of it is 0.07
    assert mean == pytest.approx(0.7) and deviation == pytest.approx(0.07**0.5)


def test_reported_and_measured_side_by_side(here):
    (here / "photos").mkdir()
    rows = "rows: [{name: '=majority', script: baseline_fake, options: {baseline: majority}, seeds: [0]}]\n"
    code = study(GRID.replace("loss: 0.3", "macro_f1: 0.1") + rows, "--seeds", 0, 1, "--jobs", 3, "--data", "photos")
    assert code == 0
    text = Path("runs/s/table.md").read_text(encoding="utf-8")
    lines = [[part.strip() for part in line[1:-1].split(" | ")] for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == [
        "model",
        "reported accuracy",
        "reported macro_f1",
        "measured loss",
        "measured accuracy",
        "measured validation accuracy",
        "measured macro_f1",
        "seeds",
        "seconds",
        "parameters",
    ]
    by_name = {line[0]: line[1:] for line in lines[2 : 2 + 5]}
    std = f"{statistics.stdev([0.5, 0.6]):.4f}"
    big = ["0.7500", "0.1000", f"0.4500 ± {std}", f"0.5500 ± {std}", "0.1250 ± 0.0000", "0.1375 ± 0.0177"]
    big += ["2", "3.5", "1,234,567"]
    assert by_name["Big, 2"] == big
    assert by_name["Small, yes"][:2] == ["–", "–"] and by_name["Small, yes"][3].startswith("0.3000 ±")
    majority = by_name["=majority"]
    assert majority[:7] == ["–", "–", "–", "0.2500", "–", "–", "1"] and majority[8] == "–"
    assert "# A | B\n" in text and "- data: photos\n" in text and "- measured on: test (n = 4)\n" in text
    assert "- seeds: 0, 1\n" in text and "- Big, yes; Big, 2; Small, yes and 1 more: LEAKY: 3 photos\n" in text
    assert "## accuracy by type" in text and ["n", "3", "1"] in lines
    assert ["Small, 2", "0.3000", "0.1500"] in lines

    found = table()
    big = found["by_name"]["Big, 2"]
    assert big["measured"]["accuracy"]["by_seed"] == {"0": 0.5, "1": 0.6} and big["reported"]["accuracy"] == 0.75
    assert big["measured"]["accuracy"]["std"] == pytest.approx(statistics.stdev([0.5, 0.6]))
    assert big["n"] == 4 and big["runs"] == {"0": "runs/big-2-seed0", "1": "runs/big-2-seed1"}
    assert big["command"].startswith("python scripts/train_fake.py --config runs/s/cells/big-2-seed0.yaml --output")
    assert found["by_name"]["=majority"]["measured"]["seconds"]["mean"] > 0  # timed by the study: it has no epochs

    with open("runs/s/table.csv", encoding="utf-8", newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert "'=majority" in rows and "=majority" not in rows  # no formula for a spreadsheet
    assert float(rows["Big, 2"]["measured accuracy"]) == pytest.approx(0.55) and rows["Big, 2"]["seeds"] == "2"
    assert rows["Big, yes"]["reported accuracy"] == "" and rows["'=majority"]["measured accuracy std"] == ""
    tex = Path("runs/s/table.tex").read_text(encoding="utf-8")
    assert tex.count(r"\begin{tabular}") == 2 and r"macro\_f1" in tex and f"0.5500 $\\pm$ {std}" in tex
    assert "±" not in tex and "–" not in tex and "toprule" not in tex
    assert Path("runs/s/accuracy.png").read_bytes().startswith(b"\x89PNG") and "(accuracy.png)" in text


def test_finished_runs_are_not_run_again(here, capsys):
    assert study(GRID) == 0
    first = Path("runs/s/table.json").read_bytes()
    assert sorted(starts()) == ["big-2-seed0", "big-yes-seed0", "small-2-seed0", "small-yes-seed0"]
    assert study(GRID) == 0
    assert len(starts()) == 4 and Path("runs/s/table.json").read_bytes() == first
    assert "4 runs, 4 of them finished before" in capsys.readouterr().out
    assert study(GRID, "--seeds", 0, 1, "--cache", "elsewhere") == 0  # only the new seed; a cache changes no figure
    assert sorted(starts()[4:]) == ["big-2-seed1", "big-yes-seed1", "small-2-seed1", "small-yes-seed1"]


def test_other_options_are_refused_with_the_first_difference(here):
    assert study(one("sleep: 0")) == 0
    for text, says in (
        (
            one("sleep: 0.01"),
            "a-seed0 was run with sleep = 0, not 0.01; choose another --output, or delete that folder",
        ),
        (one(""), "sleep = 0, not its default"),
        (one("sleep: 0, weights: none"), "weights = its default, not none"),
    ):
        with pytest.raises(UserError, match=says):
            study(text)
    with pytest.raises(UserError, match="test = its default, not False"):
        study(one("sleep: 0"), "--no-test")
    shutil.rmtree("runs/s/runs/a-seed0")
    assert study(one("sleep: 0.01")) == 0 and starts() == ["a-seed0"] * 2


def test_a_run_of_somebody_else_is_compared_with_its_own_configuration(here):
    """A finished run that was copied without the study's note of what it had asked for."""
    assert study(one("sleep: 0"), "--data", "scripts") == 0
    shutil.rmtree("runs/s/cells")
    config = Path("runs/s/runs/a-seed0/config.yaml")
    saved = yaml.safe_load(config.read_text(encoding="utf-8"))
    config.write_text(yaml.safe_dump(saved | {"data": str(here / "scripts")}), encoding="utf-8")  # as scripts do
    assert study(one("sleep: 0"), "--data", "scripts") == 0 and len(starts()) == 1
    with pytest.raises(UserError, match="sleep = 0, not 1"):
        study(one("sleep: 1"), "--data", "scripts")


@pytest.mark.parametrize("stop, then", [("late", "resume"), ("early", "overwrite")])
def test_an_interrupted_run_goes_on_from_its_checkpoint_or_starts_anew(here, stop, then, capsys):
    assert study(one(f"stop: {stop}")) == 1
    error = capsys.readouterr().err
    assert "a, seed 0: stopped (exit code 1; runs/s/runs/a-seed0.log)" in error
    assert table()["by_name"]["a"]["measured"] == {}
    if stop == "late":
        with pytest.raises(UserError, match="sleep = its default, not 0"):  # it would go on with the old options
            study(one("stop: late, sleep: 0"))
        assert study(one("stop: late")) == 0
        assert Path("runs/s/runs/a-seed0.log").read_text(encoding="utf-8").count("$ ") == 2  # both are kept
    else:
        study(one("stop: early"))
    assert starts() == ["a-seed0", f"a-seed0 {then}"]


def test_a_failure_is_told_and_the_rest_is_run(here, capsys):
    text = GRID.replace('"yes": {weights: none}', '"yes": {fail: phở}') + "seeds: [0, 1]\n"
    assert study(text) == 1
    out, error = capsys.readouterr()
    assert "4 failed; the same command tries them again" in error
    why = "train_fake.py: error: no such thing as phở (exit code 2; runs/s/runs/big-yes-seed1.log)"
    assert f"Big, yes, seed 1: {why}" in error and "Big, 2, seed 1: test accuracy 0.6000" in out
    text = Path("runs/s/table.md").read_text(encoding="utf-8")
    assert (
        re.search(r"\| Big, yes +\| – +\| – +\| – +\| – +\| – +\| 0 of 2 +\| – ", text)
        and f"- failed: Big, yes, seed 1: {why}" in text
    )
    assert table()["by_name"]["Big, 2"]["seeds"] == [0, 1]


def test_a_run_that_leaves_no_figures_failed(here, capsys):
    Path("scripts/empty.py").write_text(FAKE.split("given =")[0] + "parser.parse_args()\n", encoding="utf-8")
    assert study("script: empty\nrows: [{name: a}]\n") == 1
    assert "it ended without metrics.json (exit code 0" in capsys.readouterr().err
    assert not Path("runs/s/accuracy.png").exists()


def test_weights_stand_in_for_imagenet_and_for_nothing_else(here):
    Path("w.safetensors").write_bytes(b"")
    assert study(GRID, "--weights", "w.safetensors") == 0
    options = {cell["name"]: cell["options"].get("weights") for cell in table()["cells"]}
    assert options == {"Big, yes": "none", "Big, 2": "w.safetensors", "Small, yes": "none", "Small, 2": None}
    saved = yaml.safe_load(Path("runs/s/cells/big-2-seed0.yaml").read_text(encoding="utf-8"))
    assert saved["weights"] == "w.safetensors" and saved["seed"] == 0
    with pytest.raises(UserError, match="--weights w.safetensors: no cell .*weights: imagenet"):
        study(one(""), "--weights", "w.safetensors")


def test_cells_without_features_or_with_random_weights_are_noted(here, capsys):
    Path("f").write_bytes(b"")
    text = """
    script: train_fake
    own_data: {learning_rate: 0.5}
    rows:
      - {name: a, options: {accuracy: 0.5, encoder: resnet50, weights: imagenet}}
      - {name: b, options: {accuracy: 0.5, encoder: resnet101, weights: imagenet}}
    compare: [{name: a or b, cells: [a, b]}]
    """
    assert study(text, "--features", "resnet50=f", "--dry-run") == 0
    out = capsys.readouterr().out
    line = "left out 1 of 2 cells: no --features for: b"
    assert line in out and "features: f" in out and "learning_rate: 0.5" in out and "b (train_fake)" not in out
    assert not Path("runs").exists()
    assert study(text, "--features", "resnet50=f") == 0
    assert starts() == ["a-seed0"] and list(table()["by_name"]) == ["a"] and line in table()["notes"]
    assert "weights" not in table()["by_name"]["a"]  # stored features need none
    assert study(text, "--features", "resnet101=f") == 0  # the other's, into the same table
    assert starts() == ["a-seed0", "b-seed0"] and list(table()["by_name"]) == ["a", "b"]
    assert not any("left out" in note for note in table()["notes"])
    assert table()["by_name"]["a"]["options"]["features"] == "f"

    command = ("--weights", "resnet50=none", "b=f", "--output", "other", "--data", "small.yaml", "--other-data")
    assert study(text, *command) == 0
    found = table("other")
    assert "random weights where the study asks for ImageNet's: a" in found["notes"]
    assert any(note.startswith("other data than the study's own") for note in found["notes"])
    assert [cell["weights"] for cell in found["cells"]] == ["random", "f"]
    assert "learning_rate" not in found["by_name"]["a"]["options"] and found["differences"][0]["mean"] == 0
    assert "a − b" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given, kept",
    [
        ((), ["best_loss"]),
        (("--checkpoints", "all"), ["best_accuracy", "best_loss", "last"]),
        (("--checkpoints", "none"), []),
    ],
)
def test_of_a_finished_run_only_the_scored_checkpoint_stays(here, given, kept):
    """Three of each, every one with its frozen encoder, would fill a disk."""
    text = "script: train_fake\nrows: [{name: a, options: {accuracy: 0.1}}, {name: b, options: {stop: late}}]\n"
    assert study(text, *given) == 1
    assert sorted(path.name for path in Path("runs/s/runs/a-seed0/checkpoints").iterdir()) == kept
    assert Path("runs/s/runs/b-seed0/checkpoints/last").is_dir()  # it goes on from there


def test_set_wins_and_reaches_only_scripts_that_have_the_option(here):
    rows = "rows: [{name: majority, script: baseline_fake, options: {baseline: majority}}]\n"
    assert study(GRID + rows, "--set", "accuracy=0.125", "learning-rate=0.5", "--no-test") == 0
    cells = table()["by_name"]
    assert cells["Big, yes"]["options"] | {"accuracy": 0.125, "learning_rate": 0.5} == cells["Big, yes"]["options"]
    assert cells["Big, yes"]["measured"]["accuracy"]["mean"] == 0.125 and cells["Big, yes"]["split"] == "validation"
    assert cells["majority"]["options"] == {"baseline": "majority"} and cells["majority"]["split"] == "test"
    text = Path("runs/s/table.md").read_text(encoding="utf-8")
    assert "| split " in text and "validation is what recipes are chosen on" in text  # rows of two kinds say so


def test_only_some_cells_and_the_others_if_they_are_finished(here):
    assert study(GRID, "--only", "Small", "Big, 2") == 0
    assert sorted(starts()) == ["big-2-seed0", "small-2-seed0", "small-yes-seed0"]
    assert list(table()["by_name"]) == ["Big, 2", "Small, yes", "Small, 2"]
    assert study(GRID, "--only", "Big, yes") == 0
    assert len(starts()) == 4 and len(table()["cells"]) == 4
    assert study(GRID, "--only", "Big", "--output", "elsewhere") == 0
    assert list(table("elsewhere")["by_name"]) == ["Big, yes", "Big, 2"]


def test_dry_run_starts_and_writes_nothing(here, capsys):
    assert study(GRID, "--dry-run", "--seeds", 7, "--set", "sleep=1") == 0
    out = capsys.readouterr().out
    assert "Big, yes (train_fake)\n  accuracy: 0.5\n" in out and "  sleep: 1\n" in out
    assert "  seed 7: $ python scripts/train_fake.py --config runs/s/cells/small-2-seed7.yaml --output" in out
    assert not starts() and not Path("runs").exists()


def test_a_run_of_another_study_is_not_started_twice(here, capsys):
    """Two terminals, one folder: the second neither waits nor deletes what the first is writing."""
    fcntl = pytest.importorskip("fcntl")
    Path("runs/s/runs").mkdir(parents=True)
    with open("runs/s/runs/a-seed0.log", "w", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert study(one("")) == 1
    assert "a, seed 0: another process runs it now" in capsys.readouterr().err and not starts()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
@pytest.mark.parametrize("executor", ["here", "local"])
def test_an_interrupted_study_leaves_nothing_behind_and_ends_as_an_uninterrupted_one(here, executor, capsys):
    """Ctrl-C as a terminal sends it, to all that it started: exit code 130, and the same command does the rest."""
    if executor == "local":
        pytest.importorskip("submitit")
    text = "script: train_fake\nseeds: [0, 1]\nrows:\n"
    text += "".join(
        f"  - {{name: {name}, options: {{accuracy: 0.{k}, sleep: 0}}}}\n" for k, name in enumerate("abc", 1)
    )
    text += "compare: [{name: a or b, cells: [a, b]}]\n"
    assert study(text, "--output", "whole") == 0
    Path("starts.txt").unlink()
    slow = text.replace("accuracy: 0.2, sleep: 0", "accuracy: 0.2, sleep: 300")
    command = [sys.executable, "scripts/run_study.py", str(write(slow)), "--executor", executor]
    shutil.copy(ROOT / "scripts" / "run_study.py", "scripts")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts what is to run in the background with the signal ignored, these tests perhaps.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 120
    while not Path("runs/s/runs/b-seed0/checkpoints/last").exists() and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "interrupted; the same command goes on where it stopped" in error
    assert "Traceback" not in error and ("cancelled 1 job\n" in error) == (executor == "local")
    assert children and not psutil.wait_procs(children, timeout=10)[1]
    fcntl = pytest.importorskip("fcntl")
    with open("runs/s/runs/b-seed0.log", "ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more: the run has ended
    assert starts() == ["a-seed0", "b-seed0"] and not Path("runs/s/runs/b-seed0/metrics.json").exists()

    capsys.readouterr()
    Path("awake").touch()
    assert study(slow, "--executor", executor) == 0
    assert "6 runs, 1 of them finished before" in capsys.readouterr().out
    assert sorted(starts()[2:]) == ["a-seed1", "b-seed0 resume", "b-seed1", "c-seed0", "c-seed1"]
    for name in ("table.csv", "differences.csv"):
        assert Path("runs/s", name).read_bytes() == Path("whole", name).read_bytes()
    assert [cell["measured"] for cell in table()["cells"]] == [cell["measured"] for cell in table("whole")["cells"]]


def test_a_damaged_run_is_named(here, tmp_path):
    (tmp_path / "metrics.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="metrics.json: has neither test nor validation"):
        read_measured(tmp_path)


def test_many_types_stand_one_below_the_other_and_the_picture_takes_dollars(here, tmp_path):
    by = {f"class {number:02}": {"accuracy": number / 20, "n": number} for number in range(1, 14)}
    (tmp_path / "metrics.json").write_text(
        json.dumps({"test": {"accuracy": 0.5, "loss": None, "n": 9, "by_class": by}})
    )
    cell = read_study(write(one("", "reported: {a: {top1: 0.5}}\n"))).cells[0]
    keys = {"options": {"a": {}}, "commands": {"a": ""}, "runs": {("a", 0): tmp_path}, "failed": {}}
    text = write_tables(tmp_path, title="t", command="c", cells=[cell], **keys)
    assert re.search(r"\| class +\| n +\| a +\|", text) and re.search(r"\| class 13 +\| 13 +\| 0.6500 +\|", text)
    assert "- top1 was reported, but no run measures it" in (tmp_path / "table.md").read_text(encoding="utf-8")
    entry = {"name": "$x_", "reported": {"accuracy": 0.5}, "measured": {}}
    draw_bars([entry], tmp_path / "b.png", title="US$ and $")
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_the_real_scripts(run_script, tmp_path, capsys):
    """Training and a baseline on a few embedded scenes, as a user starts them; the second start runs nothing."""
    data = write_shapes(tmp_path / "scenes", train=24, validation=12, test=12, size=32)
    text = """
    script: train_vqa
    options: {depth: 3, width: 4, image_size: 32, hidden: 16, embedding: 8, projection: 16, workers: 0}
    rows:
      - {name: "with attention", options: {attention: true}}
      - {name: "question only", options: {inputs: question}}
      - {name: majority, script: baseline_vqa, options: {baseline: majority}}
    reported: {"question only": {accuracy: 0.25}}
    """
    file, output = tmp_path / "real.yaml", tmp_path / "out"
    file.write_text(text, encoding="utf-8")
    command = ("scripts/run_study.py", file, "--data", data, "--output", output, "--jobs", 2, "--set", "epochs=1")
    first = run_script(*command)
    assert "with attention, seed 0: test accuracy 0." in first.stdout
    cells = table(output)["by_name"]
    metrics = json.loads((output / "runs/question-only-seed0/metrics.json").read_text(encoding="utf-8"))["test"]
    blind, majority = cells["question only"], cells["majority"]
    assert blind["measured"]["accuracy"]["mean"] == metrics["accuracy"] and blind["measured"]["seconds"]["mean"] > 0
    assert blind["n"] == majority["n"] == metrics["n"] and "color" in blind["groups"]["by_type"]
    assert majority["options"] == {"baseline": "majority", "data": str(data)}  # no epochs, no width

    capsys.readouterr()
    given = parse(StudyOptions, list(map(str, command[1:])))
    assert run_study(given, scripts=ROOT / "scripts") == 0
    assert "3 runs, 3 of them finished before" in capsys.readouterr().out
    given.set += ("epoch=1",)
    with pytest.raises(UserError, match="'epoch' is unknown; did you mean 'epochs'"):
        run_study(given, scripts=ROOT / "scripts")
