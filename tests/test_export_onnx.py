"""Models as ONNX: the same numbers as PyTorch's own forward, and nothing left where they are not."""

import json
import random
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from torch import nn

from common.encoders import build_encoder
from common.errors import UserError
from common.export_onnx import OnnxModel, check, write_onnx
from common.images import Preprocessing
from common.recurrent import Recurrent
from common.symmetry import Symmetry, symmetries
from video.export import PaddedVideo, _own_forward
from video.model import VideoConfig, VideoModel
from vqa.answers import AnswerVocabulary
from vqa.export import _question_inputs
from vqa.export_model import ORDER, PlainVqa, axes
from vqa.export_text import about_ways, check_questions, normalizer
from vqa.model import VqaConfig, VqaModel
from vqa.predict import Answerer
from vqa.processor import VqaProcessor
from vqa.text import QuestionProcessor, normalise, turned

SIZE = 24


def preprocessing(**given) -> dict:
    return json.loads(json.dumps(asdict(Preprocessing(size=SIZE, **given))))


class Nets(nn.Module):
    """Every kind of `Recurrent`, one after another on the same sequences."""

    def __init__(self) -> None:
        super().__init__()
        kinds = [(kind, both) for kind in ("rnn", "gru", "lstm") for both in (False, True)]
        self.nets = nn.ModuleList(Recurrent(kind, 5, 4, layers=2, bidirectional=both) for kind, both in kinds)

    def forward(self, sequences, lengths):
        return tuple(tensor for net in self.nets for tensor in net(sequences, lengths))


def test_recurrent_nets_of_all_kinds(tmp_path):
    torch.manual_seed(0)
    nets = Nets().eval()
    outputs = [f"{what}_{place}" for place in range(6) for what in ("states", "final")]
    samples = [
        {"sequences": torch.randn(batch, steps, 5), "lengths": torch.tensor(lengths)}
        for batch, steps, lengths in ((1, 1, [1]), (4, 9, [9, 1, 4, 2]), (3, 6, [2, 5, 3]))  # the last: none is full
    ]
    model = OnnxModel(
        module=nets,
        inputs={"sequences": {0: "batch", 1: "steps"}, "lengths": {0: "batch"}},
        outputs=outputs,
        reference=lambda given: nets(**given),
        samples=samples,
        about_samples="noise",
    )
    found = write_onnx(model, tmp_path)
    assert set(found.by_output) == set(outputs) and 0 < found.difference < 1e-5
    assert found.shapes[0] == "sequences 1 × 1 × 5, lengths 1"

    import onnx

    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == ["batch", "steps", 5]
    assert sorted({node.op_type for node in graph.node} & {"LSTM", "GRU", "RNN", "Loop", "Scan"}) == [
        "GRU",
        "LSTM",
        "RNN",
    ]

    # Another model's numbers are noticed, and the file is gone.
    nets.nets[0].net.bias_ih_l0.data += 0.01
    with pytest.raises(UserError, match="onnxruntime's states_0 differ from PyTorch's by .*, more than 0.0001"):
        check(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_onnx_has_not_is_one_line(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return (torch.linalg.eigvals(x).real,)

    model = OnnxModel(
        module=Odd(),
        inputs={"x": {0: "batch"}},
        outputs=["y"],
        reference=lambda given: Odd()(**given),
        samples=[{"x": torch.randn(3, 2, 2)}],
        about_samples="noise",
    )
    with pytest.raises(UserError, match="cannot be exported to ONNX .*; share it with --to folder"):
        write_onnx(model, tmp_path)
    assert not list(tmp_path.iterdir())


BOTH = {"attention_over": "both", "bidirectional": True, "recurrent": "gru", "scoring": "concat", "fusion": "concat"}
GROUNDED = {"grounding": True, "place_answers": [1, 2, 3], "grounding_hidden": 8}


@pytest.mark.parametrize(
    ("given", "outputs"),
    [
        (BOTH, ["logits", "grid_attention", "word_attention"]),
        (GROUNDED, ["logits", "grid_attention"]),
        ({"inputs": "question"}, ["logits"]),
    ],
    ids=["both", "grounded", "blind"],
)
def test_vqa_models(tmp_path, given, outputs):
    torch.manual_seed(0)
    encoder = build_encoder("custom_cnn", depth=2, width=4, stages=["color", "block1", "block2"])
    sizes = dict.fromkeys(("embedding", "hidden", "attention_hidden", "projection", "fusion_hidden"), 8)
    sees = {} if given.get("inputs") == "question" else {"encoder": encoder.config}
    config = VqaConfig(preprocessing=preprocessing(resize="pad"), words=20, answers=7, **sizes, **sees, **given)
    module = PlainVqa(VqaModel(config).eval(), outputs, [Symmetry()], AnswerVocabulary(list("abcdefg")))
    used = [name for name in ORDER if sees or name in ("input_ids", "lengths")]

    def sample(photos: int, lengths: list[int]) -> dict:
        whole = {
            "input_ids": torch.randint(0, 20, (len(lengths), max(lengths))),
            "lengths": torch.tensor(lengths),
            "pixels": torch.randint(0, 256, (photos, 3, SIZE, SIZE), dtype=torch.uint8),
            "valid": torch.tensor([[0, 0.25, 1, 0.75]] * photos),
            "image_index": torch.arange(len(lengths)) % photos,
        }
        return {name: whole[name] for name in used}

    model = OnnxModel(
        module=module,
        inputs={name: axes(name, 1) for name in used},
        outputs=outputs,
        reference=lambda inputs: module(**inputs),
        samples=[sample(1, [1]), sample(3, [9, 2]), sample(2, [3, 6, 1, 2, 6])],
        about_samples="noise",
    )
    assert write_onnx(model, tmp_path).difference < 1e-5


HEADS = [
    {"head": "gru", "bidirectional": True, "readout": "attention", "difference": True, "projection": 6},
    {"head": "lstm", "readout": "mean"},
    {"head": "max", "feature_norm": True},
    {"head": "last"},
]


@pytest.mark.parametrize("given", HEADS, ids=lambda given: given["head"])
def test_padded_clips_as_the_model_reads_them(given):
    """Whatever pads them, and with frames as with their features."""
    torch.manual_seed(0)
    encoder = build_encoder("custom_cnn", depth=2, width=4)
    config = VideoConfig(
        encoder=encoder.config, preprocessing=preprocessing(resize="squash"), classes=["a", "b"], hidden=5, **given
    )
    model = VideoModel(config).eval()
    inputs = {
        "pixels": torch.randint(0, 256, (3, 5, 3, SIZE, SIZE), dtype=torch.uint8),
        "lengths": torch.tensor([2, 5, 1]),
    }
    with torch.inference_mode():
        for ours, theirs in zip(PaddedVideo(model)(**inputs), _own_forward(model, inputs, "pixels"), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_video_models(tmp_path):
    torch.manual_seed(0)
    encoder = build_encoder("custom_cnn", depth=2, width=4)
    config = VideoConfig(
        encoder=encoder.config, preprocessing=preprocessing(resize="squash"), classes=["a", "b"], hidden=5, **HEADS[0]
    )
    own = VideoModel(config).eval()
    samples = [
        {
            "pixels": torch.randint(0, 256, (len(lengths), max(lengths), 3, SIZE, SIZE), dtype=torch.uint8),
            "lengths": torch.tensor(lengths),
        }
        for lengths in ([1], [4, 2], [3, 6, 1])
    ]
    model = OnnxModel(
        module=PaddedVideo(own),
        inputs={"pixels": {0: "clips", 1: "frames"}, "lengths": {0: "clips"}},
        outputs=["logits", "attention"],
        reference=lambda inputs: _own_forward(own, inputs, "pixels"),
        samples=samples,
        about_samples="noise",
    )
    assert write_onnx(model, tmp_path).difference < 1e-5


_ODD = "aòhóa ùy.,:;!?'\"()[]{}<>0129``´“”…。？\u200b\u00a0\t\n\x1c\x85_Ạ̣đ²ÀÁếẾ"


@given(some.text(alphabet=_ODD, max_size=12))
def test_questions_are_normalised_alike_without_this_code(text):
    assert normalizer().normalize_str(text) == normalise(text)


def test_a_question_that_is_read_otherwise_is_noticed(monkeypatch):
    processor = QuestionProcessor.build(["Hòa ở đâu?", "màu gì, 2,5 hay o'clock"], segmentation="syllable")
    words = [word for text in ("hòa ở đâu", "màu gì, 2,5 'hay' o'clock...") for word in text.split()]
    random.Random(0).shuffle(words)
    check_questions(processor, [" ".join(words), "HÒA ?", "", "?!", "một từ lạ " * 30])
    monkeypatch.setattr("vqa.export_text.TONE_PAIRS", {})
    with pytest.raises(UserError, match="reads the question 'HÒA' otherwise than the model does"):
        check_questions(processor, ["HÒA"])


@pytest.mark.parametrize("segmentation", ["syllable", "pyvi"])
def test_a_question_about_a_turned_photo_is_read_alike(segmentation):
    """As the lines of a card turn it, and as the model does."""
    questions = [
        "Hình ở góc trên bên trái?",
        "phía dưới, bên PHẢI có gì",
        "có phải trái cây ở trên bàn",
        "màu gì",
        "?!",
    ]
    processor = QuestionProcessor.build(questions, segmentation=segmentation)
    ways = symmetries(("flip", "turn"))
    check_questions(processor, questions, ways)
    about = about_ways(ways)
    for text in map(normalise, questions):
        for way, words in zip(ways, about["ways"], strict=True):
            assert re.sub(about["sides"], lambda found, words=words: words[found[0]], text) == turned(text, way)


MODELS = [
    {"attention_over": "both", "fusion": "concat"},
    GROUNDED | {"place_answers": [0, 1]},
    {"inputs": "image"},
]


@pytest.mark.parametrize("given", MODELS, ids=["both", "grounded", "image"])
@pytest.mark.parametrize("resize", ["pad", "squash"])
def test_the_mean_over_ways_round_is_the_answerers(given, resize):
    torch.manual_seed(0)
    questions = ["bên trái là gì", "phía trên hình tròn có bao nhiêu hình", "màu gì"]
    answers = ["bên trái", "phía trên", "bên phải", "phía dưới", "ba", "đỏ", "góc trên bên trái"]
    encoder = build_encoder("custom_cnn", depth=2, width=4, stages=["color", "block1", "block2"])
    prepared = Preprocessing(size=SIZE, resize=resize)
    reader = QuestionProcessor.build(questions, segmentation="syllable")
    processor = VqaProcessor(reader, AnswerVocabulary(answers), prepared)
    sizes = dict.fromkeys(("embedding", "hidden", "attention_hidden", "projection", "fusion_hidden"), 8)
    config = VqaConfig(
        preprocessing=preprocessing(resize=resize),
        words=reader.vocab_size,
        answers=len(answers),
        encoder=encoder.config,
        test_augment=["flip", "turn"],
        **sizes,
        **given,
    )
    answerer = Answerer(model=VqaModel(config).eval(), processor=processor)
    noise = np.random.default_rng(0)
    photos = [Image.fromarray(noise.integers(0, 256, (20, wide, 3), np.uint8)) for wide in (30, 20, 12)]
    views = [processor.view(photo) for photo in photos]
    about = [1, 0, 2]
    if given.get("inputs") == "image":
        views = [views[place] for place in about]
        about = [0, 1, 2]
    log_p, output = answerer.log_probabilities(views, questions, image_index=about, return_attention=True)
    outputs = ["logits"] + ["grid_attention"] * ("grid" in config.attends)
    plain = PlainVqa(answerer.model, outputs, answerer.ways, processor.answers).eval()
    inputs = _question_inputs(answerer, questions) if given.get("inputs") != "image" else {}
    inputs["pixels"] = torch.stack([pixels for pixels, _ in views])
    if resize == "pad":
        inputs["valid"] = torch.tensor([valid for _, valid in views])
    if given.get("inputs") != "image":
        inputs["image_index"] = torch.tensor(about)
    with torch.inference_mode():
        found = dict(zip(outputs, plain(**inputs), strict=True))
    torch.testing.assert_close(found["logits"], log_p, atol=1e-5, rtol=0)
    if "grid" in config.attends:
        torch.testing.assert_close(found["grid_attention"], output.grid_attention, atol=1e-6, rtol=0)
