"""Controls of an attention claim: each takes away just what it says, and a run says which one it is."""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.utils import ModelOutput

from common.config import parse
from common.encoders import build_encoder, count_parameters
from common.errors import UserError
from common.training import evaluate
from vqa.answers import AnswerVocabulary
from vqa.attention import Attention, UniformAttention
from vqa.batches import QuestionBatches
from vqa.cells import mean_of
from vqa.controls import exchange_photos, matched_hidden
from vqa.data import load_rows
from vqa.model import VqaConfig, VqaModel
from vqa.options import EvaluateOptions, PredictVqaOptions, TrainVqaOptions
from vqa.predict import Answerer, predict
from vqa.processor import VqaProcessor
from vqa.scoring import evaluate_run
from vqa.shapes import write_shapes
from vqa.text import QuestionProcessor
from vqa.train import train

SMALL = (
    "--depth 3 --width 4 --image-size 32 --embedding 8 --hidden 16 --projection 16 --attention-hidden 16 "
    "--fusion-hidden 16 --batch-size 8 --epochs 1 --workers 0"
).split()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "scenes", train=16, validation=8, test=8, size=32)


@pytest.fixture(scope="module")
def start(scenes, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def start(output: Path, *more: object) -> Path:
        given = ["--data", scenes, "--output", output, "--cache", cache, *SMALL, *more]
        return train(parse(TrainVqaOptions, list(map(str, given))))

    return start


def build(**changes) -> VqaModel:
    torch.manual_seed(0)
    encoder = build_encoder("custom_cnn", depth=3, width=8)
    plain = {"encoder": encoder.config, "preprocessing": vars(encoder.preprocessing) | {"size": 32}}
    small = {"embedding": 6, "hidden": 8, "attention_hidden": 8, "projection": 10, "fusion_hidden": 12}
    return VqaModel(VqaConfig(words=9, answers=5, **plain, **(small | changes))).eval()


def two_questions_each(photos=2):
    torch.manual_seed(1)
    return {
        "input_ids": torch.randint(1, 9, (2 * photos, 4)),
        "lengths": torch.full((2 * photos,), 4),
        "image_index": torch.arange(photos).repeat_interleave(2),
        "pixels": torch.randint(0, 256, (photos, 3, 32, 32), dtype=torch.uint8),
    }


# --- weights ----------------------------------------------------------------------------------------------------------


def test_uniform_attention_is_the_mean_of_the_real_cells():
    items, mask = torch.randn(2, 5, 6), torch.tensor([[True] * 5, [True, False, True, True, False]])
    index = torch.tensor([1, 0, 1])
    attention = UniformAttention(3)
    glimpses, weights, scores = attention(items, torch.randn(3, 4), mask, index)
    assert torch.equal(glimpses, mean_of(items, mask)[index].repeat(1, 3))
    third = torch.tensor([1 / 3, 0, 1 / 3, 1 / 3, 0])
    torch.testing.assert_close(weights, torch.stack([third, torch.full((5,), 0.2), third])[:, None].expand(3, 3, 5))
    assert (scores[0, 0] == float("-inf")).tolist() == [False, True, False, False, True]
    assert not list(attention.parameters())


def test_a_uniform_model_looks_everywhere_alike_and_still_answers_the_question():
    model, batch = build(attention_weights="uniform"), two_questions_each()
    valid = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.25, 1.0, 0.75]])  # of the second photo half is padding
    output = model(**batch, valid=valid, return_attention=True)
    assert output.grid_attention.shape == (4, 2, 8, 8)
    torch.testing.assert_close(output.grid_attention[:2], torch.full((2, 2, 8, 8), 1 / 64))
    torch.testing.assert_close(output.grid_attention[2:, :, 2:6], torch.full((2, 2, 4, 8), 1 / 32))
    assert not output.grid_attention[2:, :, [0, 1, 6, 7]].any()
    assert not torch.allclose(output.logits[0], output.logits[1])


@pytest.mark.parametrize("scoring", ["product", "concat"])
def test_question_independent_attention_has_one_map_for_all_questions_of_a_photo(scoring):
    model = build(attention_weights="question_independent", scoring=scoring)
    output = model(**two_questions_each(), return_attention=True)
    maps = output.grid_attention
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[2], maps[3])
    assert not torch.allclose(maps[0], maps[2]) and not torch.allclose(maps[0], torch.full((2, 8, 8), 1 / 64))
    assert not torch.allclose(output.logits[0], output.logits[1])
    maps = build(scoring=scoring)(**two_questions_each(), return_attention=True).grid_attention
    assert not torch.allclose(maps[0], maps[1])  # which ordinary attention has not


def test_a_constant_query_is_scored_like_any_other():
    torch.manual_seed(0)
    keywords = {"hidden": 7, "glimpses": 2, "scoring": "product", "dropout": 0.0}
    constant, plain = Attention(6, 5, constant_query=True, **keywords), Attention(6, 5, **keywords)
    plain.load_state_dict({key: value for key, value in constant.state_dict().items() if key != "constant"})
    items, mask, index = torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool), torch.tensor([0, 1, 1])
    found = constant(items, torch.randn(3, 5), mask, index)
    wanted = plain(items, constant.constant.expand(3, 5), mask, index)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"layers": 2, "bidirectional": True}, {"recurrent": "gru", "fusion": "concat", "coordinates": False}],
    ids=str,
)
def test_matched_parameters_are_within_one_percent(changes):
    sizes = {"embedding": 64, "hidden": 64, "attention_hidden": 128, "projection": 128, "fusion_hidden": 128}
    with_attention = build(**sizes, **changes)
    config = build(**sizes, **changes, attention=False).config
    state = torch.random.get_rng_state()
    hidden, count, wanted = matched_hidden(config)
    assert torch.equal(torch.random.get_rng_state(), state)  # the run's weights are drawn as if nothing had been
    assert wanted == count_parameters(with_attention)[1] and not config.attention
    matched = build(**(sizes | {"hidden": hidden}), **changes, attention=False)
    assert count_parameters(matched)[1] == count and abs(count - wanted) <= 0.01 * wanted
    assert count_parameters(build(**sizes, **changes, attention=False))[1] < 0.99 * wanted


def test_parameters_that_cannot_be_matched_are_refused():
    with pytest.raises(UserError, match=r"--match-parameters: [\d,]+ trained parameters with attention.*larger model"):
        matched_hidden(build(attention=False, layers=2, bidirectional=True, hidden=2, fusion_hidden=2).config)


# --- shuffled images --------------------------------------------------------------------------------------------------


def test_every_photo_is_exchanged_for_one_of_another_group():
    photos = [f"p{number}" for number in range(20)]
    groups = [f"g{min(number // 3, 5)}" for number in range(20)]  # of 3 photos, the last of 5
    for seed in range(20):
        shown = exchange_photos(photos * 2, groups * 2, seed)
        assert sorted(shown) == sorted(shown.values()) == sorted(photos)
        group = dict(zip(photos, groups, strict=True))
        assert all(group[photo] != group[other] for photo, other in shown.items())
        assert shown == exchange_photos(photos[::-1], groups[::-1], seed)  # whatever the order of the rows
    assert exchange_photos(photos, groups, 0) != exchange_photos(photos, groups, 1)
    linked = exchange_photos(["a", "a", "b", "c", "d"], ["1", "2", "2", "3", "4"], 0)  # a holds groups 1 and 2 together
    assert {linked["a"], linked["b"]} == {"c", "d"}


@pytest.mark.parametrize("groups", ["a", "ab"[:1] * 3 + "b"])
def test_too_few_groups_to_exchange_are_refused(groups):
    photos = [f"p{number}" for number in range(len(groups))]
    with pytest.raises(UserError, match="--shuffled-images: .* are of one group"):
        exchange_photos(photos, list(groups), 0)


class Oracle(nn.Module):
    """Knows the right answer to every question about every photo by heart; to others it says the first."""

    def __init__(self, batches: QuestionBatches, answers: int) -> None:
        super().__init__()
        self.answers, self.known = answers, {}
        for item in range(len(batches)):
            batch = batches.__getitems__([(item, 0)])
            for key, label in zip(self.keys(**batch["inputs"]), batch["labels"].tolist(), strict=True):
                self.known[key] = label

    def keys(self, input_ids, lengths, image_index, pixels, valid):
        rows = zip(input_ids, lengths, image_index, strict=True)
        return [(pixels[photo].numpy().tobytes(), tuple(ids[:length].tolist())) for ids, length, photo in rows]

    def forward(self, **inputs) -> ModelOutput:
        said = [self.known.get(key, 0) for key in self.keys(**inputs)]
        return ModelOutput(logits=nn.functional.one_hot(torch.tensor(said), self.answers).float() * 9)


def test_whoever_knows_the_photos_fails_on_shuffled_ones(scenes, tmp_path):
    from accelerate import Accelerator

    rows, _ = load_rows(str(scenes), cache_directory=tmp_path)
    questions = QuestionProcessor.build(rows["question"][:], segmentation="syllable")
    answers = AnswerVocabulary.build(rows["answer"][:])
    preprocessing = build_encoder("custom_cnn", depth=3, width=4).preprocessing
    batches = QuestionBatches(rows, VqaProcessor(questions, answers, preprocessing))
    shuffled = batches.with_shuffled_images(0)
    assert all(own != shown for own, shown in zip(batches.hashes, shuffled.hashes, strict=True))
    assert [Path(path).name for path in shuffled.paths] != [Path(path).name for path in batches.paths]
    assert len(shuffled) == len(batches) and torch.equal(shuffled.labels, batches.labels)
    oracle, how = Oracle(batches, len(answers)), {"batch_size": 4, "workers": 0, "accelerator": Accelerator(cpu=True)}
    assert evaluate(oracle, batches, **how).accuracy == 1
    assert evaluate(oracle, shuffled, **how).accuracy < 0.5


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


def test_shuffled_images_take_a_training_over_and_score_it_without_the_photos(start, tmp_path, monkeypatch, capsys):
    run = start(tmp_path / "run")
    found = evaluate_run(parse(EvaluateOptions, [str(run), "--shuffled-images", "--cache", str(tmp_path)]))
    assert set(found) == {"test-shuffled-images"} and "photo exchanged" in capsys.readouterr().out
    started = []

    def fit(*arguments, **keywords):
        started.append(arguments)
        raise RuntimeError

    monkeypatch.setattr("common.training_runs.fit", fit)
    shuffled = start(tmp_path / "shuffled", "--shuffled-images")
    assert not started  # nothing was trained again
    weights = [load_file(path / "checkpoints" / "best_accuracy" / "model.safetensors") for path in (run, shuffled)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert metrics(shuffled)["test"] == found["test-shuffled-images"]
    assert metrics(shuffled)["test"]["loss"] != metrics(run)["test"]["loss"]
    report = (shuffled / "report.md").read_text(encoding="utf-8")
    assert "in ../run (the same options and seed: not trained again)" in report and "- shuffled images:" in report
    with (shuffled / "predictions-test.csv").open(encoding="utf-8", newline="") as file:
        assert all(row["shown_image"] != row["image"] for row in csv.DictReader(file))
    with pytest.raises(UserError, match="answers are not about their own photos"):
        predict(parse(PredictVqaOptions, ["--run", str(shuffled), "--examples", str(tmp_path / "x.png")]))
    assert (shuffled / "history.jsonl").read_bytes() == (run / "history.jsonl").read_bytes()
    with pytest.raises(RuntimeError):  # another seed is another training
        start(tmp_path / "other", "--shuffled-images", "--seed", 1)
    assert started


# --- runs and options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says", "map_"),
    [
        (["--attention-weights", "uniform"], "attention over: grid (uniform weights)", True),
        (["--attention-weights", "question_independent"], "attention over: grid (whatever the question)", True),
        (
            ["--no-attention", "--match-parameters", "--hidden", "64", "--fusion-hidden", "64"],
            "matched parameters: ",
            False,
        ),
    ],
    ids=["uniform", "question-independent", "matched"],
)
def test_a_control_is_trained_saved_and_drawn_as_what_it_is(start, scenes, tmp_path, given, says, map_):
    run = start(tmp_path / "run", "--no-test", *given)
    assert says in (run / "report.md").read_text(encoding="utf-8")
    config = Answerer.from_pretrained(run / "checkpoints" / "best_accuracy").model.config
    if map_:
        assert config.attention_weights == given[1]
        picture = tmp_path / "map.png"
        photo = str(next(scenes.glob("images/*.png")))
        asked = ["--run", str(run), "--image", photo, "--question", "có mấy hình", "--attention-map", str(picture)]
        predict(parse(PredictVqaOptions, asked))
        assert picture.stat().st_size > 1000
    else:
        assert config.hidden > 64 and not config.attends


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("--attention-weights uniform --no-attention", "--attention-weights uniform is about attention over the photo"),
        ("--attention-weights uniform --inputs image", "--attention-weights uniform is about"),
        ("--attention-weights question_independent --attention-over both", "--attention-weights question_independent"),
        ("--attention-weights uniform --grounding", "add --no-grounding"),
        ("--match-parameters", "--match-parameters .*needs --no-attention"),
        ("--match-parameters --no-attention --inputs question", "--match-parameters .*--inputs both"),
        ("--shuffled-images --inputs question", "--shuffled-images: .*no image is seen"),
    ],
)
def test_controls_that_would_change_nothing_are_refused(given, part):
    with pytest.raises(UserError, match=part):
        parse(TrainVqaOptions, given.split())


@pytest.mark.parametrize("changes", [{"attention": False}, {"attention_over": "words"}, {"grounding": True}], ids=str)
def test_a_model_that_cannot_be_such_a_control_is_refused(changes):
    with pytest.raises(UserError, match="attention_weights 'uniform': only where"):
        VqaConfig(attention_weights="uniform", **changes)


def test_a_blind_run_has_no_images_to_shuffle(start, tmp_path):
    run = start(tmp_path / "run", "--inputs", "question", "--no-test")
    with pytest.raises(UserError, match="sees no image"):
        evaluate_run(parse(EvaluateOptions, [str(run), "--shuffled-images"]))
