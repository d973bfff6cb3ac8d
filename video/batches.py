"""Clips as batches: frames or features of each, one after another, and how many each has.

Belongs here: the dataset that the shared loop trains on and scores. Where clips come from is `video/data.py`'s, their
frames are `video/frames.py`'s.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch

from common.batches import Key
from common.features import FeatureStore
from video.frames import ClipView, ClipViews, shuffled
from video.stored import StoredFeatures


class ClipBatches:
    """The clips of one split (see `common.batches.BatchSource`).

    Frames come from `store`, the cache of a frozen encoder's features, from `stored`, features someone computed before,
    or else are decoded when asked for. `views`: how many views of a clip the store holds, of which training draws one
    an epoch; without a store every draw is a new view, if anything is varied. `copies`: each clip is there so many
    times more, in a view of its own. `varied`: whether views differ at all.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        classes: Sequence[str],
        *,
        source: ClipViews | None = None,
        store: FeatureStore | None = None,
        stored: StoredFeatures | None = None,
        views: int = 1,
        copies: int = 0,
        varied: bool = False,
        order: str = "kept",
    ) -> None:
        self.rows, self.source, self.store, self.stored = rows, source, store, stored
        self.views, self.copies, self.varied, self.order = views, copies, varied, order
        self.samples = len(rows) * (1 + copies)
        index = {name: place for place, name in enumerate(classes)}
        self.labels = torch.tensor([index.get(label, -1) for label in rows["label"][:]])
        self.paths, self.hashes = rows["path"][:], rows["hash"][:]
        self.places = rows["place"][:] if stored is not None else []

    def __len__(self) -> int:
        return self.samples

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, Any]:
        clips = [item % len(self.rows) for item, _ in keys]
        views = [self._view(item, draw) for item, draw in keys]
        inputs = self._inputs(clips, views)
        if self.order == "shuffled":
            inputs["order"] = self._orders(clips, [draw for _, draw in keys], inputs["lengths"].tolist())
        index = torch.tensor([item for item, _ in keys])
        return {"inputs": inputs, "labels": self.labels[clips], "index": index}

    def _view(self, item: int, draw: int) -> int:
        """The view that an item shows. Where there are copies, number 0 is the plain clip; each other has its own."""
        copy = item // len(self.rows)
        if self.copies:
            return copy if self.store is not None or not copy else draw
        if self.store is not None:
            return draw % self.views
        return draw if self.varied else 0

    def _inputs(self, clips: Sequence[int], views: Sequence[int]) -> dict[str, torch.Tensor]:
        if self.stored is not None:
            parts = [self.stored[self.places[clip]] for clip in clips]
            return {"features": torch.cat(parts), "lengths": torch.tensor([len(part) for part in parts])}
        rows = [(self.hashes[clip], view) for clip, view in zip(clips, views, strict=True)]
        if self.store is not None:
            features, lengths = self.store.take_clips(rows)
            return {"features": features, "lengths": lengths}
        assert self.source is not None  # there are clips, or features of them
        return join_views([self.source.load(self.paths[clip], *row) for clip, row in zip(clips, rows, strict=True)])

    def _orders(self, clips: Sequence[int], draws: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        firsts = np.cumsum([0, *lengths[:-1]])
        return torch.cat(
            [
                int(first) + shuffled(length, self.hashes[clip], draw)
                for first, length, clip, draw in zip(firsts, lengths, clips, draws, strict=True)
            ]
        )


def join_views(views: Sequence[ClipView]) -> dict[str, torch.Tensor]:
    """What `ClipViews.load` gave of several clips, as inputs of the model."""
    firsts = np.cumsum([0] + [len(frames) for frames, _, _ in views[:-1]])
    return {
        "pixels": torch.cat([frames for frames, _, _ in views]),
        "places": torch.cat([places + int(first) for first, (_, _, places) in zip(firsts, views, strict=True)]),
        "lengths": torch.tensor([len(places) for _, _, places in views]),
    }
