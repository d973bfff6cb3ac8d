"""The zoo: every entry built once, its shapes, its freezing, and its return from a configuration."""

import subprocess
import sys

import pytest
import torch
import torchvision
from encoder_helpers import again, pixels
from torch import nn

from common import zoo
from common.encoders import BatchNorm, build_encoder, count_parameters, encoder_from_config, fingerprint
from common.errors import UserError
from common.images import Preprocessing


def statistics(encoder) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in encoder.named_buffers() if "running" in name}


# -- every entry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.ENCODERS)
def test_every_entry(name):
    entry = zoo.describe(name)
    names = [stage.name for stage in entry.stages]
    encoder = build_encoder(name, stages=names[::-1])  # all of them, in whatever order
    total, trained = count_parameters(encoder)
    assert total > 0 and trained == 0

    # the shape of every stage, and of all of them joined
    photos = pixels(64).contiguous(memory_format=torch.channels_last)  # as `Encoder` does: the same additions
    grids, larger = encoder.backbone(photos), encoder.backbone(pixels(96))
    for stage, grid, more in zip(entry.stages, grids, larger, strict=True):
        assert grid.shape[:2] == (2, stage.channels), stage
        assert (more.shape[-1] - grid.shape[-1]) * stage.stride == 96 - 64, stage
    joined = encoder(pixels())
    assert encoder.stages == tuple(names) and encoder.stride == entry.final.stride
    assert joined.shape == (2, encoder.channels, *grids[-1].shape[-2:])
    assert torch.equal(joined[:, -entry.final.channels :], grids[-1])
    first = joined[:, : entry.stages[0].channels]
    averaged = nn.functional.adaptive_avg_pool2d(grids[0], grids[-1].shape[-2:])
    torch.testing.assert_close(first, averaged)
    torch.testing.assert_close(encoder.pooled(pixels()), joined.mean((2, 3)))

    # frozen stays frozen under train()
    before = statistics(encoder)
    assert not any(module.training for module in encoder.train().backbone.modules() if not list(module.children()))
    assert not encoder(pixels()).requires_grad
    assert all(torch.equal(before[key], value) for key, value in statistics(encoder).items())

    # back from its configuration
    assert torch.equal(again(encoder)(pixels()), joined)

    # trained from a stage on
    middle = names[len(names) // 2]
    tuned = again(encoder, train_from=middle, batch_norm="train").train()
    tuned(pixels()).square().mean().backward()
    trained_stage = {id(module): stage >= names.index(middle) for module, stage in tuned.backbone.modules_by_stage()}
    normed = 0
    for path, module in tuned.backbone.named_modules():
        trained = trained_stage.get(id(module), False)
        for parameter in module.parameters(recurse=False):
            assert trained == parameter.requires_grad == (parameter.grad is not None), path
        if isinstance(module, BatchNorm):
            assert trained != torch.equal(before[f"backbone.{path}.running_mean"], module.running_mean), path
            normed += trained
    assert normed > 0 or name in ("vgg16", "alexnet")
    assert 0 < count_parameters(tuned)[1] < total


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet", "alexnet"])
def test_the_grid_is_torchvisions(name, tmp_path):
    """With the weights of torchvision's whole network, the same features; its classifier is left aside."""
    options = {"aux_logits": True, "transform_input": True, "init_weights": True} if name == "googlenet" else {}
    whole = torchvision.models.get_model(name, weights=None, **options).eval()
    for module in whole.modules():
        if isinstance(module, nn.Conv2d):  # so that the photo reaches the end
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, BatchNorm):  # so that forgetting the statistics would show
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    encoder = build_encoder(name, weights=str(tmp_path / "whole.pth"))
    last = "fc" if hasattr(whole, "fc") else "classifier"
    setattr(whole, last, nn.Identity())
    with torch.no_grad():
        photos = pixels(96).contiguous(memory_format=torch.channels_last)
        expected = whole.features(photos).mean((2, 3)) if name == "alexnet" else whole(photos)
    assert (expected[0] - expected[1]).abs().max() > 0.01 * expected.abs().max()  # it tells photos apart
    torch.testing.assert_close(encoder.pooled(pixels(96)), expected)


def test_what_comes_after_the_last_stage_is_gone():
    encoder = build_encoder("resnet18", stages=["layer2"])
    assert encoder.channels == 128 and encoder.stride == 8
    assert encoder(pixels(72)).shape == (2, 128, 9, 9)
    assert {key.split(".")[1] for key in encoder.state_dict()} == {"conv1", "bn1", "layer1", "layer2"}
    full = build_encoder("mobilenet_v2")
    assert len([key for key in full.state_dict() if "features" not in key]) == 0
    assert count_parameters(full)[0] == 2_223_872  # torchvision's 3,504,872 without 1280 x 1000 + 1000


def test_building_on_the_meta_device_leaves_no_memory_behind():
    with torch.device("meta"):
        assert all(tensor.is_meta for tensor in build_encoder("vgg16").state_dict().values())


# -- our own network --------------------------------------------------------------------------------------------------


def test_custom_cnn_by_default():
    encoder = build_encoder("custom_cnn")
    assert encoder(pixels()).shape == (2, 256, 8, 8)
    assert encoder.preprocessing == Preprocessing(size=64, resize="squash")


def test_custom_cnn_counts_its_parameters():
    for depth in range(1, 7):
        for width in (4, 31, 64, 256):
            try:
                entry = zoo.describe("custom_cnn", depth=depth, width=width)
            except UserError as refusal:
                assert f"depth {depth} with width {width}" in str(refusal)
                continue
            encoder = build_encoder("custom_cnn", depth=depth, width=width)
            total = count_parameters(encoder)[0]
            channels = [3, *(stage.channels for stage in entry.stages)]
            by_hand = sum(9 * a * b + 2 * b for a, b in zip(channels[:-1], channels[1:], strict=True))
            assert total == by_hand <= 2_000_000
            assert encoder(pixels(64, batch=1)).shape[-1] == 64 // 2 ** (depth - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth 0: .* from 1 to 6"),
        ({"depth": 7}, "depth 7"),
        ({"width": 3}, "width 3: .* from 4 to 256"),
        ({"width": 257}, "width 257"),
        ({"depth": 6, "width": 128}, r"depth 6 with width 128 has 2,\d+,\d+ parameters, 2,000,000 are allowed"),
    ],
)
def test_custom_cnn_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        build_encoder("custom_cnn", **options)


# -- freezing ---------------------------------------------------------------------------------------------------------


def test_batch_norm_keeps_its_statistics_where_told():
    for mode, changes in (("eval", False), ("train", True)):
        encoder = build_encoder("custom_cnn", train_from="all", batch_norm=mode).train()
        before = statistics(encoder)
        encoder(pixels()).sum().backward()
        assert any(not torch.equal(before[key], value) for key, value in statistics(encoder).items()) == changes
        assert all(parameter.grad is not None for parameter in encoder.parameters())
        assert not any(module.training for module in encoder.eval().modules())


def test_frozen_inside_a_model_that_trains():
    model = nn.Sequential(build_encoder("custom_cnn"), nn.Flatten(), nn.Linear(256 * 64, 2)).train()
    before = statistics(model[0])
    model(pixels()).sum().backward()
    assert model[2].weight.grad is not None
    assert all(torch.equal(before[key], value) for key, value in statistics(model[0]).items())
    assert count_parameters(model)[1] == 256 * 64 * 2 + 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_from": "layer9"}, "train_from 'layer9': .* none, all, stem, layer1, layer2, layer3, layer4"),
        ({"train_from": "layer3", "stages": ["layer1"]}, "'layer3'"),
        ({"stages": ["layer0"]}, "no stage 'layer0'; did you mean 'layer"),
        ({"batch_norm": "off"}, "batch_norm 'off': allowed are eval, train"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(UserError, match=message):
        build_encoder("resnet18", **options)


def test_refused_names():
    with pytest.raises(UserError, match="unknown encoder 'resnet81'; did you mean 'resnet18'.*hf:NAME_OR_PATH"):
        build_encoder("resnet81")
    with pytest.raises(UserError, match="unknown encoder 'hf:'"):
        zoo.check_encoder_name("hf:")


@pytest.mark.parametrize(("name", "smallest"), [("alexnet", 63), ("vgg16", 32), ("custom_cnn", 8)])
def test_images_too_small(name, smallest):
    with torch.device("meta"):
        encoder = encoder_from_config(build_encoder(name).config)
        assert encoder(torch.empty(1, 3, smallest, smallest)).shape[-2:] == (1, 1)
        with pytest.raises(UserError, match=f"too small for {name}; give at least {smallest}"):
            encoder(torch.empty(1, 3, smallest, smallest - 1))


def test_the_table_needs_no_torch():
    code = "import sys, common.zoo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- fingerprint -------------------------------------------------------------------------------------------------------


def test_fingerprint():
    encoder = build_encoder("custom_cnn", depth=2, width=8)
    print_ = fingerprint(encoder)
    assert print_ == fingerprint(again(encoder)) == fingerprint(again(encoder, batch_norm="train"))
    assert print_ != fingerprint(build_encoder("custom_cnn", depth=2, width=8))  # other random weights
    with torch.no_grad():
        encoder.backbone.block2[1].weight[0, 0, 0, 0] += 1e-6
    assert print_ != fingerprint(encoder)


# -- what frozen stages make, kept, and finished by the trained ones ---------------------------------------------------


@pytest.mark.parametrize(
    ("name", "train_from", "stages"),
    [
        ("mobilenet_v2", "bottleneck6", ["color", "bottleneck3", "bottleneck6", "conv_last"]),
        ("mobilenet_v2", "conv_last", []),
        ("resnet18", "layer4", ["layer2", "layer4"]),
        ("googlenet", "inception5b", ["color", "inception3a", "inception5b"]),
        ("custom_cnn", "block3", ["block1", "block4"]),
    ],
)
def test_kept_features_finish_to_the_same_grid(name, train_from, stages):
    encoder = build_encoder(name, stages=stages, train_from=train_from, batch_norm="train").eval()
    photos = pixels(64)
    assert encoder.frozen_part == "some"
    kept = encoder.frozen_features(photos)
    assert kept.ndim == 2 and not kept.requires_grad
    grid, expected = encoder.finish(kept, 64), encoder(photos).detach()
    torch.testing.assert_close(grid, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    grid.sum().backward()
    moved = {key for key, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert moved == {key for key, parameter in encoder.named_parameters() if parameter.requires_grad} != set()


def test_training_leaves_the_key_of_kept_features_alone():
    encoder = build_encoder("mobilenet_v2", train_from="conv_last")
    before = fingerprint(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(float(parameter.requires_grad))
    assert fingerprint(encoder) == before
    with torch.no_grad():
        next(encoder.parameters()).add_(1)  # a frozen one
    assert fingerprint(encoder) != before
