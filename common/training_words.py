"""What a training says of itself, whatever its task: the block at its start, data, classes, what to compare it with.

Belongs here: words about options, splits and runs. How they are laid out is `common/terminal.py`'s; what a task alone
has to say is in its own `train.py`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from common.batches import steps_of
from common.encoders import count_parameters
from common.errors import UserError
from common.runs import read_run
from common.terminal import block, script

_NAMED = 12  # classes named in a line
_SAME_SAMPLES = ("data", "features", "limit", "split_seed", "test", "random_split", "swap_splits")  # runs score alike


def start_block(options: Any, parts: Any, accelerator: Accelerator, run: Path) -> str:
    """All that decides what a run measures, and where it is, in one look; `parts` are `common.training_runs.Parts`."""
    total, trained = count_parameters(parts.model)
    steps = steps_of(parts.batches["train"], options.batch_size)
    training = f"{options.epochs} epoch{'s' * (options.epochs > 1)} of {steps:,} steps, batches of {options.batch_size}"
    training += f", {options.optimizer} {options.learning_rate:g}, {options.schedule}"
    if parts.trained_in is not None:
        training = f"none: taken from {parts.trained_in}"
    device = accelerator.device.type
    if device == "cuda":
        device += f" ({torch.cuda.get_device_name(accelerator.device)})"
    processes = f"{accelerator.num_processes} process(es)"
    if options.fsdp:
        shares = "share the model out" if accelerator.num_processes > 1 else "one alone has nothing to share out"
        processes += f" (--fsdp: {shares})"
    lines = [
        f"data: {parts.data}",
        *parts.notes,
        f"parameters: {trained:,} trained, {total - trained:,} frozen",
        f"training: {training}",
        f"device: {device}, {processes}, precision {options.precision}",
        f"seed: {options.seed}",
        f"run: {run}",
    ]
    return block(f"Hỏi Ảnh: {parts.title}", lines)


def compare_steps(run: Path, task: str, options: Any) -> list[tuple[str, str]]:
    """What to compare a run with: the newest finished one beside it of the same task and data, else another seed."""
    others = []
    for path in run.resolve().parent.iterdir():
        if path.name == run.name or not (path / "metrics.json").is_file():
            continue
        try:
            its, saved = read_run(path)
        except UserError:
            continue  # damaged, and nobody asked for it
        if its == task and all(saved.get(name) == getattr(options, name, None) for name in _SAME_SAMPLES):
            others.append(run.parent / path.name)
    if not others:
        seed = options.seed + 1
        again = ("--config", run / "config.yaml", "--seed", seed, "--output", f"{run}-seed{seed}")
        return [("what chance does: the same with another seed, to compare", script(f"train_{task}", *again))]
    split = () if options.test else ("--split", "validation")
    newest = max(others, key=lambda path: (path / "metrics.json").stat().st_mtime)
    return [("is it better than the run before it?", script("compare_runs", run, newest, *split))]


def data_note(options: Any, embedded: str) -> str:
    """Where the samples are from, in words; `embedded` names what they are without any option."""
    if getattr(options, "streaming", None) is not None:
        return f"{options.streaming}, as it comes; validation and test: {options.data}"
    return options.data or getattr(options, "features", None) or f"the embedded {embedded}"


def classes_note(classes: Sequence[str], labels: Mapping[str, Sequence[str]]) -> str:
    """One line about the classes, and what part of the scored splits is of one of them: `labels` is split → theirs."""
    named = ", ".join(classes[:_NAMED]) + " …" * (len(classes) > _NAMED)
    covered = [f"{sum(label in classes for label in its) / len(its):.2%} of {split}" for split, its in labels.items()]
    return f"classes: {len(classes)} ({named}); they cover {', '.join(covered)}"
