"""Random training views of a clip: what varies from frame to frame, and what has to stay for the whole clip.

Belongs here: torchvision's transforms, and over which frames of a clip one draw of them holds. Does not belong here:
which clips are varied and how often (`video/batches.py`), and the chance itself (`common.images.seeded`).

Crop and flip are one draw for a clip, always: where they changed from frame to frame, the picture would jump, and no
motion would be left to learn from. Color and erase may be drawn for each frame or once for the clip (`per`); blur has
nothing to draw. A mirrored clip shows the opposite motion, so "flip" has no place where left and right are classes.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torchvision.transforms import v2

from common.errors import UserError
from common.images import seeded

AUGMENTATIONS = ("crop", "flip", "color", "blur", "erase")
PER = ("clip", "frame")
ONE_DRAW = ("crop", "flip")
"""Those that all frames of a clip share, whatever `per` says."""


def transforms(size: int) -> dict[str, v2.Transform]:
    """Every augmentation by its name, for frames of `size` pixels, in the order in which they are applied.

    Blur and erase are report R0's, in its order: the edges of an erased (black) box stay sharp.
    """
    return {
        "crop": v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True),
        "flip": v2.RandomHorizontalFlip(p=0.5),
        "color": v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        "blur": v2.GaussianBlur(kernel_size=11, sigma=1.0),
        "erase": v2.RandomErasing(p=0.5, scale=(0.01, 0.1), ratio=(1, 1)),
    }


def augment_clip(
    frames: torch.Tensor, names: Sequence[str], *, per: Literal["clip", "frame"], seed: tuple[int, ...]
) -> torch.Tensor:
    """A random view of a clip's frames `(T, 3, S, S)` uint8, of the same shape and type; `frames` stays as it is.

    `names` are some of `AUGMENTATIONS`, applied in that order, whatever order they are given in. `per` is how often
    color and erase are drawn: "frame" for every frame anew, as report R0 does it; "clip" once, so that all frames have
    the same colours and the same box. Crop and flip are drawn once in either case. The same arguments give the same
    view, and torch's own chance goes on undisturbed. Raises `UserError` for an unknown name or `per`, and for frames
    too small to be blurred.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise UserError(f"unknown augmentation {name!r} of clips; allowed: {', '.join(AUGMENTATIONS)}")
    if per not in PER:
        raise UserError(f"augmentation per {per!r}: allowed are {', '.join(PER)}")
    if frames.dtype != torch.uint8 or frames.ndim != 4:
        raise TypeError(f"augment_clip takes frames (T, 3, S, S) uint8, not {tuple(frames.shape)} {frames.dtype}")
    size = frames.shape[-1]
    known = {name: transform for name, transform in transforms(size).items() if name in names}
    if "blur" in known and size <= (margin := known["blur"].kernel_size[0] // 2):
        raise UserError(f"augmentation blur needs frames of more than {margin} pixels a side, these have {size}")
    shared = [transform for name, transform in known.items() if per == "clip" or name in ONE_DRAW]
    own = [transform for transform in known.values() if transform not in shared]
    view = torch.empty_like(frames)
    # Frame by frame, because blurring a clip as a whole takes several times its memory, and longer. Each begins with
    # the same chance, which makes one draw hold for all.
    for number, frame in enumerate(frames):
        with seeded(seed):
            for transform in shared:
                frame = transform(frame)
        with seeded((*seed, number)):
            for transform in own:
                frame = transform(frame)
        view[number] = frame
    return view
