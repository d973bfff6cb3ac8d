"""From a run to answers in two lines, in the shape of transformers' pipelines.

    classify = common.pipeline("runs/photos")
    classify("photo.jpg", top_k=3)                        # [{"label": "resistor", "score": 0.91}, …]

Belongs here: what the pipelines of all tasks share, and that of image runs. Those of questions and of clips are
`vqa/pipelines.py`'s and `video/pipelines.py`'s. They are not transformers' own class, whose tokenizers and image
processors these models do not have.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from common.classifier import ImageClassifier
from common.classifier_predict import load_classifier, photo_views
from common.errors import UserError
from common.hub import HUB_NAME, download
from common.images import as_photo, to_tensor
from common.pretrained import find_checkpoint

TOP_K = 5  # as in transformers

PhotoLike = str | Path | bytes | Image.Image


def checkpoint_of(run: str | Path, checkpoint: str | None, *, task: str) -> Path:
    """The checkpoint of a run directory, of a shared folder, or of a name on the Hub. Raises `UserError`."""
    if not Path(run).exists():
        if not HUB_NAME.fullmatch(str(run)):
            raise UserError(f"{run}: there is no such run, and it is no name on the Hub (you/name)")
        run = download(str(run))
    return find_checkpoint(run, checkpoint, task=task)


def ranked(
    probabilities: torch.Tensor, names: Sequence[str], top_k: int | None, *, key: str = "label"
) -> list[dict[str, Any]]:
    """`probabilities (classes,)` → the `top_k` best (None: all) as `{key: name, "score": probability}`, best first.

    Raises `UserError` for a `top_k` below 1.
    """
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k {top_k}: give 1 or more, or None for all")
    values, places = probabilities.topk(min(top_k or len(names), len(names)))
    return [{key: names[place], "score": value} for value, place in zip(values.tolist(), places.tolist(), strict=True)]


def check_batch_size(batch_size: int) -> None:
    """Raises `UserError` for one below 1."""
    if batch_size < 1:
        raise UserError(f"batch_size {batch_size}: give 1 or more")


class ImagePipeline:
    """Classifies photos with a checkpoint of an image run."""

    def __init__(self, model: ImageClassifier) -> None:
        self.model = model

    @classmethod
    def from_pretrained(cls, run: str | Path, *, checkpoint: str | None = None) -> Self:
        """`run`: a run directory, a shared folder, or a name on the Hub. Raises `UserError`."""
        return cls(load_classifier(checkpoint_of(run, checkpoint, task="image")))

    @torch.inference_mode()
    def __call__(
        self, images: PhotoLike | Sequence[PhotoLike], *, top_k: int | None = TOP_K, batch_size: int = 16
    ) -> list[Any]:
        """A photo (path, bytes of its file, or Pillow's picture) → `[{"label": …, "score": …}, …]`, best first.

        A list of photos → a list of such lists, `batch_size` computed at a time. Raises `UserError` for a bad photo.
        """
        check_batch_size(batch_size)
        single = isinstance(images, PhotoLike)
        photos = [images] if isinstance(images, PhotoLike) else list(images)
        preprocessing, found = photo_views(self.model).preprocessing, []
        for start in range(0, len(photos), batch_size):
            views = [to_tensor(as_photo(photo), preprocessing)[0] for photo in photos[start : start + batch_size]]
            logits = self.model(pixels=torch.stack(views).to(self.model.device)).logits
            found += [ranked(row, self.model.config.classes, top_k) for row in logits.float().softmax(dim=-1).cpu()]
        return found[0] if single else found
