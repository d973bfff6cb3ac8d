"""Curves of a study's runs: means worked by hand, what is left out, pictures whose labels do not cover one another."""

import json
import math
import warnings

import matplotlib.pyplot as plt
import pytest
from PIL import Image
from test_plots import assert_tidy

from common import plots
from common.errors import UserError
from common.study_curves import _limits, draw_runs, mean_curve
from common.study_values import read_history


def history(epochs: int, start: float = 0.1) -> list[dict]:
    """Accuracy that rises by a hundredth per epoch, loss that falls."""
    return [
        {"epoch": epoch, "learning_rate": 1e-3, "seconds": 1.0}
        | {f"{split}_accuracy": start + epoch / 100 for split in ("train", "validation")}
        | {f"{split}_loss": 2 / epoch for split in ("train", "validation")}
        for epoch in range(1, epochs + 1)
    ]


def test_the_mean_ends_where_the_first_seed_ends():
    assert mean_curve([[0.25, 0.5, 1.0], [0.75, 1.0]]) == [0.5, 0.75]
    assert mean_curve([[0.25]]) == [0.25]
    assert math.isnan(mean_curve([[math.nan], [1.0]])[0])


def test_a_history_is_read_and_a_damaged_one_named(tmp_path):
    assert read_history(tmp_path) == []  # a baseline's
    rows = history(2)
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n", encoding="utf-8")
    assert read_history(tmp_path) == rows
    (tmp_path / "history.jsonl").write_text('{"epoch": 1}\n{"ep', encoding="utf-8")
    with pytest.raises(UserError, match="history.jsonl: damaged"):
        read_history(tmp_path)


def test_one_diverging_seed_does_not_flatten_the_others():
    cells = {"a": [history(60)], "b": [history(60)]}
    low, high, cut = _limits(cells, "loss")
    assert low < 2 / 60 and high > 2 and not cut
    cells["b"][0][30]["validation_loss"] = 1e6
    low, high, cut = _limits(cells, "loss")
    assert cut and high < 3
    cells["b"][0][30]["validation_loss"] = None  # NaN, as JSON has it
    assert _limits(cells, "loss")[1] < 3


@pytest.mark.parametrize("count", [1, 5, 20])
def test_labels_are_apart_and_inside(tmp_path, monkeypatch, count):
    kept = []
    monkeypatch.setattr(plots.plt, "close", kept.append)
    name = "một ô có tên dài đến nỗi không thể nào viết hết được số"
    cells = {f"{name} {number}": [history(12), history(9, 0.2)] for number in range(count)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that the font does not have
        assert draw_runs(cells, tmp_path / "curves.png", title="R1: mạng riêng, $a$ và $b$")
    assert_tidy(kept[0])
    monkeypatch.undo()
    plt.close("all")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 700 and picture.height > 300
    lines = kept[0].axes[0].get_lines()
    thick = [line for line in lines if line.get_linewidth() == 2 and len(line.get_xdata()) == 9]
    thin = [line for line in lines if line.get_linewidth() == 0.7]
    assert len(thick) == 4 * count and len(thin) == 8 * count  # train and validation of two figures; two seeds


def test_what_has_no_history_is_left_out(tmp_path):
    assert not draw_runs({"majority": [[]], "odd": [[{"epoch": 1, "seconds": 2.0}]]}, tmp_path / "c.png", title="t")
    assert not (tmp_path / "c.png").exists()
    assert draw_runs({"majority": [[]], "one epoch": [[], history(1)]}, tmp_path / "c.png", title="t")
    assert (tmp_path / "c.png").is_file()
