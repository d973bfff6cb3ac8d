"""The embedded data set: clips whose class is the motion, so that the first command trains with no data.

    python -m video.motions FOLDER            # 960 + 180 + 240 clips of 64 x 64 pixels

Belongs here: rendering the clips and writing them as video files in the ordinary data contract. Does not belong here:
reading them back; `video/data.py` and `video/decode.py` read them like anybody's clips.

It exists to show what a recurrent net is for, so its frames must give nothing away. A shape on a textured background
has a place, a size and a brightness, each drawn uniformly from its range for every clip; x, y or the size goes through
most of its range as a sawtooth (out at one side, in at the other), and the class is which one and in which direction:

- at every moment everything is uniform over its range whatever the class: one frame, the last too, is at chance (1/6);
- a clip played backwards is a clip of the opposite class, drawn as likely: without the order of frames, as for a mean
  over frames, only the pair can be told (1/2);
- every frame is compressed by itself, at one quality: predicting a frame from those before it, as video codecs do,
  would leave traces of where the shape came from.
"""

import colorsys
import csv
import io
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from common.config import options, parse, positional
from common.errors import UserError, command
from common.folders import write_folder

VERSION = 1  # part of the cache folder's name: raise it whenever the same parameters would give other frames

SPLITS = ("train", "validation", "test")
COLUMNS = ("path", "label", "group")
MOST_CLIPS = 100_000  # of a split: names of clips are split * MOST_CLIPS + index, whatever the other splits' counts
SIZES = (32, 512)  # of a frame, pixels

MOTIONS = {  # the property that changes, and which way; opposites side by side
    "left": ("x", -1),
    "right": ("x", 1),
    "up": ("y", -1),
    "down": ("y", 1),
    "shrink": ("radius", -1),
    "grow": ("radius", 1),
}
RANGES = {  # lengths are fractions of the frame's side, y counts from the top; brightness is HSV's value
    "x": (0.0, 1.0),
    "y": (0.0, 1.0),
    "radius": (0.11, 0.32),  # of a disc of the same area; a triangle of more than 0.32 would meet itself on the torus
    "brightness": (0.2, 1.0),
}
KINDS = ("circle", "square", "triangle")
FRAMES = (24, 40)  # of a clip
TRAVEL = (0.6, 0.9)  # of its range that a property goes through in a clip: between 8 even frames less than 1/8
RATE = 12  # frames a second
NOISE = 3  # at most, of 255, in every frame anew
QUANTIZER = 4  # MPEG-4's, 2 (best) to 31: brightness survives to about 2 of 255


# --- One clip --------------------------------------------------------------------------------------------------------


def sawtooth(start: float, change: float, frames: int) -> np.ndarray:
    """(frames,) phases in [0, 1): from `start` evenly to `start + change`, out at one end and in again at the other."""
    return np.mod(start + np.linspace(0, change, frames), 1)


def trajectory(label: str, rng: np.random.Generator) -> np.ndarray:
    """A clip's (T, 4): x, y, radius and brightness, see `RANGES`. One changes as `label` says, the others stay.

    Equal generators give clips of all labels that begin alike.
    """
    moving, direction = MOTIONS[label]
    starts = rng.random(len(RANGES))
    travel = rng.uniform(*TRAVEL)
    frames = int(rng.integers(*FRAMES, endpoint=True))
    changes = [direction * travel if name == moving else 0 for name in RANGES]
    phases = np.stack([sawtooth(*each, frames) for each in zip(starts, changes, strict=True)], axis=1)
    low, high = np.array([*RANGES.values()]).T
    return low + (high - low) * phases


def motion_frames(label: str, rng: np.random.Generator, size: int = 64) -> np.ndarray:
    """Render a clip: (T, size, size, 3) uint8 RGB. Equal arguments give equal frames."""
    states = trajectory(label, rng)
    background = _background(rng, size)
    kind = KINDS[rng.integers(len(KINDS))]
    color = 255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.6), 1))
    frames = np.empty((len(states), size, size, 3), np.uint8)
    for frame, (x, y, radius, brightness) in zip(frames, states, strict=True):
        covered = _coverage(kind, x, y, radius, size)[:, :, None]
        pixels = covered * ((brightness * color).astype(np.float32) - background)
        pixels += background
        pixels += rng.integers(-NOISE, NOISE, size=covered.shape, dtype=np.int8, endpoint=True)
        frame[:] = np.clip(np.rint(pixels, out=pixels), 0, 255, out=pixels)
    return frames


def _coverage(kind: str, x: float, y: float, radius: float, size: int) -> np.ndarray:
    """(size, size) float32 in 0-1: how much of each pixel the shape covers; all kinds have the same area."""
    middles = (np.arange(size) + 0.5) / size
    # from the shape's center to each column and row, the nearest way on the torus
    right, down = ((np.mod(middles - center + 0.5, 1) - 0.5).astype(np.float32) for center in (x, y))
    if kind == "circle":
        outside = np.sqrt(np.square(right) + np.square(down)[:, None]) - np.float32(radius)
    elif kind == "square":
        outside = np.maximum(np.abs(right), np.abs(down)[:, None]) - np.float32(radius * math.sqrt(math.pi) / 2)
    else:
        lower, slanted = down[:, None], np.float32(math.sqrt(3) / 2) * np.abs(right)
        distance = np.maximum(lower, slanted - lower / 2)  # towards the three sides
        outside = distance - np.float32(radius * math.sqrt(math.pi / (3 * math.sqrt(3))))
    return np.clip(0.5 - outside * size, 0, 1)  # an edge through a pixel's middle covers half of it


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) float32: dark, lightly tinted, with blots of some random size; still during a clip."""
    blots = rng.random([rng.integers(4, 17)] * 2, np.float32) - 0.5
    texture = np.asarray(Image.fromarray(blots).resize((size, size), Image.Resampling.BICUBIC))
    tint = rng.uniform(8, 20) + rng.uniform(-4, 4, size=3)
    return (tint + rng.uniform(5, 15) * texture[:, :, None]).astype(np.float32)


def _encoded(frames: np.ndarray) -> bytes:
    """Frames (T, H, W, 3) uint8 as an MP4 file. The same bytes for the same frames and versions of PyAV and FFmpeg.

    In memory, so that whatever is wrong with the disk shows as Python's own `OSError` where the bytes are written.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # gop_size 1: every frame by itself; qmin = qmax: no rate control, which remembers the frames before.
        constant = {"qmin": str(QUANTIZER), "qmax": str(QUANTIZER), "threads": "1"}
        stream = container.add_stream("mpeg4", rate=RATE, options=constant)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 1
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


# --- The data set ----------------------------------------------------------------------------------------------------


def clips(split: str, count: int, *, seed: int = 0, size: int = 64) -> Iterator[tuple[str, np.ndarray]]:
    """The first `count` clips of a split as (label, frames): the same ones whatever the other splits hold."""
    for index in range(count):
        label = list(MOTIONS)[index % len(MOTIONS)]
        yield label, motion_frames(label, np.random.default_rng([seed, SPLITS.index(split), index]), size)


def write_motions(
    directory: str | Path,
    *,
    seed: int = 0,
    train: int = 960,
    validation: int = 180,
    test: int = 240,
    size: int = 64,
    progress: bool = False,
) -> Path:
    """Write the data set and return its folder: `{train,validation,test}.csv` and `clips/*.mp4`.

    Columns: path (in the folder), label (one of `MOTIONS`, in turn) and group (one to a clip). `train`, `validation`
    and `test` count clips, `size` is a frame's side in pixels; `progress` shows a bar if standard error is a terminal.
    Clips have 24 to 40 frames, 12 a second. The same frames for the same arguments; the files' bytes may differ between
    versions of PyAV and its FFmpeg.

    Everything is written beside the folder and renamed at the end: a killed run leaves no half set, and of several
    processes at it the first one's set stays. Raises `UserError` for a count or size out of range, a folder that
    already holds something, and one that cannot be written.
    """
    counts = {"train": train, "validation": validation, "test": test}
    _check(seed=seed, counts=counts, size=size)
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory}: already holds something; name a new folder or remove this one")
    return _write(directory, seed, counts, size, progress)


def embedded_motions(
    cache_directory: str | Path,
    *,
    seed: int = 0,
    train: int = 960,
    validation: int = 180,
    test: int = 240,
    size: int = 64,
    progress: bool = True,
) -> Path:
    """The data set's folder in the cache, written first if it isn't there. Arguments and errors as `write_motions`."""
    counts = {"train": train, "validation": validation, "test": test}
    _check(seed=seed, counts=counts, size=size)
    directory = Path(cache_directory) / f"motions-v{VERSION}-seed{seed}-{train}-{validation}-{test}-{size}px"
    return directory if (directory / f"{SPLITS[-1]}.csv").is_file() else _write(directory, seed, counts, size, progress)


def _check(*, seed: int, counts: dict[str, int], size: int) -> None:
    if seed < 0:
        raise UserError(f"--seed {seed}: must be 0 or more")
    for split, count in counts.items():
        if not 1 <= count <= MOST_CLIPS:
            raise UserError(f"--{split} {count}: a split has 1 to {MOST_CLIPS} clips")
    if not SIZES[0] <= size <= SIZES[1] or size % 2:  # yuv420p keeps colours for squares of 2 x 2 pixels
        raise UserError(f"--size {size}: frames have {SIZES[0]} to {SIZES[1]} pixels a side, an even number")


def _write(directory: Path, seed: int, counts: dict[str, int], size: int, progress: bool) -> Path:
    shown = progress and os.environ.get("RANK", "0") == "0"  # of several processes, only the first
    bar = tqdm(total=sum(counts.values()), unit="clip", desc="embedded motions", disable=None if shown else True)

    def fill(folder: Path) -> None:
        (folder / "clips").mkdir()
        for number, split in enumerate(SPLITS):
            rendered = clips(split, counts[split], seed=seed, size=size)
            _write_split(folder, split, number * MOST_CLIPS, rendered, bar)

    with bar:
        return write_folder(directory, fill, last=f"{SPLITS[-1]}.csv")


def _write_split(folder: Path, split: str, first: int, rendered: Iterator, bar: tqdm) -> None:
    with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for number, (label, frames) in enumerate(rendered, start=first):
            path = f"clips/{number:06d}.mp4"
            (folder / path).write_bytes(_encoded(frames))
            rows.writerow([path, label, f"s{number:06d}"])
            bar.update()


@options
class MotionsOptions:
    """Write the embedded data set: clips whose class is the motion of a shape.

    python -m video.motions FOLDER --train 960 --size 64
    """

    folder: str = positional()
    """New folder for the data set."""
    seed: int = 0
    """Which data set of this kind."""
    train: int = 960
    """Clips to train on."""
    validation: int = 180
    """Clips to validate on."""
    test: int = 240
    """Clips to test on."""
    size: int = 64
    """Side of the frames, pixels; even."""


@command
def main() -> None:
    given = parse(MotionsOptions)
    counts = {"train": given.train, "validation": given.validation, "test": given.test}
    print(write_motions(given.folder, seed=given.seed, size=given.size, progress=True, **counts))


if __name__ == "__main__":
    main()
