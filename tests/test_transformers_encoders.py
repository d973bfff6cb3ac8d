"""`hf:` encoders: the published model's grid, frozen or trained, rebuilt without its files, with its preprocessing."""

import pytest
import torch
import transformers
from encoder_helpers import again, pixels
from safetensors.torch import load_file, save_file
from torch import nn

from common.encoders import build_encoder, count_parameters, encoder_from_config
from common.errors import UserError
from common.images import Preprocessing

transformers.logging.disable_progress_bar()

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
