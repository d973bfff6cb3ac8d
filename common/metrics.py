"""Metrics as local `evaluate.Metric` classes: nothing is fetched, every sample counts once, sums are divided once.

Belongs here: figures of a classifier's predictions, and the collection of them that every task reports. Does not
belong here: statistics about differences between runs.
"""

import logging
from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from sklearn.metrics import f1_score

_OUTSIDE = -1  # gold label of a sample whose class the training data did not have: always counted as wrong


class _Metric(evaluate.Metric):
    """A metric over arrays in memory. `columns` names what `compute` takes and of which type."""

    columns: dict[str, str]
    description: str

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            features=datasets.Features({name: datasets.Value(kind) for name, kind in self.columns.items()}),
        )


class Accuracy(_Metric):
    """Share of samples whose predicted class is the gold one."""

    columns = {"predictions": "int64", "references": "int64"}
    description = "share of samples predicted right"

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


class GroupedAccuracy(_Metric):
    """Accuracy and count within each named group of samples: `by_type`, `by_class`."""

    columns = {"predictions": "int64", "references": "int64", "types": "string"}
    description = "accuracy per type"

    def _compute(self, predictions, references, types) -> dict[str, dict]:
        right, types = np.asarray(predictions) == np.asarray(references), np.asarray(types)
        return {
            str(name): {"accuracy": float(right[types == name].mean()), "n": int((types == name).sum())}
            for name in np.unique(types)
        }


class NegativeLogLikelihood(_Metric):
    """Mean −log p(gold), in nats. Samples whose class the model cannot say (NaN) have none and are left out."""

    columns = {"predictions": "float64", "references": "int64"}
    description = "mean negative log likelihood of the gold class"

    def _compute(self, predictions: Sequence[float], references: Sequence[int]) -> dict[str, float]:
        losses = np.asarray(predictions)[np.asarray(references) != _OUTSIDE]
        return {"loss": float(losses.mean()) if len(losses) else float("nan")}


class CalibrationError(_Metric):
    """Expected calibration error over equal-width bins of confidence (Guo et al., ICML 2017)."""

    columns = {"predictions": "float64", "references": "bool"}  # confidence, and whether it was right
    description = "expected calibration error"

    def _compute(self, predictions, references, bins: int = 15) -> dict[str, float]:
        confidence, right = np.asarray(predictions), np.asarray(references, dtype=float)
        which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        gaps = np.bincount(which, weights=right - confidence, minlength=bins)
        return {"calibration_error": float(np.abs(gaps).sum() / len(right))}


class MacroF1(_Metric):
    """Mean over the classes that occur of their F1."""

    columns = {"predictions": "int64", "references": "int64"}
    description = "macro-averaged F1"

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        classes = [label for label in np.unique(references) if label != _OUTSIDE]
        if not classes:
            return {"macro_f1": 0.0}
        return {"macro_f1": float(f1_score(references, predictions, labels=classes, average="macro", zero_division=0))}


class TopK(_Metric):
    """Share of samples whose gold class is among the k most probable ones. Takes the gold class's rank, from 1."""

    columns = {"predictions": "int64", "references": "int64"}
    description = "top-k accuracy"

    def _compute(self, predictions, references, k: int = 5) -> dict[str, float]:
        known = np.asarray(references) != _OUTSIDE
        return {f"top{k}_accuracy": float(((np.asarray(predictions) <= k) & known).mean())}


class SoftAccuracy(_Metric):
    """VQA v2's accuracy for several reference answers: the mean over leave-one-out subsets of min(1, matches / 3).

    With ten people's answers, an answer that three others gave is fully right, and averaging over the subsets makes
    people comparable with machines (Antol et al., ICCV 2015). `references` holds each sample's answers, joined by a
    line break.
    """

    columns = {"predictions": "string", "references": "string"}
    description = "VQA v2 soft accuracy"

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        scores = [soft_accuracy(said, given.split("\n")) for said, given in zip(predictions, references, strict=True)]
        return {"soft_accuracy": float(np.mean(scores))}


def top_k_errors(rank: np.ndarray, gold: np.ndarray, *, classes: int, most: int = 5) -> dict[str, float]:
    """`top3_accuracy`, `top3_error` and so on for k = 1 … `most`, as far as k is less than the number of classes.

    `rank (n,)` is the gold class's, from 1; `gold (n,)` is −1 where there is no such class.
    """
    figures: dict[str, float] = {}
    for k in range(1, min(most, classes - 1) + 1):
        accuracy = TopK().compute(predictions=rank, references=gold, k=k)[f"top{k}_accuracy"]
        figures |= {f"top{k}_accuracy": accuracy, f"top{k}_error": 1 - accuracy}
    return figures


def soft_accuracy(said: str, given: Sequence[str]) -> float:
    """The VQA v2 accuracy of one answer against the references `given` (one reference: right or wrong).

    With fewer than four references, agreement with all the others suffices: else nobody could be fully right.
    """
    if len(given) == 1:
        return float(said == given[0])
    need = min(3, len(given) - 1)
    matches = sum(answer == said for answer in given)
    # Leaving out one reference leaves `matches − 1` matches if it was one of them, `matches` if not.
    out = matches * min(1.0, (matches - 1) / need) + (len(given) - matches) * min(1.0, matches / need)
    return out / len(given)


def classification_report(
    *,
    gold: np.ndarray,
    predicted: np.ndarray,
    probability: np.ndarray,
    loss: np.ndarray,
    rank: np.ndarray,
    types: Sequence[str],
    by: str = "by_type",
) -> dict:
    """Every figure we report of one scored split, as plain floats.

    All arrays `(n,)`: the gold and the predicted class (gold −1: not in the vocabulary), the probability of the
    predicted one, −log p(gold) (NaN where gold is −1), the gold class's rank from 1, and each sample's type. `by` names
    the breakdown; "by_class", where the type is the gold class, has each one's F1 too.
    """
    logging.getLogger("evaluate").setLevel(logging.ERROR)
    labels = {"predictions": predicted, "references": gold}
    report = Accuracy().compute(**labels) | NegativeLogLikelihood().compute(predictions=loss, references=gold)
    report |= {"n": len(gold), "n_outside_vocabulary": int((gold == _OUTSIDE).sum())}
    report |= MacroF1().compute(**labels) | TopK().compute(predictions=rank, references=gold)
    report |= CalibrationError().compute(predictions=probability, references=predicted == gold)
    report[by] = GroupedAccuracy().compute(**labels, types=list(types))
    f1 = {}
    if by == "by_class":
        classes = np.unique(gold[gold != _OUTSIDE])
        values = f1_score(gold, predicted, labels=classes, average=None, zero_division=0) if len(classes) else []
        f1 = {label: float(value) for label, value in zip(classes, values, strict=True)}
    for name, row in report[by].items():
        chosen = np.asarray(types) == name
        if by == "by_class":
            row["f1"] = f1.get(gold[chosen][0], 0.0)
        row |= NegativeLogLikelihood().compute(predictions=loss[chosen], references=gold[chosen])
    return report
