"""The options of `scripts/count_parameters.py`: which networks, how much of them, and where to.

Belongs here: declarations only, nothing that imports torch. The counting is in `common/parameters.py`.
"""

import difflib

from common.config import options, positional
from common.errors import UserError
from common.zoo import ENCODERS

ALEXNET_ORIGINAL = "alexnet_original"
"""Not an encoder: the AlexNet of 2012, counted without its two groups, as report R3 does."""

NETWORKS = (*ENCODERS, ALEXNET_ORIGINAL)
_FORMATS = (".md", ".csv", ".json")


@options
class CountOptions:
    """Count the parameters of networks, layer by layer, with the formula of each: a whole network, classifier and all.

    Nothing is downloaded and no weight is made. alexnet_original is AlexNet as report R3 counts it.

    examples:
      python scripts/count_parameters.py alexnet_original alexnet
      python scripts/count_parameters.py --total
      python scripts/count_parameters.py vgg16 --output vgg16.csv
    """

    names: tuple[str, ...] = positional(default=())
    """networks: mobilenet_v2, custom_cnn, resnet18/34/50/101/152, vgg16, alexnet, googlenet, alexnet_original; default
    all of them"""
    total: bool = False
    """one line for each network, without its layers"""
    output: str | None = None
    """file to write as well: .md (tables), .csv (a row per layer) or .json"""
    overwrite: bool = False
    """replace --output"""

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in NETWORKS:
                close = difflib.get_close_matches(name, NETWORKS, n=1)
                hint = f"did you mean '{close[0]}'? " if close else ""
                raise UserError(f"unknown network '{name}'; {hint}allowed: {', '.join(NETWORKS)}")
        self.names = tuple(dict.fromkeys(self.names)) or NETWORKS
        if self.output is not None and not self.output.endswith(_FORMATS):
            raise UserError(f"--output {self.output}: name a file that ends in {', '.join(_FORMATS)}")
