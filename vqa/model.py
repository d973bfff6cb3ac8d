"""The model: grid features of a photo and LSTM states of a question, fused with or without attention.

Belongs here: the configuration and the network. Text is in `vqa/text.py`, the encoders in `common/encoders.py`, the
scoring of attention in `vqa/attention.py`, from raw photo and question to answer in `vqa/predict.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from common.colors import COLORS
from common.encoders import encoder_from_config
from common.errors import UserError
from common.images import Preprocessing, normalise, valid_cells
from common.pretrained import load_whole, needed
from common.recurrent import KINDS, Recurrent, time_mask
from vqa.attention import SCORINGS, WEIGHTS, Attention, UniformAttention
from vqa.cells import CELL_PLACE, FOUND, StageNorm, cell_places, colors_seen, mean_of, where_found
from vqa.grounding import Grounding

INPUTS = ("both", "question", "image")
ATTENTION_OVER = ("grid", "words", "both")
FUSIONS = ("product", "concat")


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
        attention_weights: str = "learned",  # over the grid: learned | uniform | question_independent (controls)
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
        grounding: bool = False,  # a net of its own says where; only with attention over the grid
        grounding_hidden: int = 128,
        grounding_dropout: float = 0.3,
        place_answers: Sequence[int] = (),  # the answers among which it chooses
        test_augment: Sequence[str] = (),  # flip, turn: ways round over which `Answerer` and scoring average
        **keywords: Any,
    ) -> None:
        for name, value, allowed in (
            ("inputs", inputs, INPUTS),
            ("recurrent", recurrent, tuple(KINDS)),
            ("attention_over", attention_over, ATTENTION_OVER),
            ("attention_weights", attention_weights, WEIGHTS),
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
        self.attention_weights = attention_weights
        self.glimpses, self.attention_hidden, self.coordinates = glimpses, attention_hidden, coordinates
        self.projection, self.fusion, self.fusion_hidden = projection, fusion, fusion_hidden
        self.question_dropout, self.cell_dropout = question_dropout, cell_dropout
        self.attention_dropout, self.dropout = attention_dropout, dropout
        self.grounding, self.grounding_hidden = grounding, grounding_hidden
        self.grounding_dropout, self.place_answers = grounding_dropout, list(place_answers)
        self.test_augment = list(test_augment)
        super().__init__(**keywords)
        if attention_weights != "learned" and (self.attends != {"grid"} or grounding):
            raise UserError(
                f"attention_weights '{attention_weights}': only where attention over the grid is all that looks "
                "(attention, inputs both, attention_over grid, no grounding)"
            )

    @property
    def attends(self) -> frozenset[str]:
        """What is attended over: a subset of {"grid", "words"}; attention needs both a question and a photo."""
        if not self.attention or self.inputs != "both":
            return frozenset()
        return frozenset({"grid", "words"} if self.attention_over == "both" else {self.attention_over})

    @property
    def looks(self) -> str:
        """What is attended over, for a person, and with which weights, if they are not the ordinary ones."""
        controls = {"uniform": " (uniform weights)", "question_independent": " (whatever the question)"}
        return (" and ".join(sorted(self.attends)) or "none") + controls.get(self.attention_weights, "")

    @property
    def grounds(self) -> bool:
        """Whether answers that name a place come from a `Grounding`."""
        return self.grounding and "grid" in self.attends and len(self.place_answers) > 1


@dataclass
class VqaOutput(ModelOutput):
    """`logits (B, answers)`; if asked for, `grid_attention (B, G, h, w)` and `word_attention (B, G, T)`.

    With grounding, its weights are the last of the `grid_attention`, and `auxiliary_logits (B, 2)` say whether what is
    asked about is not there, or is.
    """

    logits: torch.Tensor | None = None
    auxiliary_logits: torch.Tensor | None = None
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
    config: VqaConfig
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
            if config.encoder is None or config.preprocessing is None:
                raise UserError(
                    f"inputs {config.inputs}: the configuration lacks an encoder, or the preprocessing of its photos"
                )
            self.encoder = encoder_from_config(config.encoder)
            self._preprocessing = Preprocessing(**config.preprocessing)
            # Encoders differ in scale by orders of magnitude; without this, a photo hardly moves the fused product.
            self.cell_norm = StageNorm(self.encoder.parts)
            self.cell_dropout = nn.Dropout(config.cell_dropout)
            self.cell_projection = nn.Linear(self.encoder.channels, config.projection)
            if "grid" in attends and config.coordinates:
                # A layer of its own: among hundreds of channels, five more inputs would drown.
                self.place_projection = nn.Linear(CELL_PLACE, config.projection, bias=False)
            image = config.projection
        if "words" in attends:
            self.word_attention = self._attention(states, image, weights="learned")
            question = config.glimpses * states
        if "grid" in attends:
            self.grid_attention = self._attention(image, question, weights=config.attention_weights)
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
            self.details["where"] = _Detail(glimpses * (CELL_PLACE + FOUND), asked, config, dropout=0.0)
        if config.inputs != "question" and self.encoder.color:
            self.details["colors"] = _Detail((1 + glimpses) * COLORS, asked, config, dropout=config.dropout)
        fused += config.fusion_hidden * len(self.details)
        if config.grounds:
            self.grounding = Grounding(
                self.encoder.parts,
                words=config.words,
                places=len(config.place_answers),
                hidden=config.grounding_hidden,
                dropout=config.grounding_dropout,
            )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Sequential(
            nn.Linear(fused, config.fusion_hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.fusion_hidden, config.answers),
        )
        self.post_init()

    def _attention(self, items: int, query: int, *, weights: str) -> nn.Module:
        config = self.config
        if weights == "uniform":
            return UniformAttention(config.glimpses)
        return Attention(
            items,
            query,
            hidden=config.attention_hidden,
            glimpses=config.glimpses,
            scoring=config.scoring,
            dropout=config.attention_dropout,
            constant_query=weights == "question_independent",
        )

    def _init_weights(self, module: nn.Module) -> None:
        """Leave every layer as PyTorch and torchvision initialise it (the base class would draw N(0, 0.02) over it)."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, **keywords: Any) -> Any:
        """As in transformers, but a checkpoint with missing or unfitting weights is refused, not filled at random."""
        return load_whole(super().from_pretrained, *arguments, **keywords)

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
        states: Any = None
        question: Any = None
        mask: Any = None
        if self.config.inputs != "image":
            lengths = needed(lengths, "lengths")
            embedded = self.question_dropout(self.embedding(needed(input_ids, "input_ids")))  # (B, T, E)
            states, question = self.recurrent(embedded, lengths)
        grid_weights: Any = None
        word_weights = image = None
        if self.config.inputs != "question":
            grid = self.encode(needed(pixels, "pixels or features")) if features is None else features
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
            words = time_mask(needed(lengths, "lengths"), states.shape[1])
            question, word_weights, _ = self.word_attention(states, seen, words)
        details = {}
        if "grid" in self.config.attends:
            places = cell_places(height, width).to(cells) if self.config.coordinates else None
            image, grid_weights, scores = self.grid_attention(self._project(cells, places), question, mask, image_index)
            if places is not None:
                details["where"] = where_found(grid_weights, scores, places)
        elif self.config.inputs != "question":
            image = self._project(mean_of(cells, mask))[image_index]
        if self.config.inputs != "question" and self.encoder.color:
            details["colors"] = colors_seen(cells[..., :COLORS], mask, needed(image_index, "image_index"), grid_weights)
        sides = [side for side in (question, image) if side is not None]
        sides = [layer(side) for layer, side in zip(self.sides, sides, strict=True)]
        if self.config.fusion == "concat":
            fused = torch.cat(sides, dim=-1)
        else:
            fused = sides[0] * sides[1] if len(sides) == 2 else sides[0]
        parts = [layer(details[name], question) for name, layer in self.details.items()]
        fused = torch.cat([fused, *parts], dim=-1)
        logits, presence = self.classifier(self.dropout(fused)), None
        if self.config.grounds:
            found = self.grounding(cells, mask, image_index, input_ids, lengths, cell_places(height, width).to(cells))
            logits = choose_place(logits, found.log_places, self.config.place_answers)
            grid_weights = torch.cat([grid_weights, found.weights.unsqueeze(1)], dim=1)
            presence = torch.stack([torch.zeros_like(found.presence), found.presence], dim=-1)
        if grid_weights is not None:
            grid_weights = rearrange(grid_weights, "b g (h w) -> b g h w", h=height)
        return VqaOutput(
            logits=logits,
            auxiliary_logits=presence,
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


def choose_place(logits: torch.Tensor, log_places: torch.Tensor, answers: Sequence[int]) -> torch.Tensor:
    """`logits (B, A)`, in which the classifier says how likely it is that the answer is one of K places, and
    `log_places (B, K)` say which: p(place) = p(any of them) · p(this one). `answers` are the K columns."""
    columns = torch.tensor(answers, device=logits.device)
    any_of_them = logits.index_select(1, columns).float().logsumexp(dim=-1, keepdim=True)
    return logits.float().index_copy(1, columns, any_of_them + log_places)


class _Detail(nn.Module):
    """Plain numbers about what was looked at, `(B, size)` → `(B, fusion_hidden)`, weighed by the question if any."""

    def __init__(self, size: int, question: int | None, config: VqaConfig, *, dropout: float) -> None:
        super().__init__()
        self.seen = _side(size, config.fusion_hidden, dropout)
        self.asked = None if question is None else _side(question, config.fusion_hidden, config.dropout)

    def forward(self, numbers: torch.Tensor, question: torch.Tensor | None) -> torch.Tensor:
        seen = self.seen(numbers)
        return seen if self.asked is None else seen * self.asked(question)
