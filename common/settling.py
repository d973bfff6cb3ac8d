"""Statistics for the BatchNorm of random encoders that stay frozen, computed once and kept.

Belongs here: making, keeping and giving them. Which runs need them is `common/training_runs.py`'s; features are
`common/features.py`'s.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import update_bn

from common.encoders import BatchNorm, Encoder, fingerprint
from common.errors import UserError, reason
from common.features import ViewSource
from common.files import beside, remove
from common.images import normalise

_FILES = 32  # whose squares the statistics are of


def settle(encoder: Encoder, files: Sequence[tuple[str, str]], source: ViewSource, cache: Path) -> None:
    """Give a random encoder whose BatchNorm stays in eval mode the statistics of some images of `files` (path, hash).

    Random weights come with none (mean 0, variance 1), and nothing then keeps the sums along a residual net small: of
    ResNet152 all images get nearly the same features, too large for half precision. The images: two squares each of up
    to 32 files, evenly spread; so other training data give slightly other statistics. They are kept in `cache`, for
    another number of threads would add in another order: the features kept with them would be computed anew.
    Does nothing to a net whose BatchNorm estimates its statistics in training.
    """
    training = encoder.training
    encoder.train()
    norms = [module for module in encoder.modules() if isinstance(module, BatchNorm)]
    all_trained = all(module.training for module in norms)
    encoder.train(training)
    if not norms or all_trained:
        return
    count = min(_FILES, len(files))
    chosen = [files[(2 * place + 1) * len(files) // (2 * count)] for place in range(count)]
    about = [fingerprint(encoder, whole=True), source.about, [digest for _, digest in chosen]]
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    kept = cache / "settled" / f"{key}.safetensors"
    if not _given(encoder, kept):
        _estimate(encoder, chosen, source)
        _keep(encoder, kept)
        _given(encoder, kept)  # another process may have been faster, with another number of threads


def _estimate(encoder: Encoder, files: Sequence[tuple[str, str]], source: ViewSource) -> None:
    training = encoder.training
    squares = []
    for path, digest in files:
        pixels, _, _ = source.load(path, digest, 0)
        squares.append(pixels[[len(pixels) // 4, 3 * len(pixels) // 4]] if len(pixels) > 1 else pixels)
    images = normalise(torch.cat(squares), source.preprocessing)
    images = images.repeat(2, 1, 1, 1) if len(images) == 1 else images
    update_bn(images.chunk(math.ceil(len(images) / 16)), encoder.backbone)  # no batch of one
    encoder.train(training)


def _given(encoder: Encoder, kept: Path) -> bool:
    """Whether the encoder got the statistics that are kept; a torn file is as good as none."""
    buffers = dict(encoder.backbone.named_buffers())
    try:
        tensors = load_file(kept) if kept.is_file() else {}
    except (OSError, RuntimeError, SafetensorError):
        return False
    if {name: tensor.shape for name, tensor in tensors.items()} != {n: b.shape for n, b in buffers.items()}:
        return False
    for name, tensor in tensors.items():
        buffers[name].copy_(tensor)
    return True


def _keep(encoder: Encoder, kept: Path) -> None:
    fresh = beside(kept)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: buffer.contiguous() for name, buffer in encoder.backbone.named_buffers()}, fresh)
        fresh.replace(kept)
    except (OSError, SafetensorError) as error:
        remove(fresh)
        raise UserError(f"{kept}: cannot be written ({reason(error)}); free space or give another --cache") from None
