"""What was measured, as Markdown: aims beside figures, times, and what a whole data set costs on paper.

Belongs here: from the benchmark's JSON to tables, without torch. Measuring is `common/benchmark.py`'s.
"""

import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.tables import markdown

SETS = (  # name, kind, how many, decoding of one beside the measured ones
    ("report R4, a photo for each of its questions", "photos", 57_331, 1.0),
    ("UCF101", "clips", 13_320, 1.0),
    ("Kinetics-400", "clips", 306_245, 1.7),  # 10 s instead of 7, and copies of 340×256 pixels
)
FEATURES = 1280 * 7 * 7  # of a square of 224 pixels: MobileNetV2's grid, kept in 2 bytes each
ASSUMED_RATE = 5_000  # squares a second of MobileNetV2 in bf16, of a GPU that was not measured
GPU_CORES = 16


def show(found: Mapping[str, Any]) -> str:
    """All tables, one below the other."""
    tables = {name: table for name, table in page_tables(found).items() if table}
    return "\n\n".join(tables.values())


def page_tables(found: Mapping[str, Any]) -> dict[str, str]:
    """The tables of a page, by the names of its marks."""
    return {
        "machine": machine_line(found),
        "aims": aims_table(found["parts"]),
        "times": times_table(found["parts"]),
        "cost": cost_table(found),
    }


def fill_page(path: Path, found: Mapping[str, Any]) -> None:
    """Put the tables between the marks of a page: `<!-- NAME -->` before each, `<!-- end -->` behind it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"--page {path}: cannot be read; give a Markdown page with marks like <!-- aims -->") from None
    for name, table in page_tables(found).items():
        text, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise UserError(f"--page {path}: {count} marks <!-- {name} --> … <!-- end -->; there must be one")
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def machine_line(found: Mapping[str, Any]) -> str:
    """The machine and the settings, in two sentences."""
    about, options = found["machine"], found["options"]
    gpu = f"; {about['gpu']}" if about.get("gpu") else ""
    load = about.get("load_before")
    busy = "" if load is None else f" Load before: {load}" + (" (other work ran beside it)." if load > 0.5 else ".")
    data = ", ".join(options["data"]) or "made for the purpose"
    return (
        f"{about['cores']} cores ({about['cpu']}: {' '.join(about['cpu_flags'])}), {about['memory_gib']} GiB{gpu}; "
        f"Python {about['python']}, torch {about['torch']}. Data: {data}; {options['encoder']}, weights "
        f"{options['weights']}; medians of {options['repeats']} repeats; {found.get('took_seconds', 0):.0f} s.{busy}"
    )


def aims_table(parts: Mapping[str, Any]) -> str:
    """A row per figure: measured, aim, and whether it was met."""
    rows = []
    for name, part in parts.items():
        for figure in part["figures"]:
            aim = figure["aim"]
            sign = "≤" if figure["at_most"] else "≥"
            met = aim is None or (figure["value"] <= aim if figure["at_most"] else figure["value"] >= aim)
            cores = figure["cores"]
            rows.append(
                {
                    "": name,
                    "what": figure["what"],
                    "measured": _figure(figure["value"], figure["unit"]),
                    "by processor time": "" if cores is None else _figure(cores, figure["unit"]),
                    "aim": "" if aim is None else f"{sign} {_figure(aim, figure['unit'])}",
                    "met": "" if aim is None else "yes" if met else "**no**",
                }
            )
    return markdown(rows) if rows else ""


def times_table(parts: Mapping[str, Any]) -> str:
    """A row per side: seconds, and what a unit costs."""
    rows = []
    for name, part in parts.items():
        for side in part["sides"]:
            wall, cores = statistics.median(side["seconds"]), statistics.median(side["core_seconds"])
            per = f"{1000 * wall / side['units']:.2f} ms a {side['unit']}" if side["unit"] else ""
            core = f"{1000 * cores / side['units']:.2f} ms a {side['unit']}" if side["unit"] else ""
            row = {"": name, "side": side["name"], "seconds": f"{wall:.3f}", "of a unit": per, "of a core": core}
            rows.append(row | {"least – most": f"{min(side['seconds']):.3f} – {max(side['seconds']):.3f}"})
    notes = [f"- {name}: {note}" for name, part in parts.items() for note in part["notes"]]
    return "\n".join([markdown(rows), "", *notes]).strip() if rows else "\n".join(notes)


def cost_table(found: Mapping[str, Any]) -> str:
    """What extracting the features of whole data sets costs, from what a square cost here; "" without part b.

    On GPUs decoding and encoding overlap, so the slower of the two is what it takes; `GPU_CORES` processor cores decode
    for each. A GPU's rate is part g's in bf16, where it was measured, else `ASSUMED_RATE`.
    """
    sides = {side["name"]: side for side in found["parts"].get("b", {}).get("sides", ())}
    figures = {f["what"]: f["value"] for f in found["parts"].get("g", {}).get("figures", ())}
    rate = figures.get("squares a second, bf16", ASSUMED_RATE)
    rows = []
    for name, kind, count, length in SETS:
        decoding, fp32, bf16 = (
            sides.get(f"{kind}: {what}")
            for what in ("decoding alone, one core", "encoding alone, fp32", "encoding alone, bf16")
        )
        if not (decoding and fp32 and bf16):
            return ""
        squares = count * (found["options"]["frames"] if kind == "clips" else 1)
        hours = [squares * _core_seconds(side) / 3600 for side in (decoding, fp32, bf16)]
        hours[0] *= length
        row = {"set": name, "squares": f"{squares:,}", "decoding, core-hours": f"{hours[0]:,.1f}"}
        row |= {"encoding in fp32, core-hours": f"{hours[1]:,.1f}", "in bf16": f"{hours[2]:,.1f}"}
        row |= {"features, GB": f"{squares * FEATURES * 2 / 1e9:,.1f}"}
        for gpus in (1, 8, 64):
            encoding, loading = squares / rate / gpus / 3600, hours[0] / GPU_CORES / gpus
            row[f"{gpus} GPU{'s' * (gpus > 1)}"] = f"{_time(max(encoding, loading))} ({_time(loading)} decoding)"
        rows.append(row)
    source = "measured" if "squares a second, bf16" in figures else "assumed, not measured"
    note = f"A GPU encodes {rate:,.0f} squares a second ({source}); {GPU_CORES} cores decode for each."
    return f"{markdown(rows)}\n\n{note}"


def _core_seconds(side: Mapping[str, Any]) -> float:
    return statistics.median(side["core_seconds"]) / side["units"]


def _time(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _figure(value: float, unit: str) -> str:
    if value and abs(value) < 0.05:
        text = f"{value:.1e}"
    elif not unit and abs(value) <= 1:
        text = f"{value:.4f}"
    else:
        text = f"{value:,.2f}" if abs(value) < 20 else f"{value:,.1f}"
    return f"{text} {unit}".strip()
