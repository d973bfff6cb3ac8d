"""Image encoders: normalised photos in, grid features out.

    encoder = build_encoder("mobilenet_v2", weights="imagenet")          # frozen
    grid = encoder(pixels)                                               # (N, 3, H, W) -> (N, C, h, w)
    same = encoder_from_config(encoder.config)                           # its architecture again, from plain values

Belongs here: building an encoder by its name, the networks of `common/zoo.py` up to the last stage wanted, joining
stages and freezing. Does not belong here: `transformers` vision models (`common/transformers_encoders.py`), files of
weights (`common/weights.py`), what a task does with the grid, and the cache of features (`common/features.py`).
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from einops import reduce
from torch import nn
from torchvision.transforms import v2

from common import zoo
from common.colors import COLORS, color_histogram
from common.errors import UserError
from common.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from common.transformers_encoders import load_transformers, transformers_from_config
from common.weights import imagenet_file, load_weights, read_weights

BatchNorm = nn.modules.batchnorm._BatchNorm


def build_encoder(
    name: str,
    *,
    weights: str = "none",
    stages: Sequence[str] = (),
    depth: int = 4,
    width: int = 32,
    train_from: str = "none",
    batch_norm: str = "eval",
) -> "Encoder":
    """Build an encoder and load its weights.

    name: an entry of `common/zoo.py`, or `hf:NAME_OR_PATH`, a vision model of `transformers` with its own weights.
    weights: "imagenet" (torchvision's, downloaded once), "none" (random; for `hf:` its own) or a file of weights:
        safetensors, or a `.pth` / `.pt` state dict. Parts we don't use, the classifier say, may be in it.
    stages: where the grid is taken; none named means the last one. "color" joins a histogram to them. See `Encoder`.
    depth, width: of `custom_cnn`.
    train_from: "none" (frozen), "all", or the first stage that is trained.
    batch_norm: in trained stages, "eval" keeps batch norm's statistics (right for fine-tuning in small batches, and for
        weights whose batch norm is folded in), "train" uses the batch's (right from random weights).

    Raises `UserError` for an unknown name, stage or value, and for weights that cannot be had or don't fit.
    """
    zoo.check_encoder_name(name)
    color, stages = zoo.COLOR in stages, [stage for stage in stages if stage != zoo.COLOR]
    if name.startswith(zoo.HF):
        if weights == "imagenet":
            raise UserError(f"weights imagenet: {name} brings its own weights; leave weights at none")
        config, backbone = load_transformers(name, stages, trained=train_from != "none")
    else:
        config, backbone = _zoo_config(name, stages, depth, width), None
    encoder = Encoder(config | {"color": color, "train_from": train_from, "batch_norm": batch_norm}, backbone)
    if weights == "imagenet":
        path = imagenet_file(name)
        load_weights(encoder, read_weights(path), source=str(path))
    elif weights != "none":
        load_weights(encoder, read_weights(Path(weights)), source=weights)
    return encoder


def encoder_from_config(config: dict[str, Any]) -> "Encoder":
    """The architecture that `Encoder.config` describes, with random weights.

    Needs no file and no network, and works on the meta device, where `from_pretrained` builds.
    """
    return Encoder(config)


class Encoder(nn.Module):
    """A convolutional network, or a vision transformer, up to the last stage asked for.

    Attributes: `name`; `stages`, in the network's order; `color`, whether the histogram is joined to them; `parts`, the
    channels of each in the grid (the histogram's first), and `channels`, their sum; `stride` of the grid in pixels;
    `preprocessing` that its weights want; `config`, plain values for `encoder_from_config`.

    Several stages: the earlier, finer grids are averaged down to the last one's and joined along the channels, for
    colour lives early and dishes late. In the frozen part nothing has a gradient, and neither batch norm nor dropout
    ever leaves eval mode, whatever `train()` is called above.
    """

    def __init__(self, config: dict[str, Any], backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.name: str = config["name"]
        self.stages = tuple(config["stages"])
        self.color: bool = config["color"]
        self.parts: list[int] = [COLORS] * self.color + list(config["channels"])
        self.channels = sum(self.parts)
        self.stride: int = config["stride"]
        self.preprocessing = Preprocessing(**config["preprocessing"])
        self._normalised_by = self.preprocessing.mean, self.preprocessing.std
        self._layouts: dict[tuple[int, int], tuple[tuple[int, ...], tuple[int, int]]] = {}
        if backbone is None:
            hf = config.get("transformers")
            backbone = transformers_from_config(hf, self.stages) if hf else _Convolutional(config)
        self.backbone: Any = backbone  # a `_Convolutional`, or what `load_transformers` makes
        if config["batch_norm"] not in ("eval", "train"):
            raise UserError(f"batch_norm {config['batch_norm']!r}: allowed are eval, train")
        unused = {id(backbone.get_parameter(name)) for name in config.get("unused", ())}
        for module, trained in self._trained_modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(trained and id(parameter) not in unused)
        self.train(self.training)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """`(N, 3, H, W)` normalised RGB to the grid `(N, channels, h, w)`. Raises `UserError` for images too small."""
        # Channels last: twice as fast through MobileNetV2's depthwise convolutions on a CPU, training included.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config["train_from"] != "none"):
            *earlier, last = self.backbone(pixels)
            parts = [*(F.adaptive_avg_pool2d(grid, last.shape[-2:]) for grid in earlier), last]
        if self.color:
            parts.insert(0, self._colors(pixels, last.shape[-2:]).to(last.dtype))
        return torch.cat(parts, 1) if len(parts) > 1 else last

    @property
    def frozen_part(self) -> str:
        """How much of it never changes, so that what it makes of a photo can be kept: "none", "some" or "all"."""
        if self.config["train_from"] == "none":
            return "all"
        splits = isinstance(self.backbone, _Convolutional) and 0 < self.backbone.frozen < len(self.backbone.steps)
        return "some" if splits else "none"

    @torch.no_grad()
    def frozen_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the frozen part makes of `(N, 3, H, W)`: the grid, if all is frozen; else, for `finish`, `(N, D)`."""
        if self.frozen_part == "all":
            return self(pixels)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        grids, x = self.backbone.frozen_stages(pixels)
        cells = self._layout(pixels.shape[-2], pixels.shape[-1])[1]
        parts = [F.adaptive_avg_pool2d(grid, cells) for grid in grids]
        if self.color:
            parts.insert(0, self._colors(pixels, cells).to(x.dtype))
        return torch.cat([part.flatten(1) for part in (*parts, x)], 1)

    def finish(self, features: torch.Tensor, size: int) -> torch.Tensor:
        """From `frozen_features (N, D)` of squares of `size` pixels to the grid `(N, channels, h, w)`."""
        shape, cells = self._layout(size, size)
        kept, x = features.split([features.shape[1] - math.prod(shape), math.prod(shape)], 1)
        x = x.reshape(-1, *shape).contiguous(memory_format=torch.channels_last)
        *earlier, last = self.backbone.trained_stages(x)
        parts = [kept.reshape(len(x), -1, *cells)] if kept.shape[1] else []
        parts += [*(F.adaptive_avg_pool2d(grid, cells) for grid in earlier), last]
        return torch.cat(parts, 1) if len(parts) > 1 else last

    def _colors(self, pixels: torch.Tensor, cells: tuple[int, int]) -> torch.Tensor:
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in self._normalised_by)
        return color_histogram(pixels * std + mean, cells)

    @torch.no_grad()
    def _layout(self, height: int, width: int) -> tuple[tuple[int, ...], tuple[int, int]]:
        """For photos of this size, the shape `(C, h, w)` between frozen and trained stages, and the grid's `(h, w)`."""
        if (height, width) not in self._layouts:
            device = next(self.parameters()).device
            _, x = self.backbone.frozen_stages(torch.zeros(1, 3, height, width, device=device))
            training = self.training
            self.eval()  # a single photo must not enter the statistics of batch norm
            self._layouts[height, width] = tuple(x.shape[1:]), tuple(self.backbone.trained_stages(x)[-1].shape[-2:])
            self.train(training)
        return self._layouts[height, width]

    def pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        """`(N, 3, H, W)` to `(N, channels)`: the mean over the grid's cells."""
        return reduce(self(pixels), "n c h w -> n c", "mean")

    def train(self, mode: bool = True) -> "Encoder":
        super().train(mode)
        keep_statistics = self.config["batch_norm"] == "eval"
        for module, trained in self._trained_modules():
            if not trained or (keep_statistics and isinstance(module, BatchNorm)):
                module.training = False
        return self

    def _trained_modules(self) -> Iterator[tuple[nn.Module, bool]]:
        """Every module of the network, by itself, and whether it is trained."""
        first = _first_trained(self.config, self.backbone)
        for module, stage in self.backbone.modules_by_stage():
            yield module, stage >= first


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """How many parameters `module` has: in all, and trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def fingerprint(encoder: Encoder, *, whole: bool = False) -> str:
    """SHA-256, in hex, of what decides `frozen_features`: the architecture and every weight that is frozen; of the
    `whole` encoder, of what is trained, too."""
    training = {"batch_norm", "unused"} | ({"train_from"} if encoder.frozen_part == "all" else set())
    config = {key: value for key, value in encoder.config.items() if key not in training}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    trained = {
        id(tensor)
        for module, is_trained in encoder._trained_modules()
        if is_trained and not whole
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    }
    for key, tensor in sorted(encoder.state_dict(keep_vars=True).items()):
        if id(tensor) in trained:
            continue
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


# -- the zoo ----------------------------------------------------------------------------------------------------------


def _zoo_config(name: str, stages: Sequence[str], depth: int, width: int) -> dict[str, Any]:
    entry = zoo.describe(name, depth=depth, width=width)
    chosen = zoo.check_stages(name, stages or [entry.final.name], [stage.name for stage in entry.stages])
    described = [stage for stage in entry.stages if stage.name in chosen]
    # Our network is for small images that are seen whole; torchvision's weights want a centre crop.
    preprocessing = Preprocessing(size=64, resize="squash") if name == "custom_cnn" else Preprocessing()
    return {
        "name": name,
        "stages": chosen,
        "depth": depth,
        "width": width,
        "channels": [stage.channels for stage in described],
        "stride": described[-1].stride,
        "preprocessing": json.loads(json.dumps(asdict(preprocessing))),
    }


class _Convolutional(nn.Module):
    """An entry of the zoo: torchvision's modules under torchvision's names, without those after the last stage."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        entry = zoo.describe(config["name"], depth=config["depth"], width=config["width"])
        self.wanted = tuple(config["stages"])
        names = [stage.name for stage in entry.stages]
        kept = entry.stages[: names.index(self.wanted[-1]) + 1]
        self.known_stages = tuple(stage.name for stage in kept)
        self.smallest, self.name = kept[-1].smallest, config["name"]
        self.frozen = _first_trained(config, self)

        device = torch.get_default_device()
        with torch.device("meta"):  # so that VGG16's 120 million classifier weights are never made, only to be dropped
            whole = whole_network(entry)
        steps = list(_steps(whole))
        end = 0
        self.steps: dict[str, list[str]] = {}
        for stage in kept:
            start, end = end, steps.index(stage.end) + 1
            self.steps[stage.name] = steps[start:end]
        self.parts = steps[:end]
        for step in reversed(steps[end:]):
            parent, _, child = step.rpartition(".")
            delattr(whole.get_submodule(parent), child)
        for child, module in whole.named_children():
            self.add_module(child, module)
        self.to_empty(device=device)
        if device.type != "meta":
            self.apply(_initialise)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        if min(pixels.shape[-2:]) < self.smallest:
            height, width = pixels.shape[-2:]
            raise UserError(
                f"images of {height} x {width} pixels are too small for {self.name}; give at least {self.smallest}"
            )
        grids, x = self.frozen_stages(pixels)
        return grids + self.trained_stages(x)

    @torch.no_grad()
    def frozen_stages(self, pixels: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The grids wanted of the stages that are not trained, and what comes out of the last of them."""
        x = pixels
        if self.name == "googlenet":
            # its published weights want (value - 0.5) / 0.5, whatever they are preprocessed with everywhere else
            mean = [(0.5 - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
            x = v2.functional.normalize(x, mean, [0.5 / s for s in IMAGENET_STD])
        return self._through(x, list(self.steps)[: self.frozen])

    def trained_stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The grids wanted of the stages that are trained, from what comes out of the last one that is not."""
        return self._through(x, list(self.steps)[self.frozen :])[0]

    def _through(self, x: torch.Tensor, stages: Sequence[str]) -> tuple[list[torch.Tensor], torch.Tensor]:
        grids = []
        for stage in stages:
            for step in self.steps[stage]:
                x = self.get_submodule(step)(x)
            if stage in self.wanted:
                grids.append(x)
        return grids, x

    def modules_by_stage(self) -> Iterator[tuple[nn.Module, int]]:
        for index, steps in enumerate(self.steps.values()):
            for step in steps:
                for module in self.get_submodule(step).modules():
                    yield module, index


def _steps(whole: Any) -> Iterator[str]:
    """The modules that a network's `forward` goes through, in order: its children, those of `features` one by one."""
    for name, child in whole.named_children():
        yield from (f"{name}.{i}" for i in range(len(child))) if name == "features" else [name]


def whole_network(entry: zoo.Entry) -> nn.Module:
    """torchvision's network, classifier and all; or ours."""
    if entry.factory is not None:
        return torchvision.models.get_model(entry.factory, weights=None, **entry.arguments)
    network, before = nn.Module(), 3
    for stage in entry.stages:
        halve = [nn.MaxPool2d(2)] if before != 3 else []
        convolution = nn.Conv2d(before, stage.channels, 3, padding=1, bias=False)
        block = nn.Sequential(*halve, convolution, nn.BatchNorm2d(stage.channels), nn.ReLU(inplace=True))
        network.add_module(stage.name, block)
        before = stage.channels
    return network


def _initialise(module: nn.Module) -> None:
    """He et al., Delving Deep into Rectifiers, ICCV 2015, for every convolution; batch norm starts as identity."""
    if callable(reset := getattr(module, "reset_parameters", None)):
        reset()
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# -- freezing ----------------------------------------------------------------------------------------------------------


def _first_trained(config: dict[str, Any], backbone: Any) -> int:
    """The index of the first stage that is trained: 0 for all, one past the last for none."""
    start, known = config["train_from"], backbone.known_stages
    if start in ("none", "all"):
        return 0 if start == "all" else len(known)
    if getattr(backbone, "blocks", "") is None:
        raise UserError(f"train_from '{start}': {config['name']} has no parts we know; give none or all")
    if start not in known:
        raise UserError(f"train_from '{start}': {config['name']} has none, all, {', '.join(known)}")
    return known.index(start)
