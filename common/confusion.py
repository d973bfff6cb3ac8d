"""Confusion matrices: which answer was given where another was right, for each group of samples.

Belongs here: counting, and pooling what is too rare to have a row of its own. Drawing is in `common/plots.py`, figures
of a whole split in `common/metrics.py`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """The matrix of one group of samples."""

    name: str
    """the group's"""
    gold: list[str]
    """what the rows are: `own` answers, then perhaps the pooled rest"""
    predicted: list[str]
    """what the columns are: those of the rows, then perhaps what is no gold answer of this group"""
    counts: np.ndarray
    """samples, `(len(gold), len(predicted))`"""
    own: int
    """how many answers have a row and a column of their own: of the rest, the diagonal does not mean right"""
    n: int
    """samples in the group"""
    accuracy: float
    """part of them that is right"""


def confusions(
    rows: Sequence[Mapping[str, Any]],
    *,
    by: str = "type",
    most: int = 30,
    most_groups: int = 12,
    rest: str = "other",
    outside: str = "outside",
) -> list[Confusion]:
    """The confusion matrix of each group of predictions (rows with `gold`, `predicted` and the column `by`), by name.

    A group's `most` frequent gold answers have a row and a column, by falling count; its other gold answers share one,
    "REST (how many)". Predicted answers that are gold for no sample of the group share a column, "OUTSIDE (how many)".
    Of very many groups only the `most_groups` largest.
    """
    together: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        together.setdefault(row[by], []).append((row["gold"], row["predicted"]))
    largest = sorted(together, key=lambda name: (-len(together[name]), name))[:most_groups]
    return [_confusion(name, together[name], most, rest, outside) for name in sorted(largest)]


def _confusion(name: str, pairs: Sequence[tuple[str, str]], most: int, rest: str, outside: str) -> Confusion:
    counts = Counter(gold for gold, _ in pairs)
    answers = sorted(counts, key=lambda answer: (-counts[answer], answer))
    strangers = {predicted for _, predicted in pairs} - set(answers)
    kept = answers[:most]
    # Classes by number: an answer may be spelled as a pool is named.
    pooled, strange = len(kept), len(kept) + (len(answers) > most)
    place = {answer: min(number, pooled) for number, answer in enumerate(answers)} | dict.fromkeys(strangers, strange)
    labels = kept + [f"{rest} ({len(answers) - most})"] * (len(answers) > most)
    columns = labels + [f"{outside} ({len(strangers)})"] * bool(strangers)
    matrix = np.zeros((len(labels), len(columns)), dtype=int)
    for gold, predicted in pairs:
        matrix[place[gold], place[predicted]] += 1
    return Confusion(
        name=name,
        gold=labels,
        predicted=columns,
        counts=matrix,
        own=len(kept),
        n=len(pairs),
        accuracy=sum(gold == predicted for gold, predicted in pairs) / len(pairs),
    )
