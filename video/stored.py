"""Features of clips that someone computed before, so that a set can be shared, and trained on, without its videos.

    data, features = load_stored("features.safetensors")      # with index.csv beside it
    features.take(data.splits["train"]["place"][:8])          # (8, T, D) float32, lengths (8,)

Belongs here: reading and writing such a file with its index. Does not belong here: computing features, and how rows
become splits (`video/splits.py`).

A file (or a folder of them, ordered by name) is safetensors with `features`: `(n, T, D)`, and `lengths (n,)` where
clips have fewer than T; or `(sum of lengths, D)`, clips one after another, with `lengths (n,)`. Features are floats, or
uint8 with `scale (D,)`: the value is then (features / 255)² · scale. The index is a table of `path`, `label` and, if
there are any, `group` and `split`, a row per clip in the same order.
"""

import csv
import hashlib
import itertools
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from common.errors import UserError, reason
from common.records import open_file, to_path
from common.splits import Rows, describe, find_overlap, limit_note, spread_of_each, summary
from video.data import read_rows
from video.splits import (
    UNIT,
    VideoData,
    choose_split,
    make_splits,
    name_groups,
    select_classes,
    to_dataset,
)

INDEX = "index.csv"
COLUMNS = ("path", "label", "group", "split")
_KINDS = ("U8", "F16", "BF16", "F32", "F64")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One file."""

    path: Path
    starts: torch.Tensor | None  # (n,) int64, first frame of each clip; None where features are (n, T, D)
    lengths: torch.Tensor  # (n,) int64
    size: int
    scale: torch.Tensor | None  # (D,) float32


class StoredFeatures:
    """Features of n clips on disk. Only what is asked for is read; it may be handed to DataLoader workers."""

    def __init__(self, path: str | Path) -> None:
        """Open a file or a folder of files; all but the features' values is checked. Raises `UserError`."""
        path = to_path(path)
        if not path.exists():
            raise UserError(f"--features {path}: no such file or folder")
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not files:
            raise UserError(f"--features {path}: no .safetensors file in this folder")
        self._parts = [_inspect(file) for file in files]
        self.size = self._parts[0].size
        """D"""
        for part in self._parts:
            if part.size != self.size:
                raise UserError(f"{part.path}: features of size {part.size}, but {files[0].name} has {self.size}")
        self.lengths = torch.cat([part.lengths for part in self._parts])
        """(n,) int64, frames of each clip"""
        self._ends = torch.tensor([len(part.lengths) for part in self._parts]).cumsum(0)
        self._open: dict[tuple[int, int], Any] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def __getitem__(self, place: int) -> torch.Tensor:
        """→ `(T, D)` float32, the frames of one clip. Raises `UserError` where one is no number."""
        raw, part = self._read(place)
        if raw.is_floating_point() and not torch.isfinite(raw).all():
            raise UserError(f"{part.path}: features of clip {place + 1} of {len(self):,} are not all finite numbers")
        return raw.float() if part.scale is None else (raw.float() / 255).square_().mul_(part.scale)

    def take(self, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """→ features `(B, T, D)` float32, zeros after a clip's end, and lengths `(B,)` int64, in this order."""
        return pad_sequence([self[place] for place in places], batch_first=True), self.lengths[list(places)]

    def digest(self, place: int) -> str:
        """SHA-256, in hex, of a clip's features as they are stored."""
        return hashlib.sha256(self._read(place)[0].contiguous().view(torch.uint8).numpy()).hexdigest()  # type: ignore[arg-type]

    def _read(self, place: int) -> tuple[torch.Tensor, _Part]:
        number = int(torch.searchsorted(self._ends, place, right=True))
        if place < 0 or number == len(self._parts):
            raise IndexError(f"clip {place} of {len(self)}")
        part = self._parts[number]
        inside = place - (int(self._ends[number - 1]) if number else 0)
        length = int(part.lengths[inside])
        try:
            features = self._slice(number)
            if part.starts is None:
                return features[inside : inside + 1][0, :length], part
            start = int(part.starts[inside])
            return features[start : start + length], part
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{part.path}: cannot be read any more ({reason(error)})") from None

    def _slice(self, number: int) -> Any:
        """The features of a file, to be cut. Opened once in each process: a forked one must not share the file."""
        key = os.getpid(), number
        if key not in self._open:
            self._open[key] = safe_open(self._parts[number].path, framework="pt").get_slice("features")
        return self._open[key]


def _inspect(path: Path) -> _Part:
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if "features" not in names:
                some = ", ".join(sorted(names)[:5]) + f" and {len(names) - 5} others" * (len(names) > 5)
                raise UserError(f"{path}: has no tensor 'features'; it has: {some or 'none'}")
            features = file.get_slice("features")
            shape, kind = tuple(features.get_shape()), features.get_dtype()
            lengths = file.get_tensor("lengths").clone() if "lengths" in names else None
            scale = file.get_tensor("scale").clone() if "scale" in names else None
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path}: is no whole safetensors file ({reason(error)})") from None
    shown = "×".join(map(str, shape))
    if len(shape) not in (2, 3) or 0 in shape or kind not in _KINDS:
        raise UserError(f"{path}: features are {shown} {kind}; (clips ×) frames × size, floats or U8, are needed")
    if (kind == "U8") != (scale is not None):
        raise UserError(f"{path}: " + ("U8 features need a tensor 'scale'" if scale is None else f"{kind} has a scale"))
    if scale is not None:
        if scale.shape != shape[-1:] or not scale.is_floating_point():
            raise UserError(f"{path}: scale is {tuple(scale.shape)}, {scale.dtype}; {shape[-1]} floats are needed")
        if not torch.isfinite(scale).all():
            raise UserError(f"{path}: scale is not all finite numbers")
        scale = scale.float()
    if lengths is None:
        if len(shape) == 2:
            raise UserError(f"{path}: features are {shown}, so a tensor 'lengths' must tell the frames of each clip")
        lengths = torch.full(shape[:1], shape[1])
    if lengths.ndim != 1 or not len(lengths) or lengths.is_floating_point() or lengths.min() < 1:
        raise UserError(f"{path}: lengths must be a list of whole numbers, 1 or more")
    lengths = lengths.long()
    if len(shape) == 2 and lengths.sum() != shape[0]:
        raise UserError(f"{path}: lengths add up to {lengths.sum():,}, but there are {shape[0]:,} frames")
    if len(shape) == 3 and (len(lengths) != shape[0] or lengths.max() > shape[1]):
        raise UserError(f"{path}: {len(lengths):,} lengths up to {lengths.max()} do not fit features of {shown}")
    starts = lengths.cumsum(0) - lengths if len(shape) == 2 else None
    return _Part(path=path, starts=starts, lengths=lengths, size=shape[-1], scale=scale)


# --- loading ----------------------------------------------------------------------------------------------------------


def load_stored(
    features: str,
    index: str | None = None,
    *,
    classes: Sequence[str] = (),
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    allow_leaky_split: bool = False,
    columns: Mapping[str, str] | None = None,
    random_split: bool = False,
    random_test_fraction: float | None = None,
    swap_splits: bool = False,
    folds: int = 0,
    fold: int = 0,
    limit: int | None = None,
) -> tuple[VideoData, StoredFeatures]:
    """Load stored features and check the splits of their index; options as of `video.data.load_video`.

    Rows have the columns that clips have, with `path` as the index has it (the clip need not be there), `hash` of the
    stored features, and `place`, which `StoredFeatures` takes. index: default `index.csv` beside the file or in the
    folder. Equal features in two splits are noted, not refused: published splits have such clips (UCF101's split 1
    trains on v_Basketball_g23_c01 and tests on v_Basketball_g03_c01). Raises `UserError`.
    """
    stored, rows = _read(features, index, columns or {})
    rows, names, notes = select_classes(rows, classes, where=features)
    rows = _add_hashes(spread_of_each(rows, limit), stored)
    data = make_splits(
        rows,
        names,
        notes + name_groups(rows) + limit_note(limit, unit=UNIT),
        where=features,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
        allow_leaky_split=allow_leaky_split,
        random_split=random_split,
        random_test_fraction=random_test_fraction,
        swap_splits=swap_splits,
        folds=folds,
        fold=fold,
    )
    for pair in itertools.combinations(data.splits, 2):
        if same := find_overlap(*({"features": data.splits[split]["hash"]} for split in pair), names=pair):
            data.notes.append(f"duplicates: {describe(same)}")
    return data, stored


def load_stored_clips(
    features: str,
    index: str | None = None,
    *,
    split: str = "test",
    classes: Sequence[str],
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> tuple[datasets.Dataset, StoredFeatures, list[str]]:
    """Stored features to be scored by a run of `classes`: → rows, features, notes; as `video.data.load_clips`."""
    stored, rows = _read(features, index, columns or {})
    rows, unknown = choose_split(rows, split, classes, where=features)
    rows = _add_hashes(spread_of_each(rows, limit), stored)
    groups = name_groups(rows)
    return to_dataset(rows), stored, [summary(split, rows, unit=UNIT), *groups, *unknown, *limit_note(limit, unit=UNIT)]


def _read(features: str, index: str | None, columns: Mapping[str, str]) -> tuple[StoredFeatures, Rows]:
    stored = StoredFeatures(features)
    path = to_path(features)
    table = to_path(index) if index else (path if path.is_dir() else path.parent) / INDEX
    if not table.is_file():
        raise UserError(f"{table}: no such index; --index names the table of path and label of each stored clip")
    rows = read_rows(open_file(table), columns)
    if len(rows) != len(stored):
        raise UserError(f"{table}: {len(rows):,} rows, but {features} holds {len(stored):,} clips; each needs one row")
    return stored, [row | {"place": place} for place, row in enumerate(rows)]


def _add_hashes(rows: Rows, stored: StoredFeatures) -> Rows:
    added = []
    for row in tqdm(rows, desc="checking features", unit="clip", disable=None, delay=3, leave=False):
        place = row["place"]
        added.append(row | {"hash": stored.digest(place), "frames": int(stored.lengths[place])})
    return added


# --- writing ----------------------------------------------------------------------------------------------------------


def write_stored(path: str | Path, clips: Iterable[tuple[Mapping[str, str], torch.Tensor]]) -> Path:
    """Write features `(T, D)` of clips, with rows of path, label[, group][, split], as one file and `index.csv` beside.

    Features become float16. Clips are taken one by one and spooled to disk; both files appear whole at the end, and
    neither may be there before. Raises `UserError`.
    """
    path = to_path(path)
    index = path.with_name(INDEX)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: features are written to a .safetensors file; name one")
    for file in (path, index):
        if file.exists():
            raise UserError(f"{file}: is there already; choose another folder")
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fresh.mkdir(parents=True)
        size, lengths = _spool(fresh, clips)
        raw = torch.from_file(str(fresh / "raw"), size=sum(lengths) * size, dtype=torch.float16)
        save_file({"features": raw.view(-1, size), "lengths": torch.tensor(lengths)}, fresh / path.name)
        (fresh / INDEX).replace(index)
        (fresh / path.name).replace(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be written ({reason(error)})") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return path


def _spool(folder: Path, clips: Iterable[tuple[Mapping[str, str], torch.Tensor]]) -> tuple[int, list[int]]:
    """Write `raw` (float16, all frames) and the index into `folder`; → D and lengths."""
    size, lengths = 0, []
    with open(folder / "raw", "wb") as raw, open(folder / INDEX, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for row, features in clips:
            size = size or features.shape[-1]
            if features.ndim != 2 or features.shape[1] != size or not len(features):
                raise UserError(f"{row['path']}: features are {tuple(features.shape)}; frames × {size} are needed")
            half = features.detach().cpu().half()
            if not torch.isfinite(half).all():
                raise UserError(f"{row['path']}: features are not all finite numbers in float16")
            raw.write(half.contiguous().numpy().tobytes())
            table.writerow([row.get(name, "") for name in COLUMNS])
            lengths.append(len(features))
    if not lengths:
        raise UserError("no clips: there are no features to write")
    return size, lengths
