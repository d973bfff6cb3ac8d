"""Questions as batches of photos: each photo once, with all its questions.

Belongs here: the dataset that the shared loop trains on and scores. Reading files is `vqa/data.py`'s.
"""

import copy
from collections.abc import Sequence
from typing import Any, Self

import datasets
import numpy as np
import torch
from einops import rearrange

from common.batches import Key
from common.features import FeatureStore, load_view
from common.symmetry import symmetries
from vqa.controls import exchange_photos
from vqa.processor import VqaProcessor
from vqa.text import speaks_of_sides, turned

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
        self.augmentation = tuple(augmentation)
        # Asked and answered of a photo seen the other way round, "bên trái" is "bên phải": a row of texts for each way.
        ways = symmetries(self.augmentation)
        questions, answers = rows["question"][:], rows["answer"][:]
        if not any(speaks_of_sides(text) for text in {*questions, *answers, *processor.answers.to_list()}):
            ways = ways[:1]
        encoded = processor.questions([turned(text, way) for way in ways for text in questions])
        self.input_ids = rearrange(encoded["input_ids"], "(ways rows) t -> ways rows t", ways=len(ways))
        self.lengths = rearrange(encoded["lengths"], "(ways rows) -> ways rows", ways=len(ways))
        labels = torch.tensor(processor.answers.encode([turned(text, way) for way in ways for text in answers]))
        self.labels = rearrange(labels, "(ways rows) -> ways rows", ways=len(ways))
        self.presence = torch.tensor([*processor.answers.presence(), -1])  # by label, that of an unknown answer last
        self.columns = torch.tensor([processor.answers.turned(way) for way in ways])  # (ways, answers)
        self.paths, self.hashes = rows["image"][:], rows["image_hash"][:]
        self.shown: list[str] | None = None  # the photo of each row, if it is not its own
        together: dict[str, list[int]] = {}
        for row, key in enumerate(zip(self.hashes, rows["group"][:], strict=True)):
            together.setdefault(key[0] or key[1], []).append(row)
        self.items = [
            np.array(part[start : start + _MOST_QUESTIONS])
            for part in together.values()
            for start in range(0, len(part), _MOST_QUESTIONS)
        ]

    def with_shuffled_images(self, seed: int) -> Self:
        """The same questions and answers, each photo exchanged for one of another group (a control).

        Raises `UserError` where that cannot be (see `exchange_photos`).
        """
        shown = exchange_photos(self.hashes, self.rows["group"][:], seed)
        path_of = dict(zip(self.hashes, self.paths, strict=True))
        shuffled = copy.copy(self)
        shuffled.hashes = [shown[digest] for digest in self.hashes]
        shuffled.paths = shuffled.shown = [path_of[digest] for digest in shuffled.hashes]
        return shuffled

    def __len__(self) -> int:
        return len(self.items)

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, Any]:
        groups, views = [self.items[item] for item, _ in keys], [self._view(draw) for _, draw in keys]
        sizes = [len(group) for group in groups]
        rows = torch.from_numpy(np.concatenate(groups))
        ways = torch.from_numpy(np.repeat(np.array(views) % len(self.labels), sizes))
        lengths = self.lengths[ways, rows]
        inputs = {"input_ids": self.input_ids[ways, rows, : int(lengths.max())], "lengths": lengths}
        if self.preprocessing is not None:
            inputs["image_index"] = torch.from_numpy(np.repeat(np.arange(len(groups)), sizes))
            inputs |= self._photos([(int(group[0]), view) for group, view in zip(groups, views, strict=True)])
        # The view that is scored decides how its logits are read: of a mirrored photo, "bên trái" means "bên phải".
        columns = self.columns[views[0] % len(self.columns)]
        labels = self.labels[ways, rows]
        batch = {"inputs": inputs, "labels": labels, "index": rows, "columns": columns}
        return batch | {"auxiliary_labels": self.presence[labels]}

    def _view(self, draw: int) -> int:
        """The view that a draw shows: one of those in the store, or any."""
        if self.store is not None:
            return draw % self.views
        return draw if self.augmentation else 0

    def _photos(self, rows: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        if self.store is not None:
            features, valid = self.store.take([(self.hashes[row], view) for row, view in rows])
            return {"features": features, "valid": valid}
        assert self.preprocessing is not None  # or there would be no photos
        views = [
            load_view(
                self.paths[row], view, self.preprocessing, self.augmentation, (int(self.hashes[row][:15], 16), view)
            )
            for row, view in rows
        ]
        return {
            "pixels": torch.stack([pixels for pixels, _ in views]),
            "valid": torch.stack([valid for _, valid in views]),
        }
