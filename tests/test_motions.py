"""The embedded clips: no frame and no bag of frames tells the class, the order does; written whole or not at all."""

import csv
import functools
import inspect
import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from scipy import stats

from common.errors import UserError
from video import motions
from video.motions import MOTIONS, RANGES, embedded_motions, motion_frames, sawtooth, trajectory, write_motions

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"train": 9, "validation": 2, "test": 3}
PAIRS = list(zip([*MOTIONS][::2], [*MOTIONS][1::2], strict=True))
UNLIKELY = 1e-4  # of about 120 comparisons one fails by chance with one seed in 80; theirs are fixed


def _decoded(file: object) -> np.ndarray:
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


# --- What frames tell ------------------------------------------------------------------------------------------------


@functools.cache
def _phases(label: str, count: int = 1000) -> list[np.ndarray]:
    """Trajectories of independent clips, as phases: every range is 0-1."""
    low, high = np.array([*RANGES.values()]).T
    seeds = ([motions.SPLITS.index("train"), [*MOTIONS].index(label), number] for number in range(count))
    return [(trajectory(label, np.random.default_rng(seed)) - low) / (high - low) for seed in seeds]


def _steps(phases: np.ndarray) -> np.ndarray:
    """The changes from frame to frame, the shorter way round, as in a sawtooth."""
    return np.mod(np.diff(phases, axis=0) + 0.5, 1) - 0.5


@pytest.mark.parametrize("label", MOTIONS)
def test_at_every_moment_everything_is_uniform_whatever_the_class(label):
    for moment in (0, 7, -1):
        states = np.stack([phases[moment] for phases in _phases(label)])
        for values in states.T:
            assert stats.kstest(values, "uniform").pvalue > UNLIKELY
        cells = Counter(map(tuple, (states > 0.5).tolist()))  # and independent of each other: 16 cells, all as likely
        assert len(cells) == 16 and stats.chisquare([*cells.values()]).pvalue > UNLIKELY


def test_played_backwards_a_sawtooth_is_one_of_the_other_direction():
    for start, change in ((0.1, 0.6), (0.8, 0.7), (0.3, -0.9)):
        backwards = sawtooth(start, change, 30)[::-1]
        assert np.allclose(backwards, sawtooth(start + change, -change, 30), atol=1e-9)
    assert np.allclose(sawtooth(0.75, 0.5, 3), [0.75, 0, 0.25])
    assert np.allclose(sawtooth(0.25, -0.5, 3), [0.25, 0, 0.75])


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_played_backwards_a_class_is_the_other_of_its_pair(one, other):
    """In distribution; the seeds of the two are different, so a clip's own mirror is not there to be found."""
    moving = [*RANGES].index(MOTIONS[one][0])
    assert moving == [*RANGES].index(MOTIONS[other][0])
    measures = {
        "frames": len,
        "first": lambda phases: phases[0, moving],
        "mean": lambda phases: phases[:, moving].mean(),
        "spread": lambda phases: phases[:, moving].std(),
        "jump": lambda phases: np.abs(np.diff(phases[:, moving])).max(),
        "step": lambda phases: _steps(phases)[0, moving],
    }
    ours, theirs = _phases(one), _phases(other)
    for name, measure in measures.items():
        backwards = stats.ks_2samp([measure(p[::-1]) for p in ours], [measure(p) for p in theirs]).pvalue
        forwards = stats.ks_2samp([measure(p) for p in ours], [measure(p) for p in theirs]).pvalue
        assert backwards > UNLIKELY, name
        assert forwards < UNLIKELY if name == "step" else forwards > UNLIKELY, name


@pytest.mark.parametrize("label", MOTIONS)
def test_only_the_named_property_changes_and_in_8_frames_the_right_way(label):
    name, direction = MOTIONS[label]
    moving = [*RANGES].index(name)
    for phases in _phases(label)[:200]:
        assert motions.FRAMES[0] <= len(phases) <= motions.FRAMES[1]
        assert np.ptp(np.delete(phases, moving, axis=1), axis=0).max() < 1e-9
        for number in (8, 16, len(phases)):
            middles = ((np.arange(number) + 0.5) * len(phases) / number).astype(int)
            steps = direction * _steps(phases[middles])[:, moving]
            assert (steps > 0).all() and steps.max() < 0.25
            assert 0.5 < steps.sum() <= 0.9 + 1e-9


def test_clips_of_all_classes_begin_alike():
    """From equal generators: beyond its trajectory, nothing of a clip knows its class."""
    clips = [motion_frames(label, np.random.default_rng(5), 48) for label in MOTIONS]
    assert all(np.array_equal(clip[0], clips[0][0]) and len(clip) == len(clips[0]) for clip in clips)
    assert len({clip[-1].tobytes() for clip in clips}) == len(MOTIONS)


def test_compression_knows_nothing_of_the_order():
    """A frame predicted from the one before it would look different after other frames."""
    frames = motion_frames("right", np.random.default_rng(1))
    forwards, backwards = (_decoded(io.BytesIO(motions._encoded(clip))) for clip in (frames, frames[::-1].copy()))
    assert np.array_equal(forwards, backwards[::-1])


# --- What is seen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", motions.KINDS)
@pytest.mark.parametrize("radius", RANGES["radius"])
def test_a_shape_has_its_area_wherever_it_is(kind, radius):
    for x, y in ((0.5, 0.5), (0.99, 0.5), (0.02, 0.97)):
        covered = motions._coverage(kind, x, y, radius, 128)
        assert covered.mean() == pytest.approx(np.pi * radius**2, rel=0.02)
        rolled = np.roll(covered, (round((0.5 - y) * 128), round((0.5 - x) * 128)), axis=(0, 1))
        assert np.abs(rolled - motions._coverage(kind, 0.5, 0.5, radius, 128)).mean() < 0.01


def _measured(frames: np.ndarray, states: np.ndarray) -> np.ndarray:
    """(T, 4): x, y, radius and brightness, from the pixels; of `states`, only how large a shape to look for is used."""
    measured = []
    around = np.exp(2j * np.pi * (np.arange(frames.shape[1]) + 0.5) / frames.shape[1])
    for pixels, radius in zip(frames.max(axis=3).astype(int), states[:, 2], strict=True):
        value = np.quantile(pixels, 1 - np.pi * radius**2 / 2)  # half of the shape is brighter than this
        shape = pixels > (value + np.quantile(pixels, 0.3)) / 2  # the largest covers a third of the frame
        x, y = (np.angle((shape.sum(axis=axis) * around).sum()) / (2 * np.pi) % 1 for axis in (0, 1))
        measured.append([x, y, np.sqrt(shape.mean() / np.pi), value / 255])
    return np.array(measured)


@pytest.mark.parametrize(
    ("label", "place", "sign"),
    [
        ("left", 0, -1),
        ("right", 0, 1),
        ("up", 1, -1),
        ("down", 1, 1),
        ("shrink", 2, -1),
        ("grow", 2, 1),
    ],
)
def test_what_is_read_back_shows_the_motion(label, place, sign):
    for seed in range(3):
        states = trajectory(label, np.random.default_rng(seed))
        frames = _decoded(io.BytesIO(motions._encoded(motion_frames(label, np.random.default_rng(seed)))))
        assert frames.shape == (len(states), 64, 64, 3)
        measured = _measured(frames, states)
        apart = measured - states
        apart[:, :2] = (apart[:, :2] + 0.5) % 1 - 0.5
        assert (np.abs(apart) < [0.04, 0.04, 0.02, 0.035]).all()  # a triangle's mean on a circle isn't quite its center
        over_4_frames = measured[4:, place] - measured[:-4, place]
        assert np.median(sign * over_4_frames) > 0


# --- The data set ----------------------------------------------------------------------------------------------------


def test_the_files_keep_the_data_contract(tmp_path):
    folder = write_motions(tmp_path / "motions", seed=3, size=48, **SMALL)
    groups = {}
    for number, (split, count) in enumerate(SMALL.items()):
        with open(folder / f"{split}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [*rows[0]] == ["path", "label", "group"] and len(rows) == count
        numbers = Counter(row["label"] for row in rows)
        assert max(numbers.values()) - min(numbers[label] for label in MOTIONS) <= 1 and set(numbers) <= set(MOTIONS)
        groups[split] = {row["group"] for row in rows}
        assert len(groups[split]) == len({row["path"] for row in rows}) == count
        for index, row in enumerate(rows):
            with av.open(str(folder / row["path"])) as container:
                (stream,) = container.streams
                assert stream.average_rate == motions.RATE
                frames = motion_frames(row["label"], np.random.default_rng([3, number, index]), 48)
                assert stream.frames == len(frames) == sum(bool(packet.size) for packet in container.demux())
            decoded = _decoded(str(folder / row["path"]))
            assert decoded.shape == frames.shape
            assert np.abs(decoded.astype(int) - frames).mean() < 6
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["validation"]
    assert len(list((folder / "clips").iterdir())) == sum(SMALL.values())


def test_the_defaults_are_balanced_and_the_same_everywhere():
    given = motions.MotionsOptions(folder="somewhere")
    for name in ("seed", "train", "validation", "test", "size"):
        defaults = {inspect.signature(write).parameters[name].default for write in (write_motions, embedded_motions)}
        assert defaults == {getattr(given, name)}
    assert all(count % len(MOTIONS) == 0 for count in (given.train, given.validation, given.test))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_in_any_process(tmp_path):
    written = []
    for salt, validation in (("1", "2"), ("2", "5")):
        folder = tmp_path / salt
        counts = ["--train", "4", "--validation", validation, "--test", "3"]
        environment = os.environ | {"PYTHONHASHSEED": salt}
        command = [sys.executable, "-m", "video.motions", folder, *counts]
        told = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
        assert told.stdout.strip() == str(folder) and not told.stderr  # no bar where nobody looks
        written.append(_bytes(folder))
    one, other = written
    assert all(one[name] == other[name] for name in one if name != "validation.csv")
    assert other["validation.csv"].startswith(one["validation.csv"])
    another = _bytes(write_motions(tmp_path / "seed", seed=1, **SMALL))
    assert not {data for name, data in one.items() if name.endswith("mp4")} & {*another.values()}


def test_the_cache_is_written_once_and_named_after_everything(tmp_path):
    folder = embedded_motions(tmp_path / "cache", **SMALL)
    (folder / "train.csv").write_text("mine", encoding="utf-8")
    assert embedded_motions(tmp_path / "cache", **SMALL) == folder
    assert (folder / "train.csv").read_text(encoding="utf-8") == "mine"
    changes = ({"seed": 1}, {"size": 32}, {"test": 2})
    others = [embedded_motions(tmp_path / "cache", **(SMALL | change)) for change in changes]
    assert len({folder, *others}) == 4
    assert f"v{motions.VERSION}" in folder.name


def test_a_run_that_dies_leaves_nothing(tmp_path, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(motions, "_encoded", die)
    with pytest.raises(KeyboardInterrupt):
        write_motions(tmp_path / "motions", **SMALL)
    assert not list(tmp_path.iterdir())


def test_of_two_writers_the_first_stays(tmp_path, monkeypatch):
    """While ours is being written, another process finishes: its set is kept and ours goes."""
    folder = tmp_path / "motions-of-both"
    write_split = motions._write_split

    def lose(temporary, split, *rest):
        write_split(temporary, split, *rest)
        if split == "test":
            folder.mkdir()
            (folder / "test.csv").write_text("the winner's", encoding="utf-8")

    monkeypatch.setattr(motions, "_write_split", lose)
    assert write_motions(folder, **SMALL) == folder
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert _bytes(folder) == {"test.csv": b"the winner's"}


@pytest.mark.parametrize(
    "change",
    [{"train": 0}, {"test": 100_001}, {"validation": -1}, {"size": 30}, {"size": 514}, {"size": 63}, {"seed": -1}],
)
def test_what_is_out_of_range_is_refused(tmp_path, change):
    ((name, value),) = change.items()
    for write in (write_motions, embedded_motions):
        with pytest.raises(UserError, match=f"--{name} {value}: "):
            write(tmp_path / "motions", **(SMALL | change))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="already holds something"):
        write_motions(tmp_path, **SMALL)
    with pytest.raises(UserError, match="cannot be written"):
        write_motions(tmp_path / "mine.txt" / "motions", **SMALL)
