"""What a study found: figures of finished runs, reported beside measured, as Markdown, CSV, LaTeX, JSON and a picture.

Belongs here: reading the figures that runs left behind, their mean and spread over the seeds, and showing them.
Running is in `common/study_runs.py`. Every table is made from the same entries, which are what `table.json` holds.
"""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from common.errors import UserError
from common.runs import read_json, write_csv, write_json, write_text
from common.statistics import wilson
from common.study import Cell
from common.tables import markdown

_MOST_COLUMNS = 12  # of types side by side; more are shown one below the other
_ALWAYS = ("loss", "accuracy")
_CHOSEN_ON = "validation accuracy"  # beside the test figures, where both were scored
_LAST = ("seconds", "parameters")  # measured columns at the end, whether reported or not


@dataclass(kw_only=True)
class Measured:
    """What one finished run left behind."""

    split: str  # test, or validation where test was not opened
    figures: dict[str, float]  # loss, accuracy, n, …; seconds of training; trained parameters
    groups: dict[str, dict[str, dict[str, float]]]  # by_type or by_class → type → accuracy, n, …
    leaks: list[str]


def read_measured(run: Path) -> Measured:
    """The figures of a finished run. Raises `UserError` if its metrics.json is damaged or has no split that counts."""
    metrics = read_json(run / "metrics.json")
    split = next((name for name in ("test", "validation") if name in metrics), None)
    if split is None:
        raise UserError(f"{run / 'metrics.json'}: has neither test nor validation")
    figures = {key: value for key, value in metrics[split].items() if isinstance(value, int | float)}
    if split == "test" and isinstance(metrics.get("validation", {}).get("accuracy"), float):
        figures[_CHOSEN_ON] = metrics["validation"]["accuracy"]
    groups = {key: value for key, value in metrics[split].items() if key.startswith("by_")}
    seconds = _seconds(run)
    figures |= {} if seconds is None else {"seconds": seconds}
    environment = read_json(run / "environment.json") if (run / "environment.json").is_file() else {}
    figures |= environment.get("figures", {})
    history = run / "history.jsonl"
    if history.is_file():
        figures["epochs"] = sum(bool(line.strip()) for line in history.read_text(encoding="utf-8").splitlines())
    for name, values in metrics[split].get("by_class", {}).items():
        figures |= {f"f1 {name}": values["f1"]} if "f1" in values else {}
    trained = environment.get("parameters", {}).get("trained")
    figures |= {} if trained is None else {"parameters": trained}
    report = run / "report.md"
    lines = report.read_text(encoding="utf-8").splitlines() if report.is_file() else []
    leaks = [line.removeprefix("- ") for line in lines if "LEAK" in line]
    return Measured(split=split, figures=figures, groups=groups, leaks=leaks)


def write_tables(
    output: Path,
    *,
    title: str,
    command: str,
    cells: Sequence[Cell],
    options: Mapping[str, Mapping[str, Any]],
    runs: Mapping[tuple[str, int], Path],
    commands: Mapping[str, str],
    failed: Mapping[str, str],
) -> str:
    """Write `table.{md,csv,tex,json}` and `accuracy.png` into `output`; returns the table as Markdown.

    `runs` is (cell's name, seed) → run directory, finished or not; `options` and `commands` are by the cell's name;
    `failed` is the name of a run → why.
    """
    measured = {key: read_measured(path) for key, path in runs.items() if (path / "metrics.json").is_file()}
    entries = []
    for cell in cells:
        mine = {seed: measured[name, seed] for name, seed in measured if name == cell.name}
        entry = _entry(cell, dict(sorted(mine.items())), sum(name == cell.name for name, _ in runs))
        entry |= {"script": cell.script, "options": dict(options[cell.name]), "command": commands[cell.name]}
        entry["runs"] = {str(seed): os.path.relpath(runs[cell.name, seed], output) for seed in sorted(mine)}
        entries.append(entry)
    notes = _notes(entries, measured, failed)
    rows = main_rows(entries)
    tables = [("", rows), *((f"accuracy {key.replace('_', ' ')}", r) for key, r in _group_rows(entries).items())]
    pictured = any("accuracy" in entry["measured"] for entry in entries)

    lines = [f"# {title}", "", "```", command, "```", "", *[f"- {note}" for note in notes]]
    for caption, shown in tables:
        escaped = [{_bars(name): _bars(value) for name, value in row.items()} for row in shown]
        lines += ["", *([f"## {caption}", ""] if caption else []), markdown(escaped)]
    lines += ["", "![accuracy, measured and reported](accuracy.png)"] if pictured else []
    write_json(output / "table.json", {"title": title, "command": command, "notes": notes, "cells": entries})
    write_csv(output / "table.csv", csv_rows(entries))
    write_text(output / "table.tex", _latex(title, notes, tables))
    if pictured:
        draw_bars(entries, output / "accuracy.png", title=title)
    write_text(output / "table.md", "\n".join(lines) + "\n")
    return "\n\n".join(markdown(shown) for _, shown in tables)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and the sample standard deviation (n − 1); no deviation for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def main_rows(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The study's table: reported and measured figures side by side, never in one column."""
    reported, measured = _metrics(entries)
    same_samples = len({(entry["split"], entry["n"]) for entry in entries if entry["seeds"]}) <= 1
    rows = []
    for entry in entries:
        row = {"model": entry["name"]}
        row |= {f"reported {metric}": _figure(metric, entry["reported"].get(metric)) for metric in reported}
        row |= {f"measured {metric}": _with_spread(metric, entry) for metric in measured}
        if not same_samples:
            row |= {"split": entry["split"] or "–", "n": _figure("n", entry["n"])}
        done, asked = len(entry["seeds"]), entry["seeds_asked"]
        row["seeds"] = str(done) if done == asked else f"{done} of {asked}"
        row |= {metric: _figure(metric, entry["measured"].get(metric, {}).get("mean")) for metric in _LAST}
        rows.append(row)
    return rows


def csv_rows(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same table for programs: unrounded numbers, mean and deviation in columns of their own, empty if missing."""
    reported, measured = _metrics(entries)
    rows = []
    for entry in entries:
        row: dict[str, Any] = {"model": _no_formula(entry["name"])}
        row |= {f"reported {metric}": entry["reported"].get(metric) for metric in reported}
        for metric in (*measured, *_LAST):
            found = entry["measured"].get(metric, {})
            row |= {f"measured {metric}": found.get("mean"), f"measured {metric} std": found.get("std")}
        rows.append(row | {"split": entry["split"], "n": entry["n"], "seeds": len(entry["seeds"])})
    return rows


def draw_bars(entries: Sequence[Mapping[str, Any]], path: Path, *, title: str, metric: str = "accuracy") -> None:
    """A bar per cell with what was measured (mean, and deviation over the seeds), and what was reported as a ring."""
    from matplotlib.patheffects import withStroke  # matplotlib is slow to load

    from common.plots import TRAIN, VALIDATION, plt, save_figure

    figure, axis = plt.subplots(figsize=(8, 1.4 + 0.38 * len(entries)), layout="constrained")
    for place, entry in enumerate(entries):
        found = entry["measured"].get(metric)
        if found is not None:
            axis.barh(place, found["mean"], height=0.62, color=TRAIN, label="measured", xerr=found["std"], capsize=3)
            text = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "color": "white"}
            edge = [withStroke(linewidth=3, foreground=TRAIN)]  # readable where the bar is shorter than its figure
            axis.annotate(f"{found['mean']:.4f}", (0, place), path_effects=edge, **text)
        if metric in entry["reported"]:
            ring = {"marker": "o", "markersize": 9, "markeredgewidth": 2, "markerfacecolor": "none"}
            value = entry["reported"][metric]
            axis.plot(value, place, linestyle="", color=VALIDATION, label="reported", clip_on=False, **ring)
    axis.set_yticks(range(len(entries)), [entry["name"].replace("$", r"\$") for entry in entries])
    axis.invert_yaxis()
    axis.set(xlabel=metric, xlim=(0, None), title=title.replace("$", r"\$"))
    by_label = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(by_label.values(), by_label.keys(), frameon=False, loc="outside lower right", ncols=2)
    save_figure(figure, path)


def _seconds(run: Path) -> float | None:
    """Seconds of training; of the whole run as the study timed it, where nothing was trained in epochs."""
    history, timed = run / "history.jsonl", run / "study.json"
    if history.is_file():
        rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = [row["seconds"] for row in rows if "seconds" in row]
        if found:
            return sum(found)
    return read_json(timed)["seconds"] if timed.is_file() else None


def _entry(cell: Cell, measured: Mapping[int, Measured], asked: int) -> dict[str, Any]:
    """One cell as `table.json` holds it: `measured` is seed → figures of the finished runs."""
    runs = list(measured.values())
    entry: dict[str, Any] = {"name": cell.name, "reported": cell.reported, "measured": {}}
    entry |= {"seeds": list(measured), "seeds_asked": asked, "split": None, "n": None, "groups": {}}
    if not runs:
        return entry
    entry |= {"split": runs[0].split, "n": runs[0].figures.get("n")}
    for metric in runs[0].figures:
        if metric != "n" and all(metric in run.figures for run in runs):
            mean, deviation = mean_and_spread([run.figures[metric] for run in runs])
            by_seed = {str(seed): run.figures[metric] for seed, run in measured.items()}
            entry["measured"][metric] = {"mean": mean, "std": deviation, "by_seed": by_seed}
    for key in runs[0].groups:
        entry["groups"][key] = {}
        for name in dict.fromkeys(name for run in runs for name in run.groups.get(key, {})):
            found = [run.groups[key][name] for run in runs if name in run.groups.get(key, {})]
            found = [figures for figures in found if figures.get("accuracy") is not None]
            if found:
                mean, deviation = mean_and_spread([figures["accuracy"] for figures in found])
                entry["groups"][key][name] = {"accuracy": mean, "std": deviation, "n": found[0].get("n")}
    return entry


def _metrics(entries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The metrics with a reported column, and those with a measured one."""
    named = dict.fromkeys(metric for entry in entries for metric in entry["reported"])
    order = [*_ALWAYS, *(metric for metric in named if metric not in _ALWAYS)]
    if any(_CHOSEN_ON in entry["measured"] for entry in entries):
        order.insert(len(_ALWAYS), _CHOSEN_ON)
    return [metric for metric in order if metric in named], [metric for metric in order if metric not in _LAST]


def _notes(
    entries: Sequence[Mapping[str, Any]], measured: Mapping[tuple[str, int], Measured], failed: Mapping[str, str]
) -> list[str]:
    """What must be known to read the table: the data, the split, the seeds, leaks, and what is missing."""
    sources = (entry["options"].get("data") or entry["options"].get("features") for entry in entries)
    data = dict.fromkeys(map(_data_name, sources))
    notes = [f"data: {', '.join(data)}"]
    scored = dict.fromkeys((entry["split"], entry["n"]) for entry in entries if entry["seeds"])
    if scored:
        notes.append("measured on: " + ", ".join(f"{split} (n = {_figure('n', n)})" for split, n in scored))
    if "validation" in (split for split, _ in scored):
        notes.append("validation is what recipes are chosen on: its figures are no test results")
    seeds = sorted({seed for entry in entries for seed in entry["seeds"]})
    notes.append("seeds: " + (", ".join(map(str, seeds)) or "none finished"))
    if any(len(entry["seeds"]) > 1 for entry in entries):
        notes.append("measured: mean ± sample standard deviation over the seeds")
    best = max((entry for entry in entries if "accuracy" in entry["measured"]), key=_accuracy, default=None)
    if best is not None and best["n"]:
        low, high = wilson(_accuracy(best), int(best["n"]))
        notes.append(
            f"{_figure('n', best['n'])} samples place an accuracy of {_accuracy(best):.4f} between {low:.2f} and "
            f"{high:.2f} (Wilson's 95 % interval, as if they were independent: at best)"
        )
    notes.append("seconds: of training; of the whole process where nothing is trained in epochs")
    _, shown = _metrics(entries)
    never = [metric for metric in shown if measured and not any(metric in entry["measured"] for entry in entries)]
    notes += [f"{metric} was reported, but no run measures it" for metric in never if metric not in _ALWAYS]
    leaks: dict[str, dict[str, None]] = {}
    for (name, _), found in measured.items():
        for leak in found.leaks:
            leaks.setdefault(leak, {})[name] = None
    notes += [leak if len(names) == len(entries) else f"{'; '.join(names)}: {leak}" for leak, names in leaks.items()]
    return notes + [f"failed: {name}: {why}" for name, why in failed.items()]


def _accuracy(entry: Mapping[str, Any]) -> float:
    return entry["measured"]["accuracy"]["mean"]


def _data_name(data: Any) -> str:
    if data is None:
        return "embedded"
    path = Path(str(data)).expanduser()
    return path.resolve().name if path.exists() else str(data)


def _group_rows(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """`by_type` or `by_class` → a table of accuracies, cells × types (or types × cells where there are many)."""
    tables = {}
    for key in dict.fromkeys(key for entry in entries for key in entry["groups"]):
        mine = [entry for entry in entries if entry["groups"].get(key)]
        types = sorted({name for entry in mine for name in entry["groups"][key]})

        def shown(entry: Mapping[str, Any], name: str, key: str = key) -> str:
            return _figure("accuracy", entry["groups"][key].get(name, {}).get("accuracy"))

        counts = {name: {entry["groups"][key].get(name, {}).get("n") for entry in mine} for name in types}
        n = {name: _figure("n", *found) if len(found) == 1 else "–" for name, found in counts.items()}
        if len(types) <= _MOST_COLUMNS:
            tables[key] = [{"model": entry["name"]} | {name: shown(entry, name) for name in types} for entry in mine]
            tables[key].append({"model": "n"} | n)
        else:
            tables[key] = [
                {key.removeprefix("by_"): name, "n": n[name]} | {entry["name"]: shown(entry, name) for entry in mine}
                for name in types
            ]
    return tables


def _with_spread(metric: str, entry: Mapping[str, Any]) -> str:
    found = entry["measured"].get(metric, {})
    text = _figure(metric, found.get("mean"))
    return text if found.get("std") is None else f"{text} ± {_figure(metric, found['std'])}"


def _figure(metric: str, value: float | None) -> str:
    if value is None:
        return "–"
    if metric == "seconds":
        return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"
    if metric == "epochs":
        return f"{value:.1f}"
    return f"{value:,.0f}" if metric in ("n", "parameters", "keras_parameters") else f"{value:.4f}"


def _no_formula(text: str) -> str:
    """A text that a spreadsheet would read as a formula, made plain text."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _bars(text: str) -> str:
    return text.replace("|", r"\|")


def _latex(title: str, notes: Sequence[str], tables: Sequence[tuple[str, Sequence[Mapping[str, str]]]]) -> str:
    """Plain tabular environments, which need no package; names are escaped by tabulate."""
    lines = [f"% {' '.join(line.split())}" for line in (title, *notes)]
    for caption, rows in tables:
        aligned = ["left", *["right"] * (len(rows[0]) - 1)]
        text = tabulate(rows, headers="keys", tablefmt="latex", disable_numparse=True, colalign=aligned)
        lines += ["", *([f"% {caption}"] if caption else []), text]
    return ("\n".join(lines) + "\n").replace("±", r"$\pm$").replace("–", "--")
