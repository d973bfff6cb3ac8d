"""Measuring side by side: what each way costs in the same run, as medians, with the aims beside.

Belongs here: the clock, the figures and the machine's description. The order of the parts, and what becomes of what
they found, is `common/benchmark_run.py`'s. What is measured is in `common/benchmark_encoding.py` and
`common/benchmark_training.py`, of clips in `video/benchmark.py` and of questions in `vqa/benchmark.py`.
"""

import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from common.benchmark_options import BenchmarkOptions
from common.errors import UserError

Item = TypeVar("Item")

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd", "bf16")


@dataclass(kw_only=True)
class Side:
    """One way of doing something, measured."""

    name: str
    seconds: list[float] = field(default_factory=list)
    """wall time of each repeat"""
    core_seconds: list[float] = field(default_factory=list)
    """processor time of each repeat, processes that it started and waited for included; none: not known"""
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
    facts: dict[str, Any] = field(default_factory=dict)
    """what was measured on: plain values by name, for what is computed from the figures"""

    def add(self, other: "Measured") -> None:
        self.sides += other.sides
        self.figures += other.figures
        self.notes += other.notes
        self.facts |= other.facts


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
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    units: int = 1,
    unit: str = "",
    warm: bool = True,
    seldom: Sequence[str] = (),
) -> dict[str, Side]:
    """Time each of `sides`, all of them in turn, `repeats` times; with `warm` once before, which does not count.

    In turn, so that whatever else the machine does falls on all of them alike. What a side left a GPU to do is part of
    its time, and not of the next side's. Those `seldom` timed, for they are slow, are so in the first two repeats.
    """
    found = {name: Side(name=name, units=units, unit=unit) for name in sides}
    for repeat in range(-1 if warm else 0, repeats):
        for name, function in sides.items():
            if name in seldom and repeat not in (0, 1):
                continue
            gc.collect()
            synchronise()
            before, started = core_seconds(), time.perf_counter()
            function()
            synchronise()
            wall, cores = time.perf_counter() - started, core_seconds() - before
            if repeat >= 0:
                found[name].seconds.append(wall)
                found[name].core_seconds.append(cores)
    return found


def synchronise() -> None:
    """Wait until a GPU has done what it was given, for it works while Python goes on; elsewhere nothing waits."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def core_seconds() -> float:
    """Processor time so far of this process and of those that it has waited for."""
    now = os.times()
    return time.process_time() + now.children_user + now.children_system


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of `items`, evenly spread over them."""
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of one side's time in another's, in the same repeat; over the repeats that both have."""
    return statistics.median(a / b for a, b in zip(above, below, strict=False))


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
