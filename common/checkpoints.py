"""Checkpoints that appear whole or not at all, and training state without pickles.

Belongs here: writing a directory beside and renaming it, and packing nested state (optimizer, schedule, history) into
safetensors and JSON. What a model's own files are, is the model's business.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from common.errors import UserError, reason

_TENSOR = "__tensor__"


def write_directory(path: Path, write: Callable[[Path], None]) -> None:
    """Fill a directory beside `path` by `write`, then put it in place: the old one stays until the new is whole."""
    fresh, old = path.with_name(path.name + ".new"), path.with_name(path.name + ".old")
    if not path.exists() and old.exists():
        old.rename(path)  # a run was killed between the two renames below: this is its last whole checkpoint
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        write(fresh)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise UserError(f"{path}: cannot be written ({reason(error)}); earlier checkpoints are untouched") from None
    if path.exists():
        path.rename(old)
    fresh.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def whole_directory(path: Path) -> Path:
    """The checkpoint at `path`, or, if a run was killed between the two renames, the one before."""
    if path.is_dir():
        return path
    old = path.with_name(path.name + ".old")
    if old.is_dir():
        return old
    raise UserError(f"{path}: no such checkpoint")


def save_state(directory: Path, state: dict[str, Any]) -> None:
    """Write nested dictionaries and lists of tensors and plain values as `state.safetensors` and `state.json`."""
    tensors: dict[str, torch.Tensor] = {}
    plain = _pack(state, "state", tensors)
    save_file(tensors, directory / "state.safetensors")
    (directory / "state.json").write_text(json.dumps(plain), encoding="utf-8")


def load_state(directory: Path) -> dict[str, Any]:
    """What `save_state` wrote. Raises `UserError` if it is missing or damaged."""
    try:
        tensors = load_file(directory / "state.safetensors")
        plain = json.loads((directory / "state.json").read_text(encoding="utf-8"))
        return _unpack(plain, tensors)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{directory}: training state is missing or damaged ({error}); start anew with --overwrite"
        ) from None


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, dict):  # as pairs: JSON would turn an optimizer's integer keys into text
        return {"pairs": [[key, _pack(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, f"{name}.{place}", tensors) for place, item in enumerate(value)]
    return value


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _unpack(item, tensors) for key, item in value["pairs"]}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value


def has_checkpoint(run: Path) -> bool:
    """Whether a run finished an epoch, so that it can go on."""
    last = run / "checkpoints" / "last"  # last.old: stopped between the two renames that replace it
    return last.is_dir() or last.with_name("last.old").is_dir()


def remove_checkpoints(run: Path, *, but: str | None = None) -> None:
    """Delete a finished run's checkpoints, all `but` one if it is named."""
    for path in (run / "checkpoints").glob("*"):
        if path.name != but:
            shutil.rmtree(path, ignore_errors=True)
