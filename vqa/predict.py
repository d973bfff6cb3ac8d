"""From a photo and a question to answers, with a trained checkpoint: in Python, for one pair, or for a whole table.

Belongs here: loading a checkpoint, asking it, and showing where it looked. Scoring against gold answers is
`vqa/scoring.py`'s `evaluate_run`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from common.columns import columns_from
from common.errors import UserError
from common.hub import local, upload
from common.images import read_image, shown_box
from common.pretrained import find_checkpoint, open_checkpoint
from common.runs import refuse_existing, write_csv
from common.symmetry import Symmetry, symmetries
from vqa.data import read_questions
from vqa.model import VqaModel, VqaOutput
from vqa.options import PredictVqaOptions
from vqa.processor import Photo, View, VqaProcessor
from vqa.text import check_question, turned

_BATCH = 32  # photos encoded together
_QUESTIONS = 256  # questions answered together: attention costs memory for each
_PHOTOS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


@dataclass(kw_only=True)
class Answerer:
    """A loaded checkpoint that answers questions about photos."""

    model: VqaModel
    processor: VqaProcessor

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "Answerer":
        """Load from a checkpoint directory, complete by itself, or by a name on the Hub; on a GPU if there is one.

        Raises `UserError` for a file that is missing or damaged, and for vocabularies that do not fit the weights.
        """
        directory = local(directory)
        model = open_checkpoint(VqaModel, directory, run="a VQA")
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]  # transformers wraps `to`
        processor = VqaProcessor.from_pretrained(directory)
        if processor.preprocessing is None and model.config.inputs != "question":
            raise UserError(
                f"{Path(directory) / 'preprocessing.json'}: is empty, and the model sees photos; copy it again"
            )
        known = (len(processor.answers), processor.questions.vocab_size)
        if known != (model.config.answers, model.config.words):
            raise UserError(
                f"{directory}: its vocabularies ({known[0]} answers, {known[1]} words) do not fit its weights "
                f"({model.config.answers} answers, {model.config.words} words)"
            )
        return cls(model=model, processor=processor)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write model and processor, all that `from_pretrained` needs."""
        self.model.save_pretrained(directory)
        self.processor.save_pretrained(directory)

    def push_to_hub(self, name: str, **keywords: Any) -> None:
        """Upload model and processor to the Hub as `name`; `keywords` are `huggingface_hub.create_repo`'s.

        `scripts/export.py RUN --to hub` does so with a model card. Raises `UserError` for whatever the Hub refuses.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            upload(folder, name, **keywords)

    @property
    def reads(self) -> bool:
        """Whether it reads its questions: if not, whatever is asked is the same to it."""
        return self.model.config.inputs != "image"

    @torch.inference_mode()
    def __call__(
        self,
        images: Sequence[Photo],
        questions: Sequence[str],
        *,
        image_index: Sequence[int] | None = None,
        return_attention: bool = False,
    ) -> tuple[torch.Tensor, VqaOutput]:
        """N photos and B questions about them → probabilities `(B, answers)`, and the model's output for them.

        The probabilities are the (geometric) mean over the ways round that the model's `test_augment` names.

        `image_index` (B,) says which photo each question is about, so that a photo is decoded and encoded once for all
        of its own; default: question i is about photo i.
        """
        log_p, output = self.log_probabilities(
            images, questions, image_index=image_index, return_attention=return_attention
        )
        return log_p.exp(), output

    @property
    def ways(self) -> tuple[Symmetry, ...]:
        """The ways round over which it averages, the plain one first and, of a model that sees no photo, alone."""
        return symmetries(self.model.config.test_augment if self.processor.preprocessing is not None else ())

    @torch.inference_mode()
    def log_probabilities(
        self,
        images: Sequence[Photo],
        questions: Sequence[str],
        *,
        image_index: Sequence[int] | None = None,
        return_attention: bool = False,
    ) -> tuple[torch.Tensor, VqaOutput]:
        """The same before the exponential: those of answers that are all but impossible are not lost."""
        plain = self.processor(images, questions, image_index)
        outputs, log_p = [], []
        for way in self.ways:
            inputs = dict(plain)
            if way != Symmetry():
                inputs |= self.processor.questions([turned(question, way) for question in questions])
                inputs["pixels"], inputs["valid"] = way.squares(inputs["pixels"], inputs["valid"])
            inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
            outputs.append(self.model(**inputs, return_attention=return_attention))
            log_p.append(outputs[-1].logits.float().log_softmax(dim=-1)[:, self.processor.answers.turned(way)])
        return torch.stack(log_p).mean(dim=0).log_softmax(dim=-1).cpu(), outputs[0]

    def best(self, probabilities: torch.Tensor, top: int) -> list[dict[str, Any]]:
        """`probabilities (answers,)` → the `top` most probable answers, best first."""
        values, places = probabilities.topk(min(top, len(probabilities)))
        return [
            {"answer": self.processor.answers.decode(int(place)), "probability": round(float(value), 6)}
            for value, place in zip(values, places, strict=True)
        ]


def predict(options: PredictVqaOptions) -> None:
    """`scripts/predict_vqa.py`: one photo, a table or folder of them, or a sheet of what the run was scored on."""
    if options.examples is not None:
        from vqa.examples import write_examples

        write_examples(options)
        return
    refuse_existing(options.output, overwrite=options.overwrite)
    refuse_existing(options.attention_map, overwrite=options.overwrite, option="--attention-map")
    disable_progress_bar()
    answerer = Answerer.from_pretrained(find_checkpoint(options.run, options.checkpoint, task="vqa"))
    if options.question is not None and answerer.reads:
        check_question(options.question)
    if options.image is not None:
        _predict_one(answerer, options)
    else:
        _predict_many(answerer, options)


def _predict_one(answerer: Answerer, options: PredictVqaOptions) -> None:
    wants_map = options.attention_map is not None
    if wants_map and not answerer.model.config.attends:
        raise UserError(f"--attention-map: {options.run} was trained without attention, so there is nothing to draw")
    assert options.image is not None and options.question is not None  # which go together
    photo = read_image(options.image)
    probabilities, output = answerer([photo], [options.question], return_attention=wants_map)
    best = answerer.best(probabilities[0], options.top)
    if wants_map:
        _draw(answerer, photo, output, best[0], options)
    if options.json:
        row = {"image": options.image, "question": options.question, "answers": best}
        print(json.dumps(row | ({"attention_map": options.attention_map} if wants_map else {}), ensure_ascii=False))
        return
    print(options.question)
    for row in best:
        print(f"  {row['probability']:6.1%}  {row['answer']}")
    if wants_map:
        print(f"where it looked: {options.attention_map}")


def _draw(
    answerer: Answerer, photo: Image.Image, output: VqaOutput, best: dict[str, Any], options: PredictVqaOptions
) -> None:
    from common.plots import draw_attention

    preprocessing = answerer.processor.preprocessing
    assert preprocessing is not None and options.question is not None and options.attention_map is not None
    maps = np.zeros((0, 1, 1)) if output.grid_attention is None else output.grid_attention[0].float().cpu().numpy()
    words: list[str] = []
    word_maps = None
    if output.word_attention is not None:
        words = answerer.processor.questions.tokens(options.question)
        word_maps = output.word_attention[0, :, : len(words)].float().cpu().numpy()
    config = answerer.model.config
    control = "" if config.attention_weights == "learned" else f"; attention over: {config.looks}"
    draw_attention(
        photo,
        maps,
        shown_box(photo.size, preprocessing),
        Path(options.attention_map),
        title=f"{options.question} → {best['answer']} ({best['probability']:.0%}){control}",
        words=words,
        word_maps=word_maps,
    )


def _predict_many(answerer: Answerer, options: PredictVqaOptions) -> None:
    assert options.output is not None  # which --input needs
    rows = _asked(options, needs_photo=answerer.model.config.inputs != "question")
    if options.question is None and answerer.reads:
        for row in rows:
            try:
                check_question(row["question"])
            except UserError as error:
                raise UserError(f"{options.input}: row {row['row']}: {error}") from None
    answered = _answer(answerer, rows, options)
    # As they were asked, whatever photos they share.
    found = [
        {"image": row["image"], "question": row["question"], **answered[place]}
        for place, row in enumerate(rows)
        if place in answered
    ]
    if not found:
        raise UserError(f"--input {options.input}: not one photo could be read")
    write_csv(Path(options.output), found)
    skipped = len(rows) - len(found)
    print(f"{len(found)} answers in {options.output}" + (f"; {skipped} bad photos skipped" if skipped else ""))


def _asked(options: PredictVqaOptions, *, needs_photo: bool) -> list[dict[str, Any]]:
    """The questions to answer, each with the photo as written and its file."""
    assert options.input is not None
    source = Path(options.input)
    if source.is_dir():
        if options.question is None:
            raise UserError(f"--input {source} is a folder: say what to ask of its photos with --question")
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in _PHOTOS)
        if not files:
            raise UserError(f"--input {source}: no photos in this folder ({', '.join(sorted(_PHOTOS))})")
        return [{"image": path.name, "path": str(path), "question": options.question} for path in files]
    columns = columns_from(options.columns)
    return read_questions(
        source, images=options.images, columns=columns, question=options.question, need_images=needs_photo
    )


def _answer(
    answerer: Answerer, rows: Sequence[dict[str, Any]], options: PredictVqaOptions
) -> dict[int, dict[str, Any]]:
    """The best answer to each row, by its place; rows with a bad photo, if they are to be skipped, have none.

    Each photo is decoded once, for all its questions, and few are held at a time. Raises `UserError` for a bad photo.
    """
    together: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        together.setdefault(row["path"], []).append(place)
    sees = answerer.model.config.inputs != "question"
    if sees and options.on_bad_image == "fail":  # what is plainly not there is told before an hour of answering
        for path, places in together.items():
            if not Path(path).is_file():
                _view(answerer, rows[places[0]], options)
    found: dict[int, dict[str, Any]] = {}
    paths = list(together)
    for start in tqdm(range(0, len(paths), _BATCH), unit="batch", disable=None):
        views: dict[str, Any] = {}  # `View`s; None for a model that sees no photo
        for path in paths[start : start + _BATCH]:
            view = _view(answerer, rows[together[path][0]], options) if sees else None
            if view is not None or not sees:
                views[path] = view
        places = [place for path in views for place in together[path]]
        for first in range(0, len(places), _QUESTIONS):
            part = places[first : first + _QUESTIONS]
            photos = list(dict.fromkeys(rows[place]["path"] for place in part))
            number = {path: index for index, path in enumerate(photos)}
            probabilities, _ = answerer(
                [views[path] for path in photos] if sees else [],
                [rows[place]["question"] for place in part],
                image_index=[number[rows[place]["path"]] for place in part] if sees else None,
            )
            for place, chances in zip(part, probabilities, strict=True):
                found[place] = answerer.best(chances, 1)[0]
    return found


def _view(answerer: Answerer, row: dict[str, Any], options: PredictVqaOptions) -> View | None:
    """What the model sees of a row's photo; None for a bad one that is to be skipped."""
    try:
        return answerer.processor.view(row["path"])
    except UserError as error:
        if options.on_bad_image == "skip":
            return None
        place = f"row {row['row']}: " if "row" in row else ""
        raise UserError(f"{options.input}: {place}{error}; --on-bad-image skip leaves such photos out") from None
