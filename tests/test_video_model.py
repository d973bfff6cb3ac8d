"""The video model: padding changes no logit, every head is what its name says, and a checkpoint needs no other file."""

import itertools
import json
import math

import pytest
import torch
from torch import nn

from common.encoders import build_encoder
from common.errors import UserError
from common.images import normalise
from common.recurrent import KINDS, keras_parameters
from video.model import VideoConfig, VideoModel

SIZE = 5  # of the features where there is no encoder
LENGTHS = torch.tensor([6, 2, 1, 3])

RECURRENT = [
    {"head": head, "bidirectional": bidirectional, "layers": layers, "readout": readout}
    for head, bidirectional, layers, readout in itertools.product(
        KINDS, (False, True), (1, 2), ("last", "mean", "attention")
    )
]
PLAIN = [{"head": head} for head in ("mean", "max", "last")]
MORE = [
    {"head": "lstm", "projection": 3, "feature_norm": True, "dropout": 0.5, "input_dropout": 0.5},
    {"head": "max", "projection": 3, "feature_norm": True},
    {"head": "gru", "bidirectional": True, "initialisation": "keras"},
]
HEADS = [*RECURRENT, *PLAIN, *MORE]


def build(**changes) -> VideoModel:
    """A model of features, in eval mode."""
    torch.manual_seed(0)
    return VideoModel(VideoConfig(**({"features": SIZE, "hidden": 4, "classes": list("abc")} | changes))).eval()


def build_seeing(encoder=None, **changes) -> VideoModel:
    """A model of frames of 16 pixels, in eval mode."""
    torch.manual_seed(0)
    encoder = encoder or small_encoder()
    preprocessing = vars(encoder.preprocessing) | {"size": 16}
    about = {"encoder": encoder.config, "preprocessing": preprocessing, "pool": 2}
    model = build(**(about | changes))
    model.encoder.load_state_dict(encoder.state_dict())
    return model.eval()


def small_encoder(**keywords):
    return build_encoder("custom_cnn", depth=2, width=4, **keywords)


def clips(lengths: torch.Tensor = LENGTHS, size: int = SIZE) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, size, generator=generator) for length in lengths.tolist()]


def padded(features: list[torch.Tensor], extra: int) -> torch.Tensor:
    """`(B, T + extra, D)` with noise of every kind where a clip has ended, NaN and infinity too."""
    longest = max(map(len, features)) + extra
    noise = 1e4 * torch.randn(len(features), longest, features[0].shape[1], generator=torch.Generator().manual_seed(2))
    noise[:, -1], noise[:, -2] = torch.nan, torch.inf
    for row, clip in enumerate(features):
        noise[row, : len(clip)] = clip
    return noise


def pixels(count: int, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def equal(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", HEADS, ids=str)
def test_padding_changes_no_logit(changes):
    model, features = build(**changes), clips()
    mate, more = clips(torch.tensor([40, 8]))
    output = model(LENGTHS, features=torch.cat(features))
    assert output.logits.shape == (4, 3)
    with torch.no_grad():
        for extra in (2, 9):
            equal(model(LENGTHS, features=padded(features, extra)).logits, output.logits)
        for row, clip in enumerate(features):
            alone = model(LENGTHS[row : row + 1], features=clip)
            equal(alone.logits[0], output.logits[row])
            together = model(torch.tensor([40, len(clip)]), features=torch.cat([mate, clip]))
            equal(together.logits[1], output.logits[row])
    longer = model(torch.tensor([14]), features=torch.cat([features[0], more]))  # while frames of its own do
    assert (longer.logits[0] - output.logits[0]).abs().max() > 1e-4


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_no_logit_of_a_net_of_ordinary_size(bidirectional):
    model = build(features=1280, hidden=128, bidirectional=bidirectional, initialisation="keras")
    lengths = torch.tensor([16, 9, 30, 1])
    features = clips(lengths, 1280)
    with torch.no_grad():
        together = model(lengths, features=torch.cat(features)).logits
        equal(model(lengths, features=padded(features, 20)).logits, together)
        for row, clip in enumerate(features):
            equal(model(lengths[row : row + 1], features=clip).logits[0], together[row])


@pytest.mark.parametrize("changes", [c for c in RECURRENT if c["readout"] == "attention"], ids=str)
def test_attention_is_over_a_clips_own_frames(changes):
    model, features = build(**changes), clips()
    weights = model(LENGTHS, features=padded(features, 4)).attention
    assert weights.shape == (4, 6)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    for row, length in enumerate(LENGTHS.tolist()):
        assert (weights[row, length:] == 0).all() and (weights[row, :length] > 0).all()
    assert weights[0].std() > 1e-4  # and no plain mean
    states, _ = model.recurrent(nn.utils.rnn.pad_sequence(features, batch_first=True), LENGTHS)
    expected = model.classifier((weights.unsqueeze(-1) * states).sum(dim=1))
    equal(model(LENGTHS, features=torch.cat(features)).logits, expected)


def test_only_temporal_attention_has_weights_to_show():
    features = torch.cat(clips())
    for changes in ({"head": "lstm"}, {"head": "lstm", "readout": "mean"}, *PLAIN):
        assert build(**changes)(LENGTHS, features=features).attention is None
    assert not hasattr(build(head="mean", readout="attention"), "attention")  # no states to attend to


# --- what each head is ------------------------------------------------------------------------------------------------


def test_plain_heads_are_what_their_names_say():
    features = clips()
    wanted = {"mean": lambda clip: clip.mean(0), "max": lambda clip: clip.amax(0), "last": lambda clip: clip[-1]}
    for head, summary in wanted.items():
        model = build(head=head)
        assert [name for name, _ in model.named_parameters()] == ["classifier.weight", "classifier.bias"]
        expected = model.classifier(torch.stack([summary(clip) for clip in features]))
        equal(model(LENGTHS, features=torch.cat(features)).logits, expected)


@pytest.mark.parametrize("head", KINDS)
def test_recurrent_heads_read_out_the_last_own_state_or_the_mean(head):
    features = clips()
    for readout in ("last", "mean"):
        model = build(head=head, readout=readout, layers=2)
        for clip in features:
            states = model.recurrent.net(clip.unsqueeze(0))[0][0]  # (T, hidden), by PyTorch itself
            read = states[-1] if readout == "last" else states.mean(0)
            equal(model(torch.tensor([len(clip)]), features=clip).logits[0], model.classifier(read))
    both = build(head=head, bidirectional=True)
    clip = features[0]
    states = both.recurrent.net(clip.unsqueeze(0))[0][0]
    read = torch.cat([states[-1, :4], states[0, 4:]])  # where each direction ends
    equal(both(torch.tensor([len(clip)]), features=clip).logits[0], both.classifier(read))


@pytest.mark.parametrize("changes", HEADS, ids=str)
def test_every_parameter_is_trained(changes):
    """Several processes need that: DistributedDataParallel waits for every gradient."""
    model = build(**changes).train()
    model(LENGTHS, features=torch.cat(clips())).logits.logsumexp(dim=-1).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_order_matters_to_recurrent_heads_and_to_the_last_frame_alone():
    features = torch.cat(clips(torch.tensor([6])))
    order, length = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([6])
    for changes in ({"head": "lstm"}, {"head": "gru", "readout": "mean"}, {"head": "last"}, *PLAIN[:2]):
        model = build(**changes)
        plain, shuffled = model(length, features=features).logits, model(length, features=features, order=order).logits
        equal(shuffled, model(length, features=features[order]).logits)
        assert torch.allclose(plain, shuffled, atol=1e-6) is (changes["head"] in ("mean", "max"))


def test_each_dropout_acts_in_training_alone():
    def varies(model) -> bool:
        return not torch.equal(*(model(LENGTHS, features=torch.cat(clips())).logits for _ in range(2)))

    for changes in ({"dropout": 0.5}, {"input_dropout": 0.5}, {"dropout": 0.5, "head": "mean"}):
        model = build(**changes)
        assert not varies(model) and varies(model.train())
    assert not varies(build().train())
    assert build(layers=2, dropout=0.5).recurrent.net.dropout == 0.5  # between the layers too


def test_projection_and_norm_come_before_the_net():
    model = build(projection=3, feature_norm=True, head="lstm")
    assert model.project.weight.shape == (3, SIZE) and model.recurrent.net.input_size == 3
    features = clips()[0]
    scaled = model(torch.tensor([6]), features=7 * features + 2).logits  # what a LayerNorm takes away
    torch.testing.assert_close(scaled, model(torch.tensor([6]), features=features).logits, atol=1e-4, rtol=0)
    plain = build(head="lstm")
    assert not torch.allclose(
        plain(torch.tensor([6]), features=7 * features + 2).logits, plain(torch.tensor([6]), features=features).logits
    )
    assert isinstance(plain.norm, nn.Identity) and isinstance(plain.project, nn.Identity)


@pytest.mark.parametrize("changes", [*RECURRENT[2::6], *PLAIN, *MORE], ids=str)
def test_lower_precision_is_nearly_the_same(changes):
    model, features = build(**changes), torch.cat(clips())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lower = model(LENGTHS, features=features).logits
    torch.testing.assert_close(lower.float(), model(LENGTHS, features=features).logits, atol=0.05, rtol=0)
    halves = model(LENGTHS, features=features.half()).logits  # as they are cached
    torch.testing.assert_close(halves, model(LENGTHS, features=features).logits, atol=0.005, rtol=0)


# --- report R2 --------------------------------------------------------------------------------------------------------

R2 = {  # parameters by Keras's count, as the report's table has them
    "lstm": {50: 112_804, 100: 245_604, 200: 571_204, 500: 2_028_004},
    "gru": {50: 84_804, 100: 184_604, 200: 429_204, 500: 1_523_004},
    "deep lstm": {50: 133_004, 100: 326_004, 200: 892_004, 500: 4_030_004},
}


@pytest.mark.parametrize("name, units", [(name, units) for name, counts in R2.items() for units in counts])
def test_report_r2_has_as_many_parameters(name, units):
    layers = {"layers": 2} if name.startswith("deep") else {}
    model = build(features=512, head=name.split()[-1], hidden=units, classes=list("abcd"), **layers)
    assert keras_parameters(model.head) == R2[name][units]
    two_biases = 0 if name == "gru" else 4 * units * layers.get("layers", 1)
    assert sum(p.numel() for p in model.parameters()) == R2[name][units] + two_biases


def test_the_count_leaves_out_the_encoder():
    model = build_seeing(head="lstm", hidden=10)
    assert keras_parameters(model.head) == 4 * (10 * (model.encoder.channels * 4 + 10) + 10) + 10 * 3 + 3


@pytest.mark.parametrize("kind", KINDS)
def test_initialised_as_keras_does(kind):
    model = build(head=kind, hidden=32, layers=2, bidirectional=True, initialisation="keras", projection=16)
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[kind]
    forget = torch.zeros(gates * 32)
    if kind == "lstm":
        forget[32:64] = 1  # PyTorch's gates: input, forget, cell, output
    for name, weights in model.recurrent.net.named_parameters():
        if name.startswith("weight_hh"):
            torch.testing.assert_close(weights.T @ weights, torch.eye(32), atol=1e-5, rtol=0)
        elif name.startswith("weight_ih"):
            limit = math.sqrt(6 / sum(weights.shape))
            assert 0.9 * limit < weights.abs().max() <= limit
        else:
            assert torch.equal(weights, forget if name.startswith("bias_ih") else torch.zeros(gates * 32)), name
    for linear in (model.project, model.classifier):
        limit = math.sqrt(6 / sum(linear.weight.shape))
        assert 0.8 * limit < linear.weight.abs().max() <= limit and (linear.bias == 0).all()
    net = build(head=kind, hidden=32).recurrent.net  # PyTorch's own, without the option
    assert (net.bias_ih_l0 != 0).any() and not torch.allclose(net.weight_hh_l0.T @ net.weight_hh_l0, torch.eye(32))


# --- with an encoder --------------------------------------------------------------------------------------------------


def test_the_grid_is_averaged_to_so_many_cells():
    """The size of what the net sees, and for one cell the mean itself."""
    frames = pixels(3)
    for pool in (1, 2, 4):
        model = build_seeing(pool=pool, head="mean")
        features = model.encode(frames)
        assert features.shape == (3, model.encoder.channels * pool**2)
        assert model.classifier.in_features == features.shape[1]
        equal(model(torch.tensor([3]), features=features).logits, model(torch.tensor([3]), pixels=frames).logits)
    model = build_seeing(pool=1)
    expected = model.encoder.pooled(normalise(frames, model._preprocessing))
    torch.testing.assert_close(model.encode(frames), expected)


def test_report_r1_taps_an_early_stage_and_has_no_later_ones():
    encoder = build_encoder("resnet18", stages=["layer2"])
    model = build_seeing(encoder, pool=2, head="lstm", layers=2, hidden=8)
    assert model.recurrent.net.input_size == 128 * 4
    assert model.encode(pixels(2, 32)).shape == (2, 128 * 4)
    names = model.state_dict()
    assert [name for name in names if ".layer2." in name]
    assert not [name for name in names if ".layer3." in name or ".layer4." in name or ".fc." in name]
    with torch.device("meta"):  # the report's own sizes
        for stage, channels in (("layer2", 512), ("layer1", 256)):
            encoder = build_encoder("resnet101", stages=[stage])
            assert encoder.channels == channels
            about = {"encoder": encoder.config, "preprocessing": vars(encoder.preprocessing), "pool": 2}
            assert build(**about, hidden=128, layers=2).recurrent.net.input_size == 4 * channels


def test_report_r1s_own_network_gives_2048_numbers_a_frame():
    encoder = build_encoder("custom_cnn", depth=3, width=32)
    model = build_seeing(encoder, pool=4, preprocessing=vars(encoder.preprocessing) | {"size": 128}, layers=2)
    assert model.encode(pixels(1, 128)).shape == (1, 2048)


def test_a_frame_that_comes_twice_is_encoded_once():
    model, frames = build_seeing(), pixels(4)
    places, lengths = torch.tensor([0, 1, 1, 1, 3, 2, 3]), torch.tensor([4, 3])
    seen = []
    model.encoder.register_forward_hook(lambda module, given, result: seen.append(len(result)))
    found = model(lengths, pixels=frames, places=places).logits
    assert seen == [4]
    equal(found, model(lengths, pixels=frames[places]).logits)


def test_a_long_clip_is_encoded_in_parts():
    frames = pixels(150)
    for train_from, expected in (("none", [64, 64, 22]), ("all", [150])):
        model = build_seeing(small_encoder(train_from=train_from), head="mean")
        sizes = []
        model.encoder.register_forward_hook(lambda module, given, result, sizes=sizes: sizes.append(len(result)))
        with torch.enable_grad():
            output = model(torch.tensor([150]), pixels=frames).logits
        assert sizes == expected  # what is trained is in one piece: batch norm must see its whole batch
        whole = model._pooled(model.encoder(normalise(frames, model._preprocessing)))
        equal(output, model(torch.tensor([150]), features=whole).logits)


@pytest.mark.parametrize("changes", [{"head": "lstm"}, {"head": "gru", "bidirectional": True, "readout": "attention"}])
def test_padding_changes_no_logit_of_frames_either(changes):
    model, frames = build_seeing(**changes), pixels(9)
    together = model(torch.tensor([2, 7]), pixels=frames).logits
    equal(model(torch.tensor([2]), pixels=frames[:2]).logits[0], together[0])
    equal(model(torch.tensor([7]), pixels=frames[2:]).logits[0], together[1])


@pytest.mark.parametrize("train_from", ["none", "block2"])
def test_features_are_what_pixels_would_become(train_from):
    model, frames, lengths = build_seeing(small_encoder(train_from=train_from)), pixels(5), torch.tensor([2, 3])
    kept = model.encoder.frozen_features(normalise(frames, model._preprocessing))
    kept = model._pooled(kept) if train_from == "none" else kept
    assert kept.ndim == 2
    equal(model(lengths, features=kept).logits, model(lengths, pixels=frames).logits)


def trained(model: VideoModel) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The encoder's tensors before and after some steps of training the whole model."""
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        model.train()
        loss = nn.functional.cross_entropy(model(torch.tensor([2, 3]), pixels=pixels(5)).logits, torch.tensor([0, 1]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return before, model.encoder.state_dict()


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name.removeprefix("backbone.") for name in before if not torch.equal(before[name], after[name])}


def test_a_frozen_encoder_stays_as_it_is_statistics_included():
    model = build_seeing(small_encoder(train_from="none", batch_norm="train"), head="lstm")
    weight = model.classifier.weight.clone()
    before, after = trained(model)
    assert [name for name in before if "running_mean" in name]
    assert changed(before, after) == set() and not torch.equal(weight, model.classifier.weight)


def test_of_a_partly_trained_encoder_only_the_trained_stages_change():
    kept = changed(*trained(build_seeing(small_encoder(train_from="block2", batch_norm="eval"), head="lstm")))
    moving = changed(*trained(build_seeing(small_encoder(train_from="block2", batch_norm="train"), head="lstm")))
    assert kept and all(name.startswith("block2.") for name in kept | moving)
    assert not [name for name in kept if "running" in name or "batches" in name]
    assert moving - kept == {f"block2.2.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    everything = changed(*trained(build_seeing(small_encoder(train_from="all", batch_norm="train"), head="lstm")))
    assert {name.split(".")[0] for name in everything} == {"block1", "block2"}


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [*RECURRENT[::5], *PLAIN, *MORE], ids=str)
def test_survives_saving(changes, tmp_path):
    model, features = build(**changes, sampling={"kind": "first", "frames": 3}), torch.cat(clips())
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    again = VideoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(again(LENGTHS, features=features).logits, model(LENGTHS, features=features).logits)
    assert again.config.classes == ["a", "b", "c"] and again.config.sampling == {"kind": "first", "frames": 3}


def test_a_model_with_an_encoder_survives_saving(tmp_path):
    model, frames = build_seeing(small_encoder(train_from="block2", batch_norm="train")), pixels(5)
    trained(model)
    expected = model.eval()(torch.tensor([5]), pixels=frames).logits
    model.save_pretrained(tmp_path)
    again = VideoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(again(torch.tensor([5]), pixels=frames).logits, expected)
    assert again.encoder.frozen_part == "some"


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    build().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    for change in ({"hidden": 6}, {"readout": "attention"}, {"head": "mean"}, {"classes": ["a", "b"]}):
        (tmp_path / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
        with pytest.raises(UserError, match="do not fit"):
            VideoModel.from_pretrained(tmp_path)


def test_what_is_left_out_is_named():
    with pytest.raises(UserError, match="lacks the preprocessing"):
        build_seeing(preprocessing=None)
    with pytest.raises(ValueError, match="needs pixels or features"):
        build_seeing()(lengths=LENGTHS)


@pytest.mark.parametrize(
    "name, value", [("head", "transformer"), ("readout", "first"), ("initialisation", "he"), ("frame_order", "random")]
)
def test_unknown_values_are_refused(name, value):
    with pytest.raises(UserError, match=f"unknown {name} '{value}'; allowed"):
        VideoConfig(**{name: value})
