"""Marked clips: the same clip but for a readable band in its corner; refusals that leave nothing behind."""

import resource
import struct
import unicodedata
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest

from common.errors import UserError
from video import render
from video.decode import count_frames, frame_rate, iterate_frames
from video.render import write_marked

TONES = ("", "\u0300", "\u0301", "\u0303", "\u0309", "\u0323")
VOWELS = "aăâeêioôơuưy"


def pictures(count: int, height: int, width: int) -> list[np.ndarray]:
    """Soft, bright pictures that change with their number: a band and black ink stand out, compression hardly does."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = [150 + 60 * np.sin(3 * x + 2 * y + number / 9) for number in range(count)]
    return [np.repeat(plane[..., None], 3, -1).astype(np.uint8) for plane in planes]


def write(path, images, rate=Fraction(25), times=None, codec="mpeg4"):
    """A clip of RGB images; `times` in 1/1000 s for a variable frame rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"qmin": "2", "qmax": "2"} if codec == "mpeg4" else {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p" if codec == "mpeg4" else "rgb24"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frames_of(path) -> np.ndarray:
    """(T, H, W, 3), as differences may be negative int16."""
    return np.stack(list(iterate_frames(path))).astype(np.int16)


def times_of(path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def marked(tmp_path, images, lines, **arguments) -> np.ndarray:
    write_marked(write(tmp_path / "clip.avi", images, **arguments), tmp_path / "marked.mp4", lines, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.avi", "marked.mp4"]
    return frames_of(tmp_path / "marked.mp4")


# -- the clip stays as it is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(1, 2)])
def test_frames_rate_and_picture_stay_but_for_the_corner(tmp_path, monkeypatch, rate, codec):
    monkeypatch.setattr(av, "codecs_available", {codec, "mpeg4"})
    images = pictures(40, 120, 160)
    found = marked(tmp_path, images, ["Punch 97 %"], rate=rate)
    path = tmp_path / "marked.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == {"libx264": "h264"}.get(codec, codec)
        assert stream.codec_context.pix_fmt == "yuv420p"
    assert found.shape == (40, 120, 160, 3) and count_frames(path) == 40
    assert frame_rate(path) == rate
    assert times_of(path) == pytest.approx([number / float(rate) for number in range(40)], abs=1e-3)
    change = np.abs(found - np.stack(images)).mean((0, 3))
    assert change[:12, :40].mean() > 60  # the band
    assert change[30:].max() < 12 and change[:, 120:].max() < 12  # below and beside it


@pytest.mark.parametrize("height, width", [(33, 47), (1, 1), (2, 3), (17, 64), (300, 9)])
def test_odd_sizes_get_one_more_column_or_row(tmp_path, height, width):
    images = pictures(3, height, width)
    found = marked(tmp_path, images, ["Punch 97 %"], codec="png")
    assert found.shape == (3, height + height % 2, width + width % 2, 3)
    lower, right = found[:, height // 2 :, width // 2 :][:, -1], found[:, height // 2 :][:, :, -1]
    assert min(lower.min(), right.min()) > 60 or height < 20  # copies of the last row and column, not black


def test_a_variable_frame_rate_keeps_the_length(tmp_path):
    times = [0, 40, 80, 120, 600, 640, 1500, 1540, 1580, 2000]
    source = write(tmp_path / "clip.mp4", pictures(10, 48, 64), times=times)
    write_marked(source, tmp_path / "marked.mp4", ["Punch"])
    found = times_of(tmp_path / "marked.mp4")
    assert len(found) == 10 and found[-1] == pytest.approx(2, rel=0.15)


def test_a_turned_clip_is_written_upright(tmp_path):
    source = write(tmp_path / "clip.mp4", pictures(3, 48, 96))
    stored = bytearray(source.read_bytes())
    place = stored.index(b"tkhd") + 44  # the display matrix (ISO/IEC 14496-12, 8.3.2)
    struct.pack_into(">4i", stored, place, 0, 1 << 16, 0, -1 << 16)
    struct.pack_into(">i", stored, place + 16, 0)
    source.write_bytes(stored)
    upright = frames_of(source)
    write_marked(source, tmp_path / "marked.mp4", ["P"])
    with av.open(str(tmp_path / "marked.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.height, frame.width, frame.rotation) == (96, 48, 0)
    change = np.abs(frames_of(tmp_path / "marked.mp4") - upright).mean((0, 3))
    assert change[:6, :6].mean() > 60 and change[48:].max() < 12


def test_sound_is_dropped(tmp_path):
    source = tmp_path / "clip.mp4"
    with av.open(str(source), "w") as container:
        stream, sound = container.add_stream("mpeg4", rate=25), container.add_stream("aac", rate=44100, layout="mono")
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts = 44100, 0
        for each, frame in ((stream, av.VideoFrame.from_ndarray(pictures(1, 48, 64)[0], "rgb24")), (sound, samples)):
            container.mux(each.encode(frame))
            container.mux(each.encode(None))
    write_marked(source, tmp_path / "marked.mp4", ["Punch"])
    with av.open(str(tmp_path / "marked.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_frames_are_not_gathered(tmp_path, monkeypatch):
    """However long a clip, only the frame in hand is alive."""
    alive = weakref.WeakSet()
    most = 0

    class Counted(np.ndarray):  # a plain array's weak references do not hash
        __hash__ = object.__hash__

    def frames(_):
        nonlocal most
        for image in pictures(100, 32, 32):
            each = image.copy().view(Counted)
            alive.add(each)
            most = max(most, len(alive))
            yield each
            del each

    source = write(tmp_path / "clip.mp4", pictures(1, 32, 32))
    monkeypatch.setattr(render, "iterate_frames", frames)
    write_marked(source, tmp_path / "marked.mp4", lambda seconds: [f"{seconds:.2f}"])
    assert count_frames(tmp_path / "marked.mp4") == 100 and 1 <= most <= 3


# -- the band ---------------------------------------------------------------------------------------------------------


def bands(found: np.ndarray, images) -> list[tuple[int, int]]:
    """Each frame's band: how many rows of the first column, and columns of the first row, it covers."""
    dark = (found - np.stack(images)).mean(-1) < -50
    return [(int(each[:, 0].sum()), int(each[0].sum())) for each in dark]


def test_the_band_grows_with_the_frame(tmp_path):
    heights = []
    for factor in (1, 2, 4):
        images = pictures(1, 120 * factor, 160 * factor)
        heights.append(bands(marked(tmp_path, images, ["Punch"]), images)[0][0] / factor)
    assert 11 <= heights[0] <= 20 and heights == pytest.approx([heights[0]] * 3, rel=0.15)


def test_without_lines_there_is_no_band(tmp_path):
    images = pictures(2, 48, 64)
    assert np.abs(marked(tmp_path, images, []) - np.stack(images)).max() < 25


def test_lines_may_follow_the_time(tmp_path):
    images = pictures(20, 96, 128)
    asked = []

    def lines(seconds: float) -> list[str]:
        asked.append(seconds)
        return [] if seconds < 1 else ["Punch"] if seconds < 2 else ["Punch", "Kick"]

    found = bands(marked(tmp_path, images, lines, rate=Fraction(5)), images)
    assert asked == pytest.approx([number / 5 for number in range(20)])
    one, two = found[5], found[10]
    assert found == [(0, 0)] * 5 + [one] * 5 + [two] * 10
    assert 0 < one[0] < two[0] < 48


def test_a_long_line_is_made_smaller_and_letters_do_not_grow_again(tmp_path):
    images = pictures(3, 240, 160)
    found = marked(tmp_path, images, lambda s: [["Punch"], ["HandstandPushups 97 %"], ["Punch"]][round(25 * s)])
    (high, _), (low, wide), (last, _) = bands(found, images)
    assert high > low == last and 120 < wide <= 160


def test_what_is_too_long_is_cut():
    font = render.lettering(10)
    line = "HandstandPushups 97 %"
    assert render._cut(line, font, font.getlength(line)) == line
    for width in (0, 20, 60, 100):
        cut = render._cut(line, font, width)
        assert cut.endswith("…") and line.startswith(cut[:-1]) and cut[:-1] == cut[:-1].rstrip()
        assert cut == "…" or font.getlength(cut) <= width
    assert len(render._cut(line, font, 100)) > len(render._cut(line, font, 60)) > 5


def test_vietnamese_letters_are_drawn():
    font = render.lettering(20)
    missing = bytes(font.getmask("\uffff"))
    letters = {unicodedata.normalize("NFC", vowel + tone) for vowel in VOWELS for tone in TONES} | {"đ"}
    letters |= {letter.upper() for letter in letters}
    assert len(letters) == 146
    drawn = {bytes(font.getmask(letter)) for letter in letters}
    assert len(drawn) == 146 and missing not in drawn


def test_vietnamese_words_are_on_the_clip(tmp_path):
    images = pictures(1, 120, 160)
    decomposed = unicodedata.normalize("NFD", "Đấm bốc")
    plain, marks, same = (marked(tmp_path, images, [text]) for text in ("Đam bôc", "Đấm bốc", decomposed))
    assert np.array_equal(marks, same)
    assert np.abs(plain - marks).max() > 60


def test_accents_on_capitals_stay_in_the_band():
    band = render._Band()
    image = np.full((400, 400, 3), 100, np.uint8)
    found = band.on(image, ["ẾẪỔgỵ", "ẾẪỔgỵ"])
    height, width = (int((found[:, :, 0] != 100).any(axis).sum()) for axis in (1, 0))
    ink = (found[:height, :width, 0] > 120).any(1)
    assert not ink[0] and not ink[-1] and ink.any()


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_an_existing_target_is_kept_unless_it_may_be_overwritten(tmp_path):
    source, target = write(tmp_path / "clip.mp4", pictures(3, 48, 64)), tmp_path / "marked.mp4"
    target.write_bytes(b"something")
    with pytest.raises(UserError, match="marked.mp4: is there already.*--overwrite"):
        write_marked(source, target, ["Punch"])
    assert target.read_bytes() == b"something"
    write_marked(source, target, ["Punch"], overwrite=True)
    assert count_frames(target) == 3


def test_the_clip_itself_is_never_overwritten(tmp_path):
    source = write(tmp_path / "clip.mp4", pictures(3, 48, 64))
    before = source.read_bytes()
    (tmp_path / "link.mp4").symlink_to(source)
    for target in (source, tmp_path / "link.mp4"):
        with pytest.raises(UserError, match="is the clip itself"):
            write_marked(source, target, ["Punch"], overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    "name, reason",
    [
        ("marked.avi", "written as .mp4"),
        ("marked", "written as .mp4"),
        ("folder.mp4", "is a folder"),
        ("nowhere/marked.mp4", "cannot be written"),
    ],
)
def test_bad_targets(tmp_path, name, reason):
    source = write(tmp_path / "clip.mp4", pictures(3, 48, 64))
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match=reason) as caught:
        write_marked(source, tmp_path / name, ["Punch"], overwrite=True)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["clip.mp4", "folder.mp4"]


def test_one_string_is_not_taken_for_lines(tmp_path):
    with pytest.raises(TypeError, match="list of strings"):
        write_marked(tmp_path / "clip.mp4", tmp_path / "marked.mp4", "Punch")


# -- nothing half-written ---------------------------------------------------------------------------------------------


def test_bad_clips_leave_the_old_target_and_nothing_else(tmp_path):
    clip = write(tmp_path / "clip.avi", pictures(3, 48, 64), codec="png").read_bytes()
    (tmp_path / "clip.avi").unlink()
    (tmp_path / "text.mp4").write_text("not a clip\n" * 99, encoding="utf-8")
    (tmp_path / "damaged.avi").write_bytes(clip.replace(b"IHDR", b"XXXX"))  # opens, but not one frame decodes
    target = tmp_path / "marked.mp4"
    target.write_bytes(b"something")
    before = sorted(path.name for path in tmp_path.iterdir())
    for name in ("text.mp4", "damaged.avi", "missing.mp4"):
        with pytest.raises(UserError, match=name):
            write_marked(tmp_path / name, target, ["Punch"], overwrite=True)
    assert target.read_bytes() == b"something"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_failure_on_the_way_leaves_nothing(tmp_path):
    source = write(tmp_path / "clip.mp4", pictures(9, 48, 64))

    def lines(seconds: float) -> list[str]:
        if seconds > 0.2:
            raise KeyboardInterrupt
        return ["Punch"]

    with pytest.raises(KeyboardInterrupt):
        write_marked(source, tmp_path / "marked.mp4", lines)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_full_disk_is_told_in_one_line(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    source = write(tmp_path / "clip.mp4", list(noise))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # larger files cannot be written
    try:
        with pytest.raises(UserError, match="marked.mp4: cannot be written \\(File too large\\)"):
            write_marked(source, tmp_path / "marked.mp4", ["Punch"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
