"""A clip written once more with words on it: the predicted class and its probability, as in report R2's figure.

Belongs here: the band of text, and encoding. Does not belong here: what the words are (`video/predict.py`), and
decoding (`video/decode.py`).
Loads matplotlib, for its font alone: import this module only where a clip is to be written.
"""

import bisect
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import av
import matplotlib
import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageDraw, ImageFont

from common.errors import UserError, reason
from common.files import beside, remove
from video.decode import frame_rate, iterate_frames

CODECS = {
    "libx264": {"crf": "18", "preset": "veryfast"},
    "mpeg4": {"qmin": "2", "qmax": "5"},
}
"""Encoders and their options (letters must survive compression); MPEG-4 where PyAV's FFmpeg was built without x264."""

TEXT_HEIGHT = 1 / 12
"""Size of the letters, of the frame's height."""
MIN_SIZE = 7
"""The least size at which letters can be read, pixels."""
BAND, INK = (0, 0, 0, 176), (255, 255, 255, 255)


def write_marked(
    source: str | Path,
    target: str | Path,
    lines: Sequence[str] | Callable[[float], Sequence[str]],
    *,
    overwrite: bool = False,
) -> None:
    """Write the clip `source` to `target`, an .mp4, with `lines` on a dark band in its upper left corner.

    `lines` are the same throughout, or what a function makes of each frame's time in seconds; no lines, no band. All
    frames that decode are written, upright, at the clip's own rate: its mean if it varies, which keeps the clip's
    length but not every frame's moment (nor the length, where the file's header tells another rate). Sound is dropped.
    Frames with an odd side get one more column or row, a copy of the last: H.264 keeps colours for squares of 2 x 2
    pixels. Letters are a twelfth of the frame high, and less where a line would not fit; under 7 pixels its end is cut
    off instead.

    One frame is held at a time, and the file is written beside and renamed. Raises `UserError` for a clip that cannot
    be read, a target that isn't named .mp4, cannot be written, is the clip itself or, without `overwrite`, is there.
    """
    if isinstance(lines, str):
        raise TypeError(f"lines are a list of strings, not the one string {lines!r}")
    target = Path(target)
    _check(source, target, overwrite)
    rate = frame_rate(source)
    band = _Band()
    with _written(target) as file, closing(iterate_frames(source)) as frames:
        marked = (
            band.on(pixels, lines(float(number / rate)) if callable(lines) else lines)
            for number, pixels in enumerate(frames)
        )
        _encode(file, marked, rate)


def _check(source: str | Path, target: Path, overwrite: bool) -> None:
    if target.suffix.lower() != ".mp4":
        raise UserError(f"{target}: marked clips are written as .mp4; name one")
    if target.is_dir():
        raise UserError(f"{target}: is a folder; name a file")
    if target.exists():
        if os.path.exists(source) and os.path.samefile(source, target):
            raise UserError(f"{target}: is the clip itself; name another file")
        if not overwrite:
            raise UserError(f"{target}: is there already; name another file, or say --overwrite")


@contextmanager
def _written(target: Path) -> Iterator[BinaryIO]:
    """A file beside `target` that takes its place at the end, and is gone if there was no good one."""
    fresh = beside(target)
    try:
        with open(fresh, "wb") as file:
            yield file
        fresh.replace(target)
    except (OSError, FFmpegError) as error:
        raise UserError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or reason(error)})") from None
    finally:
        remove(fresh)


def _encode(file: BinaryIO, images: Iterator[np.ndarray], rate: Fraction) -> None:
    """RGB images (H, W, 3) uint8, one size for all, as an MP4 file."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(file, "w", format="mp4") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=CODECS[codec]))
        stream.pix_fmt = "yuv420p"  # what every player takes
        for number, image in enumerate(images):
            image = _even(image)
            if number == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _even(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return image


class _Band:
    """The band of text of one clip. It is drawn anew only when its lines change, and its letters never grow again:
    they would jump from frame to frame.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.image: Image.Image | None = None
        self.size: int | None = None

    def on(self, pixels: np.ndarray, lines: Sequence[str]) -> np.ndarray:
        """A frame (H, W, 3) uint8 with the lines on it."""
        # letters and their accents as one character: set one by one, accents would miss their letters
        lines = [unicodedata.normalize("NFC", " ".join(line.split())) for line in lines]
        if lines != self.lines:
            self.lines, self.image = lines, self._draw(lines, *pixels.shape[:2]) if lines else None
        if self.image is None:
            return pixels
        frame = Image.fromarray(pixels)
        frame.paste(self.image, (0, 0), self.image)
        return np.asarray(frame)

    def _draw(self, lines: list[str], height: int, width: int) -> Image.Image:
        size = self.size or max(round(TEXT_HEIGHT * height), MIN_SIZE)
        while size > MIN_SIZE and not _fits(lines, size, height, width):
            size -= 1
        self.size = size
        font, margin, step = lettering(size), _margin(size), _step(size)
        lines = [_cut(line, font, width - 2 * margin) for line in lines]
        across = max(map(font.getlength, lines)) + 2 * margin
        image = Image.new("RGBA", (min(round(across), width), min(len(lines) * step + margin, height)), BAND)
        draw = ImageDraw.Draw(image)
        for number, line in enumerate(lines):
            draw.text((margin, margin / 2 + (number + 0.5) * step), line, fill=INK, font=font, anchor="lm")
        return image


def lettering(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has all Vietnamese letters; laid out alike on every machine."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _margin(size: int) -> int:
    return round(size / 3)


def _step(size: int) -> int:
    """From line to line: an accent on a capital's accent, as in Ế, stands higher than other fonts' letters."""
    return round(1.3 * size)


def _fits(lines: Sequence[str], size: int, height: int, width: int) -> bool:
    """Whether the lines keep to the frame's width and its upper half."""
    font, margin = lettering(size), _margin(size)
    across = max(map(font.getlength, lines)) + 2 * margin
    return across <= width and len(lines) * _step(size) + margin <= height / 2


def _cut(line: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`line`, its end replaced by … where it is wider than so many pixels."""
    if font.getlength(line) <= width:
        return line
    kept = bisect.bisect_right(range(len(line)), width, key=lambda end: font.getlength(line[:end] + "…")) - 1
    return line[: max(kept, 0)].rstrip() + "…"
