"""The Vietnamese name of a photo's dominant colour, measured.

Belongs here: the rule alone. Each pixel of the photo's middle is named by hue (0-360), saturation and value (0-1) of
HSV; the commonest name is the photo's, if it has a large enough part. Where hues are read as human eyes would name
them is a convention, not a law: the limits below were fitted to the colours that `vifood_vqa` and `viphoto_vqa` came
with, whose own rule is not written down (docs/data.md has how far they agree).
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

NAMES = ("đen", "trắng", "xám", "nâu", "đỏ", "cam", "vàng", "xanh lá", "xanh dương", "tím", "hồng")
_SIDE = 160  # pixels of the longer side that are named: more change nothing


@dataclass(frozen=True, kw_only=True)
class ColorRule:
    """Limits of the names. Hues in degrees, saturation and value in 0-1, the upper limit of each name."""

    middle: float
    """part of the photo's width and height, around its centre, that is looked at"""
    black: float = 0.2
    """value below which a pixel is black"""
    grey: float = 0.18
    """saturation below which it is grey, or white"""
    white: float = 0.75
    """value above which that is white"""
    brown: tuple[float, float, float] = (15, 45, 0.65)
    """hues from, to, and value below which it is brown"""
    red: float = 18
    orange: float = 40
    yellow: float = 70
    green: float = 150
    blue: float = 260
    purple: float = 300
    pink: float = 345
    """above it is red again"""


def color_shares(photo: Image.Image, rule: ColorRule) -> dict[str, float]:
    """Which part of the photo's middle has each name, most first; of equals the first of `NAMES`."""
    x, y = (side * (1 - rule.middle) / 2 for side in photo.size)
    middle = photo.crop(
        (round(x), round(y), max(round(x) + 1, round(photo.width - x)), max(round(y) + 1, round(photo.height - y)))
    )
    step = max(1, round(max(middle.size) / _SIDE))
    pixels = np.asarray(middle.convert("HSV"), dtype=np.float32)[::step, ::step].reshape(-1, 3)
    hue, saturation, value = pixels[:, 0] * (360 / 255), pixels[:, 1] / 255, pixels[:, 2] / 255
    limits = (rule.red, rule.orange, rule.yellow, rule.green, rule.blue, rule.purple, rule.pink)
    hues = ("đỏ", "cam", "vàng", "xanh lá", "xanh dương", "tím", "hồng", "đỏ")
    names = np.array([NAMES.index(name) for name in hues])[np.searchsorted(limits, hue, side="right")]
    start, end, dark = rule.brown
    names[(start <= hue) & (hue < end) & (value < dark)] = NAMES.index("nâu")
    pale = saturation < rule.grey
    names[pale] = np.where(value[pale] > rule.white, NAMES.index("trắng"), NAMES.index("xám"))
    names[value < rule.black] = NAMES.index("đen")
    shares = np.bincount(names, minlength=len(NAMES)) / len(names)
    return {NAMES[place]: float(shares[place]) for place in np.argsort(-shares, kind="stable")}


def dominant_color(photo: Image.Image, rule: ColorRule, *, clear: float = 0.0) -> str | None:
    """The commonest name, or None if it has less than `clear` of the middle."""
    name, share = next(iter(color_shares(photo, rule).items()))
    return name if share >= clear else None


def commonest_color(photo: Image.Image, rule: ColorRule) -> str:
    """The commonest name, however little of the middle it has."""
    return next(iter(color_shares(photo, rule)))
