"""The answer vocabulary: which answers a model can give, and in which order its logits name them.

Belongs here: making the list from the training answers, indices both ways, coverage, and saving it as plain JSON. Does
not belong here: how text is spelled (`vqa/text.py`, whose `normalise` every answer goes through) and how answers are
scored.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from common.errors import UserError
from common.files import write_json
from common.symmetry import Symmetry
from vqa.text import frequent, names_place, normalise, read_json, turned

_NUMBERS = "một hai ba bốn năm sáu bảy tám chín mười nhiều".split() + [str(number) for number in range(1, 100)]
_SAID = {"có": 1, "không": 0, "0": 0} | dict.fromkeys(_NUMBERS, 1)  # of the thing asked about: there, or not


class AnswerVocabulary:
    """The answers that a model can give, as normalised text, in the order of its logits."""

    def __init__(self, answers: Sequence[str]) -> None:
        """Use `build`, `from_list` or `from_pretrained`."""
        if not answers:
            raise UserError("the answer vocabulary is empty: no training answer is frequent enough")
        self._answers = list(answers)
        self._index = {answer: index for index, answer in enumerate(self._answers)}
        if len(self._index) != len(self._answers):
            raise UserError("the answer vocabulary names an answer twice")

    @classmethod
    def build(cls, answers: Iterable[str], *, min_count: int = 1, top: int | None = None) -> Self:
        """The answers given at least `min_count` times, of these the `top` most frequent (default: all).

        Give the training answers only. Sorted by falling count, then by text. An answer that is nothing but punctuation
        is none. Raises `UserError` for values out of range and when nothing is left.
        """
        if min_count < 1:
            raise UserError(f"min_count {min_count}: must be 1 or more")
        if top is not None and top < 1:
            raise UserError(f"top {top}: must be 1 or more")
        counts = Counter(map(normalise, answers))
        counts.pop("", None)
        return cls(frequent(counts, min_count)[:top])

    @classmethod
    def from_list(cls, answers: Sequence[str]) -> Self:
        """The vocabulary that `to_list` told."""
        return cls(answers)

    def to_list(self) -> list[str]:
        """All answers, in the order of their indices."""
        return list(self._answers)

    def __len__(self) -> int:
        return len(self._answers)

    def encode(self, answers: Iterable[str]) -> list[int]:
        """The index of each raw answer, −1 for one that is not in the vocabulary."""
        return [self._index.get(normalise(answer), -1) for answer in answers]

    def decode(self, index: int) -> str:
        """The answer with this index. Raises `IndexError` outside 0 … len−1: −1 is no answer, not the last one."""
        if not 0 <= index < len(self._answers):
            raise IndexError(f"answer index {index}: must be 0 to {len(self._answers) - 1}")
        return self._answers[index]

    def turned(self, way: Symmetry) -> list[int]:
        """For each answer, the index of what it is called of the photo seen that way round (its own, if unknown)."""
        return [self._index.get(turned(answer, way), index) for index, answer in enumerate(self._answers)]

    def places(self) -> list[int]:
        """The indices of the answers that name a place in the photo."""
        return [index for index, answer in enumerate(self._answers) if names_place(answer)]

    def presence(self) -> list[int]:
        """What each answer says of the thing asked about: 1 that it is there, 0 that it is not, −1 neither.

        It is there if the answer is yes, a place, or a number other than zero.
        """
        return [1 if names_place(answer) else _SAID.get(answer, -1) for answer in self._answers]

    def coverage(self, answers: Iterable[str]) -> float:
        """Which part (0–1) of these answers is in the vocabulary: the highest accuracy that a model can reach."""
        indices = self.encode(answers)
        if not indices:
            raise UserError("no answers given: coverage needs at least one")
        return sum(index >= 0 for index in indices) / len(indices)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write answers.json: a list, in the order of the indices."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "answers.json", self._answers)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Self:
        """What `save_pretrained` wrote. Raises `UserError` naming the file if it is missing or damaged."""
        path = Path(directory) / "answers.json"
        answers = read_json(path)
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise UserError(f"{path}: is damaged (not a list of texts); copy the checkpoint again")
        try:
            return cls(answers)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
