"""Where attention looks: boxes on the grid, pointing and mass worked by hand, and the files that scoring leaves."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.config import parse
from common.errors import UserError
from common.images import Preprocessing, to_tensor, valid_cells
from vqa.boxes import centres_inside, covered, on_square, read_boxes
from vqa.model import VqaConfig
from vqa.options import TrainVqaOptions
from vqa.pointing import evaluate_attention, maps_of, point, summary, table_rows
from vqa.pointing_options import EvaluateAttentionOptions
from vqa.shapes import write_shapes
from vqa.train import train

QUARTER = np.array([[0.0, 0.0, 0.5, 0.5]])
SMALL = (
    "--depth 3 --width 4 --image-size 32 --embedding 8 --hidden 16 --projection 16 --attention-hidden 16 "
    "--fusion-hidden 16 --batch-size 8 --epochs 1 --workers 0"
).split()


# --- boxes ------------------------------------------------------------------------------------------------------------


def test_a_cell_of_boxes_is_read():
    assert read_boxes("").shape == read_boxes(" ").shape == read_boxes("[]").shape == (0, 4)
    assert read_boxes("[[0, 0.25, 1, 0.5], [0.1, 0.2, 0.3, 1.0005]]").tolist() == [
        [0, 0.25, 1, 0.5],
        [0.1, 0.2, 0.3, 1],
    ]


@pytest.mark.parametrize(
    "text",
    ["no", "{}", "3", "[0, 0, 1, 1]", "[[0, 0, 1]]", "[[0, 0, 20, 30]]", "[[0.5, 0, 0.2, 1]]", "[[0, 0, 0, 1]]"]
    + ['[["0", 0, 1, 1]]', "[[0, 0, NaN, 1]]", "[[-0.1, 0, 1, 1]]", "[[true, 0, 1, 1]]", "[null]"],
)
def test_other_boxes_are_refused(text):
    with pytest.raises(UserError, match="must be JSON such as"):
        read_boxes(text)


def test_the_part_of_each_cell_that_boxes_cover():
    assert covered(QUARTER, 2, 2).tolist() == [[1, 0], [0, 0]]
    np.testing.assert_allclose(covered(QUARTER, 3, 3), [[1, 0.5, 0], [0.5, 0.25, 0], [0, 0, 0]])
    np.testing.assert_allclose(covered(np.array([[0.25, 0.5, 1.0, 1.0]]), 2, 4), [[0] * 4, [0, 1, 1, 1]])  # h, not w
    both = np.array([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75]])  # what two boxes share counts once
    assert covered(both, 2, 2).sum() / 4 == pytest.approx(0.25 + 0.25 - 1 / 16)
    assert not covered(np.zeros((0, 4)), 2, 2).any()
    assert not covered(np.array([[1.2, 0.0, 1.5, 1.0]]), 2, 2).any()  # cropped away
    assert centres_inside(QUARTER, 3, 3).tolist() == [[True, True, False], [True, True, False], [False] * 3]


@pytest.mark.parametrize("size", [(200, 100), (60, 90), (301, 77)])
@pytest.mark.parametrize("resize", ["pad", "crop", "squash"])
def test_a_box_lies_on_the_square_where_its_pixels_do(size, resize):
    """A photo that is white inside the box: what the encoder sees of it is white where the box is said to lie."""
    width, height = size
    box = (0.25, 0.3, 0.7, 0.8)
    photo = Image.new("RGB", size)
    corners = [round(value * side) for value, side in zip(box, size * 2, strict=True)]
    photo.paste((255, 255, 255), tuple(corners))
    exact = np.array([corners]) / np.array(size * 2)
    preprocessing = Preprocessing(size=96, resize=resize)
    pixels, valid = to_tensor(photo, preprocessing)
    share = covered(on_square(exact, size, preprocessing), 96, 96)
    grey = [0.485, 0.456, 0.406]  # of the padding, which is no photo
    seen = pixels.numpy()[0] / 255
    real = valid_cells(torch.tensor([valid]), 96, 96).numpy().reshape(96, 96)
    assert np.allclose(seen[~real], round(255 * grey[0]) / 255) and (real.all() == (resize != "pad"))
    assert np.abs(seen - share)[real].mean() < 0.015 and share[real].mean() > 0.05


# --- figures ----------------------------------------------------------------------------------------------------------


def test_pointing_and_mass_by_hand():
    share, centre = covered(QUARTER, 4, 4), centres_inside(QUARTER, 4, 4)
    uniform = np.full((4, 4), 1 / 16)
    assert point(uniform, share, centre) == (0.25, 0.25)  # a quarter of the cells, and of their mass
    hit = np.zeros((4, 4))
    hit[1, 1], hit[3, 3] = 0.7, 0.3
    assert point(hit, share, centre) == (1, 0.7)
    miss = np.zeros((4, 4))
    miss[1, 1], miss[1, 2] = 0.4, 0.6  # most of it lies beside
    assert point(miss, share, centre) == (0, 0.4)
    tie = np.zeros((4, 4))
    tie[0, 0] = tie[3, 3] = 0.5
    assert point(tie, share, centre) == (0.5, 0.5)
    half = covered(np.array([[0.0, 0.0, 0.125, 1.0]]), 4, 4)  # half of the first column, to its centres
    assert point(np.eye(4) / 4, half, centres_inside(np.array([[0.0, 0.0, 0.12, 1.0]]), 4, 4)) == (0, 0.125)


def test_every_glimpse_their_mean_and_the_net_that_says_where():
    attention = torch.rand(2, 3, 4, 4)
    small = {"encoder": {}, "preprocessing": {}, "glimpses": 2}
    grounds = VqaConfig(**small, grounding=True, place_answers=[0, 1])
    maps = maps_of(attention, grounds)
    assert list(maps) == ["glimpse 1", "glimpse 2", "mean of glimpses", "grounding"]
    assert torch.equal(maps["glimpse 2"], attention[:, 1]) and torch.equal(maps["grounding"], attention[:, 2])
    torch.testing.assert_close(maps["mean of glimpses"], attention[:, :2].mean(dim=1))
    assert list(maps_of(attention[:, :1], VqaConfig(**small | {"glimpses": 1}))) == ["glimpse 1"]


def test_means_by_type():
    def row(type_, pointing, mass, uniform):
        figures = {"pointing uniform": uniform, "mass uniform": uniform, "pointing a": pointing, "mass a": mass}
        return {"type": type_, "reachable": True} | figures

    rows = [row("x", 1.0, 0.6, 0.1), row("x", 0.0, 0.2, 0.3), row("y", 1.0, 0.4, 0.2)]
    found = summary(rows, ["uniform", "a"])
    assert found["by_type"]["x"]["n"] == 2
    assert found["by_type"]["x"]["maps"]["a"] == pytest.approx({"pointing": 0.5, "mass": 0.4, "times_uniform": 2})
    assert found["maps"]["a"] == pytest.approx({"pointing": 2 / 3, "mass": 0.4, "times_uniform": 2})
    table = table_rows(found | {"n": 3})
    assert [(line["type"], line["n"], line["map"]) for line in table] == [("x", 2, "a"), ("y", 1, "a"), ("all", 3, "a")]
    assert table[1]["uniform's mass"] == pytest.approx(0.2)


# --- of a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "scenes", train=16, validation=8, test=8, size=32)


def trained(data: Path, output: Path, *more: object) -> Path:
    given = ["--data", data, "--output", output, "--cache", output.parent / "cache", *SMALL, "--no-test", *more]
    return train(parse(TrainVqaOptions, list(map(str, given))))


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> Path:
    return trained(scenes, tmp_path_factory.mktemp("runs") / "run")


def scored(*arguments: object) -> dict:
    return evaluate_attention(parse(EvaluateAttentionOptions, list(map(str, arguments))))


def refusal(*arguments: object) -> str:
    with pytest.raises(UserError) as refused:
        scored(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_command_on_the_embedded_shapes(run, run_script, scenes, tmp_path):
    outputs = {name: tmp_path / name for name in ("where.json", "each.csv", "where.png")}
    given = ["--output", outputs["where.json"], "--predictions", outputs["each.csv"], "--picture", outputs["where.png"]]
    result = run_script("scripts/evaluate_attention.py", run, *given, "--per-type", 1)
    found = json.loads(outputs["where.json"].read_text(encoding="utf-8"))["test"]
    boxed = [row for row in read(scenes / "test.csv") if row["boxes"]]
    without = len(read(scenes / "test.csv")) - len(boxed)
    assert found["n"] == len(boxed) and found["left_out"] == {"without boxes": without, "out of view": 0}
    assert found["reachable"] == 1 and set(found["by_type"]) == {row["type"] for row in boxed}
    assert set(found["maps"]) == {"uniform", "glimpse 1", "glimpse 2", "mean of glimpses"}
    areas = [covered(read_boxes(row["boxes"]), 64, 64).mean() for row in boxed]
    assert found["maps"]["uniform"]["mass"] == pytest.approx(np.mean(areas))
    each = read(outputs["each.csv"])
    assert [row["question"] for row in each] == [row["question"] for row in boxed]
    assert [row["group"] for row in each] == [row["group"] for row in boxed]
    mass = np.mean([float(row["mass glimpse 1"]) for row in each])
    assert found["maps"]["glimpse 1"]["mass"] == pytest.approx(mass)
    table = read(tmp_path / "where.csv")
    assert table[-1]["type"] == "all" and float(table[-1]["uniform's mass"]) == pytest.approx(np.mean(areas))
    page = (tmp_path / "where.md").read_text(encoding="utf-8")
    assert f"left out: {without} without boxes" in page and page.split("\n| ")[-1].strip() in result.stdout
    with Image.open(outputs["where.png"]) as picture:
        assert picture.width > 500 and picture.height > 1500
    assert "exists" in refusal(run, *given)


def test_uniform_attention_on_padded_photos_has_the_mass_of_the_boxes(tmp_path):
    """Photos twice as wide as high: of the square half is padding, and nothing of the attention lies there."""
    folder = tmp_path / "wide"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 4), ("test", 4)):
        rows = []
        for number in range(count):
            name = f"{split}{number}.png"
            Image.fromarray(rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(folder / name)
            row = {"image": name, "question": "bên trái có gì", "answer": ("mèo", "chó")[number % 2], "type": "object"}
            rows.append(row | {"boxes": "[[0, 0, 0.5, 1]]"})
        write(folder / f"{split}.csv", rows)
    run = trained(folder, tmp_path / "run", "--resize", "pad", "--attention-weights", "uniform")
    found = scored(run, "--split", "test")["test"]
    for name in ("uniform", "glimpse 1", "mean of glimpses"):
        assert found["maps"][name] == pytest.approx({"pointing": 0.5, "mass": 0.5, "times_uniform": 1})
    rows = read(folder / "test.csv")
    rows[1]["boxes"] = ""
    rows[2]["boxes"] = "[[0.9, 0, 1, 0.01]]"  # too small for the centre of a cell
    found = scored(run, "--data", write(folder / "held.csv", rows), "--output", tmp_path / "held.json")["held"]
    assert found["n"] == 3 and found["left_out"]["without boxes"] == 1 and found["reachable"] == pytest.approx(2 / 3)
    assert "33.3% have boxes so small" in (tmp_path / "held.md").read_text(encoding="utf-8")


def test_what_is_cropped_away_is_left_out_and_counted(scenes, tmp_path):
    run = trained(scenes, tmp_path / "run", "--resize", "crop")
    rows = read(scenes / "test.csv")[:3]
    Image.new("RGB", (128, 32), "red").save(tmp_path / "wide.png")
    for row, box in zip(rows, ("[[0, 0, 0.2, 1]]", "[[0.4, 0, 0.6, 1]]", "[[0.9, 0, 1, 1]]"), strict=True):
        row |= {"image": "wide.png", "group": "wide", "boxes": box}
    file = write(tmp_path / "wide.csv", rows)  # what is seen is less than 0.375 to 0.625 of the width
    found = scored(run, "--data", file)["wide"]
    assert found["n"] == 1 and found["left_out"] == {"without boxes": 0, "out of view": 2}
    assert "crops away" in refusal(run, "--data", write(tmp_path / "edge.csv", [rows[0], rows[2]]))


def test_bad_boxes_are_refused_with_file_and_row(run, scenes, tmp_path):
    rows = read(scenes / "test.csv")[:4]
    for row in rows:
        row["image"] = str(scenes / row["image"])
    rows[2]["boxes"] = "[[3, 5, 20, 30]]"
    file = write(scenes / "bad.csv", rows)
    outputs = ("--output", tmp_path / "where.json")
    message = refusal(run, "--data", file, *outputs)
    assert "bad.csv, row 4: column 'boxes' must be JSON such as [[" in message and "it is '[[3, 5, 20, 30]]'" in message
    write(file, [{key: value for key, value in row.items() if key != "boxes"} for row in rows])
    assert "has no column 'boxes'" in refusal(run, "--data", file, *outputs)
    write(file, [row | {"boxes": ""} for row in rows])
    assert "not one of its 4 questions has a box" in refusal(run, "--data", file, *outputs)
    file.unlink()
    assert not list(tmp_path.iterdir())


def test_runs_that_look_nowhere_are_refused(scenes, tmp_path, monkeypatch):
    for name, given in (("none", ["--no-attention"]), ("words", ["--attention-over", "words"])):
        assert "was trained without attention over the grid" in refusal(trained(scenes, tmp_path / name, *given))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "without a launcher" in refusal(tmp_path / "none")


@pytest.mark.parametrize(
    ("given", "part"),
    [("--output x.csv", "name it .json"), ("--picture x.gif", "name it .png"), ("--per-type 2", "add --picture")],
)
def test_options_that_do_not_go_together(given, part):
    with pytest.raises(UserError, match=part):
        parse(EvaluateAttentionOptions, ["x", *given.split()])
