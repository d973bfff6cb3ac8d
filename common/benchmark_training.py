"""The benchmark's part about training: the shared loop beside the one that one would write by hand.

Belongs here: any model and any `BatchSource`. Which these are is for the tasks' benchmarks to say.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from common.batches import BatchSource, plan_epoch, steps_per_epoch, train_batches
from common.benchmark import Bench, Measured, ratio, side_by_side
from common.interruption import Stop
from common.options import TrainingOptions
from common.progress import Progress, State
from common.training import make_accelerator, make_optimizer, make_schedule, train_one_epoch
from common.watch import Watch

_BATCH = 16
_CLIP = 5.0
_RATE = 1e-3


def step(bench: Bench, make_model: Callable[[], nn.Module], source: BatchSource, *, batch_size: int) -> Measured:
    """An epoch of the shared loop, and the same batches through a loop of a dozen lines, by the step."""
    repeats = 2 * bench.options.repeats
    options = TrainingOptions(batch_size=batch_size, learning_rate=_RATE, clip=_CLIP, epochs=repeats + 1)
    ours = one_epoch(make_model(), source, options)
    theirs = _by_hand(make_model(), source, batch_size)
    steps = steps_per_epoch(len(source), batch_size)
    sides = {"a loop written by hand": theirs, "the shared loop": ours}
    found = side_by_side(sides, repeats, units=steps, unit="step")
    by_hand, shared = found.values()
    figure = ratio("a step of the shared loop, of one written by hand", shared, by_hand, aim=1.10)
    return Measured(sides=[by_hand, shared], figures=[figure])


def epochs_of_training(
    bench: Bench, make_model: Callable[[], nn.Module], kept: BatchSource, again: BatchSource, *, kind: str, unit: str
) -> Measured:
    """Whole epochs by the shared loop: on features from the cache, and decoding and encoding what they are of."""
    options = TrainingOptions(batch_size=_BATCH, epochs=100)
    cached, encoded = f"{kind}: an epoch of training, from the cache", f"{kind}: an epoch of training, encoding again"
    epochs = {
        cached: one_epoch(make_model(), kept, options),
        encoded: one_epoch(make_model(), again, options, workers=bench.cores),
    }
    found = side_by_side(epochs, max(1, bench.options.repeats // 2), units=again.samples, unit=unit)
    what = f"{kind}: an epoch of training that encodes again, of one from the cache"
    return Measured(sides=list(found.values()), figures=[ratio(what, found[encoded], found[cached])])


def one_epoch(model: nn.Module, source: BatchSource, options: TrainingOptions, *, workers: int = 0) -> Callable:
    """A function that trains one more epoch, as `common.training.fit` does; more of them than options.epochs, too."""
    accelerator = make_accelerator(SimpleNamespace(precision=options.precision, tracker="none"))
    raw = make_optimizer(model, options)
    schedule = make_schedule(raw, options, steps=steps_per_epoch(len(source), options.batch_size))
    wrapped, optimizer = accelerator.prepare(model, raw)
    epochs = itertools.count(1)
    state = State(
        model=model,
        averaged=None,
        optimizer=raw,
        schedule=schedule,
        progress=Progress(),
        accelerator=accelerator,
        run=Path("."),
        write=_nothing,
    )
    watch = Watch(state, Stop(), minutes=0, steps=steps_per_epoch(len(source), options.batch_size))

    def train() -> None:
        batches = train_batches(
            source,
            batch_size=options.batch_size,
            accumulation=1,
            seed=0,
            epoch=next(epochs),
            rank=0,
            world=1,
            workers=workers,
        )
        train_one_epoch(
            wrapped,
            batches,
            optimizer=optimizer,
            schedule=schedule,
            averaged=None,
            options=options,
            accelerator=accelerator,
            watch=watch,
            total=torch.zeros(3, device=accelerator.device),
            bar=tqdm(disable=True),
        )

    return train


def _nothing(model: nn.Module, directory: Path) -> None:
    """No checkpoint is due where nothing is kept."""


def _by_hand(model: nn.Module, source: BatchSource, batch_size: int) -> Callable:
    device = Accelerator().device
    model = model.to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=_RATE, weight_decay=1e-2)
    epochs = itertools.count(1)

    def train() -> None:
        plan = plan_epoch(len(source), batch_size, seed=0, epoch=next(epochs))
        keys = [[(int(item), 0) for item in batch] for batch in plan]
        for batch in DataLoader(cast(Dataset, source), batch_sampler=keys, collate_fn=lambda batch: batch):
            inputs = {name: tensor.to(device) for name, tensor in batch["inputs"].items()}
            loss = cross_entropy(model(**inputs).logits, batch["labels"].to(device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
            optimizer.step()
            optimizer.zero_grad()

    return train
