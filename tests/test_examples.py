"""Typical answers: which are chosen, and the sheet that `predict_vqa.py --examples` makes of a run."""

import csv
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.config import parse
from common.errors import UserError
from vqa import examples
from vqa.examples import draw_confusions, read_predictions, typical
from vqa.options import PredictVqaOptions, TrainVqaOptions
from vqa.predict import predict
from vqa.shapes import write_shapes
from vqa.train import train

SMALL = (
    "--depth 3 --width 4 --image-size 32 --embedding 8 --hidden 16 --projection 16 --attention-hidden 16 "
    "--fusion-hidden 16 --batch-size 8 --epochs 1 --workers 0"
).split()


def answered(count: int, *, right: bool, type: str = "màu", photos: int | None = None) -> list[dict]:
    """Answers with probabilities 0.00, 0.01, …; photo by photo in turn."""
    return [
        {
            "id": f"{type}-{right}-{number:03}",
            "group": "g",
            "type": type,
            "gold": "đỏ",
            "predicted": "đỏ" if right else "xanh",
            "probability": number / 100,
            "image": f"{number % photos if photos else f'{type}{right}{number}'}.png",
        }
        for number in range(count)
    ]


def chances(rows: list[dict]) -> list[float]:
    return [row["probability"] for row in rows]


def test_the_median_the_quartiles_and_the_most_confident_mistake():
    rows = answered(101, right=True) + answered(81, right=False)
    (found,) = typical(rows, 1)
    assert (found.type, found.n, found.n_right) == ("màu", 182, 101)
    assert chances(found.right) == [0.5] and chances(found.wrong) == [0.4]
    (found,) = typical(rows, 3)
    assert chances(found.right) == [0.75, 0.5, 0.25]
    (found,) = typical(rows, 4)
    assert chances(found.right) == [0.8, 0.6, 0.4, 0.2]
    assert chances(found.wrong) == [0.8, 0.6, 0.4, 0.2]  # the first is the most confident of all
    assert all(row["gold"] == row["predicted"] for row in found.right)
    assert all(row["gold"] != row["predicted"] for row in found.wrong)


def test_few_are_all_taken_once():
    for count in range(6):
        (found,) = typical(answered(count, right=False) + answered(9, right=True), 4)
        assert len(found.wrong) == len({row["id"] for row in found.wrong}) == min(count, 4)
        assert chances(found.wrong) == sorted(chances(found.wrong), reverse=True)
    (found,) = typical(answered(3, right=True))
    assert len(found.right) == 3 and found.wrong == []


def test_the_order_of_the_rows_does_not_matter():
    rows = [row | {"probability": round(row["probability"], 1)} for row in answered(60, right=True, photos=7)]
    rows += answered(40, right=False, type="số", photos=7)
    wanted = typical(rows)
    random.Random(0).shuffle(rows)
    assert typical(rows) == wanted


def test_photos_differ_where_they_can():
    rows = answered(100, right=True, photos=20) + answered(100, right=False, photos=20)
    (found,) = typical(rows, 6)
    assert len({row["image"] for row in found.right + found.wrong}) == 12
    assert chances(found.wrong)[0] == 0.99  # never exchanged for another photo's
    cuts = [1 - cut / 7 for cut in range(1, 7)]
    assert all(abs(one - cut) <= 1 / 14 for one, cut in zip(chances(found.right), cuts, strict=True))
    (found,) = typical(answered(50, right=True, photos=1), 4)  # or else one photo has to do
    assert len({row["id"] for row in found.right}) == 4


def test_of_many_types_the_most_frequent():
    rows = [row for number in range(15) for row in answered(number + 1, right=True, type=f"t{number:02}")]
    assert [found.type for found in typical(rows)] == [f"t{number:02}" for number in range(3, 15)]


# --- of a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "scenes", train=12, validation=6, test=6, size=32)


@pytest.fixture(scope="module")
def start(scenes, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def start(output: Path, *more: object, data: Path = scenes) -> Path:
        given = ["--data", data, "--output", output, "--cache", cache, *SMALL, *more]
        return train(parse(TrainVqaOptions, list(map(str, given))))

    return start


@pytest.fixture(scope="module")
def run(start, tmp_path_factory) -> Path:
    return start(tmp_path_factory.mktemp("runs") / "run", "--no-test")


def show(*arguments: object) -> None:
    predict(parse(PredictVqaOptions, list(map(str, arguments))))


def refusal(*arguments: object) -> str:
    with pytest.raises(UserError) as refused:
        show(*arguments)
    return str(refused.value)


def test_the_sheet_of_a_run_as_a_command(run, run_script, tmp_path):
    out = tmp_path / "sheet.png"
    result = run_script("scripts/predict_vqa.py", "--run", run, "--examples", out, "--per-type", 2)
    assert f"answers of validation in {out}" in result.stdout and not result.stderr
    with Image.open(out) as picture:
        assert 500 < picture.width < 1500 and 2000 < picture.height < 6000
    assert "--examples" in (message := refusal("--run", run, "--examples", out)) and "exists" in message
    show("--run", run, "--examples", out, "--overwrite", "--per-type", 1)
    with Image.open(out) as picture:
        assert picture.width < 1000


def drawn(monkeypatch, *arguments: object) -> list:
    """The rows that would be drawn."""
    kept = []
    monkeypatch.setattr("common.plots.draw_answers", lambda rows, path, title, **_: kept.append((rows, title)))
    show(*arguments)
    return kept[0]


def test_what_is_shown_is_what_the_run_answered_on_its_own_photos(run, scenes, tmp_path, monkeypatch):
    rows, title = drawn(monkeypatch, "--run", run, "--examples", tmp_path / "x.svg", "--per-type", 3)
    samples = read_predictions(run, "validation")
    types = sorted({sample["type"] for sample in samples})
    assert [(row.heading.split(":")[0], row.right) for row in rows] == [(t, r) for t in types for r in (True, False)]
    told = {(sample["question"], sample["gold"], sample["predicted"], sample["probability"]) for sample in samples}
    pixels = {Image.open(path).convert("RGB").tobytes() for path in scenes.glob("images/1*.png")}
    for row in rows:
        for answer in row.answers:
            assert (answer.caption, answer.gold, answer.predicted, answer.probability) in told
            assert (answer.gold == answer.predicted) == row.right
            assert answer.photo.tobytes() in pixels and answer.size == (32, 32)
            assert answer.weights.shape == (8, 8) and answer.weights.sum() == pytest.approx(1, abs=1e-4)
    assert "where it looked" in title
    heading = next(row.heading for row in rows if row.right)
    right = [sample for sample in samples if sample["type"] == types[0] and sample["gold"] == sample["predicted"]]
    assert f"right, {len(right)} of {sum(sample['type'] == types[0] for sample in samples)} " in heading


def test_without_attention_the_photos_are_bare(start, tmp_path, monkeypatch):
    run = start(tmp_path / "run", "--no-attention", "--examples", "0")
    assert not (run / "examples.png").exists() and "examples.png" not in (run / "report.md").read_text(encoding="utf-8")
    rows, title = drawn(monkeypatch, "--run", run, "--examples", tmp_path / "x.png", "--split", "test")
    answers = [answer for row in rows for answer in row.answers]
    assert answers and all(answer.weights is None for answer in answers)
    assert "where it looked" not in title and ", test" in title


def test_what_has_no_examples_is_refused(run, start, scenes, tmp_path):
    out = ("--examples", tmp_path / "sheet.png")
    assert "--no-test" in refusal("--run", run, *out, "--split", "test")
    assert "is a checkpoint" in refusal("--run", run / "checkpoints" / "last", *out)
    assert "not a run directory" in refusal("--run", tmp_path, *out)
    blind = start(tmp_path / "blind", "--inputs", "question")
    assert "no photos to show" in refusal("--run", blind, *out)
    assert not (blind / "examples.png").exists()  # and it finished without
    spoiled = Path(shutil.copytree(run, tmp_path / "spoiled"))
    (spoiled / "predictions-validation.csv").write_text("id,gold\n1,đỏ\n", encoding="utf-8")
    assert "damaged" in refusal("--run", spoiled, *out)
    assert not (tmp_path / "sheet.png").exists()


def test_data_that_are_gone_or_others_are_refused(start, scenes, tmp_path):
    data = Path(shutil.copytree(scenes, tmp_path / "data"))
    run = start(tmp_path / "run", "--no-test", data=data)
    with open(data / "validation.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(data / "validation.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"answer": "mèo"} for row in rows)
    out = ("--examples", tmp_path / "sheet.png")
    assert "the data have changed since" in refusal("--run", run, *out)
    shutil.rmtree(data)
    assert str(data) in refusal("--run", run, *out)
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("", "--examples"),
        ("--examples x.png --image y.png --question z", "--examples"),
        ("--examples x.png --input y.csv --output z.csv", "--examples"),
        ("--examples x.png --question z", "--question and --examples"),
        ("--examples x.png --output z.csv", "--output and --examples"),
        ("--examples x.png --checkpoint last", "--checkpoint and --examples"),
        ("--examples x.png --columns answer=a", "--columns and --examples"),
        ("--examples x.png --json", "are for one photo"),
        ("--examples x.gif", "name it .png or .svg"),
        ("--examples x.png --per-type 0", "--per-type"),
        ("--examples x.png --split train", "--split"),
        ("--image y.png --question z --per-type 3", "--per-type say which --examples"),
        ("--input y.csv --output z.csv --split test", "--split and --per-type"),
    ],
)
def test_options_that_do_not_go_together(given, part):
    with pytest.raises(UserError, match=part):
        parse(PredictVqaOptions, ["--run", "x", *given.split()])


def test_the_confusions_of_a_run(run, tmp_path):
    rows = read_predictions(run, "validation")
    draw_confusions(rows, tmp_path / "confusion-validation.png", title="run: validation")
    with Image.open(tmp_path / "confusion-validation.png") as picture:
        assert picture.width > 700 and picture.height > 500


def test_a_run_leaves_examples_by_itself(run, tmp_path, monkeypatch):
    with Image.open(run / "examples.png") as picture:
        assert picture.width > 700 and picture.height > 500
    assert "](examples.png)" in (run / "report.md").read_text(encoding="utf-8")
    rows, _ = drawn(monkeypatch, "--run", run, "--examples", tmp_path / "x.png", "--per-type", 3)
    wanted = [(row.heading, [(a.caption, a.predicted) for a in row.answers]) for row in rows]
    monkeypatch.setattr("common.plots.draw_answers", lambda rows, out, *, title, **_: sheets.append((rows, title)))
    sheets: list = []
    again = shutil.copytree(run, tmp_path / "again")
    train(
        parse(TrainVqaOptions, ["--resume", "--output", str(again)])
    )  # nothing left to train: it is scored, and drawn, once more
    assert [(row.heading, [(a.caption, a.predicted) for a in row.answers]) for row in sheets[0][0]] == wanted
    assert sheets[0][1].startswith("again, validation: typical answers; clear, within the line: where it looked")


def test_a_failing_picture_loses_no_run_and_examples_change_no_number(run, start, tmp_path, monkeypatch):
    states = []

    def fail(*given, **keywords):
        states.append((torch.get_rng_state(), np.random.get_state()[1], random.getstate()))
        original(*given, **keywords)
        states.append((torch.get_rng_state(), np.random.get_state()[1], random.getstate()))
        (out,) = [value for value in given if isinstance(value, Path)]
        out.unlink()
        raise MemoryError("no room\nfor a picture")

    original = examples.draw_examples
    monkeypatch.setattr(examples, "draw_examples", fail)
    failed = start(tmp_path / "run", "--no-test")
    (torch_before, numpy_before, before), (torch_after, numpy_after, after) = states
    assert torch.equal(torch_before, torch_after) and (numpy_before == numpy_after).all() and before == after
    report = (failed / "report.md").read_text(encoding="utf-8")
    assert "- examples.png could not be drawn: " in report and "no room" in report and "](examples.png)" not in report
    for name in ("metrics.json", "predictions-validation.csv"):
        assert (failed / name).read_bytes() == (run / name).read_bytes()
