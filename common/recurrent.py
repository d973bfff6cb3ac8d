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


def keras_initialise(module: nn.Module) -> None:
    """Give the recurrent and linear layers of `module` the initial weights of Keras, in which report R2 was written.

    Glorot's uniform for what comes in, orthogonal for the recurrence, zero biases but 1 for an LSTM's forget gate
    (Jozefowicz et al., ICML 2015). PyTorch's second bias starts, redundantly, at zero.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.RNNBase):
            for name, weights in layer.named_parameters():
                if name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(weights)
                elif name.startswith("weight_hh"):
                    nn.init.orthogonal_(weights)
                else:
                    nn.init.zeros_(weights)
                    if isinstance(layer, nn.LSTM) and name.startswith("bias_ih"):
                        with torch.no_grad():
                            weights[layer.hidden_size : 2 * layer.hidden_size] = 1  # gates: input, forget, cell, output


def keras_parameters(module: nn.Module) -> int:
    """How many parameters `module` would have in Keras, which gives LSTMs and plain RNNs one bias vector, not two.

    A GRU has two there as well (`reset_after`).
    """
    total = sum(parameter.numel() for parameter in module.parameters())
    for layer in module.modules():
        if isinstance(layer, nn.LSTM | nn.RNN) and layer.bias:
            total -= sum(weights.numel() for name, weights in layer.named_parameters() if name.startswith("bias_hh"))
    return total
