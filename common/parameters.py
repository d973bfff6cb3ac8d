"""How many parameters a network has, layer by layer, and by which formula.

    layers = layers_of(torch.nn.Linear(9216, 4096))      # [Layer(formula="9216·4096 + 4096", parameters=37752832, …)]

Belongs here: the formulas, and the tables of whole networks of the zoo. Not here: what of a network an encoder uses
(`common/encoders.py`, which also counts what is trained).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import zoo
from common.encoders import BatchNorm, whole_network
from common.parameters_options import ALEXNET_ORIGINAL, CountOptions
from common.runs import refuse_existing, typed_command, write_csv, write_json, write_text
from common.tables import markdown

R3_LAYERS = (34_944, 614_656, 885_120, 1_327_488, 884_992, 37_752_832, 16_781_312, 4_097_000)
"""What report R3 says of AlexNet's layers; shown beside what is counted here, and used for nothing else."""
R3_TOTAL = 62_378_344


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer that has parameters."""

    name: str
    kind: str
    kernel: str | None = None
    inputs: int | None = None
    outputs: int | None = None
    groups: int = 1
    bias: bool | None = None
    formula: str
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network's layers; `buffers` are the values it keeps that are no parameters, `notes` what must be known."""

    name: str
    layers: Sequence[Layer]
    buffers: int = 0
    reported: tuple[Sequence[int], int] | None = None
    """what report R3 says of each layer and of all, if it does"""
    notes: Sequence[str] = ()

    @property
    def total(self) -> int:
        return sum(layer.parameters for layer in self.layers)


# --- formulas ---------------------------------------------------------------------------------------------------------


def convolution(
    name: str, kernel: tuple[int, ...], inputs: int, outputs: int, *, groups: int = 1, bias: bool = True
) -> Layer:
    """A kernel for each output over the inputs of its group, and a bias for each output."""
    seen = f"({inputs}/{groups})" if groups > 1 else f"{inputs}"
    return Layer(
        name=name,
        kind="convolution",
        kernel="·".join(map(str, kernel)),
        inputs=inputs,
        outputs=outputs,
        groups=groups,
        bias=bias,
        formula=f"{'·'.join(map(str, kernel))}·{seen}·{outputs}" + (f" + {outputs}" if bias else ""),
        parameters=math.prod(kernel) * (inputs // groups) * outputs + (outputs if bias else 0),
    )


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Layer:
    return Layer(
        name=name,
        kind="linear",
        inputs=inputs,
        outputs=outputs,
        bias=bias,
        formula=f"{inputs}·{outputs}" + (f" + {outputs}" if bias else ""),
        parameters=inputs * outputs + (outputs if bias else 0),
    )


def batch_norm(name: str, channels: int) -> Layer:
    """A scale and a shift for each channel (the running mean and variance are no parameters)."""
    return Layer(
        name=name,
        kind="batch norm",
        inputs=channels,
        outputs=channels,
        bias=True,
        formula=f"2·{channels}",
        parameters=2 * channels,
    )


def layers_of(network: nn.Module) -> list[Layer]:
    """Every module of `network` that has parameters of its own, in its order. On the meta device, too."""
    found = []
    for name, module in network.named_modules():
        own = [tuple(parameter.shape) for parameter in module.parameters(recurse=False)]
        if not own:
            continue
        match module:
            case nn.Conv2d(transposed=False):
                layer = convolution(
                    name,
                    module.kernel_size,
                    module.in_channels,
                    module.out_channels,
                    groups=module.groups,
                    bias=module.bias is not None,
                )
            case nn.Linear():
                layer = linear(name, module.in_features, module.out_features, bias=module.bias is not None)
            case BatchNorm():
                layer = batch_norm(name, module.num_features)
            case _:  # of a layer that nobody has told us about, the shapes of its parameters
                shapes = " + ".join("·".join(map(str, shape)) or "1" for shape in own)
                layer = Layer(
                    name=name, kind=type(module).__name__, formula=shapes, parameters=sum(map(math.prod, own))
                )
        if layer.parameters != sum(map(math.prod, own)):
            raise AssertionError(f"{name}: {layer.formula} = {layer.parameters}, but it has {own}")
        found.append(layer)
    return found


# --- networks ---------------------------------------------------------------------------------------------------------


def original_alexnet(*, groups: int = 1) -> list[Layer]:
    """The layers of Krizhevsky, Sutskever and Hinton, NIPS 2012, for images of 227 pixels and 1,000 classes.

    Its `groups` were 2, one for each GPU: conv2, conv4 and conv5 saw the half of the channels before them. Report R3
    counts it without.
    """
    return [
        convolution("conv1", (11, 11), 3, 96),
        convolution("conv2", (5, 5), 96, 256, groups=groups),
        convolution("conv3", (3, 3), 256, 384),
        convolution("conv4", (3, 3), 384, 384, groups=groups),
        convolution("conv5", (3, 3), 384, 256, groups=groups),
        linear("fc6", 6 * 6 * 256, 4096),
        linear("fc7", 4096, 4096),
        linear("fc8", 4096, 1000),
    ]


def count(name: str) -> Network:
    """The network of an encoder of the zoo, whole, or `alexnet_original`."""
    if name == ALEXNET_ORIGINAL:
        grouped = sum(layer.parameters for layer in original_alexnet(groups=2))
        said = (
            f"torchvision's alexnet has {count('alexnet').total:,}: it is a later one, with fewer channels in conv1, "
            "conv2 and conv4",
            f"with conv2, conv4 and conv5 in two groups, as first published, it has {grouped:,}",
        )
        return Network(name=name, layers=original_alexnet(), reported=(R3_LAYERS, R3_TOTAL), notes=said)
    entry = zoo.describe(name)
    with torch.device("meta"):
        network = whole_network(entry)
    buffers = sum(buffer.numel() for buffer in network.buffers())
    notes = []
    if buffers:
        norms = sum(isinstance(module, BatchNorm) for module in network.modules())
        notes.append(
            f"buffers are not counted: {buffers:,} values, the running means and variances of {norms} batch norms and "
            "how many batches each has seen"
        )
    if entry.arguments.get("aux_logits") is False:
        notes.append("without the auxiliary classifiers, which only its training used")
    if entry.factory is None:
        notes.append(f"depth {len(entry.stages)}, width {entry.stages[0].channels}; it has no classifier of its own")
    return Network(name=name, layers=layers_of(network), buffers=buffers, notes=notes)


def count_networks(options: CountOptions) -> list[Network]:
    """Print the tables that `options` ask for, and write them if they name a file."""
    refuse_existing(options.output, overwrite=options.overwrite)
    networks = [count(name) for name in options.names]
    text = totals_table(networks) if options.total else "\n\n".join(map(network_table, networks))
    print(text)
    if options.output is not None:
        path = Path(options.output)
        if path.suffix == ".json":
            write_json(path, {"networks": [as_plain(network, layers=not options.total) for network in networks]})
        elif path.suffix == ".csv":
            write_csv(path, totals_rows(networks) if options.total else [*layer_rows(networks)])
        else:
            write_text(path, f"# Parameters\n\n```\n{typed_command()}\n```\n\n{text}\n")
    return networks


# --- tables -----------------------------------------------------------------------------------------------------------


def network_table(network: Network) -> str:
    """A network's layers and total as Markdown, with its notes under them."""
    rows = []
    for layer in network.layers:
        row = {name: _shown(getattr(layer, name)) for name in ("name", "kind", "kernel", "inputs", "outputs", "bias")}
        rows.append(row | {"parameters": f"{layer.formula} = {layer.parameters:,}"})
    rows.append(dict.fromkeys(rows[0], "") | {"name": "total", "parameters": f"{network.total:,}"})
    if network.reported is not None:
        for row, figure in zip(rows, (*network.reported[0], network.reported[1]), strict=True):
            row["reported (R3)"] = f"{figure:,}"
    table = markdown([{"layer": row.pop("name")} | row for row in rows])
    return "\n".join([f"## {network.name}: {network.total:,}", "", table, *_notes(network)])


def totals_table(networks: Sequence[Network]) -> str:
    """A line for each network."""
    return markdown([{key: _shown(value, ",") for key, value in row.items()} for row in totals_rows(networks)])


def totals_rows(networks: Sequence[Network]) -> list[dict[str, Any]]:
    rows = [
        {
            "network": network.name,
            "layers": len(network.layers),
            "parameters": network.total,
            "buffers, not counted": network.buffers,
        }
        for network in networks
    ]
    if any(network.reported for network in networks):
        for row, network in zip(rows, networks, strict=True):
            row["reported (R3)"] = network.reported[1] if network.reported else None
    return rows


def layer_rows(networks: Sequence[Network]) -> Iterator[dict[str, Any]]:
    """A row for each layer of all networks, for programs."""
    for network in networks:
        for layer in network.layers:
            yield {"network": network.name, "layer": layer.name} | _without(asdict(layer), "name")


def as_plain(network: Network, *, layers: bool) -> dict[str, Any]:
    """A network as plain values for JSON, its layers with it or not."""
    found: dict[str, Any] = {"name": network.name, "total": network.total, "buffers": network.buffers}
    if network.reported is not None:
        found["reported"] = {"report": "R3", "total": network.reported[1], "layers": list(network.reported[0])}
    return (
        found
        | {"notes": list(network.notes)}
        | ({"layers": [asdict(layer) for layer in network.layers]} if layers else {})
    )


def _notes(network: Network) -> list[str]:
    return ["", *(f"- {note}" for note in network.notes)] if network.notes else []


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


def _shown(value: Any, style: str = "") -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, style) if isinstance(value, int) else str(value)
