"""What the tests of all encoders share: photos of noise, and an encoder by way of its configuration."""

import json

import torch

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
