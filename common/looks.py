"""Attention over a photo as a picture: the one look of the page, of runs' and studies' sheets, and of `where.png`.

Belongs here: from a photo and weights to a picture, by Pillow, NumPy and scipy alone. Panels, captions and files are
`common/plots.py`'s and `common/demo_html.py`'s.

What was passed over lies under a grey veil; what was looked at is clear, in its own colours, which may be what was
asked. The veil of a dark photo is light, that of a bright one dark: so it is seen on a black ground, on a white one,
and on a grey one, and lightness is told apart by every colour vision. The line, white within black, is seen anywhere.
"""

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from common.images import Box

SIDE = 560
"""Pixels of a photo in a result."""
LEGEND = "clear: where it looked; grey: what it passed over; line: half the strongest weight"
_VEIL = 0.8  # how opaque it is where nothing was looked at
_UNSEEN = 0.92  # and over what the model does not see
_GREYS = (72.0, 200.0)  # of which the one is taken that is farther from the photo's own lightness
_INSIDE = 0.5  # of the largest weight: what the line encloses


def small(photo: Image.Image, side: int = SIDE) -> Image.Image:
    """A photo made as small as `side` pixels; one of few pixels is made large, its pixels kept apart."""
    width, height = photo.size
    scale = side / max(width, height)
    wanted = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale > 2:
        return photo.resize(wanted, Image.Resampling.NEAREST)
    return photo.resize(wanted, Image.Resampling.LANCZOS) if scale < 1 else photo.copy()


def looked(
    photo: Image.Image, weights: np.ndarray, box: Box, side: int = SIDE, *, size: tuple[int, int] | None = None
) -> Image.Image:
    """The photo, the more under a veil the less was looked at; most of all what the model does not see of it, the edge
    that is cropped away.

    `weights (h, w)` cover the part `box` of the photo's plane (`common.images.shown_box`), whose size is `size` if
    `photo` was made small before.
    """
    shown = small(photo.convert("RGB"), side)
    width, height = size or photo.size
    across, down = shown.width / width, shown.height / height
    x0, y0, x1, y1 = (round(value) for value in (box[0] * across, box[1] * down, box[2] * across, box[3] * down))
    part = Image.fromarray((weights / max(float(weights.max()), 1e-12)).astype(np.float32))
    part = part.resize((max(1, x1 - x0), max(1, y1 - y0)), Image.Resampling.BILINEAR)
    plane = Image.new("F", shown.size, -1.0)
    plane.paste(part, (x0, y0))
    share = np.asarray(plane)
    veil = np.where(share < 0, _UNSEEN, _VEIL * (1 - np.clip(share, 0, 1)))[..., None]
    lightness = float(np.median(np.asarray(shown.convert("L"))))
    grey = max(_GREYS, key=lambda grey: abs(grey - lightness))
    veiled = Image.fromarray((np.asarray(shown, dtype=np.float32) * (1 - veil) + grey * veil).astype(np.uint8))
    if share.max() > share[share >= 0].min(initial=1):  # else it looked everywhere alike: there is no line to draw
        _outline(veiled, share >= _INSIDE)
    return veiled


def _outline(picture: Image.Image, inside: np.ndarray) -> None:
    """Draw a line around what is `inside`, white within black."""
    thick = max(1, round(max(picture.size) / 220))
    # scipy's take a row, then a column; Pillow's, a square at every pixel, took most of the time of a sheet
    wide, wider = (maximum_filter(inside, 1 + 2 * thick * times, mode="nearest") for times in (1, 2))
    core = minimum_filter(inside, 1 + 2 * thick, mode="nearest")
    picture.paste((0, 0, 0), mask=_picture(wider & ~core))
    picture.paste((255, 255, 255), mask=_picture(wide & ~inside))


def _picture(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
