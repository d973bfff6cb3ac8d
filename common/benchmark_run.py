"""A benchmark from its options to its file: what is checked before, in which order, and what is kept whatever happens.

Belongs here: the order of the parts, and the file that grows with each of them. What a part measures is the parts' own
business (see `common/benchmark.py`), how it is shown that of `common/benchmark_tables.py`.
"""

import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from common.allocation import keep_freed_memory
from common.benchmark import Bench, Measured, Part, machine
from common.benchmark_options import BenchmarkOptions
from common.benchmark_tables import check_page, fill_page, show
from common.config import to_plain
from common.encoders import build_encoder
from common.encoding import exact_fp32
from common.errors import Interrupted, UserError, reason
from common.files import read_json, write_json
from common.runs import refuse_existing


def run_benchmark(options: BenchmarkOptions, parts: Mapping[str, Sequence[Part]]) -> dict[str, Any]:
    """Measure the parts that were asked for, print and write what they found; or show an earlier run's figures.

    --output is written after every part. One that fails is told there, and the others are measured all the same; then,
    or after Ctrl-C, the tables are of what there is, and no page is filled. Raises `UserError` before anything is
    measured for options that cannot be met, and at the end if a part failed.
    """
    if options.page is not None:
        check_page(Path(options.page))
    if options.measured is not None:
        found, tables = _earlier(options.measured)
        print(tables, flush=True)
    else:
        found = _measure(options, parts)
    if options.page is not None:
        fill_page(Path(options.page), found)
    return found


def _earlier(measured: str) -> tuple[dict[str, Any], str]:
    """What a run has written, and its tables."""
    found = read_json(measured)
    try:
        return found, show(found)
    except (AttributeError, ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {reason(error)}"
        raise UserError(f"--measured {measured}: is not what --output writes ({what})") from None


def _check(options: BenchmarkOptions) -> None:
    """Refuse now what would end a part after minutes."""
    refuse_existing(options.output, overwrite=options.overwrite)
    for folder in options.data:
        if not Path(folder).is_dir():
            raise UserError(f"--data {folder}: no such folder")
    build_encoder(options.encoder, weights=options.weights)


def _measure(options: BenchmarkOptions, parts: Mapping[str, Sequence[Part]]) -> dict[str, Any]:
    assert options.output is not None  # or --measured would be given
    _check(options)
    output = Path(options.output)
    wanted: Sequence[str] = options.only or tuple(part for part in parts if part != "g" or torch.cuda.is_available())
    about, started = machine(), time.perf_counter()
    about["tf32"] = {  # as torch has it here, and what fp32 was computed by while it was measured
        "convolutions": torch.backends.cudnn.allow_tf32,
        "matrix_products": torch.backends.cuda.matmul.allow_tf32,
        "in_what_is_called_fp32": False,
    }
    torch.set_num_threads(about["cores"])
    if not torch.cuda.is_available():
        keep_freed_memory()  # as in what is measured; the ways beside it have this, too
    found: dict[str, Any] = {"machine": about, "options": to_plain(options), "parts": {}, "missing": {}}
    found["options"] |= {"data": [Path(folder).name for folder in options.data], "output": None, "page": None}
    found["options"]["weights"] = Path(options.weights).name
    found["missing"] = dict.fromkeys(sorted(wanted), "not measured yet")
    write_json(output, found)  # a folder that cannot be written to is told before anything is measured
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, exact_fp32():
            bench = Bench(options=options, folder=Path(folder), cores=about["cores"], say=_say)
            for name in sorted(wanted):
                _measure_part(name, parts[name], bench, found)
                found["took_seconds"] = round(time.perf_counter() - started, 1)
                write_json(output, found)
    except KeyboardInterrupt:
        found["missing"] = dict.fromkeys(found["missing"], "stopped by Ctrl-C")
        write_json(output, found)
        print(show(found), flush=True)
        raise Interrupted(f"stopped; what was measured before is in {output}") from None
    print(show(found), flush=True)
    if found["missing"]:
        which = "; ".join(f"part {name}: {why}" for name, why in found["missing"].items())
        raise UserError(f"{which}. What the other parts measured is in {output}")
    return found


def _measure_part(name: str, parts: Sequence[Part], bench: Bench, found: dict[str, Any]) -> None:
    """Add to `found` what these measured; or, if one fails, why nothing was."""
    measured, before = Measured(), time.perf_counter()
    try:
        for part in parts:
            measured.add(part(bench))
    except Exception as error:  # whatever it is, the other parts' minutes are not lost with it
        if not isinstance(error, UserError):
            traceback.print_exc()
        found["missing"][name] = f"failed ({type(error).__name__}: {reason(error)})"
    else:
        found["parts"][name] = asdict(measured) | {"took_seconds": round(time.perf_counter() - before, 1)}
        del found["missing"][name]
    _say(f"part {name}: {time.perf_counter() - before:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
