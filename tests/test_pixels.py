"""Squares of frames against exact arithmetic: no shift, nothing darkens, colours of full resolution."""

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from video.pixels import Converter

SCALES = {"yuv420p": (2, 2), "yuv422p": (1, 2), "yuv444p": (1, 1)}


def frame_of(height: int, width: int, kind: str) -> tuple[av.VideoFrame, list[np.ndarray]]:
    """A smooth picture as a frame, and its planes; colours far from grey."""
    frame = av.VideoFrame(width, height, kind)
    frame.colorspace, frame.color_range = Colorspace.ITU601, ColorRange.MPEG
    rows, columns = SCALES[kind]
    planes = []
    for number, plane in enumerate(frame.planes):
        down, along = (1, 1) if number == 0 else (rows, columns)
        y = (np.arange(plane.height) + 0.5) * down / 40 - 0.5 * (down > 1) / 40
        x = np.arange(plane.width) * along / 30  # colours sit on the left one of the pixels that share them (MPEG-2)
        values = 120 + 50 * np.sin(y[:, None] + number) * np.cos(x[None, :] - number)
        planes.append(np.rint(values).astype(np.uint8))
        buffer = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        buffer[:, : plane.width] = planes[-1]
    return frame, planes


def exact_square(planes: list[np.ndarray], height: int, width: int, size: int) -> np.ndarray:
    """ITU-R BT.601 with floats, colours brought up by bilinear interpolation, then Pillow: `(3, size, size)`."""

    def up(plane):
        return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))

    light = (planes[0].astype(np.float32) - 16) * 255 / 219
    blue, red = ((up(plane) - 128) * 255 / 224 for plane in planes[1:])
    channels = light + 1.402 * red, light - 0.344136 * blue - 0.714136 * red, light + 1.772 * blue
    side = min(height, width)
    x, y = (width - side) / 2, (height - side) / 2
    box = (x, y, x + side, y + side)
    images = [Image.fromarray(channel.clip(0, 255).astype(np.float32)) for channel in channels]
    return np.stack([np.asarray(i.resize((size, size), Image.Resampling.BILINEAR, box=box)) for i in images])


@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (240, 322), (240, 321)])  # margins whole, odd, and halves
def test_squares_are_exact(shape, kind):
    frame, planes = frame_of(*shape, kind)
    square = np.stack(Converter("clip").square(frame, 112, "crop")).astype(np.float32)
    difference = (square - exact_square(planes, *shape, 112))[:, 1:-1, 1:-1]
    assert np.abs(difference.mean((1, 2))).max() < 0.5  # nothing darkens
    assert np.sqrt((difference**2).mean()) < 1.5 and np.abs(difference).max() < 5


def test_a_cut_frame_keeps_its_colour_space():
    """The same samples mean other colours in BT.709, or with full range; cut or not, they are read alike."""
    found = {}
    for space in (Colorspace.ITU601, Colorspace.ITU709):
        for colours in (ColorRange.MPEG, ColorRange.JPEG):
            means = []
            for width in (64, 48):  # is cut; is square already
                frame = av.VideoFrame(width, 48, "yuv420p")
                for plane, value in zip(frame.planes, (90, 110, 190), strict=True):
                    np.frombuffer(plane, np.uint8)[:] = value
                frame.colorspace, frame.color_range = space, colours
                means.append([float(plane.mean()) for plane in Converter("clip").square(frame, 24, "crop")])
            np.testing.assert_allclose(means[0], means[1], atol=1)
            found[space, colours] = means[0]
    assert len({tuple(np.round(means)) for means in found.values()}) == 4


def test_frames_that_change_in_size_within_a_clip():
    convert = Converter("clip")
    for shape in ((48, 64), (64, 48), (48, 64), (48, 48), (96, 128)):
        frame, planes = frame_of(*shape, "yuv420p")
        square = np.stack(convert.square(frame, 24, "crop")).astype(np.float32)
        assert np.abs(square - exact_square(planes, *shape, 24))[:, 1:-1, 1:-1].max() < 6
