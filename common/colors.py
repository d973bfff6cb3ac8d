"""The stage "color": how much of each colour is in a cell of the grid.

Belongs here: the histogram and nothing else; `common/encoders.py` joins it to the other stages. A network trained to
name things learns to overlook their colour, and a mean over a grid of its features cannot count pixels; a histogram is
a count whose sum over any part of the photo is that part's histogram (Swain & Ballard, "Color Indexing", IJCV 1991).
"""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange

LEVELS = 5  # per channel: 0, 1/4, ... 1
COLORS = LEVELS**3
_SIDE = 12  # points per cell along each side: finer detail hardly changes a cell's histogram


def color_histogram(pixels: torch.Tensor, cells: tuple[int, int]) -> torch.Tensor:
    """`pixels (N, 3, H, W)`, RGB in 0–1, → `(N, 125, h, w)` for a grid of `cells`: shares that sum to 1 in each cell.

    A colour between the levels counts partly for each of its (up to) eight neighbours, so that a small change of light
    makes a small change of the histogram.
    """
    points = F.adaptive_avg_pool2d(pixels.float(), (_SIDE * cells[0], _SIDE * cells[1])).clamp(0, 1)
    points = rearrange(points, "n c (h y) (w x) -> c (n h w) (y x)", y=_SIDE, x=_SIDE)
    levels = torch.arange(LEVELS, device=pixels.device).view(LEVELS, 1)
    # How near a point is to each level: (cell, level, point), for red, green and blue.
    red, green, blue = (1 - (points.unsqueeze(2) * (LEVELS - 1) - levels).abs()).clamp(min=0)
    pairs = rearrange(einsum(red, green, "k r p, k g p -> k r g p"), "k r g p -> k (r g) p")
    shares = einsum(pairs, blue, "k a p, k b p -> k a b") / _SIDE**2
    return rearrange(shares, "(n h w) a b -> n (a b) h w", h=cells[0], w=cells[1])
