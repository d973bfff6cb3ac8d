"""A decoded frame to planes of RGB, a square or the whole picture, upright.

Belongs here: pixels, through libswscale. Files, packets and decoding are `video/decode.py`'s.
"""

from pathlib import Path

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from common.errors import UserError, reason

LONG_SIDE = 8
"""From this ratio of the sides on, the centre is cut out before it is resized, for memory's sake."""


class Converter:
    """Frames of one clip to RGB arrays; one scaler for all of them, as setting it up costs more than using it."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.scaler = VideoReformatter()

    def rgb(self, frame: VideoFrame, width: int, height: int) -> list[np.ndarray]:
        """Planes of red, green and blue, `(height, width)` uint8; transparent parts become white, as in photos."""
        alpha = any(component.is_alpha for component in frame.format.components)
        try:
            image = self.scaler.reformat(
                frame, width, height, "rgba" if alpha else "rgb24", interpolation=Interpolation.BILINEAR, threads=1
            ).to_ndarray()
        except (FFmpegError, ValueError) as error:
            why = getattr(error, "strerror", None) or reason(error)
            raise UserError(
                f"{self.path}: cannot be read as a video (pixels of the kind {frame.format.name}: {why})"
            ) from None
        if alpha:
            opacity = image[..., 3:].astype(np.uint16)
            image = ((image[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
        return [image[..., channel] for channel in range(3)]

    def square(self, frame: VideoFrame, size: int, resize: str) -> list[np.ndarray]:
        """Planes of `(size, size)`, as `read_clip` describes them, not yet upright."""
        width, height = frame.width, frame.height
        short = min(width, height)
        if resize == "squash" or width == height:
            return self.rgb(frame, size, size)
        if max(width, height) > LONG_SIDE * short:
            centre = np.stack([_centre(plane, short) for plane in self.rgb(frame, width, height)], axis=-1)
            return self.rgb(VideoFrame.from_ndarray(centre, "rgb24"), size, size)
        # as much to the left as to the right: a margin of half pixels would move the picture
        margins = (round((length * size / short - size) / 2) for length in (width, height))
        return [_centre(plane, size) for plane in self.rgb(frame, *(size + 2 * margin for margin in margins))]


def _centre(image: np.ndarray, side: int) -> np.ndarray:
    y, x = ((length - side) // 2 for length in image.shape[:2])
    return image[y : y + side, x : x + side]


def upright(planes: list[np.ndarray], frame: VideoFrame) -> list[np.ndarray]:
    """The planes `(H, W)` of a frame as it is to be shown: its display matrix (phones turn and mirror) applied.

    The matrix takes source column p and row q to column a·p + c·q and row b·p + d·q (FFmpeg's libavutil/display.h);
    angles between the quarters are taken for the nearest. `VideoFrame.rotation` alone can't tell a mirrored clip.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows no name for some other data beside this frame
        return [np.rot90(plane, round(frame.rotation / 90)) for plane in planes]  # both counter-clockwise
    if matrix is None:
        return planes
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
    if abs(b) > abs(a):
        planes, a, d = [plane.T for plane in planes], c, b
    return [plane[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1] for plane in planes]
