"""A VQA model as ONNX takes it: plain tensors in and out, by name, answering as `vqa.predict.Answerer` does.

Belongs here: the module, its axes, and what its inputs and outputs are, for `description.json`. Which of them a model
has, and on what it is checked, is `vqa/export.py`'s.
"""

from collections.abc import Sequence

import torch
from torch import nn

from common.pretrained import needed
from common.symmetry import Symmetry
from vqa.answers import AnswerVocabulary
from vqa.model import VqaModel

_AXES = {
    "input_ids": {0: "questions", 1: "words"},
    "lengths": {0: "questions"},
    "pixels": {0: "photos"},
    "valid": {0: "photos"},
    "image_index": {0: "questions"},
}
ORDER = tuple(_AXES)
"""All inputs that a model may have."""
_INPUTS = {
    "input_ids": "(questions, words) int64, ids of the words, filled up on the right with padding_id",
    "lengths": "(questions,) int64, how many words each question has, 1 or more",
    "pixels": "(photos, 3, size, size) uint8",
    "valid": "(photos, 4) float32, the part of the square that shows photo: x0, y0, x1, y1 in 0-1",
    "image_index": "(questions,) int64, which photo each question is about",
}
_TURNED = {
    "input_ids": "(ways, questions, words) int64, ids of the words, filled up on the right with padding_id: as each "
    'way round of question["ways"] has it',
    "lengths": "(ways, questions) int64, how many words each question has, 1 or more",
}
OUTPUTS = {
    "logits": "(questions, answers) float32, before the soft-max",
    "grid_attention": "(questions, glimpses, rows, columns) float32, where each glimpse looks; sums to 1",
    "word_attention": "(questions, glimpses, words) float32, which words each glimpse reads; sums to 1",
}


def axes(name: str, ways: int) -> dict[int, str]:
    """The axes of an input that may have any length, of a model that averages over so many ways round."""
    first = 1 if ways > 1 and name in _TURNED else 0
    return {axis + first: said for axis, said in _AXES[name].items()}


def about_inputs(used: Sequence[str], ways: int) -> dict[str, str]:
    """What each input is, for a person."""
    said = _INPUTS | (_TURNED if ways > 1 else {})
    return {name: said[name] for name in used}


class PlainVqa(nn.Module):
    """The model with plain tensors in and out, by name, and the mean over its ways round within.

    Its `logits` are the model's own, or of several ways round the logarithm of `Answerer`'s probabilities; attention is
    that of the photo as it is.
    """

    answers: torch.Tensor

    def __init__(
        self, model: VqaModel, outputs: Sequence[str], ways: Sequence[Symmetry], answers: AnswerVocabulary
    ) -> None:
        super().__init__()
        self.model, self.outputs, self.ways = model, list(outputs), tuple(ways)
        self.register_buffer("answers", torch.tensor([answers.turned(way) for way in ways]))  # (W, answers)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        pixels: torch.Tensor | None = None,
        valid: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        given = {"input_ids": input_ids, "lengths": lengths, "pixels": pixels, "image_index": image_index}
        given["valid"] = valid
        ways = len(self.ways)
        if ways > 1:  # as one batch, so that the graph has the encoder once
            given = self._turned(given)
        output = self.model(**given, return_attention=True)
        found = {name: output[name] for name in self.outputs}
        if ways > 1:
            log_p = found["logits"].float().log_softmax(dim=-1).unflatten(0, (ways, -1))  # (W, B, answers)
            log_p = torch.stack([log_p[way].index_select(-1, self.answers[way]) for way in range(ways)])
            asked = log_p.shape[1]
            found = {name: tensor[:asked] for name, tensor in found.items()}
            found["logits"] = log_p.mean(dim=0).log_softmax(dim=-1)
        return tuple(found[name] for name in self.outputs)

    def _turned(self, given: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
        """Each photo every way round, and about each its questions, which come every way round already."""
        pixels, index = needed(given["pixels"], "pixels"), given["image_index"]
        valid = pixels.new_ones((len(pixels), 4), dtype=torch.float32) if given["valid"] is None else given["valid"]
        views, boxes = zip(*(way.squares(pixels, valid) for way in self.ways), strict=True)
        turned = dict(given)
        turned["pixels"] = torch.cat(views)
        turned["valid"] = None if given["valid"] is None else torch.cat(boxes)
        if index is not None:
            turned["image_index"] = torch.cat([index + way * len(pixels) for way in range(len(self.ways))])
        for name in ("input_ids", "lengths"):
            tensor = given[name]
            turned[name] = None if tensor is None else tensor.flatten(0, 1)
        return turned
