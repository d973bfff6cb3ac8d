"""What the networks of the zoo have behind their grid: the layers that make of it the 1,000 classes of ImageNet.

    encoder, head = build_imagenet("mobilenet_v2", weights="imagenet")
    logits = head(encoder(pixels))                                       # (N, 3, H, W) -> (N, 1000)

Belongs here: those layers under torchvision's names, with the weights of the same file as the encoder's. Does not
belong here: what the classes are called (`common/imagenet.py`), and classifiers of other classes
(`common/classifier.py`).
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from common import zoo
from common.encoders import Encoder, build_encoder, whole_network
from common.errors import UserError
from common.weights import imagenet_file, load_head, load_weights, read_weights


def build_imagenet(name: str, *, weights: str) -> tuple[Encoder, "OriginalHead"]:
    """A whole ImageNet classifier, frozen, in two parts. `weights`: "imagenet" (torchvision's) or a file.

    Raises `UserError` for a network that torchvision does not have, and for weights without the classifier's layers.
    """
    encoder, head = build_encoder(name), OriginalHead(name)
    source, state = original_weights(name, weights)
    load_weights(encoder, state, source=source)
    load_head(head, state, source=source)
    return encoder.eval(), head.eval().requires_grad_(False)


def original_weights(name: str, weights: str) -> tuple[str, dict[str, torch.Tensor]]:
    """→ the name of the file that `weights` ("imagenet" or a file) stand for, and the state dict in it."""
    path = imagenet_file(name) if weights == "imagenet" else Path(weights)
    return str(path), read_weights(path)


class OriginalHead(nn.Module):
    """Pooling, dropout and linear layers of a network of the zoo; with `last=False` all but the last linear layer.

    Attributes: `name`; `pool`, cells a side that the grid is averaged to (6 for AlexNet, 7 for VGG16, else 1); `size`,
    how many numbers come out for each photo.
    """

    def __init__(self, name: str, *, last: bool = True) -> None:
        super().__init__()
        if name.startswith(zoo.HF) or zoo.describe(name).factory is None:
            known = ", ".join(other for other in zoo.ENCODERS if zoo.describe(other).factory is not None)
            raise UserError(f"encoder {name} has no ImageNet classifier that we know; these have: {known}")
        entry = zoo.describe(name)
        self.name = name
        device = torch.get_default_device()
        with torch.device("meta"):
            children: dict[str, Any] = dict(whole_network(entry).named_children())
        names = list(children)
        behind = names[names.index(entry.final.end.partition(".")[0]) + 1 :]
        pooling = children["avgpool"].output_size if "avgpool" in behind else 1  # MobileNetV2's is a function
        self.pool: int = pooling if isinstance(pooling, int) else pooling[0]
        layers = {child: children[child] for child in behind if child != "avgpool"}
        if not last:
            whole = next(reversed(layers))
            layers[whole] = layers[whole][:-1] if isinstance(layers[whole], nn.Sequential) else nn.Identity()
        for child, module in layers.items():
            self.add_module(child, module)
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        self.size: int = linear[-1].out_features if linear else entry.final.channels * self.pool**2
        self.to_empty(device=device)
        if device.type != "meta":
            self.initialise()

    def initialise(self) -> None:
        """Draw its weights anew, as PyTorch does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """The grid `(N, C, h, w)`, or what it was averaged to, `(N, C·pool²)`, to `(N, size)`."""
        x = grid if grid.ndim == 2 else adaptive_avg_pool2d(grid, self.pool).flatten(1)
        for layer in self.children():
            x = layer(x)
        return x
