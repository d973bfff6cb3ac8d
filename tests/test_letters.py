"""Report R3's letters: its losses and words, words of any length and language, and what is refused."""

import csv
import json
import unicodedata
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from common import letters
from common.config import build, parse
from common.errors import UserError
from common.letters import R3_LOSSES, LetterNet, fit_letters, train_letters
from common.letters_options import LettersOptions
from common.predictions import read_scored
from common.statistics import ALPHA, smallest_p
from common.study import read_study
from common.study_values import read_measured

ROOT = Path(__file__).resolve().parent.parent


def options(*arguments: object) -> LettersOptions:
    return parse(LettersOptions, list(map(str, arguments)))


@pytest.fixture(scope="module")
def seeds() -> list[tuple[LetterNet, list[float]]]:
    """R3's setting with a dozen seeds."""
    return [fit_letters(options("--seed", seed)) for seed in range(12)]


def test_reported_losses_lie_among_those_of_seeds(seeds):
    for epoch, reported in R3_LOSSES.items():
        found = [losses[epoch] for _, losses in seeds]
        assert min(found) < reported < max(found), epoch


def test_what_was_learned_is_written(seeds):
    for net, _ in seeds:
        assert [net.write(letter, 5) for letter in "hgs"] == ["hello", "green", "start"]
    assert "eello" in [net.write("e", 5) for net, _ in seeds]
    assert "tarta" in [net.write("t", 5) for net, _ in seeds]


def test_the_loss_is_the_mean_over_the_letters_that_follow():
    torch.manual_seed(0)
    net = LetterNet(sorted(set("mèochóxinchào ")), kind="gru", hidden=5)
    words = ["mèo", "xin chào", "có"]
    losses = []
    for word in words:  # alone, so that nothing is padded
        places = net.encode(word).unsqueeze(0)
        logits = net(places[:, :-1], torch.tensor([len(word) - 1]))
        losses.append(cross_entropy(logits[0], places[0, 1:], reduction="none"))
    torch.testing.assert_close(net.loss(words), torch.cat(losses).mean())
    assert sum(map(len, losses)) == 2 + 7 + 1


def test_r3_beside_what_is_measured(tmp_path, capsys):
    run = tmp_path / "run"
    found = train_letters(options("--seed", 14, "--output", run))  # a seed that writes all that R3 wrote
    said = capsys.readouterr().out
    assert "| epoch   | reported (R3)   | measured   |" in said and "| 10      | 1.7421          | " in said
    assert [row["epoch"] for row in found["losses"]] == list(range(10, 101, 10))
    assert all(row["written"] == row["reported"] for row in found["written"])
    assert [row["trained word"] for row in found["written"]] == ["hello", "green", "start", None, None]
    assert json.loads((run / "letters.json").read_text(encoding="utf-8"))["written"] == found["written"]
    with (run / "loss.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 101 and rows[10]["reported"] == "1.7421" and rows[11]["reported"] == ""
    assert float(rows[100]["measured"]) == found["losses"][-1]["measured"]
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="exists; choose another, or add --overwrite"):
        train_letters(options("--output", run))
    train_letters(options("--epochs", 1, "--output", run, "--overwrite"))
    assert len((run / "loss.csv").read_text(encoding="utf-8").splitlines()) == 3


@pytest.mark.parametrize(
    "other", [["--kind", "gru"], ["--hidden", "13"], ["--learning-rate", "0.02"], ["--words", "hello", "green"]]
)
def test_nothing_was_reported_of_another_setting(other, capsys):
    found = train_letters(options("--epochs", 10, *other))
    assert "reported" not in capsys.readouterr().out.rpartition("\n{")[0]  # the last line is of letters.json
    assert found["losses"][0]["reported"] is None


def test_a_run_has_every_letter_that_was_to_be_written(tmp_path):
    """What common/study_values.py and common/predictions.py read of it; one word of the two begins like the other."""
    words = ("mẹo hay", "mèo", "có")
    found = options("--words", *words, "--epochs", 120, "--kind", "gru", "--output", tmp_path / "run")
    train_letters(found)
    scored = read_scored(tmp_path / "run", "train")
    assert scored.columns["id"] == [f"{word}-{place}" for word in words for place in range(1, len(word))]
    assert scored.groups == [word for word in words for _ in word[1:]] and scored.grouped_by == "group"
    assert "".join(scored.columns["gold"]) == "ẹo hayèoó"
    measured = read_measured(tmp_path / "run")
    by_word = measured.groups["by_word"]
    assert by_word["có"] == {"accuracy": 1.0, "n": 1}
    assert {by_word["mèo"]["accuracy"] == 1, by_word["mẹo hay"]["accuracy"] == 1} == {True, False}
    assert measured.split == "train" and measured.figures["n"] == 9 and measured.figures["epochs"] == 120
    assert measured.figures["accuracy"] == scored.right.mean() and 0 < measured.figures["seconds"] < 60
    assert measured.figures["parameters"] == 3 * (10 * 12 + 12 * 12 + 2 * 12) + 13 * 10
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "history.jsonl").open(encoding="utf-8")]
    assert measured.figures["loss"] == losses[-1] < losses[0]


def test_words_of_other_lengths_and_another_language(capsys):
    words = [unicodedata.normalize("NFD", word) for word in ("hỏi", "ảnh", "món nước", "bè")]
    found = train_letters(options("--words", *words, "--given", words[0][:3], "món", "--epochs", 150, "--kind", "lstm"))
    assert found["words"] == ["hỏi", "ảnh", "món nước", "bè"] and "ỏ" in found["letters"]
    assert [row["given"] for row in found["written"]] == ["hỏ", "món"]
    assert [row["trained word"] for row in found["written"]] == ["hỏi", "món nước"]
    assert all(len(row["written"]) == 8 for row in found["written"])


def test_first_letters_are_given_unless_told():
    assert options("--words", "ba", "bốn", "năm").given == ("b", "n")
    assert options("--words", "start", "hello", "green").given == ("h", "g", "s", "e", "t")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--words"], "--words: there is no word to learn"),
        (["--words", "hello", " "], "--words '': nothing follows"),
        (["--words", "a"], "--words 'a': nothing follows its first letter"),
        (["--given", "z"], "--given 'z': the letter 'z' is in none of the words; choose from a e g h l n o r s t"),
        (["--given", ""], "--given '': no letter is given"),
        (["--given", "hello"], "--given 'hello': 5 letters are written in all"),
        (["--kind", "mamba"], "--kind 'mamba'"),
        (["--learning-rate", "inf"], "--learning-rate 'inf': Input should be a finite number"),
    ],
)
def test_bad_input(arguments, said):
    with pytest.raises(UserError, match=said):
        train_letters(options(*arguments))


def test_a_loss_that_is_no_number_is_told(monkeypatch):
    whole = letters.LetterNet.loss
    monkeypatch.setattr(letters.LetterNet, "loss", lambda net, words: whole(net, words) * float("nan"))
    with pytest.raises(UserError, match="the loss is nan at learning rate 0.01; "):
        train_letters(options())


def test_as_a_command(run_script):
    result = run_script("scripts/train_letters.py", "--given", "z", check=False)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and "'z' is in none" in result.stderr


def test_the_study_trains_nets_of_one_size_over_enough_seeds():
    study = read_study(ROOT / "configs" / "studies" / "r3_letters.yaml")
    made = {cell.name: build(LettersOptions, cell.shared | cell.own) for cell in study.cells}
    assert {name: net.kind for name, net in made.items()} == {"RNN": "rnn", "GRU": "gru", "LSTM": "lstm"}
    assert made["RNN"].is_r3 and {(net.hidden, net.epochs, net.learning_rate) for net in made.values()} == {
        (12, 100, 0.01)
    }
    assert study.cells[0].reported["loss"] == R3_LOSSES[100]
    primary = [comparison.cells for comparison in study.compare if comparison.primary]
    assert primary == [("RNN", "GRU"), ("RNN", "LSTM")]
    assert len(primary) * smallest_p(len(study.cells[0].seeds)) < ALPHA  # Holm's first step can be passed
