"""What whole data sets cost, on paper, from a benchmark's JSON; and which stage is the longest on how many GPUs.

Belongs here: arithmetic on figures that were measured, and the few that were not, each named. Nothing is written by
hand that follows from the figures; what was not measured is left out and said to be.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from common.tables import markdown

GPU_CORES = 16
"""processor cores beside each GPU: they load for it, and check the files"""
ASSUMED_RATES = {("mobilenet_v2", 224): 5_000}
"""squares a second in bf16 of a GPU that was not measured, by encoder and image size; no others are guessed"""
GPUS = (1, 8, 64)
_TRIED = tuple(2**power for power in range(11))
_BYTES = 2  # of a kept number: fp16


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A set that is priced: how many there are of what, and, of clips that nobody has here, what one is like."""

    name: str
    kind: str
    count: int
    frames: int = 0
    pixels: int = 0
    """of a frame"""
    size: int = 0
    """bytes of a file"""


R4 = DataSet(name="report R4, a photo for each of its questions", kind="photos", count=57_331)
UCF101 = DataSet(name="UCF101", kind="clips", count=13_320)
KINETICS = DataSet(
    name="Kinetics-400", kind="clips", count=306_245, frames=300, pixels=340 * 256, size=450_000_000_000 // 306_245
)


@dataclass(kw_only=True)
class Price:
    """Core-seconds of a whole set."""

    data: DataSet
    squares: int
    loading: float
    checking: float
    fp32: float
    bf16: float
    training: float | None
    """of an epoch on kept features"""
    bytes: float
    """of features"""
    basis: str = ""
    """what the cost of loading and checking was taken from"""


@dataclass(kw_only=True)
class Paper:
    """All prices that the figures allow."""

    prices: list[Price] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    """what could not be priced, and why"""
    rate: float | None = None
    """squares a second of a GPU, in bf16"""
    rate_basis: str = ""
    start: float | None = None
    """seconds until a process has its imports"""


def cost_table(found: Mapping[str, Any]) -> str:
    """The prices as tables, with what they rest on; without figures of parts a and b, a line that says so."""
    paper = price(found)
    if not paper.prices:
        return "\n".join(f"- {line}." for line in paper.lacking)
    tables = [markdown([_row(priced) for priced in paper.prices])]
    if paper.rate is not None:
        tables.append(markdown([_gpu_row(priced, paper) for priced in paper.prices]))
    return "\n\n".join([*tables, "\n".join(f"- {line}" for line in _notes(found, paper))])


def price(found: Mapping[str, Any]) -> Paper:
    """What can be priced from these figures."""
    sides = {side["name"]: side for part in found["parts"].values() for side in part["sides"]}
    facts = {name: fact for part in found["parts"].values() for name, fact in part.get("facts", {}).items()}
    figures = {figure["what"]: figure["value"] for figure in found["parts"].get("g", {}).get("figures", ())}
    paper = Paper()
    about, options = facts.get("encoder"), found["options"]
    if about is None:
        paper.lacking.append("nothing is priced: these figures have no part b that tells of its encoder")
        return paper
    paper.rate, paper.rate_basis = figures.get("squares a second, bf16"), "measured"
    if paper.rate is None:
        paper.rate = ASSUMED_RATES.get((options["encoder"], options["image_size"]))
        paper.rate_basis = "assumed: no GPU was measured"
    if starting := sides.get("starting 1 process(es): Python and its imports"):
        paper.start = statistics.median(starting["seconds"])
    for data, priced in (
        (R4, _photos(sides, about)),
        (UCF101, _ucf101(sides, facts, about, options)),
        (KINETICS, _kinetics(sides, facts, about, options)),
    ):
        if isinstance(priced, str):
            paper.lacking.append(f"{data.name} is not priced: {priced}")
        else:
            paper.prices.append(priced)
    return paper


def _photos(sides: Mapping[str, Any], about: Mapping[str, Any]) -> Price | str:
    names = ["photos: decoding alone", "photos: checking (hash, decoding)"]
    names += ["photos: encoding alone, fp32", "photos: encoding alone, bf16"]
    if any(name not in sides for name in names):
        return "part b has no photos"
    loading, checking, fp32, bf16 = (R4.count * _each(sides[name]) for name in names)
    channels, height, width = about["grid"]
    return Price(
        data=R4,
        squares=R4.count,
        loading=loading,
        checking=checking,
        fp32=fp32,
        bf16=bf16,
        training=_training(sides, "questions", R4.count),
        bytes=R4.count * channels * height * width * _BYTES,
        basis="photos as they were measured, grids kept whole",
    )


def _ucf101(
    sides: Mapping[str, Any], facts: Mapping[str, Any], about: Mapping[str, Any], options: Mapping[str, Any]
) -> Price | str:
    folders = _folders(facts)
    own = [name for name, fact in folders.items() if fact["ucf101"]]
    made = [
        name
        for name, fact in folders.items()
        if fact["codec"] == "mpeg4" and (fact["width"], fact["height"]) == (320, 240)
    ]
    if not (own or made):
        return "part a was not measured"
    name = (own or made)[0]
    fact, (_, frames, checking) = folders[name], _of_clips(sides, name, options)
    basis = f"{fact['clips']} of its own clips" if own else f"a made clip like its own ({name})"
    basis += f", {fact['frames']:.0f} frames of {fact['width']:.0f}×{fact['height']:.0f} in {fact['codec']}"
    return _clips(UCF101, sides, about, options, frames, checking, basis)


def _kinetics(
    sides: Mapping[str, Any], facts: Mapping[str, Any], about: Mapping[str, Any], options: Mapping[str, Any]
) -> Price | str:
    folders = {name: fact for name, fact in _folders(facts).items() if fact["codec"] == "h264"}
    if not folders:
        return "no folder of --data has clips in H.264"
    name, fact = next(iter(folders.items()))
    decoding, frames, checking = _of_clips(sides, name, options)
    loading = decoding * KINETICS.frames * KINETICS.pixels / fact["pixels"] + max(0.0, frames - decoding)
    checking += _each(sides["hashing"]) / 1e6 * max(0, KINETICS.size - fact["bytes"])
    basis = (
        f"the clips of {name} (H.264, {fact['frames']:.0f} frames of {fact['width']:.0f}×{fact['height']:.0f}): "
        f"decoding by the frame and pixel, for 10 s, {KINETICS.frames} frames of 340×256; the rest of loading "
        f"by the clip, and checking, with the hash of {KINETICS.size / 1e6:.1f} MB a clip"
    )
    return _clips(KINETICS, sides, about, options, loading, checking, basis)


def _clips(
    data: DataSet,
    sides: Mapping[str, Any],
    about: Mapping[str, Any],
    options: Mapping[str, Any],
    loading: float,
    checking: float,
    basis: str,
) -> Price | str:
    """`loading`, `checking`: core-seconds of a clip."""
    encoding = [
        next((side for name, side in sides.items() if name.startswith("clips of ") and name.endswith(end)), None)
        for end in (": encoding alone, fp32", ": encoding alone, bf16")
    ]
    if None in encoding:
        return "part b has no clips"
    squares = data.count * options["frames"]
    fp32, bf16 = (squares * _each(side) for side in encoding if side is not None)
    return Price(
        data=data,
        squares=squares,
        loading=data.count * loading,
        checking=data.count * checking,
        fp32=fp32,
        bf16=bf16,
        training=_training(sides, "clips", data.count),
        bytes=squares * about["grid"][0] * _BYTES,
        basis=f"{basis}; a mean kept of each frame",
    )


def _folders(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("clips: "): fact for name, fact in facts.items() if name.startswith("clips: ")}


def _of_clips(sides: Mapping[str, Any], name: str, options: Mapping[str, Any]) -> tuple[float, float, float]:
    """Core-seconds of a clip: decoding alone, loading its frames, checking."""
    ours = f"{options['frames']} uniform frames at {options['image_size']}"
    decoding, frames, checking = (
        _each(sides[f"{name}: {way}"]) for way in ("decoding alone", ours, "checking (hash, number of frames)")
    )
    return decoding, frames, checking


def _training(sides: Mapping[str, Any], kind: str, count: int) -> float | None:
    side = sides.get(f"{kind}: an epoch of training, from the cache")
    return None if side is None else count * _each(side)


def _each(side: Mapping[str, Any]) -> float:
    """Core-seconds of a unit."""
    return statistics.median(side["core_seconds"]) / side["units"]


def stages(priced: Price, paper: Paper, gpus: int) -> dict[str, float]:
    """Seconds of each stage of an extraction on so many GPUs, a process each.

    Loading and encoding are shared out and overlap; every process starts and checks all files, and the others wait for
    the first one's check, with which nothing was known.
    """
    assert paper.rate is not None
    return {
        "starting": paper.start or 0.0,
        "checking": priced.checking / GPU_CORES * min(2, gpus),
        "loading": priced.loading / GPU_CORES / gpus,
        "encoding": priced.squares / paper.rate / gpus,
    }


def total(of: Mapping[str, float]) -> float:
    return of["starting"] + of["checking"] + max(of["loading"], of["encoding"])


def longest(of: Mapping[str, float]) -> str:
    return max(of, key=lambda name: of[name])


def _row(priced: Price) -> dict[str, str]:
    training = "" if priced.training is None else f"{priced.training / 3600:,.2f}"
    hours = {
        "checking": priced.checking,
        "loading": priced.loading,
        "encoding in fp32": priced.fp32,
        "encoding in bf16": priced.bf16,
    }
    row = {"core-hours of": priced.data.name, "squares": f"{priced.squares:,}"}
    row |= {name: f"{seconds / 3600:,.2f}" for name, seconds in hours.items()}
    return row | {"an epoch of training": training, "features, GB": f"{priced.bytes / 1e9:,.1f}"}


def _gpu_row(priced: Price, paper: Paper) -> dict[str, str]:
    row = {"extraction, in bf16": priced.data.name}
    for gpus in GPUS:
        of = stages(priced, paper, gpus)
        row[f"{gpus} GPU{'s' * (gpus > 1)}"] = f"{duration(total(of))} ({longest(of)}: {duration(of[longest(of)])})"
    return row


def _notes(found: Mapping[str, Any], paper: Paper) -> list[str]:
    options = found["options"]
    notes = [f"{priced.data.name}: from {priced.basis}." for priced in paper.prices]
    notes += [f"{line}." for line in paper.lacking]
    if paper.rate is None:
        what = f"{options['encoder']} at {options['image_size']} pixels"
        notes.append(f"On GPUs: not told, for no GPU was measured and none's rate is known here for {what}.")
        return notes
    start = "was not measured (part f) and is left out" if paper.start is None else f"takes {duration(paper.start)}"
    notes.append(
        f"A GPU encodes {paper.rate:,.0f} squares a second in bf16 ({paper.rate_basis}); {GPU_CORES} cores as measured "
        f"here load for it. Every process checks all files, the first before the others; its start {start}. Not in it: "
        "files on a disk or a network slower than this one's, a queue's wait, fetching weights, writing features."
    )
    return notes + [_bottleneck(priced, paper) for priced in paper.prices]


def _bottleneck(priced: Price, paper: Paper) -> str:
    """Which stage is the longest, from how many GPUs on."""
    runs = [(name, list(gpus)) for name, gpus in groupby(_TRIED, key=lambda gpus: longest(stages(priced, paper, gpus)))]
    said = [f"{name} on {_span(gpus, last=place == len(runs) - 1)}" for place, (name, gpus) in enumerate(runs)]
    return f"The longest stage of {priced.data.name}: {', '.join(said)}."


def _span(gpus: Sequence[int], *, last: bool) -> str:
    if last:
        return f"{gpus[0]} GPUs and more" if gpus[0] > 1 else "any number of GPUs"
    few, many = gpus[0], gpus[-1]
    return f"{few} GPU{'s' * (few > 1)}" if few == many else f"{few} to {many} GPUs"


def duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1g} s"
