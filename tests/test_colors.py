"""The color stage: a count of colours, cell by cell."""

import pytest
import torch

from common.colors import COLORS, LEVELS, color_histogram
from common.encoders import build_encoder, encoder_from_config
from common.images import normalise


def place(red: int, green: int, blue: int) -> int:
    return (red * LEVELS + green) * LEVELS + blue


def test_shares_of_each_colour():
    pixels = torch.zeros(1, 3, 48, 96)
    pixels[0, 0, :, :48] = 1  # the left cell red, the right one half black, half white
    pixels[0, :, 24:, 48:] = 1
    shares = color_histogram(pixels, (1, 2))[0, :, 0]  # (125, 2)
    assert shares[place(4, 0, 0), 0] == 1
    assert shares[place(0, 0, 0), 1] == shares[place(4, 4, 4), 1] == 0.5
    torch.testing.assert_close(shares.sum(0), torch.ones(2))


def test_a_colour_between_levels_is_shared():
    pixels = torch.tensor([0.125, 0.0, 0.5]).view(1, 3, 1, 1).expand(1, 3, 10, 10)
    shares = color_histogram(pixels, (1, 1)).flatten()
    assert shares[place(0, 0, 2)] == shares[place(1, 0, 2)] == 0.5 and shares.sum() == 1


def test_cells_average_to_the_whole():
    blocks = torch.rand(2, 3, 4, 4)  # a colour for each cell: seen alike, however coarsely
    pixels = blocks.repeat_interleave(12, dim=2).repeat_interleave(12, dim=3)
    cells, whole = color_histogram(pixels, (4, 4)), color_histogram(pixels, (1, 1))
    assert cells.shape == (2, COLORS, 4, 4)
    torch.testing.assert_close(cells.mean((2, 3)), whole.flatten(1))


@pytest.mark.parametrize("name", ["mobilenet_v2", "custom_cnn"])
def test_it_joins_the_stages_of_any_encoder(name):
    encoder = build_encoder(name, stages=["color"])
    assert encoder.parts[0] == COLORS and len(encoder.parts) == 2  # the last stage, as if none had been named
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    grid = encoder(normalise(pixels, encoder.preprocessing))
    assert grid.shape[1] == encoder.channels == sum(encoder.parts)
    expected = color_histogram(pixels / 255, grid.shape[-2:])
    torch.testing.assert_close(grid[:, :COLORS], expected, rtol=1e-3, atol=1e-4)
    plain = build_encoder(name)
    assert plain.channels == encoder.channels - COLORS
    again = encoder_from_config(encoder.config)
    assert again.parts == encoder.parts
