"""The baselines: answers worked by hand, scores that can be trusted, and what a run of one leaves behind."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from datasets import concatenate_datasets
from scipy.special import softmax

from common.config import parse, read_yaml
from common.errors import UserError
from vqa.baseline_options import BaselineOptions
from vqa.baselines import fit_baseline, run_baseline, score
from vqa.data import load_vqa

TRAIN = [  # group, question, answer, type
    ("a", "màu gì", "đỏ", "color"),
    ("b", "màu gì", "đỏ", "color"),
    ("c", "màu gì thế", "xanh", "color"),
    ("d", "mấy con", "hai", "number"),
    ("e", "mấy con", "ba", "number"),
    ("f", "mấy con mèo", "hai", "number"),
    ("g", "mấy con mèo", "hai", "number"),
    ("h", "mấy con chó", "ba", "number"),
]  # hai 3, ba 2, đỏ 2, xanh 1: the vocabulary's order
VALIDATION = [("v", "mấy con", "hai", "number"), ("w", "màu gì thế", "xanh", "color")]
TEST = [
    ("p", "Màu  gì?", "đỏ", "color"),  # the same question, spelled otherwise
    ("q", "màu gì thế", "xanh", "color"),
    ("r", "mấy con mèo", "hai", "number"),
    ("s", "mấy con chó", "ba", "number"),
    ("t", "mấy con cá", "hai", "number"),  # a new question
    ("u", "ở đâu", "hai", "place"),  # a new type
    ("x", "ở đâu", "nhà", "place"),  # an answer that nobody learned
    ("y", "mấy con", "ba", "number"),  # to which hai and ba were equally frequent
]


def write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("group", "question", "answer", "type"), *rows])


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    for name, rows in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
        write(place / f"{name}.csv", rows)
    return place


@pytest.fixture
def run(folder, tmp_path):
    """Run a baseline on the small files; → its run directory."""

    def run(baseline: str, *more: object, data: Path = folder, output: Path = tmp_path / "run") -> Path:
        given = ["--baseline", baseline, "--data", data, "--cache", tmp_path / "cache", "--output", output, *more]
        return run_baseline(parse(BaselineOptions, list(map(str, given))))

    return run


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


def said(run: Path, split: str = "test") -> list[str]:
    with open(run / f"predictions-{split}.csv", encoding="utf-8", newline="") as file:
        return [row["predicted"] for row in csv.DictReader(file)]


# --- worked by hand ---------------------------------------------------------------------------------------------------


def test_majority_is_the_commonest_training_answer(run):
    path = run("majority")
    assert said(path) == ["hai"] * 8
    figures = metrics(path)["test"]
    assert figures["accuracy"] == 3 / 8 and figures["n_outside_vocabulary"] == 1
    # Add-one over 8 answers and 4 of the vocabulary: hai 4/12, ba and đỏ 3/12, xanh 2/12.
    shares = np.array([3, 2, 4, 3, 4, 4, 3]) / 12  # of the gold answers, but for the one that nobody learned
    assert figures["loss"] == pytest.approx(-np.log(shares).mean())
    assert figures["by_type"]["color"] == {"accuracy": 0.0, "n": 2, "loss": pytest.approx(-np.log(shares[:2]).mean())}
    assert metrics(path)["validation"]["accuracy"] == 1 / 2


def test_majority_per_type_falls_back_to_all_types(run):
    path = run("majority_per_type")
    assert said(path) == ["đỏ", "đỏ", "hai", "hai", "hai", "hai", "hai", "hai"]
    figures = metrics(path)["test"]
    assert figures["accuracy"] == 4 / 8
    # color: đỏ 3/7, xanh 2/7; number: hai 4/9, ba 3/9; a new type: hai 4/12.
    shares = [3 / 7, 2 / 7, 4 / 9, 3 / 9, 4 / 9, 4 / 12, 3 / 9]
    assert figures["loss"] == pytest.approx(-np.log(shares).mean())


def test_lookup_knows_exact_questions_and_else_the_type(run):
    path = run("lookup")
    # "mấy con" was answered with hai and ba once each: the type decides.
    assert said(path) == ["đỏ", "xanh", "hai", "ba", "hai", "hai", "hai", "hai"]
    figures = metrics(path)["test"]
    assert figures["accuracy"] == 6 / 8
    # Its own answers and the type's distribution as one more.
    shares = [(2 + 3 / 7) / 3, (1 + 2 / 7) / 2, (2 + 4 / 9) / 3, (1 + 3 / 9) / 2, 4 / 9, 4 / 12, (1 + 3 / 9) / 3]
    assert figures["loss"] == pytest.approx(-np.log(shares).mean())


def test_the_svm_reads_the_words_and_is_chosen_on_validation(run):
    path = run("tfidf_svm", "--segmentation", "syllable")
    assert said(path)[:5] == ["đỏ", "xanh", "hai", "ba", "hai"]
    # Strongly regularised it says đỏ to both questions about colour, and one of them is in validation.
    report = (path / "report.md").read_text(encoding="utf-8")
    assert "1, 0.1: 0.5000" in report and metrics(path)["validation"]["accuracy"] == 1
    for figures in metrics(path).values():
        assert figures["loss"] is None and figures["calibration_error"] is None  # margins are no probabilities
        assert all(row["loss"] is None for row in figures["by_type"].values())
    config = read_yaml(path / "config.yaml")
    assert f"n-grams up to {config['ngrams']}, C {config['c']:g}, chosen by accuracy on validation" in report
    given = run("tfidf_svm", "--segmentation", "syllable", "--c", 3, "--ngrams", 1, output=path.with_name("given"))
    assert "C 3, word n-grams up to 1, as given" in (given / "report.md").read_text(encoding="utf-8")


def test_the_svm_needs_two_answers_and_scores_two(run, tmp_path):
    data = tmp_path / "few"
    data.mkdir()
    write(data / "validation.csv", VALIDATION)
    write(data / "test.csv", TEST)
    write(data / "train.csv", TRAIN[:3])
    assert said(run("tfidf_svm", data=data))[:2] == ["đỏ", "xanh"]
    write(data / "train.csv", TRAIN[:2])
    with pytest.raises(UserError, match="all training answers are the same"):
        run("tfidf_svm", data=data, output=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_fitted_on_validation_too_only_for_the_test_figures(run):
    one = run("lookup")
    two = run("lookup", "--fit-validation", output=one.with_name("two"))
    assert metrics(one)["validation"] == metrics(two)["validation"]
    assert said(one) == said(two)
    assert metrics(one)["test"]["loss"] != metrics(two)["test"]["loss"]
    groups = [json.loads((path / "trained-on.json").read_text(encoding="utf-8"))["groups"] for path in (one, two)]
    assert list(map(len, groups)) == [8, 10]


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["majority", "majority_per_type", "lookup", "tfidf_svm"])
def test_scores_hold_together(folder, tmp_path, baseline):
    splits = load_vqa(str(folder), need_images=False, cache_directory=tmp_path).splits
    settings = {"c": 1.0, "ngrams": 2} if baseline == "tfidf_svm" else {}
    guess, answers = fit_baseline(splits["train"], BaselineOptions(baseline=baseline, **settings))
    raw = guess(splits["test"])
    assert raw.shape == (8, 4)
    probabilities = baseline != "tfidf_svm"
    if probabilities:
        assert np.exp(raw).sum(axis=1) == pytest.approx(np.ones(8))
    scores = score(guess, answers, splits["test"], probabilities=probabilities)
    assert scores.probability == pytest.approx(softmax(raw, axis=1).max(axis=1))
    assert np.array_equal(scores.rank == 1, scores.predicted == scores.gold)
    assert scores.rank[6] == 5 and scores.gold[6] == -1 and np.isnan(scores.loss[6])  # behind all that it can say
    known = scores.gold >= 0
    assert np.isfinite(scores.loss[known]).all() if probabilities else np.isnan(scores.loss).all()
    # Every answer has a rank of its own: asked about each in turn, a row gives 1 … K.
    first = splits["test"].select([0] * 4)
    first = first.remove_columns("answer").add_column("answer", answers.to_list())
    assert sorted(score(guess, answers, first, probabilities=probabilities).rank) == [1, 2, 3, 4]


# --- the run directory, and what is refused --------------------------------------------------------------------------


def test_a_run_directory_like_a_training_runs(run, folder, capsys):
    path = run("majority")
    names = {"config.yaml", "environment.json", "metrics.json", "report.md", "trained-on.json"}
    assert {file.name for file in path.iterdir()} == names | {"predictions-test.csv", "predictions-validation.csv"}
    assert json.loads((path / "environment.json").read_text(encoding="utf-8"))["task"] == "vqa-baseline"
    with open(path / "predictions-test.csv", encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert row == {
        "id": "test-2",
        "group": "p",
        "type": "color",
        "gold": "đỏ",
        "predicted": "hai",
        "probability": "0.333333",
        "question": "Màu  gì?",
        "image": "",
    }
    report = (path / "report.md").read_text(encoding="utf-8")
    assert "fitted on 8 rows; their 4 answers cover 87.50%" in report and "LEAK" not in report
    assert "| all " in report and "| all " in capsys.readouterr().out
    before = metrics(path)
    again = run_baseline(
        parse(BaselineOptions, ["--config", str(path / "config.yaml"), "--output", str(path.with_name("again"))])
    )
    assert metrics(again) == before


def test_test_stays_unopened(run):
    path = run("majority", "--no-test")
    assert list(metrics(path)) == ["validation"] and not (path / "predictions-test.csv").exists()
    assert "test was not opened" in (path / "report.md").read_text(encoding="utf-8")


def test_an_output_that_exists_is_kept(run):
    path = run("majority")
    before = (path / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="exists"):
        run("lookup")
    assert (path / "metrics.json").read_bytes() == before
    run("lookup", "--overwrite")
    assert (path / "metrics.json").read_bytes() != before


def test_one_process_fits_a_baseline(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        run("majority")
    assert not (tmp_path / "run").exists()


def test_a_leak_is_refused_or_told(run, folder):
    write(folder / "test.csv", [*TEST, TRAIN[0]])
    with pytest.raises(UserError, match="--allow-leaky-split"):
        run("majority")
    path = run("majority", "--allow-leaky-split")
    assert "LEAKY: 11 % of test photos are in train" in (path / "report.md").read_text(encoding="utf-8")


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="'majority', 'majority_per_type', 'lookup' or 'tfidf_svm'"):
        parse(BaselineOptions, ["--baseline", "oracle"])
    with pytest.raises(UserError, match="--baseline is missing"):
        parse(BaselineOptions, [])
    with pytest.raises(UserError, match="--c is for tfidf_svm"):
        parse(BaselineOptions, ["--baseline", "lookup", "--c", "1"])
    with pytest.raises(UserError, match="OURS=THEIRS"):
        parse(BaselineOptions, ["--baseline", "lookup", "--columns", "question"])


def test_the_script_tells_a_mistake_in_one_line(run_script, tmp_path):
    result = run_script("scripts/baseline_vqa.py", "--baseline", "majority", "--data", tmp_path / "no", check=False)
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "baseline_vqa.py: error:" in result.stderr


# --- real questions ---------------------------------------------------------------------------------------------------


def test_vivqa(real_data, tmp_path):
    """Fitted on the whole train file, of 3,001: 4.47, 10.33 and 16.43 %. Lookup is 16.29 % (489) where the first of
    equally frequent answers is taken instead of the one that is commoner in its type."""
    source = str(real_data / "vivqa")
    splits = load_vqa(source, need_images=False, allow_leaky_split=True, cache_directory=tmp_path).splits
    train = concatenate_datasets([splits["train"], splits["validation"]])
    right = {}
    for baseline in ("majority", "majority_per_type", "lookup"):
        guess, answers = fit_baseline(train, BaselineOptions(baseline=baseline))
        scores = score(guess, answers, splits["test"], probabilities=True)
        right[baseline] = int((scores.predicted == scores.gold).sum())
    assert len(train) == 11_999 and len(splits["test"]) == 3_001
    assert right == {"majority": 134, "majority_per_type": 310, "lookup": 493}
