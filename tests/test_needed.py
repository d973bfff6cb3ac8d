"""Frames of MPEG-4 and H.264 clips are the same, bit for bit, whether all is decoded or only what they need."""

from fractions import Fraction

import av
import numpy as np
import pytest

from video import decode, needed
from video.decode import read_clip
from video.sampling import Sampling

KINDS = {"every I": (1, 0), "short": (12, 0), "long": (300, 0), "B": (12, 2), "long B": (300, 2)}
SAMPLINGS = {
    "uniform": Sampling(frames=7),
    "first": Sampling(kind="first", frames=9),
    "stride": Sampling(kind="stride", frames=5, stride=4),
    "last": Sampling(frames=1),
    "all": Sampling(kind="all", frames=1),
}


def write_moving(path, gop: int, b_pictures: int, count: int = 50, codec: str = "mpeg4"):
    """A bright square that jumps about on noise: no frame is like another, but not so unlike that it becomes an I."""
    noise = np.random.default_rng(0).integers(60, 90, (64, 96, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": str(gop), "bf": str(b_pictures)})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 64, "yuv420p", 1_000_000
        stream.codec_context.thread_count = 1
        for number in range(count):
            image = noise.copy()
            x, y = 7 * number % 80, 5 * number % 48
            image[y : y + 16, x : x + 16] = 255
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p", threads=1)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def decoded(monkeypatch):
    """How many frames were decoded, in each pass over a clip."""
    passes, all_frames = [], decode._decoded

    def counted(*arguments):
        passes.append(0)
        for frame in all_frames(*arguments):
            passes[-1] += 1
            yield frame

    monkeypatch.setattr(decode, "_decoded", counted)
    return passes


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_the_whole_clip(tmp_path, decoded, kind, sampling):
    path = write_moving(tmp_path / "clip.avi", *KINDS[kind])
    clip, whole = (read_clip(path, SAMPLINGS[sampling], size=32, full=full) for full in (False, True))
    assert clip.count == whole.count == 50 and (clip.indices == whole.indices).all()
    assert (clip.frames == whole.frames).all()
    assert len(decoded) == 2 and decoded[0] <= decoded[1] == 50


h264 = pytest.mark.skipif("libx264" not in av.codecs_available, reason="PyAV was built without an encoder of H.264")


@h264
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_h264_are_those_of_the_whole_clip(tmp_path, decoded, kind, sampling):
    path = write_moving(tmp_path / "clip.mp4", *KINDS[kind], codec="libx264")
    clip, whole = (read_clip(path, SAMPLINGS[sampling], size=32, full=full) for full in (False, True))
    assert clip.count == whole.count == 50 and (clip.indices == whole.indices).all()
    assert (clip.frames == whole.frames).all()
    assert len(decoded) == 2 and decoded[1] == 50
    assert decoded[0] < 45 or "B" not in kind or sampling in ("first", "all")


@h264
def test_damaged_h264_is_decoded_whole(tmp_path, decoded):
    """Whatever comes of it, no frame is another than that of the whole clip with the same number of frames."""
    whole_bytes = bytearray(write_moving(tmp_path / "clip.mp4", 12, 2, codec="libx264").read_bytes())
    chance, tried = np.random.default_rng(0), 0
    for _ in range(12):
        broken = bytearray(whole_bytes)
        place = int(chance.integers(2000, len(broken) - 4000))
        broken[place : place + 8] = chance.bytes(8)
        (tmp_path / "broken.mp4").write_bytes(broken)
        sampling = Sampling(kind="stride", frames=25, stride=6)
        clip, whole = (read_clip(tmp_path / "broken.mp4", sampling, size=32, full=full) for full in (False, True))
        if clip.count == whole.count:
            tried += 1
            assert (clip.indices == whole.indices).all() and (clip.frames == whole.frames).all()
    assert tried > 6


def test_times_that_tell_no_frame(tmp_path):
    packets, _ = packets_of(write_moving(tmp_path / "clip.avi", 12, 0, count=5))
    for number, packet in enumerate(packets):
        packet.pts = number
    assert needed.shown_times(packets) == [0, 1, 2, 3, 4]
    packets[2].pts = 1
    assert needed.shown_times(packets) is None  # twice
    packets[2].pts = None
    assert needed.shown_times(packets) is None
    packets[2].pts = -1
    assert needed.shown_times(packets) is None  # shown before the first one


def test_what_nobody_needs_is_not_decoded(tmp_path, decoded):
    for kind, most in (("every I", 7), ("short", 40), ("B", 35), ("long B", 30)):
        read_clip(write_moving(tmp_path / "clip.avi", *KINDS[kind]), SAMPLINGS["uniform"], size=32)
        assert decoded.pop() <= most, kind


def packets_of(path):
    container = av.open(str(path))
    stream = container.streams.video[0]
    return [packet for packet in container.demux(stream) if packet.size], stream


def test_closure_by_hand(tmp_path):
    """Stored I0 P3 B1 B2 P6 B4 B5 …, numbered as shown."""
    packets, stream = packets_of(write_moving(tmp_path / "clip.avi", 300, 2, count=10))
    assert [needed._pictures(packet) for packet in packets] == list("IPBBPBBPBB")
    for wanted, numbers in (
        ([0], [0]),
        ([1], [0, 1, 3]),
        ([3], [0, 3]),
        ([5], [0, 3, 5, 6]),
        ([2, 4], [0, 2, 3, 4, 6]),
    ):
        kept, known = needed.needed_packets(packets, stream, wanted)
        assert known == numbers and len(kept) == len(numbers)


def test_what_cannot_be_told_is_decoded_whole(tmp_path, decoded):
    """A picture too small to hold any block, a first picture that needs another: as many frames as decode."""
    path = write_moving(tmp_path / "clip.avi", 300, 0)
    packets, stream = packets_of(path)
    assert needed.needed_packets(packets[1:], stream, [0]) is None
    nothing_new = needed._PICTURE + b"\x50\0"  # "not coded": decodes to no frame, however much stands before it
    for prefix in (b"", b"\0\0\1\xb2" + b"x" * 40):
        assert needed.needed_packets([*packets, av.Packet(prefix + nothing_new)], stream, [0]) is None
    assert needed.needed_packets([*packets, av.Packet(b"\0" * 40)], stream, [0]) is None


def test_a_needed_picture_that_does_not_decode_shows(tmp_path, decoded):
    path = write_moving(tmp_path / "clip.avi", 1, 0)
    stored = path.read_bytes()
    parts = stored.split(needed._PICTURE)
    parts[11] = b"\xff" * len(parts[11])  # frame 10, whatever it was
    path.write_bytes(needed._PICTURE.join(parts))
    clip = read_clip(path, Sampling(kind="stride", frames=5, stride=10), size=32)
    whole = read_clip(path, Sampling(kind="stride", frames=5, stride=10), size=32, full=True)
    assert len(clip.frames) == 5 and (clip.indices == whole.indices).all() and (clip.frames == whole.frames).all()


def test_a_damaged_picture_is_mended_as_in_the_whole_clip(tmp_path, decoded):
    """A decoder fills what is missing from whatever it decoded before, even of a picture that stands alone."""
    chance = np.random.default_rng(0)
    for kind in ("every I", "short", "long"):
        parts = write_moving(tmp_path / "clip.avi", *KINDS[kind]).read_bytes().split(needed._PICTURE)
        for number in (6, 24, 48):
            broken = bytearray(parts[1 + number])
            broken[len(broken) // 3 : len(broken) // 3 + 8] = chance.bytes(8)
            (tmp_path / "broken.avi").write_bytes(
                needed._PICTURE.join([*parts[: 1 + number], bytes(broken), *parts[2 + number :]])
            )
            sampling = Sampling(kind="stride", frames=25, stride=6)
            clip, whole = (read_clip(tmp_path / "broken.avi", sampling, size=32, full=full) for full in (False, True))
            assert (clip.indices == whole.indices).all() and (clip.frames == whole.frames).all()
    assert len(decoded) > 18  # those damaged were decoded again, whole


def test_packed_real_clips(real_data, decoded):
    """XviD's "packed bitstream": two pictures in a packet, and an empty one after it."""
    paths = sorted((real_data / "ucf101_clips").rglob("*.avi")) if (real_data / "ucf101_clips").is_dir() else []
    if not paths:
        pytest.skip("../shared/data/ucf101_clips is not here")
    packed = [path for path in paths if any(needed._pictures(packet) == "PB" for packet in packets_of(path)[0])]
    for path in packed[:2] + paths[-2:]:
        clip, whole = (read_clip(path, Sampling(frames=16), size=64, full=full) for full in (False, True))
        assert clip.count == whole.count and (clip.frames == whole.frames).all()
        part, all_of_it = decoded[-2:]
        assert part < 0.7 * all_of_it if path in packed else part <= all_of_it
