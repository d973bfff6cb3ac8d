"""Attention over a photo: clear where it looked, on every ground, and told apart without colours."""

import numpy as np
import pytest
from PIL import Image

from common.looks import looked, small


@pytest.mark.parametrize("ground", ["black", "white", (110, 110, 110), (215, 200, 210)])
def test_what_was_looked_at_is_seen_on_every_ground(ground):
    photo = Image.new("RGB", (80, 40), ground)
    drawn = np.asarray(looked(photo, np.array([[0.0, 1.0]]), (0, 0, 80, 40), side=80).convert("L"), dtype=float)
    here, there = drawn[20, 75], drawn[20, 5]
    assert abs(here - np.asarray(photo.convert("L"))[0, 0]) <= 1  # as it was
    assert abs(here - there) > 50
    line = drawn[20, 30:50]  # half of the weight lies in the middle
    assert line.max() == 255 and line.min() == 0


def test_a_photo_is_recognised_under_its_veil_and_keeps_its_colours_where_it_was_looked_at():
    stripes = np.zeros((40, 80, 3), np.uint8)
    stripes[:, ::2] = (255, 120, 0)
    drawn = np.asarray(looked(Image.fromarray(stripes), np.array([[0.0, 1.0]]), (0, 0, 80, 40), side=80), dtype=int)
    assert (drawn[:, 76:] == stripes[:, 76:]).all()
    assert (drawn[20, 4] - drawn[20, 5])[0] > 40  # a fifth of the contrast


def test_what_the_model_does_not_see_is_veiled_most():
    white = Image.new("RGB", (80, 40), "white")
    # The square in the middle is all that it sees: what was cropped away is dark, whatever the weights.
    drawn = np.asarray(looked(white, np.ones((2, 2)), (20, 0, 60, 40), side=80))
    assert drawn[20, 40].min() == 255 and drawn[20, 5].max() < 100 and drawn[20, 75].max() < 100
    seen = np.asarray(looked(white, np.array([[0.0, 0.0, 1.0]]), (20, 0, 60, 40), side=80))
    assert seen[20, 5].max() < seen[20, 22].max() < 130
    # With padding the square shows more than there is.
    drawn = np.asarray(looked(white, np.array([[1.0], [0.0]]), (0, -20, 80, 60), side=80))
    assert drawn[0, 40].min() > drawn[39, 40].max()


def test_without_a_difference_there_is_no_line():
    photo = Image.new("RGB", (80, 40), "white")
    assert looked(photo, np.full((4, 4), 1 / 16), (0, 0, 80, 40), side=80) == photo


def test_a_photo_made_small_before_looks_as_itself():
    large = Image.effect_mandelbrot((400, 200), (-2, -1, 1, 1), 40).convert("RGB")
    few = large.resize((100, 50))
    box, weights = (100, 0, 300, 200), np.random.default_rng(0).random((4, 4))
    whole = np.asarray(looked(large, weights, box, side=100), dtype=int)
    again = np.asarray(looked(few, weights, box, side=100, size=large.size), dtype=int)
    assert np.abs(whole - again).mean() < 5


def test_few_pixels_are_made_large_and_kept_apart():
    checks = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    large = np.asarray(small(checks, 100))
    assert large.shape == (100, 100) and set(np.unique(large)) == {0, 255}
    assert small(Image.new("RGB", (90, 30)), 60).size == (60, 20)
