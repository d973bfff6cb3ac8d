"""The one training loop and the one evaluation loop, through Accelerate, for every task.

Belongs here: optimising a classifier that takes keyword tensors and returns `.logits`, and scoring it. Not here: what
the batches hold (`common/batches.py` and the tasks), what is saved to go on from (`common/progress.py`), what ends a
training early (`common/watch.py`), what becomes of the figures (`common/runs.py`).

Determinism: on one CPU machine, the same options and seed give the same numbers, also when the run was stopped and
resumed, in the middle of an epoch, too. Not deterministic: GPU kernels that add in any order.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    broadcast,
    gather_object,
    is_torch_version,
    send_to_device,
    set_seed,
)
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from common.allocation import keep_freed_memory
from common.batches import BatchSource, evaluation_batches, steps_of, train_batches
from common.errors import UserError
from common.interruption import Stop
from common.optimisation import make_averaged, make_optimizer, make_schedule, moves_per_step
from common.options import TrainingOptions
from common.progress import Progress, State
from common.streams import Stream
from common.terminal import live, training_bar
from common.watch import Watch

_SHARED_OUT = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
"""Accelerate's ways of sharing a model out, each with a way of its own to save one; ours is `common/sharding.py`."""
_MASKED = -1  # label of a sample whose class is not in the vocabulary: no loss, never right


@dataclass(kw_only=True)
class Scores:
    """Per-sample results of one split, each array `(n,)`, ordered by sample."""

    gold: np.ndarray  # class, −1 if the model cannot say it
    predicted: np.ndarray  # class
    probability: np.ndarray  # of the predicted class
    loss: np.ndarray  # −log p(gold), NaN where gold is −1
    rank: np.ndarray  # place of the gold class, from 1

    @property
    def mean_loss(self) -> float:
        known = self.gold != _MASKED
        return float(self.loss[known].mean()) if known.any() else math.nan

    @property
    def accuracy(self) -> float:
        return float((self.gold == self.predicted).mean())


def make_accelerator(options: Any, project: Path | None = None) -> Accelerator:
    """Accelerate for these options: 1 to N processes, CPU or GPU. Raises `UserError` if the machine cannot do it."""
    if options.tracker != "none":
        from accelerate.tracking import is_tensorboard_available

        if not is_tensorboard_available():
            raise UserError("--tracker tensorboard needs TensorBoard: pip install tensorboard")
    if getattr(options, "fsdp", False):
        if options.precision == "fp16":
            raise UserError("--fsdp does not go with --precision fp16, whose losses are scaled; use --precision bf16")
        # That of 2.6 cannot do without a GPU, so that no test would hold it to anything.
        if not is_torch_version(">=", "2.7"):
            raise UserError(f"--fsdp needs torch 2.7 or newer, and this is {torch.__version__}")
    disable_progress_bar()  # transformers' own, one per saved checkpoint
    try:
        accelerator = Accelerator(
            # Of several without a GPU, each would take itself for the only one. torchrun says which it is.
            cpu="LOCAL_RANK" in os.environ and not torch.accelerator.is_available(),
            mixed_precision=options.precision,
            log_with=None if options.tracker == "none" else options.tracker,
            project_dir=project,
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"--precision {options.precision}: {error}") from None
    if accelerator.distributed_type in _SHARED_OUT:
        raise UserError(
            f"Accelerate is set to {accelerator.distributed_type.value}, to share a model out; here the option --fsdp "
            "does so: start with configs/accelerate/several_gpus.yaml, or several_nodes.yaml, and give --fsdp"
        )
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # which Accelerate itself sets for those of MPI
    if accelerator.num_processes != processes:
        raise UserError(
            f"{processes} processes were started, and Accelerate knows of {accelerator.num_processes}: set "
            "ACCELERATE_USE_CPU=true in the environment of all, or start them with a file of configs/accelerate"
        )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def fit(
    model: nn.Module,
    *,
    train: BatchSource | Stream,
    validation: BatchSource,
    options: TrainingOptions,
    seed: int,
    workers: int,
    accelerator: Accelerator,
    run: Path,
    save: Callable[[nn.Module, Path], None],
    resume: Path | None = None,
    auxiliary: float = 0.0,
) -> Progress:
    """Train `model`, leaving `run/history.jsonl` and `run/checkpoints/{last,best_loss,best_accuracy}`.

    `save(model, directory)` writes what a task's `from_pretrained` needs; the state of training is added to `last`.
    With `resume`, a checkpoint `last` whose weights the caller has given `model`, training goes on from there, within
    an epoch, too. `auxiliary` is the weight of what the model learns beside its answer: the cross-entropy of its
    output's `auxiliary_logits` with the batch's `auxiliary_labels`.

    With `options.fsdp` and several processes they share the model out while it is trained.

    Raises `Interrupted` when the process was asked to stop, after a checkpoint, and `UserError` when the loss is no
    number.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    steps = steps_of(train, options.batch_size)
    sharing = None
    if options.fsdp and world > 1:
        from common.sharding import SharedOut  # slow to import

        sharing = SharedOut(model, accelerator)
    trained = model if sharing is None else sharing.trained
    raw = make_optimizer(trained, options)
    schedule = make_schedule(raw, options, steps=steps)
    progress = Progress()
    # The schedule stays out of `prepare`: there it would step once per process instead of once per step.
    wrapped, optimizer = accelerator.prepare(model, raw) if sharing is None else (trained, accelerator.prepare(raw))
    averaged = make_averaged(model, options)
    if averaged is not None and sharing is not None:
        averaged.module = sharing.share(averaged.module)
    state = State(
        model=trained,
        averaged=averaged,
        sharing=sharing,
        optimizer=raw,
        schedule=schedule,
        progress=progress,
        accelerator=accelerator,
        run=run,
        write=save,
    )
    total = None  # what the epoch under way has summed up
    if resume is not None:
        set_seed(_epoch_seed(seed, 0, rank))  # of another number of processes than before, none are saved
        total = state.load(resume, steps)
        state.write_history()

    first = progress.epoch + 1
    bar = training_bar(
        total=options.epochs * steps,
        initial=progress.epoch * steps + progress.step,
        shown=accelerator.is_main_process,
    )
    with Stop() as stop:
        watch = Watch(state, stop, minutes=options.checkpoint_minutes, steps=steps)
        while progress.epoch < options.epochs and not (options.patience and progress.waited >= options.patience):
            epoch = progress.epoch + 1
            watch.start_epoch()
            bar.set_description(f"epoch {epoch}/{options.epochs}", refresh=False)
            if total is None:
                set_seed(_epoch_seed(seed, epoch, rank))
                total = torch.zeros(3)
            batches = train_batches(
                train,
                batch_size=options.batch_size,
                accumulation=options.accumulation,
                seed=seed,
                epoch=epoch,
                rank=rank,
                world=world,
                workers=workers,
                start=progress.step,
            )
            if epoch == first:
                batches = _announce(batches, accelerator)
            if progress.step == 0:
                progress.learning_rate = schedule.get_last_lr()[0]
            rate = progress.learning_rate
            while_trained = train_one_epoch(
                wrapped,
                batches,
                optimizer=optimizer,
                schedule=schedule,
                averaged=state.averaged,
                options=options,
                accelerator=accelerator,
                watch=watch,
                total=total.to(accelerator.device),
                bar=bar,
                auxiliary=auxiliary,
            )
            total = None
            _synchronise_buffers(state.newest, accelerator)
            bar.set_description(f"epoch {epoch}/{options.epochs}, validation")
            state.gather()
            scored = state.scored.to(accelerator.device)
            scores = evaluate(
                scored, validation, batch_size=options.batch_size, workers=workers, accelerator=accelerator
            )
            if sharing is not None:
                scored.cpu()
            watch.after_validation(bool(np.isfinite(scores.loss[scores.gold != _MASKED]).all()))
            if options.schedule == "plateau":
                schedule.step(scores.mean_loss)
            elif not moves_per_step(options):
                schedule.step()
            row = {
                "epoch": epoch,
                "train_loss": while_trained["loss"],
                "train_accuracy": while_trained["accuracy"],
                "validation_loss": scores.mean_loss,
                "validation_accuracy": scores.accuracy,
                "learning_rate": rate,
                "seconds": round(watch.seconds, 3),
            }
            kept = progress.note(row, options)
            state.keep(kept)
            state.save()
            state.agree()
            state.write_history()
            accelerator.log({key: value for key, value in row.items() if key != "epoch"}, step=epoch)
            if accelerator.is_main_process:
                bar.write(_epoch_line(row, kept, options))
            watch.after_epoch()
    bar.close()
    state.finish()
    model.to(accelerator.device)
    accelerator.wait_for_everyone()
    return progress


def train_one_epoch(
    model: nn.Module,
    batches: Iterator[list[dict[str, Any]]],
    *,
    optimizer: Any,
    schedule: Any,
    averaged: AveragedModel | None,
    options: TrainingOptions,
    accelerator: Accelerator,
    watch: Watch,
    total: torch.Tensor,
    bar: tqdm,
    auxiliary: float = 0.0,
) -> dict[str, float]:
    """One pass over the training batches → mean loss and accuracy over all samples of all processes, while training.

    Each step's loss is the sum over the samples of all processes and parts, divided by their number: so the gradient
    does not depend on how many processes or accumulation parts share the batch, though their shares differ in samples.
    `total (3,)`: the loss, the right answers and the samples that this process summed up before, which grow here.
    """
    model.train()
    for parts in batches:
        samples = max(1, watch.before_step(sum(int((part["labels"] != _MASKED).sum()) for part in parts)))
        lost = torch.zeros((), device=accelerator.device)
        for place, part in enumerate(parts):
            part = send_to_device(part, accelerator.device, non_blocking=True)
            waits = accelerator.no_sync(model) if place < len(parts) - 1 else nullcontext()
            with waits:
                with accelerator.autocast():
                    output = model(**part["inputs"])
                logits = output.logits
                loss = cross_entropy(
                    logits.float(),
                    part["labels"],
                    ignore_index=_MASKED,
                    reduction="sum",
                    label_smoothing=options.label_smoothing,
                )
                also = getattr(output, "auxiliary_logits", None)
                learned = loss if also is None else loss + auxiliary * auxiliary_loss(also, part)
                # DistributedDataParallel averages over the processes: times their number makes it the sum again.
                accelerator.backward(learned * (accelerator.num_processes / samples))
            right = (logits.argmax(dim=-1) == part["labels"]).sum()
            total += torch.stack([loss.detach(), right, (part["labels"] != _MASKED).sum()])
            lost += learned.detach()
        if options.clip:
            accelerator.clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()
        optimizer.zero_grad()
        if averaged is not None:
            averaged.update_parameters(accelerator.unwrap_model(model))
        if moves_per_step(options):
            schedule.step()
        if bar.update():  # it was drawn
            bar.set_postfix_str(live(*total.tolist()), refresh=False)
        watch.after_step(lost, total)
    watch.end_steps()
    loss_sum, right, samples = accelerator.reduce(total, "sum").tolist()
    return {"loss": loss_sum / max(1, samples), "accuracy": right / max(1, samples)}


def auxiliary_loss(logits: torch.Tensor, part: dict[str, Any]) -> torch.Tensor:
    """The summed loss of what a model says beside its answer, `logits (B, K)`, where the batch knows better."""
    return cross_entropy(logits.float(), part["auxiliary_labels"], ignore_index=_MASKED, reduction="sum")


@torch.no_grad()
def evaluate(
    model: nn.Module, source: BatchSource, *, batch_size: int, workers: int, accelerator: Accelerator, draws: int = 1
) -> Scores:
    """Score every sample of `source` exactly once, over all processes; the same `Scores` on each of them.

    With several `draws` (views of the same samples), a sample's probabilities are their geometric mean.
    `model` is the bare module, not its distributed wrapper, which would wait for processes with fewer batches.
    """
    model.eval()
    batches = evaluation_batches(
        source,
        batch_size=math.ceil(batch_size / accelerator.num_processes),
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        workers=workers,
        draws=draws,
    )
    found: list[np.ndarray] = []
    for views in batches:
        log_p = []
        for view in views:
            view = send_to_device(view, accelerator.device, non_blocking=True)
            with accelerator.autocast():
                logits = model(**view["inputs"]).logits.float()
            if draws > 1:
                logits = logits.log_softmax(dim=-1)[:, view["columns"]]
            log_p.append(logits.cpu())  # not every GPU has fp64
        mean = torch.stack(log_p).mean(dim=0) if draws > 1 else log_p[0]
        found.append(_score(mean, views[0]["labels"], views[0]["index"]))
    columns = np.concatenate(found, axis=1) if found else np.zeros((6, 0))
    columns = np.concatenate(gather_object([columns]), axis=1)
    columns = columns[:, np.argsort(columns[0], kind="stable")]
    if not np.array_equal(columns[0], np.arange(source.samples)):
        raise AssertionError(f"scored {columns.shape[1]} samples where the split has {source.samples}")
    return Scores(
        gold=columns[1].astype(int),
        predicted=columns[2].astype(int),
        probability=columns[3],
        loss=columns[4],
        rank=columns[5].astype(int),
    )


def _score(logits: torch.Tensor, labels: torch.Tensor, index: torch.Tensor) -> np.ndarray:
    """`logits (B, K)`, `labels (B,)` → rows index, gold, predicted, probability, loss, rank: `(6, B)`, float64."""
    log_p = log_softmax(logits.double(), dim=-1)
    best, predicted = log_p.max(dim=-1)
    known = labels != _MASKED
    gold = log_p.gather(1, labels.clamp(min=0).unsqueeze(1))  # (B, 1)
    rank = (log_p > gold).sum(dim=-1) + 1
    loss = torch.where(known, -gold.squeeze(1), torch.nan)
    rank = torch.where(known, rank, logits.shape[-1] + 1)
    return torch.stack([index, labels, predicted, best.exp(), loss, rank]).numpy()


def _synchronise_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the first one's BatchNorm statistics: each scores its share of a split with them."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer))


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """A seed for the dropout of one process in one epoch, so that resuming there needs no saved generator."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])


def _announce(batches: Iterator[Any], accelerator: Accelerator) -> Iterator[Any]:
    """Say how long a user waited for the first batch, imports, checks and feature extraction included."""
    first = next(batches, None)
    if first is None:  # stopped after the last step of an epoch
        return
    if accelerator.is_main_process:
        tqdm.write(f"first batch {time.time() - psutil.Process().create_time():.1f} s after the process started")
    yield first
    yield from batches


def _epoch_line(row: dict[str, Any], kept: Sequence[str], options: TrainingOptions) -> str:
    figures = "  ".join(
        f"{split} loss {row[f'{split}_loss']:.4f} accuracy {row[f'{split}_accuracy']:.4f}"
        for split in ("train", "validation")
    )
    best = f"  best {', '.join(name.removeprefix('best_') for name in kept)}" if kept else ""
    return f"epoch {row['epoch']:>3}/{options.epochs}  {figures}  {row['seconds']:.1f} s{best}"
