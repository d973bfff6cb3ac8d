"""`vqa/text.py`'s rules as `tokenizers` has them, so that a question can be read without this code.

Belongs here: the same normalisation as a chain of `tokenizers` normalizers, in one file with the vocabulary. `pyvi`
cannot be in it: of a run that segments with it, the words are cut by pyvi between the two.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.normalizers import Normalizer, Replace

from common.errors import UserError
from vqa.text import TONE_PAIRS, QuestionProcessor, plain_characters, segment

FILE = "tokenizer.json"
_BRACKETS = '"()[]{}<>;!?'
_WORD, _DIGIT = r"[\p{L}\p{N}_]", r"\p{Nd}"  # as Python's \w and \d; the library's own \w has combining marks, too
_SPACES = r"[\s\x1c-\x1f]"  # Python counts the separators of files, groups, records and units among them


def normalizer() -> Normalizer:
    """What `vqa.text.normalise` does."""
    # Control, format and surrogate characters but those that are spaces.
    chain = [Replace(Regex(r"[[\p{Cc}\p{Cf}\p{Cs}]&&[^\t-\r\x1c-\x1f\x{85}]]"), "")]
    chain += [normalizers.Lowercase(), normalizers.NFC()]
    chain += [Replace(Regex(old + r"(?![\p{L}\p{Nl}\p{No}])"), new) for old, new in TONE_PAIRS.items()]
    chain += [Replace(odd, plain) for odd, plain in plain_characters().items()]
    chain += [Replace("''", '"'), Replace(Regex(rf"([?!.]|{_SPACES})+\z"), "")]
    chain += [Replace(character, f" {character} ") for character in _BRACKETS]
    chain += [Replace(Regex(rf"(?<!{_DIGIT}){sign}|{sign}(?!{_DIGIT})"), f" {sign} ") for sign in ",:"]
    chain += [Replace(Regex(rf"(?<!{_WORD})'|'(?!{_WORD})"), " ' ")]
    chain += [Replace(Regex(rf"(?<!\.)(?=\.++(?!{_WORD}))|(?<=\.)(?!\.|{_WORD})"), " ")]
    # Not `Strip`: in tokenizers 0.23 it panics behind some of these replacements.
    chain += [Replace(Regex(rf"{_SPACES}+"), " "), Replace(Regex(r"\A | \z"), "")]
    return normalizers.Sequence(chain)


def save_tokenizer(processor: QuestionProcessor, path: Path) -> None:
    """Write vocabulary and normalisation as one `tokenizers` file."""
    Path(path).write_text(_tokenizer(processor).to_str(), encoding="utf-8")


def _tokenizer(processor: QuestionProcessor) -> Tokenizer:
    if not processor.tokenizer.is_fast:
        raise UserError(
            f"the tokenizer {processor.segmentation} is none of the library `tokenizers`, which --to onnx needs; share "
            "the run with --to folder"
        )
    tokenizer = Tokenizer.from_str(processor.tokenizer.backend_tokenizer.to_str())  # a copy
    tokenizer.no_padding()
    tokenizer.no_truncation()
    theirs = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
    tokenizer.normalizer = normalizers.Sequence([normalizer(), *theirs])
    return tokenizer


def lines(processor: QuestionProcessor, question: str) -> tuple[list[str], list[str]]:
    """Lines of Python that make `ids` of a question: imports, and the rest."""
    asked, unknown = json.dumps(question, ensure_ascii=False), _unknown(processor)
    end = f"[:{processor.max_length}] or [{unknown}]"
    if processor.segmentation != "pyvi":
        return [], [f"ids = tokenizer.encode({asked}, add_special_tokens=False).ids{end}"]
    return ["from pyvi import ViTokenizer"], [
        f"words = ViTokenizer.tokenize(tokenizer.normalizer.normalize_str({asked})).split()",
        f"ids = [tokenizer.token_to_id(word) or {unknown} for word in words]{end}",
    ]


def check_questions(processor: QuestionProcessor, questions: Iterable[str]) -> None:
    """Raises `UserError` at the first question that the file reads otherwise than the processor does."""
    tokenizer = _tokenizer(processor)
    for question in sorted(set(questions)):
        found = _ids(processor, tokenizer, question)
        if found != processor([question])["input_ids"][0].tolist():
            raise UserError(
                f"{FILE} reads the question {question[:100]!r} otherwise than the model does; share the run with "
                "--to folder"
            )


def _ids(processor: QuestionProcessor, tokenizer: Tokenizer, question: str) -> list[int]:
    """What the `lines` do."""
    unknown = _unknown(processor)
    if processor.segmentation == "pyvi":
        words = segment(tokenizer.normalizer.normalize_str(question), segmentation="pyvi").split()
        ids = [tokenizer.token_to_id(word) or unknown for word in words]
    else:
        ids = tokenizer.encode(question, add_special_tokens=False).ids
    return ids[: processor.max_length] or [unknown]


def _unknown(processor: QuestionProcessor) -> int:
    """The id of a question without any token."""
    unknown = processor.tokenizer.unk_token_id
    return processor.pad_id if unknown is None else unknown
