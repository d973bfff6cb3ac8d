"""The benchmark's parts about encoders: what extraction costs beside its limits, and a GPU's throughput.

Belongs here: any `ViewSource`, photos or clips alike; which files these are is for the tasks' benchmarks to say.
"""

import itertools
import shutil
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn.functional import cosine_similarity
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from common.benchmark import Bench, Figure, Measured, Side, has_bf16, median_ratio, ratio, side_by_side
from common.encoders import Encoder, build_encoder
from common.encoding import encode_batches
from common.features import View, ViewDataset, ViewSource, cached_features, collate_views
from common.images import normalise

_BATCH = 32


def make_encoder(bench: Bench) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(bench.options.encoder, weights=bench.options.weights).eval()


def extraction(
    bench: Bench, encoder: Encoder, source: ViewSource, files: Sequence[tuple[str, str]], *, kind: str
) -> Measured:
    """Features of `files` (path, hash) into an empty cache, beside their decoding alone and their encoding alone.

    On a CPU decoding and encoding share the cores, so that both together take at least their core-seconds divided by
    the cores; on a GPU they overlap, and encoding alone is the limit. The plain way: a loop over a loader, fp32, the
    network as torchvision builds it, on every fourth file. What is computed in fp32 is kept in fp16, as by default;
    bf16 is no default: reported figures are of features computed in fp32.
    """
    device = Accelerator().device
    views = [source.load(path, digest, 0) for path, digest in files]
    squares = sum(len(pixels) for pixels, _, _ in views)
    per_batch = max(1, _BATCH // source.frames)
    batches = [collate_views(views[start : start + per_batch]) for start in range(0, len(views), per_batch)]
    some = files[::4]  # the plain way is several times as slow
    caches = (bench.folder / f"{kind}-{number}" for number in itertools.count())

    def decode() -> None:
        for path, digest in files:
            source.load(path, digest, 0)

    def encode(precision: str, compiled: bool = False) -> None:
        for _ in encode_batches(
            encoder,
            batches,
            preprocessing=source.preprocessing,
            device=device,
            precision=precision,
            batch_size=_BATCH,
            compiled=compiled,
        ):
            pass

    sides = {
        f"{kind}: decoding alone, one core": decode,
        f"{kind}: encoding alone, fp32": lambda: encode("fp16"),
        f"{kind}: extraction, fp32": lambda: _extract(encoder, source, files, next(caches), bench, "fp16"),
        f"{kind}: the plain way, fp32": lambda: _plain(encoder, source, some, bench, device),
        f"{kind}: encoding alone, bf16": lambda: encode("bf16"),
        f"{kind}: extraction, bf16": lambda: _extract(encoder, source, files, next(caches), bench, "bf16"),
    }
    if bench.options.compile:
        sides[f"{kind}: encoding alone, fp32, compiled"] = lambda: encode("fp16", compiled=True)
    found = side_by_side(sides, bench.options.repeats, units=squares, unit="square")
    alone, fp32, whole, plain, bf16, low, *compiled = found.values()
    plain.units = sum(len(pixels) for pixels, _, _ in views[::4])
    measured = Measured(sides=list(found.values()))
    if device.type == "cuda":
        share = statistics.median(a / b for a, b in zip(fp32.seconds, whole.seconds, strict=True))
        measured.figures.append(
            Figure(what=f"{kind}: extraction, of the encoder's rate", value=share, aim=0.95, at_most=False)
        )
    else:
        measured.figures.append(_against_limit(f"{kind}: extraction, fp32", alone, fp32, whole, bench.cores))
        measured.figures.append(_against_limit(f"{kind}: extraction, bf16", alone, bf16, low, bench.cores))
    quick = has_bf16() or device.type == "cuda"
    aim = 2.0 if quick else None
    measured.figures.append(ratio(f"{kind}: the plain way, of extraction in bf16", plain, low, aim=aim, at_most=False))
    measured.figures.append(ratio(f"{kind}: the plain way, of extraction in fp32", plain, whole))
    measured.figures += [ratio(f"{kind}: encoding in fp32, of compiled", fp32, side) for side in compiled]
    measured.figures.append(
        Figure(
            what=f"{kind}: cosine of features in bf16 and fp32, least",
            value=_likeness(encoder, batches[:4], source, device),
            unit="",
        )
    )
    return measured


def epoch_of_features(
    bench: Bench, encoder: Encoder, source: ViewSource, files: Sequence[tuple[str, str]], *, kind: str
) -> Measured:
    """Each file's features once, in batches of 16 in any order: from the cache, and by decoding and encoding again."""
    accelerator, precision, epochs = Accelerator(), "fp16", 10
    store = cached_features(
        encoder,
        [path for path, _ in files],
        [digest for _, digest in files],
        source=source,
        preprocessing=source.preprocessing,
        cache=bench.folder / f"epoch-{kind}",
        accelerator=accelerator,
        precision=precision,
        workers=bench.cores,
    )
    rows = [(digest, 0) for digest in dict.fromkeys(digest for _, digest in files)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    take = store.take_clips if source.frames > 1 else store.take

    def again() -> None:
        loaded = loader(source, files, bench.cores)
        for _ in encode_batches(
            encoder, loaded, preprocessing=source.preprocessing, device=accelerator.device, precision=precision
        ):
            pass

    def cached() -> None:
        for _ in range(epochs):
            for start in range(0, len(order), 16):
                take([rows[place] for place in order[start : start + 16]])

    found = side_by_side(
        {f"{kind}: an epoch's features, encoded again": again, f"{kind}: {epochs} epochs' features, cached": cached},
        bench.options.repeats,
        units=len(files),
        unit=source.unit,
    )
    encoded, kept = found.values()
    kept.units = epochs * len(rows)
    figure = ratio(f"{kind}: encoding an epoch's features again, of the cache", encoded, kept, aim=60, at_most=False)
    return Measured(sides=[encoded, kept], figures=[figure])


def _against_limit(what: str, decoding: Side, encoding: Side, whole: Side, cores: int) -> Figure:
    """Wall time in (decoding + encoding, in core-seconds) / cores; by processor time, what is done in all in these."""
    limit = [d + e for d, e in zip(decoding.core_seconds, encoding.core_seconds, strict=True)]
    return Figure(
        what=f"{what}, of (decoding + encoding) / {cores} cores",
        value=median_ratio(whole.seconds, [seconds / cores for seconds in limit]),
        aim=1.10,
        cores=median_ratio(whole.core_seconds, limit),
    )


def _extract(
    encoder: Encoder, source: ViewSource, files: Sequence[tuple[str, str]], cache: Path, bench: Bench, precision: str
) -> None:
    cached_features(
        encoder,
        [path for path, _ in files],
        [digest for _, digest in files],
        source=source,
        preprocessing=source.preprocessing,
        cache=cache,
        accelerator=Accelerator(),
        precision=precision,
        workers=bench.cores,
    )
    shutil.rmtree(cache)


def _plain(
    encoder: Encoder, source: ViewSource, files: Sequence[tuple[str, str]], bench: Bench, device: torch.device
) -> None:
    """As one writes it first: a loader, then the network on each batch."""
    network, kept = encoder.backbone.to(device, memory_format=torch.contiguous_format), []
    with torch.inference_mode():
        for pixels, _ in loader(source, files, bench.cores):
            for part in pixels.split(_BATCH):
                kept.append(network(normalise(part.to(device), source.preprocessing))[-1].cpu())


def loader(source: ViewSource, files: Sequence[tuple[str, str]], workers: int) -> DataLoader:
    """Batches of the squares of these files, as extraction loads them."""
    return DataLoader(
        ViewDataset([path for path, _ in files], [(digest, 0) for _, digest in files], source),
        batch_size=max(1, _BATCH // source.frames),
        collate_fn=collate_views,
        num_workers=min(workers, len(files)),
        pin_memory=torch.cuda.is_available(),
    )


def _likeness(
    encoder: Encoder, batches: Sequence[tuple[torch.Tensor, Any]], source: ViewSource, device: torch.device
) -> float:
    both = [
        torch.cat([grid.float() for grid, _ in encode_batches(
            encoder, batches, preprocessing=source.preprocessing, device=device, precision=precision
        )])
        for precision in ("fp32", "bf16")
    ]  # fmt: skip
    return float(cosine_similarity(*(grid.flatten(1) for grid in both)).min())


def throughput(bench: Bench, encoder: Encoder, source: ViewSource, files: Sequence[tuple[str, str]]) -> Measured:
    """Of a GPU (or whatever the device is): samples a second in fp32 and bf16, the share of its matrix products' rate,
    and whether it waits for data."""
    device = Accelerator().device
    views: list[View] = [source.load(path, digest, 0) for path, digest in files]
    pixels = torch.cat([pixels for pixels, _, _ in views])
    batch = pixels.repeat(-(-256 // len(pixels)), 1, 1, 1)[:256] if device.type == "cuda" else pixels[:16]
    batches: list[tuple[torch.Tensor, Any]] = [(batch.pin_memory() if device.type == "cuda" else batch, None)] * 8
    measured = Measured()
    operations = _operations(encoder, source)
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        side = side_by_side(
            {f"encoder alone, {precision}": lambda p=precision: _drain(encoder, batches, source, device, p)},
            bench.options.repeats,
            units=8 * len(batch),
            unit="square",
        )
        (encoding,) = side.values()
        rate = encoding.units / statistics.median(encoding.seconds)
        measured.sides.append(encoding)
        measured.figures.append(Figure(what=f"squares a second, {precision}", value=rate, unit=""))
        limit = matmul_rate(device, kind, bench.options.repeats)
        measured.figures.append(
            Figure(what=f"share of the matrix products' rate, {precision}", value=rate * operations / limit, unit="")
        )
    fp32, bf16 = measured.sides
    measured.figures.append(ratio("fp32, of bf16", fp32, bf16))
    decode = side_by_side(
        {"loading alone, all workers": lambda: [None for _ in loader(source, files, bench.cores)]},
        bench.options.repeats,
        units=len(pixels),
        unit="square",
    )
    (loading,) = decode.values()
    measured.sides.append(loading)
    waits = statistics.median(loading.seconds) / loading.units * bf16.units / statistics.median(bf16.seconds)
    measured.figures.append(Figure(what="loading, of encoding in bf16 (above 1, the GPU waits)", value=waits))
    return measured


def _drain(encoder: Encoder, batches, source: ViewSource, device: torch.device, precision: str) -> None:
    found: Iterator = encode_batches(
        encoder,
        batches,
        preprocessing=source.preprocessing,
        device=device,
        precision=precision,
        batch_size=len(batches[0][0]),
    )
    for _ in found:
        pass


def _operations(encoder: Encoder, source: ViewSource) -> int:
    """Floating-point operations of a square: two to a multiplication that is added."""
    size = source.preprocessing.size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.backbone(torch.zeros(1, 3, size, size, device=next(encoder.parameters()).device))
    return counter.get_total_flops()


def matmul_rate(device: torch.device, kind: torch.dtype, repeats: int) -> float:
    """Floating-point operations a second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))

    def multiply() -> None:
        for _ in range(4):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()

    (side,) = side_by_side({"matrix product": multiply}, repeats).values()
    return 4 * 2 * size**3 / statistics.median(side.seconds)
