"""The pictures of an image run's split: its confusion matrix, and its best- and worst-classified photos.

Belongs here: asking the model once more for the photos that are shown. What is shown is chosen in
`common/pictures.py`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device

from common.classifier import ImageClassifier
from common.classifier_batches import ImageBatches
from common.classifier_predict import best
from common.images import read_image
from common.photo_sheets import Guess, Ranked, draw_ranked, thumbnail
from common.pictures import best_and_worst, write_confusion

_SHOWN = 6  # photos in each row
_GUESSES = 4  # classes under each


def draw_split(
    model: ImageClassifier, batches: ImageBatches, said: Sequence[Mapping[str, Any]], run: Path, split: str
) -> None:
    """Write `confusion-<split>.csv` and `.png`, and `photos-<split>.png` (as report R3 shows them)."""
    write_confusion(said, model.config.classes, run, split)
    place = {row["id"]: number for number, row in enumerate(said)}
    rows = []
    for heading, chosen in zip(("best classified", "worst classified"), best_and_worst(said, _SHOWN), strict=True):
        items = [place[row["id"]] for row in chosen]
        rows.append((heading, _ranked(model, batches, items, chosen)))
    draw_ranked(rows, run / f"photos-{split}.png", title=f"{run.resolve().name}: {split}")


@torch.no_grad()
def _ranked(
    model: ImageClassifier, batches: ImageBatches, items: Sequence[int], rows: Sequence[Mapping[str, Any]]
) -> list[Ranked]:
    if not items:
        return []
    model.eval()
    inputs = batches.__getitems__([(item, 0) for item in items])["inputs"]
    probabilities = model(**send_to_device(inputs, model.device)).logits.float().softmax(dim=-1).cpu()
    return [
        Ranked(
            photo=thumbnail(read_image(batches.paths[item])),
            title=row["gold"],
            guesses=[
                [
                    Guess(name=guess["class"], probability=guess["probability"], right=guess["class"] == row["gold"])
                    for guess in best(model, mine, _GUESSES)
                ]
            ],
        )
        for item, row, mine in zip(items, rows, probabilities, strict=True)
    ]
