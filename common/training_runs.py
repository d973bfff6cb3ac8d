"""One training of any task: from its parts to a run directory with figures, predictions and pictures.

Belongs here: the order of things that every task's training goes through (open the run, fit, score the best checkpoint,
report), and what it says at its start and end. What the parts are is the tasks' business (`vqa/train.py`,
`video/train.py`); the loops are `common/training.py`'s, the files `common/runs.py`'s.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
from accelerate import Accelerator
from torch import nn

from common.batches import BatchSource
from common.checkpoints import has_checkpoint, heal, write_directory
from common.config import read_yaml, to_plain
from common.encoders import BatchNorm, Encoder, build_encoder, count_parameters
from common.errors import Interrupted, UserError, reason
from common.features import ViewSource
from common.files import read_text
from common.images import Preprocessing
from common.interruption import go_on_with, terminated_like_interrupted
from common.options import NOT_MEASURED
from common.progress import checkpoint_directory
from common.runs import (
    choose_output,
    on_main,
    open_run,
    read_trained_on,
    refuse_changes,
    release,
    typed_command,
    write_csv,
    write_json,
    write_report,
    write_text,
)
from common.settling import settle
from common.streams import Stream
from common.terminal import ending, for_people
from common.training import Scores, fit, make_accelerator
from common.training_words import compare_steps, start_block

_MAY_CHANGE = {
    *"config output resume overwrite epochs patience test score score_train timed".split(),
    *NOT_MEASURED,
}


class Batches(TypedDict):
    """What is trained on, and what each epoch is judged by."""

    train: BatchSource | Stream
    validation: BatchSource


@dataclass(kw_only=True)
class Parts:
    """What a run is made of before it is trained."""

    title: str
    """what is trained, for a person: the first line of what a run says"""
    model: nn.Module
    batches: Batches
    workers: int
    """processes that load training batches"""
    save: Callable[[nn.Module, Path], None]
    """writes all that the task's `from_pretrained` needs"""
    load: Callable[[Path], Mapping[str, Any]]
    """the weights of a checkpoint, as a state dict"""
    score: Callable[[str], Scores]
    """every sample of a split, by the model as it is now"""
    report: Callable[[str, Scores], dict[str, Any]]
    """the figures of a split"""
    predictions: Callable[[str, Scores], list[dict[str, Any]]]
    """its per-sample rows"""
    draw: Callable[[Sequence[Mapping[str, Any]], Path, str], None]
    """draws what there is to draw of a split's predictions into a run"""
    examples: Callable[[Sequence[Mapping[str, Any]], Path, str], None] | None
    """draws examples of a split's predictions into a file; None where there is nothing to show, or nobody wants it"""
    trained_on: dict[str, list[str]]
    """fingerprints of the training split, so that scoring it later is refused"""
    notes: list[str]
    """lines for a person"""
    data: str
    """where they are from, for a person"""
    next_steps: Callable[[Path], Sequence[tuple[str, str]]]
    """commands to try next with a run, each with what it is for"""
    trained_in: Path | None = None
    """a finished run that was trained alike: its history and its checkpoint are taken, nothing is trained"""
    auxiliary: float = 0.0
    """weight of what the model learns beside its answer (`common.training.fit`)"""
    by: str = "by_type"
    """what the figures are broken down by"""
    missing: Sequence[str] = ()
    """splits that were to be scored, but that the data do not have"""
    figures: Mapping[str, float] = field(default_factory=dict)
    """more figures of the model, for the tables of studies"""


def train_task(
    options: Any, prepare: Callable[[Any, Accelerator], Parts], *, task: str, name: str, paths: Sequence[str]
) -> Path:
    """Train, score and report one run of a task; returns its directory.

    `name` of the run if the options give no --output; `paths`: options that name files, made absolute, so that a run
    can be scored or resumed from another folder. Raises `UserError` for anything wrong with the input.
    """
    for option in paths:
        value = getattr(options, option)
        if value is not None and Path(value).expanduser().exists():
            setattr(options, option, str(Path(value).expanduser().resolve()))
    with terminated_like_interrupted():
        accelerator = make_accelerator(options, Path("runs"))  # stands in for the run's directory, not known yet
        run = on_main(accelerator, lambda: choose_output(options, name))
        try:
            return _train(options, prepare, accelerator, run, task=task)
        except KeyboardInterrupt as interrupt:
            raise interrupt if str(interrupt) else Interrupted(_how_to_go_on(run)) from None
        finally:
            release(run)


def _train(
    options: Any, prepare: Callable[[Any, Accelerator], Parts], accelerator: Accelerator, run: Path, *, task: str
) -> Path:
    if options.resume:
        refuse_changes(read_yaml(run / "config.yaml"), to_plain(options), may_change=_MAY_CHANGE)
    parts = prepare(options, accelerator)
    last = _go_on(run, parts, accelerator) if options.resume else None
    size = count_parameters(parts.model)
    about: dict[str, Any] = {"task": task, "command": typed_command(), "parameters": size, "figures": parts.figures}
    about["device"] = accelerator.device.type
    on_main(accelerator, lambda: open_run(run, options, **about))
    if accelerator.is_main_process:
        write_json(run / "trained-on.json", parts.trained_on)
        print(start_block(options, parts, accelerator, run), flush=True)
    if options.tracker != "none":
        accelerator.project_configuration.set_directories(str(run))
        accelerator.project_configuration.logging_dir = str(run)
        accelerator.init_trackers("tensorboard", config=None)
    trained_in = parts.trained_in
    if trained_in is not None:
        history = on_main(accelerator, lambda: _take_training(trained_in, run, options.score))
    else:
        history = fit(
            parts.model,
            train=parts.batches["train"],
            validation=parts.batches["validation"],
            options=options,
            seed=options.seed,
            workers=parts.workers,
            accelerator=accelerator,
            run=run,
            save=parts.save,
            resume=last,
            auxiliary=parts.auxiliary,
        ).history
    parts.model.load_state_dict(parts.load(checkpoint_directory(run, options.score)))
    metrics: dict[str, Any] = {}
    not_drawn: list[str] = []
    said: dict[str, list[dict[str, Any]]] = {}
    for split in (name for name in scored_splits(options) if name not in parts.missing):
        scores = parts.score(split)
        metrics[split] = parts.report(split, scores)
        if accelerator.is_main_process:
            said[split] = parts.predictions(split, scores)
            write_csv(run / f"predictions-{split}.csv", said[split])
            drawn = {"by": parts.by, "title": f"{run.name}: {split}"}
            not_drawn += _draw(f"accuracy-{split}.png", _bars, metrics[split], run / f"accuracy-{split}.png", drawn)
            not_drawn += _draw(f"the pictures of {split}", parts.draw, said[split], run, split)
    if accelerator.is_main_process:
        not_drawn += _draw("curves.png", _curves, history, run / "curves.png", run.name)
        for old in (run / "examples.png", run / "examples.svg"):
            old.unlink(missing_ok=True)  # of what was scored before, where a finished run is resumed
        if parts.examples is not None:
            split = "test" if "test" in said else "validation"
            not_drawn += _draw("examples.png", parts.examples, said[split], run / "examples.png", split)
        seconds = sum(row["seconds"] for row in history)
        trained = f"trained for {len(history)} epochs, {seconds:,.0f} s"
        if parts.trained_in is not None:
            trained += f", in {os.path.relpath(parts.trained_in, run)} (the same options and seed: not trained again)"
        notes = [f"scored: checkpoints/{options.score}, {trained}", *parts.notes]
        if not options.test:
            notes.append("test was not opened (--no-test)")
        notes += not_drawn
        title = f"{parts.title}: run {run.name}"
        table = write_report(run, title=title, command=typed_command(), notes=notes, metrics=metrics, by=parts.by)
        write_json(run / "metrics.json", metrics)  # last: a run that has it is finished
        steps = [*parts.next_steps(run), *compare_steps(run, task, options)] if for_people() else []
        told = f"\n{table}\n\n{notes[0]}\neverything is in {run}: {', '.join(_to_look_at(run))}"
        print(ending(told, steps=steps, result={"run": run, "task": task, "metrics": metrics}), flush=True)
    accelerator.end_training()
    return run


def _how_to_go_on(run: Path) -> str:
    """Interrupted before, after or beside the steps, which say so themselves: what there is to go on from."""
    if not has_checkpoint(run):
        anew = ", with --overwrite" if run.exists() else ""
        return f"interrupted before the first checkpoint; features that were computed are kept. Start it anew{anew}"
    return f"interrupted; {go_on_with(run)}"


def _draw(name: str, draw: Callable[..., None], *given: Any) -> list[str]:
    """Draw a picture; → a note that says why it is not there, if it fails: none is worth a trained run."""
    try:
        draw(*given)
    except Exception as error:  # whatever it is: the figures are there, and are about to be written
        return [f"{name} could not be drawn: {reason(error)}"]
    return []


def _bars(figures: Mapping[str, Any], path: Path, about: Mapping[str, str]) -> None:
    from common.accuracy_bars import draw_accuracies  # draws, with matplotlib, which is slow to load

    draw_accuracies(figures, path, **about)


def _curves(history: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    from common.plots import draw_curves

    draw_curves(history, path, title=title)


def _to_look_at(run: Path) -> list[str]:
    return ["report.md", *sorted(path.name for path in run.glob("*.png"))]


def scored_splits(options: Any) -> list[str]:
    """The splits that a run scores at its end, in order."""
    return ["validation", *["test"] * options.test, *["train"] * options.score_train]


def make_encoder(options: Any) -> Encoder:
    """The encoder that `EncoderOptions` describe. Raises `UserError` where they do not fit."""
    with torch.random.fork_rng(devices=[], enabled=options.encoder_seed is not None):
        if options.encoder_seed is not None:
            torch.manual_seed(options.encoder_seed)
        encoder = build_encoder(
            options.encoder,
            weights=options.weights,
            stages=options.stages,
            depth=options.depth,
            width=options.width,
            train_from=options.train_encoder,
            batch_norm=options.batch_norm,
        )
    if options.views > 1 and encoder.frozen_part == "none":
        raise UserError(
            f"--views {options.views}: with --train-encoder {options.train_encoder} no stage of {options.encoder} is "
            "frozen, so there is nothing to keep; leave --views out, each epoch makes new views"
        )
    return encoder


def settle_random(
    options: Any, encoder: Encoder, files: Sequence[tuple[str, str]], source: ViewSource, cache: Path
) -> None:
    """Give the BatchNorm of an encoder of random weights statistics of training `files` (path, hash); see `settle`."""
    if _is_random(options):
        settle(encoder, files, source, cache)


def _is_random(options: Any) -> bool:
    return options.weights == "none" and not options.encoder.startswith("hf:")


def preprocessing_of(options: Any, wanted: Preprocessing) -> Preprocessing:
    """What the weights want, but for the size and the way of resizing that the options name."""
    changed = {"size": options.image_size, "resize": options.resize}
    return Preprocessing(**vars(wanted) | {name: value for name, value in changed.items() if value is not None})


def encoder_note(options: Any, encoder: Encoder) -> str:
    """One line about the encoder, its weights and what of it is trained."""
    trained = {"none": "frozen, features cached", "all": "trained"}.get(
        options.train_encoder, f"trained from {options.train_encoder} on"
    )
    weights = "random weights" if options.weights == "none" else f"weights {options.weights}"
    if _is_random(options) and trained != "trained" and any(isinstance(m, BatchNorm) for m in encoder.modules()):
        weights += " (BatchNorm with the statistics of training images)"
    return f"encoder: {options.encoder}, {weights}, {trained}"


def _go_on(run: Path, parts: Parts, accelerator: Accelerator) -> Path:
    """Give the model the weights of its last checkpoint, which is returned.

    Refuses other training data than the run was started with.
    """
    if read_trained_on(run) != parts.trained_on:
        raise UserError(f"--resume: the training data are not those that {run} was started with; start another run")
    if not has_checkpoint(run):
        why = "is finished and kept no last" if (run / "metrics.json").is_file() else "was stopped before its first"
        raise UserError(f"--resume: {run} {why} checkpoint; start it anew with --overwrite")
    last = on_main(accelerator, lambda: heal(run / "checkpoints" / "last"))
    parts.model.load_state_dict(parts.load(last))
    return last


def _take_training(trained: Path, run: Path, score: str) -> list[dict[str, Any]]:
    """Copy the history of a finished run, which is returned, and the checkpoint that is to be scored."""
    text = read_text(trained / "history.jsonl")
    write_text(run / "history.jsonl", text)
    source = checkpoint_directory(trained, score)
    write_directory(
        run / "checkpoints" / score, lambda directory: shutil.copytree(source, directory, dirs_exist_ok=True)
    )
    return [json.loads(line) for line in text.splitlines()]
