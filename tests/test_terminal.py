"""What commands say: to people in a terminal, and to programs in a pipe."""

import io
import json
import sys

import pytest
import torch

from common import terminal
from common.terminal import block, ending, live, say_result, script, training_bar


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
