"""A decoded frame to planes of RGB, a square or the whole picture, upright.

Belongs here: pixels, through libswscale. Files, packets and decoding are `video/decode.py`'s.
"""

from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

from common.errors import UserError, reason

PIXELS = 2
"""Which way of making pixels this is; raised whenever they change, so that features kept of the old are not used."""
CUT_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray")
"""Pixels in planes of one byte a sample, as nearly all clips have them, of which a square can be cut before scaling."""
LONG_SIDE = 8
"""From this ratio of the sides on, the centre is cut out before it is resized, for memory's sake."""


class Converter:
    """Frames of one clip to RGB arrays; one scaler for all of them, as setting it up costs more than using it."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.scaler = VideoReformatter()
        self.cutter: _Cutter | None = None

    def rgb(self, frame: VideoFrame, width: int, height: int) -> list[np.ndarray]:
        """Planes of red, green and blue, `(height, width)` uint8; transparent parts become white, as in photos."""
        alpha = any(component.is_alpha for component in frame.format.components)
        try:
            # Planes: into packed RGB, libswscale takes only every other sample of the colours, rounds down (the picture
            # darkens by 1 or 2 of 255) and needs twice the time.
            scaled = self.scaler.reformat(
                frame, width, height, "gbrap" if alpha else "gbrp", interpolation=Interpolation.BILINEAR, threads=1
            )
        except (FFmpegError, ValueError) as error:
            why = getattr(error, "strerror", None) or reason(error)
            raise UserError(
                f"{self.path}: cannot be read as a video (pixels of the kind {frame.format.name}: {why})"
            ) from None
        green, blue, red, *opacity = map(_samples, scaled.planes)
        if not alpha:
            return [red, green, blue]
        opaque = opacity[0].astype(np.uint16)
        return [((c * opaque + 255 * (255 - opaque) + 127) // 255).astype(np.uint8) for c in (red, green, blue)]

    def square(self, frame: VideoFrame, size: int, resize: str) -> list[np.ndarray]:
        """Planes of `(size, size)`, as `read_clip` describes them, not yet upright."""
        width, height = frame.width, frame.height
        short = min(width, height)
        if resize == "squash" or width == height:
            return self.rgb(frame, size, size)
        if self.cutter is None or self.cutter.kind != _kind(frame):  # a clip's frames may change in size
            self.cutter = _Cutter(frame)
        if self.cutter.square is not None:
            return self.rgb(self.cutter.cut(frame), size, size)
        if max(width, height) > LONG_SIDE * short:
            centre = np.stack([_centre(plane, short) for plane in self.rgb(frame, width, height)], axis=-1)
            return self.rgb(VideoFrame.from_ndarray(centre, "rgb24"), size, size)
        # as much to the left as to the right: a margin of half pixels would move the picture
        margins = (round((length * size / short - size) / 2) for length in (width, height))
        return [_centre(plane, size) for plane in self.rgb(frame, *(size + 2 * margin for margin in margins))]


class _Cutter:
    """The centre squares of frames that are alike in size and pixel format: the same frame again, filled anew."""

    def __init__(self, frame: VideoFrame) -> None:
        self.kind = _kind(frame)
        self.square: VideoFrame | None = None
        """None where cutting would halve a sample, or the planes are not those of `CUT_FORMATS`"""
        side = min(frame.width, frame.height)
        high, wide = frame.height - side, frame.width - side
        self._parts: list[tuple[np.ndarray, tuple[slice, slice]]] = []
        if frame.format.name not in CUT_FORMATS:
            return
        square = VideoFrame(side, side, frame.format.name)
        for source, target in zip(frame.planes, square.planes, strict=True):
            rows, columns = round(frame.height / source.height), round(frame.width / source.width)  # share a sample
            if high % (2 * rows) or wide % (2 * columns) or source.line_size < source.width:
                return
            y, x = high // (2 * rows), wide // (2 * columns)
            self._parts.append((_samples(target), np.s_[y : y + target.height, x : x + target.width]))
        self.square = square

    def cut(self, frame: VideoFrame) -> VideoFrame:
        for (target, part), source in zip(self._parts, frame.planes, strict=True):
            target[:] = _samples(source)[part]
        square = self.square
        assert square is not None  # the caller has looked
        square.colorspace, square.color_range = frame.colorspace, frame.color_range
        return square


def _kind(frame: VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _samples(plane: VideoPlane) -> np.ndarray:
    """A plane of one byte a sample, `(height, width)` uint8, not copied."""
    samples: np.ndarray = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # PyAV's planes are buffers
    return samples.reshape(-1, plane.line_size)[: plane.height, : plane.width]


def _centre(image: np.ndarray, side: int) -> np.ndarray:
    y, x = ((length - side) // 2 for length in image.shape[:2])
    return image[y : y + side, x : x + side]


def upright(planes: list[np.ndarray], frame: VideoFrame) -> list[np.ndarray]:
    """The planes `(H, W)` of a frame as it is to be shown: its display matrix (phones turn and mirror) applied.

    The matrix takes source column p and row q to column a·p + c·q and row b·p + d·q (FFmpeg's libavutil/display.h);
    angles between the quarters are taken for the nearest. `VideoFrame.rotation` alone can't tell a mirrored clip.
    """
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows no name for some other data beside this frame
        return [np.rot90(plane, round(frame.rotation / 90)) for plane in planes]  # both counter-clockwise
    if matrix is None:
        return planes
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
    if abs(b) > abs(a):
        planes, a, d = [plane.T for plane in planes], c, b
    return [plane[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1] for plane in planes]
