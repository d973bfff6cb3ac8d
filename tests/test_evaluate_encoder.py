"""Top-k errors of ImageNet classifiers: what a label means, how it is counted, and the command as typed."""

import csv
import json

import pytest
import torch
import torchvision
from classifier_helpers import write_photo
from safetensors.torch import save_file

from common.config import parse
from common.encoder_scoring import judge, top_k_figures
from common.encoder_scoring_options import EvaluateEncoderOptions
from common.errors import UserError
from common.imagenet import class_names, exact, nearest, starting
from common.pictures import best_and_worst

NAMES = class_names("mobilenet_v2")


def names_of(places: list[int]) -> list[str]:
    return [NAMES[place] for place in places]


def test_what_a_label_means():
    assert len(NAMES) == 1000 and class_names("googlenet") == NAMES
    assert names_of(starting("lion", NAMES)) == ["lion", "lionfish"]
    assert names_of(exact("Lion", NAMES)) == ["lion"]
    assert starting("dragon", NAMES) and not exact("dragon", NAMES)
    assert names_of(exact("jack_o_lantern", NAMES)) == ["jack-o'-lantern"]
    assert names_of(exact("MODEL_T", NAMES)) == ["Model T"] == names_of(exact("model-t", NAMES))
    assert names_of(exact("n01440764_tench", NAMES)) == ["tench"]
    assert names_of(exact("cardigan", NAMES)) == ["Cardigan", "cardigan"]  # the dog and the jacket
    assert names_of(exact("yellow ladys slipper", NAMES)) == ["yellow lady's slipper"]
    assert [nearest(label, NAMES) for label in ("beegle", "hot_dog", "Unicorn")] == ["beagle", "hotdog", None]
    assert starting("", NAMES) == starting("_", NAMES) == starting("xyz", NAMES) == []


def test_errors_worked_by_hand():
    """Of seven classes; the label of no class is counted apart, and as wrong among all."""
    names = ["lion", "lionfish", "tench", "cab", "cabbage", "dome", "bun"]
    rows = [
        {"id": f"{place}.jpg", "image": "", "label": label, "named": True}
        for place, label in enumerate(["lion_1", "lion_2", "tench", "cabb", "unicorn_3", "lion 4"])
    ]
    order = torch.tensor(
        [
            [0, 1, 2, 3, 4, 5, 6],
            [1, 0, 2, 3, 4, 5, 6],
            [0, 1, 3, 4, 5, 6, 2],
            [3, 4, 0, 1, 2, 5, 6],
            [0, 1, 2, 3, 4, 5, 6],
            [2, 3, 4, 5, 6, 0, 1],
        ]
    )
    falling = torch.arange(7, 0, -1, dtype=torch.double).expand(6, 7) / 28
    probabilities = torch.zeros(6, 7, dtype=torch.double).scatter(1, order, falling)
    photos = judge(rows, probabilities, names)
    assert [photo["label"] for photo in photos] == ["lion", "lion", "tench", "cabb", "unicorn", "lion"]
    assert [photo["rules"]["starts with"]["rank"] for photo in photos] == [1, 1, 7, 2, None, 6]
    assert [photo["rules"]["exact"]["rank"] for photo in photos] == [1, 2, 7, None, None, 6]
    assert photos[1]["rules"]["exact"]["probability"] == 6 / 28 and photos[2]["top"][0] == ("lion", 7 / 28)
    figures = top_k_figures(photos)
    assert figures["starts with"] == {
        "n": 5,
        "n_no_class": 1,
        "n_all": 6,
        "top1_error": 1 - 2 / 5,
        "top1_error_all": 1 - 2 / 6,
        "top5_error": 1 - 3 / 5,
        "top5_error_all": 1 - 3 / 6,
    }
    assert figures["exact"]["n"] == 4 and figures["exact"]["top1_error"] == 0.75
    assert figures["exact"]["top5_error"] == 0.5 and figures["exact"]["n_no_class"] == 2


def test_best_and_worst_are_different_photos():
    rows = [{"id": str(n), "gold_probability": n / 10, "gold_rank": 1} for n in range(5)]
    best, worst = best_and_worst(rows, 4)
    assert [row["id"] for row in best] == ["4", "3", "2"] and [row["id"] for row in worst] == ["0", "1"]
    assert best_and_worst(rows[:1], 3) == (rows[:1], [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--encoder", "custom_cnn"], "custom_cnn has no ImageNet classifier"),
        (["--encoder", "mobilnet_v2"], "did you mean 'mobilenet_v2'"),
        (["--weights", "none"], "--weights none: random weights know no class"),
        (["--second-weights", "x.pth"], "--second-weights are of --second-encoder"),
        (["--second-encoder", "hf:x"], "--second-encoder hf:x has no ImageNet"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        parse(EvaluateEncoderOptions, ["--data", "x", *arguments])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Whole networks with random weights, as files."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name in ("mobilenet_v2", "resnet18"):
        save_file(torchvision.models.get_model(name, weights=None).state_dict(), folder / f"{name}.safetensors")
    state = torchvision.models.mobilenet_v2(weights=None, num_classes=5).state_dict()
    save_file(state, folder / "five.safetensors")
    return folder


def test_as_typed(run_script, weights, tmp_path):
    for seed, name in enumerate(("lion.jpg", "lion_2.jpg", "tench.jpg", "Coffee-Mug.png", "nothing of the kind.jpg")):
        write_photo(tmp_path / "photos" / name, seed, place=seed % 3)
    command = ["scripts/evaluate_encoder.py", "--data", tmp_path / "photos", "--output", tmp_path / "out"]
    command += ["--encoder", "mobilenet_v2", "--weights", weights / "mobilenet_v2.safetensors", "--show", "2"]
    command += ["--second-encoder", "resnet18", "--second-weights", weights / "resnet18.safetensors"]
    said = run_script(*command).stdout
    assert "label of no class, 1 photo(s), counted apart: 'nothing of the kind' (nothing of the kind.jpg)" in said
    assert "'lion' accepts lion | lionfish" in said and "starts with the label (R3)" in said
    out = tmp_path / "out"
    found = json.loads((out / "table.json").read_text(encoding="utf-8"))
    assert found["rules"]["starts with"]["n"] == 4 and found["rules"]["exact"]["n_all"] == 5
    assert len(found["judged_again"]["photos"]) == 2
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows["lion_2.jpg"]["starts_with_accepts"] == "lion; lionfish" and rows["lion_2.jpg"]["class_5"] in NAMES
    assert rows["nothing of the kind.jpg"]["exact_rank"] == "" and float(rows["tench.jpg"]["probability_1"]) > 0
    with (out / "judged-again.csv").open(encoding="utf-8", newline="") as file:
        assert {"mobilenet_v2: says", "resnet18: p of the label"} <= set(csv.DictReader(file).fieldnames)
    assert (out / "best-and-worst.png").stat().st_size and (out / "judged-again.png").stat().st_size
    assert "judged again" in (out / "table.md").read_text(encoding="utf-8")
    assert run_script(*command, check=False).returncode == 2  # --output exists
    refused = run_script("scripts/evaluate.py", out, check=False)
    assert refused.returncode == 2 and "encoder run" in refused.stderr


@pytest.mark.parametrize(
    ("weights_name", "files", "said"),
    [
        (
            "five.safetensors",
            ["lion.jpg"],
            "classifier of mobilenet_v2: .*'classifier.1.weight' has shape",
        ),
        ("resnet18.safetensors", ["lion.jpg"], "do not fit encoder mobilenet_v2"),
        ("absent.safetensors", ["lion.jpg"], "no such file"),
        ("mobilenet_v2.safetensors", [], "nor a photo"),
        ("mobilenet_v2.safetensors", ["lion.jpg", "broken.jpg"], "broken.jpg: cannot be read as an image"),
    ],
)
def test_bad_input_leaves_nothing_behind(weights, tmp_path, monkeypatch, weights_name, files, said):
    from common.encoder_scoring import evaluate_encoder

    monkeypatch.setenv("HOIANH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for name in files:
        if name == "broken.jpg":
            (tmp_path / "photos" / name).write_bytes(b"no photo")
        else:
            write_photo(tmp_path / "photos" / name, 0)
    arguments = ["--data", tmp_path / "photos", "--weights", weights / weights_name, "--output", tmp_path / "out"]
    with pytest.raises(UserError, match=said):
        evaluate_encoder(parse(EvaluateEncoderOptions, list(map(str, arguments))))
    assert not (tmp_path / "out").exists()


def test_labels_that_no_class_has_are_no_error(weights, tmp_path, monkeypatch, capsys):
    from common.encoder_scoring import evaluate_encoder

    monkeypatch.setenv("HOIANH_CACHE", str(tmp_path / "cache"))
    write_photo(tmp_path / "photos" / "unicorn" / "1.jpg", 0)
    arguments = [
        "--data",
        tmp_path / "photos",
        "--weights",
        weights / "mobilenet_v2.safetensors",
        "--output",
        tmp_path / "o",
    ]
    evaluate_encoder(parse(EvaluateEncoderOptions, list(map(str, arguments))))
    assert "'unicorn' (unicorn/1.jpg)" in capsys.readouterr().out
    assert not (tmp_path / "o" / "best-and-worst.png").exists()
    figures = json.loads((tmp_path / "o" / "table.json").read_text(encoding="utf-8"))["rules"]["exact"]
    assert figures["top1_error"] is None and figures["top1_error_all"] == 1.0
