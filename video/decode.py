"""A clip's file to the frames that were asked for, upright, as uint8 RGB; damaged and odd files told from each other.

Belongs here: opening files, reading packets and decoding them, through PyAV. Does not belong here: which frames
(`video/sampling.py`), their pixels (`video/pixels.py`), what is varied in training (`video/augment.py`), and where the
clips are (`video/data.py`).

A clip is read once and decoded from its start, on one thread, and no further than its last wanted frame; of MPEG-4 and
of H.264, only what the wanted frames need is decoded (`video/needed.py`). Frames are known by number, not by time, so a
variable frame rate needs no care. One thread, because loading has a process per core already, and FFmpeg's frame
threads can deadlock when decoding is left early. FFmpeg's own messages stay silent, as PyAV keeps them unless
`av.logging.set_level` says otherwise: nothing is set here.
"""

import ctypes
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
from av.video.stream import VideoStream

from common.errors import UserError, reason
from video import needed
from video.pixels import Converter, upright
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
HELD_BYTES = 32 * 2**20
"""Packets of so many bytes are kept while they are counted; a larger file is read a second time to be decoded."""
_PACKET = 1024  # bytes that a packet takes beside its data


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
        next(_decoded(path, _packets(path, container, stream), stream))
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
    bilinear filter, which widens with the reduction (antialiased as Pillow's), in one step with the conversion to RGB.
    The square is cut before that where it can be (`CUT_FORMATS`, margins of whole colour samples); else the whole frame
    is brought to `size` at its shorter side, then its centre is taken. Pixels count as square.

    If fewer frames decode than the packets promised (a damaged file), the sampling is made again with the true
    number and what is missing is read in a second pass. `full` decodes to the end in any case, so that `Clip.count` is
    exact.
    Raises `UserError` that names the file and the reason, whatever bytes it holds.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 4096:
        raise UserError(f"frame size {size!r}: give whole pixels from 1 to 4096")
    if resize not in RESIZES:
        raise UserError(f"frame resize {resize!r}: allowed are {', '.join(RESIZES)}")
    most = MAX_HELD // (3 * size * size)
    held = np.empty(0, dtype=np.int64)
    with ExitStack() as files:
        container, stream = files.enter_context(_opened(path))
        count, packets = _promised(path, container, stream)
        count = count or _count(path)
        for _ in range(2):
            indices = sampling.indices(count, generator)
            wanted = np.unique(indices[indices != BLACK])
            if len(wanted) > most:
                raise UserError(
                    f"{path}: {len(wanted):,} frames of {size} pixels were asked for; at most {most:,} are held"
                )
            if not np.array_equal(wanted, held):  # in the second round, they may be just those that were read
                read = None if packets is None else _read_held(path, packets, stream, wanted, size, resize, full)
                files.close()
                if read is None:
                    container, stream = files.enter_context(_opened(path))
                    whole = _decoded(path, _packets(path, container, stream), stream)
                    read = _read(whole, path, wanted, size, resize, full)
                frames, decoded = read
                held, packets = wanted[: len(frames)], None
                files.close()
            if decoded in (None, count):
                break
            count = decoded
        else:
            raise UserError(f"{path}: decodes to another number of frames each time; leave this clip out")
    if BLACK in indices:
        frames = torch.cat([frames, torch.zeros_like(frames[:1])])
    places = np.where(indices == BLACK, len(wanted), np.searchsorted(wanted, indices))
    return Clip(frames=frames, places=torch.from_numpy(places), indices=torch.from_numpy(indices), count=count)


def iterate_frames(path: str | Path) -> Generator[np.ndarray, None, None]:
    """Every frame of a clip in order: (H, W, 3) uint8 RGB, upright, all of the first one's size.

    The file is open until the iterator is used up or closed. Raises `UserError`, at the first frame.
    """
    with _opened(path) as (container, stream):
        convert = Converter(path)
        size: tuple[int, ...] = ()
        for frame in _decoded(path, _packets(path, container, stream), stream):
            size = size or (frame.width, frame.height)
            yield np.stack(upright(convert.rgb(frame, *size), frame), axis=-1)


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
        if count := _promised(path, container, stream)[0]:
            return count
    with _opened(path) as (container, stream):
        return sum(1 for _ in _decoded(path, _packets(path, container, stream), stream))


def _promised(path: str | Path, container: InputContainer, stream: VideoStream) -> tuple[int, list[av.Packet] | None]:
    """How many frames the packets promise, 0 if that can't be told from packets; and the packets, if few enough bytes.

    A list of a few hundred packets costs less than opening and reading the file a second time to decode it.
    """
    if stream.codec_context.field_order not in PROGRESSIVE:
        return 0, None
    vp8 = stream.codec_context.name == "vp8"
    count = size = 0
    held: list[av.Packet] = []
    for packet in _packets(path, container, stream):
        count += not packet.is_discard and not (vp8 and _hidden(packet))
        size += packet.size + _PACKET
        if size <= HELD_BYTES:
            held.append(packet)
        else:
            held.clear()
    return count, held if count and size <= HELD_BYTES else None


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


def _decoded(path: str | Path, packets: Iterable[av.Packet], stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame that decodes, at least one. Packets that don't are passed over, as players do."""
    faults = count = pixels = 0
    problem = ""
    packets = iter(packets)
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


def _read(
    decoded: Iterable[VideoFrame],
    path: str | Path,
    wanted: np.ndarray,
    size: int,
    resize: str,
    full: bool,
) -> tuple[torch.Tensor, int | None]:
    """Those of the `wanted` frames that exist, and how many frames the clip has (None: not decoded to its end)."""
    frames = np.empty((len(wanted), 3, size, size), dtype=np.uint8)
    found = count = 0
    convert = Converter(path)
    for number, frame in enumerate(decoded):
        count = number + 1
        if found == len(wanted) or number != wanted[found]:
            continue
        frames[found, 0], frames[found, 1], frames[found, 2] = upright(convert.square(frame, size, resize), frame)
        found += 1
        if found == len(wanted) and not full:
            return torch.from_numpy(frames), None
    return torch.from_numpy(frames[:found]), count


def _read_held(
    path: str | Path,
    packets: Sequence[av.Packet],
    stream: VideoStream,
    wanted: np.ndarray,
    size: int,
    resize: str,
    full: bool,
) -> tuple[torch.Tensor, int | None] | None:
    """`_read` of all packets of a clip, of which only the needed ones are decoded where these can be told.

    None if one of these is damaged, or not as many frames came out as should have: then it takes the whole clip to tell
    which frame is which, and a damaged one is mended from others, even those that it does not need.
    """
    codec = stream.codec_context.name
    try:
        if full or codec not in (needed.CODEC, needed.SKIPPING):
            return _read(_decoded(path, packets, stream), path, wanted, size, resize, full)
        if codec == needed.SKIPPING:
            if (times := needed.shown_times(packets)) is None:
                return None
            shown = [times[number] for number in wanted]
            chosen = _sound(_decoded(path, _skipping(packets, stream, set(shown)), stream), shown)
            frames, _ = _read(chosen, path, np.arange(len(wanted)), size, resize, False)
            return (frames, None) if len(frames) == len(wanted) else None
        if (plan := needed.needed_packets(packets, stream, wanted.tolist())) is None:
            return None
        kept, numbers = plan
        sound = _sound(_decoded(path, kept, stream))
        frames, decoded = _read(sound, path, np.searchsorted(numbers, wanted), size, resize, True)
        return (frames, None) if decoded == len(kept) else None
    except _Damaged:
        return None


class _Damaged(Exception):
    """A picture did not decode as it was encoded."""


def _skipping(packets: Sequence[av.Packet], stream: VideoStream, shown: set[int]) -> Iterator[av.Packet]:
    """The packets; before each, the decoder is told whether its frame is wanted even if no other needs it."""
    for packet in packets:
        stream.codec_context.skip_frame = "DEFAULT" if packet.pts in shown else "NONREF"
        yield packet


def _sound(frames: Iterator[VideoFrame], shown: Sequence[int] | None = None) -> Iterator[VideoFrame]:
    """The frames, or those with these times in this order. Raises `_Damaged` for one that is, wanted or not."""
    wanted, chosen = iter(shown or ()), set(shown or ())
    try:
        for frame in frames:
            if frame.is_corrupt or (frame.pts in chosen and frame.pts != next(wanted, None)):
                raise _Damaged
            if shown is None or frame.pts in chosen:
                yield frame
    except UserError:  # not one decodes
        raise _Damaged from None


def _hidden(packet: av.Packet) -> bool:
    """Whether a VP8 packet only prepares later ones (RFC 6386, 9.1: the bit show_frame)."""
    return not memoryview(packet)[0] & 0x10


def _unreadable(path: str | Path, why: str) -> UserError:
    return UserError(f"{path}: cannot be read as a video ({why})")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or reason(error)
