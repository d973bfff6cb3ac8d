"""Which frames are taken: small answers worked by hand, and what holds for every rule."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from common.errors import UserError
from video.sampling import KINDS, SHORTS, Sampling


def chosen(count: int, generator=None, **rule) -> list[int]:
    return Sampling(**rule).indices(count, generator).tolist()


@pytest.mark.parametrize(
    ("rule", "count", "expected"),
    [
        (dict(kind="first", frames=3), 10, [0, 1, 2]),
        (dict(kind="uniform", frames=1), 9, [4]),
        (dict(kind="uniform", frames=2), 8, [2, 6]),
        (dict(kind="uniform", frames=3), 10, [1, 5, 8]),  # midpoints 1.67, 5, 8.33
        (dict(kind="uniform", frames=5), 5, [0, 1, 2, 3, 4]),
        (dict(kind="random", frames=2), 8, [2, 6]),  # without a generator: midpoints
        (dict(kind="stride", frames=4, stride=3), 20, [0, 3, 6, 9]),
        (dict(kind="stride", frames=4, stride=3), 8, [0, 3, 6]),
        (dict(kind="stride", frames=4, stride=100), 8, [0]),
        (dict(kind="all", frames=2), 5, [0, 1, 2, 3, 4]),
        (dict(kind="all", frames=2, max_frames=2), 8, [2, 6]),
    ],
)
def test_by_hand(rule, count, expected):
    assert chosen(count, **rule) == expected


@pytest.mark.parametrize("kind", ["first", "uniform", "random", "all"])
@pytest.mark.parametrize(
    ("short", "expected"),
    [
        ("mask", [0, 1, 2]),
        ("repeat", [0, 1, 2, 2, 2, 2, 2]),
        ("loop", [0, 1, 2, 0, 1, 2, 0]),
        ("zeros", [0, 1, 2, -1, -1, -1, -1]),
    ],
)
def test_a_short_clip(kind, short, expected):
    assert chosen(3, np.random.default_rng(0), kind=kind, frames=7, short=short) == expected


def test_a_short_clip_by_stride_repeats_what_was_taken():
    rule = dict(kind="stride", frames=5, stride=4)
    assert chosen(9, **rule, short="repeat") == [0, 4, 8, 8, 8]
    assert chosen(9, **rule, short="loop") == [0, 4, 8, 0, 4]
    assert chosen(9, **rule, short="zeros") == [0, 4, 8, -1, -1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("short", SHORTS)
def test_every_rule_stays_inside_the_clip(kind, short):
    sampling = Sampling(kind=kind, frames=6, stride=2, short=short, max_frames=12)
    for count in (*range(1, 40), 1000, 999_999):
        indices = sampling.indices(count, np.random.default_rng(count))
        assert indices.dtype == np.int64 and indices.ndim == 1
        assert indices.max() < count and indices.min() >= (-1 if short == "zeros" else 0)
        if kind == "all":
            assert len(indices) == max(min(count, 12), 6 if short != "mask" else 0)
        else:
            assert len(indices) == 6 or (short == "mask" and len(indices) < 6)
        real = indices[: 12 if kind == "all" else 6]
        real = real[: min(len(real), count if kind != "stride" else -(-count // 2))]
        assert (np.diff(real) > 0).all()  # in order, no frame twice, before any filling


def test_random_takes_one_frame_of_each_segment_and_in_time_each_frame():
    sampling, generator = Sampling(kind="random", frames=4), np.random.default_rng(0)
    draws = np.stack([sampling.indices(10, generator) for _ in range(300)])
    # segments of 2.5 frames: [0, 2) [2, 5) [5, 7) [7, 10)
    assert [sorted(set(column.tolist())) for column in draws.T] == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]


def test_the_generator_alone_decides():
    sampling = Sampling(kind="random", frames=8)
    first, second, other = (sampling.indices(500, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2))
    assert first == second != other
    assert chosen(500, np.random.default_rng(1), frames=8) == chosen(500, frames=8)  # uniform needs no chance


def test_round_trip_through_json():
    sampling = Sampling(kind="stride", frames=9, stride=2, short="loop", max_frames=50)
    assert Sampling(**json.loads(json.dumps(asdict(sampling)))) == sampling


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (dict(kind="middle"), "'middle': allowed are first, uniform, random, stride, all"),
        (dict(short="pad"), "'pad': allowed are mask, repeat, loop, zeros"),
        (dict(frames=0), "frames 0"),
        (dict(frames=True), "frames True"),
        (dict(frames=2.5), "frames 2.5"),
        (dict(stride=-1), "stride -1"),
        (dict(max_frames=0), "max_frames 0"),
        (dict(kind="all", frames=9, max_frames=8), "at most max_frames, 8"),
    ],
)
def test_bad_values_are_named(values, named):
    with pytest.raises(UserError) as error:
        Sampling(**values)
    assert named in str(error.value)


@pytest.mark.parametrize("count", [0, -1])
def test_a_clip_without_frames_cannot_be_sampled(count):
    with pytest.raises(UserError, match="nothing to sample"):
        Sampling().indices(count)
