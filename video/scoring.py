"""Scoring a video run: its own splits after training, or other clips later.

Belongs here: loading what is scored, refusing what was trained on, and the figures and rows that come out. The loop
that scores is `common/training.py`'s, the metrics are `common/metrics.py`'s.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device

from common.columns import columns_from
from common.config import build
from common.errors import UserError
from common.features import FeatureStore, cached_features
from common.metrics import classification_report
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
from common.tables import split_table
from common.terminal import say_result
from common.training import Scores, evaluate, make_accelerator
from video.batches import ClipBatches
from video.data import VideoData, load_clips, load_video, split_keys
from video.frames import ClipViews
from video.model import VideoModel
from video.options import EvaluateVideoOptions, TrainVideoOptions
from video.predict import Classifier
from video.stored import StoredFeatures, load_stored, load_stored_clips


def load_source(options: TrainVideoOptions, cache: Path) -> tuple[VideoData, StoredFeatures | None]:
    """The splits that these options name, checked; without --data and --features those of the embedded set."""
    shared: dict[str, Any] = {
        "classes": options.classes,
        "columns": columns_from(options.columns),
        "validation_fraction": options.validation_fraction,
        "test_fraction": options.test_fraction,
        "split_seed": options.split_seed,
        "allow_leaky_split": options.allow_leaky_split,
        "random_split": options.random_split,
        "random_test_fraction": options.random_test_fraction,
        "swap_splits": options.swap_splits,
        "folds": options.folds,
        "fold": options.fold or 0,
        "limit": options.limit,
    }
    if options.features is not None:
        return load_stored(options.features, options.index, **shared)
    source = options.data
    if source is None:
        from video.motions import embedded_motions

        source = str(embedded_motions(cache))
    shared |= {"clips": options.clips, "split_list": options.split_list, "lists": options.lists}
    return load_video(source, on_bad_clip=options.on_bad_clip, cache_directory=cache, **shared), None


def scored_batches(
    model: VideoModel,
    splits: Sequence[datasets.Dataset],
    source: ClipViews | None,
    stored: StoredFeatures | None,
    cache: Path,
    options: TrainVideoOptions,
    accelerator: Accelerator,
) -> list[ClipBatches]:
    """The clips of each of these splits, plain."""
    store = None if source is None else clip_features(model, splits, source, cache, options, accelerator)
    places: dict[str, Any] = {"source": source, "store": store, "stored": stored, "order": model.config.frame_order}
    return [ClipBatches(rows, model.config.classes, **places) for rows in splits]


def clip_features(
    model: VideoModel,
    splits: Sequence[datasets.Dataset],
    source: ClipViews,
    cache: Path,
    options: TrainVideoOptions,
    accelerator: Accelerator,
    *,
    views: int = 1,
) -> FeatureStore | None:
    """The cached features of so many views of every clip of these splits; None if no stage of the encoder is frozen."""
    if model.encoder.frozen_part == "none":
        return None
    clips = {digest: path for rows in splits for digest, path in zip(rows["hash"][:], rows["path"][:], strict=True)}
    return cached_features(
        model.encoder,
        list(clips.values()),
        list(clips),
        source=source,
        cache=cache,
        accelerator=accelerator,
        precision=options.feature_precision,
        compiled=options.feature_compile,
        views=views,
        pool=model.config.pool,
        workers=options.workers,
    )


def score(model: VideoModel, batches: ClipBatches, options: TrainVideoOptions, accelerator: Accelerator) -> Scores:
    """Every clip of `batches`, once, over all processes."""
    model.to(accelerator.device)
    decodes = batches.store is None and batches.stored is None
    return evaluate(
        model,
        batches,
        batch_size=options.batch_size,
        workers=options.workers if decodes else 0,
        accelerator=accelerator,
    )


@torch.no_grad()
def seconds_per_32(
    model: VideoModel, source: ClipViews, rows: datasets.Dataset, clips: int, accelerator: Accelerator
) -> float:
    """Seconds that encoder and head take for 32 clips (report R0's batch), measured on the first `clips` of `rows`.

    From frames in memory, uint8 on the CPU, to classes: decoding is not counted. One clip is seen beforehand.
    """
    model.to(accelerator.device).eval()
    seconds = 0.0
    for place, row in enumerate([rows[0], *(rows[place % len(rows)] for place in range(clips))]):
        pixels, _, places = source.load(row["path"], row["hash"], 0)
        began = time.perf_counter()
        inputs = {"pixels": pixels, "places": places, "lengths": torch.tensor([len(places)])}
        logits = model(**send_to_device(inputs, accelerator.device)).logits
        logits.argmax().item()  # waits until the device is done
        seconds += (time.perf_counter() - began) * (place > 0)
    return seconds * 32 / clips


def report_scores(scores: Scores, rows: datasets.Dataset) -> dict[str, Any]:
    """The figures of one split: accuracy, loss, macro-F1, and by class accuracy, loss, F1 and count."""
    return classification_report(**vars(scores), types=rows["label"][:], by="by_class")


def predictions(scores: Scores, rows: datasets.Dataset, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Per-clip predictions: id, group, type (the class), gold, predicted, probability, and the clip's path's end."""
    columns = {name: rows[name][:] for name in ("id", "group")}
    columns |= {"type": rows["label"][:], "gold": rows["label"][:]}
    columns |= {"clip": ["/".join(Path(path).parts[-2:]) for path in rows["path"][:]]}
    return prediction_rows(scores, classes, columns)


def trained_on(rows: datasets.Dataset) -> dict[str, list[str]]:
    """Fingerprints of the groups, clips and rows of a split, kept with a run so that scoring them later is refused."""
    return {name: fingerprints(keys) for name, keys in split_keys(rows).items()}


def evaluate_run(options: EvaluateVideoOptions) -> dict[str, Any]:
    """Score a run again and print its table; the figures have the shape of `metrics.json`.

    The key is the split's name, or the stem of the file scored. Clips that were trained on are refused.
    """
    run = Path(options.run)
    task, saved = read_run(run)
    if task != "video":
        raise UserError(f"{run} is a {task} run, not a video run")
    refuse_existing(options.output, overwrite=options.overwrite)
    refuse_existing(options.predictions, overwrite=options.overwrite, option="--predictions")
    trained = build(TrainVideoOptions, saved, where=str(run / "config.yaml"))
    trained.cache, trained.workers, trained.tracker = options.cache or trained.cache, options.workers, "none"
    if options.on_bad_clip == "skip":
        trained.on_bad_clip = "skip"
    if trained.precision == "fp16" and not torch.cuda.is_available():
        trained.precision = "no"
    accelerator = make_accelerator(trained)
    cache = cache_directory(trained.cache)
    directory = checkpoint_directory(run, options.checkpoint or trained.score)
    classifier = Classifier.from_pretrained(directory)
    model = classifier.model
    rows, stored, key, notes = _load(options, trained, model.config.classes, cache)
    if (stored is None) != (model.config.encoder is not None):
        asked, made = ("clips", "--features") if stored is None else ("--features", "clips")
        raise UserError(f"{run} was trained on {made}; it cannot score {asked}")
    if stored is not None and stored.size != model.config.features:
        raise UserError(f"{options.features}: {stored.size} numbers a frame, but {run} wants {model.config.features}")
    own = options.data is None and options.features is None
    if not own or key != "train":  # a file is no training split just because it is called train.csv
        overlap = check_overlap(
            read_trained_on(run),
            trained_on(rows),
            names=("the run's training split", options.data or options.features or key),
            allow=options.allow_leaky_split or (own and (trained.allow_leaky_split or trained.random_split)),
        )
        notes += [] if overlap is None else [f"LEAKY: {describe(overlap)}"]
    batches = scored_batches(model, [rows], classifier.source, stored, cache, trained, accelerator)[0]
    scores = score(model, batches, trained, accelerator)
    metrics = {key: report_scores(scores, rows)}
    if accelerator.is_main_process:
        if options.predictions:
            write_csv(Path(options.predictions), predictions(scores, rows, model.config.classes))
        if options.output:
            write_json(Path(options.output), metrics)
        print("\n".join([split_table(metrics, by="by_class"), "", f"scored: {directory}", *notes]), flush=True)
        say_result(run=run, checkpoint=directory, metrics=metrics)
    return metrics


def _load(
    options: EvaluateVideoOptions, trained: TrainVideoOptions, classes: Sequence[str], cache: Path
) -> tuple[datasets.Dataset, StoredFeatures | None, str, list[str]]:
    """→ rows, stored features if that is what is scored, the key of the figures, notes."""
    if options.data is None and options.features is None:
        data, stored = load_source(trained, cache)
        return data.splits[options.split], stored, options.split, [note for note in data.notes if "LEAK" in note]
    source = options.data or options.features or ""
    key = options.split if Path(source).is_dir() else Path(source).stem
    columns = columns_from(options.columns) or columns_from(trained.columns)
    if options.features is not None:
        rows, stored, notes = load_stored_clips(
            options.features, options.index, split=options.split, classes=classes, columns=columns
        )
        return rows, stored, key, notes
    rows, notes = load_clips(
        source,
        clips=options.clips,
        split=options.split,
        classes=classes,
        split_list=options.split_list,
        lists=options.lists,
        on_bad_clip=options.on_bad_clip,
        columns=columns,
        cache_directory=cache,
    )
    return rows, None, key, notes
