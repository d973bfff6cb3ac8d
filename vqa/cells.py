"""What can be said of the cells of a photo's grid: where each lies, their mean, what was looked at.

Belongs here: plain functions of cells and weights, and the normalisation of their channels. Who looks, and why, is
`vqa/attention.py`'s and `vqa/grounding.py`'s.
"""

from collections.abc import Sequence

import torch
from einops import einsum, rearrange
from torch import nn

CELL_PLACE = 5  # numbers that say where a cell lies
FOUND = 2  # numbers that say how much of what was asked for there is


class StageNorm(nn.Module):
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
