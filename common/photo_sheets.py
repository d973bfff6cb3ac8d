"""Sheets of photos with the most probable classes of each, as bars: what a classifier got most right and most wrong.

Belongs here: drawing alone. Which photos are shown is decided in `common/pictures.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from common.drawing import ACCENT, RIGHT, WRONG, plt, save_figure

_SIDE = 360  # pixels of a photo on the sheet, and in memory until it is drawn
_BAR = 0.2  # height of a bar with its label, inches


@dataclass(frozen=True, kw_only=True)
class Guess:
    """One of the classes that a network finds most probable."""

    name: str
    probability: float
    right: bool


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One photo on a sheet."""

    photo: Image.Image
    title: str
    guesses: Sequence[Sequence[Guess]]
    """of each network, its most probable classes, best first"""


def thumbnail(photo: Image.Image) -> Image.Image:
    """The photo as large as a sheet shows it."""
    photo.thumbnail((_SIDE, _SIDE))
    return photo


def draw_ranked(
    rows: Sequence[tuple[str, Sequence[Ranked]]],
    path: Path,
    *,
    title: str,
    networks: Sequence[str] = (),
    side: float = 1.6,
) -> None:
    """A row of photos under each heading of `rows`, each photo with its bars, as PNG and SVG.

    A right class is blue, a wrong first guess vermilion, other wrong ones grey. With several `networks`, their bars
    stand one below the other, named. A photo is `side` inches high.
    """
    rows = [row for row in rows if row[1]]
    columns = max(len(photos) for _, photos in rows)
    panels = max(len(photo.guesses) for _, photos in rows for photo in photos)
    bars = max(len(guesses) for _, photos in rows for photo in photos for guesses in photo.guesses)
    heights = [side, *[_BAR * bars + 0.12] * panels]
    figure = plt.figure(
        figsize=(max((side + 0.3) * columns, 5.0), (sum(heights) + 0.75) * len(rows) + 0.4), layout="constrained"
    )
    figure.suptitle(title, fontsize=11)
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (heading, photos) in zip(parts, rows, strict=True):
        part.suptitle(heading, fontsize=10, x=0.01, ha="left", color=ACCENT, weight="bold")
        axes = part.subplots(1 + panels, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axis in axes.flat:
            axis.axis("off")
        for column, ranked in enumerate(photos):
            axes[0, column].imshow(ranked.photo)
            axes[0, column].set_title(_short(ranked.title), fontsize=9)
            for panel, guesses in enumerate(ranked.guesses):
                _draw_bars(axes[1 + panel, column], guesses, networks[panel] if networks else "")
    save_figure(figure, path, with_svg=True)


def _draw_bars(axis: plt.Axes, guesses: Sequence[Guess], network: str) -> None:
    for place, guess in enumerate(guesses):
        colour = RIGHT if guess.right else WRONG if place == 0 else "0.6"
        axis.barh(place, max(guess.probability, 0.004), color=colour, alpha=0.4, height=0.85)
        text = f"{guess.probability:.0%} {_short(guess.name)}"
        axis.text(0.01, place, text, fontsize=8, va="center", weight="bold" if guess.right else "normal")
    axis.set(xlim=(0, 1), ylim=(len(guesses) - 0.4, -0.6))
    if network:
        axis.set_title(network, fontsize=8, color="0.35", loc="left", pad=1)


def _short(text: str, most: int = 26) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
