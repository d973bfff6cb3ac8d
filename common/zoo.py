"""The table of image encoders: their names, stages, channels and strides.

Belongs here: what can be told without building anything, so that `--help` and the check of an option answer at once.
Does not belong here: torch, or anything that imports it; `common/encoders.py` builds what this table describes.

Stages bear the names their field uses: ResNet's `layer1` … `layer4`, the rows of MobileNetV2's table 2, the pooling
layers of VGG and AlexNet, GoogLeNet's inception units. A stage's stride is how many pixels of the image one step in
its grid covers.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.errors import UserError

COLOR = "color"
"""Not a stage of a network: a histogram of colours that may be joined to the stages of any (`common/colors.py`)."""

HF = "hf:"
"""Before the name or path of a `transformers` vision model."""

MAX_CUSTOM_PARAMETERS = 2_000_000
MAX_CUSTOM_CHANNELS = 256


@dataclass(frozen=True)
class Stage:
    """One named stage. `end` is the last module that belongs to it, by its name in the whole network."""

    name: str
    end: str
    channels: int
    stride: int
    smallest: int = 1
    """The shorter side, in pixels, below which nothing is left of the image at this stage."""


@dataclass(frozen=True)
class Entry:
    """One encoder. `factory` and `weights` are names in `torchvision.models`; our own network has neither."""

    name: str
    stages: tuple[Stage, ...]
    factory: str | None = None
    weights: str | None = None
    arguments: dict[str, bool] = field(default_factory=dict)

    @property
    def final(self) -> Stage:
        """The last convolutional stage, whose grid is the default."""
        return self.stages[-1]


def _resnet(layers: int, channels: tuple[int, int, int, int]) -> Entry:
    """He et al., Deep Residual Learning for Image Recognition, CVPR 2016."""
    stages = [Stage("stem", "maxpool", 64, 4)]
    stages += [Stage(f"layer{i + 1}", f"layer{i + 1}", channels[i], 4 * 2**i) for i in range(4)]
    return Entry(f"resnet{layers}", tuple(stages), f"resnet{layers}", f"ResNet{layers}_Weights.IMAGENET1K_V1")


def custom_cnn(*, depth: int = 4, width: int = 32) -> Entry:
    """Our own small network: `depth` blocks of convolution, batch norm and ReLU, the channels doubling from `width`.

    Every block but the first halves the grid, so that the last one has stride `2 ** (depth - 1)`: with the default
    depth an image of 64 pixels becomes a grid of 8 x 8. Channels stop at 256. Raises `UserError` when depth or width is
    out of range, or when together they need more than 2 million parameters.
    """
    if not 1 <= depth <= 6:
        raise UserError(f"custom_cnn depth {depth}: give a number of blocks from 1 to 6")
    if not 4 <= width <= MAX_CUSTOM_CHANNELS:
        raise UserError(f"custom_cnn width {width}: give a number of channels from 4 to {MAX_CUSTOM_CHANNELS}")
    channels = [min(width * 2**i, MAX_CUSTOM_CHANNELS) for i in range(depth)]
    # 3 x 3 kernels without bias, and batch norm's scale and shift
    parameters = sum(9 * a * b + 2 * b for a, b in zip([3, *channels], channels, strict=False))
    if parameters > MAX_CUSTOM_PARAMETERS:
        raise UserError(
            f"custom_cnn depth {depth} with width {width} has {parameters:,} parameters, "
            f"{MAX_CUSTOM_PARAMETERS:,} are allowed; make one of them smaller"
        )
    stages = (Stage(f"block{i + 1}", f"block{i + 1}", c, 2**i, smallest=2**i) for i, c in enumerate(channels))
    return Entry("custom_cnn", tuple(stages))


_MOBILENET_V2 = Entry(  # Sandler et al., MobileNetV2, CVPR 2018: a stage is a row of table 2
    "mobilenet_v2",
    (
        Stage("stem", "features.0", 32, 2),
        Stage("bottleneck1", "features.1", 16, 2),
        Stage("bottleneck2", "features.3", 24, 4),
        Stage("bottleneck3", "features.6", 32, 8),
        Stage("bottleneck4", "features.10", 64, 16),
        Stage("bottleneck5", "features.13", 96, 16),
        Stage("bottleneck6", "features.16", 160, 32),
        Stage("bottleneck7", "features.17", 320, 32),
        Stage("conv_last", "features.18", 1280, 32),
    ),
    "mobilenet_v2",
    "MobileNet_V2_Weights.IMAGENET1K_V1",
)

_VGG16 = Entry(  # Simonyan and Zisserman, ICLR 2015, configuration D
    "vgg16",
    tuple(
        Stage(f"pool{i + 1}", f"features.{end}", channels, 2 ** (i + 1), smallest=2 ** (i + 1))
        for i, (end, channels) in enumerate([(4, 64), (9, 128), (16, 256), (23, 512), (30, 512)])
    ),
    "vgg16",
    "VGG16_Weights.IMAGENET1K_V1",
)

_ALEXNET = Entry(  # Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014
    "alexnet",
    (
        Stage("pool1", "features.2", 64, 8, smallest=15),
        Stage("pool2", "features.5", 192, 16, smallest=31),
        Stage("conv3", "features.7", 384, 16, smallest=31),
        Stage("conv4", "features.9", 256, 16, smallest=31),
        Stage("conv5", "features.11", 256, 16, smallest=31),
        Stage("pool5", "features.12", 256, 32, smallest=63),
    ),
    "alexnet",
    "AlexNet_Weights.IMAGENET1K_V1",
)

_GOOGLENET = Entry(  # Szegedy et al., Going Deeper with Convolutions, CVPR 2015
    "googlenet",
    (
        Stage("stem", "maxpool2", 192, 8),
        Stage("inception3a", "inception3a", 256, 8),
        Stage("inception3b", "inception3b", 480, 8),
        Stage("inception4a", "inception4a", 512, 16),
        Stage("inception4b", "inception4b", 512, 16),
        Stage("inception4c", "inception4c", 512, 16),
        Stage("inception4d", "inception4d", 528, 16),
        Stage("inception4e", "inception4e", 832, 16),
        Stage("inception5a", "inception5a", 832, 32),
        Stage("inception5b", "inception5b", 1024, 32),
    ),
    "googlenet",
    "GoogLeNet_Weights.IMAGENET1K_V1",
    {"aux_logits": False, "init_weights": False},
)

# The first published ImageNet weights of each network: they are what the reports used, and all of them want the same
# preprocessing (short side 256, centre crop 224).
_TABLE = {
    entry.name: entry
    for entry in (
        _MOBILENET_V2,
        custom_cnn(),
        *(_resnet(layers, (64, 128, 256, 512)) for layers in (18, 34)),
        *(_resnet(layers, (256, 512, 1024, 2048)) for layers in (50, 101, 152)),
        _VGG16,
        _ALEXNET,
        _GOOGLENET,
    )
}

ENCODERS: tuple[str, ...] = tuple(_TABLE)
"""The names in the table; `hf:NAME_OR_PATH` is allowed besides."""


def check_encoder_name(name: str) -> str:
    """Return `name` if it is in the table or `hf:` and something; else raise `UserError` that says what is allowed."""
    if name in _TABLE or (name.startswith(HF) and name != HF):
        return name
    close = difflib.get_close_matches(name, ENCODERS, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise UserError(f"unknown encoder '{name}'; {hint}allowed: {', '.join(ENCODERS)}, {HF}NAME_OR_PATH")


def describe(name: str, *, depth: int = 4, width: int = 32) -> Entry:
    """The table's entry for `name`; `depth` and `width` are those of `custom_cnn`.

    Raises `UserError` for an unknown name, and for an `hf:` name, whose stages only the loaded model can tell.
    """
    check_encoder_name(name)
    if name.startswith(HF):
        raise UserError(f"{name}: the stages of a transformers model are known only once it is loaded")
    return custom_cnn(depth=depth, width=width) if name == "custom_cnn" else _TABLE[name]


def check_stages(name: str, stages: Sequence[str], known: Sequence[str]) -> list[str]:
    """`stages` in the network's own order, each once. Raises `UserError` that lists the stages of encoder `name`."""
    for stage in stages:
        if stage not in known:
            close = difflib.get_close_matches(stage, known, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise UserError(f"encoder {name} has no stage '{stage}'; {hint}its stages: {', '.join(known)}")
    return [stage for stage in known if stage in stages]
