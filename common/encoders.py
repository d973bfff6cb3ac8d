"""Image encoders: normalised photos in, grid features out.

    encoder = build_encoder("mobilenet_v2", weights="imagenet")          # frozen
    grid = encoder(pixels)                                               # (N, 3, H, W) -> (N, C, h, w)
    same = encoder_from_config(encoder.config)                           # its architecture again, from plain values

Belongs here: building the entries of `common/zoo.py` and any `transformers` vision model, loading their weights,
cutting off what is not needed, and freezing. Does not belong here: what a task does with the grid, nor the cache of
features.
"""

import hashlib
import inspect
import json
import pickle
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from einops import rearrange, reduce
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms import v2

from common import zoo
from common.errors import UserError
from common.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, content_hash

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
    stages: where the grid is taken; none named means the last one. See `Encoder`.
    depth, width: of `custom_cnn`.
    train_from: "none" (frozen), "all", or the first stage that is trained.
    batch_norm: in trained stages, "eval" keeps batch norm's statistics (right for fine-tuning in small batches, and for
        weights whose batch norm is folded in), "train" uses the batch's (right from random weights).

    Raises `UserError` for an unknown name, stage or value, and for weights that cannot be had or don't fit.
    """
    zoo.check_encoder_name(name)
    if name.startswith(zoo.HF):
        if weights == "imagenet":
            raise UserError(f"weights imagenet: {name} brings its own weights; leave weights at none")
        config, backbone = _load_transformers(name, stages, trained=train_from != "none")
    else:
        config, backbone = _zoo_config(name, stages, depth, width), None
    encoder = Encoder(config | {"train_from": train_from, "batch_norm": batch_norm}, backbone)
    if weights == "imagenet":
        path = _imagenet_file(name)
        load_weights(encoder, _read_weights(path), source=str(path))
    elif weights != "none":
        load_weights(encoder, _read_weights(Path(weights)), source=weights)
    return encoder


def encoder_from_config(config: dict[str, Any]) -> "Encoder":
    """The architecture that `Encoder.config` describes, with random weights.

    Needs no file and no network, and works on the meta device, where `from_pretrained` builds.
    """
    return Encoder(config)


class Encoder(nn.Module):
    """A convolutional network, or a vision transformer, up to the last stage asked for.

    Attributes: `name`; `stages`, in the network's order; `channels` of the grid, summed over the stages; `stride` of
    the grid in pixels; `preprocessing` that its weights want; `config`, plain values for `encoder_from_config`.

    Several stages: the earlier, finer grids are averaged down to the last one's and joined along the channels, for
    colour lives early and dishes late. In the frozen part nothing has a gradient, and neither batch norm nor dropout
    ever leaves eval mode, whatever `train()` is called above.
    """

    def __init__(self, config: dict[str, Any], backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.name: str = config["name"]
        self.stages = tuple(config["stages"])
        self.channels: int = config["channels"]
        self.stride: int = config["stride"]
        self.preprocessing = Preprocessing(**config["preprocessing"])
        if backbone is None:
            hf = config.get("transformers")
            backbone = _Transformers(_model_from_config(hf), self.stages) if hf else _Convolutional(config)
        self.backbone = backbone
        if config["batch_norm"] not in ("eval", "train"):
            raise UserError(f"batch_norm {config['batch_norm']!r}: allowed are eval, train")
        unused = {id(backbone.get_parameter(name)) for name in config.get("unused", ())}
        for module, trained in self._trained_modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(trained and id(parameter) not in unused)
        self.train(self.training)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """`(N, 3, H, W)` normalised RGB to the grid `(N, channels, h, w)`. Raises `UserError` for images too small."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config["train_from"] != "none"):
            *earlier, last = self.backbone(pixels)
            if not earlier:
                return last
            return torch.cat([*(F.adaptive_avg_pool2d(grid, last.shape[-2:]) for grid in earlier), last], 1)

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


def fingerprint(encoder: Encoder) -> str:
    """SHA-256, in hex, of what decides the features of a frozen encoder: its architecture and every weight."""
    training = {"train_from", "batch_norm", "unused"}  # changes no feature of a frozen encoder
    config = {key: value for key, value in encoder.config.items() if key not in training}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for key, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_weights(encoder: Encoder, state: dict[str, torch.Tensor], *, source: str) -> None:
    """Copy into `encoder` what it needs of `state`, a state dict in the whole network's naming, and ignore the rest.

    A common prefix is allowed ("module.", "encoder.backbone."), so that the encoder of a trained model may be taken
    from it. Raises `UserError`, naming `source` and the first key that is missing, has another shape, or is one too
    many in a part that we keep.
    """
    network = getattr(encoder.backbone, "model", encoder.backbone)
    needed = network.state_dict()
    first = next(iter(needed))
    prefix = min((key[: -len(first)] for key in state if f".{key}".endswith(f".{first}")), key=len, default="")
    found = {key: state.get(prefix + key) for key in needed}
    # older files of weights come from before batch norm counted its batches, and nothing reads the count
    found = {key: value for key, value in found.items() if value is not None or not key.endswith("num_batches_tracked")}
    for key, value in found.items():
        want = tuple(needed[key].shape)
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != want:
            have = f"has shape {tuple(value.shape)}, not {want}" if isinstance(value, torch.Tensor) else "is missing"
            raise UserError(
                f"weights {source} do not fit encoder {encoder.name}: first missing or mismatching key '{prefix}{key}' "
                f"{have}; name the encoder they were trained with"
            )
    # ResNet34's file has all that ResNet18 asks for, in the same shapes, and more between: layers would be misplaced
    for key in sorted(state):
        inside = key.removeprefix(prefix)
        if inside not in needed and inside.startswith(tuple(f"{part}." for part in encoder.backbone.parts)):
            raise UserError(
                f"weights {source} do not fit encoder {encoder.name}, which has no '{key}'; "
                "name the encoder they were trained with"
            )
    network.load_state_dict(found, strict=False)


# -- the zoo ----------------------------------------------------------------------------------------------------------


def _zoo_config(name: str, stages: Sequence[str], depth: int, width: int) -> dict[str, Any]:
    entry = zoo.describe(name, depth=depth, width=width)
    chosen = zoo.check_stages(name, stages or [entry.final.name], [stage.name for stage in entry.stages])
    described = [stage for stage in entry.stages if stage.name in chosen]
    # Our network is for small images that are seen whole; torchvision's weights want a centre crop.
    small = name == "custom_cnn"
    return {
        "name": name,
        "stages": chosen,
        "depth": depth,
        "width": width,
        "channels": sum(stage.channels for stage in described),
        "stride": described[-1].stride,
        "preprocessing": _plain(Preprocessing(size=64, resize="squash") if small else Preprocessing()),
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
            whole = _whole_network(entry)
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
        x, grids = pixels, []
        if self.name == "googlenet":
            # its published weights want (value - 0.5) / 0.5, whatever they are preprocessed with everywhere else
            mean = [(0.5 - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
            x = v2.functional.normalize(x, mean, [0.5 / s for s in IMAGENET_STD])
        for index, (stage, steps) in enumerate(self.steps.items()):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= self.frozen):
                for step in steps:
                    x = self.get_submodule(step)(x)
            if stage in self.wanted:
                grids.append(x)
        return grids

    def modules_by_stage(self) -> Iterator[tuple[nn.Module, int]]:
        for index, steps in enumerate(self.steps.values()):
            for step in steps:
                for module in self.get_submodule(step).modules():
                    yield module, index


def _steps(whole: nn.Module) -> Iterator[str]:
    """The modules that a network's `forward` goes through, in order: its children, those of `features` one by one."""
    for name, child in whole.named_children():
        yield from (f"{name}.{i}" for i in range(len(child))) if name == "features" else [name]


def _whole_network(entry: zoo.Entry) -> nn.Module:
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
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# -- transformers' vision models --------------------------------------------------------------------------------------


def _load_transformers(name: str, stages: Sequence[str], *, trained: bool) -> tuple[dict[str, Any], nn.Module]:
    """Load `hf:NAME_OR_PATH` with its weights: the configuration that rebuilds it without them, and the network."""
    from transformers import AutoConfig
    from transformers.utils import logging

    source = name.removeprefix(zoo.HF)
    # never code from elsewhere; a folder is a folder, even without a network
    options = {"local_files_only": Path(source).exists(), "trust_remote_code": False}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the classifier it finds and does not need fills a screen
    try:
        config = AutoConfig.from_pretrained(source, **options)
        config = getattr(config, "vision_config", config)  # CLIP, SigLIP: the half that looks
        config.dtype = torch.float32
        model_class, gives_maps = _model_class(config)
        if gives_maps:
            known = list(config.stage_names)
            config.out_features = zoo.check_stages(name, stages or known[-1:], known)
        local = options["local_files_only"]
        model, report = model_class.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True, local_files_only=local
        )
    except UserError:
        raise
    except Exception as error:  # whatever a missing file, a broken one, or no network makes of it
        raise UserError(
            f"encoder {name} cannot be loaded ({_reason(error)}); give a local folder, or a name and a network"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
    # the norms that backbones put after their stages, and the parts we drop, need not be in the file
    optional = {"hidden_states_norms", "pooler", "head", "mask_token"}
    missing = sorted(key for key in report["missing_keys"] if optional.isdisjoint(key.split(".")))
    if missing:
        raise UserError(f"encoder {name}: its weights lack '{missing[0]}' ({len(missing)} missing in all)")

    known = _Transformers(model).known_stages
    chosen = zoo.check_stages(name, stages or known[-1:], known)
    backbone = _Transformers(model, tuple(chosen)).eval()
    preprocessing = _transformers_preprocessing(source, config, options)
    size = preprocessing.size
    try:
        with torch.set_grad_enabled(trained):
            grids = backbone(torch.zeros(1, 3, size, size))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"encoder {name}: {model_class.__name__} makes no grid of a photo ({_reason(error)})") from None
    unused = []
    if trained:
        # DINOv2's mask token, the norm of CLIP's class token ...: nothing that we take depends on them, and parameters
        # that wait for a gradient in vain stop training in several processes
        names, parameters = zip(*backbone.named_parameters(), strict=True)
        gradients = torch.autograd.grad(sum(grid.sum() for grid in grids), parameters, allow_unused=True)
        unused = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    plain = json.loads(json.dumps(config.to_dict()))
    plain.pop("_name_or_path", None)  # where it lay on this machine
    return {
        "name": name,
        "stages": chosen,
        "channels": sum(grid.shape[1] for grid in grids),
        "stride": size // grids[-1].shape[-1],
        "preprocessing": _plain(preprocessing),
        "transformers": plain,
        "unused": unused,
    }, backbone


def _model_class(config: Any) -> tuple[type, bool]:
    """A configuration's backbone class where there is one, which gives feature maps (True), else its plain model."""
    from transformers import MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING

    gives_maps = type(config) in MODEL_FOR_BACKBONE_MAPPING
    return (MODEL_FOR_BACKBONE_MAPPING if gives_maps else MODEL_MAPPING)[type(config)], gives_maps


class _Transformers(nn.Module):
    """A `transformers` vision model, its output as grids.

    A backbone gives feature maps. Of any other model we take the tokens, drop those before the patches (class,
    registers) and lay out the rest; stage k is the output of block k, and only the last goes through the final norm.
    Backbones are cut after the last stage wanted, other models are kept whole.
    """

    def __init__(self, model: nn.Module, wanted: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.model, self.wanted = model, wanted
        config = model.config
        self.gives_maps = hasattr(model, "out_features")
        stages = (
            list(config.stage_names)
            if self.gives_maps
            else ["stem", *(f"stage{i + 1}" for i in range(getattr(config, "num_hidden_layers", None) or 0))]
        )
        self.first_block = int(stages[0] == "stem")  # the stage that the first block is
        self.blocks = _find_blocks(model, len(stages) - self.first_block)
        self.known_stages = tuple(stages) if self.gives_maps or self.blocks else ("final",)
        if self.gives_maps and self.blocks and wanted:
            self.known_stages = self.known_stages[: stages.index(wanted[-1]) + 1]
            del model.get_submodule(self.blocks)[max(1, len(self.known_stages) - self.first_block) :]
        kept = len(model.get_submodule(self.blocks)) if self.blocks else 0
        self.parts = [f"{self.blocks}.{i}" for i in range(kept)]
        for part in ("pooler", "head"):  # these make one vector of the tokens with weights of their own: not for us
            module = getattr(model, part, None)
            if isinstance(module, nn.Module) and any(True for _ in module.parameters()):
                setattr(model, part, nn.Identity())
        for module in model.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                # into the state dict with it: from_pretrained builds on the meta device, and a buffer that is computed
                # there and not saved comes back as noise
                module.register_buffer(name, buffer)
        self.resizes = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        if self.gives_maps:
            return list(self.model(pixels).feature_maps)
        extra = {"interpolate_pos_encoding": True} if self.resizes and pixels.shape[-2:] != self._trained_size() else {}
        last = self.known_stages[-1]
        output = self.model(pixels, output_hidden_states=self.wanted != (last,), **extra)
        return [
            self._grid(output.last_hidden_state if stage == last else output.hidden_states[index], pixels)
            for index, stage in enumerate(self.known_stages)
            if stage in self.wanted
        ]

    def modules_by_stage(self) -> Iterator[tuple[nn.Module, int]]:
        """What comes before the blocks is the first stage's, what comes after (a norm) the last one's."""
        blocks = self.model.get_submodule(self.blocks) if self.blocks else ()
        owner = {module: i + self.first_block for i, block in enumerate(blocks) for module in block.modules()}
        outside = 0
        for module in self.model.modules():
            if module in owner:
                outside = len(self.known_stages) - 1
            yield module, owner.get(module, outside)

    def _grid(self, x: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        if x.ndim == 4:
            return x
        patch = _pair(self.model.config.patch_size)
        h, w = pixels.shape[-2] // patch[0], pixels.shape[-1] // patch[1]
        return rearrange(x[:, x.shape[1] - h * w :], "n (h w) c -> n c h w", h=h, w=w)

    def _trained_size(self) -> tuple[int, int]:
        return _pair(self.model.config.image_size)


def _model_from_config(plain: dict[str, Any]) -> nn.Module:
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[plain["model_type"]].from_dict(plain)
    return _model_class(config)[0]._from_config(config)


def _find_blocks(model: nn.Module, count: int) -> str | None:
    """The name of the outermost list of `count` modules: the stages of a pyramid, the blocks of a transformer."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count > 0:
            return name
    return None


def _transformers_preprocessing(source: str, config: Any, options: dict[str, Any]) -> Preprocessing:
    """What the model's own image processor does, as far as we can; without one, ImageNet's, at the model's size."""
    from transformers import AutoImageProcessor

    size = _pair(getattr(config, "image_size", None) or 224)[0]
    try:
        processor = AutoImageProcessor.from_pretrained(source, **options).to_dict()
    except Exception:  # none was published with the weights
        return Preprocessing(size=size)
    wanted = processor.get("size") or {}
    centre = processor.get("crop_size") if processor.get("do_center_crop") else None
    ratio, resize = 1.0, "crop"
    if wanted.get("shortest_edge"):
        size = wanted["shortest_edge"]
        if processor.get("crop_pct"):  # ConvNeXt's: it crops only below 384
            ratio, resize = (processor["crop_pct"], "crop") if size < 384 else (1.0, "squash")
    elif wanted.get("height"):
        size, resize = wanted["height"], "squash"
    elif wanted.get("longest_edge"):
        size, resize = wanted["longest_edge"], "pad"
    if centre:
        ratio, size, resize = min(1.0, centre["height"] / size), centre["height"], "crop"
    scale = 255 * (processor.get("rescale_factor") or 1 / 255) if processor.get("do_rescale", True) else 255
    normalises = processor.get("do_normalize", True)
    mean = (processor.get("image_mean") or IMAGENET_MEAN) if normalises else (0.0, 0.0, 0.0)
    std = (processor.get("image_std") or IMAGENET_STD) if normalises else (1.0, 1.0, 1.0)
    mean, std = tuple(m / scale for m in mean), tuple(s / scale for s in std)
    return Preprocessing(size=size, resize=resize, crop_ratio=ratio, mean=mean, std=std)


# -- freezing, and files of weights -----------------------------------------------------------------------------------


def _first_trained(config: dict[str, Any], backbone: nn.Module) -> int:
    """The index of the first stage that is trained: 0 for all, one past the last for none."""
    start, known = config["train_from"], backbone.known_stages
    if start in ("none", "all"):
        return 0 if start == "all" else len(known)
    if getattr(backbone, "blocks", "") is None:
        raise UserError(f"train_from '{start}': {config['name']} has no parts we know; give none or all")
    if start not in known:
        raise UserError(f"train_from '{start}': {config['name']} has none, all, {', '.join(known)}")
    return known.index(start)


def _imagenet_file(name: str) -> Path:
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
                f"weights imagenet for {name}: cannot download {url} ({_reason(error)}); "
                f"without a network, put that file at {path}"
            ) from None
    elif not content_hash(path).startswith(wanted):
        raise UserError(f"weights imagenet for {name}: {path} is damaged (its SHA-256 is not {wanted}...); delete it")
    return path


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from safetensors, or from torch's format as far as that needs no pickled code."""
    if not path.is_file():
        raise UserError(f"weights {path}: no such file; give imagenet, none or a file of weights")
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise UserError(f"weights {path}: give a file that ends in .safetensors, .pth or .pt")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"weights {path}: is damaged, or holds more than tensors and could run code when loaded; if you trust it, "
            "save its state dict alone: torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW_FILE)"
        ) from None
    except Exception as error:  # a stranger's bytes
        raise UserError(f"weights {path}: cannot be read ({_reason(error)})") from None
    for key in ("state_dict", "model"):  # training scripts wrap it
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise UserError(f"weights {path}: holds a {type(state).__name__}, not a state dict")
    return {key: value for key, value in state.items() if isinstance(key, str)}


def _plain(preprocessing: Preprocessing) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(preprocessing)))


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + " ..."
