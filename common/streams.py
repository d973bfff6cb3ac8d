"""Training rows that are read as they come: shards of any number, of which nobody holds an index.

    rows = open_stream("shards/train-*.tar")
    source = Stream(rows, to_batch, steps=1000, buffer=1000)     # what `common.training.fit` takes as `train`

Belongs here: opening shards through `datasets`' own builders, and giving each process and worker its share for ever.
Does not belong here: what a row means (`vqa/streaming.py`, `video/streaming.py`), and validation and test, which are
indexed as ever: each of their samples is scored exactly once.

Nothing knows how many rows there are, so an epoch is a number of steps. The next one goes on where the last one ended;
after its last row a stream begins again, mixed anew. What needs all rows at once cannot be had: no split is taken off
train (give validation), no features are kept (the encoder runs in every step), no class is as frequent as in the data.
"""

import csv
import glob
import itertools
import json
import os
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from common.errors import UserError, reason
from common.interruption import ignore_signals
from common.workers import loading_context

BUILDERS = {
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".tar": "webdataset",
}

_TAR_END = bytes(2 * tarfile.BLOCKSIZE)
Row = Mapping[str, Any]


def open_stream(source: str) -> datasets.IterableDataset:
    """The rows of a file, of all files of a pattern or a folder, or of a Hub id's train split, media as bytes or path.

    A folder gives its `train*` files, or all of a kind that can be read. Raises `UserError`.
    """
    files = _files(source)
    try:
        with warnings.catch_warnings(action="ignore"):
            if files:
                rows = _open_files(files)
            else:
                rows = datasets.load_dataset(source, split="train", streaming=True)
            for name, kind in (rows.features or {}).items():
                if hasattr(kind, "decode"):  # photos and clips stay as they are stored
                    rows = rows.cast_column(name, type(kind)(decode=False))
    except UserError:
        raise
    except Exception as error:  # the network, the Hub, damaged files: a dozen kinds
        raise UserError(f"--streaming {source}: `datasets` cannot read it ({reason(error)})") from None
    return rows


def _files(source: str) -> list[str]:
    path = os.path.expanduser(source)
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        known = [str(file) for file in sorted(Path(path).iterdir()) if file.suffix.lower() in BUILDERS]
        files = [file for file in known if os.path.basename(file).lower().startswith("train")] or known
    else:
        files = sorted(glob.glob(path, recursive=True))
    looks_like_a_path = os.path.exists(path) or glob.has_magic(path) or Path(path).suffix.lower() in BUILDERS
    if not files and (looks_like_a_path or source.count("/") != 1):
        raise UserError(f"--streaming {source}: no file there of a kind that is read: {', '.join(BUILDERS)}")
    return files


def _check_tar(path: str) -> None:
    """Refuse (`UserError`) what is no tar, has nothing in it, or does not end: its reader would pass over the rest
    without a word."""
    try:
        with tarfile.open(path, mode="r:") as tar:
            if tar.next() is None:
                raise UserError(f"--streaming {path}: has nothing in it; remove it, or write it again")
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_TAR_END)))
            whole = size % tarfile.BLOCKSIZE == 0 and file.read() == _TAR_END
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"--streaming {path}: cannot be read as a .tar ({reason(error)}); copy it again") from None
    if not whole:
        raise UserError(f"--streaming {path}: is cut off, it has no end; copy it again")


def _open_files(files: list[str]) -> datasets.IterableDataset:
    kinds = {Path(file).suffix.lower() for file in files}
    if len(kinds) > 1 or not kinds <= set(BUILDERS):
        raise UserError(
            f"--streaming: files of the kinds {', '.join(sorted(kinds))}; give one of {', '.join(BUILDERS)}"
        )
    (kind,) = kinds
    more: dict[str, Any] = {}
    if kind == ".tar":
        for shard in files:
            _check_tar(shard)
    if BUILDERS[kind] == "csv":  # every value stays text: "01" and "NA" are answers like any other
        more = {"keep_default_na": False, "sep": "\t" if kind == ".tsv" else ","}
        with open(files[0], encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, delimiter=more["sep"]), [])
        more["features"] = datasets.Features({name: datasets.Value("string") for name in names})
    return datasets.load_dataset(BUILDERS[kind], data_files={"train": files}, split="train", streaming=True, **more)


def plain_row(row: Row) -> dict[str, Any]:
    """A row under the names it has in a table: of a WebDataset, the members of `KEY.json` join the others. Its
    `__key__` stays, for messages."""
    plain = {name: value for name, value in row.items() if name == "__key__" or not name.startswith("__")}
    members = plain.pop("json", None)
    if isinstance(members, bytes | str):
        try:
            members = json.loads(members)
        except ValueError:
            raise UserError(f"{name_of(row)}: its .json is not valid JSON") from None
    if isinstance(members, Mapping):
        plain |= {name: value for name, value in members.items() if value is not None}
    return plain


def name_of(row: Row) -> str:
    """How messages name a row: by what it calls itself."""
    for name in ("__key__", "id", "path"):
        if isinstance(row.get(name), str) and row[name]:
            return f"--streaming, row {row[name]}"
    return "--streaming, a row (without id)"


def refuse_held(held: Mapping[str, set[str]], what: str, key: str, row: Row) -> None:
    """Raises `UserError` for a training row that validation or test holds, too.

    held: by what is compared (photo, clip, group), the keys of validation's and test's. key: the row's own, "" if none.
    """
    if key and key in held.get(what, ()):
        raise UserError(
            f"{name_of(row)}: its {what} is in validation or test, too; remove it there, or add --allow-leaky-split"
        )


def _rows(rows: datasets.IterableDataset) -> Iterator[Row]:
    """Raises `UserError` for what turns out to be damaged, or is gone, only when it is read."""
    try:
        yield from rows
    except UserError:
        raise
    except Exception as error:  # the network, damaged files: of `datasets`, pyarrow and each format
        raise UserError(f"--streaming: `datasets` cannot read on ({reason(error)}); copy the shards again") from None


class _Endless(torch.utils.data.IterableDataset):
    """The rows of one process, pass after pass; in a loader's worker those of its shards alone."""

    def __init__(self, rows: datasets.IterableDataset, *, seed: int, buffer: int, rank: int, world: int) -> None:
        mixed = rows.shuffle(seed=seed, buffer_size=buffer)
        self.rows = split_dataset_by_node(mixed, rank, world) if world > 1 else mixed

    def __iter__(self) -> Iterator[Row]:
        for number in itertools.count():
            self.rows.set_epoch(number)
            empty = True
            for row in _rows(self.rows):
                empty = False
                yield row
            if empty:
                raise UserError("--streaming: has no rows for one of the processes; give more rows, or fewer processes")


class _Skipping:
    """`to_batch`, but nothing is made of the first `batches`, which a run that goes on has had before.

    A loader gives its batches to its workers in turn, and each has a copy of this, which counts its own.
    """

    def __init__(self, to_batch: Callable[[list[Row]], dict[str, Any]], batches: int) -> None:
        self.to_batch, self.batches, self.seen = to_batch, batches, 0

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        worker = torch.utils.data.get_worker_info()
        place = self.seen if worker is None else self.seen * worker.num_workers + worker.id
        self.seen += 1
        return {} if place < self.batches else self.to_batch(rows)


class Stream:
    """What `common.training.fit` trains on instead of a `BatchSource` (see `common.batches.train_batches`)."""

    def __init__(
        self,
        rows: datasets.IterableDataset,
        to_batch: Callable[[list[Row]], dict[str, Any]],
        *,
        steps: int,
        buffer: int,
    ) -> None:
        """`to_batch` makes a batch of rows as `BatchSource.__getitems__` does. `buffer`: rows held to be mixed."""
        self.rows, self.to_batch, self.steps, self.buffer = rows, to_batch, steps, buffer
        self._parts: Iterator[dict[str, Any]] = iter(())
        self._next: tuple[int, ...] = ()

    def batches(
        self,
        *,
        batch_size: int,
        accumulation: int,
        seed: int,
        epoch: int,
        rank: int,
        world: int,
        workers: int,
        start: int = 0,
    ) -> Iterator[list[dict[str, Any]]]:
        """For each step of this epoch from `start` on, this process's share, in `accumulation` parts of equal size.

        A run that was interrupted reads on from where it was: the rows that came before are read again (their photos
        and clips are not decoded), for nobody holds an index of them.
        """
        share = batch_size // (world * accumulation)
        if share * world * accumulation != batch_size:
            raise UserError(
                f"--batch-size {batch_size}: with --streaming it must be a multiple of {world} process(es) × "
                f"{accumulation} accumulation part(s)"
            )
        here = (share, accumulation, seed, rank, world, epoch)
        if self._next != here or start:
            before = ((epoch - 1) * self.steps + start) * accumulation
            endless = _Endless(self.rows, seed=seed, buffer=self.buffer, rank=rank, world=world)
            workers = min(workers, endless.rows.num_shards)
            self._parts = iter(
                DataLoader(
                    endless,
                    batch_size=share,
                    collate_fn=_Skipping(self.to_batch, before),
                    num_workers=workers,
                    multiprocessing_context=loading_context(workers),
                    pin_memory=torch.cuda.is_available(),
                    worker_init_fn=ignore_signals,
                    generator=torch.Generator().manual_seed(seed),  # or it would draw from the one of dropout
                )
            )
            for _ in range(before):
                next(self._parts)
        self._next = ()
        for _ in range(start, self.steps):
            yield [next(self._parts) for _ in range(accumulation)]
        self._next = (*here[:-1], epoch + 1)


def first_rows(rows: datasets.IterableDataset, count: int | None) -> Iterator[dict[str, Any]]:
    """The first `count` rows (None: all), plain: for a first pass that makes vocabularies."""
    for row in itertools.islice(_rows(rows), count):
        yield plain_row(row)
