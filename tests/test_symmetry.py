"""Views the other way round, and what is said of them then."""

import numpy as np
import pytest
import torch
from PIL import Image

from common.symmetry import Symmetry, symmetries
from vqa.text import speaks_of_sides, turned


def test_the_plain_way_comes_first_and_no_way_twice():
    assert symmetries(()) == symmetries(("crop", "color")) == (Symmetry(),)
    assert symmetries(("crop", "flip")) == (Symmetry(), Symmetry(mirrored=True))
    assert [way.turns for way in symmetries(("turn",))] == [0, 1, 2, 3]
    both = symmetries(("turn", "flip"))
    photo = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert (
        both[0] == Symmetry() and len({way.image(photo).tobytes() + bytes(way.image(photo).size) for way in both}) == 8
    )


@pytest.mark.parametrize("way", symmetries(("flip", "turn")), ids=str)
def test_direction_is_where_the_pixel_goes(way):
    for x, y in [(-1, 0), (1, 0), (0, -1), (0, 1), (1, -1)]:
        pixels = np.zeros((3, 3), dtype=np.uint8)
        pixels[1 + y, 1 + x] = 255
        row, column = np.argwhere(np.asarray(way.image(Image.fromarray(pixels))) == 255)[0]
        assert way.direction(x, y) == (column - 1, row - 1)


@pytest.mark.parametrize("way", symmetries(("flip", "turn")), ids=str)
def test_a_square_and_its_boxes_go_the_same_way(way):
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[0:1, 2:4] = 255  # the right half of the upper edge
    expected = np.asarray(way.image(Image.fromarray(pixels)))
    turned_pixels, boxes = way.squares(
        torch.from_numpy(pixels).permute(2, 0, 1)[None], torch.tensor([[0.5, 0, 1, 0.25]])
    )
    assert (turned_pixels[0].permute(1, 2, 0).numpy() == expected).all()
    x0, y0, x1, y1 = (int(4 * side) for side in boxes[0])
    assert (expected[y0:y1, x0:x1] == 255).all() and (y1 - y0) * (x1 - x0) == 2


@pytest.mark.parametrize(
    ("way", "said", "then"),
    [
        (Symmetry(), "Bên trái", "Bên trái"),  # as written
        (Symmetry(mirrored=True), "bên trái", "bên phải"),
        (Symmetry(mirrored=True), "cái gì ở phía phải", "cái gì ở phía trái"),
        (Symmetry(mirrored=True), "phía trên", "phía trên"),
        (Symmetry(mirrored=True), "đây có phải là trái cây trên bàn không", "đây có phải là trái cây trên bàn không"),
        (Symmetry(turns=1), "bên trái", "phía trên"),  # clockwise
        (Symmetry(turns=1), "phía trên", "bên phải"),
        (Symmetry(turns=2), "phía dưới", "phía trên"),
        (Symmetry(turns=3), "bên phải", "phía trên"),
        (Symmetry(turns=1), "hình ở góc trên bên trái màu gì", "hình ở góc trên bên phải màu gì"),
        (Symmetry(mirrored=True), "hình ở góc dưới bên trái màu gì", "hình ở góc dưới bên phải màu gì"),
        (Symmetry(mirrored=True, turns=1), "bên trái", "phía dưới"),
    ],
)
def test_words_turn_with_the_photo(way, said, then):
    assert turned(said, way) == then


def test_what_speaks_of_sides():
    assert speaks_of_sides("con mèo ở BÊN TRÁI") and speaks_of_sides("phía dưới có gì")
    assert not speaks_of_sides("trái cây nằm trên bàn phải không")
