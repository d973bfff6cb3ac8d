"""The zoo: every entry built once, its shapes, its freezing, its weights, and its return from a configuration."""

import hashlib
import json
import pickle
import subprocess
import sys

import pytest
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from common import zoo
from common.encoders import BatchNorm, build_encoder, count_parameters, encoder_from_config, fingerprint
from common.errors import UserError
from common.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

transformers.logging.disable_progress_bar()


def pixels(size: int = 64, *, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def again(encoder, **changes):
    """The same encoder by way of its configuration as JSON, the meta device, and its weights."""
    config = json.loads(json.dumps(encoder.config)) | changes
    with torch.device("meta"):
        other = encoder_from_config(config)
    assert all(tensor.is_meta for tensor in other.state_dict().values())
    assert {name for name, _ in other.named_buffers()} <= set(other.state_dict())  # none that would not be saved
    weights = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    other.load_state_dict(weights, strict=True, assign=True)
    return other


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
    grids, larger = encoder.backbone(pixels(64)), encoder.backbone(pixels(96))
    for stage, grid, more in zip(entry.stages, grids, larger, strict=True):
        assert grid.shape[:2] == (2, stage.channels), stage
        assert (more.shape[-1] - grid.shape[-1]) * stage.stride == 96 - 64, stage
    joined = encoder(pixels())
    assert encoder.stages == tuple(names) and encoder.stride == entry.final.stride
    assert joined.shape == (2, encoder.channels, *grids[-1].shape[-2:])
    assert torch.equal(joined[:, -entry.final.channels :], grids[-1])
    first = joined[:, : entry.stages[0].channels]
    torch.testing.assert_close(first, nn.functional.adaptive_avg_pool2d(grids[0], grids[-1].shape[-2:]))
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
        expected = whole.features(pixels(96)).mean((2, 3)) if name == "alexnet" else whole(pixels(96))
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


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def resnet_weights(tmp_path):
    """A file of weights such as torchvision publishes, named after its hash, and its address."""
    torch.manual_seed(1)
    draft = tmp_path / "draft.pth"
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), draft)
    return draft.rename(tmp_path / f"resnet18-{hashlib.sha256(draft.read_bytes()).hexdigest()[:8]}.pth")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch's cache, empty, and a function that sets where torchvision's ResNet18 is published."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    published = torchvision.models.get_weight(zoo.describe("resnet18").weights).value
    return tmp_path / "torch" / "hub" / "checkpoints", lambda url: monkeypatch.setattr(published, "url", url)


def test_imagenet_from_a_planted_file(hub, resnet_weights):
    checkpoints, publish = hub
    publish(f"https://weights.invalid/{resnet_weights.name}")
    checkpoints.mkdir(parents=True)
    planted = checkpoints / resnet_weights.name
    planted.write_bytes(resnet_weights.read_bytes())
    encoder = build_encoder("resnet18", weights="imagenet")
    assert torch.equal(encoder.state_dict()["backbone.conv1.weight"], torch.load(planted)["conv1.weight"])

    planted.write_bytes(planted.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=f"{planted.name} is damaged .*delete it"):
        build_encoder("resnet18", weights="imagenet")


def test_imagenet_is_downloaded_and_its_hash_checked(hub, resnet_weights):
    checkpoints, publish = hub
    publish(resnet_weights.as_uri())
    build_encoder("resnet18", weights="imagenet")
    assert (checkpoints / resnet_weights.name).read_bytes() == resnet_weights.read_bytes()

    wrong = resnet_weights.rename(resnet_weights.with_name("resnet18-00000000.pth"))
    publish(wrong.as_uri())
    with pytest.raises(UserError, match="cannot download .*invalid hash"):
        build_encoder("resnet18", weights="imagenet")
    assert not (checkpoints / wrong.name).exists()


def test_imagenet_without_a_network(hub, tmp_path):
    checkpoints, publish = hub
    publish((tmp_path / "nowhere" / "resnet18-12345678.pth").as_uri())
    with pytest.raises(UserError) as refusal:
        build_encoder("resnet18", weights="imagenet")
    assert f"put that file at {checkpoints / 'resnet18-12345678.pth'}" in str(refusal.value)


@pytest.mark.parametrize("name", [name for name in zoo.ENCODERS if name != "custom_cnn"])
def test_torchvision_publishes_what_the_table_names(name):
    published = torchvision.models.get_weight(zoo.describe(name).weights)
    transforms = published.transforms()
    assert (transforms.crop_size, transforms.resize_size) == ([224], [256])  # Preprocessing's defaults
    assert (tuple(transforms.mean), tuple(transforms.std)) == (IMAGENET_MEAN, IMAGENET_STD)
    assert published.url.rpartition("-")[2].removesuffix(".pth").isalnum()


def test_real_weights(mobilenet_weights):
    whole = torchvision.models.mobilenet_v2()
    whole.load_state_dict(load_file(mobilenet_weights))
    whole.classifier = nn.Identity()
    encoder = build_encoder("mobilenet_v2", weights=str(mobilenet_weights))
    with torch.no_grad():
        torch.testing.assert_close(encoder.pooled(pixels(96)), whole.eval()(pixels(96)))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_weights_of_a_trained_model(tmp_path, suffix):
    """Whatever it was part of when it was saved."""
    encoder = build_encoder("custom_cnn")
    state = {f"module.encoder.{key}": value for key, value in encoder.state_dict().items()}
    state |= {"module.classifier.weight": torch.zeros(3)}
    path = tmp_path / f"model{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"epoch": 3, "state_dict": state}, path)
    other = build_encoder("custom_cnn", weights=str(path))
    assert fingerprint(other) == fingerprint(encoder)


def test_old_weights_without_batch_counts(tmp_path):
    encoder = build_encoder("custom_cnn")
    state = {key: value for key, value in encoder.backbone.state_dict().items() if "num_batches" not in key}
    save_file(state, tmp_path / "old.safetensors")
    assert torch.equal(
        build_encoder("custom_cnn", weights=str(tmp_path / "old.safetensors"))(pixels()), encoder(pixels())
    )


class Mischief:
    def __reduce__(self):
        return print, ("arbitrary code",)


def test_weights_that_do_not_fit(tmp_path):
    state = build_encoder("resnet18").backbone.state_dict()
    shorter = {key: value for key, value in state.items() if "layer4.1" not in key}
    first = "first missing or mismatching key "
    cases = {
        # has all that ResNet18 has, in the same shapes, and more
        "resnet34.safetensors": (build_encoder("resnet34").state_dict(), ", which has no '.*layer1.2"),
        "resnet50.safetensors": (
            build_encoder("resnet50", stages=["layer1"]).state_dict(),
            f": {first}.*layer1.0.conv1",
        ),
        "missing.safetensors": (shorter, f": {first}'layer4.1.conv1.weight' is missing"),
        "shape.safetensors": (
            state | {"bn1.bias": torch.zeros(63)},
            rf": {first}'bn1.bias' has shape \(63,\), not \(64,\)",
        ),
        "unrelated.safetensors": ({"x": torch.zeros(1)}, f": {first}'conv1.weight' is missing"),
    }
    for name, (content, message) in cases.items():
        save_file(content, tmp_path / name)
        with pytest.raises(UserError, match=f"{name} do not fit encoder resnet18{message}"):
            build_encoder("resnet18", weights=str(tmp_path / name))


def test_weights_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 not a zip")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Mischief(), protocol=2))
    torch.save({"weight": Mischief()}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "weights.h5").write_bytes(b"")
    cases = {
        "damaged.safetensors": "cannot be read",
        "damaged.pth": "cannot be read|is damaged",
        "pickle.pth": "could run code when loaded.*state_dict",
        "code.pth": "could run code when loaded.*state_dict",
        "list.pt": "holds a list, not a state dict",
        "weights.h5": "ends in .safetensors, .pth or .pt",
        "absent.pth": "no such file; give imagenet, none or a file",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=f"{name}: .*({message})") as refusal:
            build_encoder("custom_cnn", weights=str(tmp_path / name))
        assert "\n" not in str(refusal.value)
    assert "arbitrary code" not in capsys.readouterr().out
    with pytest.raises(UserError, match="there are none for custom_cnn"):
        build_encoder("custom_cnn", weights="imagenet")


def test_fingerprint():
    encoder = build_encoder("custom_cnn", depth=2, width=8)
    print_ = fingerprint(encoder)
    assert print_ == fingerprint(again(encoder)) == fingerprint(again(encoder, train_from="all", batch_norm="train"))
    assert print_ != fingerprint(build_encoder("custom_cnn", depth=2, width=8))  # other random weights
    with torch.no_grad():
        encoder.backbone.block2[1].weight[0, 0, 0, 0] += 1e-6
    assert print_ != fingerprint(encoder)


# -- transformers -----------------------------------------------------------------------------------------------------

_TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
_VIT = _TINY | {"intermediate_size": 48, "hidden_dropout_prob": 0.5}
_SIGLIP = _TINY | {"intermediate_size": 48, "attention_dropout": 0.5}
_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}


def tiny(kind: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    text = _TEXT | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    if kind == "dinov2":
        return transformers.Dinov2Model(transformers.Dinov2Config(**_TINY, hidden_dropout_prob=0.5))
    if kind == "registers":
        return transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**_TINY))
    if kind == "vit":  # with a classifier, which is not ours
        return transformers.ViTForImageClassification(transformers.ViTConfig(**_VIT))
    if kind == "siglip":  # with the half that reads
        return transformers.SiglipModel(transformers.SiglipConfig(vision_config=_SIGLIP, text_config=text))
    if kind == "clip":
        return transformers.CLIPModel(transformers.CLIPConfig(vision_config=_SIGLIP, text_config=text))
    config = transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 2, 1], image_size=64)
    return transformers.ConvNextModel(config)


@pytest.mark.parametrize("kind", ["dinov2", "registers", "vit", "siglip", "clip", "convnext"])
def test_transformers(kind, tmp_path):
    model = tiny(kind).eval()
    model.save_pretrained(tmp_path / "published")
    name = f"hf:{tmp_path / 'published'}"
    encoder = build_encoder(name)
    x, (stride, blocks) = pixels(56), (32, 4) if kind == "convnext" else (14, 3)
    side = -(-56 // stride) if kind != "convnext" else 56 // stride
    assert encoder.channels == 32 and encoder.stride == stride and encoder.stages == (f"stage{blocks}",)
    grid = encoder(x)
    assert grid.shape == (2, 32, side, side)

    # the patches' tokens of the published model, in the photo's order
    with torch.no_grad():
        vision = {"vit": "vit", "siglip": "vision_model", "clip": "vision_model"}.get(kind)
        output = (getattr(model, vision) if vision else model)(x).last_hidden_state
    if kind == "convnext":
        norm = nn.functional.layer_norm(output.movedim(1, -1), (32,), eps=1e-6).movedim(-1, 1)
        torch.testing.assert_close(grid, norm, atol=1e-4, rtol=1e-3)
    else:
        torch.testing.assert_close(grid.flatten(2).mT, output[:, -side * side :])

    # frozen: dropout sleeps too
    assert count_parameters(encoder.train())[1] == 0
    assert torch.equal(encoder(x), grid) and not grid.requires_grad

    # from plain values and weights alone; and from_pretrained as part of another model, which builds on the meta device
    assert torch.equal(again(encoder)(x), grid)
    Wrapper(WrapperConfig(encoder=encoder.config), encoder).save_pretrained(tmp_path / "ours")
    (tmp_path / "published").rename(tmp_path / "gone")
    loaded = Wrapper.from_pretrained(tmp_path / "ours")
    assert torch.equal(loaded.encoder(x), grid)
    (tmp_path / "gone").rename(tmp_path / "published")

    # several stages, trained from one on; every parameter that is trained gets a gradient
    stages = [f"stage{blocks - 2}", f"stage{blocks - 1}"]
    tuned = build_encoder(name, stages=stages, train_from=stages[1])
    assert tuned(x).shape[1] == tuned.channels == (24 if kind == "convnext" else 64)
    tuned(x).square().sum().backward()
    frozen, trained = set(), set()
    for key, parameter in tuned.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), key
        (trained if parameter.requires_grad else frozen).add(key)
    assert trained and any("embed" in key for key in frozen) and not any("embed" in key for key in trained)
    if tuned.backbone.gives_maps:  # cut after the last stage wanted, whose norm is trained with it
        assert len(tuned.backbone.model.get_submodule(tuned.backbone.blocks)) == blocks - 1
        assert any("norm" in key and tuned.backbone.blocks not in key for key in trained)
    assert not any("pooler" in key or ".head." in key for key in frozen)
    whole = build_encoder(name, train_from="all")
    whole(x).square().sum().backward()
    assert all(p.requires_grad == (p.grad is not None) for p in whole.parameters()) and count_parameters(whole)[1] > 0


class WrapperConfig(transformers.PretrainedConfig):
    model_type = "wrapper_of_an_encoder"

    def __init__(self, encoder=None, **keywords):
        self.encoder = encoder
        super().__init__(**keywords)


class Wrapper(transformers.PreTrainedModel):
    config_class = WrapperConfig

    def __init__(self, config, encoder=None):
        super().__init__(config)
        self.encoder = encoder or encoder_from_config(config.encoder)
        self.post_init()

    def _init_weights(self, module):
        pass


def test_other_image_sizes(tmp_path):
    """Positions learned for 56 pixels are interpolated."""
    for kind in ("dinov2", "vit", "siglip"):
        tiny(kind).save_pretrained(tmp_path / kind)
        encoder = build_encoder(f"hf:{tmp_path / kind}")
        assert encoder(torch.randn(1, 3, 84, 42)).shape == (1, 32, 6, 3)


def test_the_processor_published_with_a_model(tmp_path):
    tiny("dinov2").save_pretrained(tmp_path)
    name = f"hf:{tmp_path}"
    assert build_encoder(name).preprocessing == Preprocessing(size=56)
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    crop = {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}}
    transformers.BitImageProcessor(**crop).save_pretrained(tmp_path)
    published = build_encoder(name).preprocessing
    assert (published.size, published.resize, published.crop_ratio) == (56, "crop", 0.875)
    transformers.SiglipImageProcessor(size={"height": 56, "width": 56}, **half).save_pretrained(tmp_path)
    assert build_encoder(name).preprocessing == Preprocessing(
        size=56, resize="squash", crop_ratio=1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    transformers.ConvNextImageProcessor(size={"shortest_edge": 56}, crop_pct=0.875).save_pretrained(tmp_path)
    published = build_encoder(name).preprocessing
    assert (published.size, published.resize, published.crop_ratio) == (56, "crop", 0.875)


def test_transformers_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be loaded"):
        build_encoder(f"hf:{tmp_path}")  # an empty folder
    config = transformers.BertConfig(**_TEXT)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="BertModel makes no grid of a photo"):
        build_encoder(f"hf:{tmp_path / 'bert'}")
    tiny("vit").save_pretrained(tmp_path / "vit")
    name = f"hf:{tmp_path / 'vit'}"
    with pytest.raises(UserError, match="no stage 'layer3'.*its stages: stem, stage1, stage2, stage3"):
        build_encoder(name, stages=["layer3"])
    with pytest.raises(UserError, match="brings its own weights"):
        build_encoder(name, weights="imagenet")
    state = load_file(tmp_path / "vit" / "model.safetensors")
    key = next(key for key in state if "0" in key and key.endswith("weight"))
    state.pop(key)
    save_file(state, tmp_path / "vit" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"its weights lack .* \(1 missing in all\)"):
        build_encoder(name)
