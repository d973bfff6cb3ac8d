"""The figures of a study's runs: as they were left behind, over the seeds, and as text.

Belongs here: reading one finished run, mean and spread, and how a figure of each kind is written. Which figures are
shown side by side is decided in `common/study_tables.py`, what is compared in `common/study_compare.py`.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError, reason
from common.files import parse_json, read_object, read_text

CHOSEN_ON = "validation accuracy"  # beside the test figures, where both were scored
TEST_SECONDS = "test seconds"
_COUNTS = ("n", "epochs", "parameters", "keras_parameters")  # mostly the same for all seeds, and then without a spread
_TIMED = "seconds_per_32"  # TEST_SECONDS as metrics.json has it


@dataclass(kw_only=True)
class Measured:
    """What one finished run left behind."""

    split: str  # test, or validation where test was not opened, or train where there is no other
    figures: dict[str, float]  # loss, accuracy, n, …; train loss, …; seconds of training; trained parameters
    groups: dict[str, dict[str, dict[str, float]]]  # by_type, by_class or by_word → type → accuracy, n, …
    leaks: list[str]
    device: str | None  # what it ran on, if it says so


def read_measured(run: Path) -> Measured:
    """The figures of a finished run. Raises `UserError` if its metrics.json is damaged or has no split that counts."""
    metrics = read_object(run / "metrics.json")
    split = next((name for name in ("test", "validation", "train") if name in metrics), None)
    if split is None:
        raise UserError(f"{run / 'metrics.json'}: has neither test nor validation nor train")
    try:
        return _measured(run, metrics, split)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run}: what it left behind is damaged ({reason(error)}); run it again") from None


def _measured(run: Path, metrics: dict[str, Any], split: str) -> Measured:
    figures = {key: value for key, value in metrics[split].items() if isinstance(value, int | float)}
    if _TIMED in figures:
        figures[TEST_SECONDS] = figures.pop(_TIMED)
    for other in {"test": ("validation", "train"), "validation": ("train",), "train": ()}[split]:
        for metric in ("accuracy", "loss"):
            value = metrics.get(other, {}).get(metric)
            figures |= {f"{other} {metric}": value} if isinstance(value, int | float) else {}
    groups = {key: value for key, value in metrics[split].items() if key.startswith("by_")}
    history = read_history(run)
    seconds = _seconds(run, history)
    figures |= {} if seconds is None else {"seconds": seconds}
    environment = read_object(run / "environment.json") if (run / "environment.json").is_file() else {}
    figures |= environment.get("figures", {})
    if history:
        figures["epochs"] = len(history)
    for name, values in metrics[split].get("by_class", {}).items():
        figures |= {f"f1 {name}": values["f1"]} if "f1" in values else {}
    trained = environment.get("parameters", {}).get("trained")
    figures |= {} if trained is None else {"parameters": trained}
    leaks = [note for note in run_notes(run) if "LEAK" in note]
    return Measured(split=split, figures=figures, groups=groups, leaks=leaks, device=environment.get("device"))


def read_history(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's `history.jsonl`; none if it has no such file, as what trains nothing has none.

    Raises `UserError` if it is damaged.
    """
    path = run / "history.jsonl"
    if not path.is_file():
        return []
    try:
        rows = [parse_json(line) for line in read_text(path).splitlines() if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); run it again") from None
    return rows


def run_notes(run: Path) -> list[str]:
    """The notes in a run's report, of its data, its splits and what it is made of; none if there is no report."""
    report = run / "report.md"
    lines = read_text(report).splitlines() if report.is_file() else []
    return [line.removeprefix("- ") for line in lines if line.startswith("- ")]


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and the sample standard deviation (n − 1); no deviation for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def as_text(metric: str, value: float | None) -> str:
    """A measured figure as the tables show it."""
    if value is None:
        return "–"
    if metric == "seconds":
        return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"
    if metric == TEST_SECONDS:
        return f"{value:,.2f}" if value >= 1 else f"{value:.4f}"
    if metric == "epochs":
        return f"{value:.1f}"
    return f"{value:,.0f}" if metric in _COUNTS else f"{value:.4f}"


def reported_as_text(metric: str, value: float | None) -> str:
    """A reported one: seconds and epochs with the digits they have in the study's file."""
    as_given = value is not None and metric in ("seconds", TEST_SECONDS, "epochs")
    return f"{value:g}" if as_given else as_text(metric, value)


def signed(value: float | None) -> str:
    """A difference of accuracies."""
    return "–" if value is None else f"{round(value, 4) + 0.0:+.4f}"  # no "-0.0000"


def with_spread(metric: str, entry: Mapping[str, Any]) -> str:
    """Mean ± deviation of a metric that an entry of `table.json` has, or a dash."""
    found = entry["measured"].get(metric, {})
    text = as_text(metric, found.get("mean"))
    same = found.get("std") is None or (metric in _COUNTS and not found["std"])
    return text if same else f"{text} ± {as_text(metric, found['std'])}"


def _seconds(run: Path, history: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds of training; of the whole run as the study timed it, where nothing was trained in epochs."""
    found = [row["seconds"] for row in history if "seconds" in row]
    timed = run / "study.json"
    return sum(found) if found else read_object(timed)["seconds"] if timed.is_file() else None
