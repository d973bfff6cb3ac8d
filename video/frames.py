"""Sampled, augmented frames of clips, as the cache of features and the batches take them.

Belongs here: from a clip's file and a view number to uint8 squares. Does not belong here: reading files
(`video/decode.py`), which frames (`video/sampling.py`), what is varied (`video/augment.py`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from common.images import Preprocessing
from video.augment import augment_clip
from video.decode import read_clip
from video.options import FrameOptions
from video.pixels import PIXELS
from video.sampling import Sampling

ClipView = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A `common.features.View` of a clip, which says in any case which frames stand where."""


@dataclass(frozen=True, kw_only=True)
class ClipViews:
    """Clips as an encoder wants them (see `common.features.ViewSource`).

    View 0 is plain; of the others the chance comes from the clip's hash and the view's number alone, so that a view is
    the same whenever it is asked for. With sampling "random" each of them has frames of its own.
    """

    sampling: Sampling
    preprocessing: Preprocessing
    augmentation: Sequence[str] = ()
    per: Literal["clip", "frame"] = "clip"
    unit: str = "clip"

    @property
    def frames(self) -> int:
        return self.sampling.max_frames if self.sampling.kind == "all" else self.sampling.frames

    @property
    def about(self) -> dict[str, Any]:
        about: dict[str, Any] = {"sampling": asdict(self.sampling), "preprocessing": asdict(self.preprocessing)}
        per = self.per if self.augmentation else "clip"  # of nothing that is varied
        return about | {"augmentation": list(self.augmentation), "per": per, "pixels": PIXELS}

    def load(self, path: str, digest: str, view: int) -> ClipView:
        """→ different frames `(U, 3, S, S)` uint8, the valid part (all), and which of them stand where, `(T,)`."""
        seed = (int(digest[:15], 16), view)
        clip = read_clip(
            path,
            self.sampling,
            size=self.preprocessing.size,
            resize=self.preprocessing.resize,
            generator=np.random.default_rng(seed) if view else None,
        )
        frames, places = clip.frames, clip.places
        if view and self.augmentation:
            if self.per == "frame" and len(places) != len(frames):  # a frame that comes twice is varied twice
                frames, places = frames[places], torch.arange(len(places))
            frames = augment_clip(frames, self.augmentation, per=self.per, seed=seed)
        return frames, torch.tensor([0.0, 0.0, 1.0, 1.0]), places


def sampling_of(options: FrameOptions) -> Sampling:
    """The sampling that these options describe."""
    return Sampling(
        kind=options.sampling,
        frames=options.frames,
        stride=options.stride,
        short=options.short,
        max_frames=options.max_frames,
    )


def shuffled(length: int, digest: str, draw: int) -> torch.Tensor:
    """An order of a clip's frames `(length,)` that follows from its hash (hex) and the draw alone."""
    order = np.random.default_rng([int(digest[:15], 16), draw]).permutation(length)
    return torch.from_numpy(order)
