"""Pictures of a study's cells for its report: confusion matrices of one run each, examples, and pictures as data.

Belongs here: which run of a cell is shown, and bringing pictures to a size that a page can hold. Counting is in
`common/confusion.py`, drawing in `common/plots.py`; examples are drawn by the tasks, at the end of a run.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from common.confusion import Confusion, confusions
from common.errors import UserError
from common.predictions import read_scored

MOST_CLASSES = 25  # gold answers of a group up to which its matrix is drawn
_MOST_GROUPS = 12
_WIDE = 1400  # pixels, to which the pictures inside of a page are made small
_PHOTOS = 1100  # those of photos
_QUALITY = 80  # of these, as JPEG


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """A picture of a cell."""

    cell: str
    path: Path
    told: str
    """what must be known of it"""
    photos: bool = False


def median_seed(by_seed: Mapping[str, float]) -> str:
    """The seed whose accuracy is the median, of an even number the lower of the two in the middle."""
    ordered = sorted(by_seed, key=lambda seed: (by_seed[seed], int(seed)))
    return ordered[(len(ordered) - 1) // 2]


def best_seed(by_seed: Mapping[str, float]) -> str:
    """The seed with the highest accuracy, of several the first."""
    return min(by_seed, key=lambda seed: (-by_seed[seed], int(seed)))


def cell_confusion(entry: Mapping[str, Any], run: Path, seed: str, out: Path) -> Pictured | str:
    """Draw what a cell's run took for what into `out`, a matrix for each type of its samples; or say why not.

    Types with more than 25 gold answers are left out. Where the type is the class itself, there is one matrix. The
    picture is drawn only if it is older than the predictions.
    """
    name, split = entry["name"], entry["split"]
    try:
        scored = read_scored(run, split)
    except UserError as error:
        return f"{name}: {str(error).replace(str(run), run.name)}"
    gold, types = scored.columns["gold"], scored.columns.get("type")
    if types is None or types == gold or not all(types):
        types = [split] * len(gold)
    rows = [
        {"gold": one, "predicted": other, "type": kind}
        for one, other, kind in zip(gold, scored.columns["predicted"], types, strict=True)
    ]
    matrices, left_out = _small_enough(rows)
    more = f"; left out, with more than {MOST_CLASSES} answers: {', '.join(left_out)}" if left_out else ""
    if not matrices:
        return f"{name}: no matrix{more}"
    seeds = len(entry["seeds"])
    which = f"seed {seed}" + (f", the median in accuracy of {seeds} seeds" if seeds > 1 else "")
    if not out.is_file() or out.stat().st_mtime <= scored.file.stat().st_mtime:
        from common.plots import draw_confusion

        draw_confusion(matrices, out, title=f"{name}, seed {seed}: {split}")
    return Pictured(cell=name, path=out, told=f"{which}; {split}, n = {len(rows):,}{more}")


def _small_enough(rows: list[dict[str, str]]) -> tuple[list[Confusion], list[str]]:
    """The matrices of types with few answers, and the names of the other types with how many they have."""
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row["type"], set()).add(row["gold"])
    small = {kind for kind, its in answers.items() if len(its) <= MOST_CLASSES}
    left_out = [f"{kind} ({len(its)})" for kind, its in sorted(answers.items()) if kind not in small]
    return confusions([row for row in rows if row["type"] in small], most_groups=_MOST_GROUPS), left_out


def cell_examples(entry: Mapping[str, Any], run: Path, seed: str) -> Pictured | None:
    """The sheet of examples that a cell's run has left: of its answers, or of its best- and worst-classified photos."""
    for name in ("examples.png", f"photos-{entry['split']}.png"):
        if (run / name).is_file():
            seeds = len(entry["seeds"])
            which = f"seed {seed}" + (f", the most accurate of {seeds} seeds" if seeds > 1 else "")
            return Pictured(cell=entry["name"], path=run / name, told=which, photos=True)
    return None


def as_data(path: Path, *, photos: bool = False) -> tuple[str, int]:
    """A picture as a data URI for a page, made small, and its width in pixels; `photos` as JPEG, which is smaller.

    Raises `UserError` for what is no picture.
    """
    most = _PHOTOS if photos else _WIDE
    try:
        with Image.open(path) as picture:
            kind, width = picture.format, picture.width
            if kind == "PNG" and width <= most and not photos:
                data = path.read_bytes()
            else:
                small = picture.convert("RGB")
                small.thumbnail((most, 16 * most), Image.Resampling.LANCZOS)
                made, kind, width = io.BytesIO(), "JPEG" if photos else "PNG", small.width
                small.save(made, kind, quality=_QUALITY, optimize=True)
                data = made.getvalue()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({error})") from None
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}", width
