"""Checkpoints that appear whole or not at all, and training state without pickles.

Belongs here: writing a directory beside and renaming it, and packing nested state (optimizer, schedule, history) into
safetensors and JSON. What a model's own files are, is the model's business.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from common.errors import UserError, reason
from common.files import read_json, read_object, to_disk

CHECKSUMS = "checksums.json"  # of each of its files, SHA-256
_TENSOR = "__tensor__"
_BEFORE = ".old"


def write_directory(path: Path, write: Callable[[Path], Any], *, keep_before: bool = False) -> None:
    """Fill a directory beside `path` by `write`, then put it in place: the old one stays until the new is whole.

    It is on the disk, checksums with it, before it gets its name, so that it outlives a loss of power. With
    `keep_before` the one before stays as `PATH.old`, should the new one be damaged later. Raises `UserError` if it
    cannot be written.
    """
    fresh, old = path.with_name(path.name + ".new"), path.with_name(path.name + _BEFORE)
    try:
        if not path.exists() and old.exists():
            old.rename(path)  # a run was killed between the two renames below: this is its last whole checkpoint
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        write(fresh)
        (fresh / CHECKSUMS).unlink(missing_ok=True)  # a copied checkpoint's
        sums = {file.relative_to(fresh).as_posix(): _sum(file) for file in _files(fresh)}
        (fresh / CHECKSUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
        for file in (*_files(fresh), fresh):
            to_disk(file)
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        fresh.rename(path)
        to_disk(path.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise UserError(f"{path}: cannot be written ({reason(error)}); earlier checkpoints are untouched") from None
    if not keep_before:
        shutil.rmtree(old, ignore_errors=True)


def whole_directory(path: Path) -> Path:
    """The checkpoint at `path`; or the one before, if a run was killed between two renames or `path` is damaged, which
    is said. Raises `UserError` if there is none that is whole."""
    damaged, old = None, path.with_name(path.name + _BEFORE)
    for place in (path, old):
        if place.is_dir():
            what = _damage(place)
            if what is None and place == path and _has_sums(old) and not _has_sums(path):
                what = f"{CHECKSUMS} is missing (if it was changed on purpose, delete {old.name}, too)"
            if what is None:
                if damaged is not None and os.environ.get("RANK", "0") == "0":
                    print(f"{damaged}; the checkpoint before it is used", file=sys.stderr, flush=True)
                return place
            damaged = damaged or f"{place} is damaged: {what}"
    if damaged is not None:
        raise UserError(f"{damaged}; take another of its run's checkpoints, or train again with --overwrite")
    raise UserError(f"{path}: no such checkpoint")


def heal(path: Path) -> Path:
    """`whole_directory`, put in the place of what is damaged there, so that the next one replaces the damaged one."""
    found = whole_directory(path)
    if found != path:
        shutil.rmtree(path, ignore_errors=True)
        found.rename(path)
    return path


def _damage(directory: Path) -> str | None:
    """What of a checkpoint is not as it was written; None if all is, or if nobody wrote down how it was."""
    if not _has_sums(directory):
        return None
    try:
        sums = read_object(directory / CHECKSUMS)
    except UserError as error:
        return reason(error)
    for name, told in sums.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
            return f"{CHECKSUMS} names {name[:100]!r}, which is no file of a checkpoint"
        try:
            if os.path.lexists(directory / name) and not (directory / name).is_file():  # a pipe would be waited for
                return f"{name} is not a file"
            if _sum(directory / name) != told:
                return f"{name} is not what was written (if it was changed on purpose, delete {CHECKSUMS})"
        except OSError as error:
            return f"{name} ({error.strerror})"
    return None


def _has_sums(directory: Path) -> bool:
    return os.path.lexists(directory / CHECKSUMS)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _sum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


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
        state = _unpack(read_json(directory / "state.json"), tensors)
        if not isinstance(state, dict):
            raise ValueError(f"a {type(state).__name__}, not an object")
        return state
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError, UserError) as error:
        raise UserError(
            f"{directory}: training state is missing or damaged ({reason(error)}); start anew with --overwrite"
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
    """Whether a run has a checkpoint to go on from."""
    last = run / "checkpoints" / "last"  # last.old: the one before it, or stopped between the two renames
    return last.is_dir() or last.with_name(last.name + _BEFORE).is_dir()


def remove_checkpoints(run: Path, *, but: str | None = None) -> None:
    """Delete a finished run's checkpoints, all `but` one if it is named."""
    for path in (run / "checkpoints").glob("*"):
        if path.name != but:
            shutil.rmtree(path, ignore_errors=True)
