"""The model: frames through an encoder, their features through a recurrent net (or a plain mean), classes out.

Belongs here: the configuration and the network. Reports R0, R1 and R2 are settings of it (`configs/video/`); so are the
rows that keep them honest: mean, maximum, last frame. Encoders are `common/encoders.py`'s, recurrent nets
`common/recurrent.py`'s, from a file to a class `video/predict.py`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from common.encoders import encoder_from_config
from common.errors import UserError
from common.images import Preprocessing, normalise
from common.pretrained import load_whole, needed
from common.recurrent import KINDS, Recurrent, keras_initialise, time_mask

HEADS = (*KINDS, "mean", "max", "last")
READOUTS = ("last", "mean", "max", "attention")
INITIALISATIONS = ("pytorch", "keras")
_FRAMES = 64  # that a frozen encoder sees at once


class VideoConfig(PreTrainedConfig):
    """Everything needed to build a `VideoModel` and to read a clip for it, and nothing of how it is trained."""

    model_type = "hoianh_video"

    def __init__(
        self,
        *,
        encoder: dict[str, Any] | None = None,  # Encoder.config; None for features that someone computed before
        features: int = 1,  # without an encoder: numbers per frame
        preprocessing: dict[str, Any] | None = None,  # what becomes of a frame before the encoder
        sampling: dict[str, Any] | None = None,  # which frames of a clip, in scoring
        frame_order: str = "kept",
        classes: Sequence[str] = ("0", "1"),
        pool: int = 1,
        projection: int = 0,
        difference: bool = False,
        feature_norm: bool = False,
        head: str = "lstm",
        hidden: int = 128,
        layers: int = 1,
        bidirectional: bool = False,
        readout: str = "last",
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        initialisation: str = "pytorch",
        **keywords: Any,
    ) -> None:
        for name, value, allowed in (
            ("head", head, HEADS),
            ("readout", readout, READOUTS),
            ("initialisation", initialisation, INITIALISATIONS),
            ("frame_order", frame_order, ("kept", "shuffled")),
        ):
            if value not in allowed:
                raise UserError(f"unknown {name} '{value}'; allowed: {', '.join(allowed)}")
        if not classes or not all(isinstance(name, str) for name in classes):
            raise UserError(f"classes {list(classes)[:5]}: must be names")
        self.encoder, self.features, self.preprocessing = encoder, features, preprocessing
        self.sampling, self.frame_order, self.classes = sampling, frame_order, list(classes)
        self.pool, self.projection = pool, projection
        self.difference, self.feature_norm = difference, feature_norm
        self.head, self.hidden, self.layers, self.bidirectional = head, hidden, layers, bidirectional
        self.readout, self.input_dropout, self.dropout = readout, input_dropout, dropout
        self.initialisation = initialisation
        super().__init__(**keywords)


@dataclass
class VideoOutput(ModelOutput):
    """`logits (B, classes)`; with temporal attention `attention (B, T)`, which sums to 1 over a clip's own frames."""

    logits: torch.Tensor | None = None
    attention: torch.Tensor | None = None


class VideoModel(PreTrainedModel):
    """Classifies clips: encoder per frame → RNN | GRU | LSTM → last valid state | mean | attention → linear.

    Heads without a recurrent net: "mean" and "max" over the frames, "last" the last frame alone. What pads a batch
    never changes a logit.
    """

    config_class = VideoConfig
    config: VideoConfig
    main_input_name = "features"

    def __init__(self, config: VideoConfig) -> None:
        super().__init__(config)
        size = config.features
        if config.encoder is not None:
            if config.preprocessing is None:
                raise UserError("the configuration lacks the preprocessing of its encoder's frames")
            with torch.random.fork_rng(devices=[]):  # the head starts alike with clips and with features of them
                self.encoder = encoder_from_config(config.encoder)
            self._preprocessing = Preprocessing(**config.preprocessing)
            size = self.encoder.channels * config.pool**2
        size *= 1 + config.difference
        self.norm = nn.LayerNorm(size) if config.feature_norm else nn.Identity()
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.project = nn.Linear(size, config.projection) if config.projection else nn.Identity()
        size = config.projection or size
        if config.head in KINDS:
            self.recurrent = Recurrent(
                config.head,
                size,
                config.hidden,
                layers=config.layers,
                bidirectional=config.bidirectional,
                dropout=config.dropout,
            )
            size = self.recurrent.size
            if config.readout == "attention":
                self.attention = TemporalAttention(size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(size, len(config.classes))
        if config.initialisation == "keras":
            keras_initialise(self.head)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave every layer as PyTorch and torchvision initialise it (the base class would draw N(0, 0.02) over it)."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, **keywords: Any) -> Any:
        """As in transformers, but a checkpoint with missing or unfitting weights is refused, not filled at random."""
        return load_whole(super().from_pretrained, *arguments, **keywords)

    @property
    def head(self) -> nn.ModuleDict:
        """Everything but the encoder: what Keras's count of report R2 counts."""
        return nn.ModuleDict({name: module for name, module in self.named_children() if name != "encoder"})

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Frames `(F, 3, S, S)` uint8 → features `(F, C·pool²)`."""
        # What is trained needs all its frames for the gradient; what is not, a few at a time in bounded memory.
        some = _FRAMES if self.encoder.frozen_part == "all" or not torch.is_grad_enabled() else len(pixels)
        parts = [self.encoder(normalise(part, self._preprocessing)) for part in pixels.split(some)]
        return torch.cat([self._pooled(grid) for grid in parts])

    def _pooled(self, grid: torch.Tensor) -> torch.Tensor:
        return adaptive_avg_pool2d(grid.float(), self.config.pool).flatten(1)

    def forward(
        self,
        lengths: torch.Tensor,
        features: torch.Tensor | None = None,
        pixels: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
        order: torch.Tensor | None = None,
    ) -> VideoOutput:
        """Score every class for B clips of `lengths (B,)` ≥ 1 frames, together F.

        The clips come one after another, unpadded: as `features (F, D)`, from a file or the cache, or what the frozen
        stages made of them; or padded, `(B, T, D)` (with anything). Or as `pixels (U, 3, S, S)` uint8, of which
        `places (F,)` (default: all in order) says which frame stands where. `order (F,)`: the frames in another order.
        """
        if features is None:
            features = self.encode(needed(pixels, "pixels or features"))
            features = features if places is None else features[places]
        elif features.ndim == 3:
            features = features[time_mask(lengths, features.shape[1])]
        elif self.config.encoder is not None and self.encoder.frozen_part == "some":
            grid = self.encoder.finish(features.to(self.classifier.weight.dtype), self._preprocessing.size)
            features = self._pooled(grid)
        features = features.to(self.classifier.weight.dtype)
        if order is not None:
            features = features[order]
        if self.config.difference:
            features = torch.cat([features, changes(features, lengths)], dim=-1)
        features = self.project(self.input_dropout(self.norm(features)))  # (F, D)
        mask = time_mask(lengths, int(lengths.max()))  # (B, T)
        sequences = features.new_zeros(*mask.shape, features.shape[-1])
        sequences[mask] = features
        return self.classify(sequences, lengths, mask)

    def classify(self, sequences: torch.Tensor, lengths: torch.Tensor, mask: torch.Tensor) -> VideoOutput:
        """Score every class for projected features `(B, T, D)` that are zero beyond `lengths (B,)`, where `mask (B, T)`
        is false."""
        weights = None
        if self.config.head in KINDS:
            sequences, final = self.recurrent(sequences, lengths)
        else:
            final = sequences[torch.arange(len(sequences), device=lengths.device), lengths - 1]
        readout = self.config.readout if self.config.head in KINDS else self.config.head
        if readout == "max":
            final = sequences.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(dim=1)
        elif readout == "mean":
            final = sequences.sum(dim=1) / lengths.unsqueeze(-1)  # zero beyond a clip's end
        elif readout == "attention":
            final, weights = self.attention(sequences, mask)
        return VideoOutput(logits=self.classifier(self.dropout(final)), attention=weights)


def changes(features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """`features (F, D)` of clips of `lengths (B,)`, one after another → what each frame's differ by from those of the
    frame before, `(F, D)`; zero for a clip's first."""
    differences = features - features.roll(1, dims=0)
    firsts = lengths.cumsum(0) - lengths
    return differences.index_fill(0, firsts, 0.0)


class TemporalAttention(nn.Module):
    """A weighted mean of states, w · tanh(W h) scoring each: the states ask nothing but themselves (Yang et al., NAACL
    2016), as over the frames in Aktı et al., IPTA 2019."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(size, size)
        self.score = nn.Linear(size, 1, bias=False)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`states (B, T, D)`, `mask (B, T)` true where there is a frame → `(B, D)`, weights `(B, T)`."""
        scores = self.score(self.hidden(states).tanh()).squeeze(-1).float()
        weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
        return einsum(weights.to(states), states, "b t, b t d -> b d"), weights
