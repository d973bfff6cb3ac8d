"""The embedded data set: Vietnamese questions about coloured shapes, so that the first command trains with no data.

    python -m vqa.shapes FOLDER            # 2,000 + 300 + 500 scenes of 64 x 64 pixels, about 21,000 questions

Belongs here: which scenes a split has, and writing them in the ordinary data contract. Does not belong here: composing,
drawing and asking about one scene (`vqa/scenes.py`), nor reading the set back; `vqa/data.py` reads it like anybody's
data.

It exists to show what attention over a grid is for: more than half of the questions need WHERE (the colour of what is
in the upper left corner, the corner in which the red circle is), which a mean over the grid throws away.
"""

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

from common.config import options, parse, positional
from common.errors import UserError, command
from common.folders import write_folder
from vqa.scenes import Question, Scene, ask, draw, make_scene

VERSION = 1  # part of the cache folder's name: raise it whenever the same parameters would give other bytes

SPLITS = ("train", "validation", "test")
COLUMNS = ("image", "group", "question", "answer", "type", "boxes")
MOST_SCENES = 100_000  # of a split: names of scenes are split * MOST_SCENES + index, whatever the other splits' counts
SIZES = (32, 512)  # of an image, pixels


def scenes(split: str, count: int, *, seed: int = 0) -> Iterator[tuple[Scene, list[Question]]]:
    """The first `count` scenes of a split with their questions: the same ones whatever the other splits hold."""
    for index in range(count):
        rng = random.Random(f"{seed} {split} {index}")  # a string is hashed by SHA-512, not by the salted hash()
        scene = make_scene(rng)
        yield scene, ask(scene, rng)


def write_shapes(
    directory: str | Path,
    *,
    seed: int = 0,
    train: int = 2000,
    validation: int = 300,
    test: int = 500,
    size: int = 64,
    progress: bool = False,
) -> Path:
    """Write the data set and return its folder: `{train,validation,test}.csv` and `images/*.png`.

    Columns: image, group (one to a scene), question, answer, type (color, shape, place, yes/no, number, comparison)
    and boxes (JSON, [x0, y0, x1, y1] in 0-1 of the things asked about; empty where there is none). `train`,
    `validation` and `test` count scenes, `size` is an image's side in pixels. The same bytes for the same arguments.

    Everything is written beside the folder and renamed at the end: a killed run leaves no half set, and of several
    processes at it the first one's set stays. Raises `UserError` for a count or size out of range, a folder that
    already holds something, and one that cannot be written.
    """
    _check(seed=seed, counts={"train": train, "validation": validation, "test": test}, size=size)
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory}: already holds something; name a new folder or remove this one")
    return _write(directory, seed, {"train": train, "validation": validation, "test": test}, size, progress)


def embedded_shapes(
    cache_directory: str | Path,
    *,
    seed: int = 0,
    train: int = 2000,
    validation: int = 300,
    test: int = 500,
    size: int = 64,
) -> Path:
    """The data set's folder in the cache, written first if it isn't there. Arguments and errors as `write_shapes`."""
    counts = {"train": train, "validation": validation, "test": test}
    _check(seed=seed, counts=counts, size=size)
    directory = Path(cache_directory) / f"shapes-v{VERSION}-seed{seed}-{train}-{validation}-{test}-{size}px"
    return directory if (directory / f"{SPLITS[-1]}.csv").is_file() else _write(directory, seed, counts, size, False)


def _check(*, seed: int, counts: dict[str, int], size: int) -> None:
    if seed < 0:
        raise UserError(f"--seed {seed}: must be 0 or more")
    for split, count in counts.items():
        if not 1 <= count <= MOST_SCENES:
            raise UserError(f"--{split} {count}: a split has 1 to {MOST_SCENES} scenes")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"--size {size}: images have {SIZES[0]} to {SIZES[1]} pixels a side")


def _write(directory: Path, seed: int, counts: dict[str, int], size: int, progress: bool) -> Path:
    def fill(folder: Path) -> None:
        (folder / "images").mkdir()
        for number, split in enumerate(SPLITS):
            _write_split(folder, split, number * MOST_SCENES, scenes(split, counts[split], seed=seed), size)
            if progress:
                print(f"{split}: {counts[split]:,} scenes", flush=True)

    return write_folder(directory, fill, last=f"{SPLITS[-1]}.csv")


def _write_split(folder: Path, split: str, first: int, asked: Iterator, size: int) -> None:
    with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for number, (scene, questions) in enumerate(asked, start=first):
            image = f"images/{number:06d}.png"
            draw(scene, size=size).save(folder / image, compress_level=1)
            for question in questions:
                boxes = json.dumps(question.boxes) if question.boxes else ""
                rows.writerow([image, f"s{number:06d}", question.text, question.answer, question.type, boxes])


@options
class ShapesOptions:
    """Write the embedded data set: Vietnamese questions about coloured shapes.

    python -m vqa.shapes FOLDER --train 2000 --size 64
    """

    folder: str = positional()
    """New folder for the data set."""
    seed: int = 0
    """Which data set of this kind."""
    train: int = 2000
    """Scenes to train on."""
    validation: int = 300
    """Scenes to validate on."""
    test: int = 500
    """Scenes to test on."""
    size: int = 64
    """Side of the images, pixels."""


@command
def main() -> None:
    given = parse(ShapesOptions)
    counts = {"train": given.train, "validation": given.validation, "test": given.test}
    print(write_shapes(given.folder, seed=given.seed, size=given.size, progress=True, **counts))


if __name__ == "__main__":
    main()
