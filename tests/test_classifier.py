"""The image head: its shapes, its checkpoint, the layers that AlexNet keeps; and from a folder to a run, as typed."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from classifier_helpers import CLASSES, write_folder, write_photo
from PIL import Image

from common.classifier import ImageClassifier, ImageClassifierConfig
from common.classifier_batches import ImageBatches
from common.classifier_data import load_photos
from common.classifier_options import EvaluateImageOptions, TrainImageOptions
from common.classifier_predict import best, classify, load_classifier
from common.classifier_scoring import evaluate_run
from common.classifier_train import prepare
from common.config import build, parse
from common.encoders import build_encoder
from common.errors import UserError
from common.features import PhotoViews
from common.heads import OriginalHead
from common.images import Preprocessing, normalise
from common.metrics import top_k_errors
from common.optimisation import make_optimizer
from common.study import read_study
from common.training import make_accelerator
from common.weights import load_head, load_weights

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--encoder", "custom_cnn", "--depth", "2", "--width", "4", "--image-size", "32", "--workers", "0")


def small(name: str = "custom_cnn", **changes) -> ImageClassifier:
    options = {"depth": 2, "width": 4} if name == "custom_cnn" else {}
    train_from = changes.pop("train_from", "all")
    encoder = build_encoder(name, train_from=train_from, **options)
    preprocessing = Preprocessing(size=changes.pop("size", 32), resize="squash")
    config = ImageClassifierConfig(
        encoder=encoder.config, preprocessing=vars(preprocessing), classes=["a", "b", "c"], **changes
    )
    model = ImageClassifier(config)
    model.encoder = encoder
    return model


def squares(count: int = 3, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("train_from", ["all", "none", "block2"])
def test_pixels_and_cached_features_give_the_same_logits(pool, train_from):
    model = small(train_from=train_from, pool=pool).eval()
    pixels = squares()
    logits = model(pixels=pixels).logits
    assert logits.shape == (3, 3)
    assert torch.allclose(model(pixels=pixels[1:2]).logits, logits[1:2], atol=1e-5)
    if train_from != "all":
        features = model.encoder.frozen_features(normalise(pixels, Preprocessing(size=32, resize="squash")))
        if train_from == "none":
            features = model._pooled(features)
            assert features.shape == (3, model.encoder.channels * pool**2)
        assert torch.allclose(model(features=features).logits, logits, atol=1e-5)


def test_what_is_left_out_is_named():
    with pytest.raises(UserError, match="lacks an encoder"):
        ImageClassifier(ImageClassifierConfig())
    with pytest.raises(ValueError, match="needs pixels or features"):
        small()()


def test_a_checkpoint_is_complete_by_itself(tmp_path):
    model = small(pool=2).eval()
    model.save_pretrained(tmp_path / "checkpoint")
    again = load_classifier(tmp_path / "checkpoint")
    assert again.config.classes == ["a", "b", "c"] and not again.training
    write_photo(tmp_path / "photo.png", 0)
    said = classify(again, [tmp_path / "photo.png"] * 20)
    assert said.shape == (20, 3) and torch.allclose(said.sum(dim=1), torch.ones(20))
    assert torch.allclose(
        model(pixels=squares()).logits, again(pixels=squares().to(again.device)).logits.cpu(), atol=1e-6
    )
    guesses = best(again, said[0], 5)
    assert [row["class"] for row in guesses] == sorted("abc", key=lambda name: -said[0]["abc".index(name)])
    (tmp_path / "checkpoint" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model.safetensors: missing"):
        load_classifier(tmp_path / "checkpoint")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet"])
def test_encoder_and_head_are_the_whole_network(name):
    """torchvision's own network, with its own weights, makes the same logits."""
    more = {"aux_logits": False, "init_weights": False, "transform_input": True} if name == "googlenet" else {}
    whole = torchvision.models.get_model(name, weights=None, **more).eval()
    state = whole.state_dict()
    encoder, head = build_encoder(name), OriginalHead(name)
    load_weights(encoder, state, source="a test")
    load_head(head, state, source="a test")
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, found = whole(pixels), head.eval()(encoder.eval()(pixels))
    assert found.shape == (2, 1000)
    assert torch.allclose(found, wanted, atol=1e-3 * float(wanted.abs().max()))
    with pytest.raises(UserError, match=f"a test do not fit the ImageNet classifier of {name}"):
        load_head(
            head,
            {key: value for key, value in state.items() if "classifier" not in key and "fc" not in key},
            source="a test",
        )


def test_alexnet_keeps_its_fully_connected_layers():
    """Report R3 replaces the last layer alone: 4,096 numbers a photo go into it, and only it is trained."""
    model = small("alexnet", train_from="none", fully_connected=True, size=64)
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"classifier.weight": 3 * 4096, "classifier.bias": 3}
    assert sum(p.numel() for p in model.encoder_head.parameters()) == 37_752_832 + 16_781_312
    model.eval()
    grid = torch.randn(2, 256, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.encoder_head(grid), model.encoder_head(grid.flatten(1)))
    assert model(pixels=squares(2, 64)).logits.shape == (2, 3)


def test_an_encoder_of_random_weights_is_the_same_for_every_seed_if_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("HOIANH_CACHE", str(tmp_path / "cache"))
    values = {"data": str(write_folder(tmp_path / "data")), "encoder": "alexnet", "fully_connected": True}
    values |= {"train_encoder": "none", "image_size": 64, "encoder_seed": 7, "workers": 0, "batch_size": 3}
    one, other = (
        prepare(build(TrainImageOptions, values | {"seed": seed}), make_accelerator(build(TrainImageOptions, values)))
        for seed in (0, 1)
    )
    first, second = one.model.state_dict(), other.model.state_dict()
    assert {key for key in first if not torch.equal(first[key], second[key])} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_the_networks_own_layers_learn_at_the_encoders_rate():
    options = build(TrainImageOptions, {"data": "x", "learning_rate": 0.1, "encoder_learning_rate": 0.001})
    model = small()
    model.encoder_head = torch.nn.Linear(2, 2)
    rates = {
        group["lr"]: sum(p.numel() for p in group["params"]) for group in make_optimizer(model, options).param_groups
    }
    assert rates[0.1] == sum(p.numel() for p in model.classifier.parameters())
    assert rates[0.001] == sum(p.numel() for p in model.encoder.parameters()) + 6


def test_top_k_errors_stop_before_all_classes():
    figures = top_k_errors(np.array([1, 2, 3, 1]), np.array([0, 1, 2, 0]), classes=3)
    assert figures == {"top1_accuracy": 0.5, "top1_error": 0.5, "top2_accuracy": 0.75, "top2_error": 0.25}
    assert max(top_k_errors(np.ones(1), np.zeros(1), classes=1000)) == "top5_error"


def test_batches_show_other_views_in_training_alone(tmp_path):
    rows = load_photos(str(write_folder(tmp_path / "data")), cache_directory=tmp_path).splits["train"]
    plain = PhotoViews(preprocessing=Preprocessing(size=32))
    varied = PhotoViews(preprocessing=Preprocessing(size=32), augmentation=("flip", "crop"))

    def pixels(source, draw):
        return ImageBatches(rows, CLASSES, source=source).__getitems__([(0, draw)])["inputs"]["pixels"]

    assert torch.equal(pixels(plain, 0), pixels(plain, 5)) and torch.equal(pixels(plain, 0), pixels(varied, 0))
    assert not torch.equal(pixels(varied, 0), pixels(varied, 5))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "--data is missing"),
        ({"data": "x", "resize": "pad"}, "--resize pad"),
        ({"data": "x", "fully_connected": True}, "only alexnet and vgg16"),
        ({"data": "x", "encoder": "alexnet", "fully_connected": True, "pool": 2}, "leave --pool"),
        ({"data": "x", "encoder": "alexnet", "weights": "w.pth", "augment": ["flip"]}, "add --views"),
    ],
)
def test_options_that_do_not_fit_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        build(TrainImageOptions, values)


@pytest.mark.parametrize("config", sorted((ROOT / "configs" / "image").glob("*.yaml")), ids=lambda path: path.name)
def test_configurations_are_accepted(config):
    options = parse(TrainImageOptions, ["--config", str(config), "--data", "FOLDER"])
    assert options.output is None
    assert config.read_text(encoding="utf-8").startswith("#")


def test_the_study_of_r3_is_all_trainings():
    path = ROOT / "configs" / "studies" / "r3_transfer.yaml"
    study = read_study(str(path))
    cells = {cell.name: cell for cell in study.cells}
    reported = cells["AlexNet, last layer only"].reported
    assert (reported["loss"], reported["accuracy"]) == (0.2886, 0.9583)
    assert (reported["test top1_error"], reported["test top3_error"]) == (0.2083, 0.0833)
    assert cells["AlexNet, all layers"].reported["accuracy"] == 0.25
    assert study.pivot.columns == ("all layers", "last layer only")
    made = {name: build(TrainImageOptions, cell.shared | cell.own | {"data": "x"}) for name, cell in cells.items()}
    for name, options in made.items():
        assert options.epochs == (100 if "probe" in name else 30) and not options.test, name
    assert made["AlexNet, last layer only"].fully_connected and made["AlexNet, all layers"].train_encoder == "all"
    pair = [made["MobileNetV2, all layers"], made["MobileNetV2, all layers, 1e-4, batch norm kept"]]
    assert [(one.learning_rate, one.batch_norm) for one in pair] == [(1e-3, "train"), (1e-4, "eval")]
    for recipe in ("probe", "finetune"):  # the study's cell is what the file alone would train
        alone = parse(
            TrainImageOptions, ["--config", str(ROOT / "configs" / "image" / f"{recipe}.yaml"), "--data", "x"]
        )
        row = made[f"MobileNetV2, {recipe}"]
        changed = {name for name, value in vars(row).items() if getattr(alone, name) != value}
        assert changed <= {"config", "test", "score_train"}, recipe


def test_the_probe_is_what_its_trials_chose():
    cells = {cell.name: cell for cell in read_study(str(ROOT / "configs" / "studies" / "r3_trials.yaml")).cells}
    made = {name: build(TrainImageOptions, cell.shared | cell.own | {"data": "x"}) for name, cell in cells.items()}
    assert len(made) == 18 * 6 and not any(options.test for options in made.values())
    probe = parse(TrainImageOptions, ["--config", str(ROOT / "configs" / "image" / "probe.yaml"), "--data", "x"])
    changed = {name for name, value in vars(made["both 16 views, s0"]).items() if getattr(probe, name) != value}
    assert changed == {"config", "test", "test_fraction", "validation_fraction"}


# --- as typed ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(run_script, tmp_path_factory) -> Path:
    """A run of a folder that has a test split, whose photos are named by their label."""
    folder = tmp_path_factory.mktemp("image")
    write_folder(folder / "data", splits=("train", "validation"))
    for number, label in enumerate(("red_thing", "Green-Thing", "blue thing"), start=50):
        write_photo(folder / "data" / "test" / f"{label}_{number}.jpg", number, place=number - 50)
    arguments = ["--epochs", "12", "--learning-rate", "0.01", "--output", folder / "run"]
    said = run_script("scripts/train_image.py", "--data", folder / "data", *SMALL, *arguments).stdout
    assert "top-2" in said and "test accuracy" in said
    return folder / "run"


def test_a_run_is_whole(run):
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == {"validation", "test"} and metrics["test"]["n"] == 3
    figures = metrics["test"]
    assert figures["top1_error"] == 1 - figures["accuracy"] and figures["top2_error"] <= figures["top1_error"]
    assert "top3_error" not in figures and "macro_f1" in figures and set(figures["by_class"]) == set(CLASSES)
    assert metrics["validation"]["accuracy"] >= 2 / 3  # the classes are colours
    for name in ("curves.png", "confusion-test.png", "confusion-test.csv", "photos-test.png", "photos-validation.png"):
        assert (run / name).stat().st_size > 0
    assert "photos-test.png" in (run / "report.md").read_text(encoding="utf-8")
    with (run / "predictions-test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["gold"] for row in rows} == set(CLASSES) and all(int(row["gold_rank"]) in (1, 2, 3) for row in rows)


def test_scored_again_by_file_name(run, run_script, tmp_path):
    held = tmp_path / "held"
    for number, label in enumerate(("RED thing_3", "green-thing_12", "blue_thing"), start=70):
        write_photo(held / f"{label}.jpg", number, place=number - 70)
    (held / "notes.txt").write_text("beside", encoding="utf-8")
    result = run_script("scripts/evaluate.py", run, "--data", held, "--output", tmp_path / "out.json")
    figures = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["test"]
    assert figures["n"] == 3 and set(figures["by_class"]) == set(CLASSES)
    assert "top-1" in result.stdout and "notes.txt" in result.stdout
    write_photo(held / "purple_4.jpg", 90, place=0)
    refused = run_script("scripts/evaluate.py", run, "--data", held, check=False)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "'purple' (purple_4.jpg)" in refused.stderr


def test_what_a_run_refuses_to_score(run, tmp_path):
    cache = ["--cache", str(tmp_path / "cache"), "--workers", "0"]
    with pytest.raises(UserError, match="leak: 100 % of .*train photos are in the run's training split"):
        evaluate_run(parse(EvaluateImageOptions, [str(run), "--data", str(run.parent / "data" / "train"), *cache]))
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert evaluate_run(parse(EvaluateImageOptions, [str(run), *cache]))["test"]["accuracy"] == metrics["accuracy"]


def test_predicted(run, run_script, tmp_path):
    write_photo(tmp_path / "photos" / "a" / "one.jpg", 80, place=0)
    (tmp_path / "photos" / "two.jpg").write_bytes(b"no photo")
    photo = tmp_path / "photos" / "a" / "one.jpg"
    said = run_script("scripts/predict_image.py", "--run", run, "--image", photo, "--json", "--top", "2").stdout
    answer = json.loads(said)
    assert len(answer["classes"]) == 2 and answer["classes"][0]["class"] in CLASSES
    folder = (
        "scripts/predict_image.py",
        "--run",
        run,
        "--image",
        tmp_path / "photos",
        "--output",
        tmp_path / "out.csv",
    )
    refused = run_script(*folder, check=False)
    assert refused.returncode == 2 and "two.jpg" in refused.stderr and not (tmp_path / "out.csv").exists()
    assert "skipped" in run_script(*folder, "--on-bad-image", "skip").stdout
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == "a/one.jpg" and row["class_1"] == answer["classes"][0]["class"] and "class_3" in row


def test_stages_are_tuned_and_resumed_and_no_test_is_made(run_script, tmp_path):
    write_folder(tmp_path / "data", splits=("train", "validation"))
    common = ["scripts/train_image.py", "--data", tmp_path / "data", *SMALL, "--augment", "flip", "--views", "2"]
    common += ["--train-encoder", "block2", "--output", tmp_path / "run"]
    said = run_script(*common, "--epochs", "1").stdout
    assert "test: none" in said
    run_script("scripts/train_image.py", "--resume", "--output", tmp_path / "run", "--epochs", "2")
    history = (tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(history) == 2
    assert set(json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))) == {"validation"}
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))["train_encoder"] == "block2"
    with pytest.raises(UserError, match="has no test split; it has train, validation"):
        evaluate_run(parse(EvaluateImageOptions, [str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]))


def test_a_photo_is_as_a_sheet_shows_it(tmp_path):
    from common.photo_sheets import Guess, Ranked, draw_ranked, thumbnail

    photo = thumbnail(Image.new("RGB", (800, 400)))
    assert photo.size == (360, 180)
    ranked = Ranked(photo=photo, title="t", guesses=[[Guess(name="a $x$ b", probability=0.7, right=True)]] * 2)
    draw_ranked([("best", [ranked]), ("none", [])], tmp_path / "sheet.png", title="T", networks=("A", "B"))
    assert Image.open(tmp_path / "sheet.png").size[0] > 200
