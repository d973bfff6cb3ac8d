"""Files of weights: found or fetched, read without running what is in them, and fitted into an encoder.

Belongs here: torchvision's published files in torch's cache, a person's own file, and copying a state dict into a
network that is already built. Does not belong here: building the network (`common/encoders.py`), the weights of
`transformers` models, which bring their own (`common/transformers_encoders.py`), and a run's checkpoints
(`common/checkpoints.py`).
"""

import pickle
import urllib.parse
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from common import zoo
from common.errors import UserError, reason
from common.images import content_hash

if TYPE_CHECKING:
    from common.encoders import Encoder

PICKLES = (".bin", ".pth", ".pt", ".pkl", ".pickle", ".ckpt", ".joblib", ".tar")
"""Endings of files that are pickles, or may be: of these only `.pth` and `.pt` are looked at, for tensors alone."""


def how_to_convert(target: str = "NEW.safetensors") -> str:
    """What is said of a pickle, behind its name."""
    return (
        "is a pickle, which could run code when loaded, and is not opened; if you trust who made it, convert it once: "
        f"safetensors.torch.save_file(torch.load(FILE, weights_only=True), '{target}')"
    )


def imagenet_file(name: str) -> Path:
    """torchvision's weights for `name`, in torch's cache: downloaded unless they lie there, their hash checked always.

    torch checks the hash of what it downloads, but not of what it finds.
    """
    entry = zoo.describe(name)
    if entry.weights is None:
        raise UserError(f"weights imagenet: there are none for {name}; give none or a file")
    url = torchvision.models.get_weight(entry.weights).url
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urllib.parse.urlparse(url).path).name)
    wanted = path.stem.rpartition("-")[2]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=wanted, progress=True)
        except (OSError, RuntimeError) as error:  # no network, no space, another file than it should be
            raise UserError(
                f"weights imagenet for {name}: cannot download {url} ({reason(error)}); "
                f"without a network, put that file at {path}"
            ) from None
    elif not content_hash(path).startswith(wanted):
        raise UserError(f"weights imagenet for {name}: {path} is damaged (its SHA-256 is not {wanted}...); delete it")
    return path


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from safetensors, or from torch's format as far as that needs no pickled code."""
    if not path.is_file():
        raise UserError(f"weights {path}: no such file; give imagenet, none or a file of weights")
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", ".pth", ".pt"):
        if suffix in PICKLES:
            raise UserError(f"weights {path}: {how_to_convert()}")
        raise UserError(f"weights {path}: give a file that ends in .safetensors, .pth or .pt")
    try:
        if suffix == ".safetensors":
            return load_file(path)
        _refuse_packed(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"weights {path}: is damaged, or holds more than tensors and could run code when loaded; if you trust it, "
            "save its state dict alone: torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW_FILE)"
        ) from None
    except UserError:
        raise
    except Exception as error:  # a stranger's bytes
        raise UserError(f"weights {path}: cannot be read ({reason(error)})") from None
    for key in ("state_dict", "model"):  # training scripts wrap it
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise UserError(f"weights {path}: holds a {type(state).__name__}, not a state dict")
    return {key: value for key, value in state.items() if isinstance(key, str)}


def _refuse_packed(path: Path) -> None:
    """Refuse a `.pth` that unpacks to more than it holds: torch never packs, nor stores two records in one place."""
    if not zipfile.is_zipfile(path):
        return  # torch's older format
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
    if packed or sum(record.file_size for record in records) > path.stat().st_size:
        raise UserError(f"weights {path}: holds packed records, which torch does not write; save it again")


def load_weights(encoder: "Encoder", state: dict[str, torch.Tensor], *, source: str) -> None:
    """Copy into an `Encoder` what it needs of `state`, a state dict in the whole network's naming, and ignore the rest.

    A common prefix is allowed ("module.", "encoder.backbone."), so that the encoder of a trained model may be taken
    from it. Raises `UserError`, naming `source` and the first key that is missing, has another shape, or is one too
    many in a part that we keep.
    """
    network = getattr(encoder.backbone, "model", encoder.backbone)
    needed = network.state_dict()
    found, prefix = _fitting(needed, state, what=f"encoder {encoder.name}", source=source)
    # ResNet34's file has all that ResNet18 asks for, in the same shapes, and more between: layers would be misplaced
    for key in sorted(state):
        inside = key.removeprefix(prefix)
        if inside not in needed and inside.startswith(tuple(f"{part}." for part in encoder.backbone.parts)):
            raise UserError(
                f"weights {source} do not fit encoder {encoder.name}, which has no '{key}'; "
                "name the encoder they were trained with"
            )
    network.load_state_dict(found, strict=False)


def load_head(head: nn.Module, state: dict[str, torch.Tensor], *, source: str) -> None:
    """Copy into a `common.heads.OriginalHead` what it needs of `state`, as `load_weights` does for the encoder.

    Raises `UserError` for a file without those layers: of an encoder alone, or of a network for other classes.
    """
    found, _ = _fitting(head.state_dict(), state, what=f"the ImageNet classifier of {head.name}", source=source)
    head.load_state_dict(found)


def _fitting(
    needed: dict[str, torch.Tensor], state: dict[str, torch.Tensor], *, what: str, source: str
) -> tuple[dict[str, torch.Tensor], str]:
    """→ the tensors of `state` that are `needed`, under the names of `needed`, and the prefix that they have there."""
    first = next(iter(needed))
    prefix = min((key[: -len(first)] for key in state if f".{key}".endswith(f".{first}")), key=len, default="")
    found: dict[str, Any] = {key: state.get(prefix + key) for key in needed}
    # older files of weights come from before batch norm counted its batches, and nothing reads the count
    found = {key: value for key, value in found.items() if value is not None or not key.endswith("num_batches_tracked")}
    for key, value in found.items():
        want = tuple(needed[key].shape)
        plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
        if not plain or value.is_complex() or value.is_quantized or tuple(value.shape) != want:
            have = f"has shape {tuple(value.shape)}, not {want}" if isinstance(value, torch.Tensor) else "is missing"
            have = have if value is None or tuple(getattr(value, "shape", want)) != want else "is no plain tensor"
            raise UserError(
                f"weights {source} do not fit {what}: first missing or mismatching key '{prefix}{key}' "
                f"{have}; name the encoder they were trained with"
            )
    return found, prefix
