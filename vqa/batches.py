"""Questions as batches of photos: each photo once, with all its questions.

Belongs here: the dataset that the shared loop trains on and scores. Reading files is `vqa/data.py`'s.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch

from common.batches import Key
from common.features import FeatureStore, load_view
from common.images import augment
from vqa.processor import VqaProcessor

_MOST_QUESTIONS = 64  # per item: a photo with more comes as several items, so that no step outgrows the memory


class QuestionBatches:
    """The questions of one split, grouped by photo (see `common.batches.BatchSource`).

    Photos come from `store`, the cache of a frozen encoder's features, or else are decoded when asked for. `views` is
    how many views of a photo the store holds; with `augmentation` and no store, every draw is a new view.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        processor: VqaProcessor,
        *,
        store: FeatureStore | None = None,
        views: int = 1,
        augmentation: Sequence[str] = (),
    ) -> None:
        self.rows, self.samples = rows, len(rows)
        self.store, self.views, self.preprocessing = store, views, processor.preprocessing
        self.augmentation = augment(augmentation, self.preprocessing) if augmentation and store is None else None
        encoded = processor.questions(rows["question"][:])
        self.input_ids, self.lengths = encoded["input_ids"], encoded["lengths"]
        self.labels = torch.tensor(processor.answers.encode(rows["answer"][:]))
        self.paths, self.hashes = rows["image"][:], rows["image_hash"][:]
        together: dict[str, list[int]] = {}
        for row, key in enumerate(zip(self.hashes, rows["group"][:], strict=True)):
            together.setdefault(key[0] or key[1], []).append(row)
        self.items = [
            np.array(part[start : start + _MOST_QUESTIONS])
            for part in together.values()
            for start in range(0, len(part), _MOST_QUESTIONS)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, Any]:
        groups = [self.items[item] for item, _ in keys]
        rows = torch.from_numpy(np.concatenate(groups))
        lengths = self.lengths[rows]
        inputs = {"input_ids": self.input_ids[rows, : int(lengths.max())], "lengths": lengths}
        if self.preprocessing is not None:
            inputs["image_index"] = torch.from_numpy(
                np.repeat(np.arange(len(groups)), [len(group) for group in groups])
            )
            inputs |= self._photos([(int(group[0]), draw) for group, (_, draw) in zip(groups, keys, strict=True)])
        return {"inputs": inputs, "labels": self.labels[rows], "index": rows}

    def _photos(self, rows: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        if self.store is not None:
            features, valid = self.store.take([(self.hashes[row], draw % self.views) for row, draw in rows])
            return {"features": features, "valid": valid}
        views = [
            load_view(
                self.paths[row], draw, self.preprocessing, self.augmentation, (int(self.hashes[row][:15], 16), draw)
            )
            for row, draw in rows
        ]
        return {
            "pixels": torch.stack([pixels for pixels, _ in views]),
            "valid": torch.stack([valid for _, valid in views]),
        }
