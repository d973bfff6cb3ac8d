"""The studies of the reports R0, R1 and R2: whole, with their figures, and one command each on a UCF101 folder."""

import json
import re
from pathlib import Path

import pytest
from video_helpers import write_clip

from common.config import build, parse
from common.study import StudyOptions, read_study
from common.study_options import cell_options
from common.study_runs import _known_options, run_study
from video.options import TrainVideoOptions

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
STUDIES = {  # → cells, of which so many have a reported accuracy
    "r0_rnn_lr": (8, 6),
    "r0_lstm_grid": (32, 9),
    "r1_custom": (11, 3),
    "r1_pretrained": (16, 3),
    "r2_units": (39, 24),
}
R2_CLASSES = ("Basketball", "Diving", "GolfSwing", "Skiing")


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    return {"train_video": _known_options(SCRIPTS, "train_video")}


def file(name: str) -> str:
    return str(ROOT / "configs" / "studies" / f"{name}.yaml")


@pytest.mark.parametrize("name", STUDIES)
def test_every_cell_is_a_training_from_clips_and_from_features(name, known, tmp_path):
    study = read_study(file(name))
    cells, reported = STUDIES[name]
    assert len(study.cells) == cells and sum("accuracy" in cell.reported for cell in study.cells) == reported
    encoders = dict.fromkeys((cell.shared | cell.own)["encoder"] for cell in study.cells)
    stored = tmp_path / "stored.safetensors"
    stored.touch()
    ways = {
        "clips": ["--data", "UCF"],
        "other": ["--data", "DIR", "--other-data"],
        "features": ["--features", *(f"{encoder}={stored}" for encoder in encoders)],
        "embedded": [],
    }
    for way, arguments in ways.items():
        given = parse(StudyOptions, [file(name), *arguments])
        found = cell_options(study.cells, study.cells, given, known)
        for cell, options in found.options.items():
            trained = build(TrainVideoOptions, options | {"seed": 0}, where=f"{name}: {cell}")
            assert (trained.split_list == 1) == (way == "clips")
            assert bool(trained.classes) == (way in ("clips", "features"))
        left_out = {cell: why for cell, why in found.left_out.items() if "of the cell itself" in why}
        assert set(left_out) == set(found.left_out) and bool(left_out) == (
            way == "features" and name not in ("r0_rnn_lr", "r2_units")
        )


def test_what_the_reports_say():
    figures = {name: {cell.name: cell.reported for cell in read_study(file(name)).cells} for name in STUDIES}
    assert figures["r0_rnn_lr"]["ResNet101, plateau"] == {"accuracy": 0.7723, "test seconds": 3.03}
    assert figures["r0_lstm_grid"]["batch 16, lr 1e-4 + plateau, ResNet50"] == {"accuracy": 0.8705}
    assert figures["r1_pretrained"]["ResNet101, twice the epochs"]["validation loss"] == 0.559
    r2 = figures["r2_units"]
    assert r2["LSTM 200, official"] == r2["LSTM 200, swapped"] != r2["LSTM 200, random half"] == {}
    # k of the 399 clips of the official list for training (the last row's accuracy is a copy of its F1: 374 is 93.73 %)
    right = [367, 361, 379, 375, 366, 374, 365, 366, 368, 351, 371, 374]
    reported = [cell["accuracy"] for name, cell in r2.items() if name.endswith("swapped") and cell]
    assert [round(399 * accuracy) for accuracy in reported] == right
    assert all(abs(399 * accuracy - count) < 0.05 for accuracy, count in zip(reported[:-1], right[:-1], strict=True))
    # 4 classes from 512 features a frame, as Keras counts
    assert r2["GRU 500, official"]["keras_parameters"] == 3 * (512 * 500 + 500 * 500 + 2 * 500) + 501 * 4


def printed(report: str, table: int) -> list[dict[str, str]]:
    """The rows of a table of a report, as ../shared/REPORTS.md tells it; the test is skipped where that is not."""
    path = ROOT.parent / "shared" / "REPORTS.md"
    if not path.is_file():
        pytest.skip("../shared/REPORTS.md is not here")
    section = path.read_text(encoding="utf-8").split(f"## {report} ", 1)[1].split("\n## ", 1)[0]
    tables = re.findall(r"(?:^ *\|.*\n)+", section, flags=re.MULTILINE)
    head, _, *rows = ([cell.strip(" *") for cell in line.split("|")[1:-1]] for line in tables[table].splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_every_figure_of_the_tables_of_r0_r2_and_r4():
    def reported(name: str) -> dict[str, dict[str, float]]:
        return {cell.name: cell.reported for cell in read_study(file(name)).cells}

    rows = printed("R0", 0)
    found = reported("r0_rnn_lr")
    for row in rows:
        for rate in ("fixed lr", "plateau"):
            assert found[f"{row['encoder']}, {rate}"]["accuracy"] == float(row[rate])
    found = reported("r0_lstm_grid")
    for row in printed("R0", 1):
        for encoder in ("ResNet50", "ResNet101", "ResNet152"):
            figure = {} if row[encoder] == "–" else {"accuracy": float(row[encoder])}
            assert found[f"{row['setting']}, {encoder}"] == figure
    found = reported("r2_units")
    for row in printed("R2", 0):
        in_percent = {"accuracy": "accuracy %", "macro_f1": "mean F1 %", "f1 Basketball": "F1 Basketball"}
        in_percent |= {f"f1 {name}": name for name in ("Diving", "GolfSwing", "Skiing")}
        figures = {ours: round(float(row[theirs]) / 100, 4) for ours, theirs in in_percent.items()}
        figures |= {"seconds": float(row["train s"]), "epochs": int(row["epochs"])}
        figures["keras_parameters"] = int(row["parameters (Keras)"].replace(",", ""))
        assert found[f"{row['head']}, official"] == found[f"{row['head']}, swapped"] == figures
    found = reported("r4_vqa_attention")
    for row in printed("R4", 0):
        name = row["model"].replace(" + LSTM", "")
        assert found[name] == {"loss": float(row["loss"]), "accuracy": float(row["accuracy"])}


@pytest.fixture(scope="module")
def ucf(tmp_path_factory) -> Path:
    """A folder as UCF101 comes: a folder per class, and the official lists beside; few clips, and small ones."""
    folder = tmp_path_factory.mktemp("ucf")
    train, test, number = [], [], 0
    for place, label in enumerate(R2_CLASSES, start=1):
        for group in (1, 2, 8, 9, 10, 11):
            for clip in (1, 2):
                name = f"{label}/v_{label}_g{group:02d}_c{clip:02d}.avi"
                write_clip(folder / "UCF-101" / name, seed=number, brightness=40 * place, count=5, size=40)
                number += 1
                if group < 8:
                    test.append(name)
                else:
                    train.append(f"{name} {place}")
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    index = [f"{place} {label}" for place, label in enumerate(R2_CLASSES, start=1)]
    for name, lines in (("trainlist01", train), ("testlist01", test), ("classInd", index)):
        (lists / f"{name}.txt").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    return folder


def test_one_command_per_table_on_ucf101(ucf, tmp_path, monkeypatch, capsys):
    """R2's, of which three cells are run, each for an epoch; and what it says of the random split and its weights."""
    monkeypatch.chdir(tmp_path)
    small = "epochs=1 frames=2 image_size=32 hidden=8 workers=0 validation_fraction=0.3".split()
    arguments = [file("r2_units"), "--data", ucf, "--weights", "vgg16=none", "--only", "GRU 50", "--seeds", "0"]
    arguments += ["--cache", tmp_path / "cache", "--output", "out", "--set", *small, "encoder_seed=0"]
    assert run_study(parse(StudyOptions, list(map(str, arguments))), scripts=SCRIPTS) == 0
    said = capsys.readouterr().out
    table = json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))
    cells = {cell["name"]: cell for cell in table["cells"]}
    assert {name: cell["n"] for name, cell in cells.items()} == {
        "GRU 50, official": 16,
        "GRU 50, swapped": 32,
        "GRU 50, random half": 24,
    }
    official = cells["GRU 50, official"]
    assert official["reported"]["accuracy"] == 0.9172 and "f1 Skiing" in official["measured"]
    assert official["measured"]["keras_parameters"]["mean"] == 3 * (512 * 8 + 8 * 8 + 2 * 8) + 9 * 4
    assert 0 <= official["measured"]["train accuracy"]["mean"] <= 1
    notes = "\n".join(table["notes"])
    assert "random weights where the study asks for ImageNet's: GRU 50, official" in notes
    assert "GRU 50, random half: LEAKY: " in notes and "GRU 50, official: LEAKY" not in notes
    assert table["differences"][0]["by_seed"].keys() == {"0"}
    assert "accuracy, measured" in said and "random half" in said


def test_time_of_a_batch_is_a_column(ucf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = "epochs=1 frames=2 image_size=32 hidden=8 workers=0 validation_fraction=0.3 timed=1".split()
    arguments = [
        file("r0_rnn_lr"),
        "--data",
        ucf / "UCF-101",
        "--other-data",
        "--weights",
        "mobilenet_v2=none",
        "--seeds",
        "0",
    ]
    arguments += ["--only", "MobileNetV2", "--cache", tmp_path / "cache", "--output", "out", "--set", *small]
    assert run_study(parse(StudyOptions, list(map(str, arguments))), scripts=SCRIPTS) == 0
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "test seconds: for 32 clips, from decoded frames to classes" in table
    cell = json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))["cells"][0]
    assert cell["measured"]["test seconds"]["mean"] > 0 and cell["reported"] == {}


def test_on_the_real_clips(real_data, tmp_path, monkeypatch):
    """R1's own network on the 21 clips of UCF101 that are here: names, groups and decoding; and by the official lists,
    which have all of them in test."""
    if not (real_data / "ucf101_clips").is_dir():
        pytest.skip("../shared/data/ucf101_clips is not here")
    monkeypatch.chdir(tmp_path)
    small = "epochs=1 frames=2 image_size=32 width=4 hidden=8 workers=0".split()
    arguments = [file("r1_custom"), "--data", real_data / "ucf101_clips", "--other-data", "--only", "random split"]
    arguments += ["--cache", tmp_path / "cache", "--output", "out", "--set", *small]
    assert run_study(parse(StudyOptions, list(map(str, arguments))), scripts=SCRIPTS) == 0
    cell = json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))["cells"][0]
    assert cell["seeds"] == [0, 1, 2] and cell["n"] == 4
    real = real_data / "ucf101_splits"
    own = ["--data", real_data / "ucf101_clips", "--only", "random split", "--cache", tmp_path / "cache"]
    listed = ["split_list=1", f"lists={real}", "classes=[Archery, Basketball, Biking, Diving]", "on_bad_clip=skip"]
    arguments = [file("r1_custom"), *own, "--seeds", "0", "--output", "listed", "--set", *small, *listed]
    assert run_study(parse(StudyOptions, list(map(str, arguments))), scripts=SCRIPTS) == 0
    report = next((tmp_path / "listed" / "runs").glob("*/report.md")).read_text(encoding="utf-8")
    assert "splits: UCF101's official lists 1" in report and "skipped: " in report and "random split: " in report
