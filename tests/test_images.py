"""Photos: what is read, what is refused, and what the encoder gets to see."""

import hashlib
import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from common.errors import UserError
from common.images import (
    IMAGENET_MEAN,
    Preprocessing,
    augment,
    content_hash,
    normalise,
    read_image,
    seeded,
    shown_box,
    to_tensor,
    valid_cells,
)


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards: each pixel tells where it was."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 128)], axis=-1).astype(np.uint8))


def jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    image = gradient(48, 32)
    undo = {  # what turns the upright photo into what a camera stores with this orientation
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = image.transpose(undo[orientation]) if orientation in undo else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    read = read_image(tmp_path / "photo.png")
    assert read.size == (48, 32)
    assert np.array_equal(np.asarray(read), np.asarray(image))


def test_every_mode_becomes_rgb(tmp_path):
    grey = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (8, 1))
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    plain = Image.fromarray(as_rgb)
    images = {
        "L": Image.fromarray(grey),
        "RGBA": plain.convert("RGBA"),
        "LA": Image.fromarray(grey).convert("LA"),
        "P": Image.fromarray(grey).convert("P"),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 257),
    }
    for mode, image in images.items():
        assert image.mode == mode
        image.save(tmp_path / "photo.png")
        assert np.array_equal(np.asarray(read_image(tmp_path / "photo.png")), as_rgb), mode
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "photo.tif")
    assert np.array_equal(np.asarray(read_image(tmp_path / "photo.tif")), as_rgb)
    plain.convert("CMYK").save(tmp_path / "photo.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "photo.jpg")).astype(int) - as_rgb).max() < 12


def test_transparent_is_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(read_image(tmp_path / "clear.png")).min() == 255
    palette = Image.new("P", (4, 4), 3)
    palette.putpalette([0, 0, 0] * 256)
    palette.save(tmp_path / "palette.png", transparency=3)
    assert np.asarray(read_image(tmp_path / "palette.png")).min() == 255


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "moving.gif").getpixel((0, 0)) == (255, 0, 0)


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "dot.png")
    image = read_image(tmp_path / "dot.png")
    for resize in ("crop", "squash", "pad"):
        pixels, valid = to_tensor(image, Preprocessing(size=16, resize=resize))
        assert pixels.flatten(1).unique(dim=1).tolist() == [[10], [20], [30]]
        assert valid == (0, 0, 1, 1)


def test_shrinking_keeps_both_sides_large_enough(tmp_path):
    gradient(1600, 1000).save(tmp_path / "big.jpg", quality=95)
    small = read_image(tmp_path / "big.jpg", shrink_to=250)
    assert small.size == (400, 250)
    whole = read_image(tmp_path / "big.jpg")
    assert whole.size == (1600, 1000)
    preprocessing = Preprocessing(size=64)
    difference = to_tensor(small, preprocessing)[0].int() - to_tensor(whole, preprocessing)[0].int()
    assert difference.abs().max() <= 3


def hostile() -> dict[str, bytes]:
    good = jpeg(gradient(64, 64))
    buffer = io.BytesIO()
    gradient(64, 64).save(buffer, "PNG")
    png = buffer.getvalue()
    return {
        "empty.jpg": b"",
        "text.jpg": "món này là món gì".encode(),
        "html.png": b"<!doctype html><html></html>",
        "truncated.jpg": good[: len(good) // 2],
        "header-only.jpg": good[:30],
        "truncated.png": png[: len(png) // 2],
        "damaged.png": png[:60] + bytes(40) + png[100:],
        "no-pixels.png": png[:16] + bytes(8) + png[24:],
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "nonsense.gif": b"GIF89a" + bytes(range(200)),
        "nonsense.tif": b"II*\x00" + bytes(range(255, 55, -1)),
        "nonsense.bmp": b"BM" + bytes(200),
        "nonsense.webp": b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(50),
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_bytes_are_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(hostile()[name])
    with pytest.raises(UserError) as refusal:
        read_image(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_any_damage_is_read_or_refused(tmp_path):
    """Bytes changed at random: an image or a UserError, never anything else."""
    random = np.random.default_rng(0)
    path, read, refused = tmp_path / "photo", 0, 0
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        buffer = io.BytesIO()
        gradient(24, 16).save(buffer, kind)
        for _ in range(40):
            damaged = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            damaged[random.integers(0, len(damaged), 8)] = random.integers(0, 256, 8)
            path.write_bytes(damaged.tobytes())
            try:
                assert read_image(path).mode == "RGB"
                read += 1
            except UserError:
                refused += 1
    assert read > 20 and refused > 20


def test_rare_kinds_are_not_even_tried(tmp_path):
    gradient(8, 8).save(tmp_path / "photo.pcx")
    with pytest.raises(UserError, match="photo.pcx: .*not an image of a known kind: JPEG, PNG"):
        read_image(tmp_path / "photo.pcx")


@pytest.mark.parametrize(("name", "message"), [("absent.jpg", "no such image file"), ("", "is not a file")])
def test_no_file(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        read_image(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        content_hash(tmp_path / name)


def test_too_many_pixels(tmp_path, monkeypatch):
    Image.new("L", (200, 100)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match=r"large.png: 200 x 100 pixels; at most 19,999"):
        read_image(tmp_path / "large.png", max_pixels=19_999)
    assert read_image(tmp_path / "large.png", max_pixels=20_000).size == (200, 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15_000)  # Pillow would warn here; ours is the limit that counts
    assert read_image(tmp_path / "large.png", max_pixels=20_000).size == (200, 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)  # and here it refuses by itself
    with pytest.raises(UserError, match="too many pixels"):
        read_image(tmp_path / "large.png")


def test_damaged_exif_spoils_no_photo(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(jpeg(gradient(32, 16), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f"))
    assert read_image(tmp_path / "photo.jpg").size == (32, 16)


def test_content_hash(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert content_hash(tmp_path / "a.jpg") == hashlib.sha256(b"abc").hexdigest()


# -- preprocessing ----------------------------------------------------------------------------------------------------


def test_preprocessing_survives_json():
    preprocessing = Preprocessing(size=64, resize="pad", mean=(0.5, 0.4, 0.3))
    assert Preprocessing(**json.loads(json.dumps(asdict(preprocessing)))) == preprocessing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size 0: .* from 1 to 4096"),
        ({"size": 64.0}, "size 64.0"),
        ({"resize": "stretch"}, "'stretch': allowed are crop, squash, pad"),
        ({"crop_ratio": 1.5}, "crop_ratio 1.5"),
        ({"mean": (0.5, 0.5)}, "mean .* three numbers"),
        ({"std": (0.5, 0.5, 0)}, "std .* above 0"),
    ],
)
def test_preprocessing_out_of_range(values, message):
    with pytest.raises(UserError, match=message):
        Preprocessing(**values)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (640, 480), (224, 224)])
def test_crop_is_torchvisions(size):
    """The preprocessing ImageNet weights were published with, but for rounding to whole pixels in between."""
    image = gradient(*size)
    pixels, valid = to_tensor(image, Preprocessing())
    usual = v2.functional.center_crop(v2.functional.resize(image, [256], antialias=True), [224])
    assert pixels.shape == (3, 224, 224) and pixels.dtype == torch.uint8 and valid == (0, 0, 1, 1)
    assert (pixels.int() - v2.functional.pil_to_tensor(usual).int()).abs().max() <= 2


def test_squash_keeps_the_borders_and_crop_does_not():
    image = gradient(100, 50)
    squashed = to_tensor(image, Preprocessing(size=32, resize="squash"))[0]
    cropped = to_tensor(image, Preprocessing(size=32))[0]
    assert squashed[0].min() < 6 and squashed[0].max() > 249
    assert cropped[0].min() > 60 and cropped[0].max() < 195


def test_a_line_needs_no_giant_in_between():
    pixels, valid = to_tensor(Image.new("RGB", (1, 60_000), "red"), Preprocessing())
    assert pixels.shape == (3, 224, 224) and pixels[0].min() == 255
    pixels, valid = to_tensor(Image.new("RGB", (1, 60_000), "red"), Preprocessing(resize="pad"))
    assert valid[3] == 1 and valid[2] - valid[0] == pytest.approx(1 / 224)


def test_padding_shows_the_whole_photo_and_says_where():
    preprocessing = Preprocessing(size=64, resize="pad")
    pixels, valid = to_tensor(Image.new("RGB", (80, 40), (255, 0, 0)), preprocessing)
    assert valid == (0, 0.25, 1, 0.75)
    assert (pixels[:, 16:48] == torch.tensor([255, 0, 0])[:, None, None]).all()
    fill = torch.tensor([round(255 * m) for m in IMAGENET_MEAN])[:, None, None]
    assert (pixels[:, :16] == fill).all() and (pixels[:, 48:] == fill).all()
    assert normalise(pixels[None], preprocessing)[0, :, :16].abs().max() < 0.01


@pytest.mark.parametrize("photo", [(80, 40), (40, 80), (50, 50)])
@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_the_shown_box_is_what_the_square_shows(photo, resize):
    """A point of the photo is found in the square where the box says."""
    preprocessing = Preprocessing(size=64, resize=resize)
    pixels, _ = to_tensor(gradient(*photo), preprocessing)
    x0, y0, x1, y1 = shown_box(photo, preprocessing)
    column, row = (
        round((photo[0] / 2 + 5 - x0) / (x1 - x0) * 64 - 0.5),
        round((photo[1] / 2 + 3 - y0) / (y1 - y0) * 64 - 0.5),
    )
    red, green, _ = pixels[:, row, column].tolist()
    assert red == pytest.approx((photo[0] / 2 + 5) / photo[0] * 255, abs=5)
    assert green == pytest.approx((photo[1] / 2 + 3) / photo[1] * 255, abs=5)


def test_normalise():
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    preprocessing = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    normal = normalise(pixels, preprocessing)
    torch.testing.assert_close(
        normal, v2.functional.normalize(pixels.float() / 255, preprocessing.mean, preprocessing.std)
    )
    assert normal.is_contiguous(memory_format=torch.channels_last) and pixels.dtype == torch.uint8
    with pytest.raises(TypeError, match="uint8"):
        normalise(normal, preprocessing)


def test_valid_cells_by_hand():
    boxes = torch.tensor([[0, 0, 1, 1], [0, 0.25, 1, 0.75], [0.49, 0, 0.51, 1], [0.9, 0.9, 0.901, 0.901]])
    cells = valid_cells(boxes, 4, 4).unflatten(1, (4, 4))
    assert cells[0].all()
    assert cells[1].tolist() == [[False] * 4, [True] * 4, [True] * 4, [False] * 4]
    assert cells[2].tolist() == [[False, False, True, False]] * 4  # thinner than a cell, as tall as the grid
    assert cells[3].nonzero().tolist() == [[3, 3]]


def test_valid_cells_hold_only_photo():
    """Whatever the photo's shape: a cell that is called valid shows photo at its centre, and never none are."""
    for width, height in [(1, 1000), (1000, 1), (3, 2), (480, 640), (224, 224)]:
        preprocessing = Preprocessing(size=70, resize="pad")
        pixels, valid = to_tensor(Image.new("RGB", (width, height), (0, 0, 0)), preprocessing)
        cells = valid_cells(torch.tensor([valid]), 7, 7)[0].unflatten(0, (7, 7))
        photo = (pixels == 0).all(0)  # (70, 70)
        assert cells.any()
        shows = photo.unflatten(0, (7, 10)).unflatten(2, (7, 10)).any(1).any(2)  # any pixel of the cell
        assert not (cells & ~shows).any()
        assert (cells | ~photo[5::10, 5::10]).all()


# -- training views ---------------------------------------------------------------------------------------------------


def test_views_are_deterministic_and_differ():
    preprocessing = Preprocessing(size=32)
    view, image = augment(("crop", "color", "blur"), preprocessing), gradient(90, 60)

    def make(*seed: int) -> bytes:
        with seeded(seed):
            return view(image).tobytes()

    assert make(1, 2) == make(1, 2)
    assert len({make(1, number) for number in range(8)}) == 8
    assert make(1, 23) != make(12, 3)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    make(5)
    assert torch.equal(torch.rand(3), expected)  # nobody outside notices


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_a_view_goes_where_a_photo_goes(resize):
    preprocessing = Preprocessing(size=32, resize=resize)
    for names in [(), ("crop",), ("flip",), ("color",), ("color", "crop", "flip", "blur")]:
        pixels, valid = to_tensor(augment(names, preprocessing)(gradient(90, 60)), preprocessing)
        assert pixels.shape == (3, 32, 32)
        if "crop" in names:
            assert valid == (0, 0, 1, 1)
    # of the size that to_tensor starts from, which is larger where it takes the centre: nothing is magnified twice
    view = augment(("crop",), preprocessing)(gradient(90, 60))
    assert view.size == ((37, 37) if resize == "crop" else (32, 32))


def test_what_each_augmentation_changes():
    preprocessing, image = Preprocessing(size=32, resize="squash"), gradient(60, 60)
    assert augment((), preprocessing)(image) is image
    assert augment(("flip", "turn"), preprocessing)(image).tobytes() == image.tobytes()  # common/symmetry.py's work
    crop = augment(("crop",), preprocessing)
    for _ in range(10):
        red = np.asarray(crop(image))[..., 0].astype(int)
        assert red.shape == (32, 32) and 0.6 * 255 < red.max() - red.min() + 16  # at least half of the area
    hue = Image.new("RGB", (8, 8), (200, 40, 40))
    for _ in range(10):  # a red thing stays red
        red, green, blue = augment(("color",), preprocessing)(hue).getpixel((0, 0))
        assert red > 2 * green and abs(green - blue) <= 1


def test_unknown_augmentation():
    with pytest.raises(UserError, match="'rotate'; allowed: crop, flip, turn, color, blur"):
        augment(("crop", "rotate"), Preprocessing())


def test_size_changes_by_replace():
    assert replace(Preprocessing(), size=96).size == 96
    with pytest.raises(UserError):
        replace(Preprocessing(), size=-1)
