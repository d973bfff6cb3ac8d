"""The run directory: where it may lie, what is refused before any work, and files that appear whole."""

import csv
import json
import math
import subprocess
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock, Timeout

from common import runs
from common.config import read_yaml
from common.errors import UserError
from common.files import read_json
from common.options import RunOptions
from common.training import Scores, make_accelerator


@pytest.fixture
def accelerator():
    return make_accelerator(SimpleNamespace(precision="no", tracker="none"))


def opened(path, **changes):
    options = RunOptions(output=str(path), **changes)
    runs.open_run(runs.choose_output(options, "unused"), options, task="vqa", command="python train.py --seed 3")
    return path


def test_on_main_gives_the_result_or_the_error(accelerator):
    assert runs.on_main(accelerator, lambda: {"a": [1, 2]}) == {"a": [1, 2]}

    def refuse():
        raise UserError("no such thing")

    with pytest.raises(UserError, match="^no such thing$"):
        runs.on_main(accelerator, refuse)
    other = SimpleNamespace(is_main_process=False)
    assert runs.on_main(other, refuse) is None  # not called; with one process nobody sends a result


def test_unnamed_runs_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    for _ in range(3):
        path = runs.choose_output(RunOptions(), "name")
        assert not path.exists()  # choosing creates nothing
        path.mkdir(parents=True)
        seen.append(path.as_posix())
    assert seen == ["runs/name", "runs/name-2", "runs/name-3"]


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_a_run_that_another_process_writes_is_refused(tmp_path, how):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 3\n", encoding="utf-8")
    with FileLock(run / ".lock"), pytest.raises(UserError, match="--output .*run: another process writes this run"):
        runs.choose_output(RunOptions(output=str(run), **{how: True}), "unused")
    assert (run / "config.yaml").is_file()
    assert runs.choose_output(RunOptions(output=str(run), **{how: True}), "unused") == run  # it has ended


def test_a_run_that_began_meanwhile_is_not_overwritten(tmp_path):
    """Both chose the output before it was there; the other one made it first, and writes it."""
    options = RunOptions(output=str(tmp_path / "run"), overwrite=True)
    run = runs.choose_output(options, "unused")
    run.mkdir()
    (run / "config.yaml").write_text("seed: 3\n", encoding="utf-8")
    with FileLock(run / ".lock"), pytest.raises(UserError, match="another process writes this run now"):
        runs.open_run(run, options, task="vqa", command="train.py")
    assert (run / "config.yaml").read_text(encoding="utf-8") == "seed: 3\n"
    (run / "config.yaml").rename(run / "notes.txt")
    with pytest.raises(UserError, match="is not a run .*--overwrite will not delete it"):
        runs.open_run(run, options, task="vqa", command="train.py")
    assert (run / "notes.txt").is_file()


def test_a_run_is_held_until_it_is_released(tmp_path):
    run = opened(tmp_path / "run")
    with pytest.raises(Timeout):
        FileLock(run / ".lock").acquire(blocking=False)
    runs.release(run)
    assert not (run / ".lock").exists()
    runs.release(run)  # nothing to do


def test_an_existing_output_is_refused_unless_resumed_or_overwritten(tmp_path):
    run = opened(tmp_path / "run")
    with pytest.raises(UserError, match="--output .*run exists; .*--resume.*--overwrite"):
        runs.choose_output(RunOptions(output=str(run)), "unused")
    for allowed in ({"resume": True}, {"overwrite": True}):
        assert runs.choose_output(RunOptions(output=str(run), **allowed), "unused") == run
    with pytest.raises(UserError, match="give one of them"):
        RunOptions(output=str(run), resume=True, overwrite=True)


def test_overwrite_deletes_nothing_but_runs(tmp_path):
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "a.jpg").write_bytes(b"1")
    file = tmp_path / "notes.txt"
    file.write_text("1", encoding="utf-8")
    for path in (precious, file):
        with pytest.raises(UserError, match="is not a run .*--overwrite will not delete it"):
            runs.choose_output(RunOptions(output=str(path), overwrite=True), "unused")
    assert (precious / "a.jpg").is_file() and file.is_file()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert runs.choose_output(RunOptions(output=str(empty), overwrite=True), "unused") == empty


def test_an_opened_run_says_what_it_is(tmp_path):
    run = opened(tmp_path / "deep" / "run", seed=3)
    task, saved = runs.read_run(run)
    assert task == "vqa" and saved["seed"] == 3
    assert not {"config", "resume", "overwrite"} & set(saved)  # how it was started is no part of what it did
    environment = read_json(run / "environment.json")
    assert environment["command"] == "python train.py --seed 3" and environment["packages"]["torch"]
    assert "# task: vqa" in (run / "config.yaml").read_text(encoding="utf-8")


def test_overwriting_leaves_nothing_of_the_old_run_and_resuming_leaves_all(tmp_path):
    run = opened(tmp_path / "run")
    (run / "metrics.json").write_text("{}", encoding="utf-8")
    opened(run, resume=True)
    assert (run / "metrics.json").is_file()
    opened(run, overwrite=True, seed=9)
    assert not (run / "metrics.json").exists() and runs.read_run(run)[1]["seed"] == 9


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        runs.read_run(tmp_path)
    with pytest.raises(UserError, match="not a run directory"):
        runs.read_run(tmp_path / "nowhere")
    run = opened(tmp_path / "run")
    (run / "environment.json").write_text('{"task": ', encoding="utf-8")
    with pytest.raises(UserError, match="environment.json: is damaged"):
        runs.read_run(run)


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="--output .*cannot be written"):
        opened(tmp_path / "file" / "run")


def test_resume_refuses_other_options_by_name():
    saved = {"seed": 1, "hidden": 32, "epochs": 2, "gone": True}
    runs.refuse_changes(saved, {"seed": 1, "hidden": 32, "epochs": 5, "fresh": 1}, may_change={"epochs"})
    with pytest.raises(UserError, match="started with hidden = 32, not 64; .*may change: epochs, workers"):
        runs.refuse_changes(saved, saved | {"hidden": 64}, may_change={"workers", "epochs"})


def test_written_options_are_no_change_to_themselves(tmp_path):
    """A tuple is a list in YAML: saving and reading back must not look like another option."""
    run = opened(tmp_path / "run", seed=4)
    runs.refuse_changes(read_yaml(run / "config.yaml"), asdict(RunOptions(output=str(run), seed=4)), may_change=())


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    runs.write_json(path, {"phở": 0.25})
    assert "phở" in path.read_text(encoding="utf-8") and read_json(path) == {"phở": 0.25}
    with pytest.raises(TypeError):
        runs.write_json(path, {"bad": {1, 2}})
    assert read_json(path) == {"phở": 0.25}

    def full(self, *arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(UserError, match="metrics.json: cannot be written .No space left"):
        runs.write_json(path, {"new": 1})
    assert read_json(path) == {"phở": 0.25}


def test_a_figure_that_is_no_number_is_still_json(tmp_path):
    """The mean loss over samples none of which the model can answer; `NaN` is no JSON, and other readers refuse it."""
    runs.write_json(tmp_path / "m.json", {"test": {"loss": math.nan, "by_type": [{"loss": 1.5}]}})

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    text = (tmp_path / "m.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == {"test": {"loss": None, "by_type": [{"loss": 1.5}]}}


def test_missing_and_damaged_json_name_the_file(tmp_path):
    with pytest.raises(UserError, match="nothing.json: cannot be read"):
        read_json(tmp_path / "nothing.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="bytes.json: is damaged"):
        read_json(tmp_path / "bytes.json")


def test_csv_keeps_commas_quotes_lines_and_vietnamese(tmp_path):
    rows = [{"id": "1", "gold": 'bún bò, "Huế"'}, {"id": "2", "gold": "hai\ndòng"}]
    runs.write_csv(tmp_path / "p.csv", rows)
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv"]
    with pytest.raises(UserError, match="cannot be written"):
        runs.write_csv(tmp_path / "nowhere" / "p.csv", rows)


def test_output_files_are_refused_before_the_work(tmp_path):
    there = tmp_path / "out.json"
    runs.refuse_existing(None, overwrite=False)
    runs.refuse_existing(str(there), overwrite=False)
    there.write_text("{}", encoding="utf-8")
    runs.refuse_existing(str(there), overwrite=True)
    with pytest.raises(UserError, match="--predictions .*out.json exists; .*--overwrite"):
        runs.refuse_existing(str(there), overwrite=False, option="--predictions")
    with pytest.raises(UserError, match="there is no folder"):
        runs.refuse_existing(str(tmp_path / "nowhere" / "out.json"), overwrite=False)


def test_prediction_rows():
    scores = Scores(
        gold=np.array([1, -1]),
        predicted=np.array([1, 0]),
        probability=np.array([0.75, 1 / 3]),
        loss=np.array([0.3, np.nan]),
        rank=np.array([1, 3]),
    )
    columns = {
        "question": ["q1", "q2"],
        "gold": ["phở", "bún"],
        "type": ["dish", "color"],
        "group": ["g", "h"],
        "id": ["a", "b"],
    }
    rows = runs.prediction_rows(scores, ["cơm", "phở"], columns)
    assert [list(row) for row in rows] == [["id", "group", "type", "gold", "predicted", "probability", "question"]] * 2
    assert [list(row.values()) for row in rows] == [
        ["a", "g", "dish", "phở", "phở", 0.75, "q1"],
        ["b", "h", "color", "bún", "cơm", 0.333333, "q2"],
    ]


def test_fingerprints_find_an_overlap_and_tell_nothing_else():
    some, other = runs.fingerprints(["ảnh", "b", "b"]), runs.fingerprints(["c", "ảnh"])
    assert len(some) == 2 and some == sorted(some) and len(set(some) & set(other)) == 1
    assert "b" not in some


def test_cache_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOIANH_CACHE", str(tmp_path / "from-environment"))
    assert runs.cache_directory(None) == (tmp_path / "from-environment").resolve()
    assert runs.cache_directory(str(tmp_path / "given")).is_dir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cache folder .*--cache"):
        runs.cache_directory(str(tmp_path / "file" / "below"))


def test_report_has_the_command_the_table_and_the_notes(tmp_path):
    metrics = {"test": {"accuracy": 0.5, "loss": 1.25, "n": 4, "by_type": {"dish": {"accuracy": 0.5, "n": 4}}}}
    table = runs.write_report(tmp_path, title="A run", command="python x.py", notes=["skipped: 2"], metrics=metrics)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# A run") and "python x.py" in text and "- skipped: 2" in text and table in text
    assert "0.5000" in table and "1.2500" in table
    assert "curves.png" not in text  # there is no picture


def test_a_run_knows_the_commit_of_its_code(tmp_path, monkeypatch):
    package = tmp_path / "checkout" / "common"
    package.mkdir(parents=True)
    monkeypatch.setattr(runs, "__file__", str(package / "runs.py"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (package / "runs.py").write_text("1\n", encoding="utf-8")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "a"], check=True)
    assert runs._commit() is None  # the repository is of the folder above: somebody else's
    (tmp_path / ".git").rename(package.parent / ".git")
    git[-1] = str(package.parent)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "b"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert len(runs._commit()) >= 4 and commit.startswith(runs._commit())
    (package / "runs.py").write_text("2\n", encoding="utf-8")
    assert runs._commit().endswith("-dirty")
