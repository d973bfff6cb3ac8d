"""Files of weights: fetched and found, refused when damaged or dangerous, and fitted into the right encoder only."""

import hashlib
import pickle

import pytest
import torch
import torchvision
from encoder_helpers import pixels
from safetensors.torch import load_file, save_file
from torch import nn

from common import zoo
from common.encoders import build_encoder, fingerprint
from common.errors import UserError
from common.images import IMAGENET_MEAN, IMAGENET_STD


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
        photos = pixels(96).contiguous(memory_format=torch.channels_last)  # as the encoder does: the same additions
        torch.testing.assert_close(encoder.pooled(photos), whole.eval()(photos))


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
