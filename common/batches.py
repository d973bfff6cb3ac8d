"""Which items make up which batch, on which process: batches of photos (or clips), not of rows.

Belongs here: the plan of an epoch and the loader that follows it. A batch item is a photo with all its questions, so
that a trained encoder sees each photo once per step. We plan batches ourselves instead of passing a loader through
`Accelerator.prepare`: its shards repeat samples to even out the last batch, and cut them again by counting rows, which
neither holds for batches whose tensors differ in length nor scores every sample exactly once.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from common.errors import UserError
from common.interruption import ignore_signals
from common.streams import Stream
from common.workers import loading_context

Key = tuple[int, int]  # item, and the draw that decides its augmented view (0: the plain one)


class BatchSource(Protocol):
    """What a task gives to be trained on or scored: items that it turns into batches, a whole batch at a time."""

    samples: int
    """how many samples (questions, clips) the items hold together"""

    def __len__(self) -> int:
        """How many items (photos, clips) there are."""

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, Any]:
        """A batch: `inputs` (keyword tensors of the model), `labels (B,)` (−1: no such class), `index (B,)` samples.

        `columns (K,)`, which only scoring several draws reads: where each class's logit stands in this draw.
        """


def plan_epoch(items: int, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch, the same on every process: a shuffle cut into batches whose sizes differ by at most 1.

    Evened-out batches leave no tiny last one, whose few samples would weigh as much as a whole batch's.
    """
    order = np.random.default_rng([seed, epoch]).permutation(items)
    return np.array_split(order, math.ceil(items / batch_size))


def train_batches(
    source: BatchSource | Stream,
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
    """For each step of an epoch from `start` on, this process's share of the batch, in `accumulation` parts.

    Over all processes and parts each item comes exactly once; of a `Stream`, that many steps of it come. Raises
    `UserError` if a part would be empty.
    """
    if isinstance(source, Stream):
        yield from source.batches(
            batch_size=batch_size,
            accumulation=accumulation,
            seed=seed,
            epoch=epoch,
            rank=rank,
            world=world,
            workers=workers,
            start=start,
        )
        return
    check_shares(len(source), batch_size, world=world, accumulation=accumulation)
    plan = plan_epoch(len(source), batch_size, seed=seed, epoch=epoch)
    draws = np.random.default_rng([seed, epoch, 1]).integers(1, 2**31, size=len(source))
    parts = [
        [(int(item), int(draws[item])) for item in part]
        for batch in plan[start:]
        for part in np.array_split(batch, world * accumulation)[rank * accumulation : (rank + 1) * accumulation]
    ]
    loader = iter(_loader(source, parts, workers, apart=start > 0))
    for _ in plan[start:]:
        yield [next(loader) for _ in range(accumulation)]


def check_shares(items: int, batch_size: int, *, world: int, accumulation: int) -> None:
    """Raise `UserError` if some process would have an empty part of some batch."""
    smallest = items // steps_per_epoch(items, batch_size)  # as `plan_epoch` cuts them
    if smallest < world * accumulation:
        raise UserError(
            f"--batch-size {batch_size}: batches of {smallest} photos or clips cannot be shared by "
            f"{world} process(es) × {accumulation} accumulation part(s); use a larger batch, or fewer of these"
        )


def steps_per_epoch(items: int, batch_size: int) -> int:
    return math.ceil(items / batch_size)


def steps_of(source: BatchSource | Stream, batch_size: int) -> int:
    """Steps of an epoch."""
    return source.steps if isinstance(source, Stream) else steps_per_epoch(len(source), batch_size)


def evaluation_batches(
    source: BatchSource, *, batch_size: int, rank: int, world: int, workers: int, draws: int = 1
) -> Iterator[list[dict[str, Any]]]:
    """This process's share of all items in order, no item twice and none left out; of each batch its first `draws`."""
    mine = range(rank, len(source), world)
    starts = range(0, len(mine), batch_size)
    parts = [[(item, draw) for item in mine[start : start + batch_size]] for start in starts for draw in range(draws)]
    loader = iter(_loader(source, parts, workers))
    for _ in starts:
        yield [next(loader) for _ in range(draws)]


def _loader(source: BatchSource, parts: list[list[Key]], workers: int, *, apart: bool = False) -> DataLoader:
    """`apart`: it draws no random number of its own from torch's, as it has done once at the start of an epoch."""
    workers = min(workers, len(parts))
    return DataLoader(
        cast(Dataset, source),  # which is asked for no more than its items
        batch_sampler=parts,
        collate_fn=_whole,
        num_workers=workers,
        multiprocessing_context=loading_context(workers),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_signals,
        generator=torch.Generator() if apart else None,
    )


def _whole(batch: Any) -> dict[str, Any]:
    """`__getitems__` already made the batch."""
    return batch
