"""A model as ONNX, and whether onnxruntime makes of it what PyTorch does.

Belongs here: the export itself and its check on inputs that are given. Which inputs and outputs a model has, and what
lies beside `model.onnx`, is the tasks' (`classifier_export.py`, `vqa/export.py`, `video/export.py`). Needs the extra
`onnx`: onnx, onnxruntime, onnxscript.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common.errors import UserError, reason
from common.export_recurrent import translations, with_onnx_recurrent

TOLERANCE = 1e-4
"""Largest difference of any output that is allowed."""
FILE = "model.onnx"
_NEEDED = ("onnx", "onnxruntime", "onnxscript")

Inputs = dict[str, Any]
"""Tensors by the names of a model's inputs; of a sample, more may be in it."""


@dataclass(kw_only=True)
class OnnxModel:
    """A model that takes and gives plain tensors, by name and in order, and inputs to check it on."""

    module: nn.Module
    """in eval mode, on the CPU; its `forward` takes `inputs` by name and gives a tuple of `outputs`"""
    inputs: dict[str, dict[int, str]]
    """of each, its axes that may have any length, and what these are called"""
    outputs: Sequence[str]
    reference: Callable[[Inputs], Sequence[torch.Tensor]]
    """what `outputs` should be for a sample: what a person gets from the model as it is used without ONNX"""
    samples: Sequence[Inputs]
    """several batches, of several sizes; the last is the largest; what is in them beside `inputs` is `reference`'s"""
    about_samples: str
    """what they are, for a person"""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the check found."""

    difference: float
    """the largest between any number of onnxruntime's and PyTorch's"""
    by_output: dict[str, float]
    shapes: list[str]
    """of each batch, the shapes of its inputs"""
    samples: str
    versions: dict[str, str]


def refuse_without_onnx() -> None:
    """Raises `UserError` where the extra is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f'--to onnx needs {", ".join(missing)}: pip install -e ".[onnx]"')


def write_onnx(model: OnnxModel, directory: Path) -> Checked:
    """Write `model.onnx` into `directory` and check it. Raises `UserError` for a model that cannot be exported, and
    where onnxruntime differs from PyTorch by more than `TOLERANCE`: the file is gone then."""
    refuse_without_onnx()
    path = directory / FILE
    try:
        _export(model, path)
        return check(model, path)
    except UserError:
        raise
    except Exception as error:  # of the exporter's many parts, and of onnxruntime's, each has its own kinds
        path.unlink(missing_ok=True)
        raise UserError(f"this model cannot be exported to ONNX ({reason(error)}); share it with --to folder") from None


def _export(model: OnnxModel, path: Path) -> None:
    module = with_onnx_recurrent(copy.deepcopy(model.module)).eval().requires_grad_(False)
    # Lengths that are 1 in the sample, or equal by chance, would be taken for fixed.
    sample = model.samples[-1]
    free = {name: {axis: torch.export.Dim.DYNAMIC for axis in axes} for name, axes in model.inputs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        program: Any = torch.onnx.export(
            module,
            kwargs={name: sample[name] for name in model.inputs},
            dynamo=True,
            dynamic_shapes=free,
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            custom_translation_table=translations(),
            verbose=False,
        )
        for value in program.model.graph.inputs:  # the names of axes are the exporter's, s72: ours say what they are
            axes = model.inputs[value.name]
            value.shape = type(value.shape)([axes.get(axis, size) for axis, size in enumerate(value.shape)])
        program.save(path, external_data=False)


@torch.inference_mode()
def check(model: OnnxModel, path: Path) -> Checked:
    """Compare onnxruntime's outputs with PyTorch's, on every sample. Raises `UserError` and deletes the file if they
    differ by more than `TOLERANCE`, or are no numbers."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = dict.fromkeys(model.outputs, 0.0)
    for sample in model.samples:
        given = {name: sample[name] for name in model.inputs}
        ours = model.reference(sample)
        theirs = session.run(list(model.outputs), {name: tensor.numpy() for name, tensor in given.items()})
        for name, one, other in zip(model.outputs, ours, theirs, strict=True):
            difference = float(np.abs(one.numpy() - other).max()) if one.shape == other.shape else float("inf")
            if not difference <= TOLERANCE:  # not a number, too
                path.unlink()
                raise UserError(
                    f"{path.name}: onnxruntime's {name} differ from PyTorch's by {difference:.2g}, more than "
                    f"{TOLERANCE:g}, so nothing is written; share the run with --to folder"
                )
            found[name] = max(found[name], difference)
    return Checked(
        difference=max(found.values()),
        by_output=found,
        shapes=[
            ", ".join(f"{name} {' × '.join(map(str, sample[name].shape))}" for name in model.inputs)
            for sample in model.samples
        ],
        samples=model.about_samples,
        versions={"torch": torch.__version__.partition("+")[0], "onnxruntime": onnxruntime.__version__},
    )
