"""What commands say: to people in a terminal, and to programs in a pipe."""

import io
import json
import shlex
import sys
from types import SimpleNamespace

import pytest
import torch
from test_help import options_of

import common.classifier_train
import video.train
import vqa.train
from common import terminal
from common.config import parse, write_options
from common.terminal import block, ending, live, say_result, script, training_bar
from common.training_words import classes_note, compare_steps
from video.options import TrainVideoOptions
from vqa.options import TrainVqaOptions


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LINES = ["data: " + "ảnh " * 30, "a/b.csv has a strange row: it was left out", "run: runs/mine"]


def test_the_block_is_lines_in_a_pipe_and_a_column_in_a_terminal(monkeypatch):
    assert block("Hỏi Ảnh", LINES) == "\n".join(["Hỏi Ảnh", *LINES])
    monkeypatch.setattr(terminal, "for_people", lambda: True)
    monkeypatch.setenv("COLUMNS", "70")
    told = block("Hỏi Ảnh", LINES).splitlines()
    assert (
        all(len(line) <= 70 for line in told)
        and told[2].startswith("  data  ảnh")
        and told[3].startswith("        ảnh")
    )
    assert told[-1] == "  run   runs/mine" and "        a/b.csv has a strange row: it was left out" in told


def test_the_end_is_for_people_or_for_programs(monkeypatch, capsys):
    steps = [("ask it", script("predict_vqa", "--question", "ở đâu?", "--image", "ảnh 1.jpg"))]
    result = {"run": terminal.Path("runs/mine"), "loss": float("nan"), "task": "hỏi"}
    said = ending("| all |", steps=steps, result=result)
    assert said.splitlines()[0] == "| all |"
    assert json.loads(said.splitlines()[-1]) == {"run": "runs/mine", "loss": None, "task": "hỏi"}
    say_result(**result)
    assert json.loads(capsys.readouterr().out)["task"] == "hỏi"
    monkeypatch.setattr(terminal, "for_people", lambda: True)
    said = ending("| all |", steps=steps, result=result)
    assert said.endswith("next:\n  # ask it\n  python scripts/predict_vqa.py --question 'ở đâu?' --image 'ảnh 1.jpg'")
    say_result(**result)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "started, folder",
    [("scripts/train_vqa.py", "scripts"), ("../scripts/evaluate.py", "../scripts"), ("pytest", "scripts")],
)
def test_commands_are_from_where_the_user_stands(monkeypatch, started, folder):
    monkeypatch.setattr(sys, "argv", [started])
    assert script("compare_runs", "a b", 1) == f"python {folder}/compare_runs.py 'a b' 1"


def test_the_bar_shows_the_time_left_and_what_is_learned(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bar = training_bar(total=40, initial=20, shown=True)
    bar.mininterval = 0  # draws at every step
    bar.set_description("epoch 2/2", refresh=False)
    total = torch.tensor([12.0, 3.0, 6.0])
    for _ in range(2):
        assert bar.update()
        bar.set_postfix_str(live(*total.tolist()), refresh=False)
    bar.close()
    told = screen.getvalue()
    assert "epoch 2/2" in told and "22/40 steps" in told and " left, loss 2.0000, accuracy 0.5000" in told


def test_no_bar_where_nobody_looks(capfd):
    for shown in (True, False):  # standard error is a file here
        bar = training_bar(total=2, initial=0, shown=shown)
        assert not bar.update() and bar.disable
        bar.close()
    assert capfd.readouterr() == ("", "")


def test_an_epoch_without_a_labelled_sample_has_figures():
    assert live(0.0, 0.0, 0.0) == "loss 0.0000, accuracy 0.0000"


def accepted(steps: list[tuple[str, str]]) -> list:
    """The options that each command stands for."""
    commands = [shlex.split(command) for _, command in steps]
    assert all(why and words[0] == "python" for (why, _), words in zip(steps, commands, strict=True))
    return [parse(options_of(words[1].rpartition("/")[2]), words[2:]) for words in commands]


def test_commands_to_try_next_are_accepted(tmp_path):
    """As they are printed, with the run's own paths, photo and question."""
    run = tmp_path / "lượt 1"
    run.mkdir()
    write_options(run / "config.yaml", TrainVqaOptions())
    row = {"image": "ảnh 1.jpg", "question": "món gì?", "path": "a b.avi"}
    data = SimpleNamespace(splits={"validation": [row], "test": []})
    config = SimpleNamespace(inputs="both", attends=("grid",), attention_weights="learned")
    asked, scored, without = accepted(vqa.train._next_commands(run, data, config, split="validation"))
    assert (asked.question, asked.image, asked.attention_map) == ("món gì?", "ảnh 1.jpg", str(run / "where.png"))
    assert scored.split == "validation" and not without.attention and without.output == f"{run}-no-attention"
    marked, scored = accepted(video.train._next_commands(run, TrainVideoOptions(), data))
    assert (marked.video, scored.run, scored.split) == ("a b.avi", str(run), "test")
    classified, _ = accepted(common.classifier_train._next_commands(run, data))
    assert classified.image == "ảnh 1.jpg"


def test_a_run_is_compared_with_the_one_before_it(tmp_path):
    options = TrainVqaOptions(seed=3)
    run = tmp_path / "mine"
    for name, task, changed in (("mine", "vqa", {}), ("other-data", "vqa", {"data": "x"}), ("clips", "video", {})):
        (tmp_path / name).mkdir()
        write_options(tmp_path / name / "config.yaml", TrainVqaOptions(**changed))
        (tmp_path / name / "environment.json").write_text(json.dumps({"task": task}), encoding="utf-8")
        (tmp_path / name / "metrics.json").write_text("{}", encoding="utf-8")
    (again,) = accepted(compare_steps(run, "vqa", options))  # no other is like it
    assert again.seed == 4 and again.output == f"{run}-seed4"
    (tmp_path / "other-data").rename(tmp_path / "before")
    write_options(tmp_path / "before" / "config.yaml", options)
    (compared,) = accepted(compare_steps(run, "vqa", options))
    assert compared.runs == (str(run), str(tmp_path / "before")) and compared.split == "test"


def test_coverage_of_classes_is_told():
    told = classes_note(["a", "b"], {"validation": ["a", "b", "c", "c"], "test": ["a"]})
    assert told == "classes: 2 (a, b); they cover 50.00% of validation, 100.00% of test"
