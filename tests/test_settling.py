"""Statistics for random encoders: estimated once, kept, and the same for every later run."""

import pytest
import torch
from encoder_helpers import noise_photos

from common.encoders import build_encoder
from common.features import PhotoViews
from common.images import Preprocessing, content_hash, normalise, read_image, to_tensor
from common.settling import settle

PREPROCESSING = Preprocessing(size=32, resize="squash")


@pytest.fixture
def photos(tmp_path):
    return noise_photos(tmp_path / "photos")


def seen(encoder, photos) -> torch.Tensor:
    with torch.no_grad():
        pixels = torch.stack([to_tensor(read_image(path), PREPROCESSING)[0] for path in photos])
        return encoder(normalise(pixels, PREPROCESSING)).mean((2, 3))


def test_a_random_deep_net_tells_photos_apart_once_its_batch_norm_has_statistics(photos, tmp_path):
    torch.manual_seed(0)
    encoder = build_encoder("resnet50").eval()
    rows = [(path, content_hash(path)) for path in photos]

    def alike() -> float:
        """The mean correlation of the features of two photos."""
        return torch.corrcoef(seen(encoder, photos))[~torch.eye(len(photos), dtype=torch.bool)].mean().item()

    before = alike()
    weights = {name: tensor.clone() for name, tensor in encoder.named_parameters()}
    settle(encoder, rows, PhotoViews(preprocessing=PREPROCESSING), tmp_path)
    assert before > 0.95 and alike() < 0.5 and not encoder.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.named_parameters())
    assert not any(module.training for module in encoder.modules())
    first = seen(encoder, photos)
    settle(encoder, rows, PhotoViews(preprocessing=PREPROCESSING), tmp_path)
    assert torch.equal(seen(encoder, photos), first)


@pytest.mark.parametrize("batch_norm, kept", [("train", True), ("eval", False)])
def test_what_is_trained_whole_estimates_its_statistics_itself_unless_they_are_fixed(
    photos, tmp_path, batch_norm, kept
):
    encoder = build_encoder("custom_cnn", depth=3, width=4, train_from="all", batch_norm=batch_norm).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    settle(encoder, [(photos[0], content_hash(photos[0]))], PhotoViews(preprocessing=PREPROCESSING), tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items()) == kept
    assert encoder.training


def test_no_batch_of_one_is_left_to_settle_on(photos, tmp_path):
    """17 squares on a grid of one cell: of 16 and 1, the one would have no variance."""
    encoder = build_encoder("resnet18")
    rows = [(path, content_hash(path)) for path in photos] * 3
    for count in (17, 1):
        settle(encoder, rows[:count], PhotoViews(preprocessing=PREPROCESSING), tmp_path)
        last = encoder.backbone.get_buffer(
            next(name for name in reversed(encoder.backbone.state_dict()) if "var" in name)
        )
        assert torch.isfinite(last).all() and not torch.equal(last, torch.ones_like(last))


def test_statistics_are_estimated_once_and_found_again(photos, tmp_path):
    """Photos that are gone are not asked for: what is kept is given. A torn file is made anew."""
    rows = [(path, content_hash(path)) for path in photos]
    source = PhotoViews(preprocessing=PREPROCESSING)

    def settled(files) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        encoder = build_encoder("resnet18")
        settle(encoder, files, source, tmp_path)
        return dict(encoder.named_buffers())

    first = settled(rows)
    (kept,) = (tmp_path / "settled").iterdir()
    found = settled([("gone.png", digest) for _, digest in rows])
    assert all(torch.equal(found[name], buffer) for name, buffer in first.items())
    other = settled(rows[:3])
    assert len(list(kept.parent.iterdir())) == 2
    assert not all(torch.equal(other[name], buffer) for name, buffer in first.items())
    kept.write_bytes(kept.read_bytes()[:100])
    again = settled(rows)
    assert all(torch.equal(again[name], buffer) for name, buffer in first.items())
    assert kept.stat().st_size > 100
