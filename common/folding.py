"""BatchNorm folded into the convolution before it: the same numbers from fewer passes over memory.

Belongs here: making such a copy of a frozen encoder. It serves where features are computed (`common/features.py`); what
is trained, saved or shown keeps its layers.
"""

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from common.encoders import BatchNorm, Encoder


@torch.no_grad()
def folded(encoder: Encoder) -> Encoder:
    """A copy of `encoder` in eval mode, for its `frozen_features` alone; these differ by rounding.

    In the networks of the zoo, a BatchNorm that stands behind a convolution is applied to its result and nothing else
    is; of a `transformers` model nobody promises that, so it is only copied.
    """
    encoder = copy.deepcopy(encoder).eval()
    for parent, first, second in _pairs(encoder):
        setattr(parent, first, fuse_conv_bn_eval(getattr(parent, first), getattr(parent, second)))
        setattr(parent, second, nn.Identity())
    return encoder


def folds(encoder: Encoder) -> bool:
    """Whether there is anything to fold. Random deep networks amplify rounding, so features kept before are not mixed
    with those of a folded copy: this is part of their key."""
    return bool(_pairs(encoder))


def _pairs(encoder: Encoder) -> list[tuple[nn.Module, str, str]]:
    """Each convolution with a BatchNorm behind it: the module they are in, and their names there."""
    if encoder.config.get("transformers"):
        return []
    return [
        (parent, first, second)
        for parent in encoder.modules()
        for (first, convolution), (second, norm) in pairwise(list(parent.named_children()))
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, BatchNorm)
    ]
