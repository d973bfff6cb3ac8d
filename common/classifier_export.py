"""Image runs to share: what is said of them, and the classifier as ONNX.

Belongs here: from a checkpoint to `common.export.Shareable`. The network is `common/classifier.py`'s.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from common.classifier import ImageClassifier
from common.classifier_options import TrainImageOptions
from common.classifier_predict import load_classifier, photo_views
from common.classifier_scoring import load_source
from common.config import build
from common.errors import UserError
from common.export import Onnx, Shareable
from common.export_card import About, Left
from common.export_onnx import Inputs, OnnxModel
from common.export_photos import IMPORTS, OPEN, about_photo, photo_lines, spread
from common.images import read_image, to_tensor
from common.runs import cache_directory

USE = """import common

classify = common.pipeline("FOLDER")
print(classify("photo.jpg", top_k=3))"""
_PHOTOS = 8  # that the check reads


def open_shareable(left: Left, checkpoint: Path) -> Shareable:
    """A checkpoint of an image run, to be shared. Raises `UserError` for a damaged one."""
    model = load_classifier(checkpoint).cpu()
    config, classes = model.config, model.config.classes
    assert config.encoder is not None  # or the model had not been built
    about = About(
        task="image-classification",
        what=f"A photo goes through {config.encoder['name']}, the mean of its grid through a linear layer; out "
        f"comes one of {len(classes)} classes: {', '.join(classes[:20])}{' …' * (len(classes) > 20)}.",
        made_up="not named",
        use=USE,
        limits=["Every photo gets one of the classes, whatever it shows."],
    )
    return Shareable(about=about, save=model.save_pretrained, onnx=lambda: _onnx(model, left))


class _Classifier(nn.Module):
    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.model(pixels=pixels).logits,)


def _onnx(model: ImageClassifier, left: Left) -> Onnx:
    preprocessing = photo_views(model).preprocessing
    lines = [
        *IMPORTS,
        "",
        *OPEN,
        *photo_lines(preprocessing),
        'logits = session.run(["logits"], {"pixels": pixels})[0][0]',
        'print(about["classes"][logits.argmax()])',
    ]
    samples, said = _samples(model, left)
    wrapped = _Classifier(model)
    return Onnx(
        model=OnnxModel(
            module=wrapped,
            inputs={"pixels": {0: "photos"}},
            outputs=["logits"],
            reference=lambda inputs: wrapped(**inputs),
            samples=samples,
            about_samples=said,
        ),
        description={
            "inputs": {"pixels": "(photos, 3, size, size) uint8"},
            "outputs": {"logits": "(photos, classes) float32, before the soft-max"},
            "photo": about_photo(preprocessing),
            "classes": model.config.classes,
        },
        use="\n".join(lines),
    )


def _samples(model: ImageClassifier, left: Left) -> tuple[Sequence[Inputs], str]:
    """Batches of photos of the run's own validation split; of noise, if these are not here."""
    size = photo_views(model).preprocessing.size
    try:
        options = build(TrainImageOptions, left.config, where=str(left.path / "config.yaml"))
        photos = load_source(options, cache_directory(options.cache)).splits["validation"]["image"][:]
        views = [
            to_tensor(read_image(photos[place]), photo_views(model).preprocessing)[0]
            for place in spread(len(photos), _PHOTOS)
        ]
        pixels, said = torch.stack(views), "photos of validation"
    except (UserError, KeyError):
        noise = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (_PHOTOS, 3, size, size), dtype=torch.uint8, generator=noise)
        said = "noise, as the run's photos were not here"
    return [{"pixels": pixels[:count]} for count in sorted({1, min(3, len(pixels)), len(pixels)})], said
