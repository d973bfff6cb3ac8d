#!/usr/bin/env python
"""Count the parameters of networks, layer by layer: `python scripts/count_parameters.py alexnet_original alexnet`."""

from common.config import parse
from common.errors import command
from common.parameters_options import CountOptions


@command
def main() -> None:
    options = parse(CountOptions)
    from common.parameters import count_networks  # after the options are read: `--help` needs no torch

    count_networks(options)


if __name__ == "__main__":
    main()
