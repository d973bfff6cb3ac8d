"""The VQA model: shapes, masks, what each option changes, and a checkpoint that needs no other file."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from common.encoders import build_encoder
from common.errors import UserError
from common.images import normalise
from vqa.model import VqaConfig, VqaModel, cell_places, colors_seen, mean_of, where_found


def build(**changes) -> VqaModel:
    torch.manual_seed(0)
    chosen = {name: changes.pop(name) for name in ("stages", "train_from") if name in changes}
    encoder = build_encoder("custom_cnn", depth=3, width=8, **chosen)
    small = {"embedding": 6, "hidden": 8, "attention_hidden": 8, "projection": 10, "fusion_hidden": 12}
    plain = {"encoder": encoder.config, "preprocessing": vars(encoder.preprocessing) | {"size": 32}}
    if changes.get("inputs") == "question":
        plain = {}
    return VqaModel(VqaConfig(words=9, answers=5, **plain, **(small | changes))).eval()


def inputs(questions=3, photos=2):
    torch.manual_seed(1)
    return {
        "input_ids": torch.randint(1, 9, (questions, 4)),
        "lengths": torch.tensor([4, 2, 3][:questions]),
        "image_index": torch.tensor([0, 1, 1][:questions]),
        "pixels": torch.randint(0, 256, (photos, 3, 32, 32), dtype=torch.uint8),
    }


VARIANTS = [
    {"attention": False},
    {"attention": False, "fusion": "concat"},
    *(
        {"attention_over": over, "scoring": scoring}
        for over in ("grid", "words", "both")
        for scoring in ("product", "concat")
    ),
    {"attention_over": "both", "coordinates": False, "bidirectional": True, "layers": 2, "recurrent": "gru"},
    {"stages": ["color", "block1", "block3"]},
    {"stages": ["color"], "attention": False},
    {"stages": ["color"], "inputs": "image"},
    {"stages": ["color"], "train_from": "block2", "attention_over": "words", "fusion": "concat"},
    {"inputs": "image"},
    {"inputs": "question"},
    *({"attention_weights": weights} for weights in ("uniform", "question_independent")),
    {"attention_weights": "question_independent", "scoring": "concat", "stages": ["color", "block3"]},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_variant_answers_trains_and_survives_saving(changes, tmp_path):
    model, batch = build(**changes), inputs()
    output = model(**batch, return_attention=True)
    assert output.logits.shape == (3, 5)
    attends = model.config.attends
    assert (output.grid_attention is not None) == ("grid" in attends)
    assert (output.word_attention is not None) == ("words" in attends)
    if "grid" in attends:
        assert output.grid_attention.shape == (3, 2, 8, 8)
        torch.testing.assert_close(output.grid_attention.sum(dim=(2, 3)), torch.ones(3, 2))
    if "words" in attends:
        assert output.word_attention.shape == (3, 2, 4)
        assert (output.word_attention[1, :, 2:] == 0).all()  # a question of two words
    model.train()
    model(**batch).logits.logsumexp(dim=-1).sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    model.eval().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    expected = model(**batch).logits  # after training mode: batch norm has moved
    torch.testing.assert_close(VqaModel.from_pretrained(tmp_path).eval()(**batch).logits, expected)


def test_no_attention_has_no_attention_parameters():
    assert not [name for name, _ in build(attention=False).named_parameters() if "attention" in name]
    assert [name for name, _ in build().named_parameters() if "attention" in name]


@pytest.mark.parametrize("changes", VARIANTS[:8], ids=str)
def test_padding_of_questions_changes_no_logit(changes):
    model, batch = build(**changes), inputs()
    longer = batch | {"input_ids": torch.cat([batch["input_ids"], torch.zeros(3, 3, dtype=torch.long)], dim=1)}
    torch.testing.assert_close(model(**longer).logits, model(**batch).logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [{}, {"attention": False}, {"attention_over": "both"}, {"stages": ["color"]}, {"attention_weights": "uniform"}],
    ids=str,
)
def test_padded_cells_change_no_logit(changes):
    """What the encoder makes of the padding around a photo must not matter."""
    model, batch = build(**changes), inputs()
    grid = torch.randn(2, model.encoder.channels, 8, 8)
    other = grid.clone()
    other[:, :, :2] = 99.0  # the upper quarter is padding
    del batch["pixels"]
    valid = torch.tensor([[0.0, 0.25, 1.0, 1.0]] * 2)
    one, two = (model(**batch, features=features, valid=valid, return_attention=True) for features in (grid, other))
    torch.testing.assert_close(one.logits, two.logits)
    if one.grid_attention is not None:
        assert (one.grid_attention[:, :, :2] == 0).all()
    assert not torch.allclose(model(**batch, features=other).logits, one.logits)


def test_features_are_what_pixels_would_become():
    model, batch = build(), inputs()
    expected = model(**batch).logits
    features = model.encode(batch.pop("pixels"))
    torch.testing.assert_close(model(**batch, features=features).logits, expected)


def test_kept_features_are_what_pixels_would_become():
    model, batch = build(stages=["color", "block1", "block3"], train_from="block3"), inputs()
    expected = model(**batch).logits
    pixels = batch.pop("pixels")
    kept = model.encoder.frozen_features(normalise(pixels, model.encoder.preprocessing))
    assert kept.ndim == 2
    torch.testing.assert_close(model(**batch, features=kept).logits, expected)


def test_where_and_how_much_was_found():
    scores = torch.tensor([[[0.0, 9.0, -9.0, float("-inf")]]])  # (1, 1, 4), one cell is padding
    places = cell_places(2, 2)
    centre, found = where_found(scores.softmax(dim=-1), scores, places)[0].split([5, 2])
    torch.testing.assert_close(centre, places[1], atol=1e-3, rtol=0)  # nearly all the weight is on the second cell
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5]), atol=1e-3, rtol=0)  # (1/2 + 1 + 0) / 3 real cells


def test_colours_of_the_photo_and_of_each_glimpse():
    shares = torch.zeros(1, 2, 125)
    shares[0, 0, 3] = shares[0, 1, 7] = 1  # each cell of one colour
    mask, index = torch.ones(1, 2, dtype=torch.bool), torch.tensor([0, 0])
    weights = torch.tensor([[[1.0, 0.0]], [[0.36, 0.64]]])
    photo, glimpse = colors_seen(shares, mask, index, weights).split([125, 125], dim=1)
    assert (photo[:, [3, 7]] - 0.5**0.5).abs().max() < 1e-3 and photo[:, [0, 1]].max() < 2e-3
    torch.testing.assert_close(glimpse[:, [3, 7]], torch.tensor([[1.0, 0.0], [0.6, 0.8]]), atol=2e-3, rtol=0)
    assert torch.equal(colors_seen(shares, mask, index, None), photo)


def test_a_photo_alone_answers_as_in_a_batch():
    model, batch = build(), inputs()
    together = model(**batch).logits
    for row, photo in enumerate(batch["image_index"].tolist()):
        length = int(batch["lengths"][row])
        alone = model(
            input_ids=batch["input_ids"][row : row + 1, :length],
            lengths=batch["lengths"][row : row + 1],
            pixels=batch["pixels"][photo : photo + 1],
        )
        torch.testing.assert_close(alone.logits[0], together[row], atol=1e-5, rtol=1e-4)


def test_blind_model_never_sees_and_photo_model_never_reads():
    batch = inputs()
    blind = build(inputs="question")
    assert not hasattr(blind, "encoder")
    model = build(inputs="image")
    other = batch | {"input_ids": batch["input_ids"].flip(1)}
    torch.testing.assert_close(model(**batch).logits, model(**other).logits)


@pytest.mark.parametrize("name", ["pixels", "input_ids", "lengths"])
def test_an_input_that_is_left_out_is_named(name):
    batch = inputs()
    del batch[name]
    with pytest.raises(ValueError, match=f"needs {name}"):
        build()(**batch)


def test_places_and_means():
    assert cell_places(2, 3)[:, :2].tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]]  # row by row
    assert cell_places(2, 3)[2].tolist() == [1, -1, 1, 1, -1]
    cells, mask = torch.tensor([[[1.0], [3.0], [50.0]]]), torch.tensor([[True, True, False]])
    assert mean_of(cells, mask).tolist() == [[2.0]]


@pytest.mark.parametrize(
    "name, value", [("fusion", "sum"), ("attention_over", "photo"), ("attention_weights", "equal"), ("scoring", "dot")]
)
def test_unknown_values_are_refused(name, value):
    with pytest.raises(UserError, match=f"unknown {name} '{value}'; allowed"):
        VqaConfig(**{name: value})


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    build().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"glimpses": 3}), encoding="utf-8")
    with pytest.raises(UserError, match="do not fit"):
        VqaModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"attention": False}), encoding="utf-8")
    with pytest.raises(UserError, match="do not fit"):
        VqaModel.from_pretrained(tmp_path)


def test_loads_in_a_new_process_from_its_directory_alone(tmp_path):
    model, batch = build(), inputs()
    model.save_pretrained(tmp_path / "model")
    torch.save(batch, tmp_path / "batch.pt")
    code = (
        "import sys, torch; from vqa.model import VqaModel; m = VqaModel.from_pretrained(sys.argv[1]).eval();"
        "print(m(**torch.load(sys.argv[2], weights_only=True)).logits.tolist())"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "model"), str(tmp_path / "batch.pt")]
    result = subprocess.run(arguments, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, check=True)
    torch.testing.assert_close(torch.tensor(json.loads(result.stdout)), model(**batch).logits)


def test_frozen_encoder_stays_as_it_is():
    model = build()
    model.encoder = build_encoder("custom_cnn", depth=3, width=8, train_from="none")
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model.train()
    nn.functional.cross_entropy(model(**inputs()).logits, torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
