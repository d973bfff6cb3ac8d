"""A folded encoder makes the features of the plain one; the plain one stays what it was."""

import pytest
import torch
from encoder_helpers import pixels
from torch import nn

from common import zoo
from common.encoders import BatchNorm, build_encoder
from common.folding import folded, folds


def settled(name: str, **options):
    """An encoder of random weights with statistics of its own, as training leaves them."""
    torch.manual_seed(0)
    encoder = build_encoder(name, **options)
    for module in encoder.modules():
        if isinstance(module, BatchNorm):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return encoder.eval()


@pytest.mark.parametrize("name", zoo.ENCODERS)
def test_features_are_the_same(name):
    names = [stage.name for stage in zoo.describe(name).stages]
    encoder = settled(name, stages=names)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    fast, images = folded(encoder), pixels(64)
    expected, found = encoder.frozen_features(images), fast.frozen_features(images)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert not any(isinstance(module, BatchNorm) for module in fast.modules())
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = fast.frozen_features(images).float()
    assert nn.functional.cosine_similarity(low.flatten(1), expected.flatten(1)).min() > 0.99


def test_the_frozen_part_of_what_is_trained():
    encoder = settled("resnet18", train_from="layer4", batch_norm="train").train()
    expected = encoder.frozen_features(pixels(64))
    torch.testing.assert_close(folded(encoder).frozen_features(pixels(64)), expected, rtol=1e-4, atol=1e-4)
    assert encoder.training and any(module.training for module in encoder.modules() if isinstance(module, BatchNorm))


def test_what_there_is_to_fold():
    assert folds(build_encoder("mobilenet_v2")) and not folds(build_encoder("alexnet"))
    assert not folds(folded(build_encoder("mobilenet_v2")))
