"""Which options the cells of a study get when the command line names cells, axes or encoders. Nothing is run here."""

from pathlib import Path

import pytest

from common.config import parse
from common.errors import UserError
from common.study import StudyOptions, choose, read_study
from common.study_options import Assigned, cell_options, left_out_note

KNOWN = {
    "train": set("data cache features encoder weights frames head classes epochs test split_list".split()),
    "baseline": {"data", "kind"},
}
STUDY = """
script: train
grid:
  net:
    Net 50: {encoder: resnet50, weights: imagenet}
    Net 101: {encoder: resnet101, weights: imagenet}
  head:
    LSTM: {head: lstm}
    GRU: {head: gru}
rows:
  - {name: long clips, options: {encoder: resnet50, weights: imagenet, frames: 100}}
  - {name: from scratch, options: {encoder: custom_cnn, weights: none}}
  - {name: majority, script: baseline, options: {kind: majority}}
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        Path(name).write_bytes(b"")
    return tmp_path


def assign(text: str, *arguments: str) -> Assigned:
    Path("s.yaml").write_text(text, encoding="utf-8")
    given = parse(StudyOptions, ["s.yaml", *arguments])
    cells = read_study(given.study).cells
    return cell_options(cells, choose(cells, given.only), given, KNOWN)


def of(found: Assigned, option: str) -> dict[str, object]:
    return {name: values.get(option) for name, values in found.options.items()}


def test_the_most_exact_name_gives_the_weights(here):
    found = assign(STUDY, "--weights", "a", "resnet50=none", "GRU=b", "Net 50, GRU=c")
    assert of(found, "weights") == {
        "Net 50, LSTM": "none",
        "Net 50, GRU": "c",
        "Net 101, LSTM": "a",
        "Net 101, GRU": "b",
        "long clips": "none",
        "from scratch": "none",
        "majority": None,
    }
    assert found.random == ["Net 50, LSTM", "long clips"] and found.weights_named  # none from scratch was asked for
    plain = assign(STUDY, "--weights", "a")
    assert of(plain, "weights")["Net 101, LSTM"] == "a" and not plain.weights_named and not plain.random
    assert of(assign(STUDY), "weights")["long clips"] == "imagenet"


def test_names_and_files_may_hold_equals_signs(here):
    Path("x=y").write_bytes(b"")
    text = "script: train\nrows: [{name: 'lr=1', options: {encoder: e, weights: imagenet}}]\n"
    assert of(assign(text, "--weights", "lr=1=x=y"), "weights") == {"lr=1": "x=y"}
    assert of(assign(text, "--weights", "x=y"), "weights") == {"lr=1": "x=y"}


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--weights", "resnet5=a"], "--weights: name 'resnet5' is unknown; did you mean 'resnet50'.*Net 101, GRU"),
        (["--weights", "custom_cnn=a"], "--weights: name 'custom_cnn' is unknown"),  # its weights are not ImageNet's
        (
            ["--features", "resnet50=a", "--weights", "resnet50=b"],
            "--weights: name 'resnet50' is unknown",
        ),  # it reads none
        (["--weights", "a", "b"], "--weights a b: which is for which cell.*NAME is one of: .*resnet101"),
        (["--weights", "GRU=a", "GRU=b"], "--weights: 'GRU' is given twice"),
        (["--weights", "GRU=d"], "--weights GRU=d: no such file; NAME=none is allowed too"),
        (["--weights", "none"], "--weights none: no such file; NAME=none"),
        (["--weights", "GRU=a", "Net 50=b"], "'Net 50' and 'GRU' name cell 'Net 50, GRU'.*name the cell itself"),
        (["--features", "resnet18=a"], "--features: name 'resnet18' is unknown; did you mean 'resnet101'"),
        (["--features", "a"], "cells have encoders custom_cnn, resnet101, resnet50: give NAME=FILE for each"),
        (["--features", "GRU=none"], "--features GRU=none: no such file or folder$"),
        (["--features", "a", "--data", "b"], "--features are used instead of --data"),
        (["--features", "resnet101=a", "--only", "long clips"], "no cell is left.*no --features for: long clips"),
        (["--set", "resnet18:epochs=1"], "--set: name 'resnet18' is unknown.*allowed"),
        (["--set", "GRU:epoch=1"], "--set GRU: option 'epoch' is unknown; did you mean 'epochs'"),
        (["--set", "majority:epochs=1"], "--set majority: option 'epochs' is unknown"),
        (["--set", "GRU:epochs"], "write OPTION=VALUE or NAME:OPTION=VALUE"),
        (["--set", "GRU:seed=1"], "--set: seed cannot be given here"),
        (["--set", "GRU:epochs=1", "Net 50:epochs=2"], "--set epochs: 'Net 50' and 'GRU' name cell"),
    ],
)
def test_names_that_fit_nothing_are_refused(here, arguments, says):
    with pytest.raises(UserError, match=says) as refused:
        assign(STUDY, *arguments)
    assert "\n" not in str(refused.value)


def test_features_by_name_and_what_is_left_out(here):
    found = assign(STUDY, "--features", "resnet50=a", "Net 101, GRU=b")
    files = {"Net 50, LSTM": "a", "Net 50, GRU": "a", "Net 101, GRU": "b", "majority": None}  # which needs no features
    assert of(found, "features") == files
    cells = read_study("s.yaml").cells
    note = left_out_note(found.left_out, cells)
    assert note.startswith("left out 3 of 7 cells: no --features for: Net 101, LSTM; from scratch. And ")
    assert note.endswith("though it has other frames: long clips")  # a file for resnet50 holds other frames
    assert of(assign(STUDY, "--features", "long clips=c"), "features") == {"long clips": "c", "majority": None}
    assert assign(STUDY, "--features", "custom_cnn=c", "LSTM=a").options["from scratch"]["features"] == "c"


def test_one_file_of_features_serves_cells_of_one_encoder(here):
    text = "script: train\noptions: {frames: 4}\nrows: [{name: x, options: {head: gru}}, {name: y}]\n"
    found = assign(text, "--features", "a")
    assert of(found, "features") == {"x": "a", "y": "a"} and not found.left_out
    assert of(assign(STUDY, "--features", "a", "--only", "Net 50"), "features")["Net 50, GRU"] == "a"
    several = [f"{{name: n{number}, options: {{frames: {number}}}}}" for number in range(5)]
    many = assign(f"script: train\nrows: [{{name: y}}, {', '.join(several)}]\n", "--features", "a")
    note = left_out_note(many.left_out, read_study("s.yaml").cells)
    assert "left out 5 of 6 cells" in note and note.endswith(": n0; n1; n2 and 2 more")


def test_set_by_name(here):
    given = ("epochs=1", "resnet50:epochs=2", "GRU:epochs=3", "Net 50, GRU:epochs=4", "long clips:classes=[]")
    found = assign(STUDY, "--set", *given, "from scratch:split_list=null", "from scratch:head=a:b=c")
    assert of(found, "epochs") == {
        "Net 50, LSTM": 2,
        "Net 50, GRU": 4,
        "Net 101, LSTM": 1,
        "Net 101, GRU": 3,
        "long clips": 2,
        "from scratch": 1,
        "majority": None,
    }
    assert found.options["long clips"]["classes"] == [] and "classes" not in found.options["from scratch"]
    scratch = found.options["from scratch"]
    assert scratch["split_list"] is None and scratch["head"] == "a:b=c"


def test_options_of_its_own_data(here):
    text = (
        "script: train\nown_data: {split_list: 1, classes: [x]}\nrows: [{name: a}, {name: b, options: {classes: []}}]\n"
    )
    used = {"a": 1, "b": 1}
    assert of(assign(text, "--data", "folder"), "split_list") == used
    stored = assign(text, "--features", "a")
    assert of(stored, "classes") == {"a": ["x"], "b": []}
    assert of(stored, "split_list") == dict.fromkeys(used)  # of clips: features have an index
    assert of(assign(text + "options: {data: folder}\n"), "split_list") == used
    assert of(assign(text, "--set", "data=folder"), "split_list") == used
    assert of(assign(text, "--data", "folder"), "classes") == {"a": ["x"], "b": []}  # a cell's own option wins
    for left in (assign(text), assign(text, "--data", "folder", "--other-data")):
        assert all("split_list" not in values for values in left.options.values())
    with pytest.raises(UserError, match="s.yaml: split_list is in options and in own_data"):
        assign(text + "options: {split_list: 2}\n")
    with pytest.raises(UserError, match="option 'split_lists' is unknown; did you mean 'split_list'"):
        assign(text.replace("split_list", "split_lists"))
    with pytest.raises(UserError, match="--other-data: s.yaml has no own_data"):
        assign("script: train\nrows: [{name: a}]\n", "--data", "folder", "--other-data")
    with pytest.raises(UserError, match="head is given twice"):
        assign(text, "--set", "head=a", "head=b")
    with pytest.raises(UserError, match="own_data: seed cannot be given here"):
        assign("script: train\nown_data: {seed: 1}\nrows: [{name: a}]\n")


@pytest.mark.parametrize(
    "more, says",
    [
        (
            "compare: [{name: x, cells: [long clips, LSTM]}]",
            "compare 1: cell 'LSTM' is unknown; .*allowed: Net 50, LSTM",
        ),
        ("compare: [{name: x, cells: [majority]}]", "compare 1: --cells"),
        ("compare: [{cells: [majority, majority]}]", "compare 1: write {name: TEXT, cells: \\[A, B\\]}"),
        ("compare: [{name: x, cells: [majority, majority]}]", "'majority' is compared with itself"),
        ("across: heads", "across: axis 'heads' is unknown; did you mean 'head'"),
    ],
)
def test_wrong_comparisons_are_refused(here, more, says):
    with pytest.raises(UserError, match=says):
        assign(STUDY + more + "\n")
    with pytest.raises(UserError, match="across needs a grid of two axes; there are 0"):
        assign("script: train\nacross: head\nrows: [{name: a}]\n")
