"""A clip's file to the frames that were asked for, upright, as uint8 RGB; damaged and odd files told from each other.

Belongs here: all reading through PyAV. Does not belong here: which frames (`video/sampling.py`), what is varied in
training (`video/augment.py`), and where the clips are (`video/data.py`).

A clip is decoded from its start, on one thread, and no further than its last wanted frame; only wanted frames become
RGB. Frames are known by number, not by time, so a variable frame rate needs no care. One thread, because loading has a
process per core already, and FFmpeg's frame threads can deadlock when decoding is left early. FFmpeg's own messages
stay silent, as PyAV keeps them unless `av.logging.set_level` says otherwise: nothing is set here.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import ArgumentError, EOFError, ExitError, FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from common.errors import UserError, reason
from video.sampling import BLACK, Sampling

RESIZES = ("crop", "squash")
MAX_PIXELS = 36_000_000
"""Of a frame, 8K and a little: a decoder may hold seventeen at once."""
MAX_DECODED = 200_000_000_000
"""Pixels of all the frames that are decoded for one use of a clip, an hour in 1080p: what bounds the time it takes."""
MAX_FRAMES = 1_000_000
MAX_HELD = 2 * 2**30
"""Bytes of the frames that one clip is sampled to."""
MAX_FAULTS = 1_000
"""Broken packets in a row after which the rest of a file is given up."""
MAX_ALLOCATION = 2**29
"""Bytes that FFmpeg may ask for at once. It believes the number of samples that an index tells, in a few bytes."""
READ_SECONDS = 60
"""How long FFmpeg may look for one packet before the file counts as unreadable."""

# Kinds of container, as FFmpeg names its demuxers (mov is also mp4 and 3gp; matroska is also webm). A short list on
# purpose: others open further files or addresses that they name (hls, concat, dash, image2), or read any text as video
# (tty), and a data set is other people's bytes.
FORMATS = (
    *("mov", "matroska", "avi", "gif", "apng", "mpegts", "mpeg", "mpegvideo", "m4v", "h263", "h264", "hevc", "vc1"),
    *("av1", "obu", "ivf", "mjpeg", "ogg", "flv", "asf", "dv", "mxf", "gxf", "nut", "rm", "wtv", "yuv4mpegpipe"),
)

PROGRESSIVE = (0, 1)
"""FFmpeg's `AVFieldOrder` of a stream whose pictures are whole: unknown and progressive."""
LONG_SIDE = 8
"""From this ratio of the sides on, the centre is cut out before it is resized, for memory's sake."""


def _bound_allocations() -> None:
    """Hand `MAX_ALLOCATION` to the FFmpeg that comes in PyAV's wheel, which PyAV itself has no way to do."""
    inside = Path(av.__file__).parent
    for folder in (inside.parent / "av.libs", inside / ".dylibs"):
        for library in folder.glob("*avutil*"):
            with suppress(OSError, AttributeError):
                ctypes.CDLL(str(library)).av_max_alloc(ctypes.c_size_t(MAX_ALLOCATION))


_bound_allocations()


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """What a sampling took from a clip: `frames[places]` is the sampled clip; each source frame is kept once."""

    frames: torch.Tensor
    """(U, 3, S, S) uint8 RGB, U <= T, by source frame number; a black frame, if the sampling wants one, comes last"""
    places: torch.Tensor
    """(T,) int64, where in `frames` each sampled frame is"""
    indices: torch.Tensor
    """(T,) int64, source frame numbers; -1 is a black frame"""
    count: int
    """how many frames the clip has: exact if decoding came to its end, else as many as its packets promise"""


def count_frames(path: str | Path) -> int:
    """How many frames a clip has, from its packets, decoding only the first (milliseconds); its header is not trusted.

    The number is right unless packets are damaged or hold no picture; only decoding would tell. Clips whose pictures
    may come as two packets of one field each are decoded. Raises `UserError`, also if not one frame decodes.
    """
    with _opened(path) as (container, stream):
        next(_decoded(path, container, stream))
    return _count(path)


def read_clip(
    path: str | Path,
    sampling: Sampling,
    *,
    size: int,
    resize: str = "crop",
    generator: np.random.Generator | None = None,
    full: bool = False,
) -> Clip:
    """The frames of a clip that `sampling` chooses, as squares of `size` pixels.

    crop: the largest centre square; squash: the whole frame, its proportions lost. Either is resized by libswscale's
    bilinear filter, which widens with the reduction (antialiased as Pillow's), in one step with the conversion to RGB:
    the whole frame is brought to `size` at its shorter side, then its centre is taken. Pixels count as square.

    If fewer frames decode than the packets promised (a damaged file), the sampling is made again with the true
    number and what is missing is read in a second pass. `full` decodes to the end in any case, so that `Clip.count` is
    exact.
    Raises `UserError` that names the file and the reason, whatever bytes it holds.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 4096:
        raise UserError(f"frame size {size!r}: give whole pixels from 1 to 4096")
    if resize not in RESIZES:
        raise UserError(f"frame resize {resize!r}: allowed are {', '.join(RESIZES)}")
    count = _count(path)
    most = MAX_HELD // (3 * size * size)
    held = np.empty(0, dtype=np.int64)
    for _ in range(2):
        indices = sampling.indices(count, generator)
        wanted = np.unique(indices[indices != BLACK])
        if len(wanted) > most:
            raise UserError(
                f"{path}: {len(wanted):,} frames of {size} pixels were asked for; at most {most:,} are held"
            )
        if not np.array_equal(wanted, held):  # in the second round, they may be just those that were read
            frames, decoded = _read(path, wanted, size, resize, full)
            held = wanted[: len(frames)]
        if decoded in (None, count):
            break
        count = decoded
    else:
        raise UserError(f"{path}: decodes to another number of frames each time; leave this clip out")
    if BLACK in indices:
        frames = torch.cat([frames, torch.zeros_like(frames[:1])])
    places = np.where(indices == BLACK, len(wanted), np.searchsorted(wanted, indices))
    return Clip(frames=frames, places=torch.from_numpy(places), indices=torch.from_numpy(indices), count=count)


def iterate_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Every frame of a clip in order: (H, W, 3) uint8 RGB, upright, all of the first one's size.

    The file is open until the iterator is used up or closed. Raises `UserError`, at the first frame.
    """
    with _opened(path) as (container, stream):
        convert = _Converter(path)
        size: tuple[int, ...] = ()
        for frame in _decoded(path, container, stream):
            size = size or (frame.width, frame.height)
            yield np.ascontiguousarray(_upright(convert.rgb(frame, *size), frame))


def frame_rate(path: str | Path) -> Fraction:
    """Frames per second, the mean if it varies; 25 if the file doesn't tell. Raises `UserError`.

    As a fraction any encoder takes: MPEG-4 counts time in at most 65,535 steps a second.
    """
    with _opened(path) as (_, stream):
        for rate in (stream.average_rate, stream.guessed_rate):
            if rate and 0 < rate <= 1000:
                return 1 / (1 / Fraction(rate)).limit_denominator(65_535)
    return Fraction(25)


def _count(path: str | Path) -> int:
    """How many frames the packets promise; decoded, if that can't be told from packets."""
    with _opened(path) as (container, stream):
        if stream.codec_context.field_order in PROGRESSIVE:
            vp8 = stream.codec_context.name == "vp8"
            packets = _packets(path, container, stream)
            count = sum(not packet.is_discard and not (vp8 and _hidden(packet)) for packet in packets)
            if count:
                return count
    with _opened(path) as (container, stream):
        return sum(1 for _ in _decoded(path, container, stream))


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    if not os.path.isfile(path):  # also keeps us from waiting for ever on a pipe, and from addresses like http://
        raise UserError(f"{path}: " + ("is not a file" if os.path.exists(path) else "no such video file"))
    if os.path.getsize(path) == 0:
        raise _unreadable(path, "the file is empty")
    limit = {"max_pixels": str(MAX_PIXELS)}  # a decoder refuses larger frames before it allocates them
    try:
        container = av.open(
            os.path.abspath(path),  # FFmpeg takes what stands before a colon for a protocol, unless a / comes first
            options=limit,  # for the decoders that look at the first frames here; ours is given it below
            container_options={"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"},
            metadata_errors="replace",
            timeout=READ_SECONDS,
        )
    except ArgumentError:
        raise _unreadable(path, f"not a video container of a known kind: {', '.join(FORMATS)}") from None
    except (InvalidDataError, EOFError):
        raise _unreadable(path, "not a video, or its header is damaged or cut off") from None
    except (FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, _why(error)) from None
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]  # album covers
        if not streams:
            raise _unreadable(path, "it holds no video" + (", only sound" if container.streams.audio else ""))
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise _unreadable(path, "no decoder for its codec")
        context.thread_type, context.thread_count, context.options = "NONE", 1, limit
        try:
            context.open(strict=False)
        except (FFmpegError, ValueError) as error:
            raise _unreadable(path, f"its decoder does not start: {_why(error)}") from None
        yield container, stream


def _packets(path: str | Path, container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """The packets of a stream that hold data. One that cannot be read is passed over."""
    faults = count = 0
    while faults < MAX_FAULTS:
        try:
            for packet in container.demux(stream):
                if not packet.size:  # to a decoder, an empty packet is the end
                    continue
                faults, count = 0, count + 1
                if count > 2 * MAX_FRAMES:  # two fields each
                    raise UserError(f"{path}: more than {MAX_FRAMES:,} frames; cut it into clips")
                yield packet
            return
        except ExitError:
            raise _unreadable(path, f"nothing came from it for {READ_SECONDS} seconds") from None
        except FFmpegError:
            faults += 1
        except (
            IndexError
        ):  # at the very end, PyAV's demux trips over streams that appeared on the way (damaged MPEG-TS)
            return


def _decoded(path: str | Path, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame that decodes, at least one. Packets that don't are passed over, as players do."""
    faults = count = pixels = 0
    problem = ""
    packets = _packets(path, container, stream)
    end = False
    while not end and faults < MAX_FAULTS:
        packet = next(packets, None)
        end = packet is None  # which is also what makes a decoder give the frames it holds back
        try:
            frames = stream.codec_context.decode(packet)
        except FFmpegError as error:
            faults, problem = faults + 1, f" ({_why(error)})"
            continue
        faults = 0 if frames else faults
        for frame in frames:
            count, pixels = count + 1, pixels + frame.width * frame.height
            if count > MAX_FRAMES:
                raise UserError(f"{path}: more than {MAX_FRAMES:,} frames; cut it into clips")
            if pixels > MAX_DECODED:
                raise UserError(f"{path}: its first {count:,} frames have {pixels:,} pixels; cut it into clips")
            yield frame
    if not count:
        raise UserError(
            f"{path}: not one frame decodes{problem}: the file is damaged or cut off, or its frames have more than "
            f"{MAX_PIXELS:,} pixels"
        )


def _read(path: str | Path, wanted: np.ndarray, size: int, resize: str, full: bool) -> tuple[torch.Tensor, int | None]:
    """Those of the `wanted` frames that exist, and how many frames the clip has (None: not decoded to its end)."""
    frames = torch.empty((len(wanted), 3, size, size), dtype=torch.uint8)
    found = count = 0
    convert = _Converter(path)
    with _opened(path) as (container, stream):
        for number, frame in enumerate(_decoded(path, container, stream)):
            count = number + 1
            if found == len(wanted) or number != wanted[found]:
                continue
            image = np.ascontiguousarray(_upright(convert.square(frame, size, resize), frame))
            frames[found] = torch.from_numpy(image).permute(2, 0, 1)
            found += 1
            if found == len(wanted) and not full:
                return frames, None
    return frames[:found], count


class _Converter:
    """Frames of one clip to RGB arrays; one scaler for all of them, as setting it up costs more than using it."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.scaler = VideoReformatter()

    def rgb(self, frame: VideoFrame, width: int, height: int) -> np.ndarray:
        """`(height, width, 3)` uint8; transparent parts become white, as in photos."""
        alpha = any(component.is_alpha for component in frame.format.components)
        try:
            image = self.scaler.reformat(
                frame, width, height, "rgba" if alpha else "rgb24", interpolation=Interpolation.BILINEAR, threads=1
            ).to_ndarray()
        except (FFmpegError, ValueError) as error:
            raise _unreadable(self.path, f"pixels of the kind {frame.format.name}: {_why(error)}") from None
        if not alpha:
            return image
        opacity = image[..., 3:].astype(np.uint16)
        return ((image[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)

    def square(self, frame: VideoFrame, size: int, resize: str) -> np.ndarray:
        """`(size, size, 3)` uint8, as `read_clip` describes it, not yet upright."""
        width, height = frame.width, frame.height
        short = min(width, height)
        if resize == "squash" or width == height:
            return self.rgb(frame, size, size)
        if max(width, height) > LONG_SIDE * short:
            centre = _centre(self.rgb(frame, width, height), short)
            return self.rgb(VideoFrame.from_ndarray(np.ascontiguousarray(centre), "rgb24"), size, size)
        # as much to the left as to the right: a margin of half pixels would move the picture
        margins = (round((length * size / short - size) / 2) for length in (width, height))
        return _centre(self.rgb(frame, *(size + 2 * margin for margin in margins)), size)


def _centre(image: np.ndarray, side: int) -> np.ndarray:
    y, x = ((length - side) // 2 for length in image.shape[:2])
    return image[y : y + side, x : x + side]


def _upright(image: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """The image `(H, W, 3)` of a frame as it is to be shown: its display matrix (phones turn and mirror) applied.

    The matrix takes source column p and row q to column a·p + c·q and row b·p + d·q (FFmpeg's libavutil/display.h);
    angles between the quarters are taken for the nearest. `VideoFrame.rotation` alone can't tell a mirrored clip.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows no name for some other data beside this frame
        return np.rot90(image, round(frame.rotation / 90))  # both counter-clockwise
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
    if abs(b) > abs(a):
        image, a, d = image.transpose(1, 0, 2), c, b
    if a < 0:
        image = image[:, ::-1]
    return image[::-1] if d < 0 else image


def _hidden(packet: av.Packet) -> bool:
    """Whether a VP8 packet only prepares later ones (RFC 6386, 9.1: the bit show_frame)."""
    return not memoryview(packet)[0] & 0x10


def _unreadable(path: str | Path, why: str) -> UserError:
    return UserError(f"{path}: cannot be read as a video ({why})")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or reason(error)
