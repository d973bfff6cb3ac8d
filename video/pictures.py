"""Pictures of a run's clips: which it classified best and worst, frames of each, and where it looked in time.

Belongs here: choosing clips and frames, and asking the model once more for those that are shown. The sheet is
`common/photo_sheets.py`'s.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from PIL import Image, ImageDraw

from common.drawing import ACCENT
from common.photo_sheets import Guess, Ranked, draw_ranked
from common.pictures import best_and_worst
from video.batches import ClipBatches
from video.frames import ClipViews
from video.model import VideoModel
from video.render import lettering

_FRAMES = 4  # shown of each clip
_GUESSES = 4  # classes under each
_SIDE = 180  # pixels of a frame
_BAND = 22  # pixels under a frame, for its weight
_GAP = 4


def draw_examples(
    model: VideoModel,
    batches: ClipBatches,
    source: ClipViews,
    said: Sequence[Mapping[str, Any]],
    out: Path,
    split: str,
    *,
    count: int,
) -> None:
    """A sheet of the `count` clips that are most surely right and of as many that are most surely wrong.

    `said` are the rows of the predictions of `batches`, `source` reads their frames as the model sees them. Of each
    clip four frames, in the order in which the model read them: evenly spread, or, if it attends over them, those with
    the largest weights.
    """
    place = {row["id"]: number for number, row in enumerate(said)}
    rows, attends = [], False
    for heading, chosen in zip(
        ("best classified", "worst classified"), best_and_worst(_ranked(said), count), strict=True
    ):
        shown = []
        for row in chosen:
            ranked, looked = _show(model, batches, source, place[row["id"]], row["gold"])
            shown.append(ranked)
            attends |= looked
        rows.append((heading, shown))
    over = "; under a frame: its weight among the clip's frames" if attends else ""
    draw_ranked(rows, out, title=f"{out.resolve().parent.name}: {split}{over}", side=2.7)


def _ranked(said: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The predictions, right ones by their probability, then wrong ones, the surest mistake last."""
    right = [row["gold"] == row["predicted"] for row in said]
    return [
        {**row, "gold_probability": row["probability"] if ok else -row["probability"], "gold_rank": 1 if ok else 2}
        for row, ok in zip(said, right, strict=True)
    ]


@torch.no_grad()
def _show(model: VideoModel, batches: ClipBatches, source: ClipViews, item: int, gold: str) -> tuple[Ranked, bool]:
    """A clip for the sheet, and whether the model attended over its frames."""
    model.eval()
    inputs = batches.__getitems__([(item, 0)])["inputs"]
    output = model(**send_to_device(inputs, model.device))
    probabilities = output.logits[0].float().softmax(dim=-1).cpu()
    weights = None if output.attention is None else output.attention[0].float().cpu().numpy()
    frames, _, places = source.load(batches.paths[item], batches.hashes[item], 0)
    frames = frames[places] if "order" not in inputs else frames[places][inputs["order"]]
    classes = model.config.classes
    best = probabilities.topk(min(_GUESSES, len(classes)))
    guesses = [
        Guess(name=classes[place], probability=float(chance), right=classes[place] == gold)
        for chance, place in zip(best.values, best.indices.tolist(), strict=True)
    ]
    photo = tiles(frames.permute(0, 2, 3, 1).numpy(), weights)
    return Ranked(photo=photo, title=f"gold: {gold}", guesses=[guesses]), weights is not None


def tiles(frames: np.ndarray, weights: np.ndarray | None = None) -> Image.Image:
    """Four of `frames (T, S, S, 3)` uint8, two by two, in their order; all if there are fewer.

    With `weights (T,)` the four heaviest, each with a bar as long as its part of the largest weight, and its figure.
    """
    count = min(_FRAMES, len(frames))
    if weights is None:
        chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    else:
        chosen = np.sort(np.argsort(-weights, kind="stable")[:count])
    band = 0 if weights is None else _BAND
    columns, rows = min(count, 2), -(-count // 2)
    size = (columns * (_SIDE + _GAP) - _GAP, rows * (_SIDE + band + _GAP) - _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, frame in enumerate(chosen):
        x, y = number % 2 * (_SIDE + _GAP), number // 2 * (_SIDE + band + _GAP)
        sheet.paste(Image.fromarray(frames[frame]).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), (x, y))
        if weights is not None:
            long = round((_SIDE - 46) * float(weights[frame] / max(weights.max(), 1e-12)))
            top = y + _SIDE
            draw.rectangle((x, top + 5, x + max(long, 1), top + _BAND - 5), fill=ACCENT)
            draw.text(
                (x + _SIDE, top + _BAND / 2), f"{weights[frame]:.0%}", fill="black", font=lettering(15), anchor="rm"
            )
    return sheet
