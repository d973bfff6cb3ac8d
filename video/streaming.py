"""Clips as a stream: WebDataset shards of any number, read as they come.

Belongs here: what a streamed row means. How shards are opened and shared is `common/streams.py`'s; validation and test
are read by `video/data.py`.

A row of a WebDataset is `KEY.mp4` (or .avi, .mkv, .webm, .mov) and its label, as `KEY.json` with `label` (and `group`,
if there is one) or as the text `KEY.cls`, a class or its number. Rows of tables have `path` and `label`.
"""

import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import datasets
import torch

from common.columns import columns_from
from common.errors import UserError
from common.photos import plain_text
from common.records import to_path
from common.streams import Row, Stream, name_of, open_stream, plain_row, refuse_held
from video.batches import join_views
from video.clips import ClipFolder
from video.data import load_clips
from video.frames import ClipViews
from video.options import TrainVideoOptions
from video.splits import VideoData

_CLIPS = ("mp4", "avi", "mkv", "webm", "mov", "video", "path")
NOT_INDEXED: dict[str, list[str]] = {"groups": [], "clips": [], "rows": []}
"""What a run that was trained on a stream keeps of it (see `video.scoring.trained_on`)."""


def load_streamed(options: TrainVideoOptions, cache: Path) -> VideoData:
    """Validation and test, indexed and checked as ever; the classes are --classes, else validation's labels."""
    splits: dict[str, datasets.Dataset] = {}
    assert options.data is not None  # which --streaming needs
    classes, notes = list(options.classes), []
    for name in ("validation", *["test"] * options.test):
        splits[name], more = load_clips(
            options.data,
            clips=options.clips,
            split=name,
            classes=classes,
            on_bad_clip=options.on_bad_clip,
            columns=columns_from(options.columns),
            cache_directory=cache,
        )
        if not classes:  # of which load_clips then knew none, and said so
            classes, more = sorted(set(splits[name]["label"][:])), more[:1]
        notes += more
    if len(classes) < 2:
        raise UserError(f"--data {options.data}: validation has one class only; name all with --classes")
    notes.insert(0, f"train: a stream ({options.streaming}), {options.stream_steps:,} steps an epoch")
    return VideoData(splits=splits, classes=classes, notes=notes, leaks=[])


def clip_stream(options: TrainVideoOptions, source: ClipViews, data: VideoData) -> Stream:
    """The training batches."""
    held: dict[str, set[str]] = {}
    if not options.allow_leaky_split:
        for what, column in (("clip", "hash"), ("group", "group")):
            held[what] = {key for rows in data.splits.values() for key in rows[column][:]}
    folder = options.clips or options.data
    assert options.streaming is not None and options.stream_steps is not None and folder is not None  # as it needs
    root = to_path(folder)
    columns = columns_from(options.columns)
    to_batch = _ToBatch(source, data.classes, columns, root if root.is_dir() else root.parent, held)
    return Stream(open_stream(options.streaming), to_batch, steps=options.stream_steps, buffer=options.shuffle_buffer)


class _ToBatch:
    """Rows to a batch, as `ClipBatches` makes them of clips that are decoded."""

    def __init__(
        self,
        source: ClipViews,
        classes: Sequence[str],
        columns: Mapping[str, str],
        root: Path,
        held: Mapping[str, set[str]],
    ) -> None:
        self.source, self.classes, self.columns, self.held = source, list(classes), columns, held
        self.index = {name.casefold(): place for place, name in enumerate(classes)}
        self.folder = ClipFolder(root)

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        plain = [plain_row(row) for row in rows]
        labels = torch.tensor([self._label(row) for row in plain])
        inputs = join_views([self._view(row) for row in plain])
        return {"inputs": inputs, "labels": labels, "index": torch.arange(len(rows))}

    def _label(self, row: Row) -> int:
        label = row.get(self.columns.get("label", "label"), row.get("cls"))
        label = label.decode(errors="replace") if isinstance(label, bytes) else plain_text(label)
        place = self.index.get(label.strip().casefold())
        if place is None and "cls" in row and label.strip().isdecimal() and int(label) < len(self.classes):
            place = int(label)
        if place is None:
            shown = ", ".join(self.classes[:12])
            raise UserError(f"{name_of(row)}: label {label!r} is none of the classes ({shown}); see --classes")
        refuse_held(self.held, "group", plain_text(row.get(self.columns.get("group", "group"))), row)
        return place

    def _view(self, row: Row) -> Any:
        given = (self.columns["path"],) if "path" in self.columns else _CLIPS
        name = next((name for name in given if row.get(name)), None)
        if name is None:
            there = ", ".join(name for name in row if not name.startswith("__"))
            raise UserError(f"{name_of(row)}: holds no clip, only {there}")
        value = row[name]
        if isinstance(value, Mapping):  # `datasets.Video`
            value = value.get("bytes") or value.get("path")
        try:
            if not isinstance(value, bytes):
                return self._load(self.folder.find(plain_text(value).strip()), row)
            # FFmpeg seeks in what it reads, and PyAV opens files by the rules of `video/decode.py`.
            with tempfile.NamedTemporaryFile(suffix=f".{name}") as file:
                file.write(value)
                file.flush()
                return self._load(file.name, row)
        except UserError as error:
            raise UserError(f"{name_of(row)}: {error}") from None

    def _load(self, path: str, row: Row) -> Any:
        try:
            digest = sha256(Path(path).read_bytes()).hexdigest()
        except OSError:
            raise UserError(f"{path}: no such clip") from None
        refuse_held(self.held, "clip", digest, row)
        return self.source.load(path, digest, 0)
