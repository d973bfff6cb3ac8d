"""Clips: the frames that come out are those that were asked for, odd clips work, bad ones are refused in one line.

Frame number n of the clips made here is grey of brightness `grey(n)`, so that every frame tells which one it is.
"""

import os
import struct
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import psutil
import pytest
import torch
from av.error import InvalidDataError
from PIL import Image

from common.errors import UserError
from video import decode
from video.decode import count_frames, frame_rate, iterate_frames, read_clip
from video.pixels import Converter, upright
from video.sampling import Sampling

MATRIX_OFFSET = 44
"""Bytes from the name of an MP4's tkhd box to its display matrix (ISO/IEC 14496-12, 8.3.2, version 0)."""


def grey(number: int) -> int:
    return 20 + 5 * number


def numbered(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    return [np.full((height, width, 3), grey(number), np.uint8) for number in range(count)]


def numbers(frames: torch.Tensor) -> list[int]:
    """Which frames `(U, 3, S, S)` are; `grey` read backwards."""
    exact = (frames.float().mean((1, 2, 3)) - 20) / 5
    assert ((exact - exact.round()).abs() < 0.45).all(), exact
    return exact.round().int().tolist()


def write(path, images, codec="mpeg4", pixels="yuv420p", rate=25, options=None, times=None, **opening):
    """A clip of RGB images `(H, W, 3)`; `times` in 1/1000 s for a variable frame rate."""
    with av.open(str(path), "w", **opening) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.thread_count, stream.bit_rate = 1, 5_000_000
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixels, threads=1)
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path, cover: bytes = b""):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        if cover:
            container.add_attachment("cover.jpg", "image/jpeg", cover)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 44100, 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


def photo(height: int, width: int) -> np.ndarray:
    """Something with edges of all directions, soft enough that filters agree on it."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    channels = [np.sin(9 * x + 2 * y), np.cos(7 * y - 3 * x * x), np.sin(12 * x * y + 1)]
    return (127 + 120 * np.stack(channels, -1)).astype(np.uint8)


def lossless(path, images):
    return write(path, images, "ffv1", "bgra")


# -- the right frames -------------------------------------------------------------------------------------------------

CONTAINERS = {
    "a.mp4": ("libx264", "yuv420p"),  # with frames that are stored in another order than shown
    "a.mov": ("png", "rgb24"),
    "a.avi": ("mpeg4", "yuv420p"),
    "b.avi": ("rawvideo", "yuv420p"),
    "c.avi": ("mjpeg", "yuvj420p"),
    "a.webm": ("libvpx", "yuv420p"),
    "b.webm": ("libvpx-vp9", "yuv420p"),
    "a.mkv": ("ffv1", "gray"),
    "a.gif": ("gif", "rgb8"),
    "a.apng": ("apng", "rgb24"),
    "a.ts": ("mpeg2video", "yuv420p"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_sampled_frames_are_the_numbered_ones(tmp_path, name):
    codec, pixels = CONTAINERS[name]
    path = write(tmp_path / name, numbered(40), codec, pixels)
    assert count_frames(path) == 40
    clip = read_clip(path, Sampling(frames=8), size=16)
    assert clip.frames.shape == (8, 3, 16, 16) and clip.frames.dtype == torch.uint8
    assert clip.places.dtype == clip.indices.dtype == torch.int64
    assert clip.count == 40 and clip.indices.tolist() == [2, 7, 12, 17, 22, 27, 32, 37]
    assert numbers(clip.frames[clip.places]) == clip.indices.tolist()
    everything = read_clip(path, Sampling(kind="all"), size=16)
    assert numbers(everything.frames[everything.places]) == list(range(40))


@pytest.mark.parametrize(
    ("short", "indices", "kept"),
    [
        ("mask", [0, 1, 2], 3),
        ("repeat", [0, 1, 2, 2, 2, 2], 3),
        ("loop", [0, 1, 2, 0, 1, 2], 3),
        ("zeros", [0, 1, 2, -1, -1, -1], 4),
    ],
)
def test_each_source_frame_is_kept_once(tmp_path, short, indices, kept):
    clip = read_clip(write(tmp_path / "clip.avi", numbered(3)), Sampling(frames=6, short=short), size=8)
    assert clip.indices.tolist() == indices and len(clip.frames) == kept and clip.count == 3
    sampled = clip.frames[clip.places]
    real = clip.indices >= 0
    assert numbers(sampled[real]) == clip.indices[real].tolist()
    assert (sampled[~real] == 0).all()


def test_random_frames_follow_the_generator(tmp_path):
    path, rule = write(tmp_path / "clip.avi", numbered(40)), Sampling(kind="random", frames=5)
    clip = read_clip(path, rule, size=8, generator=np.random.default_rng(3))
    assert clip.indices.tolist() == rule.indices(40, np.random.default_rng(3)).tolist()
    assert numbers(clip.frames[clip.places]) == clip.indices.tolist()
    assert clip.indices.tolist() != read_clip(path, rule, size=8).indices.tolist()


def test_only_wanted_frames_are_converted_and_none_after_them_decoded(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.avi", numbered(40), "mjpeg", "yuvj420p")
    decoded, converted = [], []
    square, all_frames = Converter.square, decode._decoded

    def counted(*arguments):
        for frame in all_frames(*arguments):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(decode, "_decoded", counted)
    monkeypatch.setattr(Converter, "square", lambda *a: converted.append(a) or square(*a))
    assert read_clip(path, Sampling(kind="stride", frames=4, stride=5), size=8).indices.tolist() == [0, 5, 10, 15]
    assert len(converted) == 4 and len(decoded) == 16
    decoded.clear()
    assert read_clip(path, Sampling(kind="first", frames=1), size=8, full=True).count == len(decoded) == 40


def test_variable_frame_rate_goes_by_number(tmp_path):
    times = [0, 10, 20, 30, 1000, 1500, 4000, 4001, 4002, 9000]
    path = write(tmp_path / "clip.mkv", numbered(10), "ffv1", "gray", times=times)
    clip = read_clip(path, Sampling(frames=5), size=8)
    assert clip.indices.tolist() == [1, 3, 5, 7, 9] == numbers(clip.frames[clip.places])


def test_a_single_frame(tmp_path):
    for name in ("clip.mp4", "clip.gif"):
        path = write(tmp_path / name, numbered(1), *(("gif", "rgb8") if name.endswith("gif") else ()))
        clip = read_clip(path, Sampling(frames=4, short="repeat"), size=8)
        assert clip.count == 1 and clip.places.tolist() == [0, 0, 0, 0] and numbers(clip.frames) == [0]
        assert len(list(iterate_frames(path))) == 1 and frame_rate(path) > 0


def test_twenty_thousand_frames_in_the_memory_of_sixteen(tmp_path, monkeypatch):
    path, shades = tmp_path / "long.mp4", (np.arange(20_000) * 7) % 200 + 20
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width = stream.height = 16
        stream.codec_context.thread_count = 1
        for shade in shades:
            planes = np.full((24, 16), 128, np.uint8)
            planes[:16] = shade
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")))
        container.mux(stream.encode())
    memory, all_frames = [], decode._decoded

    def measured(*arguments):
        for number, frame in enumerate(all_frames(*arguments)):
            if number % 1000 == 500:
                memory.append(psutil.Process().memory_info().rss)
            yield frame

    monkeypatch.setattr(decode, "_decoded", measured)
    clip = read_clip(path, Sampling(frames=16), size=16)
    assert clip.count == 20_000 and clip.indices.tolist() == list(range(625, 20_000, 1250))
    expected = (shades[clip.indices] - 16) * 255 / 219  # luma's 16 to 235
    assert np.abs(clip.frames.float().mean((1, 2, 3)).numpy() - expected).max() < 3
    assert len(memory) == 19 and memory[-1] - memory[0] < 2_000_000  # kept, the frames would take 30 MB


def test_real_clips_count_as_they_decode(real_data):
    folders = [real_data / "ucf101_clips", real_data / "fight"]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.*")) if path.suffix in (".avi", ".mp4")]
    if not paths:
        pytest.skip("no clips here")
    for path in paths[:: max(1, len(paths) // 12)]:
        clip = read_clip(path, Sampling(frames=16), size=112, full=True)
        assert count_frames(path) == clip.count == sum(1 for _ in iterate_frames(path)), path
        assert clip.frames.shape == (16, 3, 112, 112) and clip.frames.float().std() > 10


# -- the right pixels -------------------------------------------------------------------------------------------------


def by_pillow(image: np.ndarray, size: int, resize: str) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    x, y = (width - side) / 2, (height - side) / 2
    box = (x, y, x + side, y + side) if resize == "crop" else (0, 0, width, height)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box)).astype(int)


@pytest.mark.parametrize("shape", [(33, 47), (47, 33), (120, 160), (64, 64), (240, 61)])
@pytest.mark.parametrize("size", [16, 32, 112])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_squares_are_pillows(tmp_path, shape, size, resize):
    image = photo(*shape)
    clip = read_clip(lossless(tmp_path / "clip.mkv", [image]), Sampling(), size=size, resize=resize)
    difference = np.abs(clip.frames[0].permute(1, 2, 0).numpy().astype(int) - by_pillow(image, size, resize))
    # A crop may be stretched by up to a pixel of its square, which shows where these are few; and on the outermost
    # pixels the two do not see the same beyond the edge.
    assert difference.mean() < (1 if resize == "squash" else 0.7 + 30 / size)
    assert difference[1:-1, 1:-1].max() < (2 if resize == "squash" else 3 + 160 / size)


def test_reducing_averages(tmp_path):
    """A fine checkerboard becomes grey; without antialiasing it would stay black and white."""
    board = np.indices((128, 128)).sum(0) % 2 * 255
    path = lossless(tmp_path / "clip.mkv", [np.repeat(board[..., None], 3, 2).astype(np.uint8)])
    assert (read_clip(path, Sampling(), size=16).frames.float() - 127.5).abs().max() < 8


def test_a_ribbon_is_cut_before_it_grows(tmp_path, monkeypatch):
    rgb, pixels = Converter.rgb, []
    monkeypatch.setattr(Converter, "rgb", lambda *a: pixels.append(a[2] * a[3]) or rgb(*a))
    for shape in ((4, 3000), (3000, 4)):
        image = photo(*shape)
        clip = read_clip(lossless(tmp_path / "clip.mkv", [image]), Sampling(), size=64)
        centre = image[:, 1498:1502] if shape[0] == 4 else image[1498:1502]
        difference = clip.frames[0].permute(1, 2, 0).numpy().astype(int) - by_pillow(centre, 64, "crop")
        assert np.abs(difference).max() < 12
    assert max(pixels) <= 12_000  # brought to 64 pixels first, it would be 3 million


@pytest.mark.parametrize(
    ("codec", "pixels", "name"),
    [
        ("mpeg4", "yuv420p", "a.mp4"),
        ("mjpeg", "yuvj420p", "a.avi"),
        ("ffv1", "gray", "a.mkv"),
        ("ffv1", "bgra", "b.mkv"),
    ],
)
def test_black_white_and_colours(tmp_path, codec, pixels, name):
    colours = [(0, 0, 0), (255, 255, 255)]
    if pixels != "gray":
        colours += [(220, 30, 30), (30, 200, 40), (40, 50, 210)]
    path = write(tmp_path / name, [np.full((48, 48, 3), colour, np.uint8) for colour in colours], codec, pixels)
    clip = read_clip(path, Sampling(kind="all", frames=1), size=24)
    assert np.abs(clip.frames.float().mean((2, 3)).numpy() - np.array(colours)).max() < 6


def test_transparent_is_white(tmp_path):
    image = np.zeros((8, 8, 4), np.uint8)
    image[..., 0], image[:, 4:, 3] = 200, 255
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 8, 8, "bgra"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgba").reformat(format="bgra")))
        container.mux(stream.encode())
    (frame,) = iterate_frames(tmp_path / "clip.mkv")
    assert (frame[:, :4] == 255).all() and (frame[:, 4:] == (200, 0, 0)).all()


TURNS = {  # what the display matrix (a, b, c, d) makes of an image: column p, row q go to column ap + cq, row bp + dq
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),  # a phone held upright: clockwise
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image),
    (-1, 0, 0, 1): np.fliplr,  # a phone's front camera
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda image: np.rot90(image, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_turned_and_mirrored_clips_come_upright(tmp_path, matrix):
    image = np.full((32, 64, 3), 100, np.uint8)
    image[:16, :32], image[:16, 32:] = 240, (200, 40, 40)
    path = write(tmp_path / "clip.mp4", [image, image])
    (plain, _), square = iterate_frames(path), read_clip(path, Sampling(), size=16).frames[0].permute(1, 2, 0).numpy()
    stored = bytearray(path.read_bytes())
    a, b, c, d = (value * 65536 for value in matrix)
    struct.pack_into(">9i", stored, stored.index(b"tkhd") + MATRIX_OFFSET, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(stored)
    (upright, _), turn = iterate_frames(path), TURNS[matrix]
    assert np.array_equal(upright, turn(plain))
    turned = read_clip(path, Sampling(), size=16).frames[0].permute(1, 2, 0).numpy()
    assert np.array_equal(turned, turn(square))
    others = [np.array_equal(turned, other(square)) for key, other in TURNS.items() if key != matrix]
    assert not any(others)  # the picture tells all eight apart


def test_rotation_without_a_readable_matrix():
    class Frame:
        rotation = -90

        @property
        def side_data(self):
            raise ValueError("53 is not a valid Type")

    image = photo(4, 6)
    assert np.array_equal(upright([image[..., 0]], Frame())[0], np.rot90(image[..., 0], -1))


# -- odd files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["múa lân.mp4", "a%03d*[1]?.mp4", "concat:x.avi", "http:x.avi", "-i.mp4"])
def test_file_names_are_only_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.rename(write(tmp_path / ("plain" + name[-4:]), numbered(4)), tmp_path / name)
    assert numbers(read_clip(name, Sampling(), size=8).frames) == [0, 1, 2, 3]


def test_metadata_in_any_encoding(tmp_path):
    with av.open(str(tmp_path / "clip.avi"), "w", metadata_encoding="latin-1") as container:
        container.metadata["title"] = "Café à Huế".encode("latin-1", "replace").decode("latin-1")
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")))
        container.mux(stream.encode())
    assert b"Caf\xe9" in (tmp_path / "clip.avi").read_bytes()
    assert read_clip(tmp_path / "clip.avi", Sampling(), size=8).count == 1


def test_frames_that_are_not_shown_do_not_count(tmp_path):
    stored = bytearray(write(tmp_path / "clip.ivf", numbered(12), "libvpx").read_bytes())
    at, number = 32, 0  # IVF: a header of 32 bytes, then frames of (size, time, data)
    while at < len(stored):
        if number in (5, 6):
            stored[at + 12] &= ~0x10  # VP8's show_frame
        at, number = at + 12 + struct.unpack_from("<I", stored, at)[0], number + 1
    (tmp_path / "clip.ivf").write_bytes(stored)
    assert number == 12 and count_frames(tmp_path / "clip.ivf") == 10
    clip = read_clip(tmp_path / "clip.ivf", Sampling(), size=8, full=True)
    assert clip.count == 10 and numbers(clip.frames) == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]


def test_interlaced_clips_are_counted_by_decoding(tmp_path, monkeypatch):
    """Their packets may hold one field each, two to a frame; here they don't, so only the way is seen."""
    whole = write(tmp_path / "whole.mp4", numbered(8), "libx264")
    fields = write(tmp_path / "fields.mp4", numbered(8), "libx264", options={"x264-params": "interlaced=1"})
    decoded, all_frames = [], decode._decoded
    monkeypatch.setattr(decode, "_decoded", lambda path, *rest: decoded.append(path) or all_frames(path, *rest))
    assert decode._count(whole) == decode._count(fields) == 8
    assert decoded == [fields]


def test_frame_rate(tmp_path):
    ntsc = Fraction(30000, 1001)
    assert frame_rate(write(tmp_path / "a.mp4", numbered(3), rate=ntsc)) == ntsc
    assert frame_rate(write(tmp_path / "a.gif", numbered(3), "gif", "rgb8", rate=10)) == 10
    irregular = write(tmp_path / "b.mp4", numbered(9), times=[0, 7, 90, 101, 333, 334, 401, 402, 1009])
    rate = frame_rate(irregular)
    assert 6 < rate < 10 and rate.numerator < 65_536
    write(tmp_path / "copy.mp4", list(iterate_frames(irregular)), rate=rate)
    assert count_frames(tmp_path / "copy.mp4") == 9


def test_iterating_gives_every_frame_and_lets_go_of_the_file(tmp_path):
    path = write(tmp_path / "clip.avi", numbered(6, 33, 47), "ffv1", "bgra")
    frames = list(iterate_frames(path))
    assert [frame.shape for frame in frames] == [(33, 47, 3)] * 6 and frames[0].dtype == np.uint8
    assert [int(frame.mean()) for frame in frames] == [grey(number) for number in range(6)]
    iterator = iterate_frames(path)
    next(iterator)
    assert str(path) in {file.path for file in psutil.Process().open_files()}
    iterator.close()
    read_clip(path, Sampling(kind="first", frames=1), size=8)
    assert str(path) not in {file.path for file in psutil.Process().open_files()}


def test_decoding_starts_no_threads(tmp_path, monkeypatch):
    path, all_frames, threads = write(tmp_path / "clip.mp4", numbered(8, 256, 256), "libx264"), decode._decoded, []

    def watched(*arguments):
        for frame in all_frames(*arguments):
            threads.append(psutil.Process().num_threads())
            yield frame

    monkeypatch.setattr(decode, "_decoded", watched)
    before = psutil.Process().num_threads()
    read_clip(path, Sampling(), size=64)
    assert threads == [before] * 8


# -- damaged files ----------------------------------------------------------------------------------------------------


def damage(path, packets):
    """Make some frames of a clip of PNGs undecodable."""
    parts = path.read_bytes().split(b"IHDR")
    for packet in packets:
        parts[packet] += b"XXXX"
    path.write_bytes(b"".join(p if p.endswith(b"XXXX") else p + b"IHDR" for p in parts[:-1]) + parts[-1])


def test_a_missing_tail_leaves_the_rest(tmp_path):
    path = write(tmp_path / "clip.avi", numbered(40), "rawvideo")
    stored = path.read_bytes()
    path.write_bytes(stored[: len(stored) * 6 // 10])
    clip = read_clip(path, Sampling(frames=8), size=8, full=True)
    assert 15 < clip.count < 30 and len(clip.indices) == 8
    assert clip.indices.tolist() == Sampling(frames=8).indices(clip.count).tolist()
    assert numbers(clip.frames[clip.places]) == clip.indices.tolist()


def test_when_fewer_decode_than_promised_the_sampling_is_made_again(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.avi", numbered(40), "png", "rgb24")
    damage(path, range(30, 40))
    assert count_frames(path) == 40
    rule = Sampling(frames=8)
    clip = read_clip(path, rule, size=8)
    assert clip.count == 30 and clip.indices.tolist() == rule.indices(30).tolist() == numbers(clip.frames)
    reads, read = [], decode._read
    monkeypatch.setattr(decode, "_read", lambda *a: reads.append(a) or read(*a))
    for kind, passes in (("uniform", 2), ("first", 1)):  # the first 36 were all read that there are
        for short in ("mask", "loop", "zeros"):
            rule = Sampling(kind=kind, frames=36, short=short)
            clip = read_clip(path, rule, size=8)
            assert clip.count == 30 and clip.indices.tolist() == rule.indices(30).tolist()
            assert numbers(clip.frames[clip.places][:30]) == list(range(30))
            assert len(clip.frames) == 30 + (short == "zeros")
            assert len(reads) == passes
            reads.clear()


def test_a_damaged_packet_is_passed_over(tmp_path):
    path = write(tmp_path / "clip.avi", numbered(10), "png", "rgb24")
    damage(path, [3])
    clip = read_clip(path, Sampling(), size=8)
    assert clip.count == 9 and numbers(clip.frames) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def bad_clips(folder) -> dict[str, str]:
    """File name: a word of the reason that must be told."""
    (folder / "folder.mp4").mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a clip at all\n" * 300, encoding="utf-8")
    (folder / "text.txt").write_text("not a clip at all\n" * 300, encoding="utf-8")
    (folder / "letter.avi").write_text("a", encoding="utf-8")
    os.mkfifo(folder / "pipe.mp4")
    stream = write(folder / "stream.ts", numbered(3), "mpeg2video")
    (folder / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{stream.name}\n#EXT-X-ENDLIST\n")
    (folder / "list.txt").write_text(f"ffconcat version 1.0\nfile {stream.name}\n")
    write_sound(folder / "sound.mp4")
    write_sound(folder / "album.mkv", (folder / "cover.jpg").read_bytes())
    whole = write(folder / "whole.mp4", numbered(20), "libx264").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index stood at the end
    whole = write(folder / "whole.mkv", numbered(20), "libx264").read_bytes()
    (folder / "cut.mkv").write_bytes(whole[:600])
    picture = bytearray(write(folder / "whole.gif", numbered(2), "gif", "rgb8").read_bytes())
    struct.pack_into("<HH", picture, 6, 11_000, 10_000)
    (folder / "huge.gif").write_bytes(picture)
    return {
        "missing.mp4": "no such video file",
        "http://example.org/clip.mp4": "no such video file",
        "folder.mp4": "not a file",
        "pipe.mp4": "not a file",
        "empty.mp4": "empty",
        "text.mp4": "not a video",
        "text.txt": "not a video",
        "letter.avi": "not a video",
        "list.m3u8": "not a video",
        "list.txt": "not a video",
        "sound.mp4": "only sound",
        "album.mkv": "only sound",
        "cut.mp4": "damaged or cut off",
        "cut.mkv": "not one frame decodes",
        "huge.gif": f"more than {decode.MAX_PIXELS:,} pixels",
    }


def test_bad_clips_are_refused_in_one_line(tmp_path, monkeypatch, capfd):
    Image.new("RGB", (16, 16)).save(tmp_path / "cover.jpg")
    clips = bad_clips(tmp_path)
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    for name, why in clips.items():
        for use in (
            count_frames,
            lambda name: read_clip(name, Sampling(), size=8),
            lambda name: next(iterate_frames(name)),
        ):
            with pytest.raises(UserError) as error:
                use(name)
            message = str(error.value)
            assert message.startswith(f"{name}: ") and why in message and "\n" not in message
        if name not in ("cut.mkv", "huge.gif"):  # their headers can still be read
            with pytest.raises(UserError, match=why):
                frame_rate(name)
    assert capfd.readouterr() == ("", "")


def test_a_tail_of_faults_has_an_end(monkeypatch):
    """A container that answers every call with an error, as some damaged ones do."""
    calls = []

    def demux(stream):
        calls.append(stream)
        raise InvalidDataError(1, "damaged")
        yield

    assert list(decode._packets("clip", SimpleNamespace(demux=demux), None)) == []
    assert len(calls) == decode.MAX_FAULTS


def test_faults_between_good_packets_do_not_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_FAULTS", 3)
    packets, good = iter(range(1, 11)), SimpleNamespace(size=1)

    def demux(stream):
        for number in packets:
            yield good
            if number % 2:
                raise InvalidDataError(1, "damaged")

    assert len(list(decode._packets("clip", SimpleNamespace(demux=demux), None))) == 10
    path = write(tmp_path / "clip.avi", numbered(20), "png", "rgb24")
    damage(path, [2, 3, 6, 7, 10, 11])
    assert read_clip(path, Sampling(), size=8).count == 14
    damage(write(path, numbered(20), "png", "rgb24"), [2, 3, 6, 7, 8, 9])  # four in a row: the rest is given up
    assert numbers(read_clip(path, Sampling(), size=8).frames) == [0, 1, 4, 5]


def test_too_many_frames_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_FRAMES", 10)
    path = write(tmp_path / "clip.avi", numbered(25))
    for use in (count_frames, lambda path: list(iterate_frames(path))):
        with pytest.raises(UserError, match="more than 10 frames"):
            use(path)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (dict(size=0), "frame size 0"),
        (dict(size=True), "frame size True"),
        (dict(size=5000), "frame size 5000"),
        (dict(size=8, resize="pad"), "'pad': allowed are crop, squash"),
    ],
)
def test_bad_values_are_named(tmp_path, values, named):
    with pytest.raises(UserError) as error:
        read_clip(write(tmp_path / "clip.avi", numbered(2)), Sampling(), **values)
    assert named in str(error.value)
