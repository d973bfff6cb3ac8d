"""Pictures: curves of a run, and maps over a photo. PNG or SVG by the file's name, drawn without a display.

Belongs here: drawing with matplotlib, and nothing that computes. Imported only where a picture is drawn: matplotlib is
slow to load.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

from common.errors import UserError  # noqa: E402

# Okabe & Ito's palette: told apart by every kind of colour vision.
TRAIN, VALIDATION, ACCENT = "#0072B2", "#D55E00", "#009E73"
matplotlib.rcParams |= {"font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False}


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss, accuracy and learning rate per epoch, from the rows of `history.jsonl`."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for panel, name in zip(panels, ("loss", "accuracy"), strict=False):
        for split, colour in (("train", TRAIN), ("validation", VALIDATION)):
            panel.plot(epochs, [row[f"{split}_{name}"] for row in history], color=colour, marker=".", label=split)
        panel.set(title=name, xlabel="epoch")
        panel.legend(frameon=False)
    panels[2].plot(epochs, [row["learning_rate"] for row in history], color=ACCENT, marker=".")
    panels[2].set(title="learning rate", xlabel="epoch")
    _save(figure, path)


def draw_attention(
    photo: Image.Image,
    maps: np.ndarray,
    box: tuple[float, float, float, float],
    path: Path,
    *,
    title: str,
    words: Sequence[str] = (),
    word_maps: np.ndarray | None = None,
) -> None:
    """The photo, and over it where each glimpse looked.

    `maps (G, h, w)` are attention weights; `box` (x0, y0, x1, y1 in the photo's pixels) is the part of the plane that
    the grid covers. `word_maps (G, T)` are weights over `words`. Either may be empty.
    """
    glimpses = len(maps)
    bars = 0 if word_maps is None else 1
    panels = 1 + glimpses + bars
    figure, axes = plt.subplots(1, panels, figsize=(3.2 * panels, 3.8), layout="constrained", squeeze=False)
    axes = axes[0]
    axes[0].imshow(photo)
    axes[0].set_title("photo", fontsize=10)
    for place, weights in enumerate(maps):
        axis = axes[1 + place]
        axis.imshow(photo)
        x0, y0, x1, y1 = box
        axis.imshow(weights, extent=(x0, x1, y1, y0), cmap="inferno", alpha=0.55, interpolation="bilinear", vmin=0)
        axis.set_xlim(0, photo.width)
        axis.set_ylim(photo.height, 0)
        axis.set_title(f"glimpse {place + 1}: strongest cell {weights.max():.0%}", fontsize=10)
    for axis in axes[: 1 + glimpses]:
        axis.axis("off")
    if word_maps is not None:
        axis = axes[-1]
        places = np.arange(len(words))
        height = 0.8 / len(word_maps)
        for place, weights in enumerate(word_maps):
            axis.barh(places + place * height, weights, height=height, label=f"glimpse {place + 1}")
        axis.set_yticks(places + 0.4 - height / 2, words)
        axis.invert_yaxis()
        axis.set_title("weight of each word", fontsize=10)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: the picture cannot be written ({error}); name it .png or .svg, in a folder that exists"
        ) from None
    finally:
        plt.close(figure)
