"""What a study found: figures of finished runs, reported beside measured, as Markdown, CSV, LaTeX, JSON and a picture.

Belongs here: which figures are shown, beside what, and what must be known to read them. What a run left behind is read
in `common/study_values.py`; comparisons of cells are in `common/study_compare.py`; running in `common/study_runs.py`.
Every table is made from the same entries, which are what `table.json` holds.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from common.errors import plain_line
from common.runs import write_csv, write_json, write_text
from common.statistics import wilson
from common.study import Cell, Comparison, Pivot, first_few
from common.study_compare import difference_rows, differences, pivots
from common.study_evidence import about_differences, add_evidence, difference_csv_rows, findings
from common.study_report import Section, write_report
from common.study_values import (
    CHOSEN_ON,
    TEST_SECONDS,
    Measured,
    as_text,
    mean_and_spread,
    read_measured,
    reported_as_text,
    with_spread,
)
from common.tables import markdown

_MOST_COLUMNS = 12  # of types side by side; more are shown one below the other
_ALWAYS = ("loss", "accuracy")
_IF_MEASURED = (CHOSEN_ON, "train accuracy")  # shown behind those if some run has them
_LAST = ("seconds", "parameters", TEST_SECONDS)  # measured columns at the end, whether reported or not


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
    compare: Sequence[Comparison] = (),
    pivot: Pivot | None = None,
    weights_named: bool = False,
    more_notes: Sequence[str] = (),
) -> str:
    """Write `table.{md,csv,tex,json}`, `accuracy.png`, of what is compared `differences.csv`, and last the report
    (`common/study_report.py`) into `output`. Returns the table as Markdown.

    `runs` is (cell's name, seed) → run directory, finished or not; `options` and `commands` are by the cell's name;
    `failed` is the name of a run → why; `weights_named` says that the weights of some cell were given by name, so that
    they are shown even if all have the same.
    """
    measured = {key: read_measured(path) for key, path in runs.items() if (path / "metrics.json").is_file()}
    entries = []
    for cell in cells:
        mine = {seed: measured[name, seed] for name, seed in measured if name == cell.name}
        entry = _entry(cell, dict(sorted(mine.items())), sum(name == cell.name for name, _ in runs))
        entry |= {"script": cell.script, "options": dict(options[cell.name]), "command": commands[cell.name]}
        entry["runs"] = {str(seed): os.path.relpath(runs[cell.name, seed], output) for seed in sorted(mine)}
        entries.append(entry)
    _add_weights(entries, always=weights_named)
    notes = [*_notes(entries, measured, failed), *more_notes]
    compared = differences(entries, compare)
    main = [Section(rows=main_rows(entries))]
    if pivot is not None:
        main += [Section(rows=rows, caption=caption) for caption, rows in pivots(entries, cells, pivot).items()]
    difference = None
    if compared:
        add_evidence(compared, compare, runs)
        difference = Section(
            rows=difference_rows(compared),
            caption="differences",
            sentence=about_differences(compared, compare),
            findings=findings(compared),
        )
    groups = [
        Section(rows=rows, caption=f"accuracy {key.replace('_', ' ')}") for key, rows in _group_rows(entries).items()
    ]
    sections = [*main, *([] if difference is None else [difference]), *groups]
    pictured = any("accuracy" in entry["measured"] for entry in entries)

    lines = [f"# {title}", "", "```", command, "```", "", *[f"- {note}" for note in notes]]
    for section in sections:
        lines += ["", *([f"## {section.caption}", ""] if section.caption else [])]
        lines += [*([section.sentence, ""] if section.sentence else []), markdown(section.rows)]
        lines += ["", *(f"- {finding}" for finding in section.findings)] if section.findings else []
    lines += ["", "![accuracy, measured and reported](accuracy.png)"] if pictured else []
    found = {"title": title, "command": command, "notes": notes, "cells": entries}
    write_json(output / "table.json", found | ({"differences": compared} if compared else {}))
    write_csv(output / "table.csv", csv_rows(entries))
    if compared:
        write_csv(output / "differences.csv", difference_csv_rows(compared))
    write_text(output / "table.tex", _latex(title, notes, sections))
    if pictured:
        draw_bars(entries, output / "accuracy.png", title=title)
    write_text(output / "table.md", "\n".join(lines) + "\n")
    write_report(
        output,
        title=title,
        command=command,
        notes=notes,
        failed=failed,
        entries=entries,
        slugs={cell.name: cell.slug for cell in cells},
        runs={key: runs[key] for key in measured},
        tables=main,
        differences=difference,
        groups=groups,
    )
    return "\n\n".join(
        "\n".join([*filter(None, (section.caption, section.sentence)), markdown(section.rows), *section.findings])
        for section in sections
    )


def main_rows(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The study's table: reported and measured figures side by side, never in one column."""
    reported, measured = _metrics(entries)
    same_samples = len({(entry["split"], entry["n"]) for entry in entries if entry["seeds"]}) <= 1
    rows = []
    for entry in entries:
        row = {"model": entry["name"]} | _shown_weights(entry)
        row |= {f"reported {metric}": reported_as_text(metric, entry["reported"].get(metric)) for metric in reported}
        row |= {f"measured {metric}": with_spread(metric, entry) for metric in measured}
        if not same_samples:
            row |= {"split": entry["split"] or "–", "n": as_text("n", entry["n"])}
        done, asked = len(entry["seeds"]), entry["seeds_asked"]
        row["seeds"] = str(done) if done == asked else f"{done} of {asked}"
        for metric in _last(entries):
            spread = metric == TEST_SECONDS  # of the same computation: how noisy the machine was
            figure = as_text(metric, entry["measured"].get(metric, {}).get("mean"))
            row[metric] = with_spread(metric, entry) if spread else figure
        rows.append(row)
    return rows


def csv_rows(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same table for programs: unrounded numbers, mean and deviation in columns of their own, empty if missing."""
    reported, measured = _metrics(entries)
    rows = []
    for entry in entries:
        row: dict[str, Any] = {"model": entry["name"]} | _shown_weights(entry)
        row |= {f"reported {metric}": entry["reported"].get(metric) for metric in reported}
        for metric in (*measured, *_last(entries)):
            found = entry["measured"].get(metric, {})
            row |= {f"measured {metric}": found.get("mean"), f"measured {metric} std": found.get("std")}
        rows.append(row | {"split": entry["split"], "n": entry["n"], "seeds": len(entry["seeds"])})
    return rows


def draw_bars(entries: Sequence[Mapping[str, Any]], path: Path, *, title: str, metric: str = "accuracy") -> None:
    """A bar per cell with what was measured (mean, and deviation over the seeds), and what was reported as a ring."""
    from matplotlib.patheffects import withStroke  # matplotlib is slow to load

    from common.drawing import TRAIN, VALIDATION, plt, save_figure

    figure, axis = plt.subplots(figsize=(8, 1.4 + 0.38 * len(entries)), layout="constrained")
    for place, entry in enumerate(entries):
        found = entry["measured"].get(metric)
        if found is not None:
            axis.barh(place, found["mean"], height=0.62, color=TRAIN, label="measured", xerr=found["std"], capsize=3)
            text: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "color": "white"}
            edge = [withStroke(linewidth=3, foreground=TRAIN)]  # readable where the bar is shorter than its figure
            axis.annotate(f"{found['mean']:.4f}", (0, place), path_effects=edge, **text)
        if metric in entry["reported"]:
            ring: dict[str, Any] = {"marker": "o", "markersize": 9, "markeredgewidth": 2, "markerfacecolor": "none"}
            value = entry["reported"][metric]
            axis.plot(value, place, linestyle="", color=VALIDATION, label="reported", clip_on=False, **ring)
    axis.set_yticks(range(len(entries)), [entry["name"] for entry in entries])
    axis.invert_yaxis()
    axis.set(xlabel=metric, xlim=(0, None), title=title)
    by_label = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(by_label.values(), by_label.keys(), frameon=False, loc="outside lower right", ncols=2)
    save_figure(figure, path, with_svg=True)


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
    beside = [metric for metric in _IF_MEASURED if any(metric in entry["measured"] for entry in entries)]
    order = list(dict.fromkeys((*_ALWAYS, *beside, *named)))
    return [metric for metric in order if metric in named], [metric for metric in order if metric not in _LAST]


def _last(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The measured columns at the end; test seconds only if some run was timed."""
    return [metric for metric in _LAST if metric != TEST_SECONDS or any(metric in e["measured"] for e in entries)]


def _add_weights(entries: Sequence[dict[str, Any]], *, always: bool) -> None:
    """Give each entry the name of its encoder's weights, if they are not all the same: `–` where none sees anything."""
    names = [_weights(entry["options"]) for entry in entries]
    if len(set(names) - {"–"}) > (0 if always else 1):
        for entry, name in zip(entries, names, strict=True):
            entry["weights"] = name


def _weights(options: Mapping[str, Any]) -> str:
    encoder, weights = options.get("encoder"), options.get("weights") or "none"  # the default of `EncoderOptions`
    if encoder is None or options.get("features") is not None:
        return "–"
    if weights == "none":
        return "its own" if str(encoder).startswith("hf:") else "random"
    return Path(str(weights)).name


def _shown_weights(entry: Mapping[str, Any]) -> dict[str, str]:
    return {"weights": entry["weights"]} if "weights" in entry else {}


def _notes(
    entries: Sequence[Mapping[str, Any]], measured: Mapping[tuple[str, int], Measured], failed: Mapping[str, str]
) -> list[str]:
    """What must be known to read the table: the data, the split, the seeds, leaks, and what is missing."""
    sources = (entry["options"].get("data") or entry["options"].get("features") for entry in entries)
    data = dict.fromkeys(map(_data_name, sources))
    notes = [f"data: {', '.join(data)}"]
    scored = dict.fromkeys((entry["split"], entry["n"]) for entry in entries if entry["seeds"])
    if scored:
        notes.append("measured on: " + ", ".join(f"{split} (n = {as_text('n', n)})" for split, n in scored))
    if "validation" in (split for split, _ in scored):
        notes.append("validation is what recipes are chosen on: its figures are no test results")
    if "train" in (split for split, _ in scored):
        notes.append("train is what was to be learned: its figures say nothing of anything else")
    seeds = sorted({seed for entry in entries for seed in entry["seeds"]})
    notes.append("seeds: " + (", ".join(map(str, seeds)) or "none finished"))
    if any(len(entry["seeds"]) > 1 for entry in entries):
        notes.append("measured: mean ± sample standard deviation over the seeds")
    best = max((entry for entry in entries if "accuracy" in entry["measured"]), key=_accuracy, default=None)
    if best is not None and best["n"]:
        low, high = wilson(_accuracy(best), int(best["n"]))
        notes.append(
            f"{as_text('n', best['n'])} samples place an accuracy of {_accuracy(best):.4f} between {low:.2f} and "
            f"{high:.2f} (Wilson's 95 % interval, as if they were independent: at best)"
        )
    notes.append("seconds: of training; of the whole process where nothing is trained in epochs")
    timed = [found.device for found in measured.values() if TEST_SECONDS in found.figures]
    if timed:
        devices = ", ".join(dict.fromkeys(filter(None, timed)))
        where = f", on the machine's {devices}" if devices else ""
        what = "for 32 clips, from decoded frames to classes, encoder and head, scaled from a few clips one by one"
        notes.append(f"{TEST_SECONDS}: {what}{where}; decoding not counted; the spread is the machine's")
    reported, shown = _metrics(entries)
    shown += [metric for metric in reported if metric in _LAST]
    never = [metric for metric in shown if measured and not any(metric in entry["measured"] for entry in entries)]
    notes += [f"{metric} was reported, but no run measures it" for metric in never if metric not in _ALWAYS]
    leaks: dict[str, dict[str, None]] = {}
    for (name, _), found in measured.items():
        for leak in found.leaks:
            leaks.setdefault(leak, {})[name] = None
    notes += [
        leak if len(found) == len(entries) else f"{first_few(list(found))}: {leak}" for leak, found in leaks.items()
    ]
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
            return as_text("accuracy", entry["groups"][key].get(name, {}).get("accuracy"))

        counts = {name: {entry["groups"][key].get(name, {}).get("n") for entry in mine} for name in types}
        n = {name: as_text("n", *found) if len(found) == 1 else "–" for name, found in counts.items()}
        if len(types) <= _MOST_COLUMNS:
            tables[key] = [{"model": entry["name"]} | {name: shown(entry, name) for name in types} for entry in mine]
            tables[key].append({"model": "n"} | n)
        else:
            tables[key] = [
                {key.removeprefix("by_"): name, "n": n[name]} | {entry["name"]: shown(entry, name) for entry in mine}
                for name in types
            ]
    return tables


def _latex(title: str, notes: Sequence[str], sections: Sequence[Section]) -> str:
    """Plain tabular environments, which need no package; names are escaped by tabulate."""
    lines = [f"% {' '.join(line.split())}" for line in (title, *notes)]
    for section in sections:
        aligned = ["left", *["right"] * (len(section.rows[0]) - 1)]
        rows = [{plain_line(name): plain_line(value) for name, value in row.items()} for row in section.rows]
        text = tabulate(rows, headers="keys", tablefmt="latex", disable_numparse=True, colalign=aligned)
        told = [section.caption, section.sentence, *section.findings]
        lines += ["", *[f"% {plain_line(line)}" for line in told if line], text]
    return ("\n".join(lines) + "\n").replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--")
