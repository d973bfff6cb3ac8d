"""Scoring an image run: its own splits after training, or other photos later.

Belongs here: loading what is scored, refusing what was trained on, and the figures and rows that come out. The loop
that scores is `common/training.py`'s, the metrics are `common/metrics.py`'s.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator

from common.classifier import ImageClassifier
from common.classifier_batches import ImageBatches
from common.classifier_data import ImageData, load_photos, load_scored, split_keys
from common.classifier_options import EvaluateImageOptions, TrainImageOptions
from common.classifier_predict import load_classifier, photo_views
from common.classifier_rows import is_folder_of_photos
from common.columns import columns_from
from common.config import build
from common.errors import UserError
from common.features import FeatureStore, PhotoViews, cached_features
from common.metrics import classification_report, top_k_errors
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
from common.splits import check_overlap, describe
from common.tables import error_table, split_table
from common.terminal import say_result
from common.training import Scores, evaluate, make_accelerator


def load_source(options: TrainImageOptions, cache: Path) -> ImageData:
    """The splits that these options name, checked."""
    assert options.data is not None  # or its options had been refused
    return load_photos(
        options.data,
        images=options.images,
        columns=columns_from(options.columns),
        validation_fraction=options.validation_fraction,
        test_fraction=options.test_fraction,
        split_seed=options.split_seed,
        on_bad_image=options.on_bad_image,
        allow_leaky_split=options.allow_leaky_split,
        cache_directory=cache,
        limit=options.limit,
    )


def photo_features(
    model: ImageClassifier,
    splits: Sequence[datasets.Dataset],
    source: PhotoViews,
    cache: Path,
    options: TrainImageOptions,
    accelerator: Accelerator,
    *,
    views: int = 1,
) -> FeatureStore | None:
    """The cached features of so many views of each photo of these splits; None if no stage of the encoder is frozen."""
    if model.encoder.frozen_part == "none":
        return None
    photos = {digest: path for rows in splits for digest, path in zip(rows["hash"][:], rows["image"][:], strict=True)}
    return cached_features(
        model.encoder,
        list(photos.values()),
        list(photos),
        source=source,
        cache=cache,
        accelerator=accelerator,
        precision=options.feature_precision,
        compiled=options.feature_compile,
        views=views,
        pool=model.pool,
        workers=options.workers,
    )


def scored_batches(
    model: ImageClassifier,
    splits: Sequence[datasets.Dataset],
    source: PhotoViews,
    cache: Path,
    options: TrainImageOptions,
    accelerator: Accelerator,
) -> list[ImageBatches]:
    """The photos of each of these splits, plain."""
    store = photo_features(model, splits, source, cache, options, accelerator)
    return [ImageBatches(rows, model.config.classes, source=source, store=store) for rows in splits]


def score(
    model: ImageClassifier, batches: ImageBatches, options: TrainImageOptions, accelerator: Accelerator
) -> Scores:
    """Every photo of `batches`, once, over all processes."""
    model.to(accelerator.device)
    return evaluate(
        model,
        batches,
        batch_size=max(options.batch_size, 16),
        workers=0 if batches.store is not None else options.workers,
        accelerator=accelerator,
    )


def report_scores(scores: Scores, rows: datasets.Dataset, classes: Sequence[str]) -> dict[str, Any]:
    """The figures of one split: accuracy, loss, macro-F1, top-k accuracies and errors (k up to 5, below the number of
    classes), and by class accuracy, loss, F1 and count."""
    report = classification_report(**vars(scores), types=rows["label"][:], by="by_class")
    del report["top5_accuracy"]  # of five classes or fewer it is 1, whatever was learned
    figures = top_k_errors(scores.rank, scores.gold, classes=len(classes))
    by = report.pop("by_class")
    return report | figures | {"by_class": by}


def predictions(scores: Scores, rows: datasets.Dataset, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Per-photo predictions: id, group, type (the class), gold, predicted, probability, those of the gold class and its
    place among all, and the end of the photo's path."""
    columns = {name: rows[name][:] for name in ("id", "group")}
    columns |= {"type": rows["label"][:], "gold": rows["label"][:]}
    columns |= {"gold_probability": [round(float(value), 6) for value in torch.tensor(-scores.loss).exp()]}
    columns |= {"gold_rank": scores.rank.tolist()}
    columns |= {"image": ["/".join(Path(path).parts[-2:]) for path in rows["image"][:]]}
    return prediction_rows(scores, classes, columns)


def trained_on(rows: datasets.Dataset) -> dict[str, list[str]]:
    """Fingerprints of the photos, groups and rows of a split, kept with a run so that scoring them later is refused."""
    return {name: fingerprints(keys) for name, keys in split_keys(rows).items()}


def evaluate_run(options: EvaluateImageOptions) -> dict[str, Any]:
    """Score a run again and print its table; the figures have the shape of `metrics.json`.

    The key is the split's name, or the stem of the file scored. Photos that were trained on are refused, and labels
    that the run has no class for.
    """
    run = Path(options.run)
    task, saved = read_run(run)
    if task != "image":
        raise UserError(f"{run} is a {task} run, not an image run")
    refuse_existing(options.output, overwrite=options.overwrite)
    refuse_existing(options.predictions, overwrite=options.overwrite, option="--predictions")
    trained = build(TrainImageOptions, saved, where=str(run / "config.yaml"))
    trained.cache, trained.workers, trained.tracker = options.cache or trained.cache, options.workers, "none"
    if options.on_bad_image == "skip":
        trained.on_bad_image = "skip"
    if trained.precision == "fp16" and not torch.cuda.is_available():
        trained.precision = "no"
    accelerator = make_accelerator(trained)
    cache = cache_directory(trained.cache)
    directory = checkpoint_directory(run, options.checkpoint or trained.score)
    model = load_classifier(directory)
    rows, key, notes = _load(options, trained, model.config.classes, cache)
    own = options.data is None
    if not own or key != "train":  # a file is no training split just because it is called train.csv
        overlap = check_overlap(
            read_trained_on(run),
            trained_on(rows),
            names=("the run's training split", options.data or key),
            allow=options.allow_leaky_split or (own and trained.allow_leaky_split),
        )
        notes += [] if overlap is None else [f"LEAKY: {describe(overlap)}"]
    batches = scored_batches(model, [rows], photo_views(model), cache, trained, accelerator)[0]
    scores = score(model, batches, trained, accelerator)
    metrics = {key: report_scores(scores, rows, model.config.classes)}
    if accelerator.is_main_process:
        if options.predictions:
            write_csv(Path(options.predictions), predictions(scores, rows, model.config.classes))
        if options.output:
            write_json(Path(options.output), metrics)
        tables = [split_table(metrics, by="by_class"), "", error_table(metrics)]
        print("\n".join([*tables, "", f"scored: {directory}", *notes]), flush=True)
        say_result(run=run, checkpoint=directory, metrics=metrics)
    return metrics


def _load(
    options: EvaluateImageOptions, trained: TrainImageOptions, classes: Sequence[str], cache: Path
) -> tuple[datasets.Dataset, str, list[str]]:
    """→ rows, the key of the figures, notes."""
    if options.data is None:
        data = load_source(trained, cache)
        if options.split not in data.splits:
            raise UserError(
                f"{trained.data} has no {options.split} split; it has {', '.join(data.splits)}: name one with --split, "
                "or other photos with --data"
            )
        return data.splits[options.split], options.split, [note for note in data.notes if "LEAK" in note]
    rows, notes = load_scored(
        options.data,
        classes=classes,
        split=options.split,
        images=options.images,
        columns=columns_from(options.columns)
        or ({} if is_folder_of_photos(options.data) else columns_from(trained.columns)),
        on_bad_image=options.on_bad_image,
        cache_directory=cache,
    )
    return rows, options.split if Path(options.data).is_dir() else Path(options.data).stem, notes
