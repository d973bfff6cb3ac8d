"""From a clip to classes, with a trained checkpoint: in Python, for one file, or for a whole folder.

Belongs here: loading a checkpoint, asking it, and showing what it said. Scoring against labels is `video/scoring.py`'s.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from common.errors import UserError, reason
from common.hub import local
from common.images import Preprocessing, content_hash
from common.pretrained import find_checkpoint, open_checkpoint
from common.runs import refuse_existing, write_csv
from video.clips import find_clips
from video.frames import ClipViews, shuffled
from video.model import VideoModel, VideoOutput
from video.options import PredictVideoOptions
from video.sampling import Sampling


@dataclass(kw_only=True)
class Classifier:
    """A loaded checkpoint that classifies clips."""

    model: VideoModel

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "Classifier":
        """Load from a checkpoint directory, complete by itself, or by a name on the Hub; on a GPU if there is one.

        Raises `UserError` for a file that is missing or damaged.
        """
        directory = local(directory)
        model = open_checkpoint(VideoModel, directory, run="a video")
        try:
            _ = cls(model=model).source
        except (TypeError, UserError) as error:  # an option that there is not, or a value out of range
            raise UserError(f"checkpoint {directory}: its config reads no clips ({reason(error)})") from None
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]  # transformers wraps `to`
        return cls(model=model)

    @property
    def source(self) -> ClipViews | None:
        """How a clip is read for it; None for a model of features that someone else computes."""
        config = self.model.config
        if config.encoder is None:
            return None
        if config.sampling is None or config.preprocessing is None:
            raise UserError("its sampling or its preprocessing is missing")
        return ClipViews(sampling=Sampling(**config.sampling), preprocessing=Preprocessing(**config.preprocessing))

    @torch.inference_mode()
    def __call__(self, clip: str | Path | torch.Tensor) -> tuple[torch.Tensor, VideoOutput]:
        """A clip's file, or features `(T, D)` for a model of these → probabilities `(classes,)`, and its output.

        Raises `UserError` for a clip that cannot be read.
        """
        order = self.model.config.frame_order
        if isinstance(clip, torch.Tensor):
            return self.ask({"features": clip, "lengths": torch.tensor([len(clip)])} | _ordered(len(clip), "0", order))
        if self.source is None:
            raise UserError("this model was trained on features that someone computed before; it reads no clips")
        return self.ask(load_clip(self.source, order, clip))

    @torch.inference_mode()
    def ask(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, VideoOutput]:
        """One clip as the model takes it → probabilities `(classes,)`, and its output."""
        output = self.model(**{name: tensor.to(self.model.device) for name, tensor in inputs.items()})
        return output.logits[0].float().softmax(dim=-1).cpu(), output

    def best(self, probabilities: torch.Tensor, top: int) -> list[dict[str, Any]]:
        """`probabilities (classes,)` → the `top` most probable classes, best first."""
        values, places = probabilities.topk(min(top, len(probabilities)))
        return [
            {"class": self.model.config.classes[int(place)], "probability": round(float(value), 6)}
            for value, place in zip(values, places, strict=True)
        ]


def load_clip(source: ClipViews, order: str, clip: str | Path) -> dict[str, torch.Tensor]:
    """A model's inputs for one clip. Raises `UserError` if it cannot be read."""
    digest = content_hash(clip)
    frames, _, places = source.load(str(clip), digest, 0)
    inputs = {"pixels": frames, "places": places, "lengths": torch.tensor([len(places)])}
    return inputs | _ordered(len(places), digest, order)


def _ordered(length: int, digest: str, order: str) -> dict[str, torch.Tensor]:
    return {"order": shuffled(length, digest, 0)} if order == "shuffled" else {}


def predict(options: PredictVideoOptions) -> None:
    """`scripts/predict_video.py`: one clip, or every clip in a folder."""
    disable_progress_bar()
    source = Path(options.video)
    folder = source.is_dir()
    clips = find_clips(source) if folder else [source.name]
    if not clips:
        raise UserError(f"--video {source}: no clips in this folder")
    marks = _check_output(options, clips if folder else None)
    classifier = Classifier.from_pretrained(find_checkpoint(options.run, options.checkpoint, task="video"))
    paths = [source / clip for clip in clips] if folder else [source]
    bar = tqdm(total=len(paths), unit="clip", disable=None if folder and not options.json else True)
    rows, skipped = [], []
    for path, clip, found in zip(paths, clips, _classified(classifier, paths, options), strict=True):
        bar.update()
        if isinstance(found, UserError):
            if options.on_bad_clip == "fail" or not folder:
                raise UserError(f"{found}" + ("; --on-bad-clip skip leaves such clips out" if folder else ""))
            skipped.append(str(found))
            continue
        best = classifier.best(found, options.top)
        rows.append({"clip": clip, "class": best[0]["class"], "probability": best[0]["probability"]})
        with tqdm.external_write_mode():
            _say(str(path) if not folder else clip, best, options)
        if marks is not None:
            _mark(path, _marked(marks, clip) if folder else marks, best, options)
    bar.close()
    if not rows:
        raise UserError(f"--video {source}: not one clip could be read: {skipped[0]}")
    if options.output is not None:
        if marks is None:
            write_csv(Path(options.output), rows)
        if not options.json:
            print(f"{len(rows)} clip(s) classified; written: {options.output}")
    if skipped:
        print(f"{len(skipped)} bad clip(s) skipped; the first: {skipped[0]}", file=sys.stderr if options.json else None)


def _check_output(options: PredictVideoOptions, clips: Sequence[str] | None) -> Path | None:
    """Where marked clips go, if they are wanted: a file, or of the `clips` of a folder a folder."""
    if options.output is None:
        return None
    target = Path(options.output)
    if clips is None:
        if target.suffix.lower() != ".mp4":
            raise UserError(f"--output {target}: of one clip, the marked clip is written: name it .mp4")
        refuse_existing(options.output, overwrite=options.overwrite)
        return target
    if target.suffix.lower() == ".csv":
        refuse_existing(options.output, overwrite=options.overwrite)
        return None
    if target.suffix or (target.exists() and not target.is_dir()):
        raise UserError(f"--output {target}: of a folder of clips, name a .csv, or a folder for the marked clips")
    if target.is_dir() and any(target.iterdir()) and not options.overwrite:
        raise UserError(f"--output {target} holds something; choose another folder, or add --overwrite")
    twice = [name for name, count in Counter(_marked(target, clip) for clip in clips).items() if count > 1]
    if twice:
        raise UserError(f"--output {target}: two clips of {options.video} would both become {twice[0]}; rename one")
    return target


def _marked(folder: Path, clip: str) -> Path:
    return folder / Path(clip).with_suffix(".mp4")


class _Clips(Dataset):
    """Clips made ready, one by one; of a bad one what is wrong with it."""

    def __init__(self, source: ClipViews, order: str, paths: Sequence[Path]) -> None:
        self.source, self.order, self.paths = source, order, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor] | UserError:
        try:
            return load_clip(self.source, self.order, self.paths[place])
        except UserError as error:
            return error


def _classified(
    classifier: Classifier, paths: Sequence[Path], options: PredictVideoOptions
) -> Iterator[torch.Tensor | UserError]:
    """Probabilities `(classes,)` of each clip, in order, a clip at a time."""
    if classifier.source is None:
        raise UserError(f"{options.run} was trained on features that someone computed before; it reads no clips")
    clips = _Clips(classifier.source, classifier.model.config.frame_order, paths)
    for found in DataLoader(clips, batch_size=None, num_workers=min(options.workers, len(paths))):
        yield found if isinstance(found, UserError) else classifier.ask(found)[0]


def _say(clip: str, best: Sequence[dict[str, Any]], options: PredictVideoOptions) -> None:
    if options.json:
        print(json.dumps({"clip": clip, "classes": list(best)}, ensure_ascii=False))
        return
    print(clip)
    for row in best:
        print(f"  {row['probability']:6.1%}  {row['class']}")


def _mark(clip: Path, target: Path, best: Sequence[dict[str, Any]], options: PredictVideoOptions) -> None:
    from video.render import write_marked  # Pillow's fonts and matplotlib's: only where a clip is drawn

    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [best[0]["class"], f"{best[0]['probability']:.0%}"]
    write_marked(str(clip), str(target), lines, overwrite=options.overwrite)
