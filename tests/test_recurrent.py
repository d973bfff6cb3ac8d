"""Padding changes nothing, whatever the net."""

import pytest
import torch

from common.errors import UserError
from common.recurrent import Recurrent, time_mask


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_padding_changes_no_state(kind, bidirectional, layers):
    torch.manual_seed(0)
    net = Recurrent(kind, 5, 4, layers=layers, bidirectional=bidirectional).eval()
    sequences, lengths = torch.randn(3, 6, 5), torch.tensor([6, 2, 1])
    states, final = net(sequences, lengths)
    assert states.shape == (3, 6, net.size) and final.shape == (3, net.size)
    padded = torch.cat([sequences, 100 * torch.randn(3, 4, 5)], dim=1)
    more_states, more_final = net(padded, lengths)
    torch.testing.assert_close(more_final, final, atol=1e-6, rtol=0)
    torch.testing.assert_close(more_states[:, :6], states, atol=1e-6, rtol=0)
    for row, length in enumerate(lengths.tolist()):  # alone, unpadded
        torch.testing.assert_close(net(sequences[row : row + 1, :length], lengths[row : row + 1])[1][0], final[row])


def test_stays_in_fp32_under_autocast():
    net = Recurrent("lstm", 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, final = net(torch.randn(2, 3, 3).bfloat16(), torch.tensor([3, 1]))
    assert states.dtype == final.dtype == torch.float32


def test_time_mask():
    assert time_mask(torch.tensor([1, 3]), 3).tolist() == [[True, False, False], [True, True, True]]


def test_unknown_kind():
    with pytest.raises(UserError, match="unknown recurrent net 'mamba'; allowed: rnn, gru, lstm"):
        Recurrent("mamba", 3, 4)
