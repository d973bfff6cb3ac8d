"""The one training loop and the one evaluation loop, through Accelerate, for every task.

Belongs here: optimising a classifier that takes keyword tensors and returns `.logits`, scoring it, early stopping,
checkpoints and going on after an interruption. Not here: what the batches hold (`common/batches.py` and the tasks) and
what becomes of the figures (`common/runs.py`).

Determinism: on one CPU machine, the same options and seed give the same numbers, also when the run was stopped and
resumed, since every epoch seeds its own random numbers. Not deterministic: GPU kernels that add in any order.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast, broadcast_object_list, gather_object, send_to_device, set_seed
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm
from transformers import get_scheduler
from transformers.utils.logging import disable_progress_bar

from common.batches import BatchSource, evaluation_batches, steps_of, train_batches
from common.checkpoints import load_state, save_state, whole_directory, write_directory
from common.errors import UserError
from common.options import CHECKPOINTS, TrainingOptions
from common.streams import Stream

_SHARED_OUT = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
"""Ways of sharing the work in which no process has the whole model, as checkpoints and scoring expect it."""
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


@dataclass(kw_only=True)
class Progress:
    """Where a run stands after an epoch; saved with its last checkpoint."""

    epoch: int = 0  # epochs finished
    best_loss: float = math.inf
    best_accuracy: float = -math.inf
    best_train_accuracy: float = -math.inf
    waited: int = 0  # epochs since the monitored figure improved
    watched: float = -math.inf  # best monitored figure (the loss negated)
    history: list[dict[str, Any]] = field(default_factory=list)


def make_accelerator(options: Any, project: Path | None = None) -> Accelerator:
    """Accelerate for these options: 1 to N processes, CPU or GPU. Raises `UserError` if the machine cannot do it."""
    if options.tracker != "none":
        from accelerate.tracking import is_tensorboard_available

        if not is_tensorboard_available():
            raise UserError("--tracker tensorboard needs TensorBoard: pip install tensorboard")
    disable_progress_bar()  # transformers' own, one per saved checkpoint
    try:
        accelerator = Accelerator(
            mixed_precision=options.precision,
            log_with=None if options.tracker == "none" else options.tracker,
            project_dir=project,
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"--precision {options.precision}: {error}") from None
    if accelerator.distributed_type in _SHARED_OUT:
        raise UserError(
            f"Accelerate is set to {accelerator.distributed_type.value}, which shares a model's weights out; here each "
            "process holds them all: use configs/accelerate/several_gpus.yaml"
        )
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
    resume: bool = False,
    auxiliary: float = 0.0,
) -> Progress:
    """Train `model`, leaving `run/history.jsonl` and `run/checkpoints/{last,best_loss,best_accuracy}`.

    `save(model, directory)` writes what a task's `from_pretrained` needs; the state of training is added to `last`.
    With `resume`, training goes on after the last finished epoch of `run`; the caller has given `model` the weights of
    its `last` checkpoint. `auxiliary` is the weight of what the model learns beside its answer: the cross-entropy of
    its output's `auxiliary_logits` with the batch's `auxiliary_labels`.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    steps = steps_of(train, options.batch_size)
    raw = make_optimizer(model, options)
    schedule = make_schedule(raw, options, steps=steps)
    progress = Progress()
    state: dict[str, Any] = {}
    if resume:
        last = whole_directory(run / "checkpoints" / "last")
        state = load_state(last)
        raw.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        if accelerator.scaler is not None and state["scaler"]:
            accelerator.scaler.load_state_dict(state["scaler"])
        progress = Progress(**state["progress"])
        _write_history(run, progress, accelerator)
    # The schedule stays out of `prepare`: there it would step once per process instead of once per step.
    wrapped, optimizer = accelerator.prepare(model, raw)
    averaged = _averaged(model, options, state)
    scored = model if averaged is None else averaged.module

    first = progress.epoch + 1
    bar = tqdm(
        total=options.epochs * steps,
        initial=progress.epoch * steps,
        unit="step",
        disable=None if accelerator.is_main_process else True,
    )
    while progress.epoch < options.epochs and not (options.patience and progress.waited >= options.patience):
        epoch, started = progress.epoch + 1, time.perf_counter()
        set_seed(_epoch_seed(seed, epoch, rank))
        batches = train_batches(
            train,
            batch_size=options.batch_size,
            accumulation=options.accumulation,
            seed=seed,
            epoch=epoch,
            rank=rank,
            world=world,
            workers=workers,
        )
        if epoch == first:
            batches = _announce(batches, accelerator)
        rate = schedule.get_last_lr()[0]
        trained = train_one_epoch(
            wrapped,
            batches,
            optimizer=optimizer,
            schedule=schedule,
            averaged=averaged,
            options=options,
            accelerator=accelerator,
            bar=bar,
            auxiliary=auxiliary,
        )
        if not math.isfinite(trained["loss"]):
            raise UserError(
                f"epoch {epoch}: the training loss is {trained['loss']} at learning rate {rate:.3g}; try a lower "
                f"--learning-rate or a smaller --clip (the checkpoints of earlier epochs are whole)"
            )
        _synchronise_buffers(scored, accelerator)
        scores = evaluate(scored, validation, batch_size=options.batch_size, workers=workers, accelerator=accelerator)
        if options.schedule == "plateau":
            schedule.step(scores.mean_loss)
        elif not _moves_per_step(options):
            schedule.step()
        row = {
            "epoch": epoch,
            "train_loss": trained["loss"],
            "train_accuracy": trained["accuracy"],
            "validation_loss": scores.mean_loss,
            "validation_accuracy": scores.accuracy,
            "learning_rate": rate,
            "seconds": round(time.perf_counter() - started, 3),
        }
        kept = _keep(progress, row, options)
        # Scored and saved is the average; what goes on training is then part of the state.
        weights = None if averaged is None else {"model": model.state_dict(), "averaged": averaged.n_averaged}
        _save_checkpoints(scored, kept, run, save, accelerator, raw, schedule, progress, weights)
        _write_history(run, progress, accelerator)
        accelerator.log({key: value for key, value in row.items() if key != "epoch"}, step=epoch)
        if accelerator.is_main_process:
            bar.write(_epoch_line(row, kept, options))
    bar.close()
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
    bar: tqdm,
    auxiliary: float = 0.0,
) -> dict[str, float]:
    """One pass over the training batches → mean loss and accuracy over all samples of all processes, while training.

    Each step's loss is the sum over the samples of all processes and parts, divided by their number: so the gradient
    does not depend on how many processes or accumulation parts share the batch, though their shares differ in samples.
    """
    model.train()
    total = torch.zeros(3, device=accelerator.device)  # summed loss, right, samples
    for parts in batches:
        samples = sum(int((part["labels"] != _MASKED).sum()) for part in parts)
        if accelerator.num_processes > 1:  # alone, no GPU has to be waited for to know it
            samples = int(accelerator.reduce(torch.tensor([samples], device=accelerator.device), "sum"))
        samples = max(1, samples)
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
        if options.clip:
            accelerator.clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()
        optimizer.zero_grad()
        if averaged is not None:
            averaged.update_parameters(accelerator.unwrap_model(model))
        if _moves_per_step(options):
            schedule.step()
        bar.update()
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


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """The update rule over what is trained; a trained encoder (all whose name starts so) has a learning rate of its
    own."""
    encoder = [p for name, p in model.named_parameters() if p.requires_grad and name.startswith("encoder")]
    rest = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("encoder")]
    groups = [{"params": rest, "lr": options.learning_rate}]
    if encoder:
        groups.append({"params": encoder, "lr": options.encoder_learning_rate or options.learning_rate})
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=options.momentum, weight_decay=options.weight_decay)
    rule = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[options.optimizer]
    return rule(groups, weight_decay=options.weight_decay)


def make_schedule(optimizer: torch.optim.Optimizer, options: TrainingOptions, *, steps: int) -> Any:
    """The learning rate over `options.epochs` epochs of `steps` steps each; plateau's is stepped once per epoch, and so
    are all with `schedule_per: epoch`."""
    if not _moves_per_step(options):
        steps = 1
    if options.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=options.plateau_factor, patience=options.plateau_patience
        )
    if options.schedule == "cosine_restarts":
        return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=options.restart_every * steps)
    total = options.epochs * steps
    name = "constant_with_warmup" if options.schedule == "constant" else options.schedule
    rising = round(options.warmup * total)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=rising, num_training_steps=total)
    if rising and not _moves_per_step(options):
        # The first step's rate is 0, which is nothing beside thousands of steps, but would be a whole epoch here.
        factor = schedule.lr_lambdas[0]
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: factor(epoch + 1))
    return schedule


def _moves_per_step(options: TrainingOptions) -> bool:
    return options.schedule != "plateau" and options.schedule_per == "step"


def _averaged(model: nn.Module, options: TrainingOptions, state: dict[str, Any]) -> AveragedModel | None:
    """The running mean of the weights, if wanted; when going on, `model` gets back those that were in training."""
    if not options.weight_averaging:
        return None
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.weight_averaging))
    if state:
        model.load_state_dict(state["weights"]["model"])
        averaged.n_averaged.copy_(state["weights"]["averaged"])
    return averaged


def checkpoint_directory(run: Path, name: str) -> Path:
    """A run's checkpoint by its name. Raises `UserError` for another name, or if the run has no such checkpoint."""
    if name not in CHECKPOINTS:
        raise UserError(f"unknown checkpoint '{name}'; allowed: {', '.join(CHECKPOINTS)}")
    return whole_directory(run / "checkpoints" / name)


def _keep(progress: Progress, row: dict[str, Any], options: TrainingOptions) -> list[str]:
    """Note an epoch's figures and name the checkpoints that it is the best for so far."""
    kept = []
    if row["validation_loss"] < progress.best_loss or progress.epoch == 0:
        kept.append("best_loss")
        progress.best_loss = row["validation_loss"]
    rises = row["validation_accuracy"] > progress.best_accuracy
    if options.best_accuracy_rule == "both":  # R1: training and validation accuracy must both improve
        rises = rises and row["train_accuracy"] > progress.best_train_accuracy
    if rises or progress.epoch == 0:
        kept.append("best_accuracy")
        progress.best_accuracy, progress.best_train_accuracy = row["validation_accuracy"], row["train_accuracy"]
    watched = row["validation_accuracy"] if options.monitor == "accuracy" else -row["validation_loss"]
    if watched > progress.watched + options.min_delta:
        progress.watched, progress.waited = watched, 0
    else:
        progress.waited += 1
    progress.epoch = row["epoch"]
    progress.history.append(row)
    return kept


def _save_checkpoints(
    model: nn.Module,
    kept: Sequence[str],
    run: Path,
    save: Callable[[nn.Module, Path], None],
    accelerator: Accelerator,
    optimizer: torch.optim.Optimizer,
    schedule: Any,
    progress: Progress,
    weights: dict[str, Any] | None,
) -> None:
    if accelerator.is_main_process:
        for name in kept:
            write_directory(run / "checkpoints" / name, lambda directory: save(model, directory))
        state = {
            "optimizer": optimizer.state_dict(),
            "schedule": {key: value for key, value in schedule.state_dict().items() if key != "lr_lambdas"}
            | ({"lr_lambdas": [None] * len(optimizer.param_groups)} if hasattr(schedule, "lr_lambdas") else {}),
            "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
            "progress": vars(progress),
            "weights": weights,
        }

        def write(directory: Path) -> None:
            save(model, directory)
            save_state(directory, state)

        write_directory(run / "checkpoints" / "last", write)
    accelerator.wait_for_everyone()
    # All processes decide alike whether to go on, even should their rounding differ.
    progress.waited = broadcast_object_list([progress.waited])[0]


def _write_history(run: Path, progress: Progress, accelerator: Accelerator) -> None:
    """`history.jsonl` from the saved progress, so that a resumed run never holds an epoch twice."""
    if accelerator.is_main_process:
        lines = "".join(json.dumps(row) + "\n" for row in progress.history)
        fresh = run / "history.jsonl.new"
        fresh.write_text(lines, encoding="utf-8")
        fresh.replace(run / "history.jsonl")


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
    first = next(batches)
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
