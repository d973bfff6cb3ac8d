"""A photo's way into an exported model, in lines of Python that need Pillow and NumPy alone.

Belongs here: what `common.images.to_tensor` does, as text for a model card. Reading odd files safely is
`common/images.py`'s, and not in it.
"""

from common.images import Preprocessing

IMPORTS = ("import json", "import numpy as np", "import onnxruntime", "from PIL import Image, ImageOps")
OPEN = (
    'about = json.load(open("description.json", encoding="utf-8"))',
    'session = onnxruntime.InferenceSession("model.onnx")',
)


def photo_lines(preprocessing: Preprocessing) -> list[str]:
    """Lines that make `pixels (1, 3, S, S)` uint8 of the file photo.jpg; where the square is padded, `valid (1, 4)`."""
    size, bilinear = preprocessing.size, "Image.Resampling.BILINEAR"
    lines = ['photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")']
    if preprocessing.resize == "squash":
        lines += [f"photo = photo.resize(({size}, {size}), {bilinear})"]
    elif preprocessing.resize == "crop":
        lines += [
            f"side = min(photo.size) * {size} / {round(size / preprocessing.crop_ratio)}",
            "x, y = ((length - side) / 2 for length in photo.size)",
            f"photo = photo.resize(({size}, {size}), {bilinear}, box=(x, y, x + side, y + side))",
        ]
    else:
        color = tuple(round(255 * min(max(mean, 0), 1)) for mean in preprocessing.mean)
        lines += [
            f"width, height = (max(1, round(side * {size} / max(photo.size))) for side in photo.size)",
            f"x, y = ({size} - width) // 2, ({size} - height) // 2",
            f'square = Image.new("RGB", ({size}, {size}), {color})',
            f"square.paste(photo.resize((width, height), {bilinear}), (x, y))",
            f"photo, valid = square, np.array([[x, y, x + width, y + height]], np.float32) / {size}",
        ]
    return [*lines, f"pixels = np.asarray(photo).transpose(2, 0, 1)[None]  # (1, 3, {size}, {size}) uint8"]


def about_photo(preprocessing: Preprocessing) -> dict[str, object]:
    """The same in words, for `description.json`."""
    how = {
        "squash": "the whole photo, its proportions lost",
        "crop": f"the centre square of size / round(size / {preprocessing.crop_ratio}) of the shorter side",
        "pad": "the whole photo in its proportions, centred; the rest of the square has the mean colour",
    }
    return {
        "size": preprocessing.size,
        "resize": preprocessing.resize,
        "how": how[preprocessing.resize] + "; bilinear with antialiasing (Pillow's BILINEAR)",
        "layout": "red, green, blue planes, 0-255; normalisation is in the model",
        "mean": list(preprocessing.mean),
    }


def spread(count: int, wanted: int) -> list[int]:
    """So many places of `count`, evenly spread, the first and the last among them."""
    return sorted({round(place * (count - 1) / max(1, wanted - 1)) for place in range(min(count, wanted))})
