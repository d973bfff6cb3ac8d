"""Photos that are nearly the same: the same picture at another size, compression or brightness.

Belongs here: what two photos are compared by, and groups of those that are alike. Does not belong here: what a group is
for (`common/splits.py`), and exact copies, which a hash of the bytes finds (`common/images.py`).

Two photos are alike if their perceptual hashes (pHash of the library imagehash: the signs of 64 low frequencies around
their median) differ in at most so many bits, and no cell of their 4 x 4 grids of mean colours by more than 48 of 256
levels: of photos without structure, such as plain backgrounds, the first says nothing. It finds neither mirror images,
nor crops, nor other views of the same thing: for those give groups yourself.
"""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from common.images import read_image

BITS = 64
MOST_COLOR = 48  # levels of 256
_SIDE = 4
_BLOCK = 1024  # photos compared with all others at once: bounds the memory


def near_duplicate_groups(paths: Sequence[str], contents: Sequence[str], *, bits: int) -> list[str]:
    """For each photo the name of its group: those linked by pairs that differ in at most `bits` of 64.

    `contents` are the hashes of the photos' bytes; a group is named after the smallest of its own, so that names do not
    depend on the order of the photos or on their paths. Raises `UserError` for a photo that cannot be read.
    """
    unique = dict(zip(contents, paths, strict=True))  # copies are read once
    names = sorted(unique)
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        told = pool.map(_looks, [unique[name] for name in names])
        looks = list(tqdm(told, total=len(names), desc="comparing photos", unit="photo", disable=None, leave=False))
    # Of vectors of +1 and -1 the product is 64 less twice the bits that differ.
    signs = np.stack([signs for signs, _ in looks])
    colors = np.stack([colors for _, colors in looks])
    pairs: list[np.ndarray] = []
    for start in range(0, len(names), _BLOCK):
        first, second = np.nonzero((BITS - signs[start : start + _BLOCK] @ signs.T) / 2 <= bits)
        first += start
        first, second = first[first < second], second[first < second]
        alike = np.abs(colors[first] - colors[second]).max(axis=1, initial=0) <= MOST_COLOR
        pairs.append(np.stack([first[alike], second[alike]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    _, smallest = np.unique(component, return_index=True)  # names are sorted: the first is the smallest
    group = {name: names[smallest[component[place]]][:16] for place, name in enumerate(names)}
    return [group[content] for content in contents]


def _looks(path: str) -> tuple[np.ndarray, np.ndarray]:
    """A photo's hash as +1 and -1 `(64,)`, and its mean colours `(48,)`, float32."""
    photo = read_image(path, shrink_to=128)
    bits = imagehash.phash(photo).hash.ravel()
    colors = np.asarray(photo.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32).ravel()
    return np.where(bits, 1, -1).astype(np.float32), colors
