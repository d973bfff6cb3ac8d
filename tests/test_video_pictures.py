"""The sheet of best- and worst-classified clips: which are chosen, which frames of each, and what a run leaves."""

import numpy as np
import pytest
from PIL import Image
from video_helpers import LABELS, read_csv, write_set

from common.config import parse
from video import pictures
from video.options import TrainVideoOptions
from video.pictures import tiles
from video.train import train

SMALL = (
    "--depth 2 --width 4 --image-size 16 --frames 5 --hidden 8 --pool 2 --batch-size 4 --epochs 1 --workers 0"
).split()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data") / "clips")


def start(output, clips, cache, *more):
    given = ["--data", clips, "--output", output, "--cache", cache, *SMALL, *more]
    return train(parse(TrainVideoOptions, list(map(str, given))))


def grey(*levels: int) -> np.ndarray:
    return np.stack([np.full((8, 8, 3), level, np.uint8) for level in levels])


def levels(sheet: Image.Image, band: int) -> list[int]:
    """The grey of each tile's middle."""
    step = pictures._SIDE + pictures._GAP
    places = [(x * step + 90, y * (step + band) + 90) for y in range(2) for x in range(2)]
    return [sheet.getpixel(place)[0] for place in places if place[0] < sheet.width and place[1] < sheet.height]


def test_frames_are_evenly_spread_or_the_heaviest_in_their_order():
    frames = grey(0, 20, 40, 60, 80, 100, 120)
    assert levels(tiles(frames), 0) == [0, 40, 80, 120]
    weights = np.array([0.05, 0.3, 0.1, 0.05, 0.25, 0.05, 0.2])
    sheet = tiles(frames, weights)
    assert levels(sheet, pictures._BAND) == [20, 40, 80, 120]
    accent = tuple(int(pictures.ACCENT[place : place + 2], 16) for place in (1, 3, 5))
    top = pictures._SIDE + 8
    bars = [sum(sheet.getpixel((x, top)) == accent for x in part) for part in (range(180), range(184, 364))]
    assert bars[0] > 2.5 * bars[1] > 0  # 0.3 against 0.1
    assert tiles(grey(10)).size == (180, 180) and levels(tiles(grey(10, 30)), 0) == [10, 30]


def test_the_surest_mistake_is_the_worst():
    said = [
        {"id": name, "gold": "a", "predicted": "a" if right else "b", "probability": probability}
        for name, right, probability in (("x", True, 0.9), ("y", False, 0.8), ("z", True, 0.5), ("w", False, 0.99))
    ]
    best, worst = pictures.best_and_worst(pictures._ranked(said), 2)
    assert [row["id"] for row in best] == ["x", "z"] and [row["id"] for row in worst] == ["w", "y"]


def test_a_run_leaves_a_sheet_of_its_clips(clips, tmp_path, monkeypatch):
    sheets: list = []
    original = pictures.draw_ranked

    def keep(rows, path, **keywords):
        sheets.append((rows, path, keywords))
        original(rows, path, **keywords)

    monkeypatch.setattr(pictures, "draw_ranked", keep)
    run = start(tmp_path / "run", clips, tmp_path / "cache", "--readout", "attention", "--frame-order", "shuffled")
    ((rows, path, keywords),) = sheets
    with Image.open(run / "examples.png") as picture:
        assert path == run / "examples.png" and picture.width > 800
    assert "](examples.png)" in (run / "report.md").read_text(encoding="utf-8")
    assert keywords["title"] == "run: test; under a frame: its weight among the clip's frames"
    assert [(heading, len(shown)) for heading, shown in rows] == [("best classified", 3), ("worst classified", 3)]
    said = {(row["gold"], row["predicted"], row["probability"]) for row in read_csv(run / "predictions-test.csv")}
    for _, shown in rows:
        for clip in shown:
            (guesses,) = clip.guesses
            first = guesses[0]
            gold = clip.title.removeprefix("gold: ")
            assert (gold, first.name, str(round(first.probability, 6))) in said
            assert {guess.name for guess in guesses} == set(LABELS) and first.right == (first.name == gold)
    best = [clip.guesses[0][0] for clip in rows[0][1]]
    assert sum(guess.right for guess in best) == min(3, sum(gold == predicted for gold, predicted, _ in said))


def test_no_sheet_is_wanted_or_clips_have_gone(clips, tmp_path, monkeypatch):
    frozen = ("--train-encoder", "none", "--head", "mean")
    run = start(tmp_path / "fills", clips, tmp_path / "cache", *frozen, "--examples", "0")
    assert not (run / "examples.png").exists() and (run / "metrics.json").is_file()
    monkeypatch.setattr("video.frames.read_clip", None)  # the features are kept; the clips cannot be read any more
    run = start(tmp_path / "gone", clips, tmp_path / "cache", *frozen)
    assert "- examples.png could not be drawn: " in (run / "report.md").read_text(encoding="utf-8")
    assert (run / "metrics.json").is_file() and not (run / "examples.png").exists()
