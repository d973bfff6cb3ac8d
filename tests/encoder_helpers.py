"""What the tests of all encoders share: photos of noise, and an encoder by way of its configuration."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.encoders import encoder_from_config


def pixels(size: int = 64, *, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def again(encoder, **changes):
    """The same encoder by way of its configuration as JSON, the meta device, and its weights."""
    config = json.loads(json.dumps(encoder.config)) | changes
    with torch.device("meta"):
        other = encoder_from_config(config)
    assert all(tensor.is_meta for tensor in other.state_dict().values())
    assert {name for name, _ in other.named_buffers()} <= set(other.state_dict())  # none that would not be saved
    weights = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    other.load_state_dict(weights, strict=True, assign=True)
    return other


def noise_photos(folder: Path, count: int = 7) -> list[str]:
    """Photos of noise, each its own."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((48, 40)).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in range(count)]
