"""The options of `scripts/train_letters.py`: report R3's setting, and what of it may be another.

Belongs here: declarations only, nothing that imports torch. The net is in `common/letters.py`.
"""

import unicodedata
from typing import ClassVar, Literal

from common.config import options
from common.errors import UserError
from common.options import Count, Epochs, Positive, Seed

R3_WORDS = ("hello", "green", "start")
R3_GIVEN = ("h", "g", "s", "e", "t")


@options
class LettersOptions:
    """Train a recurrent net to write words letter by letter: report R3's character RNN, or any words with any net.

    Prints the loss, beside what R3 reports if the setting is R3's, and what the net writes after the letters given: as
    many letters as the longest word has. Nothing marks the end of a word, so what follows a shorter one means nothing.

    examples:
      python scripts/train_letters.py
      python scripts/train_letters.py --words hỏi ảnh món bánh --given h b --epochs 200 --kind gru
      python scripts/train_letters.py --words $(cat words.txt) --hidden 64 --output runs/letters
    """

    resume: ClassVar[bool] = False  # what opening a run asks of a training's options

    config: str | None = None
    """YAML file of options; the command line overrides it"""
    words: tuple[str, ...] = R3_WORDS
    """words to learn, of two letters or more; one of several parts in quotes"""
    given: tuple[str, ...] = ()
    """letters, or beginnings, to go on from; default the words' first letters, and after R3's words its e and t"""
    epochs: Epochs = 100
    """steps, each over all words"""
    kind: Literal["rnn", "gru", "lstm"] = "rnn"
    """recurrent net"""
    hidden: Count = 12
    """its size"""
    learning_rate: Positive = 0.01
    """of Adam"""
    seed: Seed = 0
    """seed of the initial weights; nothing else is random"""
    output: str | None = None
    """run directory to write: letters.json, loss.csv and curve.png, and what every run has (metrics.json, config.yaml,
    history.jsonl, predictions-train.csv: each letter of the words, written from their first ones); default none"""
    overwrite: bool = False
    """replace the run in --output"""

    def __post_init__(self) -> None:
        # A letter is a code point: "ỏ" is one of them if composed, and two or three as some keyboards write it.
        self.words = tuple(unicodedata.normalize("NFC", word).strip() for word in self.words)
        self.given = tuple(unicodedata.normalize("NFC", text) for text in self.given)
        if not self.words:
            raise UserError("--words: there is no word to learn; give some, or leave the option out for R3's")
        for word in self.words:
            if len(word) < 2:
                raise UserError(
                    f"--words '{word}': nothing follows its first letter; give words of two or more letters"
                )
        if not self.given:
            self.given = R3_GIVEN if self.are_r3_words else tuple(dict.fromkeys(word[0] for word in self.words))
        for text in self.given:
            unknown = [letter for letter in text if letter not in self.letters]
            if not text or unknown:
                what = f"the letter '{unknown[0]}' is in none of the words" if unknown else "no letter is given"
                raise UserError(f"--given '{text}': {what}; choose from {' '.join(self.letters).strip()}")
            if len(text) >= self.longest:
                raise UserError(f"--given '{text}': {self.longest} letters are written in all; give fewer than that")

    @property
    def letters(self) -> tuple[str, ...]:
        """Every letter of the words, once, in order."""
        return tuple(sorted(set("".join(self.words))))

    @property
    def longest(self) -> int:
        """How many letters the longest word has, which is how many are written."""
        return max(map(len, self.words))

    @property
    def are_r3_words(self) -> bool:
        return sorted(self.words) == sorted(R3_WORDS)

    @property
    def is_r3(self) -> bool:
        """Whether what is trained is what report R3 trained (with whatever seed, and however long)."""
        return self.are_r3_words and (self.kind, self.hidden, self.learning_rate) == ("rnn", 12, 0.01)
