"""Training and scoring an image run: from options to a run directory.

Belongs here: what an image run is made of, each part of which is done elsewhere: photos → encoder and features → model.
What every training then goes through is `common/training_runs.py`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from common.batches import check_shares
from common.classifier import ImageClassifier, ImageClassifierConfig
from common.classifier_batches import ImageBatches
from common.classifier_data import ImageData
from common.classifier_options import TrainImageOptions
from common.classifier_predict import load_classifier
from common.classifier_scoring import (
    load_source,
    photo_features,
    predictions,
    report_scores,
    score,
    scored_batches,
    trained_on,
)
from common.features import PhotoViews
from common.heads import original_weights
from common.runs import cache_directory, main_first
from common.terminal import script
from common.training_runs import (
    Parts,
    encoder_note,
    make_encoder,
    preprocessing_of,
    scored_splits,
    settle_random,
    train_task,
)
from common.training_words import classes_note, data_note
from common.weights import load_head


def train(options: TrainImageOptions) -> Path:
    """Train, score and report one run; returns its directory. Raises `UserError` for anything wrong with the input."""
    return train_task(options, prepare, task="image", name=_run_name(options), paths=("data", "images", "weights"))


def prepare(options: TrainImageOptions, accelerator: Accelerator) -> Parts:
    """Load and check the photos, build the model, and compute the features that are not cached yet."""
    cache = cache_directory(options.cache)
    data = main_first(accelerator, lambda: load_source(options, cache))
    rows = data.splits["train"]
    set_seed(options.seed)
    encoder = make_encoder(options)
    preprocessing = preprocessing_of(options, encoder.preprocessing)
    source = PhotoViews(preprocessing=preprocessing)
    settle_random(options, encoder, list(zip(rows["image"][:], rows["hash"][:], strict=True)), source, cache)
    names = {field.name for field in fields(TrainImageOptions)} & set(ImageClassifierConfig().to_dict())
    names -= {"encoder", "preprocessing", "classes"}
    config = ImageClassifierConfig(
        encoder=encoder.config,
        preprocessing=vars(preprocessing),
        classes=data.classes,
        **{name: getattr(options, name) for name in sorted(names)},
    )
    set_seed(options.seed)  # whatever was drawn for the encoder, the last layer starts alike
    model = ImageClassifier(config)
    model.encoder = encoder
    if model.encoder_head is not None and options.weights != "none":
        file, state = original_weights(options.encoder, options.weights)
        load_head(model.encoder_head, state, source=file)
    elif model.encoder_head is not None and options.encoder_seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.encoder_seed)
            model.encoder_head.initialise()
    varied, store = replace(source, augmentation=tuple(options.augment)), None
    if options.views > 1 or not options.augment:  # else each epoch makes views of its own
        store = photo_features(model, [rows], varied, cache, options, accelerator, views=options.views)
    there = [name for name in scored_splits(options) if name in data.splits]
    plain = scored_batches(model, [data.splits[name] for name in there], source, cache, options, accelerator)
    scored = dict(zip(there, plain, strict=True))
    train_batches = ImageBatches(rows, data.classes, source=varied, store=store, views=options.views)
    check_shares(
        len(train_batches), options.batch_size, world=accelerator.num_processes, accumulation=options.accumulation
    )

    def save(model: Any, directory: Path) -> None:
        model.save_pretrained(directory)

    def draw(said: Sequence[Mapping[str, Any]], run: Path, split: str) -> None:
        from common.classifier_pictures import draw_split  # draws, with matplotlib, which is slow to load

        draw_split(model, scored[split], said, run, split)

    notes = [*data.notes, classes_note(data.classes, {name: data.splits[name]["label"][:] for name in there})]
    notes += [encoder_note(options, encoder), _head_note(options)]
    return Parts(
        title="image classification",
        model=model,
        batches={"train": train_batches, "validation": scored["validation"]},
        workers=0 if store is not None else options.workers,
        save=save,
        load=lambda directory: load_classifier(directory).state_dict(),
        score=lambda split: score(model, scored[split], options, accelerator),
        report=lambda split, scores: report_scores(scores, scored[split].rows, data.classes),
        predictions=lambda split, scores: predictions(scores, scored[split].rows, data.classes),
        draw=draw,
        examples=None,  # `draw` shows photos of every split
        trained_on=trained_on(rows),
        notes=notes,
        data=data_note(options, "photos"),
        next_steps=lambda run: _next_commands(run, data),
        by="by_class",
        missing=[name for name in scored_splits(options) if name not in data.splits],
    )


def _run_name(options: TrainImageOptions) -> str:
    assert options.data is not None  # or its options had been refused
    seen = options.encoder.replace("/", "-").replace(":", "-")
    return f"image-{Path(options.data).resolve().stem}-{seen}-{options.train_encoder}-seed{options.seed}"


def _head_note(options: TrainImageOptions) -> str:
    if options.fully_connected:
        how = "frozen" if options.train_encoder == "none" else "trained"
        return f"head: the network's own fully connected layers ({how}), and a new last one"
    cells = "its mean" if options.pool == 1 else f"the means of {options.pool} × {options.pool} parts"
    probe = " (a linear probe)" if options.train_encoder == "none" else ""
    views = f"; {options.views} views ({', '.join(options.augment)})" if options.augment and options.views > 1 else ""
    views = views or (f"; training views vary {', '.join(options.augment)}" if options.augment else "")
    return f"head: of the grid {cells}, then linear{probe}{views}"


def _next_commands(run: Path, data: ImageData) -> list[tuple[str, str]]:
    split = "test" if "test" in data.splits else "validation"
    photo = data.splits["validation"][0]["image"]
    return [
        ("classify a photo", script("predict_image", "--run", run, "--image", photo)),
        ("score it again; --data FOLDER for other photos", script("evaluate", run, "--split", split)),
    ]
