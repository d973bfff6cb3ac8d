"""Questions about photos as a stream of rows: shards of any size, read as they come.

Belongs here: what a streamed row means, and vocabularies without all rows at hand. How shards are opened and shared is
`common/streams.py`'s; validation and test are read by `vqa/data.py`.

A row has `question`, `answer`, a photo (`image`: bytes, or a path in the folder of --images, else of --data) and, if
there is one, `group`. In a WebDataset they are `KEY.jpg` (or .png, .webp) and `KEY.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from common.columns import columns_from
from common.errors import UserError
from common.images import Preprocessing, image_from_bytes, to_tensor
from common.photos import PhotoFolder, broken_text, plain_text
from common.records import to_path
from common.streams import Row, Stream, first_rows, name_of, open_stream, plain_row, refuse_held
from vqa.answers import AnswerVocabulary
from vqa.data import VqaData, load_rows, split_keys
from vqa.options import TrainVqaOptions
from vqa.processor import VqaProcessor
from vqa.text import QuestionProcessor

_PHOTOS = ("image", "jpg", "jpeg", "png", "webp")
NOT_INDEXED: dict[str, list[str]] = {"photos": [], "groups": [], "rows": []}
"""What a run that was trained on a stream keeps of it (see `vqa.scoring.trained_on`)."""


def load_streamed(options: TrainVqaOptions, cache: Path) -> VqaData:
    """Validation and test, indexed and checked as ever. Raises `UserError` where --data has none."""
    assert options.data is not None  # which --streaming needs
    splits, notes = {}, []
    for name in ("validation", *["test"] * options.test):
        splits[name], more = load_rows(
            options.data,
            split=name,
            images=options.images,
            columns=columns_from(options.columns),
            on_bad_image=options.on_bad_image,
            need_images=options.inputs != "question",
            cache_directory=cache,
        )
        notes += more
    notes.insert(0, f"train: a stream ({options.streaming}), {options.stream_steps:,} steps an epoch")
    return VqaData(splits=splits, notes=notes, leaks=[])


def vocabularies(options: TrainVqaOptions) -> tuple[QuestionProcessor, AnswerVocabulary]:
    """Of `--vocabulary`, a checkpoint or a folder with its files; else of a first pass over the stream's texts."""
    if options.vocabulary is not None:
        folder = to_path(options.vocabulary)
        return QuestionProcessor.from_pretrained(folder), AnswerVocabulary.from_pretrained(folder)
    texts = list(_texts(options))
    questions = QuestionProcessor.build(
        (question for question, _ in texts),
        segmentation=options.segmentation,
        min_count=options.min_word_count,
        max_length=options.max_question_length,
    )
    answers = (answer for _, answer in texts)
    return questions, AnswerVocabulary.build(answers, min_count=options.min_answer_count, top=options.top_answers)


def _texts(options: TrainVqaOptions) -> Iterator[tuple[str, str]]:
    assert options.streaming is not None
    columns = columns_from(options.columns)
    rows = open_stream(options.streaming)
    if rows.column_names and not options.streaming.lower().endswith(".tar"):
        texts = [columns.get(name, name) for name in ("question", "answer")]
        rows = rows.select_columns([name for name in texts if name in rows.column_names])  # Parquet skips the photos
    for row in first_rows(rows, options.vocabulary_rows):
        yield _text(row, "question", columns), _text(row, "answer", columns)


def question_stream(options: TrainVqaOptions, processor: VqaProcessor, data: VqaData) -> Stream:
    """The training batches."""
    folder = options.images or options.data
    assert options.streaming is not None and options.stream_steps is not None and folder is not None  # as it needs
    held: dict[str, set[str]] = {}
    if not options.allow_leaky_split:
        for what in ("photo", "group"):
            held[what] = {key for rows in data.splits.values() for key in split_keys(rows)[f"{what}s"]}
    root = to_path(folder)
    to_batch = _ToBatch(processor, columns_from(options.columns), root if root.is_dir() else root.parent, held)
    return Stream(open_stream(options.streaming), to_batch, steps=options.stream_steps, buffer=options.shuffle_buffer)


class _ToBatch:
    """Rows to a batch, as `QuestionBatches` makes them: equal photos are encoded once."""

    def __init__(
        self, processor: VqaProcessor, columns: Mapping[str, str], root: Path, held: Mapping[str, set[str]]
    ) -> None:
        self.processor, self.columns, self.held = processor, columns, held
        self.folder = PhotoFolder(root)
        self.presence = torch.tensor([*processor.answers.presence(), -1])

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        plain = [plain_row(row) for row in rows]
        inputs = dict(self.processor.questions([_text(row, "question", self.columns) for row in plain]))
        labels = torch.tensor(self.processor.answers.encode([_text(row, "answer", self.columns) for row in plain]))
        for row in plain:
            refuse_held(self.held, "group", plain_text(row.get(self.columns.get("group", "group"))), row)
        if self.processor.preprocessing is not None:
            inputs |= self._photos(plain, self.processor.preprocessing)
        batch = {"inputs": inputs, "labels": labels, "index": torch.arange(len(rows))}
        return batch | {"auxiliary_labels": self.presence[labels]}

    def _photos(self, rows: Sequence[Row], preprocessing: Preprocessing) -> dict[str, torch.Tensor]:
        views: dict[str, tuple[torch.Tensor, Any]] = {}
        which = []
        for row in rows:
            content = self._photo(row)
            digest = sha256(content).hexdigest()
            refuse_held(self.held, "photo", digest, row)
            if digest not in views:
                views[digest] = to_tensor(image_from_bytes(content, name_of(row)), preprocessing)
            which.append(list(views).index(digest))
        return {
            "pixels": torch.stack([pixels for pixels, _ in views.values()]),
            "valid": torch.tensor([valid for _, valid in views.values()]),
            "image_index": torch.tensor(which),
        }

    def _photo(self, row: Row) -> bytes:
        given = (self.columns["image"],) if "image" in self.columns else _PHOTOS
        value = next((row[name] for name in given if row.get(name)), None)
        if isinstance(value, Mapping):  # `datasets.Image`
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        try:
            path = self.folder.find(plain_text(value).strip()) if value else ""
            return Path(path).read_bytes()
        except UserError as error:
            raise UserError(f"{name_of(row)}: {error}") from None
        except OSError:
            raise UserError(f"{name_of(row)}: photo {value or '(none)'} cannot be read") from None


def _text(row: Row, name: str, columns: Mapping[str, str]) -> str:
    theirs = columns.get(name, name)
    if theirs not in row:
        raise UserError(f"{name_of(row)}: has no '{theirs}', only {', '.join(map(str, row))}; --columns names others")
    text = plain_text(row[theirs])
    if not text.strip() or broken_text(text):
        raise UserError(f"{name_of(row)}: {name} is blank or no text")
    return text
