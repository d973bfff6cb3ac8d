"""Finding what a question asks about: where it is, and whether it is there at all.

Belongs here: the net that scores the cells of a photo by the words of a question, and what it makes of the scores.
Which answers name a place is `vqa/answers.py`'s, how its answers join the others' `vqa/model.py`'s.

An attention that is trained for the answer alone never learned where things are (results/vqa/validation-photos.md,
trials 3 to 8 of the parts of dishes): the classifier behind it has learned the places of the training photos by heart
before. So this net has cells, words and a loss of its own, and is the only one to say which place. The questions of
presence matter most: a score trained on places alone may as well learn to look everywhere but at the thing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import einsum
from torch import nn

from common.recurrent import time_mask
from vqa.cells import CELL_PLACE, StageNorm


class Grounded(NamedTuple):
    """What was found: `weights (B, L)` sum to 1, `log_places (B, K)` are log-probabilities, `presence (B,)` a logit."""

    weights: torch.Tensor
    log_places: torch.Tensor
    presence: torch.Tensor


class Grounding(nn.Module):
    """Scores every cell by the question's words; what each cell's place is called, mixed under the scores' soft-max,
    says where; the log-sum-exp of the same scores says whether it is there.

    The words are a bag: the mean of the vectors of those that name something. The words that only ask ("nằm ở đâu")
    are the same for many things and would be learned first, as a score for "some food or other"; `asking` tells them.
    `places` is the number of answers that name a place.
    """

    asking: torch.Tensor

    def __init__(self, channels: Sequence[int], *, words: int, places: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = StageNorm(channels)
        self.cells = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(sum(channels), hidden), nn.Tanh(), nn.Dropout(dropout)
        )
        self.words = nn.Embedding(words, hidden)
        self.register_buffer("asking", torch.zeros(words, dtype=torch.bool))  # words that only ask
        self.frequent = nn.Embedding(words, 1)  # a thing found in every photo needs less to be believed
        nn.init.normal_(self.words.weight, std=0.1)
        nn.init.zeros_(self.frequent.weight)
        self.sharpness = nn.Parameter(torch.tensor(1.0))  # its logarithm
        self.belief = nn.Parameter(torch.tensor(1.0))
        self.names = nn.Sequential(nn.Linear(CELL_PLACE, 32), nn.Tanh(), nn.Linear(32, places))

    def forward(
        self,
        cells: torch.Tensor,
        mask: torch.Tensor,
        index: torch.Tensor,
        input_ids: torch.Tensor,
        lengths: torch.Tensor,
        places: torch.Tensor,
    ) -> Grounded:
        """`cells (N, L, C)`, `mask (N, L)` true where one is real, `index (B,)` the photo of each question,
        `input_ids (B, T)`, `lengths (B,)`, `places (L, 5)` as `cell_places` makes them."""
        real = time_mask(lengths, input_ids.shape[1]).unsqueeze(-1)
        known = input_ids.clamp(max=self.words.num_embeddings - 1)  # padding may be anything
        naming = real & ~self.asking[known].unsqueeze(-1)
        # A question that only asks: all of it. (Not `where`, which onnxruntime has not of booleans.)
        counted = naming | (real & ~naming.any(dim=1, keepdim=True))
        weight = counted / counted.sum(dim=1, keepdim=True)  # (B, T, 1)
        asked = (self.words(known) * weight).sum(dim=1)  # (B, H)
        prior = (self.frequent(known) * weight).sum(dim=(1, 2))  # (B,)
        seen = self.cells(self.norm(cells))[index]  # (B, L, H)
        scores = (einsum(seen, asked, "b l h, b h -> b l") * self.sharpness.exp()).float()
        scores = scores.masked_fill(~mask[index], float("-inf"))
        weights = scores.softmax(dim=-1)
        named = self.names(2 * places).softmax(dim=-1).float()  # (L, K)
        return Grounded(
            weights=weights,
            log_places=(weights @ named + 1e-6).log(),
            presence=self.belief * scores.logsumexp(dim=-1) + prior,
        )
