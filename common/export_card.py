"""The model card of a shared run: what a stranger should know before using it, in the Hub's format.

Belongs here: from what a run left behind (options, environment, figures, notes on its splits) and what its task says
of the model to the text of `README.md`. The words themselves are in `templates/model_card.md.j2`.
"""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from common.config import flag
from common.errors import UserError, reason
from common.export_onnx import TOLERANCE, Checked
from common.export_options import ExportOptions
from common.files import read_object
from common.hub import HUB_NAME
from common.predictions import read_scored
from common.report_text import markdown_text, without_folders
from common.runs import read_run
from common.statistics import wilson
from common.study_values import run_notes
from common.tables import markdown
from common.yaml_files import dump_yaml

NOT_STATED = "not stated"
TRAINING = "training.yaml"
_TEMPLATE = Path(__file__).with_name("templates") / "model_card.md.j2"
_SPLITS = ("test", "validation")


@dataclass(kw_only=True)
class About:
    """What a task says of a model that is to be shared."""

    task: str
    """the Hub's name of it: visual-question-answering, video-classification, image-classification"""
    what: str
    """a few sentences: what goes in, how it is worked on, what comes out"""
    made_up: str
    """what the embedded data set is called, of a run without --data"""
    use: str
    """lines of Python, in which FOLDER stands for the folder or the repository"""
    tags: Sequence[str] = ()
    language: str | None = None
    limits: Sequence[str] = ()
    """sentences about what it cannot do"""


@dataclass(kw_only=True)
class Left:
    """What a run left behind."""

    path: Path
    task: str
    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    notes: list[str]

    @property
    def paths(self) -> list[str]:
        """The absolute paths in its options."""
        return [value for value in self.config.values() if isinstance(value, str) and os.path.isabs(value)]


def read_left(run: Path) -> Left:
    """What there is to say of a run, finished or not. Raises `UserError` for what is no run, or is damaged."""
    task, config = read_run(run)
    metrics = read_object(run / "metrics.json") if (run / "metrics.json").is_file() else {}
    for split, figures in metrics.items():
        if not isinstance(figures, dict) or not {"accuracy", "n"} <= figures.keys():
            raise UserError(f"{run / 'metrics.json'}: is damaged (no accuracy and n of {split}); score the run again")
    environment = read_object(run / "environment.json")
    return Left(path=run, task=task, config=config, environment=environment, metrics=metrics, notes=run_notes(run))


def write_training(left: Left, path: Path) -> None:
    """The run's options as `--config` takes them again, paths as names alone, and without what is one machine's."""
    kept = {name: Path(value).name if _is_path(value) else value for name, value in _kept(left).items()}
    text = dump_yaml(kept)
    path.write_text("# Options of the training run; paths are names alone.\n" + text, encoding="utf-8")


def write_card(
    path: Path, left: Left, about: About, options: ExportOptions, *, folder: str, onnx: Checked | None = None
) -> None:
    """Write `README.md`. `folder` is where the model will be, for the lines of code; `onnx` what its check found."""
    try:
        text = _card(left, about, options, folder, onnx)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{left.path}: what it left behind is damaged ({reason(error)}); train it again") from None
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def _card(left: Left, about: About, options: ExportOptions, folder: str, onnx: Checked | None) -> str:
    name = left.path.resolve().name
    data = dataset_name(left, about, options)
    on_hub = HUB_NAME.fullmatch(options.dataset or str(left.config.get("data") or "")) is not None
    results = None
    if "test" in left.metrics:
        results = [
            EvalResult(
                task_type=about.task,
                dataset_type=data if on_hub else "custom",
                dataset_name=data,
                dataset_split="test",
                metric_type=metric,
                metric_name=shown,
                metric_value=round(left.metrics["test"][metric], 6),
            )
            for metric, shown in (("accuracy", "test accuracy"), ("macro_f1", "test macro-F1"))
            if isinstance(left.metrics["test"].get(metric), float)
        ]
    about_card = ModelCardData(
        language=about.language,
        license=options.license,
        library_name="hoianh" if onnx is None else "onnxruntime",
        pipeline_tag=about.task,
        tags=["hoianh", *about.tags, *(["onnx"] if onnx is not None else [])],
        datasets=[data] if on_hub else None,
        metrics=sorted({result.metric_type for result in results}) if results else None,
        model_name=name if results else None,
        eval_results=results,
    )
    clean = [without_folders(note, known=left.paths) for note in left.notes]
    card = ModelCard.from_template(
        about_card,
        template_path=str(_TEMPLATE),
        title=name,
        what=about.what,
        use=about.use.replace("FOLDER", folder),
        onnx=onnx,
        tolerance=f"{TOLERANCE:g}",
        data=markdown_text(data),
        data_license=markdown_text(options.data_license or NOT_STATED),
        license=markdown_text(options.license or NOT_STATED),
        splits=[
            markdown_text(note) for note in clean if note.startswith(("train:", "validation:", "test:", "groups:"))
        ],
        leaks=[markdown_text(note) for note in clean if "LEAK" in note],
        command=without_folders(str(left.environment.get("command")), known=left.paths),
        overwritten=_command_again(left),
        environment=_environment(left.environment),
        tables=[(split, _table(left.metrics[split])) for split in _SPLITS if split in left.metrics],
        frequent=_most_frequent(left),
        notes=[markdown_text(note) for note in clean if note.startswith(("scored:", "encoder:", "answers:", "head:"))],
        limits=[*map(markdown_text, [*_limits(left), *about.limits])],
    )
    return str(card)


def dataset_name(left: Left, about: About, options: ExportOptions) -> str:
    """What the training data are called: as told, or the name of the folder, file or stored features."""
    source = options.dataset or left.config.get("data") or left.config.get("features")
    if source is None:
        return about.made_up
    return source if options.dataset or HUB_NAME.fullmatch(source) else Path(source).name


def _command_again(left: Left) -> str:
    """The command that trains it again from `training.yaml`."""
    script = next((part for part in shlex.split(str(left.environment.get("command"))) if part.endswith(".py")), None)
    files = [name for name in _kept(left) if _is_path(left.config[name])]
    where = "".join(f" {flag(name)} {name.upper()}" for name in files)
    return f"accelerate launch scripts/{Path(script or 'train.py').name} --config {TRAINING}{where} --output runs/again"


def _environment(environment: dict[str, Any]) -> str:
    packages = environment.get("packages", {})
    said = [f"Python {environment['python']}"] if "python" in environment else []
    said += [f"{name} {packages[name]}" for name in ("torch", "torchvision", "transformers") if packages.get(name)]
    said += [f"on {environment[name]}" for name in ("device",) if environment.get(name)]
    said += [f"commit {environment['commit']}"] if environment.get("commit") else []
    return markdown_text(", ".join(said))


def _table(figures: dict[str, Any]) -> str:
    """Accuracy with n and Wilson's 95 % interval, by type or class, then of all."""
    parts: dict[str, Any] = next((figures[key] for key in ("by_type", "by_class") if figures.get(key)), {})
    kind = "class" if figures.get("by_class") else "type"
    rows = [_row(kind, name, values) for name, values in sorted(parts.items()) if name]
    return markdown([*(rows if len(rows) > 1 else []), _row(kind, "all", figures)])


def _row(kind: str, name: str, figures: dict[str, Any]) -> dict[str, Any]:
    accuracy, n = float(figures["accuracy"]), int(figures["n"])
    low, high = wilson(accuracy, n) if n else (0.0, 1.0)
    return {kind: name, "accuracy": accuracy, "95 % interval (Wilson)": f"{low:.4f} – {high:.4f}", "n": f"{n:,}"}


def _most_frequent(left: Left) -> str | None:
    """What always giving the most frequent answer of test would score: an accuracy says little without it."""
    try:
        gold = read_scored(left.path, "test").columns["gold"]
    except UserError:
        return None
    ((name, count),) = Counter(gold).most_common(1)
    return f"{markdown_text(name)} as the answer to all would have {count / len(gold):.4f}"


def _limits(left: Left) -> list[str]:
    said = []
    if not left.metrics:
        said.append("The run was not finished when this was shared: nothing is known of how well it does.")
    elif "test" not in left.metrics:
        said.append("No test figures: test was not opened. Validation chose the checkpoint, so its figures flatter.")
    if left.metrics:
        seed = f" (seed {left.config['seed']})" if "seed" in left.config else ""
        said.append(f"One trained network{seed}: training it again with another seed gives other figures.")
        said += _grouped(left)
    if any("LEAK" in note for note in left.notes):
        said.append("The splits overlap (see Data): the figures are too good.")
    if left.config.get("data") is None and left.config.get("features") is None:
        said.append("Trained on generated pictures: it knows nothing of photographs.")
    elif left.metrics:
        said.append("It was scored on data of the kind it was trained on; of other sources nothing was measured.")
    error = left.metrics.get("test", {}).get("calibration_error")
    if isinstance(error, float):
        said.append(f"Its scores are no probabilities to rely on: expected calibration error {error:.3f} on test.")
    weights = left.config.get("weights")
    if isinstance(weights, str) and weights != "none" and left.config.get("inputs") != "question":
        source = "torchvision's ImageNet weights" if weights == "imagenet" else Path(weights).name
        said.append(f"Its encoder started from {source}; the terms of these weights and of their data hold, too.")
    return said


def _grouped(left: Left) -> list[str]:
    """How many groups the test samples are of: a thousand questions about ten photos are no thousand samples."""
    try:
        scored = read_scored(left.path, "test" if "test" in left.metrics else "validation")
    except UserError:
        return []
    groups, n = len(set(scored.groups)), len(scored.groups)
    if groups == n:
        return []
    return [
        f"The intervals take the {n:,} samples for independent, but they are of {groups:,} groups "
        "(photos or sources): the truth is less certain than they say."
    ]


def _kept(left: Left) -> dict[str, Any]:
    return {name: value for name, value in left.config.items() if name not in ("output", "cache", "tracker")}


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and os.path.isabs(value)
