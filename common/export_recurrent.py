"""Recurrent nets as ONNX has them: LSTM, GRU and RNN nodes that are told the length of each sequence.

Belongs here: the same weights in ONNX's order, and the node that stands for them. PyTorch's exporter knows no packed
sequences, and unrolls or loops over the steps of a padded one; ONNX's own nodes take the lengths as an input
(`sequence_lens`), write zeros beyond them, and start backwards from each sequence's own end: what `Recurrent` does.
Which model is exported, and how it is checked, is `common/export_onnx.py`'s.
"""

from typing import Any

import torch
from torch import nn

from common.recurrent import Recurrent

# Gates in PyTorch's weights → ONNX's order of them.
_GATES = {
    nn.LSTM: (0, 3, 1, 2),  # input, forget, cell, output → input, output, forget, cell
    nn.GRU: (1, 0, 2),  # reset, update, new → update, reset, new
    nn.RNN: (0,),
}
_OPERATOR = "hoianh::recurrent"


class OnnxRecurrent(nn.Module):
    """`Recurrent` for `torch.onnx.export` with `translations()`; in PyTorch itself it cannot be run."""

    def __init__(self, recurrent: Recurrent) -> None:
        super().__init__()
        net = recurrent.net
        self.kind, self.hidden, self.both = type(net).__name__, net.hidden_size, net.bidirectional
        self.layers, gates = net.num_layers, _GATES[type(net)]
        for layer in range(self.layers):
            directions = [f"l{layer}", f"l{layer}_reverse"][: 1 + self.both]

            def stacked(name: str, directions: list[str] = directions) -> torch.Tensor:
                """A weight of both directions, `(D, gates·H, ...)`."""
                weights = [getattr(net, f"{name}_{direction}").detach() for direction in directions]
                return torch.stack(
                    [torch.cat([weight.chunk(len(gates))[gate] for gate in gates]) for weight in weights]
                )

            self.register_buffer(f"inputs_{layer}", stacked("weight_ih"))
            self.register_buffer(f"states_{layer}", stacked("weight_hh"))
            self.register_buffer(f"biases_{layer}", torch.cat([stacked("bias_ih"), stacked("bias_hh")], dim=1))

    def forward(self, sequences: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Recurrent.forward`."""
        states = final = sequences
        for layer in range(self.layers):
            weights = (self.get_buffer(f"{name}_{layer}") for name in ("inputs", "states", "biases"))
            states, final = _operator()(states, lengths, *weights, self.kind, self.hidden, self.both)
        return states, final


def with_onnx_recurrent(module: nn.Module) -> nn.Module:
    """`module` with every `Recurrent` in it replaced, in place."""
    for name, child in module.named_children():
        if isinstance(child, Recurrent):
            setattr(module, name, OnnxRecurrent(child))
        else:
            with_onnx_recurrent(child)
    return module


def translations() -> dict:
    """`custom_translation_table` of `torch.onnx.export`. Needs onnxscript."""
    from onnx import TensorProto
    from onnxscript import opset18

    op: Any = opset18  # its stubs want constants' types, which it finds out itself

    def translate(sequences, lengths, inputs, states, biases, kind: str, hidden: int, both: bool):
        given = (
            op.Transpose(sequences, perm=[1, 0, 2]),
            inputs,
            states,
            biases,
            op.Cast(lengths, to=TensorProto.INT32),
        )
        about = {"hidden_size": hidden, "direction": "bidirectional" if both else "forward"}
        if kind == "GRU":  # PyTorch resets the state after it is multiplied, as cuDNN does, not before
            about["linear_before_reset"] = 1
        every, final, *_ = getattr(op, kind)(*given, **about)  # (T, D, B, H), (D, B, H)
        every = op.Reshape(op.Transpose(every, perm=[2, 0, 1, 3]), op.Constant(value_ints=[0, 0, -1]))
        return every, op.Reshape(op.Transpose(final, perm=[1, 0, 2]), op.Constant(value_ints=[0, -1]))

    return {_operator(): translate}


def _operator():
    """The operator that the exporter sees: shapes alone, no computation. Defined when it is first needed."""
    if not hasattr(torch.ops.hoianh, "recurrent"):
        torch.library.define(
            _OPERATOR,
            "(Tensor sequences, Tensor lengths, Tensor inputs, Tensor states, Tensor biases, str kind, int hidden, "
            "bool both) -> (Tensor, Tensor)",
        )

        @torch.library.register_fake(_OPERATOR)
        def shapes(sequences, lengths, inputs, states, biases, kind, hidden, both):
            size = hidden * (1 + both)
            every = sequences.new_empty(*sequences.shape[:2], size)
            return every, sequences.new_empty(sequences.shape[0], size)

    return torch.ops.hoianh.recurrent.default
