"""Share a trained run: `scripts/export.py RUN --to folder | onnx | hub`.

Belongs here: which checkpoint, where to, and the order of things, so that nothing half-made is left. What a task has to
say of its models is its own (`common/classifier_export.py`, `vqa/export.py`, `video/export.py`), the card is
`common/export_card.py`'s, ONNX `common/export_onnx.py`'s, the Hub `common/hub.py`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError
from transformers.utils.logging import disable_progress_bar

from common.errors import UserError, reason
from common.export_card import TRAINING, About, Left, read_left, write_card, write_training
from common.export_onnx import FILE, Checked, OnnxModel, refuse_without_onnx, write_onnx
from common.export_options import ExportOptions
from common.files import write_json
from common.folders import write_folder
from common.hub import upload
from common.pretrained import find_checkpoint

CARD = "README.md"
DESCRIPTION = "description.json"
_MARKS = (CARD, TRAINING)  # files that every export has


@dataclass(kw_only=True)
class Onnx:
    """What a task gives to be shared as ONNX."""

    model: OnnxModel
    description: dict[str, Any]
    """of inputs, outputs, preprocessing and names, for `description.json`"""
    use: str
    """lines of Python that need no PyTorch"""
    limits: Sequence[str] = ()
    """what it cannot do that the model itself can"""
    beside: Callable[[Path], None] | None = None
    """writes what is needed beside the model"""


@dataclass(kw_only=True)
class Shareable:
    """What a task makes of one of its checkpoints."""

    about: About
    save: Callable[[Path], None]
    """writes what `from_pretrained` loads"""
    onnx: Callable[[], Onnx]
    """raises `UserError` for a model that ONNX does not fit"""


def export_run(options: ExportOptions, open_shareable: Callable[[Left, Path], Shareable]) -> None:
    """`scripts/export.py`; `open_shareable` is the task's: what a run left and a checkpoint → what it makes of these.

    Raises `UserError` for a run that cannot be shared in this way; nothing is written then.
    """
    left = read_left(Path(options.run))
    if not left.metrics and options.checkpoint is None:
        raise UserError(
            f"{options.run} is not finished (no metrics.json): name one of its checkpoints with --checkpoint, or go on "
            "with it first (--resume)"
        )
    if options.output is not None:
        _refuse_output(Path(options.output), overwrite=options.overwrite)
    if options.to == "onnx":
        refuse_without_onnx()
    disable_progress_bar()
    checkpoint = find_checkpoint(options.run, options.checkpoint, task=left.task)
    shared = open_shareable(left, checkpoint)
    if options.to == "hub":
        assert options.name is not None  # or its options had been refused
        with TemporaryDirectory() as folder:
            _fill(Path(folder), left, shared, options, folder_name=options.name)
            address = upload(folder, options.name, private=options.private or None)
        print(f"{checkpoint} with its card is at {address}")
        return
    assert options.output is not None  # or its options had been refused
    output, found = Path(options.output), []

    def fill(folder: Path) -> None:
        if options.to == "onnx":
            found.append(_fill_onnx(folder, left, shared, options))
        else:
            _fill(folder, left, shared, options, folder_name=output.resolve().name)

    write_folder(output, fill, last=CARD, replace=options.overwrite)
    print(f"{checkpoint} with its card ({output / CARD}) is in {output}")
    for checked in found:
        _say(checked)


def _refuse_output(output: Path, *, overwrite: bool) -> None:
    """Refuse a folder that exists, and with --overwrite one that no export wrote."""
    if not output.exists():
        return
    if not overwrite:
        raise UserError(f"--output {output} exists; choose another, or add --overwrite (replace it)")
    if not output.is_dir() or not all((output / name).is_file() for name in _MARKS):
        raise UserError(
            f"--output {output} exists and is no export ({' and '.join(_MARKS)} are not in it): --overwrite will not "
            "delete it"
        )


def _fill(folder: Path, left: Left, shared: Shareable, options: ExportOptions, *, folder_name: str) -> None:
    try:
        shared.save(folder)
        for path in folder.rglob("*.safetensors"):  # which the library writes for their owner alone
            path.chmod(0o644)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be written ({reason(error)}); make room, or choose another place") from None
    write_training(left, folder / TRAINING)
    write_card(folder / CARD, left, shared.about, options, folder=folder_name)


def _fill_onnx(folder: Path, left: Left, shared: Shareable, options: ExportOptions) -> Checked:
    onnx = shared.onnx()
    checked = write_onnx(onnx.model, folder)
    if onnx.beside is not None:
        onnx.beside(folder)
    about = {"task": shared.about.task, "model": FILE} | onnx.description
    about["checked"] = {
        "largest_difference": checked.difference,
        "by_output": checked.by_output,
        "on": checked.samples,
        "inputs": checked.shapes,
        "versions": checked.versions,
    }
    write_json(folder / DESCRIPTION, about)
    write_training(left, folder / TRAINING)
    about_onnx = replace(shared.about, use=onnx.use, limits=[*shared.about.limits, *onnx.limits])
    write_card(folder / CARD, left, about_onnx, options, folder=".", onnx=checked)
    return checked


def _say(checked: Checked) -> None:
    versions = checked.versions
    print(f"onnxruntime {versions['onnxruntime']} against PyTorch {versions['torch']}, {checked.samples}:")
    for name, difference in checked.by_output.items():
        print(f"  largest difference of {name}: {difference:.1e}")
