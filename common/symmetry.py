"""Which way round a training view shows its photo: mirrored, or turned by quarters.

Belongs here: which view is which way round, and doing it to a photo. What it makes of words like "left" is the task's
business (`vqa/text.py`), which is why it follows from the view's number and not from chance: a photo in the cache of
features and the question asked about it must agree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image

_TURNED = (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90)  # clockwise


class Symmetry(NamedTuple):
    """First mirrored left to right, or not; then turned clockwise by so many quarters."""

    mirrored: bool = False
    turns: int = 0

    def image(self, photo: Image.Image) -> Image.Image:
        """`photo` this way round."""
        if self.mirrored:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return photo.transpose(_TURNED[self.turns - 1]) if self.turns else photo

    def squares(self, pixels: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Squares `(N, 3, S, S)` this way round, and with them `boxes (N, 4)`, x0, y0, x1, y1 in 0–1 of the square."""
        x0, y0, x1, y1 = boxes.unbind(-1)
        if self.mirrored:
            pixels, x0, x1 = pixels.flip(-1), 1 - x1, 1 - x0
        for _ in range(self.turns):
            x0, y0, x1, y1 = 1 - y1, x0, 1 - y0, x1
        return pixels.rot90(-self.turns, (-2, -1)), torch.stack([x0, y0, x1, y1], dim=-1)

    def direction(self, x: int, y: int) -> tuple[int, int]:
        """Where what lay in direction `(x, y)` from the middle, y downwards, lies then."""
        x = -x if self.mirrored else x
        for _ in range(self.turns):
            x, y = -y, x
        return x, y


def symmetries(names: Sequence[str]) -> tuple[Symmetry, ...]:
    """All ways round that the augmentations `names` allow, the plain one first: view v of a photo is number v of these,
    counted round and round. "flip" mirrors, "turn" turns by quarters; other names change nothing here.
    """
    turns = range(4) if "turn" in names else range(1)
    return tuple(
        Symmetry(mirrored, turn) for turn in turns for mirrored in ((False, True) if "flip" in names else (False,))
    )
