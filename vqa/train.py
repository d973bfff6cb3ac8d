"""Training and scoring a VQA run: from options to a run directory.

Belongs here: what a VQA run is made of, each part of which is done elsewhere: data → text → encoder and features →
model. What every task's training then goes through is `common/training_runs.py`'s.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from common.batches import check_shares
from common.errors import UserError
from common.features import PhotoViews
from common.runs import cache_directory, main_first, on_main
from common.streams import Stream
from common.terminal import script
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
from common.training_words import data_note
from vqa.answers import AnswerVocabulary
from vqa.batches import QuestionBatches
from vqa.controls import matched_hidden, same_training
from vqa.data import VqaData
from vqa.model import VqaConfig, VqaModel
from vqa.options import TrainVqaOptions
from vqa.predict import Answerer
from vqa.processor import VqaProcessor
from vqa.scoring import (
    SHUFFLED,
    load_source,
    photo_features,
    predictions,
    report_scores,
    score,
    scored_batches,
    trained_on,
)
from vqa.streaming import NOT_INDEXED, load_streamed, question_stream, vocabularies
from vqa.text import QuestionProcessor


def train(options: TrainVqaOptions) -> Path:
    """Train, score and report one run; returns its directory. Raises `UserError` for anything wrong with the input."""
    return train_task(
        options,
        prepare,
        task="vqa",
        name=_run_name(options),
        paths=("data", "images", "weights", "streaming", "vocabulary"),
    )


def prepare(options: TrainVqaOptions, accelerator: Accelerator) -> Parts:
    """Load and check the data, build vocabularies and model, and compute the features that are not cached yet."""
    cache = cache_directory(options.cache)
    load = load_source if options.streaming is None else load_streamed
    data = main_first(accelerator, lambda: load(options, cache))
    rows = data.splits.get("train")  # None: a stream
    questions, answers = _vocabularies(options, rows)
    if len(answers) < 2:
        raise UserError(
            f"--data {options.data}: only one answer to learn, '{answers.to_list()[0]}'; nothing can be learned from "
            "fewer than two; lower --min-answer-count, raise --top-answers, or check the answer column"
        )
    set_seed(options.seed)
    encoder = None
    if options.inputs != "question":
        encoder = make_encoder(options)
    preprocessing = None if encoder is None else preprocessing_of(options, encoder.preprocessing)
    if encoder is not None and preprocessing is not None and rows is not None:
        photos = dict.fromkeys(zip(rows["image"][:], rows["image_hash"][:], strict=True))
        settle_random(options, encoder, list(photos), PhotoViews(preprocessing=preprocessing), cache)
    processor = VqaProcessor(questions, answers, preprocessing)
    names = {field.name for field in fields(TrainVqaOptions)} & set(VqaConfig().to_dict()) - {"encoder"}
    config = VqaConfig(
        encoder=None if encoder is None else encoder.config,
        preprocessing=None if preprocessing is None else vars(preprocessing),
        words=questions.vocab_size,
        answers=len(answers),
        place_answers=answers.places(),
        **{name: getattr(options, name) for name in sorted(names)},
    )
    if options.grounding and len(config.place_answers) < 2:
        raise UserError(
            "--grounding: fewer than two answers of train name a place (bên trái, ở giữa, phía trên, …); leave it out"
        )
    controls: list[str] = []
    if options.match_parameters:
        config.hidden, count, wanted = matched_hidden(config)
        controls.append(
            f"matched parameters: {count:,} trained without attention (hidden size {config.hidden}), {wanted:,} with "
            f"it (hidden size {options.hidden})"
        )
    model = VqaModel(config)
    if config.grounds:
        model.grounding.asking.copy_(torch.tensor(questions.asking()))
    if encoder is not None:
        model.encoder = encoder
    views: dict[str, Any] = {"views": options.views, "augmentation": options.augment}
    store = None
    if encoder is not None and preprocessing is not None and rows is not None:
        store = photo_features(encoder, [rows], preprocessing, cache, options, accelerator, **views)
    splits = scored_splits(options)
    plain = scored_batches(model, [data.splits[name] for name in splits], processor, cache, options, accelerator)
    scored = dict(zip(splits, plain, strict=True))
    train_batches: QuestionBatches | Stream
    if rows is None:
        train_batches = question_stream(options, processor, data)
    else:
        train_batches = QuestionBatches(rows, processor, store=store, **views)
    batches: Batches = {"train": train_batches, "validation": scored["validation"]}
    if not processor.answers.coverage(data.splits["validation"]["answer"][:]):
        raise UserError(
            f"--data {options.data}: no answer of validation is among the {len(answers)} learned from train; "
            "lower --min-answer-count, raise --top-answers, or check the answer column"
        )
    fingerprints, trained_in = NOT_INDEXED, None
    if isinstance(train_batches, QuestionBatches):  # else a stream
        world = accelerator.num_processes
        check_shares(len(train_batches), options.batch_size, world=world, accumulation=options.accumulation)
        fingerprints = trained_on(rows)
    if options.shuffled_images:  # only what is scored at the end: training is chosen by the ordinary validation
        scored = {name: batches.with_shuffled_images(options.seed) for name, batches in scored.items()}
        trained_in = None if options.resume else on_main(accelerator, lambda: same_training(options, fingerprints))
        controls.append(SHUFFLED)
    about = "encoder: none (question only)" if encoder is None else encoder_note(options, encoder)

    def save(model: Any, directory: Path) -> None:
        model.save_pretrained(directory)
        processor.save_pretrained(directory)

    def draw(said, run: Path, split: str) -> None:
        from vqa.examples import draw_confusions  # draws, with matplotlib, which is slow to load

        draw_confusions(said, run / f"confusion-{split}.png", title=f"{run.name}: {split}")

    def examples(said, out: Path, split: str) -> None:
        from vqa.examples import draw_examples

        asked = scored[split].rows
        photos = dict(zip(asked["id"][:], asked["image"][:], strict=True))
        answerer = Answerer(model=model.eval(), processor=processor)
        draw_examples(answerer, said, photos, out, split, per_type=options.examples)

    # With shuffled images the answers are not about their own photos.
    shows = options.examples and encoder is not None and not options.shuffled_images
    return Parts(
        title=f"visual question answering, attention over: {config.looks}",
        model=model,
        batches=batches,
        workers=0 if store else options.workers,
        save=save,
        load=lambda directory: Answerer.from_pretrained(directory).model.state_dict(),
        score=lambda split: score(model, scored[split], options, accelerator),
        report=lambda split, scores: report_scores(scores, scored[split].rows, answers),
        predictions=lambda split, scores: predictions(scores, scored[split].rows, answers, shown=scored[split].shown),
        draw=draw,
        examples=examples if shows else None,
        trained_on=fingerprints,
        trained_in=trained_in,
        notes=[*data.notes, _coverage_note(data, processor, options), about, *controls],
        data=data_note(options, "coloured shapes (vqa/shapes)"),
        next_steps=lambda run: _next_commands(run, data, config, split="test" if options.test else "validation"),
        auxiliary=options.auxiliary if config.grounds else 0.0,
    )


def _vocabularies(
    options: TrainVqaOptions, rows: datasets.Dataset | None
) -> tuple[QuestionProcessor, AnswerVocabulary]:
    """Words and answers of the training split."""
    if rows is None:
        return vocabularies(options)
    questions = QuestionProcessor.build(
        rows["question"][:],
        segmentation=options.segmentation,
        min_count=options.min_word_count,
        max_length=options.max_question_length,
    )
    answers = AnswerVocabulary.build(rows["answer"][:], min_count=options.min_answer_count, top=options.top_answers)
    return questions, answers


def _run_name(options: TrainVqaOptions) -> str:
    source = "shapes" if options.data is None else Path(options.data).resolve().stem
    seen = options.encoder.replace("/", "-").replace(":", "-") if options.inputs != "question" else "question"
    look = "attention" if options.attention and options.inputs == "both" else "no-attention"
    if options.attention_weights != "learned":
        look = f"{options.attention_weights.replace('_', '-')}-{look}"
    look += "-matched" * options.match_parameters + "-shuffled-images" * options.shuffled_images
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


def _next_commands(run: Path, data: VqaData, config: VqaConfig, *, split: str) -> list[tuple[str, str]]:
    row = data.splits["validation"][0]
    steps = []
    if row["image"] and config.inputs != "question":
        where = ("--attention-map", run / "where.png") if config.attends else ()
        asked = ("--run", run, "--image", row["image"], "--question", row["question"], *where)
        steps.append(("ask it, and see where it looks" if where else "ask it", script("predict_vqa", *asked)))
    steps.append(("score it again; --data FILE.csv for other questions", script("evaluate", run, "--split", split)))
    if config.attends and config.attention_weights == "learned":
        without = ("--config", run / "config.yaml", "--no-attention", "--output", f"{run}-no-attention")
        steps.append(("what attention brings: the same without it", script("train_vqa", *without)))
    return steps
