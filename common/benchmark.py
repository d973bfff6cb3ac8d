"""Measuring side by side: what each way costs in the same run, as medians, with the aims beside.

Belongs here: the clock, the figures, the machine's description, and the order of the parts. What is measured is in
`common/benchmark_encoding.py` and `common/benchmark_training.py`, of clips in `video/benchmark.py` and of questions in
`vqa/benchmark.py`; how it is shown is in `common/benchmark_tables.py`.
"""

import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from common.benchmark_options import BenchmarkOptions
from common.benchmark_tables import fill_page, show
from common.config import to_plain
from common.errors import UserError, reason
from common.files import read_json
from common.runs import refuse_existing, write_json

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd", "bf16")


@dataclass(kw_only=True)
class Side:
    """One way of doing something, measured."""

    name: str
    seconds: list[float] = field(default_factory=list)
    """wall time of each repeat"""
    core_seconds: list[float] = field(default_factory=list)
    """processor time of each repeat, processes that it started and waited for included"""
    units: int = 1
    """of what is counted (samples, steps, frames), in each repeat"""
    unit: str = ""


@dataclass(kw_only=True)
class Figure:
    """One figure and what it should be."""

    what: str
    value: float
    aim: float | None = None
    """None: only told"""
    at_most: bool = True
    """whether the aim is the most that the figure may be, or the least"""
    unit: str = "×"
    cores: float | None = None
    """the same of processor time, which other work on the machine hardly changes"""


@dataclass(kw_only=True)
class Measured:
    """What a part of the benchmark found."""

    sides: list[Side] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Measured") -> None:
        self.sides += other.sides
        self.figures += other.figures
        self.notes += other.notes


@dataclass(kw_only=True)
class Bench:
    """What every part is given."""

    options: BenchmarkOptions
    folder: Path
    """for files that are thrown away afterwards"""
    cores: int
    say: Callable[[str], None]


Part = Callable[[Bench], Measured]


def side_by_side(
    sides: Mapping[str, Callable[[], object]], repeats: int, *, units: int = 1, unit: str = "", warm: bool = True
) -> dict[str, Side]:
    """Time each of `sides`, all of them in turn, `repeats` times; with `warm` once before, which does not count.

    In turn, so that whatever else the machine does falls on all of them alike.
    """
    found = {name: Side(name=name, units=units, unit=unit) for name in sides}
    for repeat in range(-1 if warm else 0, repeats):
        for name, function in sides.items():
            gc.collect()
            before, started = core_seconds(), time.perf_counter()
            function()
            wall, cores = time.perf_counter() - started, core_seconds() - before
            if repeat >= 0:
                found[name].seconds.append(wall)
                found[name].core_seconds.append(cores)
    return found


def core_seconds() -> float:
    """Processor time so far of this process and of those that it has waited for."""
    now = os.times()
    return time.process_time() + now.children_user + now.children_system


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over the repeats of one side's time in another's, in the same repeat."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def ratio(what: str, above: Side, below: Side, *, aim: float | None = None, at_most: bool = True) -> Figure:
    """How many times as long one side takes as another, for as much work."""
    work = below.units / above.units
    cores = median_ratio(above.core_seconds, below.core_seconds) * work if min(below.core_seconds) > 0 else None
    value = median_ratio(above.seconds, below.seconds) * work
    return Figure(what=what, value=value, aim=aim, at_most=at_most, cores=cores)


def machine() -> dict[str, Any]:
    """What figures depend on, and nothing that tells whose machine it is."""
    about: dict[str, Any] = {
        "cores": usable_cores(),
        "cpu": _cpu_name(),
        "cpu_flags": [flag for flag in _FLAGS if flag in _cpu_flags()],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        # of a quiet machine 0: whatever else runs takes time from what is measured
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    return about


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself; others only pretend, more slowly than fp32."""
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpu_flags()))


def _cpu_flags() -> list[str]:
    return _cpu_info("flags", "Features").lower().split()


def _cpu_name() -> str:
    return _cpu_info("model name", "CPU part") or platform.processor() or "unknown"


def _cpu_info(*names: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.partition(":") for line in text.splitlines()]
    return next((value.strip() for name, _, value in lines if name.strip() in names), "")


def child(arguments: Sequence[str], *, processes: int = 1, threads: int) -> str:
    """Run `python -m ARGUMENTS` on the CPU, in several processes by torchrun; returns what it printed.

    Raises `UserError` with its last line if it failed.
    """
    command = [sys.executable, "-m", *arguments]
    if processes > 1:
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
        command = [sys.executable, "-m", *launcher, *arguments]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    if result.returncode:
        last = [line for line in result.stderr.splitlines() if "error" in line.lower()] or [result.stderr[-300:]]
        raise UserError(f"benchmark: {' '.join(arguments[:3])} … failed: {last[-1]}")
    return result.stdout


def run_benchmark(options: BenchmarkOptions, parts: Mapping[str, Sequence[Part]]) -> dict[str, Any]:
    """Measure the parts that were asked for, print and write what they found; or show an earlier run's figures."""
    if options.measured is not None:
        try:
            found = read_json(Path(options.measured))
            found["machine"], found["parts"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"--measured {options.measured}: is not what --output writes ({reason(error)})") from None
    else:
        refuse_existing(options.output, overwrite=options.overwrite)
        found = _measure(options, parts)
        write_json(Path(options.output), found)
    print(show(found), flush=True)
    if options.page is not None:
        fill_page(Path(options.page), found)
    return found


def _measure(options: BenchmarkOptions, parts: Mapping[str, Sequence[Part]]) -> dict[str, Any]:
    wanted = options.only or tuple(part for part in parts if part != "g" or torch.cuda.is_available())
    about, started = machine(), time.perf_counter()
    torch.set_num_threads(about["cores"])
    found: dict[str, Any] = {"machine": about, "options": to_plain(options), "parts": {}}
    found["options"] |= {"data": [Path(folder).name for folder in options.data], "output": None, "page": None}
    found["options"]["weights"] = Path(options.weights).name
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        bench = Bench(
            options=options,
            folder=Path(folder),
            cores=about["cores"],
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        for name in sorted(wanted):
            measured, before = Measured(), time.perf_counter()
            for part in parts[name]:
                measured.add(part(bench))
            found["parts"][name] = asdict(measured) | {"took_seconds": round(time.perf_counter() - before, 1)}
            bench.say(f"part {name}: {time.perf_counter() - before:.0f} s")
    return found | {"took_seconds": round(time.perf_counter() - started, 1)}
