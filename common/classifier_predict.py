"""From a photo to classes, with a trained checkpoint: in Python, for one file, or for a whole folder.

    model = load_classifier("RUN/checkpoints/best_loss")
    print(best(model, classify(model, ["photo.jpg"])[0], 3))

Belongs here: loading a checkpoint, asking it, and showing what it said. Scoring against labels is
`common/classifier_scoring.py`'s.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from common.classifier import ImageClassifier
from common.classifier_options import PredictImageOptions
from common.errors import UserError
from common.features import PhotoViews
from common.hub import local
from common.images import Preprocessing, read_image, to_tensor
from common.photos import SUFFIXES, walk_files
from common.pretrained import find_checkpoint, open_checkpoint
from common.runs import refuse_existing, write_csv

_TOGETHER = 16  # photos that the model sees at once


def load_classifier(directory: str | Path) -> ImageClassifier:
    """The model of a checkpoint directory, complete by itself, or of a name on the Hub, in eval mode; on a GPU if there
    is one.

    Raises `UserError` for a file that is missing or damaged.
    """
    model = open_checkpoint(ImageClassifier, local(directory), run="an image")
    return model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]  # transformers wraps `to`


def photo_views(model: ImageClassifier) -> PhotoViews:
    """How a photo is read for it."""
    assert model.config.preprocessing is not None  # or the model had not been built
    return PhotoViews(preprocessing=Preprocessing(**model.config.preprocessing))


@torch.inference_mode()
def classify(model: ImageClassifier, photos: Sequence[str | Path]) -> torch.Tensor:
    """Files → probabilities `(N, classes)`. Raises `UserError` for a photo that cannot be read."""
    preprocessing = photo_views(model).preprocessing
    found = []
    for start in range(0, len(photos), _TOGETHER):
        part = [to_tensor(read_image(path), preprocessing)[0] for path in photos[start : start + _TOGETHER]]
        found.append(_ask(model, part))
    return torch.cat(found)


def best(model: ImageClassifier, probabilities: torch.Tensor, top: int) -> list[dict[str, Any]]:
    """`probabilities (classes,)` → the `top` most probable classes, best first."""
    values, places = probabilities.topk(min(top, len(probabilities)))
    return [
        {"class": model.config.classes[int(place)], "probability": round(float(value), 6)}
        for value, place in zip(values, places, strict=True)
    ]


def predict(options: PredictImageOptions) -> None:
    """`scripts/predict_image.py`: one photo, or every photo in a folder."""
    disable_progress_bar()
    source = Path(options.image)
    folder = source.is_dir()
    photos = [path for path in walk_files(source) if path.lower().endswith(SUFFIXES)] if folder else [str(source)]
    if not photos:
        raise UserError(f"--image {source}: no photos in this folder")
    refuse_existing(options.output, overwrite=options.overwrite)
    model = load_classifier(find_checkpoint(options.run, options.checkpoint, task="image"))
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    bar = tqdm(photos, unit="photo", disable=None if folder else True, leave=False)
    for path, found in zip(bar, _classified(model, photos, options.workers), strict=True):
        if isinstance(found, UserError):
            if not folder or options.on_bad_image == "fail":
                raise UserError(f"{found}{'; --on-bad-image skip leaves such photos out' * folder}")
            skipped.append(str(found))
            continue
        guesses = best(model, found, options.top)
        shown = Path(path).relative_to(source).as_posix() if folder else path
        row = {"image": shown}
        for place, guess in enumerate(guesses, start=1):
            row |= {f"class_{place}": guess["class"], f"probability_{place}": guess["probability"]}
        rows.append(row)
        with tqdm.external_write_mode():
            _say(shown, guesses, as_json=options.json)
    bar.close()
    if not rows:
        raise UserError(f"--image {source}: not one photo could be read: {skipped[0]}")
    if options.output is not None:
        write_csv(Path(options.output), rows)
        if not options.json:
            print(f"{len(rows)} photo(s) classified; written: {options.output}")
    if skipped:
        print(
            f"{len(skipped)} bad photo(s) skipped; the first: {skipped[0]}", file=sys.stderr if options.json else None
        )


class _Photos(Dataset):
    """Photos made ready, one by one; of a bad one what is wrong with it."""

    def __init__(self, preprocessing: Preprocessing, paths: Sequence[str]) -> None:
        self.preprocessing, self.paths = preprocessing, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor | UserError:
        try:
            return to_tensor(read_image(self.paths[place]), self.preprocessing)[0]
        except UserError as error:
            return error


@torch.inference_mode()
def _classified(model: ImageClassifier, paths: Sequence[str], workers: int) -> Iterator[torch.Tensor | UserError]:
    """Probabilities `(classes,)` of each photo, or what is wrong with it, in order."""
    photos = _Photos(photo_views(model).preprocessing, paths)
    loader = DataLoader(photos, batch_size=_TOGETHER, collate_fn=list, num_workers=min(workers, len(paths)))
    for part in loader:
        good = [pixels for pixels in part if not isinstance(pixels, UserError)]
        said = iter(_ask(model, good) if good else ())
        yield from (pixels if isinstance(pixels, UserError) else next(said) for pixels in part)


def _ask(model: ImageClassifier, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Squares `(3, S, S)` uint8 → probabilities `(N, classes)`."""
    return model(pixels=torch.stack(list(pixels)).to(model.device)).logits.float().softmax(dim=-1).cpu()


def _say(photo: str, guesses: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"image": photo, "classes": list(guesses)}, ensure_ascii=False))
        return
    print(photo)
    for guess in guesses:
        print(f"  {guess['probability']:6.1%}  {guess['class']}")
