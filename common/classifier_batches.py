"""Photos as batches: pixels, or the features that were cached of them, and the class of each.

Belongs here: the dataset that the shared loop trains on and scores. Where photos come from is
`common/classifier_data.py`'s.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import torch

from common.batches import Key
from common.features import FeatureStore, PhotoViews


class ImageBatches:
    """The photos of one split (see `common.batches.BatchSource`).

    They come from `store`, the cache of what frozen stages make of them, or else are decoded when asked for. `views`:
    how many views of a photo the store holds, of which training draws one an epoch; without a store every draw is a
    new view, if `source` augments.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        classes: Sequence[str],
        *,
        source: PhotoViews,
        store: FeatureStore | None = None,
        views: int = 1,
    ) -> None:
        self.rows, self.source, self.store, self.views = rows, source, store, views
        self.samples = len(rows)
        index = {name: place for place, name in enumerate(classes)}
        self.labels = torch.tensor([index[label] for label in rows["label"][:]])
        self.paths, self.hashes = rows["image"][:], rows["hash"][:]

    def __len__(self) -> int:
        return self.samples

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, Any]:
        photos = torch.tensor([item for item, _ in keys])
        batch = {"labels": self.labels[photos], "index": photos}
        if self.store is not None:
            features, _ = self.store.take([(self.hashes[item], draw % self.views) for item, draw in keys])
            return batch | {"inputs": {"features": features}}
        varied = bool(self.source.augmentation)
        loaded = [self.source.load(self.paths[item], self.hashes[item], draw if varied else 0) for item, draw in keys]
        return batch | {"inputs": {"pixels": torch.cat([pixels for pixels, _, _ in loaded])}}
