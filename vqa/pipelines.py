"""From a VQA run to answers in two lines, in the shape of transformers' pipelines.

    ask = vqa.pipeline("runs/mine")
    ask("photo.jpg", "món này là món gì", top_k=3)        # [{"answer": "phở", "score": 0.87}, …]

Belongs here: what may be given, and what comes back. The answering itself is `vqa.predict.Answerer`'s.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from PIL import Image

from common.errors import UserError
from common.images import as_photo
from common.pipelines import TOP_K, PhotoLike, check_batch_size, checkpoint_of, ranked
from vqa.predict import Answerer
from vqa.processor import View
from vqa.text import check_question


class VqaPipeline:
    """Answers questions about photos with a checkpoint of a VQA run."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer

    @classmethod
    def from_pretrained(cls, run: str | Path, *, checkpoint: str | None = None) -> Self:
        """`run`: a run directory, a shared folder, or a name on the Hub. Raises `UserError`."""
        return cls(Answerer.from_pretrained(checkpoint_of(run, checkpoint, task="vqa")))

    def __call__(
        self,
        image: PhotoLike | Mapping[str, Any] | Sequence[Any] | None = None,
        question: str | Sequence[str] | None = None,
        *,
        top_k: int | None = TOP_K,
        batch_size: int = 16,
    ) -> list[Any]:
        """A photo (path, bytes of its file, Pillow's picture) and a question → `[{"answer": …, "score": …}, …]`, best
        first. Several → a list of such lists:

        - a photo and a list of questions, or a list of photos and a question: all with the one;
        - a list of photos and a list of questions of the same length: pairs;
        - a list of `{"image": …, "question": …}`, or one such.

        A photo is read once for all its questions; `batch_size` questions are answered at a time. A model that sees no
        photo takes None, one that reads no question takes anything for one. Raises `UserError` for a bad photo, for
        what is no pair, and for a question without a word or of more than `vqa.text.MOST_LETTERS`.
        """
        check_batch_size(batch_size)
        photos, which, questions, single = _pairs(image, question)
        if self.answerer.model.config.inputs != "question" and None in photos:
            raise UserError("a photo is missing: give a path, the bytes of a file, or a picture for each question")
        for text in dict.fromkeys(questions if self.answerer.reads else ()):
            check_question(text)
        answers, found = self.answerer.processor.answers.to_list(), []
        for start in range(0, len(questions), batch_size):
            places = which[start : start + batch_size]
            needed = sorted(set(places))
            probabilities, _ = self.answerer(
                self._views([photos[place] for place in needed]),
                questions[start : start + batch_size],
                image_index=[needed.index(place) for place in places],
            )
            found += [ranked(row, answers, top_k, key="answer") for row in probabilities]
        return found[0] if single else found

    def _views(self, photos: Sequence[PhotoLike]) -> list[View]:
        if self.answerer.model.config.inputs == "question":
            return []
        return [self.answerer.processor.view(as_photo(photo)) for photo in photos]


def _pairs(image: Any, question: Any) -> tuple[list[Any], list[int], list[str], bool]:
    """→ photos, of each question the place of its photo, questions, and whether there is but one pair."""
    if isinstance(image, Mapping):
        image, question = image.get("image"), image.get("question")
    elif _several(image) and question is None:
        pairs = list(image)
        if not all(isinstance(pair, Mapping) for pair in pairs):
            raise UserError('no question: give one, or a list of {"image": …, "question": …}')
        image, question = [pair.get("image") for pair in pairs], [pair.get("question") for pair in pairs]
    photos = list(image) if _several(image) else [image]
    questions = list(question) if _several(question) else [question]
    if not all(isinstance(text, str) for text in questions):
        raise UserError("a question is no text: give one for each photo")
    single = not _several(image) and not _several(question)
    if not _several(question):
        questions = questions * len(photos)
    which = list(range(len(photos))) if _several(image) else [0] * len(questions)
    if len(which) != len(questions):
        raise UserError(f"{len(photos)} photos and {len(questions)} questions: give as many, or one of either")
    return photos, which, questions, single


def _several(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | Path | Image.Image)
