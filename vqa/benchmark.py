"""The benchmark's parts about photos and questions: extraction, the cache, the training step, memory, two processes.

Belongs here: photos found or made, and the model that is trained. The clock is `common/benchmark.py`'s.
"""

import functools
import itertools
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.benchmark import Bench, Figure, Measured, Part, Side, child, side_by_side, spread
from common.benchmark_encoding import epoch_of_features, extraction, features_of, make_encoder
from common.benchmark_training import epochs_of_training, step
from common.encoders import Encoder
from common.features import PhotoViews
from common.images import content_hash
from common.photos import check_photos, walk_files
from vqa.answers import AnswerVocabulary
from vqa.batches import QuestionBatches
from vqa.data import load_rows
from vqa.model import VqaConfig, VqaModel
from vqa.processor import VqaProcessor
from vqa.shapes import write_shapes
from vqa.text import QuestionProcessor

_PHOTOS = (".jpg", ".jpeg", ".png", ".webp")
_BATCH = 16
_SCENES = 128  # made ones, at most, with some seven questions each: what training is measured on


def photo_extraction(bench: Bench) -> Measured:
    """Part b for photos, and what checking them costs that nobody has checked."""
    encoder, source = _photo_source(bench)
    files = _photo_files(bench)
    measured = extraction(bench, encoder, source, files, kind="photos", plain=True)
    paths = [path for path, _ in files]
    caches = (bench.folder / f"checked-{number}" for number in itertools.count())
    sides = {"photos: checking (hash, decoding)": lambda: check_photos(paths, next(caches), stop=True)}
    measured.sides += side_by_side(sides, bench.options.repeats, units=len(paths), unit="photo").values()
    return measured


def cached_epochs(bench: Bench) -> Measured:
    """Part c: features from the cache and encoded again, then whole epochs of training on either."""
    encoder, source = _photo_source(bench)
    measured = epoch_of_features(bench, encoder, source, _photo_files(bench), kind="photos")
    make_model, kept = _questions(bench, encoder, source, cached=True)
    _, again = _questions(bench, encoder, source, cached=False)
    measured.add(epochs_of_training(bench, make_model, kept, again, kind="questions", unit="question"))
    return measured


def training_step(bench: Bench) -> Measured:
    """Part d."""
    encoder, source = _photo_source(bench)
    make_model, batches = _questions(bench, encoder, source, cached=True)
    return step(bench, make_model, batches, batch_size=_BATCH)


def memory(bench: Bench) -> Measured:
    """Part e: extraction and an epoch of training in a process of its own, on some scenes and on 10 times as many."""
    few = max(1, bench.options.photos // 8)
    counts = (few, 10 * few)
    found = {count: _train(bench, scenes=count, epochs=1)[0] for count in counts}
    small, large = found.values()
    measured = Measured(
        sides=[
            Side(name=f"{count} photos, on the CPU: extraction and an epoch", seconds=[told["seconds"]])
            for count, told in found.items()
        ]
    )
    figures = {
        "own": ("most memory of its own at 10 × the photos, on the CPU", 1.10),
        "worker": ("most memory of a loading process at 10 × the photos", 1.10),
        "peak": ("the same with the pages of the cache that are mapped, which the system takes back", None),
    }
    if small["own"] and not (small["worker"] or large["worker"]):  # none was seen where the system would have told
        del figures["worker"]
    unknown = [what for name, (what, _) in figures.items() if not (small[name] and large[name])]
    for name, (what, aim) in figures.items():
        if what not in unknown:
            measured.figures.append(Figure(what=what, value=large[name] / small[name], aim=aim))
    if unknown:
        measured.notes.append(f"this system does not tell: {'; '.join(unknown)}")
    for count, told in found.items():
        mib = {name: f"{round(told[name] / 2**20)} MiB" if told[name] else "not known" for name in figures}
        worker = f"a loading process {mib['worker']}" if "worker" in figures else "no loading process"
        measured.notes.append(f"{count} photos: {mib['own']} of its own, {mib['peak']} in all, {worker}")
    return measured


def two_processes(bench: Bench) -> Measured:
    """Part f: the same training in one process and in two: the same losses, dropout 0 and even batches."""
    one, two = (_Training(bench, processes) for processes in (1, 2))
    figures = [_losses_apart("losses of 2 processes on the CPU, from those of one, relative", one, two)]
    what = "an epoch of one process on the CPU, of two"
    figures.append(Figure(what=what, value=statistics.median(one.seconds) / statistics.median(two.seconds)))
    sides = [
        Side(name=f"an epoch on the CPU, {training.processes} process(es)", seconds=training.seconds)
        for training in (one, two)
    ]
    sides += [
        Side(name=f"starting {training.processes} process(es): Python and its imports", seconds=[training.start])
        for training in (one, two)
    ]
    pairs = ", ".join(f"{a:.6f} {b:.6f}" for a, b in zip(one.losses, two.losses, strict=True))
    return Measured(sides=sides, figures=figures, notes=[f"losses of one process and of two: {pairs}"])


def shared_out(bench: Bench) -> Measured:
    """Part f: a trained encoder, held whole by one process and by each of two, and shared out by two (--fsdp).

    BatchNorm keeps its statistics, for two processes see half a batch each, and the steps are small: large ones make
    much of how sums are rounded.
    """
    trained: dict[str, Any] = {"encoder": "resnet18", "weights": "none", "train_encoder": "all", "batch_norm": "eval"}
    trained |= {"image_size": 64, "learning_rate": 1e-4, "scenes": 64}
    ways = {"1 process": (1, False), "2 processes": (2, False), "2 processes, --fsdp": (2, True)}
    found = {way: _Training(bench, processes, fsdp=fsdp, **trained) for way, (processes, fsdp) in ways.items()}
    alone, whole, shared = found.values()
    what = "a trained ResNet18: losses of 2 processes that share it out, from those of one, relative"
    seconds = statistics.median(shared.seconds) / statistics.median(whole.seconds)
    figures = [
        _losses_apart(what, alone, shared),
        Figure(what="a trained ResNet18: an epoch of 2 processes that share it out, of 2 that do not", value=seconds),
    ]
    sides = [
        Side(name=f"a trained ResNet18: an epoch on the CPU, {way}", seconds=training.seconds)
        for way, training in found.items()
    ]
    return Measured(sides=sides, figures=figures)


class _Training:
    """A training in so many processes: its losses, the seconds of its epochs and those of its start."""

    def __init__(
        self, bench: Bench, processes: int, *, scenes: int = 128, fsdp: bool = False, **changes: object
    ) -> None:
        told, run = _train(bench, scenes=scenes, epochs=3, processes=processes, fsdp=fsdp, **changes)
        lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
        history = [json.loads(line) for line in lines]
        self.processes, self.start = processes, told["all_seconds"] - told["seconds"]
        self.losses = [row[name] for row in history for name in ("train_loss", "validation_loss")]
        self.seconds = [row["seconds"] for row in history]


def _losses_apart(what: str, one: _Training, other: _Training) -> Figure:
    apart = max(abs(a - b) / abs(a) for a, b in zip(one.losses, other.losses, strict=True))
    return Figure(what=what, value=apart, aim=1e-4, unit="")


def _train(
    bench: Bench, *, scenes: int, epochs: int, processes: int = 1, fsdp: bool = False, **changes: object
) -> tuple[dict[str, Any], Path]:
    """What `vqa.benchmark_child` told of a training on so many scenes, and its run directory; `changes` of options."""
    data = bench.folder / f"scenes-{scenes}"
    if not data.exists():
        write_shapes(data, train=scenes, validation=32, test=8)
    run = bench.folder / f"run-{scenes}-{processes}{'-fsdp' * fsdp}{'-changed' * bool(changes)}"
    options = bench.options
    arguments = ["vqa.benchmark_child", "--data", data, "--output", run, "--cache", bench.folder / f"cache-{run.name}"]
    arguments += ["--encoder", options.encoder, "--weights", options.weights, "--train-encoder", "none"]
    arguments += ["--image-size", options.image_size, "--epochs", epochs, "--batch-size", _BATCH, "--no-test"]
    arguments += [part for name in ("question", "cell", "attention") for part in (f"--{name}-dropout", 0)]
    arguments += ["--dropout", 0, "--segmentation", "syllable", "--workers", 1, *["--fsdp"] * fsdp]
    arguments += [part for name, value in changes.items() for part in (f"--{name.replace('_', '-')}", value)]
    threads = max(1, bench.cores // processes)
    started = time.perf_counter()
    output = child([str(argument) for argument in arguments], processes=processes, threads=threads)
    took = time.perf_counter() - started
    told = next(line for line in output.splitlines() if line.startswith("benchmark "))
    return json.loads(told.removeprefix("benchmark ")) | {"all_seconds": took}, run


def _photo_source(bench: Bench) -> tuple[Encoder, PhotoViews]:
    encoder = make_encoder(bench)
    return encoder, PhotoViews(preprocessing=replace(encoder.preprocessing, size=bench.options.image_size))


def _photo_files(bench: Bench) -> list[tuple[str, str]]:
    """Photos of --data, evenly spread; of the made shapes, where it has none: paths and hashes."""
    found = [p for folder in bench.options.data for p in walk_files(folder) if p.lower().endswith(_PHOTOS)]
    if not found:
        found = [p for p in walk_files(_shapes(bench)) if p.lower().endswith(_PHOTOS)]
    return [(path, content_hash(path)) for path in spread(found, bench.options.photos)]


def _shapes(bench: Bench) -> Path:
    folder = bench.folder / "shapes"
    if not folder.exists():
        write_shapes(folder, train=min(_SCENES, bench.options.photos), validation=1, test=1, size=224)
    return folder


def _questions(bench: Bench, encoder: Encoder, source: PhotoViews, *, cached: bool):
    """A maker of models and the questions about the made shapes, from the cache or from the photos."""
    rows, _ = load_rows(str(_shapes(bench) / "train.csv"), cache_directory=bench.folder / "cache")
    questions = QuestionProcessor.build(rows["question"][:], segmentation="syllable")
    processor = VqaProcessor(questions, AnswerVocabulary.build(rows["answer"][:]), source.preprocessing)
    photos = dict(zip(rows["image_hash"][:], rows["image"][:], strict=True))
    files = [(path, digest) for digest, path in photos.items()]
    store = features_of(bench, encoder, source, files) if cached else None
    config = VqaConfig(
        encoder=encoder.config,
        preprocessing=vars(source.preprocessing),
        words=questions.vocab_size,
        answers=len(processor.answers),
    )
    return functools.partial(_model, config, encoder), QuestionBatches(rows, processor, store=store)


def _model(config: VqaConfig, encoder: Encoder) -> VqaModel:
    torch.manual_seed(0)
    model = VqaModel(config)
    model.encoder = encoder
    return model


PARTS: dict[str, list[Part]] = {
    "b": [photo_extraction],
    "c": [cached_epochs],
    "d": [training_step],
    "e": [memory],
    "f": [two_processes, shared_out],
}
