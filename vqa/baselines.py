"""Baselines that learn nothing or see only the question's words: what a VQA model must beat to have seen anything.

Belongs here: four ways of scoring every answer to a question (`GUESSERS`), and running one of them from options to a
run directory like a training run's. Data, spelling, splits and figures are the same code as the model's; nothing here
looks at a photo.

A guesser is made from fitting rows and then gives `(n, K)` scores, one for each answer of the vocabulary. Answers of
equal score count in the order of the vocabulary, by falling frequency: what is predicted always has rank 1, and the
many answers that were never seen with a question do not all share the rank behind the few that were.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from common.errors import UserError
from common.runs import (
    cache_directory,
    choose_output,
    open_run,
    release,
    typed_command,
    write_csv,
    write_json,
    write_report,
)
from common.terminal import say_result
from common.training import Scores
from vqa.answers import AnswerVocabulary
from vqa.baseline_options import BaselineOptions
from vqa.scoring import load_source, predictions, report_scores, trained_on
from vqa.text import normalise, segment

TRIED_C = (0.1, 0.3, 1.0, 3.0)
TRIED_NGRAMS = (1, 2)

Guess = Callable[[datasets.Dataset], np.ndarray]
"""Rows, of which only `question` and `type` are read → scores `(n, K)` over the answer vocabulary."""


def run_baseline(options: BaselineOptions) -> Path:
    """Fit, score and report one baseline; returns its run directory, which is made only when all else has gone well.

    With `fit_validation` the test split is answered by a second fit, on train and validation together, with the
    settings that were chosen on validation; the validation figures stay those of the fit on train alone. Raises
    `UserError` for anything wrong with the input.
    """
    for name in ("data", "images"):  # so that config.yaml repeats the run from another folder too
        value = getattr(options, name)
        if value is not None and Path(value).expanduser().exists():
            setattr(options, name, str(Path(value).expanduser().resolve()))
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("a baseline is fitted by one process: start it with python, without a launcher")
    run = choose_output(options, _run_name(options))
    data = load_source(options, cache_directory(options.cache))
    splits, notes = data.splits, list(data.notes)
    if options.baseline == "tfidf_svm":
        options, note = choose_svm(splits["train"], splits["validation"], options)
        notes.append(note)
    fitted = {"validation": splits["train"]}  # which rows each scored split is answered from
    if options.test:
        both = [splits["train"], splits["validation"]]
        fitted["test"] = datasets.concatenate_datasets(both) if options.fit_validation else splits["train"]
    else:
        notes.append("test was not opened (--no-test)")
    metrics: dict[str, Any] = {}
    answered: dict[str, list[dict[str, Any]]] = {}
    for split, rows in fitted.items():
        guess, answers = fit_baseline(rows, options)
        scores = score(guess, answers, splits[split], probabilities=options.baseline != "tfidf_svm")
        metrics[split] = report_scores(scores, splits[split], answers)
        if options.baseline == "tfidf_svm":
            metrics[split]["calibration_error"] = float("nan")  # there is no probability to be calibrated
        answered[split] = predictions(scores, splits[split], answers)
        covered = answers.coverage(splits[split]["answer"][:])
        notes.append(
            f"{split}: fitted on {len(rows):,} rows; their {len(answers)} answers cover {covered:.2%} of it: "
            "the ceiling of accuracy"
        )
    command = typed_command()
    open_run(run, options, task="vqa-baseline", command=command)
    write_json(run / "trained-on.json", trained_on(rows))
    for split, lines in answered.items():
        write_csv(run / f"predictions-{split}.csv", lines)
    table = write_report(run, title=f"VQA baseline {run.name}", command=command, notes=notes, metrics=metrics)
    write_json(run / "metrics.json", metrics)  # last: a run that has it is whole
    release(run)
    print("\n".join([f"baseline: {options.baseline}", *notes, "", table, "", f"everything is in {run}"]), flush=True)
    say_result(run=run, task="vqa-baseline", metrics=metrics)
    return run


def fit_baseline(rows: datasets.Dataset, options: BaselineOptions) -> tuple[Guess, AnswerVocabulary]:
    """The guesser that `options.baseline` names, fitted on these rows, and the answers that it scores.

    Rows whose answer is nothing but punctuation teach nothing.
    """
    answers = AnswerVocabulary.build(rows["answer"][:])
    labels = np.array(answers.encode(rows["answer"][:]))
    taught = np.flatnonzero(labels >= 0)
    return GUESSERS[options.baseline](rows.select(taught), labels[taught], options), answers


def score(guess: Guess, answers: AnswerVocabulary, rows: datasets.Dataset, *, probabilities: bool) -> Scores:
    """What a guesser says to these rows, as a model's scores are kept.

    Unless the guesser's scores are log-probabilities there is no loss (NaN), and `probability` is the predicted
    answer's part of the scores' softmax, good for putting predictions in order and for nothing else.
    """
    scores = guess(rows)
    gold, places = np.array(answers.encode(rows["answer"][:])), np.arange(len(rows))
    predicted = scores.argmax(axis=1)  # of equals the first
    own = scores[places, gold][:, None]  # of a gold answer that is not in the vocabulary: anything, replaced below
    before = (scores > own) | ((scores == own) & (np.arange(len(answers)) < gold[:, None]))
    loss = -log_softmax(scores, axis=1)[places, gold] if probabilities else np.nan
    return Scores(
        gold=gold,
        predicted=predicted,
        probability=softmax(scores, axis=1)[places, predicted],
        loss=np.where(gold >= 0, loss, np.nan),
        rank=np.where(gold >= 0, before.sum(axis=1) + 1, len(answers) + 1),
    )


# --- the guessers: rows, their labels `(n,)` in 0 … K−1, options → what scores other rows -----------------------------


def majority(rows: datasets.Dataset, labels: np.ndarray, options: BaselineOptions) -> Guess:
    """How frequent each answer is, with one more of each (Laplace's add-one): log-probabilities."""
    scores = np.log(_add_one(labels, labels.max() + 1))
    return lambda asked: np.tile(scores, (len(asked), 1))


def majority_per_type(rows: datasets.Dataset, labels: np.ndarray, options: BaselineOptions) -> Guess:
    """How frequent each answer is to questions of this type, add-one; of a type never seen, over all types."""
    by_type, overall = _by_type(rows, labels)
    return lambda asked: np.log(np.stack([by_type.get(name, overall) for name in asked["type"][:]]))


def lookup(rows: datasets.Dataset, labels: np.ndarray, options: BaselineOptions) -> Guess:
    """How frequent each answer is to exactly this question, as `normalise` spells it, with the distribution of its
    type counted as one answer more: it decides between equals, and alone when the question is new."""
    by_type, overall = _by_type(rows, labels)
    size = len(overall)
    questions = list(map(normalise, rows["question"][:]))
    seen = {question: np.bincount(labels[places], minlength=size) for question, places in _places(questions).items()}
    none = np.zeros(size)

    def guess(asked: datasets.Dataset) -> np.ndarray:
        counts = np.stack([seen.get(question, none) for question in map(normalise, asked["question"][:])])
        prior = np.stack([by_type.get(name, overall) for name in asked["type"][:]])
        return np.log((counts + prior) / (counts.sum(axis=1, keepdims=True) + 1))

    return guess


def tfidf_svm(rows: datasets.Dataset, labels: np.ndarray, options: BaselineOptions) -> Guess:
    """A linear SVM, one answer against the rest, over TF-IDF of the words and their n-grams.

    Its scores are margins, of which only the order means anything: a margin is no probability. Raises `UserError` if
    all rows have the same answer.
    """
    if len(np.unique(labels)) < 2:
        raise UserError("--baseline tfidf_svm: all training answers are the same, and an SVM needs two; use majority")
    if not any(map(normalise, rows["question"][:])):
        raise UserError("--baseline tfidf_svm: no training question holds a word; use majority")
    assert options.c is not None and options.ngrams is not None  # `choose_svm` has chosen them
    pipeline = svm_pipeline(options.segmentation, c=options.c, ngrams=options.ngrams, seed=options.seed)
    pipeline.fit(rows["question"][:], labels)

    def guess(asked: datasets.Dataset) -> np.ndarray:
        margins = pipeline.decision_function(asked["question"][:])
        return margins if margins.ndim == 2 else np.stack([-margins, margins], axis=1)  # of two answers it scores one

    return guess


GUESSERS = {"majority": majority, "majority_per_type": majority_per_type, "lookup": lookup, "tfidf_svm": tfidf_svm}


def svm_pipeline(segmentation: str, *, c: float, ngrams: int, seed: int) -> Pipeline:
    """Raw questions → TF-IDF of their words and word n-grams up to `ngrams` → linear SVM."""
    vectorizer = TfidfVectorizer(
        preprocessor=functools.partial(_words, segmentation=segmentation),
        tokenizer=str.split,
        token_pattern=None,
        ngram_range=(1, ngrams),
    )
    return make_pipeline(vectorizer, LinearSVC(C=c, random_state=seed))


def choose_svm(
    train: datasets.Dataset, validation: datasets.Dataset, options: BaselineOptions
) -> tuple[BaselineOptions, str]:
    """The options with `c` and `ngrams` as given, or else those that are most accurate on validation (of equals the
    first, the simplest), and a note of what was tried."""
    tried = [
        dataclasses.replace(options, c=c, ngrams=ngrams)
        for ngrams in (TRIED_NGRAMS if options.ngrams is None else (options.ngrams,))
        for c in (TRIED_C if options.c is None else (options.c,))
    ]
    if len(tried) == 1:
        return tried[0], f"SVM: C {options.c:g}, word n-grams up to {options.ngrams}, as given"
    found = []
    for chosen in tried:
        guess, answers = fit_baseline(train, chosen)
        found.append(score(guess, answers, validation, probabilities=False).accuracy)
    best = tried[int(np.argmax(found))]
    shown = ", ".join(f"{one.ngrams}, {one.c:g}: {accuracy:.4f}" for one, accuracy in zip(tried, found, strict=True))
    return best, (f"SVM: word n-grams up to {best.ngrams}, C {best.c:g}, chosen by accuracy on validation ({shown})")


def _words(question: str, *, segmentation: str) -> str:
    return segment(normalise(question), segmentation=segmentation)


def _add_one(labels: np.ndarray, size: int) -> np.ndarray:
    return (np.bincount(labels, minlength=size) + 1) / (len(labels) + size)


def _by_type(rows: datasets.Dataset, labels: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Type → probabilities `(K,)` of the answers to its questions, add-one; and over all types."""
    size = labels.max() + 1
    places = _places(rows["type"][:])
    return {name: _add_one(labels[found], size) for name, found in places.items()}, _add_one(labels, size)


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    """Name → where it stands."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    return found


def _run_name(options: BaselineOptions) -> str:
    source = "shapes" if options.data is None else Path(options.data).resolve().stem
    name = options.baseline.replace("_", "-")
    words = f"-{options.segmentation}" if options.baseline == "tfidf_svm" else ""
    return f"vqa-{source}-{name}{words}-seed{options.seed}"
