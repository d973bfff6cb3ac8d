"""Vietnamese text: one spelling per question, words, ids.

Belongs here: normalisation, segmentation and the question vocabulary, saved as plain JSON. Does not belong here: the
answer vocabulary (`vqa/answers.py`), where questions come from (`vqa/data.py`) and what becomes of the ids
(`vqa/model.py`).

Everything that reads text, in training and in prediction, for questions and for answers, goes through `normalise`.
"""

import hashlib
import json
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from common import files
from common.errors import UserError, reason
from common.symmetry import Symmetry

WORDS = ("pyvi", "syllable")  # segmentations with a vocabulary of our own; any other names a Hugging Face tokenizer
PAD, UNKNOWN = "<pad>", "<unk>"
MOST_LETTERS = 200
"""Of a question that a person asks: beyond, a model has stopped reading for long."""
REMEMBERED = 100_000  # questions whose ids a processor keeps: the same few thousand come back every epoch

# Both spellings of an open syllable are correct Vietnamese and both occur within ViVQA (622 times hòa, 7 times hoà).
# We write the mark on the last vowel, as pyvi's own dictionary (647 such entries, none of the other kind) and the
# makers of PhoBERT and BARTpho (https://github.com/VinAIResearch/BARTpho, VietnameseToneNormalization.md) do. Towards
# this side "quý" needs no exception: after q the u belongs to the consonant, and "uý" is right there anyhow.
_OLD = "òa óa ỏa õa ọa òe óe ỏe õe ọe ùy úy ủy ũy ụy"
_NEW = "oà oá oả oã oạ oè oé oẻ oẽ oẹ uỳ uý uỷ uỹ uỵ"
TONE_PAIRS = {
    unicodedata.normalize("NFC", old): unicodedata.normalize("NFC", new)
    for old, new in zip(_OLD.split(), _NEW.split(), strict=True)
}
_OPEN_SYLLABLE = re.compile(f"({'|'.join(TONE_PAIRS)})(?![^\\W\\d_])")  # no letter after it: hòa, not hoàn

_PLAIN = str.maketrans(
    {"？": "?", "！": "!", "。": ".", "，": ",", "；": ";", "：": ":", "…": "..."}
    | dict.fromkeys("“”„«»", '"')
    | dict.fromkeys("‘’‚`´", "'")
)
# Set apart by spaces: brackets and quotes, a comma or colon that is not within a number (2,5 and 2:25 stay), an
# apostrophe that is not within a word (o'clock stays), dots that end something (t.v. keeps the inner one).
_APART = re.compile(r"""["()\[\]{}<>;!?]|(?<!\d)[,:]|[,:](?!\d)|(?<!\w)'|'(?!\w)|(?<!\.)\.++(?!\w)""")


# Alone, phải also asks "is it …", trái is fruit, and trên is on.
_SIDE = re.compile(r"\bgóc (trên|dưới) bên (trái|phải)\b|\b(bên|phía) (trái|phải|trên|dưới)\b")
_PLACE = re.compile(
    r"(?:nằm |ở )*(?:chính |ngay )?(?:giữa|(?:bên|phía) (?:trái|phải|trên|dưới|giữa)|"
    r"góc (?:trên|dưới) bên (?:trái|phải))(?: (?:của )?(?:ảnh|hình|bức ảnh))?"
)
_DIRECTIONS = {"trái": (-1, 0), "phải": (1, 0), "trên": (0, -1), "dưới": (0, 1)}
_SIDES = {direction: word for word, direction in _DIRECTIONS.items()}


# Syllables that ask or count or point, and name nothing by themselves: what is left of a question is what it is about.
_ASKING = frozenset(
    "có không phải là gì nào đâu ai sao mấy bao nhiêu số lượng vị trí nằm ở trong ngoài trên dưới bên phía trái giữa "
    "góc của này kia đó đây ảnh hình bức tấm món ăn màu sắc loại những các một cái con chiếc và với thế được".split()
)


def normalise(text: str) -> str:
    """One spelling for everything that a reader takes for the same question or answer.

    NFC, lower case, the tone mark of open syllables in oa, oe, uy on the last vowel (hòa → hoà), one kind of quote,
    punctuation set apart from words, closing `?`, `!`, `.` dropped, invisible characters removed, single spaces.
    Diacritics are never touched. Applying it twice changes nothing.
    """
    # Before NFC: a zero-width character between a letter and its mark would keep them apart.
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    text = unicodedata.normalize("NFC", text.lower())
    text = _OPEN_SYLLABLE.sub(lambda found: TONE_PAIRS[found[0]], text)
    text = text.translate(_PLAIN).replace("''", '"')  # ViVQA quotes as `` ''
    end = len(text)
    while end and (text[end - 1] in "?!." or text[end - 1].isspace()):
        end -= 1
    text = _APART.sub(r" \g<0> ", text[:end])
    return " ".join(text.split())


def has_words(text: str) -> bool:
    """Whether any word or number is in a text: where there is none ("???"), nothing was asked."""
    return any(character.isalnum() for character in normalise(text))


def check_question(text: str) -> None:
    """Raises `UserError` for what no model that reads its question can answer: no word, or far too many."""
    text = " ".join(text.split())
    if not has_words(text):
        raise UserError(f"the question {text[:20]!r} has no word in it; ask something")
    if len(text) > MOST_LETTERS:
        raise UserError(f"the question is too long: {len(text):,} letters, at most {MOST_LETTERS}; shorten it")


def plain_characters() -> dict[str, str]:
    """Characters that `normalise` writes in another way: full-width and curly ones."""
    return {chr(code): plain for code, plain in _PLAIN.items()}


def speaks_of_sides(text: str) -> bool:
    """Whether a text says that something is left, right, above or below, so that turning its photo changes it."""
    return _SIDE.search(normalise(text)) is not None


def names_place(text: str) -> bool:
    """Whether a text is the name of a place in the photo and nothing else: "ở giữa", "góc trên bên phải"."""
    return _PLACE.fullmatch(normalise(text)) is not None


def side_phrases() -> list[str]:
    """All that `turned` ever changes in a normalised text, the longest first."""
    corners = [f"góc {high} bên {side}" for high in ("trên", "dưới") for side in ("trái", "phải")]
    return corners + [f"{word} {side}" for word in ("phía", "bên") for side in _DIRECTIONS]


def turned(text: str, way: Symmetry) -> str:
    """What a text says of its photo seen another way round: "bên trái" of a mirrored photo is "bên phải"."""
    if way == Symmetry() or not speaks_of_sides(text):
        return text

    def other(found: re.Match[str]) -> str:
        if found[1]:  # a corner
            x, y = way.direction(_DIRECTIONS[found[2]][0], _DIRECTIONS[found[1]][1])
            return f"góc {_SIDES[0, y]} bên {_SIDES[x, 0]}"
        before, after = _DIRECTIONS[found[4]], way.direction(*_DIRECTIONS[found[4]])
        usual = "bên" if after[0] else "phía"
        return f"{found[3] if bool(before[0]) == bool(after[0]) else usual} {_SIDES[after]}"

    return _SIDE.sub(other, normalise(text))


def segment(text: str, *, segmentation: str = "pyvi") -> str:
    """Words of a normalised text, separated by spaces: `pyvi` joins a word's syllables (màu_sắc), `syllable` does not.

    Normalise first: pyvi reads capitals as names and cuts 38 % of ViVQA's questions elsewhere when they are in title
    case, 4 % when they are in capitals.
    """
    if segmentation not in WORDS:
        raise UserError(f"segmentation '{segmentation}': choose one of {', '.join(WORDS)}")
    return _pyvi(text) if segmentation == "pyvi" else text


@lru_cache(maxsize=REMEMBERED)
def _pyvi(text: str) -> str:
    # Imported when needed: it takes 2 to 5 s (scikit-learn, its own model). Then 12,000 questions take one second.
    try:
        from pyvi import ViTokenizer
    except OSError as error:  # it unpacks its model into the temporary folder
        raise UserError(
            f"segmentation pyvi: its model cannot be written to the temporary folder ({reason(error)}); make room "
            "there, set TMPDIR to another, or choose --segmentation syllable"
        ) from None

    return ViTokenizer.tokenize(text)


class QuestionProcessor:
    """From raw questions to padded ids: normalises, segments, tokenises.

    With `pyvi` or `syllable` the vocabulary is made from the training questions; `<pad>` is 0 and `<unk>` is 1. Any
    other segmentation (`hf:NAME_OR_PATH`, or just the name or path) is a Hugging Face tokenizer, with its own
    vocabulary and ids and without its special tokens: no [CLS] or </s>, so that the last state of a recurrent net is
    that of the last word. It is given normalised, unsegmented text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, segmentation: str, max_length: int) -> None:
        """Use `build` or `from_pretrained`. `tokenizer` sees text that is already normalised and segmented."""
        if max_length < 1:
            raise UserError(f"max_length {max_length}: the longest question in tokens must be 1 or more")
        self.tokenizer, self.segmentation, self.max_length = tokenizer, segmentation, max_length
        self._seen: dict[str, list[int]] = {}

    @classmethod
    def build(
        cls, questions: Iterable[str], *, segmentation: str = "pyvi", min_count: int = 1, max_length: int = 32
    ) -> Self:
        """A processor whose vocabulary is the words that occur at least `min_count` times in `questions`.

        Give the training questions only. Ids go by falling count, then by text, so they depend on nothing else.
        A Hugging Face tokenizer brings its vocabulary with it: `questions` are not read and `min_count` must be 1.
        Raises `UserError` for values out of range, an empty vocabulary, a tokenizer that cannot be loaded.
        """
        if min_count < 1:
            raise UserError(f"min_count {min_count}: must be 1 or more")
        if segmentation not in WORDS:
            if min_count != 1:
                raise UserError(f"min_count {min_count}: the tokenizer '{segmentation}' has its own vocabulary, give 1")
            return cls(_hugging_face(segmentation), segmentation=segmentation, max_length=max_length)
        counts: Counter[str] = Counter()
        for text, repeats in Counter(map(normalise, questions)).items():
            for word in segment(text, segmentation=segmentation).split():
                counts[word] += repeats
        words = frequent(counts, min_count)
        if not words:
            raise UserError(f"no word occurs {min_count} times or more in the training questions: no vocabulary")
        vocabulary = {word: index for index, word in enumerate([PAD, UNKNOWN, *words])}
        tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        return cls(_wrap(tokenizer), segmentation=segmentation, max_length=max_length)

    def __call__(self, questions: Sequence[str]) -> dict[str, torch.Tensor]:
        """B raw questions → `input_ids (B, T)` int64, right-padded with `pad_id`, and `lengths (B,)` int64, all ≥ 1.

        T is the longest of the batch, at most `max_length`; what is longer loses its end. A question without any token
        is one unknown word.
        """
        rows = [torch.tensor(ids) for ids in self._ids(questions)]
        if not rows:
            raise UserError("no questions given: a batch needs at least one")
        return {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=self.pad_id),
            "lengths": torch.tensor([len(row) for row in rows]),
        }

    def tokens(self, question: str) -> list[str]:
        """The pieces of the question as a reader would see them, one for each id: for drawing attention over words."""
        text = self._prepare(question)
        if self.tokenizer.is_fast:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            pieces = [text[start:end].strip() for start, end in encoded["offset_mapping"]]
        else:
            pieces = self.tokenizer.tokenize(text)
        return pieces[: self.max_length] or [UNKNOWN]

    def asking(self) -> list[bool]:
        """For each id, whether it is a word that only asks or points ("bao nhiêu", "nằm ở đâu") and names nothing."""
        words = self.tokenizer.convert_ids_to_tokens(list(range(self.vocab_size)))
        # pyvi joins syllables by "_"; Hugging Face tokenizers mark pieces: "▁có", "Ġcó", "có@@"
        plain = [normalise(re.sub(r"_|▁|Ġ|@@$", " ", word or "")) for word in words]
        return [bool(word) and set(word.split()) <= _ASKING for word in plain]

    def unknown_rate(self, questions: Sequence[str]) -> float:
        """Which part (0–1) of the tokens of these questions the vocabulary does not know."""
        ids = [index for row in self._ids(questions) for index in row]
        if not ids:
            raise UserError("no questions given: the rate of unknown words needs at least one")
        return sum(index == self.tokenizer.unk_token_id for index in ids) / len(ids)

    @property
    def vocab_size(self) -> int:
        """How many ids there are, padding included: rows of the model's embedding."""
        return len(self.tokenizer)

    @property
    def pad_id(self) -> int:
        """The id that fills short questions: 0, unless a Hugging Face tokenizer has another."""
        return self.tokenizer.pad_token_id or 0  # a tokenizer without padding (GPT-2's): lengths mask what is filled

    def save_pretrained(self, directory: str | Path) -> None:
        """Write question_processor.json and tokenizer.json (a Hugging Face tokenizer: its own files in tokenizer/)."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if self.segmentation in WORDS:
            text = self.tokenizer.backend_tokenizer.to_str(pretty=True)  # `tokenizers` itself would write half of it
            files.write_whole(directory / "tokenizer.json", lambda file: file.write(text))
        else:
            self.tokenizer.save_pretrained(directory / "tokenizer")
        settings = {
            "segmentation": self.segmentation,
            "max_length": self.max_length,
            "vocabulary_sha256": _fingerprint(self.tokenizer),
        }
        files.write_json(directory / "question_processor.json", settings)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Self:
        """What `save_pretrained` wrote, from the directory alone.

        Raises `UserError` naming the file that is missing, damaged, or not from the same processor.
        """
        path = Path(directory) / "question_processor.json"
        settings = read_json(path)
        try:
            segmentation, max_length = str(settings["segmentation"]), int(settings["max_length"])
            fingerprint = settings["vocabulary_sha256"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: is damaged (no good value for {error}); copy the checkpoint again") from None
        place = Path(directory) / ("tokenizer.json" if segmentation in WORDS else "tokenizer")
        if not (place.is_file() if segmentation in WORDS else place.is_dir()):
            raise UserError(f"{place}: is missing; copy the whole checkpoint")
        try:
            if segmentation in WORDS:
                tokenizer = _wrap(Tokenizer.from_str(files.read_text(place)))
            else:
                tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # `tokenizers` raises nothing more precise
            raise UserError(f"{place}: is damaged ({reason(error)}); copy the checkpoint again") from None
        if _fingerprint(tokenizer) != fingerprint:
            raise UserError(f"{place}: its vocabulary is not the one that {path.name} was saved with; copy both again")
        try:
            return cls(tokenizer, segmentation=segmentation, max_length=max_length)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def _prepare(self, question: str) -> str:
        text = normalise(question)
        return segment(text, segmentation=self.segmentation) if self.segmentation in WORDS else text

    def _ids(self, questions: Sequence[str]) -> list[list[int]]:
        """Ids of each question, 1 to `max_length` of them; each different question is worked on once."""
        if isinstance(questions, str):
            raise TypeError("questions must be a list of texts, not one text")
        if len(self._seen) > REMEMBERED:
            self._seen.clear()
        fresh = list(dict.fromkeys(question for question in questions if question not in self._seen))
        if fresh:
            texts = [self._prepare(question) for question in fresh]
            encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            unknown = self.tokenizer.unk_token_id
            empty = [self.pad_id if unknown is None else unknown]  # byte-level tokenizers know no unknown word
            for question, ids in zip(fresh, encoded, strict=True):
                self._seen[question] = ids[: self.max_length] or empty
        return [self._seen[question] for question in questions]


def frequent(counts: Counter[str], min_count: int) -> list[str]:
    """The texts counted at least `min_count` times, by falling count, then by text."""
    kept = [text for text, count in counts.items() if count >= min_count]
    return sorted(kept, key=lambda text: (-counts[text], text))


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerBase:
    """A vocabulary of ours behind the same interface as everyone else's."""
    if tokenizer.token_to_id(PAD) != 0 or tokenizer.token_to_id(UNKNOWN) != 1:
        raise ValueError(f"{PAD} is not 0 or {UNKNOWN} is not 1")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN)


def _hugging_face(segmentation: str) -> PreTrainedTokenizerBase:
    name = segmentation.removeprefix("hf:")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # whatever is wrong with the name, the network or the files, each of its own kind
        raise UserError(
            f"segmentation '{segmentation}': is neither {' nor '.join(WORDS)}, nor a Hugging Face tokenizer that "
            f"could be loaded ({reason(error)}); give its name or its folder"
        ) from None
    normalizer = tokenizer.backend_tokenizer.normalizer if tokenizer.is_fast else None
    if normalizer is not None and normalizer.normalize_str("bò") == normalizer.normalize_str("bo"):
        warnings.warn(f"tokenizer '{name}' strips diacritics: Vietnamese words become one another", stacklevel=3)
    return tokenizer


def _fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    pairs = sorted(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0]))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """One file of a saved processor. Raises `UserError` naming the file that is missing or damaged."""
    try:
        return files.read_json(path)
    except UserError as error:
        raise UserError(f"{error}; copy the whole checkpoint again") from None
