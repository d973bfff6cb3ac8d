"""The model: grid features of a photo and LSTM states of a question, fused with or without attention.

Belongs here: the configuration and the network. Text is in `vqa/text.py`, the encoders in `common/encoders.py`, the
scoring of attention in `vqa/attention.py`, from raw photo and question to answer in `vqa/predict.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum, rearrange
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from common.colors import COLORS
from common.encoders import encoder_from_config
from common.errors import UserError
from common.images import Preprocessing, normalise, valid_cells
from common.recurrent import KINDS, Recurrent, time_mask
from vqa.attention import SCORINGS, Attention

INPUTS = ("both", "question", "image")
ATTENTION_OVER = ("grid", "words", "both")
FUSIONS = ("product", "concat")
_PLACE = 5  # numbers that say where a cell lies
_FOUND = 2  # numbers that say how much of what was asked for there is


class VqaConfig(PreTrainedConfig):
    """Everything needed to build a `VqaModel`, and nothing of how it is trained."""

    model_type = "hoianh_vqa"

    def __init__(
        self,
        *,
        encoder: dict[str, Any] | None = None,  # Encoder.config; None with inputs="question"
        preprocessing: dict[str, Any] | None = None,  # what becomes of a photo before the encoder
        words: int = 2,  # size of the question vocabulary, padding included
        answers: int = 2,  # size of the answer vocabulary
        inputs: str = "both",  # both | question (blind) | image (the question is never read)
        embedding: int = 128,
        recurrent: str = "lstm",
        hidden: int = 256,
        layers: int = 1,
        bidirectional: bool = False,
        attention: bool = True,
        attention_over: str = "grid",  # grid | words | both
        scoring: str = "product",  # product | concat
        glimpses: int = 2,
        attention_hidden: int = 256,
        coordinates: bool = True,
        projection: int = 256,
        fusion: str = "product",  # product | concat
        fusion_hidden: int = 512,
        question_dropout: float = 0.2,
        cell_dropout: float = 0.2,
        attention_dropout: float = 0.2,
        dropout: float = 0.4,
        test_augment: Sequence[str] = (),  # flip, turn: ways round over which `Answerer` and scoring average
        **keywords: Any,
    ) -> None:
        for name, value, allowed in (
            ("inputs", inputs, INPUTS),
            ("recurrent", recurrent, tuple(KINDS)),
            ("attention_over", attention_over, ATTENTION_OVER),
            ("scoring", scoring, SCORINGS),
            ("fusion", fusion, FUSIONS),
        ):
            if value not in allowed:
                raise UserError(f"unknown {name} '{value}'; allowed: {', '.join(allowed)}")
        self.encoder, self.preprocessing = encoder, preprocessing
        self.words, self.answers, self.inputs = words, answers, inputs
        self.embedding, self.recurrent, self.hidden = embedding, recurrent, hidden
        self.layers, self.bidirectional = layers, bidirectional
        self.attention, self.attention_over, self.scoring = attention, attention_over, scoring
        self.glimpses, self.attention_hidden, self.coordinates = glimpses, attention_hidden, coordinates
        self.projection, self.fusion, self.fusion_hidden = projection, fusion, fusion_hidden
        self.question_dropout, self.cell_dropout = question_dropout, cell_dropout
        self.attention_dropout, self.dropout = attention_dropout, dropout
        self.test_augment = list(test_augment)
        super().__init__(**keywords)

    @property
    def attends(self) -> frozenset[str]:
        """What is attended over: a subset of {"grid", "words"}; attention needs both a question and a photo."""
        if not self.attention or self.inputs != "both":
            return frozenset()
        return frozenset({"grid", "words"} if self.attention_over == "both" else {self.attention_over})


@dataclass
class VqaOutput(ModelOutput):
    """`logits (B, answers)`; if asked for, `grid_attention (B, G, h, w)` and `word_attention (B, G, T)`."""

    logits: torch.Tensor | None = None
    grid_attention: torch.Tensor | None = None
    word_attention: torch.Tensor | None = None


class VqaModel(PreTrainedModel):
    """Answers a question about a photo by choosing from the answers seen in training (report R4's model).

    Without attention the mean of the grid is fused with the question's last LSTM state. With attention over the grid,
    the state asks, and G weighted means of the cells answer; over the words, the mean of the grid asks, and G weighted
    means of the LSTM's states become the question; over both, first the words, then the grid (as in the alternating
    co-attention of Lu et al., NeurIPS 2016).
    """

    config_class = VqaConfig
    main_input_name = "input_ids"

    def __init__(self, config: VqaConfig) -> None:
        super().__init__(config)
        attends = config.attends
        if config.inputs != "image":
            self.embedding = nn.Embedding(config.words, config.embedding)
            self.question_dropout = nn.Dropout(config.question_dropout)
            self.recurrent = Recurrent(
                config.recurrent,
                config.embedding,
                config.hidden,
                layers=config.layers,
                bidirectional=config.bidirectional,
                dropout=config.question_dropout,
            )
            question = states = self.recurrent.size
        if config.inputs != "question":
            self.encoder = encoder_from_config(config.encoder)
            self._preprocessing = Preprocessing(**config.preprocessing)
            # Encoders differ in scale by orders of magnitude; without this, a photo hardly moves the fused product.
            self.cell_norm = _StageNorm(self.encoder.parts)
            self.cell_dropout = nn.Dropout(config.cell_dropout)
            self.cell_projection = nn.Linear(self.encoder.channels, config.projection)
            if "grid" in attends and config.coordinates:
                # A layer of its own: among hundreds of channels, five more inputs would drown.
                self.place_projection = nn.Linear(_PLACE, config.projection, bias=False)
            image = config.projection
        if "words" in attends:
            self.word_attention = self._attention(states, image)
            question = config.glimpses * states
        if "grid" in attends:
            self.grid_attention = self._attention(image, question)
            image = config.glimpses * image
        sides = [question] if config.inputs != "image" else []
        sides += [image] if config.inputs != "question" else []
        self.sides = nn.ModuleList(_side(size, config.fusion_hidden, config.dropout) for size in sides)
        fused = config.fusion_hidden * (len(sides) if config.fusion == "concat" else 1)
        # Details join apart from the sides: a few plain numbers would drown among a glimpse's hundreds.
        self.details = nn.ModuleDict()
        asked = question if config.inputs == "both" else None
        glimpses = config.glimpses if "grid" in attends else 0
        if glimpses and config.coordinates:
            self.details["where"] = _Detail(glimpses * (_PLACE + _FOUND), asked, config, dropout=0.0)
        if config.inputs != "question" and self.encoder.color:
            self.details["colors"] = _Detail((1 + glimpses) * COLORS, asked, config, dropout=config.dropout)
        fused += config.fusion_hidden * len(self.details)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Sequential(
            nn.Linear(fused, config.fusion_hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.fusion_hidden, config.answers),
        )
        self.post_init()

    def _attention(self, items: int, query: int) -> Attention:
        config = self.config
        return Attention(
            items,
            query,
            hidden=config.attention_hidden,
            glimpses=config.glimpses,
            scoring=config.scoring,
            dropout=config.attention_dropout,
        )

    def _init_weights(self, module: nn.Module) -> None:
        """Leave every layer as PyTorch and torchvision initialise it (the base class would draw N(0, 0.02) over it)."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, **keywords: Any) -> Any:
        """As in transformers, but a checkpoint with missing or unfitting weights is refused, not filled at random."""
        wanted = keywords.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(*arguments, output_loading_info=True, **keywords)
        except RuntimeError as error:  # a shape that does not fit
            raise UserError(f"checkpoint {arguments[0]}: weights do not fit its config ({error})") from None
        wrong = sorted(map(str, info["missing_keys"])) + sorted(map(str, info["mismatched_keys"]))
        wrong += sorted(map(str, info["unexpected_keys"]))
        if wrong:
            raise UserError(f"checkpoint {arguments[0]}: its weights do not fit its config ({wrong[0]} and others)")
        return (model, info) if wanted else model

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """`pixels (N, 3, S, S)` uint8 → grid features `(N, C, h, w)`."""
        return self.encoder(normalise(pixels, self._preprocessing))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        pixels: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        valid: torch.Tensor | None = None,
        return_attention: bool = False,
    ) -> VqaOutput:
        """Score every answer for B questions about N photos.

        `input_ids (B, T)` padded on the right (with anything), `lengths (B,)` ≥ 1, `image_index (B,)` the photo each
        question is about (default: question i asks photo i). The photos come as `pixels (N, 3, S, S)` uint8, or as
        grid `features (N, C, h, w)` that the same encoder made before, or `(N, D)` that its frozen stages did.
        `valid (N, 4)`: the part of the square that shows photo, as x0, y0, x1, y1 in 0–1; the cells outside it are
        padding and never looked at. Default: all.
        """
        states = question = mask = None
        if self.config.inputs != "image":
            embedded = self.question_dropout(self.embedding(input_ids))  # (B, T, E)
            states, question = self.recurrent(embedded, lengths)
        grid_weights = word_weights = image = None
        if self.config.inputs != "question":
            grid = self.encode(pixels) if features is None else features
            if grid.ndim == 2:  # what the frozen stages made of the photos, from the cache
                grid = self.encoder.finish(grid.to(self.cell_projection.weight.dtype), self._preprocessing.size)
            height, width = grid.shape[-2:]
            cells = rearrange(grid, "n c h w -> n (h w) c").to(self.cell_projection.weight.dtype)
            mask = cells.new_ones(cells.shape[:2], dtype=torch.bool)
            if valid is not None:
                mask = valid_cells(valid, height, width)
            if image_index is None:
                image_index = torch.arange(len(cells), device=cells.device)
        if "words" in self.config.attends:
            seen = self._project(mean_of(cells, mask))[image_index]  # (B, P): the photo asks the words
            question, word_weights, _ = self.word_attention(states, seen, time_mask(lengths, states.shape[1]))
        details = {}
        if "grid" in self.config.attends:
            places = cell_places(height, width).to(cells) if self.config.coordinates else None
            image, grid_weights, scores = self.grid_attention(self._project(cells, places), question, mask, image_index)
            if places is not None:
                details["where"] = where_found(grid_weights, scores, places)
        elif self.config.inputs != "question":
            image = self._project(mean_of(cells, mask))[image_index]
        if self.config.inputs != "question" and self.encoder.color:
            details["colors"] = colors_seen(cells[..., :COLORS], mask, image_index, grid_weights)
        sides = [side for side in (question, image) if side is not None]
        sides = [layer(side) for layer, side in zip(self.sides, sides, strict=True)]
        if self.config.fusion == "concat":
            fused = torch.cat(sides, dim=-1)
        else:
            fused = sides[0] * sides[1] if len(sides) == 2 else sides[0]
        parts = [layer(details[name], question) for name, layer in self.details.items()]
        fused = torch.cat([fused, *parts], dim=-1)
        if grid_weights is not None:
            grid_weights = rearrange(grid_weights, "b g (h w) -> b g h w", h=height)
        return VqaOutput(
            logits=self.classifier(self.dropout(fused)),
            grid_attention=grid_weights if return_attention else None,
            word_attention=word_weights if return_attention else None,
        )

    def _project(self, cells: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """Cells `(..., C)`, and where they lie `(h·w, 5)`, → `(..., projection)`."""
        projected = self.cell_projection(self.cell_dropout(self.cell_norm(cells)))
        return (projected if places is None else projected + self.place_projection(places)).relu()


def _side(size: int, hidden: int, dropout: float) -> nn.Module:
    """One side of the fusion: a vector of `size` numbers → `(B, hidden)` within ±1."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(size, hidden), nn.LayerNorm(hidden), nn.Tanh())


class _Detail(nn.Module):
    """Plain numbers about what was looked at, `(B, size)` → `(B, fusion_hidden)`, weighed by the question if any."""

    def __init__(self, size: int, question: int | None, config: VqaConfig, *, dropout: float) -> None:
        super().__init__()
        self.seen = _side(size, config.fusion_hidden, dropout)
        self.asked = None if question is None else _side(question, config.fusion_hidden, config.dropout)

    def forward(self, numbers: torch.Tensor, question: torch.Tensor | None) -> torch.Tensor:
        seen = self.seen(numbers)
        return seen if self.asked is None else seen * self.asked(question)


class _StageNorm(nn.Module):
    """LayerNorm of each stage's channels by itself: else the 1,280 of the last stage would drown the colours' 125."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = list(channels)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in channels)

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """`(..., sum of channels)`, shape unchanged."""
        parts = cells.split(self.channels, dim=-1)
        return torch.cat([norm(part) for norm, part in zip(self.norms, parts, strict=True)], dim=-1)


def where_found(weights: torch.Tensor, scores: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Where each glimpse looked and how much it found: `(B, G·7)`.

    `weights`, `scores (B, G, L)` as `Attention` gives them, `places (L, 5)`. An attended vector says what is there.
    Where it is, is the mean place under the weights; and whether it is there at all, or on many cells, which weights
    that sum to 1 cannot say, is the strongest score and the share of cells with a high one.
    """
    centre = einsum(weights.to(places), places, "b g l, l p -> b g p")
    likely = scores.sigmoid()  # 0 where an item is not real
    real = (scores != float("-inf")).sum(dim=-1).clamp(min=1)
    found = torch.stack([likely.amax(dim=-1), likely.sum(dim=-1) / real], dim=-1).to(places)
    return rearrange(torch.cat([centre, found], dim=-1), "b g p -> b (g p)")


def colors_seen(
    shares: torch.Tensor, mask: torch.Tensor, index: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """Colours of the whole photo, then of each glimpse: `(B, 125·(1 + G))`.

    `shares (N, L, 125)` are the cells' histograms, `index (B,)` the photo of each question, `weights (B, G, L)` where
    it looked. Averaged first, then the square root, so that Euclidean geometry compares histograms as Hellinger's
    distance does (Arandjelović & Zisserman, CVPR 2012): a colour on 4 % of a photo is not nothing beside one on 40 %.
    """
    seen = [mean_of(shares, mask)[index].unsqueeze(1)]
    if weights is not None:
        seen.append(einsum(weights.to(shares), shares[index], "b g l, b l c -> b g c"))
    # The root's slope is infinite at 0, where most of a histogram lies.
    return rearrange((torch.cat(seen, dim=1).clamp(min=0) + 1e-6).sqrt(), "b g c -> b (g c)")


def mean_of(cells: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of the real cells: `(N, L, C)` and bool `(N, L)` → `(N, C)`."""
    weights = mask.to(cells.dtype).unsqueeze(-1)
    return (cells * weights).sum(dim=1) / weights.sum(dim=1)


def cell_places(height: int, width: int) -> torch.Tensor:
    """Where each cell lies: `(h·w, 5)`, x, y, x², y² and xy, with x and y from −1 to 1.

    Coordinate channels as in Liu et al., NeurIPS 2018; with the squares, a score linear in them can be a bump anywhere
    (the logarithm of a Gaussian), in the middle as well as in a corner.
    """
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return rearrange(torch.stack([x, y, x * x, y * y, x * y], dim=-1), "h w p -> (h w) p")
