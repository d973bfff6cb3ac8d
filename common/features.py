"""Frozen features, computed once: a cache on disk that later runs, seeds and models read through memory maps.

Belongs here: extracting what a frozen encoder makes of images, or of the frames of clips, and finding it again. The
cache's key covers the encoder's architecture and weights, and whatever decides the pixels (preprocessing, augmentation,
and of clips the sampling), which `ViewSource.about` tells; its rows are found by the hash of a file's bytes. So a
changed photo or a changed weight file is another key or row, never a stale hit.

Layout: `features/KEY/about.json`, and shards `NAME.safetensors` (`features (n, C, h, w)`, `valid (n, 4)`; of clips
`features (frames of all rows, ...)` and `lengths (n,)`) whose header lists the rows they hold. A shard appears whole
(written beside, then renamed) and is never changed, so several processes and several runs may fill one cache, and an
interrupted extraction goes on where it stopped.
"""

import hashlib
import json
import math
import uuid
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from common.encoders import Encoder, fingerprint
from common.encoding import encode_batches, shared_threads
from common.errors import UserError, reason
from common.files import parse_json, remove, write_whole
from common.folding import folds
from common.images import Preprocessing, augment, read_image, seeded, to_tensor
from common.symmetry import symmetries

_SHARD_BYTES = 16 * 2**20  # of features per shard: an extraction holds two of them, and a kill loses no more

_AHEAD = 2  # batches that each thread loads before they are wanted, as a DataLoader's processes do

Row = tuple[str, int]  # hash of a file's bytes, view (0: the plain one)


View = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""Pixels `(U, 3, S, S)` uint8; the part of the square that shows photo, `(4,)`, 0–1; of a clip, which of these frames
stand where, `(T,)`, so that a frame that comes twice is encoded once; of a photo None, and U is 1."""


Squares = tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor | None, list[int]]]
"""Pixels of several views one after another, and of these views what `collate_views` tells."""


class ViewSource(Protocol):
    """Where pixels come from: photos here, clips in `video/frames.py`."""

    @property
    def about(self) -> dict[str, Any]:
        """All that decides the pixels, but the file and the view: plain values."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Of these, what becomes of the pixels."""

    @property
    def unit(self) -> str:
        """What a row is, for the progress bar: image, clip."""

    @property
    def frames(self) -> int:
        """About how many squares a row has: so many fewer rows are loaded at once."""

    def load(self, path: str, digest: str, view: int) -> View:
        """The view of a file with this hash: 0 plain, others augmented, the same whenever it is asked for."""


@dataclass(frozen=True, kw_only=True)
class PhotoViews:
    """Photos as an encoder wants them (see `ViewSource`)."""

    preprocessing: Preprocessing
    augmentation: Sequence[str] = ()
    unit: str = "image"
    frames: int = 1

    @property
    def about(self) -> dict[str, Any]:
        return {"preprocessing": asdict(self.preprocessing), "augmentation": list(self.augmentation)}

    def load(self, path: str, digest: str, view: int) -> View:
        seed = (int(digest[:15], 16), view)
        pixels, valid = load_view(path, view, self.preprocessing, self.augmentation, seed)
        return pixels.unsqueeze(0), valid, None


class ViewDataset(Dataset):
    """Views of files, one by one."""

    def __init__(self, paths: Sequence[str], rows: Sequence[Row], source: ViewSource) -> None:
        self.paths, self.rows, self.source = paths, rows, source

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> View:
        return self.source.load(self.paths[place], *self.rows[place])


def view_batches(
    views: ViewDataset,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    shared: ThreadPoolExecutor | None = None,
) -> Generator[Squares, None, None]:
    """Batches of the squares of these views, in order, each of about `batch_size` squares; some are loaded ahead.

    On a CPU by `workers` threads, which may be `shared` with the encoder: decoders leave Python's lock, and processes
    would have to be started, and to hand each batch over, at the cost of the cores that encode. For another device by
    as many processes of a `DataLoader`.
    """
    at_once = max(1, batch_size // views.source.frames)
    workers = min(workers, len(views))
    if device.type != "cpu" or workers == 0:
        yield from DataLoader(
            views,
            batch_size=at_once,
            collate_fn=collate_views,
            num_workers=workers,
            pin_memory=device.type == "cuda",
        )
        return

    def load(start: int) -> Squares:
        return collate_views([views[place] for place in range(start, min(start + at_once, len(views)))])

    # What is decoded must not share each of its small steps with all cores.
    threads = shared or ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[Squares]] = deque()
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's: filters are one for all threads, as in photos.py
            for start in range(0, len(views), at_once):
                waiting.append(threads.submit(load, start))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        if shared is None:
            threads.shutdown()


def encoded_views(
    encoder: Encoder,
    views: ViewDataset,
    *,
    device: torch.device,
    precision: str,
    pool: int | None,
    batch_size: int,
    workers: int,
    compiled: bool = False,
) -> Generator[tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor | None, list[int]]], None, None]:
    """Features of the squares of these views, in order, each batch with what `collate_views` tells of it.

    `precision`, `pool`, `batch_size` and `compiled` are `encode_batches`'s; `workers` are `view_batches`'s, where there
    are no `shared_threads`. Close it, if not all of it is wanted: what waits for the collector keeps its threads.
    """
    with ExitStack() as closed:
        closed.callback(torch.set_num_threads, torch.get_num_threads())  # last: each thread sets it for those to come
        shared = shared_threads(device)
        if shared is not None:
            workers = torch.get_num_threads()
            closed.callback(shared.shutdown, cancel_futures=True)
        loaded = closed.enter_context(
            closing(view_batches(views, batch_size=batch_size, workers=workers, device=device, shared=shared))
        )
        yield from closed.enter_context(
            closing(
                encode_batches(
                    encoder,
                    loaded,
                    preprocessing=views.source.preprocessing,
                    device=device,
                    precision=precision,
                    pool=pool,
                    batch_size=batch_size,
                    compiled=compiled,
                    shared=shared,
                )
            )
        )


def load_view(
    path: str, view: int, preprocessing: Preprocessing, augmentation: Sequence[str], seed: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One view of one photo: pixels `(3, S, S)` uint8 and its valid part `(4,)`. View 0 is never augmented."""
    image = read_image(path)
    if view and augmentation:
        ways = symmetries(augmentation)
        with seeded(seed):
            image = augment(augmentation, preprocessing)(ways[view % len(ways)].image(image))
    pixels, valid = to_tensor(image, preprocessing)
    return pixels, torch.tensor(valid, dtype=torch.float32)


class FeatureStore:
    """Rows of a cache, memory-mapped. `take` copies just the rows asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._shards: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._place: dict[Row, tuple[int, int, int]] = {}  # shard, first square in it, how many
        for path in sorted(directory.glob("*.safetensors")):
            try:
                rows, tensors, lengths = _read_shard(path)
                if self._shards and tensors[0].shape[1:] != self._shards[0][0].shape[1:]:
                    raise ValueError("features of another shape")
            except (OSError, RuntimeError) as error:
                raise UserError(f"{path}: cannot be read ({reason(error)}); give another folder with --cache") from None
            except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
                remove(path)  # torn by a full disk or a crash: its rows are extracted again
                continue
            start = 0
            for (digest, view), length in zip(rows, lengths, strict=True):
                self._place.setdefault((digest, view), (len(self._shards), start, length))
                start += length
            self._shards.append(tensors)

    def __contains__(self, row: Row) -> bool:
        return row in self._place

    def take(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """→ features `(n, C, h, w)` and valid boxes `(n, 4)` of these photos, in their order. Raises KeyError."""
        places = np.array([self._place[row] for row in rows])  # (n, 3)
        features: torch.Tensor | None = None
        valid: torch.Tensor | None = None
        for number in np.unique(places[:, 0]):
            chosen = np.flatnonzero(places[:, 0] == number)
            inside = torch.from_numpy(places[chosen, 1])
            some_features, some_valid = (tensor[inside] for tensor in self._shards[number])
            if len(chosen) == len(rows):
                return some_features, some_valid
            if features is None or valid is None:
                features = some_features.new_empty(len(rows), *some_features.shape[1:])
                valid = some_valid.new_empty(len(rows), 4)
            features[chosen], valid[chosen] = some_features, some_valid
        assert features is not None and valid is not None  # no batch is without rows
        return features, valid

    def take_clips(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """→ features `(frames of all these clips, ...)`, one clip after another, lengths `(n,)`. Raises KeyError."""
        places = [self._place[row] for row in rows]
        features = [self._shards[shard][0][start : start + length] for shard, start, length in places]
        return torch.cat(features), torch.tensor([length for _, _, length in places])


def _read_shard(path: Path) -> tuple[list[Row], tuple[torch.Tensor, torch.Tensor], list[int]]:
    """Rows, features and valid boxes, and how many squares each row has. Raises `ValueError` if they do not agree."""
    if not path.is_file():
        raise OSError("is not a file")
    with safe_open(path, framework="pt") as shard:
        rows = [(digest, view) for digest, view in parse_json(shard.metadata()["rows"])]
        features, valid = shard.get_tensor("features"), shard.get_tensor("valid")
        lengths = shard.get_tensor("lengths").tolist() if "lengths" in shard.keys() else [1] * len(rows)
    if not all(isinstance(digest, str) and isinstance(view, int) for digest, view in rows):
        raise ValueError("a row that is none")
    if len(lengths) != len(rows) or any(not isinstance(length, int) or length < 1 for length in lengths):
        raise ValueError("lengths that do not fit")
    fitting = features.is_floating_point() and features.ndim > 1 and len(features) == sum(lengths)
    if not fitting or valid.shape != (len(rows), 4):
        raise ValueError("tensors that do not fit the rows")
    return rows, (features, valid), lengths


def cached_features(
    encoder: Encoder,
    paths: Sequence[str],
    hashes: Sequence[str],
    *,
    source: ViewSource,
    cache: Path,
    accelerator: Accelerator,
    precision: str = "fp16",
    views: int = 1,
    pool: int | None = None,
    batch_size: int | None = None,
    compiled: bool = False,
    workers: int = 2,
) -> FeatureStore:
    """The features of these files, computing those that the cache lacks: shared over processes, with a progress bar.

    `hashes` are of the files' bytes. `precision` is fp32, fp16 (computed in fp32, stored in fp16) or bf16. Of what an
    encoder trains in part, these are the features that `Encoder.finish` takes; of one that is wholly frozen the grids,
    or with `pool` their averages over pool × pool parts, `(C·pool²,)`. The encoder sees `batch_size` squares at a time
    (default 32, on a GPU 128), those of several clips together; `compiled` by `torch.compile`.
    Raises `UserError` for a file that cannot be read, and for a cache that other machines' processes do not share.
    """
    about: dict[str, Any] = {"encoder": encoder.name, "weights_and_architecture": fingerprint(encoder)}
    about["precision"] = precision
    about |= source.about | ({} if views > 1 else {"augmentation": []})
    if pool is not None and encoder.frozen_part == "all":
        about["pool"] = pool
    if folds(encoder):
        about["batch_norm"] = "folded"
    if compiled:
        about["compiled"] = True
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    name = "".join(letter if letter.isalnum() else "-" for letter in encoder.name)[:40]
    directory = cache / "features" / f"{name}-{key}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made ({error.strerror}); free space or give --cache") from None
    if accelerator.is_main_process and not (directory / "about.json").is_file():
        write_whole(directory / "about.json", lambda file: file.write(json.dumps(about, indent=1)))
    wanted: dict[Row, str] = {}
    for path, digest in zip(paths, hashes, strict=True):
        for view in range(views):
            wanted.setdefault((digest, view), path)
    store = FeatureStore(directory)
    # One decision for all processes: another run may fill the same cache at this very moment.
    if broadcast_object_list([all(row in store for row in wanted)])[0]:
        return store
    # a second run waits for the first one's features
    with _alone(directory) if accelerator.is_main_process else nullcontext():
        store = FeatureStore(directory)
        missing = broadcast_object_list([[(row, path) for row, path in wanted.items() if row not in store]])[0]
        share = missing[accelerator.process_index :: accelerator.num_processes]
        if share:
            _extract(
                encoder,
                [row for row, _ in share],
                [path for _, path in share],
                source=source,
                directory=directory,
                accelerator=accelerator,
                precision=precision,
                pool=pool,
                batch_size=batch_size or (128 if accelerator.device.type == "cuda" else 32),
                compiled=compiled,
                workers=workers,
            )
        accelerator.wait_for_everyone()
    store = FeatureStore(directory)
    if lacking := sum(row not in store for row in wanted):
        raise UserError(
            f"--cache {cache}: {lacking:,} of {len(wanted):,} features that other processes wrote are not there; "
            "several machines need one folder that all of them see"
        )
    return store


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Be the only process that fills the cache; where a file system has no locks, just fill it: no harm is done."""
    lock = FileLock(directory / "filling.lock")
    try:
        lock.acquire()
    except NotImplementedError:
        pass
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({reason(error)}); free space or give --cache") from None
    try:
        yield
    finally:
        lock.release()


@torch.no_grad()
def _extract(
    encoder: Encoder,
    rows: Sequence[Row],
    paths: Sequence[str],
    *,
    source: ViewSource,
    directory: Path,
    accelerator: Accelerator,
    precision: str,
    pool: int | None,
    batch_size: int,
    compiled: bool,
    workers: int,
) -> None:
    views = ViewDataset(paths, rows, source)
    bar = tqdm(
        total=len(rows),
        unit=source.unit,
        desc=f"features of {encoder.name}",
        disable=None if accelerator.is_main_process else True,
    )
    held: list[tuple[torch.Tensor, torch.Tensor, list[int]]] = []
    start = done = size = 0
    writing: Future[None] | None = None
    with (
        # A shard is written while the next is computed; a disk that is slower than that is waited for.
        ThreadPoolExecutor(1) as writer,
        closing(
            encoded_views(
                encoder,
                views,
                device=accelerator.device,
                precision=precision,
                pool=pool,
                batch_size=batch_size,
                workers=workers,
                compiled=compiled,
            )
        ) as encoded,
    ):
        for grid, (valid, places, lengths) in encoded:
            grid = grid if places is None else grid[places]
            if not all(map(math.isfinite, torch.stack(torch.aminmax(grid)).tolist())):  # one pass; NaN shows, too
                raise UserError(
                    f"features of {encoder.name} are not finite in {precision}; try --feature-precision fp32 "
                    f"or other --weights"
                )
            held.append((grid, valid, lengths))
            done, size = done + len(valid), size + grid.nbytes
            bar.update(len(valid))
            if size >= _SHARD_BYTES or done == len(rows):
                if writing is not None:
                    writing.result()
                writing = writer.submit(_write_shard, directory, rows[start:done], held)
                held, start, size = [], done, 0
        if writing is not None:
            writing.result()
    bar.close()


def collate_views(views: Sequence[View]) -> Squares:
    """Squares of all rows one after another; valid parts, where each wanted square is (None: all in order), lengths."""
    pixels = torch.cat([pixels for pixels, _, _ in views])
    valid = torch.stack([valid for _, valid, _ in views])
    wanted = [places for _, _, places in views if places is not None]
    if not wanted:
        return pixels, (valid, None, [1] * len(views))
    firsts = np.cumsum([0] + [len(squares) for squares, _, _ in views[:-1]])
    places = torch.cat([its + int(first) for first, its in zip(firsts, wanted, strict=True)])
    return pixels, (valid, places, [len(its) for its in wanted])


def _write_shard(
    directory: Path, rows: Sequence[Row], held: Sequence[tuple[torch.Tensor, torch.Tensor, list[int]]]
) -> None:
    grids, valid, _ = zip(*held, strict=True)
    tensors = {"features": torch.cat(grids), "valid": torch.cat(valid)}
    lengths = [length for _, _, lengths in held for length in lengths]
    if set(lengths) != {1}:
        tensors["lengths"] = torch.tensor(lengths)
    name = uuid.uuid4().hex
    fresh = directory / f"{name}.new"
    try:
        save_file(tensors, fresh, metadata={"rows": json.dumps(list(rows))})
        fresh.replace(directory / f"{name}.safetensors")
    except (OSError, SafetensorError) as error:
        remove(fresh)
        raise UserError(
            f"{directory}: features cannot be written ({reason(error)}); free space or give --cache"
        ) from None
