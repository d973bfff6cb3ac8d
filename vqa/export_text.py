"""`vqa/text.py`'s rules as `tokenizers` has them, so that a question can be read without this code.

Belongs here: the same normalisation as a chain of `tokenizers` normalizers, in one file with the vocabulary. `pyvi`
cannot be in it: of a run that segments with it, the words are cut by pyvi between the two.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.normalizers import Normalizer, Replace

from common.errors import UserError
from common.symmetry import Symmetry
from vqa.text import TONE_PAIRS, QuestionProcessor, plain_characters, segment, side_phrases, turned

FILE = "tokenizer.json"
_BRACKETS = '"()[]{}<>;!?'
_WORD, _DIGIT = r"[\p{L}\p{N}_]", r"\p{Nd}"  # as Python's \w and \d; the library's own \w has combining marks, too
_SPACES = r"[\s\x1c-\x1f]"  # Python counts the separators of files, groups, records and units among them


def normalizer() -> Normalizer:
    """What `vqa.text.normalise` does."""
    return normalizers.Sequence(_chain())


def _chain() -> list[Normalizer]:
    # Control, format and surrogate characters but those that are spaces.
    chain: list[Any] = [Replace(Regex(r"[[\p{Cc}\p{Cf}\p{Cs}]&&[^\t-\r\x1c-\x1f\x{85}]]"), "")]
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
    return chain


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
    tokenizer.normalizer = normalizers.Sequence([*_chain(), *theirs])
    return tokenizer


def about_ways(ways: Sequence[Symmetry]) -> dict[str, Any]:
    """For `description.json`: which words say a side, and what each is called of a photo seen each way round."""
    phrases = side_phrases()
    return {
        "sides": rf"\b({'|'.join(phrases)})\b",
        "ways": [{phrase: turned(phrase, way) for phrase in phrases} for way in ways],
    }


def lines(processor: QuestionProcessor, question: str, ways: Sequence[Symmetry]) -> tuple[list[str], list[str]]:
    """Lines of Python that make `input_ids` and `lengths` of a question: imports, and the rest."""
    asked, unknown, most = json.dumps(question, ensure_ascii=False), _unknown(processor), processor.max_length
    by_pyvi, several = processor.segmentation == "pyvi", len(ways) > 1
    imports = ["from pyvi import ViTokenizer"] * by_pyvi + ["import re"] * several
    text = asked
    made = []
    if several:
        made = [
            f"text = {asked}",
            f"for step in range({len(_chain())}):  # what is one spelling; more is the vocabulary's own",
            "    text = tokenizer.normalizer[step].normalize_str(text)",
            'about_text = about["question"]  # of each way round, what it calls left, right, above and below',
            "texts = [",
            '    re.sub(about_text["sides"], lambda found: way[found[0]], text) for way in about_text["ways"]',
            "]",
        ]
        text = "text"
    if by_pyvi:
        words = f"ViTokenizer.tokenize(tokenizer.normalizer.normalize_str({text})).split()"
        ids = f"[tokenizer.token_to_id(word) or {unknown} for word in {words}][:{most}] or [{unknown}]"
    else:
        ids = f"tokenizer.encode({text}, add_special_tokens=False).ids[:{most}] or [{unknown}]"
    if not several:
        return imports, [*made, f"ids = {ids}", "input_ids, lengths = np.array([ids]), np.array([len(ids)])"]
    return imports, [
        *made,
        f"ids = [{ids} for text in texts]",
        "lengths = np.array([[len(row)] for row in ids])",
        f"input_ids = np.array([[row + [{processor.pad_id}] * (lengths.max() - len(row))] for row in ids])",
    ]


def check_questions(
    processor: QuestionProcessor, questions: Iterable[str], ways: Sequence[Symmetry] = (Symmetry(),)
) -> None:
    """Raises `UserError` at the first question that the file reads otherwise than the processor does, whichever way
    round its photo is."""
    tokenizer = _tokenizer(processor)
    about = about_ways(ways)
    for question in sorted(set(questions)):
        for way, other in zip(ways, about["ways"], strict=True):
            text = question
            if len(ways) > 1:
                text = re.sub(about["sides"], partial(_called, other), _plain(tokenizer, question))
            if _ids(processor, tokenizer, text) != processor([turned(question, way)])["input_ids"][0].tolist():
                raise UserError(
                    f"{FILE} reads the question {question[:100]!r} otherwise than the model does; share the run with "
                    "--to folder"
                )


def _called(words: Mapping[str, str], found: re.Match[str]) -> str:
    return words[found[0]]


def _plain(tokenizer: Tokenizer, question: str) -> str:
    """What the `lines` do before they turn a question."""
    for step in range(len(_chain())):
        question = tokenizer.normalizer[step].normalize_str(question)
    return question


def _ids(processor: QuestionProcessor, tokenizer: Tokenizer, question: str) -> list[int]:
    """What the `lines` make of a question seen one way round."""
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
