"""Photos: read safely, brought to the size an encoder wants, normalised, and varied for training.

Belongs here: everything between a file's bytes and the tensor an encoder takes. Does not belong here: where the files
are and what they mean (the tasks' data modules), nor video frames' decoding.
"""

import hashlib
import io
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms import v2

from common.errors import UserError
from common.jpeg_scans import MOST_SCANS, count_scans

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_PIXELS = 100_000_000
MAX_BYTES = 2**30
"""Of a photo's file: an uncompressed one of so many pixels is smaller."""
_LARGE = 16_000_000  # pixels from which on photos are decoded one at a time, whatever the number of threads
RESIZES = ("crop", "squash", "pad")

# Kinds of picture a photo comes in. A short list on purpose: Pillow has plugins that start other programs (EPS calls
# Ghostscript) and some that nobody has looked at for years, and a data set is other people's bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")

_ONE_LARGE = threading.Lock()
_GENERATOR = threading.RLock()  # torch's, which all threads share


class TooLarge(UserError):
    """A photo of more pixels or bytes than are read."""


def _renew_locks() -> None:
    """A process forked while a thread decodes would wait for ever for that thread, which it does not have."""
    global _ONE_LARGE, _GENERATOR
    _ONE_LARGE, _GENERATOR = threading.Lock(), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a photo becomes the square an encoder's weights were trained on.

    `asdict` and `Preprocessing(**values)` invert each other, through JSON too. Raises `UserError` for a value out of
    range.
    """

    size: int = 224
    """Side of the square, pixels."""
    resize: str = "crop"
    """crop: shorter side to `size / crop_ratio`, then the centre; squash: the whole photo, its proportions lost;
    pad: the whole photo in its proportions, the rest of the square filled with the mean colour."""
    crop_ratio: float = 0.875
    """crop only: how much of the shorter side is kept; ImageNet's usual 224 of 256."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 4096:
            raise UserError(f"image size {self.size!r}: give whole pixels from 1 to 4096")
        if self.resize not in RESIZES:
            raise UserError(f"image resize {self.resize!r}: allowed are {', '.join(RESIZES)}")
        if not (_is_number(self.crop_ratio) and 0 < self.crop_ratio <= 1):
            raise UserError(f"image crop_ratio {self.crop_ratio!r}: give a number above 0, up to 1")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(_is_number, values)):
                raise UserError(f"image {name} {values!r}: give three numbers, for red, green and blue")
            object.__setattr__(self, name, tuple(map(float, values)))  # JSON gives lists
        if min(self.std) <= 0:
            raise UserError(f"image std {self.std!r}: every value must be above 0")


def read_image(path: str | Path, *, shrink_to: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The photo at `path` as an RGB image, upright (EXIF orientation applied); of an animation the first frame.

    Transparent parts become white, grey and CMYK become RGB, 16 bits become 8. `shrink_to` lets a JPEG be decoded at
    1/2, 1/4 or 1/8 of its size, many times faster, as long as both sides stay at least that many pixels.
    Raises `UserError` that names the file and the reason, whatever bytes it holds; `TooLarge` is one.
    """
    path = Path(path)
    try:
        if not path.is_file():  # also keeps us from waiting for ever on a pipe
            raise UserError(f"{path}: " + ("is not a file" if path.exists() else "no such image file"))
        size = path.stat().st_size
    except OSError as error:  # such as a name longer than any
        raise UserError(f"{str(path)[:200]}: cannot be read ({error.strerror})") from None
    if size > MAX_BYTES:
        raise TooLarge(f"{path}: has {size:,} bytes; photos of at most {MAX_BYTES:,} are read")
    return _read(path, str(path), size, shrink_to, max_pixels)


def image_from_bytes(content: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """As `read_image`, of a photo that is no file; `name` is how messages call it."""
    return _read(io.BytesIO(content), name, len(content), None, max_pixels)


def as_photo(photo: str | Path | bytes | Image.Image) -> Image.Image:
    """A photo by its path, by its file's bytes, or as a picture, as `read_image` gives it. Raises `UserError`."""
    if isinstance(photo, Image.Image):
        return _to_rgb(_upright(photo))
    return image_from_bytes(photo, "the photo's bytes") if isinstance(photo, bytes) else read_image(photo)


def _read(source: Path | io.BytesIO, name: str, length: int, shrink_to: int | None, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures and of odd metadata: size is ours to judge, and metadata spoils no pixel.
            warnings.simplefilter("ignore")
            with Image.open(source, formats=FORMATS) as image:
                if not 0 < image.width * image.height <= max_pixels:
                    raise TooLarge(f"{name}: {image.width} x {image.height} pixels; at most {max_pixels:,} are read")
                if image.format in ("JPEG", "MPO"):  # the latter: a JPEG with another behind it
                    _check_scans(source, name)
                if shrink_to is not None:
                    image.draft(None, (shrink_to, shrink_to))  # does nothing unless it is a JPEG
                with _ONE_LARGE if image.width * image.height > _LARGE else nullcontext():
                    image.load()
                    return _to_rgb(_upright(image))
    except UserError:
        raise
    except UnidentifiedImageError:
        reason = "the file is empty" if not length else f"not an image of a known kind: {', '.join(FORMATS)}"
    except Image.DecompressionBombError:
        raise TooLarge(
            f"{name}: cannot be read as an image (too many pixels; at most {max_pixels:,} are read)"
        ) from None
    except Exception as error:  # on damaged bytes a decoder raises nearly anything (struct.error, IndexError, ...)
        reason = " ".join(str(error).split()) or type(error).__name__
    raise UserError(f"{name}: cannot be read as an image ({reason})")


def _check_scans(source: Path | io.BytesIO, name: str) -> None:
    if count_scans(source.getvalue() if isinstance(source, io.BytesIO) else source) > MOST_SCANS:
        raise UserError(
            f"{name}: a JPEG of more than {MOST_SCANS} scans; save it again, as one that is not progressive"
        )


Box = tuple[float, float, float, float]
"""`(x0, y0, x1, y1)`, from the upper left corner."""


def shown_box(photo: tuple[int, int], preprocessing: Preprocessing) -> Box:
    """Where the encoder's square lies on a photo of `(width, height)`, in the photo's pixels.

    With "pad" it reaches beyond the photo: the square shows more than there is.
    """
    width, height = photo
    if preprocessing.resize == "squash":
        return 0.0, 0.0, float(width), float(height)
    if preprocessing.resize == "crop":
        side = min(photo) * preprocessing.size / round(preprocessing.size / preprocessing.crop_ratio)
        x, y = (width - side) / 2, (height - side) / 2
        return x, y, x + side, y + side
    x, y, inner_width, inner_height = _letterbox(photo, preprocessing.size)
    x_scale, y_scale = width / inner_width, height / inner_height
    return -x * x_scale, -y * y_scale, (preprocessing.size - x) * x_scale, (preprocessing.size - y) * y_scale


def to_tensor(image: Image.Image, preprocessing: Preprocessing) -> tuple[torch.Tensor, Box]:
    """An RGB image as `(3, size, size)` uint8, and the part of that square that shows photo, 0 to 1.

    That part is `(0, 0, 1, 1)` unless `resize` is "pad". Resizing is bilinear with antialiasing.
    """
    size, bilinear = preprocessing.size, Image.Resampling.BILINEAR
    if preprocessing.resize != "pad":
        # Cropped before it is resized: the other way round, the usual one, a photo of 1 x 10,000 would need 650 million
        # pixels in between.
        square = image.resize((size, size), bilinear, box=shown_box(image.size, preprocessing))
        return v2.functional.pil_to_tensor(square), (0.0, 0.0, 1.0, 1.0)
    x, y, width, height = _letterbox(image.size, size)
    # the mean colour is zero after normalising, which is what convolutions pad with
    square = Image.new("RGB", (size, size), tuple(round(255 * min(max(m, 0), 1)) for m in preprocessing.mean))
    square.paste(image.resize((width, height), bilinear), (x, y))
    return v2.functional.pil_to_tensor(square), (x / size, y / size, (x + width) / size, (y + height) / size)


def normalise(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """`(N, 3, H, W)` uint8 to float32, `(value / 255 - mean) / std`, device and memory format unchanged."""
    if pixels.dtype != torch.uint8:
        raise TypeError(f"normalise takes uint8 pixels, not {pixels.dtype}: are these normalised already?")
    mean = pixels.new_tensor(preprocessing.mean, dtype=torch.float32)[:, None, None]
    std = pixels.new_tensor(preprocessing.std, dtype=torch.float32)[:, None, None]
    return pixels.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)


def valid_cells(valid: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Which cells of an `h x w` grid show photo: `(N, h * w)` bool, for boxes `(N, 4)` as `to_tensor` gives them.

    A cell counts when its centre lies in the box. However thin the box, it has a row and a column: those that hold its
    middle. Without a single valid cell, attention over the photo would be a softmax over nothing.
    """

    def along(low: torch.Tensor, high: torch.Tensor, cells: int) -> torch.Tensor:  # (N,), (N,) -> (N, cells)
        index = torch.arange(cells, device=valid.device)
        centre = (index + 0.5) / cells
        middle = ((low + high) / 2 * cells).long().clamp(0, cells - 1)
        inside = (centre >= low[:, None]) & (centre <= high[:, None])
        return inside | (index == middle[:, None])

    x0, y0, x1, y1 = valid.unbind(1)
    return (along(y0, y1, h)[:, :, None] & along(x0, x1, w)[:, None, :]).flatten(1)


def content_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex: two photos with the same one are the same photo. Raises `UserError`."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # ValueError: a path that holds a null byte
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def augment(names: Sequence[str], preprocessing: Preprocessing) -> Callable[[Image.Image], Image.Image]:
    """A function that makes a random training view of an RGB image; `to_tensor` follows, as for a plain image.

    crop: a part of 50 to 100 % of the area, brought to the size `to_tensor` starts from; color: brightness, contrast
    and saturation; blur: Gaussian. The hue stays, for a question may ask for a colour. flip and turn are no chance but
    the view's number (`common/symmetry.py`): here they do nothing. The chance is torch's (see `seeded`). Raises
    `UserError` for an unknown name.
    """
    # With "crop", to_tensor takes the centre of what it gets, of a view as of a whole photo.
    ratio = preprocessing.crop_ratio if preprocessing.resize == "crop" else 1
    full = round(preprocessing.size / ratio)
    known = {
        "crop": v2.RandomResizedCrop(full, scale=(0.5, 1.0), antialias=True),
        "flip": v2.Identity(),
        "turn": v2.Identity(),
        "color": v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        "blur": v2.GaussianBlur(kernel_size=5, sigma=(0.1, 2.0)),
    }
    for name in names:
        if name not in known:
            raise UserError(f"unknown augmentation {name!r}; allowed: {', '.join(known)}")
    # in the order of the table, whatever order they were named in: the same names give the same views
    return v2.Compose([transform for name, transform in known.items() if name in names] or [v2.Identity()])


@contextmanager
def seeded(seed: tuple[int, ...]) -> Iterator[None]:
    """Inside, torch's CPU generator starts from `seed` (run, image, view, ...); outside it goes on undisturbed.

    The generator is one for all threads: they come in one after another.
    """
    digest = hashlib.sha256(repr(tuple(seed)).encode()).digest()
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _letterbox(photo: tuple[int, int], size: int) -> tuple[int, int, int, int]:
    """Where a photo of `(width, height)` lies in its padded square: x, y, width, height, in the square's pixels."""
    width, height = (max(1, round(side * size / max(photo))) for side in photo)
    return (size - width) // 2, (size - height) // 2, width, height


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF, of which there is much: the photo itself is sound
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB; transparency over white, and wide greys scaled, which `convert` alone would clip."""
    if image.mode.startswith(("I", "F")):
        values = np.array(image, dtype=np.float32)  # exact up to 2^24, and all here is done in place: it may be large
        np.nan_to_num(values, copy=False, posinf=0, neginf=0)
        if image.mode == "F":  # a float TIFF: 0-1 by habit, else 0-255
            values *= 255 if values.max() <= 1 else 1
        elif image.mode != "I" or values.max() > 255:
            values /= 257  # 65535 to 255
        np.clip(values, 0, 255, out=values).round(out=values)
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
