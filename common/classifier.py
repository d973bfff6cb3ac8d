"""The image head: a photo through an encoder, its grid averaged, classes out.

Belongs here: the configuration and the network of a linear probe and of fine-tuning. Encoders are
`common/encoders.py`'s, the layers between AlexNet's grid and its last `common/heads.py`'s, from a file to a class
`common/classifier_predict.py`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from common.encoders import encoder_from_config
from common.errors import UserError
from common.heads import OriginalHead
from common.images import Preprocessing, normalise
from common.pretrained import load_whole, needed


class ImageClassifierConfig(PreTrainedConfig):
    """Everything needed to build an `ImageClassifier` and to read a photo for it; nothing of how it is trained."""

    model_type = "hoianh_image"

    def __init__(
        self,
        *,
        encoder: dict[str, Any] | None = None,  # Encoder.config
        preprocessing: dict[str, Any] | None = None,  # what becomes of a photo before the encoder
        classes: Sequence[str] = ("0", "1"),
        pool: int = 1,
        fully_connected: bool = False,
        dropout: float = 0.0,
        **keywords: Any,
    ) -> None:
        if not classes or not all(isinstance(name, str) for name in classes):
            raise UserError(f"classes {list(classes)[:5]}: must be names")
        self.encoder, self.preprocessing, self.classes = encoder, preprocessing, list(classes)
        self.pool, self.fully_connected, self.dropout = pool, fully_connected, dropout
        super().__init__(**keywords)


@dataclass
class ImageOutput(ModelOutput):
    """`logits (N, classes)`."""

    logits: torch.Tensor | None = None


class ImageClassifier(PreTrainedModel):
    """Classifies photos: encoder → mean of the grid (or of each of its `pool` × `pool` parts) → dropout → linear.

    With `fully_connected` AlexNet's and VGG16's own layers stand between (report R3 replaces only their last one). They
    are trained if any of the encoder is; their dropout is on in training either way.
    """

    config_class = ImageClassifierConfig
    config: ImageClassifierConfig
    main_input_name = "pixels"

    def __init__(self, config: ImageClassifierConfig) -> None:
        super().__init__(config)
        if config.encoder is None or config.preprocessing is None:
            raise UserError("the configuration lacks an encoder, or the preprocessing of its photos")
        with torch.random.fork_rng(devices=[]):  # whatever the encoder draws, the last layer starts alike
            self.encoder = encoder_from_config(config.encoder)
            self.encoder_head = OriginalHead(config.encoder["name"], last=False) if config.fully_connected else None
        self._preprocessing = Preprocessing(**config.preprocessing)
        size = self.encoder.channels * config.pool**2
        if self.encoder_head is not None:
            self.encoder_head.requires_grad_(config.encoder["train_from"] != "none")
            size = self.encoder_head.size
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(size, len(config.classes))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave every layer as PyTorch and torchvision initialise it (the base class would draw N(0, 0.02) over it)."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, **keywords: Any) -> Any:
        """As in transformers, but a checkpoint with missing or unfitting weights is refused, not filled at random."""
        return load_whole(super().from_pretrained, *arguments, **keywords)

    @property
    def pool(self) -> int:
        """Cells a side that the grid is averaged to; features that are cached have so many, `(N, C·pool²)`."""
        return self.config.pool if self.encoder_head is None else self.encoder_head.pool

    def forward(self, pixels: torch.Tensor | None = None, features: torch.Tensor | None = None) -> ImageOutput:
        """Score every class for `pixels (N, 3, S, S)` uint8, or for the cache's `features`.

        These are `(N, C·pool²)` of a frozen encoder, else what its frozen stages made of the photos, `(N, D)`.
        """
        if features is None:
            x = self._pooled(self.encoder(normalise(needed(pixels, "pixels or features"), self._preprocessing)))
        elif self.encoder.frozen_part == "some":
            x = self._pooled(self.encoder.finish(features.to(self.classifier.weight.dtype), self._preprocessing.size))
        else:
            x = features
        x = x.to(self.classifier.weight.dtype)
        if self.encoder_head is not None:
            x = self.encoder_head(x)
        return ImageOutput(logits=self.classifier(self.dropout(x)))

    def _pooled(self, grid: torch.Tensor) -> torch.Tensor:
        return adaptive_avg_pool2d(grid.float(), self.pool).flatten(1)
