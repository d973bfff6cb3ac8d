"""Tables of studies from runs made up here, worked by hand: differences, two axes, weights, seconds, other splits."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from common.study import Study, read_study
from common.study_tables import read_measured, write_tables

STUDY = """
title: "t"
script: train
grid:
  net: {Big: {}, Small: {}}
  head: {LSTM: {}, GRU: {}}
rows: [{name: chance}]
reported:
  Big, LSTM: {accuracy: 0.75, test seconds: 1.85, seconds: 6.08, validation loss: 0.5}
across: head
compare:
  - {name: is big better, cells: ["Big, LSTM", "Small, LSTM"]}
  - {name: no seed of both, cells: ["Big, LSTM", "chance"]}
  - {name: one seed, cells: ["Small, LSTM", "Small, GRU"]}
  - {name: not run, cells: ["Big, GRU", "Big, LSTM"]}
"""


def read(folder: Path, text: str) -> Study:
    (folder / "s.yaml").write_text(text, encoding="utf-8")
    return read_study(folder / "s.yaml")


def write(folder: Path, metrics: Mapping[str, Any], **environment: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return folder


def tables(folder: Path, study: Study, runs: Mapping[tuple[str, int], Path], **more: Any) -> str:
    options = {cell.name: dict(cell.own) for cell in study.cells} | more.pop("options", {})
    cells = [cell for cell in study.cells if any(name == cell.name for name, _ in runs)]
    commands = {cell.name: "" for cell in cells}
    keys = {"title": "t", "command": "c", "failed": {}, "compare": study.compare, "pivot": study.pivot} | more
    return write_tables(folder, cells=cells, options=options, runs=runs, commands=commands, **keys)


def rows(text: str, caption: str = "") -> list[list[str]]:
    """The rows of the table under a heading (of the first, without one)."""
    lines = (text.partition(f"## {caption}\n")[2] if caption else text).splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("|"))
    end = next((place for place in range(first, len(lines)) if not lines[place].startswith("|")), len(lines))
    return [[part.strip() for part in line[1:-1].split(" | ")] for line in lines[first:end] if "---" not in line]


def test_differences_and_two_axes_by_hand(tmp_path):
    study = read(tmp_path, STUDY)
    found = {
        "Big, LSTM": {0: 0.5, 1: 0.75, 2: 0.9},
        "Small, LSTM": {0: 0.4, 1: 0.45},
        "Small, GRU": {1: 0.5},
        "chance": {4: 0.1},
    }
    runs = {
        (name, seed): write(tmp_path / f"{name}-{seed}", {"test": {"accuracy": accuracy, "n": 20}})
        for name, by_seed in found.items()
        for seed, accuracy in by_seed.items()
    }
    printed = tables(tmp_path, study, runs)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    # 0.5 − 0.4 and 0.75 − 0.45: mean 0.2, deviation √(2 × 0.1²)
    assert rows(text, "differences") == [
        ["comparison", "cells", "difference", "95 % interval", "seeds", "n", "lowest", "highest"],
        ["is big better", "Big, LSTM − Small, LSTM", "+0.2000 ± 0.1414", "–", "2", "20", "+0.1000", "+0.3000"],
        ["no seed of both", "Big, LSTM − chance", "–", "–", "0", "20", "–", "–"],
        ["one seed", "Small, LSTM − Small, GRU", "-0.0500", "–", "1", "20", "-0.0500", "-0.0500"],
    ]  # and nothing of a cell that is not in the table
    assert "Differences of accuracy, seed by seed: mean ± sample standard deviation." in text
    assert "is big better" in printed and "accuracy, measured" in printed
    first = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))["differences"][0]
    assert first["by_seed"] == pytest.approx({"0": 0.1, "1": 0.3}) and first["mean"] == pytest.approx(0.2)
    assert rows(text, "accuracy, reported") == [["net", "LSTM", "GRU"], ["Big", "0.7500", "–"], ["Small", "–", "–"]]
    measured = rows(text, "accuracy, measured")
    assert measured[1] == ["Big", "0.7167 ± 0.2021", "–"] and measured[2] == ["Small", "0.4250 ± 0.0354", "0.5000"]
    assert len(rows(text)) == 5  # the main table holds every cell that was run
    tex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert "Big, LSTM $-$ Small, LSTM" in tex and "−" not in tex

    study = read(tmp_path, STUDY.replace("across: head", "across: net").replace("accuracy: 0.75, ", ""))
    tables(tmp_path, study, runs)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "## accuracy, reported" not in text  # nothing reported, nothing to print
    assert [row[0] for row in rows(text, "accuracy, measured")] == ["head", "LSTM", "GRU"]
    assert rows(text, "accuracy, measured")[2] == ["GRU", "–", "0.5000"]


def test_validation_is_not_compared_with_test(tmp_path):
    study = read(tmp_path, STUDY)
    names = ("Big, LSTM", "Small, LSTM")
    runs = {
        (name, 0): write(tmp_path / name, {split: {"accuracy": 0.5}})
        for name, split in zip(names, ("test", "validation"), strict=True)
    }
    tables(tmp_path, study, runs)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert rows(text, "differences")[1][2] == "–"
    assert "- is big better: scored on test and validation; no interval\n" in text


def test_where_there_is_no_other_split_it_is_train_and_the_table_says_so(tmp_path):
    study = read(tmp_path, STUDY)
    by_word = {"hello": {"accuracy": 0.75, "n": 4}}
    figures = {"accuracy": 0.75, "loss": 0.5, "n": 4, "by_word": by_word}
    tables(tmp_path, study, {("Big, LSTM", 0): write(tmp_path / "r", {"train": figures})})
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "- measured on: train (n = 4)\n" in text and "- train is what was to be learned: " in text
    assert "train accuracy" not in text and rows(text, "accuracy by word")[1] == ["Big, LSTM", "0.7500"]


def test_seconds_of_a_test_and_figures_of_other_splits(tmp_path):
    study = read(tmp_path, STUDY)
    metrics = {
        "train": {"accuracy": 0.99, "loss": 0.125},
        "validation": {"accuracy": 0.8, "loss": 0.625},
        "test": {"accuracy": 0.7, "loss": 0.9, "n": 10, "seconds_per_32": 2.346},
    }
    runs = {("Big, LSTM", 0): write(tmp_path / "r", metrics, device="cpu")}
    figures = read_measured(tmp_path / "r").figures
    assert "seconds_per_32" not in figures and figures["test seconds"] == 2.346
    assert figures["train loss"] == 0.125 and figures["validation loss"] == 0.625
    tables(tmp_path, study, runs)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    header, row = rows(text)
    shown = dict(zip(header, row, strict=True))
    assert header[-1] == "test seconds" and shown["test seconds"] == "2.35"
    assert (shown["reported test seconds"], shown["reported seconds"]) == ("1.85", "6.08")
    assert (shown["reported validation loss"], shown["measured validation loss"]) == ("0.5000", "0.6250")
    assert shown["measured train accuracy"] == "0.9900" and "measured train loss" not in shown  # nobody reported it
    assert "measured test seconds" not in shown and "seconds_per_32" not in text
    what = "- test seconds: for 32 clips, from decoded frames to classes, encoder and head"
    assert f"{what}, scaled from a few clips one by one, on the machine's cpu; decoding not counted" in text
    assert "- seconds was reported, but no run measures it" in text  # this run has no history

    runs = {("Big, LSTM", 0): write(tmp_path / "untimed", {"test": {"accuracy": 0.7, "n": 10}})}
    tables(tmp_path, study, runs)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "test seconds" not in rows(text)[0] and "- test seconds was reported, but no run measures it" in text


def test_weights_are_shown_where_they_differ(tmp_path):
    text = "script: train\nrows: [{name: a}, {name: b}, {name: c}, {name: d}]\n"
    study = read(tmp_path, text)
    runs = {(name, 0): write(tmp_path / name, {"test": {"accuracy": 0.5, "n": 4}}) for name in "abcd"}
    options = {
        "a": {"encoder": "resnet50", "weights": "folder/file.pth"},
        "b": {"encoder": "resnet50", "weights": "none"},
        "c": {"weights": "imagenet"},
        "d": {"encoder": "resnet50", "weights": "imagenet", "features": "f"},
    }
    tables(tmp_path, study, runs, options=options)
    found = rows((tmp_path / "table.md").read_text(encoding="utf-8"))
    assert found[0][:2] == ["model", "weights"] and [row[1] for row in found[1:]] == ["file.pth", "random", "–", "–"]
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").startswith("model,weights,")
    assert "random" in (tmp_path / "table.tex").read_text(encoding="utf-8")
    same = options | {"b": options["a"]}
    for named in (False, True):
        tables(tmp_path, study, runs, options=same, weights_named=named)
        header = rows((tmp_path / "table.md").read_text(encoding="utf-8"))[0]
        assert ("weights" in header) == named
