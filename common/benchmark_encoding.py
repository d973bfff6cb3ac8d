"""The benchmark's parts about encoders: what extraction costs beside its limits, and features from the cache.

Belongs here: any `ViewSource`, photos or clips alike; which files these are is for the tasks' benchmarks to say. What
only a GPU's rates tell is in `common/benchmark_gpu.py`.
"""

import itertools
import shutil
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn.functional import cosine_similarity
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from common.benchmark import Bench, Figure, Measured, Side, has_bf16, median_ratio, ratio, side_by_side
from common.encoders import Encoder, build_encoder, count_parameters
from common.encoding import encode_batches, encoder_for
from common.features import (
    FeatureStore,
    View,
    ViewDataset,
    ViewSource,
    cached_features,
    collate_views,
    encoded_views,
)
from common.images import normalise

File = tuple[str, str]
"""A path, and the hash of what is there."""
# At least so many, of an extraction: of fewer, its start and its end, in which cores wait, are a large part of it.
_SQUARES, _GPU_SQUARES = 960, 8192
_UNWRITTEN = ", nothing written"


def make_encoder(bench: Bench) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(bench.options.encoder, weights=bench.options.weights).eval()


def squares_at_once(device: torch.device) -> int:
    """How many an encoder sees at a time in `cached_features`, and so in all that is measured beside it."""
    return 128 if device.type == "cuda" else 32


def extraction(
    bench: Bench,
    encoder: Encoder,
    source: ViewSource,
    files: Sequence[File],
    *,
    kind: str,
    plain: bool,
    pool: int | None = None,
) -> Measured:
    """Features of `files` into an empty cache, beside their decoding alone and their encoding alone.

    On a CPU decoding and encoding share the cores, so that both together take at least their core-seconds divided by
    the cores; each of them alone has all cores for it, too. Where grids are kept whole, so that there is much to write,
    the same is measured without writing, too, which that limit does not count. On a GPU they overlap, and the limit is
    the bare network on tensors that are there already, in batches of the same size. Where the files are few, they are
    taken several times over, under other hashes. `plain` measures the plain way, too (see `_plain`), all in fp32, on a
    CPU of the files once, for it is slow; the quickest of its settings counts. What is computed in fp32 is kept in
    fp16, as by default; bf16 is no default: reported figures are of features computed in fp32. `pool` as the task's
    training keeps them (see `cached_features`).
    """
    device = Accelerator().device
    views = [source.load(path, digest, 0) for path, digest in files]
    squares = sum(len(pixels) for pixels, _, _ in views)
    batches = _batches(views, max(1, squares_at_once(device) // source.frames))
    measured = Measured(facts=_about(encoder, source, views, device))
    caches = (bench.folder / f"{kind}-{number}" for number in itertools.count())
    on_gpu = device.type == "cuda"
    rounds = -(-(bench.options.squares or (_GPU_SQUARES if on_gpu else _SQUARES)) // squares)
    measured.facts[f"rounds of {kind}"] = rounds
    many = repeated(files, rounds)
    of_plain = many if on_gpu else files

    def load(file: File) -> None:
        source.load(*file, 0)

    def decode() -> None:
        with ThreadPoolExecutor(bench.cores, initializer=torch.set_num_threads, initargs=(1,)) as threads:
            for _ in threads.map(load, many):
                pass
        torch.set_num_threads(bench.cores)  # which the initializer has set for threads to come

    def extract(precision: str) -> None:
        cache = next(caches)
        features_of(bench, encoder, source, many, cache=cache, precision=precision, pool=pool)
        shutil.rmtree(cache)

    def stream(precision: str) -> None:
        views = _views(source, many)
        for _ in encoded_views(encoder, views, pool=pool, **_settings(bench, device, precision)):
            pass

    bare = _bare(encoder, batches, source, device, rounds, pool)
    ways = {
        "decoding alone": decode,
        "encoding alone, fp32": lambda: bare("fp16"),
        "extraction, fp32": lambda: extract("fp16"),
        "encoding alone, bf16": lambda: bare("bf16"),
        "extraction, bf16": lambda: extract("bf16"),
    }
    if pool is None and not on_gpu:
        ways[f"extraction, fp32{_UNWRITTEN}"] = lambda: stream("fp16")
        ways[f"extraction, bf16{_UNWRITTEN}"] = lambda: stream("bf16")
    if plain:
        for name, workers, threads in _plain_settings(bench.cores):
            ways[name] = _plain(encoder, source, of_plain, workers, threads, device)
        if bench.options.compile:
            ways["encoding alone, fp32, compiled"] = lambda: _encode(encoder, batches, source, device, "fp16", True)
    found = side_by_side(
        {f"{kind}: {name}": way for name, way in ways.items()},
        bench.options.repeats,
        units=squares,
        unit="square",
        seldom=[f"{kind}: {name}" for name in ways if name.startswith("the plain way")],
    )
    sides = {name.removeprefix(f"{kind}: "): side for name, side in found.items()}
    for name, side in sides.items():
        once = name.endswith("compiled") or (name.startswith("the plain way") and not on_gpu)
        side.units = squares * (1 if once else rounds)
    measured.sides += found.values()
    for precision in ("fp32", "bf16"):
        alone, whole = sides[f"encoding alone, {precision}"], sides[f"extraction, {precision}"]
        if device.type == "cuda":
            share = median_ratio(alone.seconds, whole.seconds)
            what = f"{kind}: extraction, {precision}, of the bare encoder's rate"
            measured.figures.append(Figure(what=what, value=share, aim=0.95, at_most=False))
        else:
            limit = sides["decoding alone"], alone
            what = f"extraction, {precision}"
            measured.figures.append(_against_limit(f"{kind}: {what}", *limit, whole, bench.cores, aim=1.10))
            if unwritten := sides.get(what + _UNWRITTEN):
                what += _UNWRITTEN
                measured.figures.append(_against_limit(f"{kind}: {what}", *limit, unwritten, bench.cores))
    if plain:
        measured.figures += _of_plain(kind, sides, quick=has_bf16() or device.type == "cuda")
        likeness = _likeness(encoder, batches[:4], source, device)
        what = f"{kind}: cosine of features in bf16 and fp32, least"
        measured.figures.append(Figure(what=what, value=likeness, unit=""))
    return measured


def repeated(files: Sequence[File], rounds: int) -> list[File]:
    """These files so many times over, each under hashes of its own, so that nothing is found to be the same."""
    return [(path, f"{digest[:-4]}{number:04x}") for number in range(rounds) for path, digest in files]


def features_of(
    bench: Bench,
    encoder: Encoder,
    source: ViewSource,
    files: Sequence[File],
    *,
    cache: Path | None = None,
    precision: str = "fp16",
    pool: int | None = None,
) -> FeatureStore:
    """The features of these files, from a cache that is thrown away afterwards."""
    return cached_features(
        encoder,
        [path for path, _ in files],
        [digest for _, digest in files],
        source=source,
        cache=cache or bench.folder / "cache",
        accelerator=Accelerator(),
        precision=precision,
        pool=pool,
        workers=bench.cores,
    )


def epoch_of_features(
    bench: Bench, encoder: Encoder, source: ViewSource, files: Sequence[File], *, kind: str, pool: int | None = None
) -> Measured:
    """Each file's features once, in batches of 16 in any order: from the cache, and by decoding and encoding again.

    `pool` as the task's training keeps them (see `cached_features`).
    """
    device, epochs = Accelerator().device, 10
    store = features_of(bench, encoder, source, files, cache=bench.folder / f"epoch-{kind}", pool=pool)
    rows = [(digest, 0) for digest in dict.fromkeys(digest for _, digest in files)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    take = store.take_clips if source.frames > 1 else store.take

    def again() -> None:
        for _ in encoded_views(encoder, _views(source, files), pool=pool, **_settings(bench, device, "fp16")):
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


def _settings(bench: Bench, device: torch.device, precision: str) -> dict[str, Any]:
    """Of `encoded_views`, as `cached_features` has them."""
    return {
        "device": device,
        "precision": precision,
        "batch_size": squares_at_once(device),
        "workers": bench.cores,
    }


def _views(source: ViewSource, files: Sequence[File]) -> ViewDataset:
    return ViewDataset([path for path, _ in files], [(digest, 0) for _, digest in files], source)


def loader(source: ViewSource, files: Sequence[File], workers: int, device: torch.device) -> DataLoader:
    """Batches of the squares of these files, by a loader's processes."""
    return DataLoader(
        _views(source, files),
        batch_size=max(1, squares_at_once(device) // source.frames),
        collate_fn=collate_views,
        num_workers=min(workers, len(files)),
        pin_memory=device.type == "cuda",
    )


def on_device(
    batches: Iterable[tuple[torch.Tensor, Any]], source: ViewSource, device: torch.device
) -> list[torch.Tensor]:
    """The squares of these batches as a network takes them: normalised, channels last, on the device."""
    return [
        normalise(pixels.to(device), source.preprocessing).contiguous(memory_format=torch.channels_last)
        for pixels, _ in batches
    ]


def run_bare(fast: Encoder, tensors: Sequence[torch.Tensor], precision: str) -> None:
    """Tensors through a network on their device: nothing is copied to it or back. (`side_by_side` waits for it.)"""
    with torch.inference_mode():
        for pixels in tensors:
            with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                fast.frozen_features(pixels)


def _bare(
    encoder: Encoder,
    batches: Sequence[tuple[torch.Tensor, Any]],
    source: ViewSource,
    device: torch.device,
    rounds: int,
    pool: int | None,
) -> Callable[[str], None]:
    """A function that encodes all batches, `rounds` times, in a precision: what extraction is held against."""
    if device.type != "cuda":  # each core its own squares, as in extraction: quicker than all cores on a batch
        return lambda precision: _encode(encoder, list(batches) * rounds, source, device, precision, pool=pool)
    fast, tensors = encoder_for(encoder, device), on_device(batches, source, device)
    return lambda precision: run_bare(fast, tensors * rounds, precision)


def _encode(
    encoder: Encoder,
    batches: Iterable[tuple[torch.Tensor, Any]],
    source: ViewSource,
    device: torch.device,
    precision: str,
    compiled: bool = False,
    pool: int | None = None,
) -> None:
    for _ in encode_batches(
        encoder,
        batches,
        preprocessing=source.preprocessing,
        device=device,
        precision=precision,
        pool=pool,
        batch_size=squares_at_once(device),
        compiled=compiled,
    ):
        pass


def _batches(views: Sequence[View], per_batch: int) -> list[tuple[torch.Tensor, Any]]:
    return [collate_views(views[start : start + per_batch]) for start in range(0, len(views), per_batch)]


def _about(encoder: Encoder, source: ViewSource, views: Sequence[View], device: torch.device) -> dict[str, Any]:
    """What a square's cost follows from: the encoder's size, its operations and the grid that is kept of a square."""
    with torch.inference_mode():
        grid = encoder.to(device)(on_device([(views[0][0][:1], None)], source, device)[0])
    return {
        "encoder": {
            "grid": list(grid.shape[1:]),
            "operations": operations(encoder, source.preprocessing.size),
            "parameters": count_parameters(encoder)[0],
        }
    }


def operations(encoder: Encoder, size: int) -> int:
    """Floating-point operations of a square of `size` pixels: two to a multiplication that is added."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.backbone(torch.zeros(1, 3, size, size, device=next(encoder.parameters()).device))
    return counter.get_total_flops()


def _plain_settings(cores: int) -> list[tuple[str, int, int]]:
    """Name, loading processes, threads of the network: what one would try first, and what leaves no core to two."""
    settings = [
        ("the plain way, fp32", cores, cores),
        ("the plain way, fp32, one thread in the network", cores, 1),
        ("the plain way, fp32, no loading process", 0, cores),
    ]
    return settings if cores > 1 else settings[1:]


def _plain(
    encoder: Encoder, source: ViewSource, files: Sequence[File], workers: int, threads: int, device: torch.device
) -> Callable[[], None]:
    """As one writes it first: a loader, then the network as it was built, in fp32, on each batch."""

    def run() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        network, kept = encoder.backbone.to(device, memory_format=torch.contiguous_format), []
        try:
            with torch.inference_mode():
                for pixels, _ in loader(source, files, workers, device):
                    for part in pixels.split(squares_at_once(device)):
                        part = normalise(part.to(device), source.preprocessing)
                        kept.append(network(part)[-1].half().cpu())
        finally:
            torch.set_num_threads(before)

    return run


def _of_plain(kind: str, sides: dict[str, Side], *, quick: bool) -> list[Figure]:
    """The quickest of the plain ways, by wall time, against extraction."""
    ways = [side for name, side in sides.items() if name.startswith("the plain way")]
    best = min(ways, key=lambda side: statistics.median(side.seconds))
    name = best.name.removeprefix(f"{kind}: ")
    aim = 2.0 if quick else None
    low = ratio(f"{kind}: {name}, of extraction in bf16", best, sides["extraction, bf16"], aim=aim, at_most=False)
    figures = [low, ratio(f"{kind}: {name}, of extraction in fp32", best, sides["extraction, fp32"])]
    if compiled := sides.get("encoding alone, fp32, compiled"):
        figures.append(ratio(f"{kind}: encoding in fp32, of compiled", sides["encoding alone, fp32"], compiled))
    return figures


def _against_limit(
    what: str, decoding: Side, encoding: Side, whole: Side, cores: int, *, aim: float | None = None
) -> Figure:
    """Wall time in (decoding + encoding, in core-seconds) / cores; by processor time, what is done in all in these."""
    limit = [d + e for d, e in zip(decoding.core_seconds, encoding.core_seconds, strict=True)]
    return Figure(
        what=f"{what}, of (decoding + encoding) / {cores} cores",
        value=median_ratio(whole.seconds, [seconds / cores for seconds in limit]),
        aim=aim,
        cores=median_ratio(whole.core_seconds, limit),
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
    one, other = (grid.flatten(1) for grid in both)
    return float(cosine_similarity(one, other).min())
