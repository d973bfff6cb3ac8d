"""Training and scoring a VQA run: from options to a run directory.

Belongs here: the order of things, each of which is done elsewhere. This file is the VQA path's table of contents:
data → text → encoder and features → model → fit → evaluate → report.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from common.batches import check_shares
from common.config import read_yaml, to_plain
from common.encoders import build_encoder, count_parameters
from common.errors import UserError
from common.images import Preprocessing
from common.runs import (
    cache_directory,
    choose_output,
    main_first,
    on_main,
    open_run,
    read_json,
    refuse_changes,
    typed_command,
    write_csv,
    write_json,
    write_report,
)
from common.training import checkpoint_directory, fit, make_accelerator
from vqa.answers import AnswerVocabulary
from vqa.batches import QuestionBatches
from vqa.data import VqaData
from vqa.model import VqaConfig, VqaModel
from vqa.options import TrainVqaOptions
from vqa.predict import Answerer
from vqa.processor import VqaProcessor
from vqa.scoring import load_source, photo_features, predictions, report_scores, score, scored_batches, trained_on
from vqa.text import QuestionProcessor

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
    _resolve_paths(options)
    accelerator = make_accelerator(options, Path("runs"))  # stands in for the run's directory, not known yet
    run = on_main(accelerator, lambda: choose_output(options, _run_name(options)))
    if options.resume:
        refuse_changes(read_yaml(run / "config.yaml"), to_plain(options), may_change=_MAY_CHANGE)
    parts = prepare(options, accelerator)
    if options.resume:
        _go_on(run, parts)
    size = count_parameters(parts.model)
    on_main(accelerator, lambda: open_run(run, options, task="vqa", command=typed_command(), parameters=size))
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
        metrics[split] = report_scores(scores, batches.rows, parts.processor.answers)
        if accelerator.is_main_process:
            from vqa.examples import draw_confusions  # draws, with matplotlib, which is slow to load

            said = predictions(scores, batches.rows, parts.processor.answers)
            write_csv(run / f"predictions-{split}.csv", said)
            draw_confusions(said, run / f"confusion-{split}.png", title=f"{run.name}: {split}")
    if accelerator.is_main_process:
        from common.plots import draw_curves

        draw_curves(progress.history, run / "curves.png")
        notes = [f"scored: checkpoints/{options.score}, trained for {progress.epoch} epochs", *parts.notes]
        if not options.test:
            notes.append("test was not opened (--no-test)")
        title = f"VQA run {run.name}"
        table = write_report(run, title=title, command=typed_command(), notes=notes, metrics=metrics)
        write_json(run / "metrics.json", metrics)  # last: a run that has it is finished
        print(f"\n{table}\n\n{notes[0]}; everything is in {run}\n{_next_commands(run, parts.data)}", flush=True)
    accelerator.end_training()
    return run


def prepare(options: TrainVqaOptions, accelerator: Accelerator) -> Parts:
    """Load and check the data, build vocabularies and model, and compute the features that are not cached yet."""
    cache = cache_directory(options.cache)
    data = main_first(accelerator, lambda: load_source(options, cache))
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
    if encoder is not None and options.views > 1 and encoder.frozen_part == "none":
        raise UserError(
            f"--views {options.views}: with --train-encoder {options.train_encoder} no stage of {options.encoder} is "
            "frozen, so there is nothing to keep; leave --views out, each epoch makes new views"
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
    views, store = {"views": options.views, "augmentation": options.augment}, None
    if encoder is not None:
        store = photo_features(encoder, [rows], preprocessing, cache, options, accelerator, **views)
    scored = [name for name in ("validation", "test") if name != "test" or options.test]
    batches = {"train": QuestionBatches(rows, processor, store=store, **views)} | dict(
        zip(
            scored,
            scored_batches(model, [data.splits[name] for name in scored], processor, cache, options, accelerator),
            strict=True,
        )
    )
    if not processor.answers.coverage(data.splits["validation"]["answer"][:]):
        raise UserError(
            f"--data {options.data}: no answer of validation is among the {len(answers)} learned from train; "
            "lower --min-answer-count, raise --top-answers, or check the answer column"
        )
    check_shares(
        len(batches["train"]), options.batch_size, world=accelerator.num_processes, accumulation=options.accumulation
    )
    notes = [*data.notes, _coverage_note(data, processor, options), f"encoder: {_encoder_note(options)}"]
    return Parts(data=data, processor=processor, model=model, batches=batches, notes=notes)


def _go_on(run: Path, parts: Parts) -> None:
    """Give the model the weights of its last epoch. Refuses other training data, whose words would not fit them."""
    if read_json(run / "trained-on.json") != trained_on(parts.data.splits["train"]):
        raise UserError(f"--resume: the training data are not those that {run} was started with; start another run")
    try:
        last = checkpoint_directory(run, "last")
    except UserError:
        raise UserError(f"--resume: {run} was stopped in its first epoch; start it anew with --overwrite") from None
    parts.model.load_state_dict(Answerer.from_pretrained(last).model.state_dict())


def _preprocessing(options: TrainVqaOptions, wanted: Preprocessing) -> Preprocessing:
    """What the weights want, but for the size and the way of resizing that the options name."""
    changed = {"size": options.image_size, "resize": options.resize}
    return Preprocessing(**vars(wanted) | {name: value for name, value in changed.items() if value is not None})


def _resolve_paths(options: TrainVqaOptions) -> None:
    """Make local paths absolute, so that a run can be scored or resumed from another folder."""
    for name in ("data", "images", "weights"):
        value = getattr(options, name)
        if value is not None and Path(value).expanduser().exists():
            setattr(options, name, str(Path(value).expanduser().resolve()))


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
    ]
    return "\n".join(lines)


def _next_commands(run: Path, data: VqaData) -> str:
    row = data.splits["validation"][0]
    lines = [f"  python scripts/evaluate.py {run} --data FILE.csv"]
    if row["image"]:
        lines.append(f'  python scripts/predict_vqa.py --run {run} --image PHOTO --question "{row["question"]}"')
    return "next:\n" + "\n".join(lines)
