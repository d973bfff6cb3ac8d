"""Recurrent nets over padded batches: RNN, GRU or LSTM, one direction or two, and the state each sequence ends in.

Belongs here: what both tasks (and the letters of report R3) need of a recurrent net. Not what is fed to it.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common.errors import UserError

KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(nn.Module):
    """A recurrent net whose output never depends on how far its batch is padded.

    `kind` is one of rnn, gru, lstm (Elman 1990; Cho et al. 2014; Hochreiter & Schmidhuber 1997). `dropout` acts between
    layers. Always computed in fp32: recurrences gather the rounding errors of lower precisions over time.
    """

    def __init__(
        self, kind: str, inputs: int, hidden: int, *, layers: int = 1, bidirectional: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise UserError(f"unknown recurrent net '{kind}'; allowed: {', '.join(KINDS)}")
        self.net = KINDS[kind](
            inputs,
            hidden,
            num_layers=layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,  # torch warns of dropout between the layers of a single one
        )
        self.size = hidden * (2 if bidirectional else 1)

    def forward(self, sequences: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`sequences (B, T, inputs)` with `lengths (B,)` ≥ 1 → every state `(B, T, size)`, final states `(B, size)`.

        States beyond a sequence's length are zero. The final state is the one at length − 1; with two directions, the
        forward one there beside the backward one at 0.
        """
        with torch.autocast(sequences.device.type, enabled=False):
            sequences = sequences.float()
            if self.net.bidirectional:
                # Backwards, padding would come first: the net must start at each sequence's own end.
                packed = pack_padded_sequence(sequences, lengths.cpu(), batch_first=True, enforce_sorted=False)
                states, _ = pad_packed_sequence(self.net(packed)[0], batch_first=True, total_length=sequences.shape[1])
            else:
                states, _ = self.net(sequences)
                states = states * time_mask(lengths, sequences.shape[1]).unsqueeze(-1)
        rows = torch.arange(len(states), device=states.device)
        final = states[rows, lengths - 1]  # (B, size)
        if self.net.bidirectional:
            half = self.net.hidden_size
            final = torch.cat([final[:, :half], states[:, 0, half:]], dim=-1)
        return states, final


def time_mask(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """`lengths (B,)` → bool `(B, steps)`, true where a sequence still runs."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(-1)
