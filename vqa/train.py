"""Training and scoring a VQA run: from options to a run directory.

Belongs here: the order of things, each of which is done elsewhere. This file is the VQA path's table of contents:
data → text → encoder and features → model → fit → evaluate → report.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import datasets
import psutil
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from common.config import build, read_yaml, to_plain
from common.encoders import build_encoder, count_parameters
from common.errors import UserError
from common.features import FeatureStore, cached_features
from common.images import Preprocessing
from common.metrics import SoftAccuracy, classification_report
from common.runs import (
    cache_directory,
    choose_output,
    fingerprints,
    on_main,
    open_run,
    prediction_rows,
    read_json,
    read_run,
    refuse_changes,
    refuse_existing,
    typed_command,
    write_csv,
    write_json,
    write_report,
)
from common.tables import split_table
from common.training import Scores, checkpoint_directory, evaluate, fit, make_accelerator
from vqa.answers import AnswerVocabulary
from vqa.batches import QuestionBatches
from vqa.data import VqaData, check_trained_on, load_rows, load_vqa, split_keys
from vqa.model import VqaConfig, VqaModel
from vqa.options import EvaluateOptions, TrainVqaOptions
from vqa.predict import Answerer
from vqa.processor import VqaProcessor
from vqa.text import QuestionProcessor, normalise

_MAY_CHANGE = {
    "config",
    "output",
    "resume",
    "overwrite",
    "cache",
    "workers",
    "epochs",
    "patience",
    "tracker",
    "test",
    "score",
}


@dataclass(kw_only=True)
class Parts:
    """What a run is made of before it is trained."""

    data: VqaData
    processor: VqaProcessor
    model: VqaModel
    batches: dict[str, QuestionBatches]
    notes: list[str]


def train(options: TrainVqaOptions) -> Path:
    """Train, score and report one run; returns its directory. Raises `UserError` for anything wrong with the input."""
    accelerator = make_accelerator(options, Path("runs"))  # stands in for the run's directory, not known yet
    run = on_main(accelerator, lambda: choose_output(options, _run_name(options)))
    if options.resume:
        refuse_changes(read_yaml(run / "config.yaml"), to_plain(options), may_change=_MAY_CHANGE)
    parts = prepare(options, accelerator)
    if options.resume:
        _go_on(run, parts)
    on_main(accelerator, lambda: open_run(run, options, task="vqa", command=typed_command()))
    if accelerator.is_main_process:
        write_json(run / "trained-on.json", trained_on(parts.data.splits["train"]))
        print(_start_block(options, parts, accelerator, run), flush=True)
    if options.tracker != "none":
        accelerator.project_configuration.set_directories(str(run))
        accelerator.project_configuration.logging_dir = str(run)
        accelerator.init_trackers("tensorboard", config=None)

    def save(model: nn.Module, directory: Path) -> None:
        model.save_pretrained(directory)
        parts.processor.save_pretrained(directory)

    progress = fit(
        parts.model,
        train=parts.batches["train"],
        validation=parts.batches["validation"],
        options=options,
        seed=options.seed,
        workers=0 if parts.batches["train"].store else options.workers,
        accelerator=accelerator,
        run=run,
        save=save,
        resume=options.resume,
    )
    best = checkpoint_directory(run, options.score)
    parts.model.load_state_dict(VqaModel.from_pretrained(best).state_dict())
    metrics: dict[str, Any] = {}
    for split in ("validation", "test") if options.test else ("validation",):
        batches = parts.batches[split]
        scores = score(parts.model, batches, options, accelerator)
        metrics[split] = report_scores(scores, batches.rows, parts.processor)
        if accelerator.is_main_process:
            write_csv(run / f"predictions-{split}.csv", predictions(scores, batches.rows, parts.processor))
    if accelerator.is_main_process:
        from common.plots import draw_curves

        write_json(run / "metrics.json", metrics)
        draw_curves(progress.history, run / "curves.png")
        notes = [f"scored: checkpoints/{options.score}, trained for {progress.epoch} epochs", *parts.notes]
        if not options.test:
            notes.append("test was not opened (--no-test)")
        title = f"VQA run {run.name}"
        table = write_report(run, title=title, command=typed_command(), notes=notes, metrics=metrics)
        print(f"\n{table}\n\n{notes[0]}; everything is in {run}\n{_next_commands(run, parts.data)}", flush=True)
    accelerator.end_training()
    return run


def prepare(options: TrainVqaOptions, accelerator: Accelerator) -> Parts:
    """Load and check the data, build vocabularies and model, and compute the features that are not cached yet."""
    cache = cache_directory(options.cache)
    with accelerator.main_process_first():  # the first process fills the caches, the others read them
        data = load_vqa(
            _source(options, cache),
            images=options.images,
            columns=dict(pair.split("=") for pair in options.columns),
            validation_fraction=options.validation_fraction,
            test_fraction=options.test_fraction,
            split_seed=options.split_seed,
            on_bad_image=options.on_bad_image,
            allow_leaky_split=options.allow_leaky_split,
            need_images=options.inputs != "question",
            cache_directory=cache,
            limit=options.limit,
        )
    rows = data.splits["train"]
    questions = QuestionProcessor.build(
        rows["question"][:],
        segmentation=options.segmentation,
        min_count=options.min_word_count,
        max_length=options.max_question_length,
    )
    answers = AnswerVocabulary.build(rows["answer"][:], min_count=options.min_answer_count, top=options.top_answers)
    set_seed(options.seed)
    encoder = None
    if options.inputs != "question":
        encoder = build_encoder(
            options.encoder,
            weights=options.weights,
            stages=options.stages,
            depth=options.depth,
            width=options.width,
            train_from=options.train_encoder,
            batch_norm=options.batch_norm,
        )
    preprocessing = None if encoder is None else _preprocessing(options, encoder.preprocessing)
    processor = VqaProcessor(questions, answers, preprocessing)
    names = {field.name for field in fields(TrainVqaOptions)} & set(VqaConfig().to_dict()) - {"encoder"}
    config = VqaConfig(
        encoder=None if encoder is None else encoder.config,
        preprocessing=None if preprocessing is None else vars(preprocessing),
        words=questions.vocab_size,
        answers=len(answers),
        **{name: getattr(options, name) for name in sorted(names)},
    )
    model = VqaModel(config)
    if encoder is not None:
        model.encoder = encoder
    store = None
    if encoder is not None and options.train_encoder == "none":
        store = _features(model, data.splits, preprocessing, cache, options, accelerator)
    batches = {
        name: QuestionBatches(rows, processor, store=store, views=options.views, augmentation=options.augment)
        for name, rows in data.splits.items()
        if name != "test" or options.test
    }
    notes = [*data.notes, _coverage_note(data, processor, options), f"encoder: {_encoder_note(options)}"]
    return Parts(data=data, processor=processor, model=model, batches=batches, notes=notes)


def score(model: VqaModel, batches: QuestionBatches, options: TrainVqaOptions, accelerator: Accelerator) -> Scores:
    """Every question of `batches`, once, over all processes."""
    model.to(accelerator.device)
    workers = 0 if batches.store else options.workers
    return evaluate(model, batches, batch_size=options.batch_size, workers=workers, accelerator=accelerator)


def evaluate_run(options: EvaluateOptions) -> dict[str, Any]:
    """Score a run again and print its table; the figures have the shape of `metrics.json`.

    The key is the split's name, or the stem of the file scored. Rows that were trained on are refused.
    """
    run = Path(options.run)
    task, saved = read_run(run)
    if task != "vqa":
        raise UserError(f"{run} is a {task} run, not a VQA run")
    refuse_existing(options.output, overwrite=options.overwrite)
    refuse_existing(options.predictions, overwrite=options.overwrite, option="--predictions")
    trained = build(TrainVqaOptions, saved, where=str(run / "config.yaml"))
    trained.cache, trained.workers, trained.tracker = options.cache or trained.cache, options.workers, "none"
    accelerator = make_accelerator(trained)
    cache = cache_directory(trained.cache)
    directory = checkpoint_directory(run, options.checkpoint or trained.score)
    answerer = Answerer.from_pretrained(directory)
    model, processor = answerer.model, answerer.processor
    columns = dict(pair.split("=") for pair in options.columns or trained.columns)
    notes: list[str] = []
    if options.data is None:
        data = load_vqa(
            _source(trained, cache),
            images=options.images or trained.images,
            columns=columns,
            validation_fraction=trained.validation_fraction,
            test_fraction=trained.test_fraction,
            split_seed=trained.split_seed,
            on_bad_image=trained.on_bad_image,
            allow_leaky_split=trained.allow_leaky_split,
            need_images=trained.inputs != "question",
            cache_directory=cache,
            limit=trained.limit,
        )
        key, rows = options.split, data.splits[options.split]
        notes += [note for note in data.notes if "LEAK" in note]
    else:
        rows, notes = load_rows(
            options.data,
            split=options.split,
            images=options.images,
            columns=columns,
            on_bad_image=options.on_bad_image,
            need_images=trained.inputs != "question",
            cache_directory=cache,
        )
        key = options.split if Path(options.data).is_dir() else Path(options.data).stem
    if options.data is not None or key != "train":  # a file is no training split just because it is called train.csv
        leak = check_trained_on(
            read_json(run / "trained-on.json"),
            trained_on(rows),
            where=options.data or key,
            allow=options.allow_leaky_split or (options.data is None and trained.allow_leaky_split),
        )
        notes += [leak] if leak else []
    store = None
    if model.config.inputs != "question" and trained.train_encoder == "none":
        store = _features(model, {"scored": rows}, processor.preprocessing, cache, trained, accelerator)
    batches = QuestionBatches(rows, processor, store=store)
    scores = score(model, batches, trained, accelerator)
    metrics = {key: report_scores(scores, rows, processor)}
    if accelerator.is_main_process:
        if options.predictions:
            write_csv(Path(options.predictions), predictions(scores, rows, processor))
        if options.output:
            write_json(Path(options.output), metrics)
        print("\n".join([split_table(metrics), "", f"scored: {directory}", *notes]), flush=True)
    return metrics


def report_scores(scores: Scores, rows: datasets.Dataset, processor: VqaProcessor) -> dict[str, Any]:
    """The figures of one split; with several reference answers per question, VQA v2's soft accuracy too."""
    report = classification_report(**vars(scores), types=rows["type"][:])
    references = [[normalise(answer) for answer in given] for given in rows["answers"][:]]
    if any(len(given) > 1 for given in references):
        said = [processor.answers.decode(answer) for answer in scores.predicted]
        report |= SoftAccuracy().compute(predictions=said, references=["\n".join(given) for given in references])
    return report


def predictions(scores: Scores, rows: datasets.Dataset, processor: VqaProcessor) -> list[dict[str, Any]]:
    """Per-sample predictions: id, group, type, gold, predicted, probability, and the photo's file and the question."""
    columns = {name: rows[name][:] for name in ("id", "group", "type", "question")}
    columns |= {"gold": [normalise(answer) for answer in rows["answer"][:]]}
    columns |= {"image": [Path(path).name for path in rows["image"][:]]}
    return prediction_rows(scores, processor.answers.to_list(), columns)


def trained_on(rows: datasets.Dataset) -> dict[str, list[str]]:
    """Fingerprints of the groups, photos and rows of a split, kept with a run so that scoring them later is refused."""
    return {name: fingerprints(keys) for name, keys in split_keys(rows).items()}


def _features(
    model: VqaModel,
    splits: Mapping[str, datasets.Dataset],
    preprocessing: Preprocessing,
    cache: Path,
    options: TrainVqaOptions,
    accelerator: Accelerator,
) -> FeatureStore:
    """The cached features of every photo of these splits; only training photos get augmented views."""
    photos: dict[str, tuple[str, bool]] = {}
    for name, rows in splits.items():
        if name == "test" and not options.test:
            continue
        for digest, path in zip(rows["image_hash"][:], rows["image"][:], strict=True):
            plain = name != "train" and photos.get(digest, ("", True))[1]
            photos[digest] = (path, plain)
    return cached_features(
        model.encoder,
        [path for path, _ in photos.values()],
        list(photos),
        preprocessing=preprocessing,
        cache=cache,
        accelerator=accelerator,
        precision=options.feature_precision,
        views=options.views,
        augmentation=options.augment,
        plain_only=[plain for _, plain in photos.values()],
        workers=options.workers,
    )


def _go_on(run: Path, parts: Parts) -> None:
    """Give the model the weights of its last epoch. Refuses other training data, whose words would not fit them."""
    if read_json(run / "trained-on.json") != trained_on(parts.data.splits["train"]):
        raise UserError(f"--resume: the training data are not those that {run} was started with; start another run")
    try:
        last = checkpoint_directory(run, "last")
    except UserError:
        raise UserError(f"--resume: {run} was stopped in its first epoch; start it anew with --overwrite") from None
    parts.model.load_state_dict(Answerer.from_pretrained(last).model.state_dict())


def _source(options: TrainVqaOptions, cache: Path) -> str:
    if options.data is not None:
        return options.data
    from vqa.shapes import embedded_shapes

    return str(embedded_shapes(cache))


def _preprocessing(options: TrainVqaOptions, wanted: Preprocessing) -> Preprocessing:
    """What the weights want, but for the size and the way of resizing that the options name."""
    changed = {"size": options.image_size, "resize": options.resize}
    return Preprocessing(**vars(wanted) | {name: value for name, value in changed.items() if value is not None})


def _run_name(options: TrainVqaOptions) -> str:
    source = "shapes" if options.data is None else Path(options.data).resolve().stem
    seen = options.encoder.replace("/", "-").replace(":", "-") if options.inputs != "question" else "question"
    look = "attention" if options.attention and options.inputs == "both" else "no-attention"
    return f"vqa-{source}-{seen}-{look}-seed{options.seed}"


def _coverage_note(data: VqaData, processor: VqaProcessor, options: TrainVqaOptions) -> str:
    shares = [
        f"{processor.answers.coverage(data.splits[name]['answer'][:]):.2%} of {name}"
        for name in ("validation", "test")
        if name != "test" or options.test
    ]
    return (
        f"answers: {len(processor.answers)} learned from train; they cover {', '.join(shares)}: the ceiling of accuracy"
    )


def _encoder_note(options: TrainVqaOptions) -> str:
    if options.inputs == "question":
        return "none (question only)"
    trained = {"none": "frozen, features cached", "all": "trained"}.get(
        options.train_encoder, f"trained from {options.train_encoder} on"
    )
    weights = "random weights" if options.weights == "none" else f"weights {options.weights}"
    return f"{options.encoder}, {weights}, {trained}"


def _start_block(options: TrainVqaOptions, parts: Parts, accelerator: Accelerator, run: Path) -> str:
    total, trained = count_parameters(parts.model)
    attends = " and ".join(sorted(parts.model.config.attends)) or "none"
    lines = [
        f"Hỏi Ảnh: visual question answering, attention over: {attends}",
        *parts.notes,
        f"parameters: {trained:,} trained, {total - trained:,} frozen",
        f"device: {accelerator.device.type}, {accelerator.num_processes} process(es), precision {options.precision}",
        f"run: {run}",
        f"first batch {time.time() - psutil.Process().create_time():.1f} s after the process started",
    ]
    return "\n".join(lines)


def _next_commands(run: Path, data: VqaData) -> str:
    row = data.splits["validation"][0]
    lines = [f"  python scripts/evaluate.py {run} --data FILE.csv"]
    if row["image"]:
        lines.append(f'  python scripts/predict_vqa.py --run {run} --image PHOTO --question "{row["question"]}"')
    return "next:\n" + "\n".join(lines)
