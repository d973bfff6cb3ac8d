"""Scoring a VQA run: its own splits after training, or any file later.

Belongs here: loading what is scored, refusing what was trained on, and the figures and rows that come out. The loop
that scores is `common/training.py`'s, the metrics are `common/metrics.py`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator

from common.columns import columns_from
from common.config import build
from common.encoders import Encoder
from common.errors import UserError
from common.features import FeatureStore, PhotoViews, cached_features
from common.images import Preprocessing
from common.metrics import SoftAccuracy, classification_report
from common.progress import checkpoint_directory
from common.runs import (
    cache_directory,
    fingerprints,
    prediction_rows,
    read_run,
    read_trained_on,
    refuse_existing,
    write_csv,
    write_json,
)
from common.symmetry import symmetries
from common.tables import split_table
from common.terminal import say_result
from common.training import Scores, evaluate, make_accelerator
from vqa.answers import AnswerVocabulary
from vqa.baseline_options import BaselineOptions
from vqa.batches import QuestionBatches
from vqa.data import VqaData, check_trained_on, load_rows, load_vqa, split_keys
from vqa.model import VqaModel
from vqa.options import EvaluateOptions, TrainVqaOptions
from vqa.pointing_options import EvaluateAttentionOptions
from vqa.predict import Answerer
from vqa.processor import VqaProcessor
from vqa.text import normalise

SHUFFLED = "shuffled images: every photo exchanged for one of another group, so that no question is asked of its own"


def load_source(options: TrainVqaOptions | BaselineOptions, cache: Path, *, boxes: bool = False) -> VqaData:
    """The splits that these options name, checked (with `boxes` these, too); without --data the embedded set's."""
    source = options.data
    if source is None:
        from vqa.shapes import embedded_shapes

        source = str(embedded_shapes(cache))
    return load_vqa(
        source,
        images=options.images,
        columns=columns_from(options.columns),
        validation_fraction=options.validation_fraction,
        test_fraction=options.test_fraction,
        split_seed=options.split_seed,
        on_bad_image=options.on_bad_image,
        allow_leaky_split=options.allow_leaky_split,
        need_images=options.inputs != "question",
        cache_directory=cache,
        limit=options.limit,
        check_boxes=boxes,
    )


def photo_features(
    encoder: Encoder,
    splits: Sequence[datasets.Dataset],
    preprocessing: Preprocessing,
    cache: Path,
    options: TrainVqaOptions,
    accelerator: Accelerator,
    *,
    views: int,
    augmentation: Sequence[str],
) -> FeatureStore | None:
    """The cached features of so many views of every photo of these splits; None if they are not kept.

    They are not if no stage is frozen, or if each epoch makes views of its own.
    """
    fresh_views = bool(options.augment) and options.views == 1
    if encoder.frozen_part == "none" or fresh_views:
        return None
    photos = {
        digest: path for rows in splits for digest, path in zip(rows["image_hash"][:], rows["image"][:], strict=True)
    }
    return cached_features(
        encoder,
        list(photos.values()),
        list(photos),
        source=PhotoViews(preprocessing=preprocessing, augmentation=tuple(augmentation)),
        cache=cache,
        accelerator=accelerator,
        precision=options.feature_precision,
        compiled=options.feature_compile,
        views=views,
        workers=options.workers,
    )


def scored_batches(
    model: VqaModel,
    splits: Sequence[datasets.Dataset],
    processor: VqaProcessor,
    cache: Path,
    options: TrainVqaOptions,
    accelerator: Accelerator,
) -> list[QuestionBatches]:
    """The questions of each of these splits, with the views of their photos over which an answer is averaged."""
    ways = model.config.test_augment if model.config.inputs != "question" else ()
    views: dict[str, Any] = {"views": len(symmetries(ways)), "augmentation": tuple(ways)}
    store, preprocessing = None, processor.preprocessing
    if model.config.inputs != "question":
        assert preprocessing is not None  # `Answerer.from_pretrained` sees to it
        store = photo_features(model.encoder, splits, preprocessing, cache, options, accelerator, **views)
    return [QuestionBatches(rows, processor, store=store, **views) for rows in splits]


def score(model: VqaModel, batches: QuestionBatches, options: TrainVqaOptions, accelerator: Accelerator) -> Scores:
    """Every question of `batches`, once, over all processes; the mean over the ways round of `test_augment`."""
    model.to(accelerator.device)
    return evaluate(
        model,
        batches,
        batch_size=options.batch_size,
        workers=0 if batches.store else options.workers,
        accelerator=accelerator,
        draws=len(symmetries(batches.augmentation)),
    )


@dataclass(kw_only=True)
class Opened:
    """A run whose checkpoint is loaded, and the rows that it is to be scored on."""

    options: TrainVqaOptions
    """those it was trained with, but for what says how it is run now"""
    checkpoint: Path
    answerer: Answerer
    accelerator: Accelerator
    cache: Path
    key: str
    """the split's name, or the stem of the file that is scored"""
    where: str
    """the source of the rows, for messages"""
    rows: datasets.Dataset
    notes: list[str]


def open_run_to_score(options: EvaluateOptions | EvaluateAttentionOptions, *, boxes: bool = False) -> Opened:
    """Load a run, and the rows that these options name. Rows that it was trained on are refused.

    With `boxes` a box that cannot be read is refused, too. Raises `UserError` for anything wrong with the input.
    """
    run = Path(options.run)
    task, saved = read_run(run)
    if task != "vqa":
        raise UserError(f"{run} is a {task} run, not a VQA run")
    trained = build(TrainVqaOptions, saved, where=str(run / "config.yaml"))
    trained.cache, trained.workers, trained.tracker = options.cache or trained.cache, options.workers, "none"
    trained.images = options.images or trained.images
    if trained.precision == "fp16" and not torch.cuda.is_available():
        trained.precision = "no"
    accelerator = make_accelerator(trained)
    cache = cache_directory(trained.cache)
    directory = checkpoint_directory(run, options.checkpoint or trained.score)
    answerer = Answerer.from_pretrained(directory)
    columns = columns_from(options.columns or trained.columns)
    notes: list[str] = []
    if options.data is None:
        data = load_source(trained, cache, boxes=boxes)
        key, rows = str(options.split), data.splits[options.split]
        notes += [note for note in data.notes if "LEAK" in note]
    else:
        rows, notes = load_rows(
            options.data,
            split=options.split,
            images=trained.images,
            columns=columns,
            on_bad_image=options.on_bad_image,
            need_images=trained.inputs != "question",
            cache_directory=cache,
            check_boxes=boxes,
        )
        key = options.split if Path(options.data).is_dir() else Path(options.data).stem
    if options.data is not None or key != "train":  # a file is no training split just because it is called train.csv
        leak = check_trained_on(
            read_trained_on(run),
            trained_on(rows),
            where=options.data or key,
            allow=options.allow_leaky_split or (options.data is None and trained.allow_leaky_split),
        )
        notes += [leak] if leak else []
    where = options.data or f"{trained.data or 'the embedded set'}, {key}"
    opened = {"options": trained, "checkpoint": directory, "answerer": answerer, "accelerator": accelerator}
    return Opened(**opened, cache=cache, key=key, where=where, rows=rows, notes=notes)


def evaluate_run(options: EvaluateOptions) -> dict[str, Any]:
    """Score a run again and print its table; the figures have the shape of `metrics.json`.

    The key is the split's name, or the stem of the file scored, and says so of shuffled images.
    """
    refuse_existing(options.output, overwrite=options.overwrite)
    refuse_existing(options.predictions, overwrite=options.overwrite, option="--predictions")
    opened = open_run_to_score(options)
    trained, rows, key, notes = opened.options, opened.rows, opened.key, opened.notes
    model, processor = opened.answerer.model, opened.answerer.processor
    if options.shuffled_images and trained.inputs == "question":
        raise UserError(f"--shuffled-images: {options.run} was trained on questions alone and sees no image")
    batches = scored_batches(model, [rows], processor, opened.cache, trained, opened.accelerator)[0]
    if options.shuffled_images or trained.shuffled_images:
        batches = batches.with_shuffled_images(trained.seed)
        key, notes = f"{key}-shuffled-images", [*notes, SHUFFLED]
    scores = score(model, batches, trained, opened.accelerator)
    metrics = {key: report_scores(scores, rows, processor.answers)}
    if opened.accelerator.is_main_process:
        if options.predictions:
            said = predictions(scores, rows, processor.answers, shown=batches.shown)
            write_csv(Path(options.predictions), said)
        if options.output:
            write_json(Path(options.output), metrics)
        print("\n".join([split_table(metrics), "", f"scored: {opened.checkpoint}", *notes]), flush=True)
        say_result(run=options.run, checkpoint=opened.checkpoint, metrics=metrics)
    return metrics


def report_scores(scores: Scores, rows: datasets.Dataset, answers: AnswerVocabulary) -> dict[str, Any]:
    """The figures of one split; with several reference answers per question, VQA v2's soft accuracy too."""
    report = classification_report(**vars(scores), types=rows["type"][:])
    references = [[normalise(answer) for answer in given] for given in rows["answers"][:]]
    if any(len(given) > 1 for given in references):
        said = [answers.decode(answer) for answer in scores.predicted]
        report |= SoftAccuracy().compute(predictions=said, references=["\n".join(given) for given in references])
    return report


def predictions(
    scores: Scores, rows: datasets.Dataset, answers: AnswerVocabulary, *, shown: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Per-sample predictions: id, group, type, gold, predicted, probability, and the photo's file and the question;
    with shuffled images also the file that was `shown` instead."""
    columns = {name: rows[name][:] for name in ("id", "group", "type", "question")}
    columns |= {"gold": [normalise(answer) for answer in rows["answer"][:]]}
    columns |= {"image": [Path(path).name for path in rows["image"][:]]}
    columns |= {"shown_image": [Path(path).name for path in shown]} if shown is not None else {}
    return prediction_rows(scores, answers.to_list(), columns)


def trained_on(rows: datasets.Dataset) -> dict[str, list[str]]:
    """Fingerprints of the groups, photos and rows of a split, kept with a run so that scoring them later is refused."""
    return {name: fingerprints(keys) for name, keys in split_keys(rows).items()}
