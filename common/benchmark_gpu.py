"""The benchmark's part about a GPU (or whatever the device is): its rates, alone, beside what its products allow.

Belongs here: the network on tensors that are there already. What extraction makes of it is `benchmark_encoding.py`'s.
"""

import functools
import statistics
from collections.abc import Sequence

import torch
from accelerate import Accelerator

from common.benchmark import Bench, Figure, Measured, Side, ratio, side_by_side
from common.benchmark_encoding import File, loader, on_device, operations, repeated, run_bare, squares_at_once
from common.encoders import Encoder
from common.encoding import encoder_for, exact_fp32
from common.features import ViewSource

_BATCHES = 8
_KINDS = {"fp32": torch.float32, "fp32 by TF32": torch.float32, "bf16": torch.bfloat16}


def throughput(bench: Bench, encoder: Encoder, source: ViewSource, files: Sequence[File]) -> Measured:
    """Squares a second, the share of the rate of the device's matrix products, and whether it waits for data.

    "fp32" is fp32 (see `exact_fp32`); "fp32 by TF32", on a GPU alone, is what torch makes of fp32 where it is let.
    """
    device = Accelerator().device
    fast = encoder_for(encoder, device)  # once: not what is measured
    size = squares_at_once(device) if device.type == "cuda" else 16
    pixels = torch.cat([source.load(path, digest, 0)[0] for path, digest in files[:size]])
    pixels = pixels.repeat(-(-size // len(pixels)), 1, 1, 1)[:size]
    tensors = on_device([(pixels, None)], source, device) * _BATCHES
    cost, measured = operations(fast, source.preprocessing.size), Measured()
    sides: dict[str, Side] = {}
    for precision, kind in _KINDS.items():
        if precision == "fp32 by TF32" and device.type != "cuda":
            continue
        with exact_fp32(precision != "fp32 by TF32"):
            ways = {f"the bare encoder, {precision}": functools.partial(run_bare, fast, tensors, precision)}
            (side,) = side_by_side(ways, bench.options.repeats, units=_BATCHES * size, unit="square").values()
            limit = matmul_rate(device, kind, bench.options.repeats)
        sides[precision] = side
        rate = side.units / statistics.median(side.seconds)
        measured.sides.append(side)
        measured.figures += [
            Figure(what=f"squares a second, {precision}", value=rate, unit=""),
            Figure(what=f"share of the matrix products' rate, {precision}", value=rate * cost / limit, unit=""),
        ]
    measured.figures.append(ratio("fp32, of bf16", sides["fp32"], sides["bf16"]))
    measured.add(_loading(bench, source, files, sides["bf16"], device))
    return measured


def _loading(bench: Bench, source: ViewSource, files: Sequence[File], bf16: Side, device: torch.device) -> Measured:
    """What all cores load in the time that the device takes to encode as much."""
    many = repeated(files, -(-8 * bench.cores // len(files)))  # enough for each loading process
    counts: list[int] = []

    def load() -> None:
        counts.append(sum(len(pixels) for pixels, _ in loader(source, many, bench.cores, device)))

    (side,) = side_by_side({"loading alone, all workers": load}, bench.options.repeats, unit="square").values()
    side.units = counts[-1]
    waits = statistics.median(side.seconds) / side.units * bf16.units / statistics.median(bf16.seconds)
    figure = Figure(what="loading, of encoding in bf16 (above 1, the GPU waits)", value=waits)
    return Measured(sides=[side], figures=[figure])


def matmul_rate(device: torch.device, kind: torch.dtype, repeats: int) -> float:
    """Floating-point operations a second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))

    def multiply() -> None:
        for _ in range(4):
            a @ b

    (side,) = side_by_side({"matrix product": multiply}, repeats).values()
    return 4 * 2 * size**3 / statistics.median(side.seconds)
