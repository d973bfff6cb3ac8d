"""`hf:NAME_OR_PATH`: vision models of `transformers` as encoder networks, with their own weights and preprocessing.

Belongs here: loading such a model, rebuilding it from plain values, cutting off what is not needed, laying out its
tokens as a grid, and reading the preprocessing published with it. Does not belong here: freezing and joining stages,
which are the same for every encoder (`common/encoders.py`), and files of weights (`common/weights.py`).

`transformers` is imported when such a model is asked for: torchvision's encoders never wait for it.
"""

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import nn

from common import zoo
from common.errors import UserError, reason
from common.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


def load_transformers(name: str, stages: Sequence[str], *, trained: bool) -> tuple[dict[str, Any], nn.Module]:
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
            names = list(config.stage_names)
            config.out_features = zoo.check_stages(name, stages or names[-1:], names)
        local = options["local_files_only"]
        model, report = model_class.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True, local_files_only=local
        )
    except UserError:
        raise
    except Exception as error:  # whatever a missing file, a broken one, or no network makes of it
        raise UserError(
            f"encoder {name} cannot be loaded ({reason(error)}); give a local folder, or a name and a network"
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
        raise UserError(f"encoder {name}: {model_class.__name__} makes no grid of a photo ({reason(error)})") from None
    unused = []
    if trained:
        # DINOv2's mask token, the norm of CLIP's class token ...: nothing that we take depends on them, and parameters
        # that wait for a gradient in vain stop training in several processes
        names, parameters = map(list, zip(*backbone.named_parameters(), strict=True))
        gradients = torch.autograd.grad(sum(grid.sum() for grid in grids), parameters, allow_unused=True)
        unused = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    plain = json.loads(json.dumps(config.to_dict()))
    plain.pop("_name_or_path", None)  # where it lay on this machine
    return {
        "name": name,
        "stages": chosen,
        "channels": [grid.shape[1] for grid in grids],
        "stride": size // grids[-1].shape[-1],
        "preprocessing": json.loads(json.dumps(asdict(preprocessing))),
        "transformers": plain,
        "unused": unused,
    }, backbone


def transformers_from_config(plain: dict[str, Any], stages: tuple[str, ...]) -> nn.Module:
    """The network that `load_transformers` gives, with random weights, from its configuration's "transformers"."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[plain["model_type"]].from_dict(plain)
    return _Transformers(_model_class(config)[0]._from_config(config), stages)


def _model_class(config: Any) -> tuple[Any, bool]:
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

    def __init__(self, model: Any, wanted: tuple[str, ...] = ()) -> None:
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


def _pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, list | tuple) else (value, value)
