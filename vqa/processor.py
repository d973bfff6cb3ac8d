"""From raw photo and raw question to the model's tensors, and from a class back to an answer's words.

Belongs here: the pair of text and photo preprocessing that travels with a checkpoint, so that training and prediction
cannot differ.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from common.errors import UserError
from common.images import Preprocessing, read_image, to_tensor
from vqa.answers import AnswerVocabulary
from vqa.text import QuestionProcessor

_FILE = "preprocessing.json"


class VqaProcessor:
    """What a checkpoint needs besides its weights: question and answer vocabularies and the photo's preprocessing."""

    def __init__(
        self, questions: QuestionProcessor, answers: AnswerVocabulary, preprocessing: Preprocessing | None
    ) -> None:
        self.questions, self.answers, self.preprocessing = questions, answers, preprocessing

    def __call__(self, images: Sequence[str | Path | Image.Image], questions: Sequence[str]) -> dict[str, Any]:
        """N photos and the question about each → keyword tensors for `VqaModel`. Raises `UserError` for a bad photo."""
        inputs: dict[str, Any] = dict(self.questions(list(questions)))
        if self.preprocessing is not None:
            photos = [image if isinstance(image, Image.Image) else read_image(image) for image in images]
            views = [to_tensor(photo, self.preprocessing) for photo in photos]
            inputs["pixels"] = torch.stack([pixels for pixels, _ in views])  # (N, 3, S, S) uint8
            inputs["valid"] = torch.tensor([valid for _, valid in views])  # (N, 4)
        return inputs

    def save_pretrained(self, directory: str | Path) -> None:
        self.questions.save_pretrained(directory)
        self.answers.save_pretrained(directory)
        plain = None if self.preprocessing is None else asdict(self.preprocessing)
        (Path(directory) / _FILE).write_text(json.dumps(plain, indent=1), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "VqaProcessor":
        """Read what `save_pretrained` wrote. Raises `UserError` that names a missing or damaged file."""
        path = Path(directory) / _FILE
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            preprocessing = None if plain is None else Preprocessing(**plain)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{path}: missing or damaged ({error}); is {directory} a checkpoint of a VQA run?"
            ) from None
        return cls(
            QuestionProcessor.from_pretrained(directory), AnswerVocabulary.from_pretrained(directory), preprocessing
        )
