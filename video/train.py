"""Training and scoring a video run: from options to a run directory.

Belongs here: what a video run is made of, each part of which is done elsewhere: clips → frames → encoder and features →
model. What every task's training then goes through is `common/training_runs.py`'s.
"""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed

from common.batches import check_shares
from common.errors import UserError
from common.recurrent import keras_parameters
from common.runs import cache_directory, main_first
from common.streams import Stream
from common.terminal import script
from common.training import Scores
from common.training_runs import (
    Batches,
    Parts,
    encoder_note,
    make_encoder,
    preprocessing_of,
    scored_splits,
    settle_random,
    train_task,
)
from common.training_words import classes_note, data_note
from video.batches import ClipBatches
from video.data import VideoData
from video.frames import ClipViews, sampling_of
from video.model import VideoConfig, VideoModel
from video.options import TrainVideoOptions
from video.predict import Classifier
from video.sampling import Sampling
from video.scoring import (
    clip_features,
    load_source,
    predictions,
    report_scores,
    score,
    scored_batches,
    seconds_per_32,
    trained_on,
)
from video.streaming import NOT_INDEXED, clip_stream, load_streamed

_PATHS = ("data", "clips", "lists", "features", "index", "weights", "streaming")


def train(options: TrainVideoOptions) -> Path:
    """Train, score and report one run; returns its directory. Raises `UserError` for anything wrong with the input."""
    return train_task(options, prepare, task="video", name=_run_name(options), paths=_PATHS)


def prepare(options: TrainVideoOptions, accelerator: Accelerator) -> Parts:
    """Load and check the clips, build the model, and compute the features that are not cached yet."""
    cache = cache_directory(options.cache)
    if options.streaming is None:
        data, stored = main_first(accelerator, lambda: load_source(options, cache))
    else:
        data, stored = main_first(accelerator, lambda: load_streamed(options, cache)), None
    rows = data.splits.get("train")  # None: a stream
    set_seed(options.seed)
    encoder = None if stored is not None else make_encoder(options)
    sampling = sampling_of(options)
    about: dict[str, Any]
    if encoder is not None:
        preprocessing = preprocessing_of(options, encoder.preprocessing)
        about = {"encoder": encoder.config, "preprocessing": vars(preprocessing), "sampling": asdict(sampling)}
    else:
        assert stored is not None  # clips for an encoder, or features
        about = {"features": stored.size, "pool": 1}
    names = {field.name for field in fields(TrainVideoOptions)} & set(VideoConfig().to_dict())
    names -= {"encoder", "features", "sampling", "classes", *about}
    config = VideoConfig(classes=data.classes, **about, **{name: getattr(options, name) for name in sorted(names)})
    set_seed(options.seed)  # whatever was drawn for the encoder, the head starts alike
    model = VideoModel(config)
    source = varied = store = None
    differ = bool(options.augment) or (options.sampling == "random" and stored is None)
    kept = options.views + options.copies  # views of each clip, if they are kept
    if encoder is not None:
        model.encoder = encoder
        source = ClipViews(sampling=sampling, preprocessing=preprocessing)
        if rows is not None:
            settle_random(options, encoder, list(zip(rows["path"][:], rows["hash"][:], strict=True)), source, cache)
        varied = replace(source, augmentation=tuple(options.augment), per=options.augment_per)
        if rows is not None and (kept > 1 or not differ):  # else each epoch makes views of its own
            store = clip_features(model, [rows], varied, cache, options, accelerator, views=kept)
    there = scored_splits(options)
    splits = [data.splits[name] for name in there]
    plain = scored_batches(model, splits, source, stored, cache, options, accelerator)
    scored = dict(zip(there, plain, strict=True))
    train_batches: ClipBatches | Stream
    if rows is None:
        assert source is not None  # --features and --streaming exclude each other
        train_batches = clip_stream(options, source, data)
    else:
        train_batches = ClipBatches(
            rows,
            data.classes,
            source=varied,
            store=store,
            stored=stored,
            views=options.views,
            copies=options.copies,
            varied=differ,
            order=options.frame_order,
        )
        world = accelerator.num_processes
        check_shares(len(train_batches), options.batch_size, world=world, accumulation=options.accumulation)
    batches: Batches = {"train": train_batches, "validation": scored["validation"]}
    seen = set(data.splits["validation"]["label"][:])
    if not seen & set(data.classes):
        raise UserError(
            f"--data {options.data}: no class of validation ({', '.join(sorted(seen)[:5])}) is among the "
            f"{len(data.classes)} learned from train ({', '.join(data.classes[:5])}); check the labels"
        )

    def save(model: Any, directory: Path) -> None:
        model.save_pretrained(directory)

    def draw(said, run: Path, split: str) -> None:
        from common.pictures import write_confusion  # draws, with matplotlib, which is slow to load

        write_confusion(said, data.classes, run, split)

    def examples(said, out: Path, split: str) -> None:
        from video.pictures import draw_examples

        assert source is not None  # or there are no examples
        draw_examples(model, scored[split], source, said, out, split, count=options.examples)

    def report(split: str, scores: Scores) -> dict[str, Any]:
        figures = report_scores(scores, scored[split].rows)
        if options.timed and split == ("test" if options.test else "validation"):
            assert source is not None  # of --features nothing is timed
            figures["seconds_per_32"] = seconds_per_32(model, source, scored[split].rows, options.timed, accelerator)
        return figures

    keras = keras_parameters(model.head)
    notes = [*data.notes, classes_note(data.classes, {name: data.splits[name]["label"][:] for name in there})]
    notes += [f"head: {_head_note(options)}; {keras:,} parameters by Keras's count"]
    notes += (
        [_frames_note(options, sampling), encoder_note(options, encoder)]
        if encoder is not None
        else [f"features: {options.features}, {config.features} numbers a frame"]
    )
    return Parts(
        title="video classification",
        model=model,
        batches=batches,
        workers=0 if store is not None or stored is not None else options.workers,
        save=save,
        load=lambda directory: Classifier.from_pretrained(directory).model.state_dict(),
        score=lambda split: score(model, scored[split], options, accelerator),
        report=report,
        predictions=lambda split, scores: predictions(scores, scored[split].rows, data.classes),
        draw=draw,
        examples=examples if options.examples and source is not None else None,
        trained_on=NOT_INDEXED if rows is None else trained_on(rows),
        notes=notes,
        data=data_note(options, "motions (video/motions)"),
        next_steps=lambda run: _next_commands(run, options, data),
        by="by_class",
        figures={"keras_parameters": keras},
    )


def _run_name(options: TrainVideoOptions) -> str:
    given = options.data or options.features
    source = Path(given).resolve().stem if given else "motions"
    seen = "features" if options.features else options.encoder.replace("/", "-").replace(":", "-")
    return f"video-{source}-{seen}-{options.head}-seed{options.seed}"


def _head_note(options: TrainVideoOptions) -> str:
    change = ", with differences" if options.difference else ""
    order = ", frames shuffled" if options.frame_order == "shuffled" else ""
    if options.head in ("mean", "max", "last"):
        return f"{options.head} of the frames, linear{change}{order}"
    both = "bidirectional " if options.bidirectional else ""
    layers = f"{options.layers} × " if options.layers > 1 else ""
    return f"{layers}{both}{options.head} {options.hidden}, {options.readout} state{change}{order}"


def _frames_note(options: TrainVideoOptions, sampling: Sampling) -> str:
    varied = f"; training views vary {', '.join(options.augment)} per {options.augment_per}" if options.augment else ""
    return f"frames: {sampling.kind}, {sampling.frames} a clip, short clips: {sampling.short}{varied}"


def _next_commands(run: Path, options: TrainVideoOptions, data: VideoData) -> list[tuple[str, str]]:
    other = "--data FILE.csv for other clips" if options.features is None else "--features FILE --index CSV for others"
    split = "test" if options.test else "validation"
    steps = [(f"score it again; {other}", script("evaluate", run, "--split", split))]
    if options.features is None:
        asked = ("--run", run, "--video", data.splits["validation"][0]["path"], "--output", run / "marked.mp4")
        steps.insert(0, ("classify a clip, and mark it with what it is taken for", script("predict_video", *asked)))
    return steps
