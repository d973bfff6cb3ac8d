"""What a leak is worth: the same model trained on the group split and on a random one, side by side.

Belongs here: which runs that takes, which of them are there already, and the table. One training is `video/train.py`'s;
how clips are mixed is `video/splits.py`'s.

Clips cut from one source video look alike. A random split has such clips in train and in test, and its score counts
videos that were remembered; in the group split a video's clips are all in one part.
"""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from common.checkpoints import has_checkpoint
from common.config import build, same_value, to_plain
from common.errors import UserError
from common.options import NOT_MEASURED
from common.predictions import read_back
from common.runs import cache_directory, fingerprints, read_run, read_trained_on, typed_command, write_json, write_text
from common.statistics import wilson
from common.study_tables import mean_and_spread, read_measured
from common.tables import markdown
from common.terminal import say_result
from video.leak_options import ShowLeakOptions
from video.options import TrainVideoOptions
from video.scoring import load_source
from video.train import train

SPLITS = ("group", "random")
_SHOWN = {"accuracy": "test accuracy", "macro_f1": "macro F1", "loss": "loss"}
# Options that change nothing that is measured.
_FREE = {"config", "output", "resume", "overwrite", *NOT_MEASURED}


@dataclass(frozen=True, kw_only=True)
class LeakRun:
    """One training."""

    split: str  # group or random
    seed: int
    options: TrainVideoOptions

    @property
    def path(self) -> Path:
        assert self.options.output is not None  # `_planned` names it
        return Path(self.options.output)

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").is_file()

    @property
    def goes_on(self) -> bool:
        return has_checkpoint(self.path)


def show_leak(options: ShowLeakOptions) -> dict[str, Any]:
    """Train what is not finished, print the table, and leave `table.md` and `table.json`, whose content is returned.

    In one process: a training ends the group of its processes, and a second one cannot start another. Raises
    `UserError`, before anything is trained, for runs that were run with other options, and for a source in which
    nothing can leak.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "show_leak.py trains in one process: start it with python; runs of train_video.py with the same options, "
            "with and without --random-split, are taken over where they lie in --output as group-seed0, random-seed0, …"
        )
    source = _source(options)
    output = Path(options.output or Path("runs") / f"leak-{Path(source).resolve().stem}")
    runs = [_planned(options, output, split, seed) for seed in options.seeds for split in SPLITS]
    todo = [run for run in runs if options.overwrite or not run.finished]
    if not options.overwrite:
        for run in runs:
            _refuse_other_options(run)
    if todo:
        _refuse_lone_clips(runs[0].options, source)
    print(f"{len(runs)} runs, {len(runs) - len(todo)} of them finished before", flush=True)
    for number, run in enumerate(todo, start=1):
        print(f"\n{run.split} split, seed {run.seed}: training {number} of {len(todo)}", flush=True)
        train(_started(run, options.overwrite))
    found = _measure(options, runs, output)
    table, lines = _table(found)
    write_text(output / "table.md", "\n".join(["# " + found["title"], "", *lines, ""]))
    write_json(output / "table.json", found)
    print("\n".join(["", table, "", found["meaning"], *found["notes"], "", f"everything is in {output}"]), flush=True)
    say_result(output=output, **found)
    return found


# --- runs -------------------------------------------------------------------------------------------------------------


def _source(options: ShowLeakOptions) -> str:
    source = options.data or options.features
    assert source is not None  # or its options had been refused
    return source


def _planned(options: ShowLeakOptions, output: Path, split: str, seed: int) -> LeakRun:
    """A training as an ordinary command would start it, so that its run can be scored like any other."""
    values = {field.name: getattr(options, field.name) for field in fields(TrainVideoOptions)}
    values |= {"config": None, "overwrite": False, "output": str(output / f"{split}-seed{seed}")}
    return LeakRun(
        split=split, seed=seed, options=TrainVideoOptions(**values | {"seed": seed, "random_split": split == "random"})
    )


def _started(run: LeakRun, anew: bool) -> TrainVideoOptions:
    """Its options: on from its last checkpoint, or from the start, over what was left without a checkpoint."""
    if run.goes_on and not anew:
        return replace(run.options, resume=True)
    return replace(run.options, overwrite=run.path.exists())


def _refuse_other_options(run: LeakRun) -> None:
    if not (run.finished or run.goes_on):
        return  # it is started anew
    task, saved = read_run(run.path)
    if task != "video":
        raise UserError(f"{run.path} is a {task} run, not a video run; choose another --output")
    then = to_plain(build(TrainVideoOptions, saved, where=str(run.path / "config.yaml")))
    now = to_plain(run.options)
    for key in sorted(now.keys() - _FREE):
        if not same_value(then[key], now[key], path=True):
            raise UserError(
                f"{run.path} was run with {key} = {then[key]}, not {now[key]}; choose another --output, or start "
                "all its runs anew with --overwrite"
            )


def _refuse_lone_clips(options: TrainVideoOptions, source: str) -> None:
    """Refuse a source whose train and test have no two clips of one group: mixed, they would be as apart as before."""
    data, _ = load_source(options, cache_directory(options.cache))
    groups = Counter(group for split in ("train", "test") for group in data.splits[split]["group"][:])
    if max(groups.values()) == 1:
        raise UserError(
            f"{source}: each of the {len(groups):,} clips of train and test is a group of its own, so that nothing "
            "can leak; a column 'group' says which clips are of one source video"
        )


# --- figures ----------------------------------------------------------------------------------------------------------


def _measure(options: ShowLeakOptions, runs: Sequence[LeakRun], output: Path) -> dict[str, Any]:
    """All that is shown, as `table.json` holds it."""
    measured = {(run.split, run.seed): _figures(run) for run in runs}
    counts = {figures["n"] for figures in measured.values()}
    if len(counts) > 1:
        raise UserError(
            f"{output}: its runs scored {' and '.join(map(str, sorted(counts)))} test clips, so the data changed "
            "between them; start all anew with --overwrite"
        )
    splits = {
        split: {name: _over_seeds(measured, split, name, options.seeds) for name in (*_SHOWN, "leaked")}
        for split in SPLITS
    }
    gap: dict[str, dict[str, Any]] = {}
    for name in _SHOWN:
        group, random = (splits[split][name]["by_seed"] for split in SPLITS)
        values = {seed: random[seed] - group[seed] for seed in group}
        mean, deviation = mean_and_spread(list(values.values()))
        gap[name] = {"mean": mean, "std": deviation, "by_seed": values}
    (count,) = counts
    return {
        "title": f"What the leak is worth: {Path(_source(options)).resolve().name}",
        "command": typed_command(),
        "seeds": list(options.seeds),
        "split_seed": options.split_seed,
        "n": count,
        "splits": splits,
        "gap": gap,
        "meaning": _meaning(splits["random"]["leaked"]["mean"] / count, gap["accuracy"]["mean"]),
        "notes": _notes(options, splits, gap, count),
        "runs": {f"{run.split}-seed{run.seed}": os.path.relpath(run.path, output) for run in runs},
    }


def _figures(run: LeakRun) -> dict[str, Any]:
    """A run's figures of test, and `leaked`: how many of the test clips are of a group that it was trained on."""
    figures = read_measured(run.path).figures
    table = run.path / "predictions-test.csv"
    try:
        groups = read_back(table)[1]["group"]
        trained = set(read_trained_on(run.path)["groups"])
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{table}: missing or damaged ({error}); remove {run.path}, it is trained again") from None
    chosen = {name: figures.get(name, math.nan) for name in _SHOWN}
    return chosen | {"n": len(groups), "leaked": sum(fingerprints([group])[0] in trained for group in groups)}


def _over_seeds(
    measured: Mapping[tuple[str, int], Mapping[str, float]], split: str, name: str, seeds: Sequence[int]
) -> dict[str, Any]:
    by_seed = {str(seed): measured[split, seed][name] for seed in seeds}
    mean, deviation = mean_and_spread(list(by_seed.values()))
    return {"mean": mean, "std": deviation, "by_seed": by_seed}


def _meaning(leaked: float, gap: float) -> str:
    what = "so its score contains remembered videos" if gap > 0 else "though this model gained nothing by it here"
    return (
        "Same model, options, seeds and sizes: the random split trains on other clips of the source videos of "
        f"{_percent(leaked)} of its test clips, {what}; what to expect of new videos is the score of the group split."
    )


def _notes(options: ShowLeakOptions, splits: Mapping[str, Any], gap: Mapping[str, Any], count: int) -> list[str]:
    share = splits["group"]["accuracy"]["mean"]
    low, high = wilson(share, count)
    by_seed = ", ".join(f"{_points(value)} (seed {seed})" for seed, value in gap["accuracy"]["by_seed"].items())
    spread = "; ±: sample standard deviation over them" if len(options.seeds) > 1 else ""
    return [
        f"seeds: {', '.join(map(str, options.seeds))}{spread}; all have the splits of split seed {options.split_seed}",
        f"gap in accuracy: {by_seed} points",
        f"the two rows are scored on different clips; {count:,} place an accuracy of {share:.2f} between {low:.2f} and "
        f"{high:.2f} (Wilson's 95 % interval, as if no two were of one video: at best)",
    ]


# --- showing ----------------------------------------------------------------------------------------------------------


def _table(found: Mapping[str, Any]) -> tuple[str, list[str]]:
    """→ the table, and the lines of `table.md` beneath its title."""
    rows = []
    for split, figures in found["splits"].items():
        row = {"split": split} | {title: _with_spread(figures[name]) for name, title in _SHOWN.items()}
        leaked = figures["leaked"]["mean"]
        share = f"{round(leaked, 1):g} of {found['n']} ({_percent(leaked / found['n'])})"
        rows.append(row | {"test clips whose group is in train": share, "n": found["n"]})
    gap = {name: figures["mean"] for name, figures in found["gap"].items()}
    last = {"split": "gap", _SHOWN["loss"]: f"{gap['loss']:+.4f}"}
    last |= {_SHOWN[name]: f"{_points(gap[name])} points" for name in ("accuracy", "macro_f1")}
    rows.append({name: last.get(name, "") for name in rows[0]})
    table = markdown(rows)
    notes = [f"- {note}" for note in found["notes"]]
    return table, ["```", found["command"], "```", "", table, "", found["meaning"], "", *notes]


def _with_spread(figures: Mapping[str, Any]) -> str:
    spread = "" if figures["std"] is None else f" ± {figures['std']:.4f}"
    return f"{figures['mean']:.4f}{spread}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"
