"""Metrics against small answers worked by hand."""

import numpy as np
import pytest

from common.metrics import (
    Accuracy,
    CalibrationError,
    GroupedAccuracy,
    MacroF1,
    NegativeLogLikelihood,
    SoftAccuracy,
    TopK,
    classification_report,
    soft_accuracy,
)


def test_accuracy():
    assert Accuracy().compute(predictions=[1, 2, 2, 0], references=[1, 2, 0, -1]) == {"accuracy": 0.5}


def test_grouped_accuracy():
    found = GroupedAccuracy().compute(predictions=[1, 1, 0], references=[1, 0, 0], types=["màu", "màu", "số"])
    assert found == {"màu": {"accuracy": 0.5, "n": 2}, "số": {"accuracy": 1.0, "n": 1}}


def test_loss_leaves_out_what_the_model_cannot_say():
    found = NegativeLogLikelihood().compute(predictions=[1.0, 3.0, float("nan")], references=[0, 1, -1])
    assert found == {"loss": 2.0}


def test_calibration_error():
    # Two bins of ten: confidence 0.95 with half right is off by 0.45, 0.25 with a quarter right is exact.
    confidence, right = [0.95] * 4 + [0.25] * 4, [True, True, False, False] + [True, False, False, False]
    found = CalibrationError().compute(predictions=confidence, references=right, bins=10)
    assert found["calibration_error"] == pytest.approx(0.45 / 2)


def test_macro_f1():
    # class 0: precision 1/2, recall 1 → 2/3; class 1: precision 1, recall 1/2 → 2/3; class 2 never right → 0
    found = MacroF1().compute(predictions=[0, 0, 1, 1], references=[0, 1, 1, 2])
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_top_k():
    assert TopK().compute(predictions=[1, 2, 6, 1], references=[0, 1, 2, -1], k=2) == {"top2_accuracy": 0.5}


@pytest.mark.parametrize(
    "matches, expected",
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_soft_accuracy_of_ten_references(matches, expected):
    """The values known from VQA v2's evaluation: 0, .3, .6, .9, 1."""
    assert soft_accuracy("có", ["có"] * matches + ["không"] * (10 - matches)) == pytest.approx(expected)


def test_soft_accuracy_metric():
    found = SoftAccuracy().compute(predictions=["a", "b"], references=["a", "a"])
    assert found == {"soft_accuracy": 0.5}


def test_report_counts_every_sample_once():
    gold, predicted = np.array([0, 1, -1, 1]), np.array([0, 0, 1, 1])
    report = classification_report(
        gold=gold,
        predicted=predicted,
        probability=np.array([0.9, 0.8, 0.7, 0.6]),
        loss=np.array([0.1, 2.0, np.nan, 0.5]),
        rank=np.array([1, 2, 3, 1]),
        types=["x", "x", "y", "y"],
    )
    assert report["n"] == 4 and report["n_outside_vocabulary"] == 1 and report["accuracy"] == 0.5
    assert report["loss"] == pytest.approx(2.6 / 3)
    assert sum(row["n"] for row in report["by_type"].values()) == 4
    assert report["by_type"]["y"] == {"accuracy": 0.5, "n": 2, "loss": 0.5}
    assert all(type(value) in (float, int, dict) for value in report.values())
