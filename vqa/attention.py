"""Question-conditioned attention over a set of items: the cells of an image grid, or the words of a question.

Belongs here: scoring, masking and the weighted sum, and the two controls that a claim about attention needs: weights
that ask nothing of the items (`UniformAttention`), and scores that ask nothing of the query (`constant_query`). Which
items and which query, is the model's business.
"""

import torch
from einops import einsum, rearrange, repeat
from torch import nn

from vqa.cells import mean_of

SCORINGS = ("product", "concat")
WEIGHTS = ("learned", "uniform", "question_independent")


class Attention(nn.Module):
    """Soft attention with several glimpses.

    `scoring`:
      - "product": w · (tanh(V v) ∘ tanh(U q)), Kim et al., "Hadamard Product for Low-rank Bilinear Pooling", ICLR 2017;
      - "concat": w · relu(W [v; q]), Kazemi & Elqursh, "Show, Ask, Attend, and Answer", 2017. Written as V v + U q,
        which is the same product without building the concatenation for every cell.
    Several glimpses are several w over one shared hidden layer (Fukui et al., EMNLP 2016).
    With `constant_query` a learned vector asks instead of the query that is given, so that a photo is looked at in the
    same way whatever the question.
    """

    def __init__(
        self,
        items: int,
        query: int,
        *,
        hidden: int,
        glimpses: int,
        scoring: str,
        dropout: float,
        constant_query: bool = False,
    ) -> None:
        super().__init__()
        self.scoring = scoring
        self.constant = nn.Parameter(torch.randn(query)) if constant_query else None
        self.item_hidden = nn.Linear(items, hidden)
        self.query_hidden = nn.Linear(query, hidden)
        self.score = nn.Linear(hidden, glimpses)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, items: torch.Tensor, query: torch.Tensor, mask: torch.Tensor, index: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Look at `items` with `query`.

        `items (N, L, D)`, `query (B, Q)`, `mask (N, L)` true where an item is real. `index (B,)` names the set of items
        that each query looks at (several questions share a photo, whose cells are then projected once); without it
        N = B. Returns the glimpses `(B, G·D)`, their weights `(B, G, L)`, which sum to 1 over the real items and are
        exactly 0 elsewhere, and the scores `(B, G, L)` they are the softmax of, −∞ where an item is not real.
        """
        asks = query if self.constant is None else self.constant.unsqueeze(0)
        hidden, asked = self.item_hidden(items), self.query_hidden(asks)  # (N, L, H), (B, H) or (1, H)
        if self.scoring == "product":
            hidden, asked = hidden.tanh(), asked.tanh()
        # Dropped before they meet, not after: per photo and per question instead of per cell of every question.
        hidden, asked = self.dropout(hidden), rearrange(self.dropout(asked), "b h -> b 1 h")
        if index is not None and self.constant is None:
            items, hidden, mask = (tensor.index_select(0, index) for tensor in (items, hidden, mask))
        joint = hidden * asked if self.scoring == "product" else (hidden + asked).relu()
        scores = rearrange(self.score(joint), "b l g -> b g l").float()
        scores = scores.masked_fill(~rearrange(mask, "b l -> b 1 l"), float("-inf"))
        weights = scores.softmax(dim=-1)
        glimpses = rearrange(einsum(weights.to(items.dtype), items, "b g l, b l d -> b g d"), "b g d -> b (g d)")
        if index is not None and self.constant is not None:  # looked at once, whatever is asked
            glimpses, weights, scores = (tensor.index_select(0, index) for tensor in (glimpses, weights, scores))
        return glimpses, weights, scores


class UniformAttention(nn.Module):
    """Attention that looks at all items alike: weight 1/N on each real one, in every glimpse. Nothing in it is learned.

    What a model with it scores, the choice of where to look did not earn.
    """

    def __init__(self, glimpses: int) -> None:
        super().__init__()
        self.glimpses = glimpses

    def forward(
        self, items: torch.Tensor, query: torch.Tensor, mask: torch.Tensor, index: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `Attention.forward`; the scores are 0 for every real item."""
        means = repeat(mean_of(items, mask), "n d -> n (g d)", g=self.glimpses)
        scores = torch.zeros(mask.shape, device=items.device).masked_fill(~mask, float("-inf"))
        scores = repeat(scores, "n l -> n g l", g=self.glimpses)
        weights = scores.softmax(dim=-1)
        if index is not None:
            means, weights, scores = (tensor.index_select(0, index) for tensor in (means, weights, scores))
        return means, weights, scores
