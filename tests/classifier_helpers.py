"""What the tests of the image head share: photos that a colour tells apart, in folders per class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["blue_thing", "green_thing", "red_thing"]
_PLACES = {"red_thing": 0, "green_thing": 1, "blue_thing": 2}


def write_photo(path: Path, seed: int, *, place: int = 0) -> Path:
    """A photo of noise in which one colour (0 red, 1 green, 2 blue) is strong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 60, (36, 40, 3), dtype=np.uint8)
    pixels[..., place] += 150
    Image.fromarray(pixels).save(path, quality=95)
    return path


def write_folder(
    folder: Path, *, splits: Sequence[str] = ("",), each: int = 4, classes: Sequence[str] = CLASSES
) -> Path:
    """A folder per class, with or without splits."""
    seed = 0
    for split in splits:
        for label in classes:
            for number in range(each):
                write_photo(folder / split / label / f"{label}_{number}.jpg", seed, place=_PLACES[label])
                seed += 1
    return folder
