"""Comparing runs: what differs between them, by how much, and whether the data can tell.

Belongs here: which runs are a pair, in which options they differ, and how that is told. Reading predictions is in
`common/predictions.py`, weighing them in `common/evidence.py`; a study's comparisons are in `common/study_evidence.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.compare_options import CompareOptions
from common.config import same_value
from common.errors import UserError
from common.evidence import Evidence, few_groups, over_samples, over_seeds, p_text, shown, weigh
from common.options import NOT_MEASURED
from common.predictions import Aligned, align, read_scored
from common.runs import read_run, refuse_existing, typed_command, write_json, write_text
from common.statistics import smallest_p, wilson
from common.tables import markdown
from common.terminal import say_result

_NAMES = ("A", "B")
# Options that say where a run lies and what it cost, not what was trained.
_NOT_COMPARED = ("output", *NOT_MEASURED)
_GROUPED = {"group": "by the column group", "id": "no group is named: every sample for itself"}
_MOST_SHOWN = 8  # options of one script alone; the rest is counted


@dataclass(kw_only=True)
class _Run:
    path: Path
    task: str
    options: dict[str, Any]

    @property
    def seed(self) -> Any:
        return self.options.get("seed")


_Both = tuple[list[_Run], list[_Run]]  # A and B, pair by pair


def compare_runs(options: CompareOptions) -> Evidence:
    """Print (and write to --output) what differs between two runs or groups of runs, and what the data allow to say.

    Raises `UserError` for what is no run, for groups with other seeds, and for runs scored on different samples.
    """
    refuse_existing(options.output, overwrite=options.overwrite)
    given = (options.runs, options.against) if options.against else tuple((run,) for run in options.runs)
    first, second = _pair(*([_read(run) for run in runs] for runs in given))
    scored = align([read_scored(run.path, options.split) for run in (*first, *second)])
    seeds = len(first)
    found = weigh(scored.right[:seeds], scored.right[seeds:], scored.groups)
    text = _report(options.split, (first, second), scored, found)
    if options.output is not None and options.output.endswith(".json"):
        write_json(Path(options.output), _as_json(options.split, (first, second), scored, found))
    elif options.output is not None:
        title = f"# {first[0].path.name} against {second[0].path.name}"
        write_text(Path(options.output), f"{title}\n\n```\n{typed_command()}\n```\n\n{text}\n")
    print(text, flush=True)
    say_result(**_as_json(options.split, (first, second), scored, found))
    return found


def option_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name → both values, of the options that both have and that differ; two ways to write one path are the same."""
    shared = (name for name in first if name in second and name not in _NOT_COMPARED)
    return {
        name: (first[name], second[name]) for name in shared if not same_value(first[name], second[name], path=True)
    }


def _read(run: str) -> _Run:
    task, options = read_run(run)
    return _Run(path=Path(run), task=task, options=options)


def _pair(first: list[_Run], second: list[_Run]) -> _Both:
    """Both groups in the order of the first one's seeds."""
    places = [run.path.resolve() for run in (*first, *second)]
    twice = next((place for number, place in enumerate(places) if place in places[:number]), None)
    if twice is not None:
        raise UserError(f"{twice.name} is given twice: a run is not compared with itself")
    if len(first) == 1:
        return first, second
    for name, runs in zip(_NAMES, (first, second), strict=True):
        seeds = [run.seed for run in runs]
        again = next((run for number, run in enumerate(runs) if run.seed in seeds[:number]), None)
        if again is not None:
            raise UserError(f"{again.path}: another run of {name} has seed {again.seed}, too; give one run per seed")
    by_seed = {run.seed: run for run in second}
    alone = next((run for run in first if run.seed not in by_seed), None)
    if alone is not None:
        raise UserError(f"{alone.path} has seed {alone.seed}, and no run --against has it; give the same seeds")
    return first, [by_seed[run.seed] for run in first]


def _report(split: str, both: _Both, scored: Aligned, found: Evidence) -> str:
    """All that is printed."""
    grouped = _GROUPED.get(scored.grouped_by, f"by the column {scored.grouped_by}: no group is named")
    lines = [
        *(f"- {name}: {_named(runs)}" for name, runs in zip(_NAMES, both, strict=True)),
        f"- scored on the same {found.n:,} samples ({split}) in {found.groups:,} groups ({grouped})",
        *_what_differs(both),
        "",
        markdown(_accuracy_rows(both, scored.right)),
        "",
        "Wilson's intervals are as if the samples were independent.",
        "",
        markdown(_difference_rows(both, found)),
        "",
        f"A − B: {shown(found)}, 95 % interval from resampling whole groups (BCa bootstrap).",
        f"In words: {_in_words(found)}.",
        "",
        *(f"- {note}" for note in _notes(found)),
    ]
    return "\n".join(lines)


def _named(runs: list[_Run]) -> str:
    """One run by its path; of several, which the table names, the folder."""
    if len(runs) == 1:
        return str(runs[0].path)
    folders = dict.fromkeys(str(run.path.parent) for run in runs)
    return f"{len(runs)} runs in {', '.join(folders)}"


def _what_differs(both: _Both) -> list[str]:
    (first, second), several = (runs[0] for runs in both), len(both[0]) > 1
    differing = option_differences(first.options, second.options)
    if several:  # each seed is compared with itself
        differing.pop("seed", None)
    rows = [{"option": name, "A": _text(one), "B": _text(other)} for name, (one, other) in differing.items()]
    if first.task != second.task:
        rows.insert(0, {"option": "task", "A": first.task, "B": second.task})
    lines = ["", markdown(rows)] if rows else ["- no option differs"]
    for name, run, other in (("A", first, second), ("B", second, first)):
        alone = [f"{key} = {_text(value)}" for key, value in run.options.items() if key not in other.options]
        alone = [text for text in alone if text.split(" = ")[0] not in _NOT_COMPARED]
        if alone:
            more = f" and {len(alone) - _MOST_SHOWN} more" if len(alone) > _MOST_SHOWN else ""
            lines += ["", f"Options of {name} alone: {', '.join(alone[:_MOST_SHOWN])}{more}."]
    for name, runs in zip(_NAMES, both, strict=True):
        within = {key for run in runs[1:] for key in option_differences(runs[0].options, run.options)} - {"seed"}
        if within:
            lines += ["", f"The runs of {name} differ among themselves, too, in: {', '.join(sorted(within))}."]
    return lines


def _text(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _accuracy_rows(both: _Both, right: np.ndarray) -> list[dict[str, str]]:
    rows, n = [], right.shape[1]
    for name, runs, its in zip(_NAMES, both, np.split(right, 2), strict=True):
        for run, accuracy in zip(runs, its.mean(axis=1), strict=True):
            rows.append({"": name, "run": run.path.name, "seed": str(run.seed)} | _accuracy(accuracy, n))
        if len(runs) > 1:
            rows.append({"": name, "run": "mean of the seeds", "seed": ""} | _accuracy(its.mean(), n))
    return rows


def _accuracy(accuracy: float, n: int) -> dict[str, str]:
    low, high = wilson(accuracy, n)
    return {"accuracy": f"{accuracy:.4f}", "Wilson's 95 % interval": f"{low:.4f} to {high:.4f}"}


def _difference_rows(both: _Both, found: Evidence) -> list[dict[str, str]]:
    counts = zip(both[0], found.by_seed, found.only_first, found.only_second, found.p_mcnemar, strict=True)
    return [
        ({"seed": str(run.seed)} if len(both[0]) > 1 else {})
        | {
            "A − B": f"{difference + 0.0:+.4f}",
            "only A is right": f"{one:,}",
            "only B is right": f"{other:,}",
            "McNemar, exact": p_text(p),
        }
        for run, difference, one, other, p in counts
    ]


def _in_words(found: Evidence) -> str:
    return over_seeds(found, _NAMES) if len(found.by_seed) > 1 else over_samples(found, _NAMES)


def _notes(found: Evidence) -> list[str]:
    seeds = len(found.by_seed)
    notes = []
    if found.groups < found.n:
        notes.append("McNemar's test is as if the samples were independent: samples of one group are not")
    if found.interval and (few := few_groups(found.groups)):
        notes.append(few)
    if found.smallest_of_samples is not None:
        could = f"{found.n:,} samples in {found.groups:,} groups could have shown a difference of "
        notes.append(f"{could}{100 * found.smallest_of_samples:.1f} points (two-sided 5 %, power 80 %)")
    if seeds == 1:
        notes.append("this is about these two trained networks: what other seeds would bring, one of each cannot tell")
        return notes
    notes.append(f"sign-flip of the {found.groups:,} groups, seeds taken together: {p_text(found.p_samples)}")
    reach = f"{seeds} seeds can reach no p below {smallest_p(seeds):.3g}"
    if found.smallest_of_seeds is not None:
        reach += f"; as they scatter, they could have shown a difference of {100 * found.smallest_of_seeds:.1f} points"
    return [*notes, reach]


def _as_json(split: str, both: _Both, scored: Aligned, found: Evidence) -> dict[str, Any]:
    """Every figure; accuracies and differences are 0–1."""
    accuracies = np.split(scored.right.mean(axis=1), 2)
    runs = {
        name: [
            {"run": str(run.path), "task": run.task, "seed": run.seed, "accuracy": accuracy}
            | {"wilson": wilson(accuracy, found.n)}
            for run, accuracy in zip(its, measured.tolist(), strict=True)
        ]
        for name, its, measured in zip(_NAMES, both, accuracies, strict=True)
    }
    return {
        "command": typed_command(),
        "split": split,
        "n": found.n,
        "groups": found.groups,
        "grouped_by": scored.grouped_by,
        "runs": runs,
        "options": option_differences(both[0][0].options, both[1][0].options),
        "difference": found.difference,
        "interval": found.interval,
        "by_seed": [
            {"seed": run.seed, "difference": difference, "only_a": one, "only_b": other, "mcnemar": p}
            for run, difference, one, other, p in zip(
                both[0], found.by_seed, found.only_first, found.only_second, found.p_mcnemar, strict=True
            )
        ],
        "sign_flip": {"groups": found.p_samples, "seeds": found.p_seeds if len(found.by_seed) > 1 else None},
        "smallest_p": smallest_p(len(found.by_seed)) if len(found.by_seed) > 1 else None,
        "smallest_difference": {"samples": found.smallest_of_samples, "seeds": found.smallest_of_seeds},
        "finding": _in_words(found),
    }
