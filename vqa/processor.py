"""From raw photo and raw question to the model's tensors, and from a class back to an answer's words.

Belongs here: the pair of text and photo preprocessing that travels with a checkpoint, so that training and prediction
cannot differ.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from common.errors import UserError, reason
from common.files import read_json, write_json
from common.images import Box, Preprocessing, read_image, to_tensor
from vqa.answers import AnswerVocabulary
from vqa.text import QuestionProcessor

_FILE = "preprocessing.json"

View = tuple[torch.Tensor, Box]
"""What the model sees of a photo: `(3, S, S)` uint8, and the part of it that shows photo (see `to_tensor`)."""

Photo = str | Path | Image.Image | View
"""A photo by its path, as a picture, or as `VqaProcessor.view` made it ready before."""


class VqaProcessor:
    """What a checkpoint needs besides its weights: question and answer vocabularies and the photo's preprocessing."""

    def __init__(
        self, questions: QuestionProcessor, answers: AnswerVocabulary, preprocessing: Preprocessing | None
    ) -> None:
        self.questions, self.answers, self.preprocessing = questions, answers, preprocessing

    def __call__(
        self, images: Sequence[Photo], questions: Sequence[str], image_index: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """N photos and B questions about them → keyword tensors for `VqaModel`.

        `image_index` (B,) says which photo each question is about; default: question i is about photo i. A model that
        sees no photo needs none. Raises `UserError` for a bad photo, `ValueError` for a question without a photo.
        """
        inputs: dict[str, Any] = dict(self.questions(list(questions)))
        if self.preprocessing is None:
            return inputs
        which = range(len(images)) if image_index is None else image_index
        if len(which) != len(questions) or not all(0 <= photo < len(images) for photo in which):
            raise ValueError(f"{len(questions)} questions about {len(images)} photos: which is about which?")
        views = [image if isinstance(image, tuple) else self.view(image) for image in images]
        inputs["pixels"] = torch.stack([pixels for pixels, _ in views])  # (N, 3, S, S) uint8
        inputs["valid"] = torch.tensor([valid for _, valid in views])  # (N, 4)
        inputs["image_index"] = torch.tensor(list(which))  # (B,)
        return inputs

    def view(self, image: str | Path | Image.Image) -> View:
        """A photo made ready once, to be asked about as often as one likes. Raises `UserError` for a bad one."""
        if self.preprocessing is None:
            raise UserError("this model was trained on questions alone; it reads no photos")
        photo = image if isinstance(image, Image.Image) else read_image(image)
        return to_tensor(photo, self.preprocessing)

    def save_pretrained(self, directory: str | Path) -> None:
        self.questions.save_pretrained(directory)
        self.answers.save_pretrained(directory)
        plain = None if self.preprocessing is None else asdict(self.preprocessing)
        write_json(Path(directory) / _FILE, plain)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> "VqaProcessor":
        """Read what `save_pretrained` wrote. Raises `UserError` that names a missing or damaged file."""
        path = Path(directory) / _FILE
        try:
            plain = read_json(path)
            preprocessing = None if plain is None else Preprocessing(**plain)
        except (UserError, TypeError) as error:
            raise UserError(
                f"{path}: missing or damaged ({reason(error)}); is {directory} a checkpoint of a VQA run?"
            ) from None
        return cls(
            QuestionProcessor.from_pretrained(directory), AnswerVocabulary.from_pretrained(directory), preprocessing
        )
