"""Question-conditioned attention over a set of items: the cells of an image grid, or the words of a question.

Belongs here: scoring, masking and the weighted sum. Which items and which query, is the model's business.
"""

import torch
from einops import einsum, rearrange
from torch import nn

SCORINGS = ("product", "concat")


class Attention(nn.Module):
    """Soft attention with several glimpses.

    `scoring`:
      - "product": w · (tanh(V v) ∘ tanh(U q)), Kim et al., "Hadamard Product for Low-rank Bilinear Pooling", ICLR 2017;
      - "concat": w · relu(W [v; q]), Kazemi & Elqursh, "Show, Ask, Attend, and Answer", 2017. Written as V v + U q,
        which is the same product without building the concatenation for every cell.
    Several glimpses are several w over one shared hidden layer (Fukui et al., EMNLP 2016).
    """

    def __init__(self, items: int, query: int, *, hidden: int, glimpses: int, scoring: str, dropout: float) -> None:
        super().__init__()
        self.scoring = scoring
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
        hidden, asked = self.item_hidden(items), self.query_hidden(query)  # (N, L, H), (B, H)
        if self.scoring == "product":
            hidden, asked = hidden.tanh(), asked.tanh()
        # Dropped before they meet, not after: per photo and per question instead of per cell of every question.
        hidden, asked = self.dropout(hidden), rearrange(self.dropout(asked), "b h -> b 1 h")
        if index is not None:
            items, hidden, mask = (tensor.index_select(0, index) for tensor in (items, hidden, mask))
        joint = hidden * asked if self.scoring == "product" else (hidden + asked).relu()
        scores = rearrange(self.score(joint), "b l g -> b g l").float()
        scores = scores.masked_fill(~rearrange(mask, "b l -> b 1 l"), float("-inf"))
        weights = scores.softmax(dim=-1)
        glimpses = einsum(weights.to(items.dtype), items, "b g l, b l d -> b g d")
        return rearrange(glimpses, "b g d -> b (g d)"), weights, scores
