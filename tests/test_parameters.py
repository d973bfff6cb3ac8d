"""Parameters counted by formula: against torchvision's own figures, and report R3's for the original AlexNet."""

import csv
import json

import pytest
import torchvision
from torch import nn

from common import zoo
from common.config import parse
from common.errors import UserError
from common.parameters import convolution, count, count_networks, layers_of, network_table
from common.parameters_options import ALEXNET_ORIGINAL, NETWORKS, CountOptions


def counted(*arguments: object):
    return count_networks(parse(CountOptions, list(map(str, arguments))))


def test_the_original_alexnet_as_r3_counts_it(capsys):
    (network,) = counted(ALEXNET_ORIGINAL)
    figures = [34_944, 614_656, 885_120, 1_327_488, 884_992, 37_752_832, 16_781_312, 4_097_000]
    assert [layer.parameters for layer in network.layers] == figures
    assert network.total == sum(figures) == 62_378_344
    said = capsys.readouterr().out
    assert "| 11·11·3·96 + 96 = 34,944 " in said and "| 9216·4096 + 4096 = 37,752,832 " in said
    assert "torchvision's alexnet has 61,100,840" in said
    assert "as first published, it has 60,965,224" in said


@pytest.mark.parametrize("name", [name for name in zoo.ENCODERS if zoo.describe(name).weights])
def test_totals_are_those_torchvision_publishes(name):
    assert count(name).total == torchvision.models.get_weight(zoo.describe(name).weights).meta["num_params"]


def test_our_own_network_as_the_zoo_limits_it():
    channels = [stage.channels for stage in zoo.describe("custom_cnn").stages]
    network = count("custom_cnn")
    assert network.total == sum(9 * a * b + 2 * b for a, b in zip([3, *channels], channels, strict=False))


def test_groups_divide_what_an_output_sees():
    layer = convolution("conv", (3, 3), 32, 64, groups=32)
    assert (layer.formula, layer.parameters) == ("3·3·(32/32)·64 + 64", 3 * 3 * 64 + 64)
    depthwise = next(layer for layer in count("mobilenet_v2").layers if layer.groups > 1)
    assert (depthwise.formula, depthwise.parameters) == ("3·3·(32/32)·32", 288)


def test_any_module_has_its_own_parameters_counted_once():
    network = nn.Sequential(
        nn.Conv2d(3, 4, (5, 7), bias=False), nn.BatchNorm2d(4, affine=False), nn.PReLU(), nn.LayerNorm([4, 2])
    )
    found = layers_of(network)
    assert [(layer.kind, layer.formula) for layer in found] == [
        ("convolution", "5·7·3·4"),
        ("PReLU", "1"),
        ("LayerNorm", "4·2 + 4·2"),
    ]
    assert sum(layer.parameters for layer in found) == sum(p.numel() for p in network.parameters())


def test_what_is_not_counted_is_said():
    assert "buffers are not counted: 9,620 values" in network_table(count("resnet18"))  # 2 · 4,800 + 20
    assert count("vgg16").buffers == 0 and not count("vgg16").notes
    assert "without the auxiliary classifiers" in network_table(count("googlenet"))


def test_no_weight_is_made(monkeypatch):
    build, built = torchvision.models.get_model, []
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda *args, **options: built.append(build(*args, **options)) or built[-1]
    )
    assert count("vgg16").total == 138_357_544
    assert all(parameter.is_meta for parameter in built[0].parameters())


def test_a_line_for_each_network(capsys):
    networks = counted("--total")
    assert [network.name for network in networks] == list(NETWORKS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(NETWORKS)
    assert next(line for line in lines if line.startswith("| alexnet ")).split("|")[3].strip() == "61,100,840"


def test_files(tmp_path, capsys):
    for end in ("md", "csv", "json"):
        counted("alexnet", ALEXNET_ORIGINAL, "alexnet", "--output", tmp_path / f"out.{end}")
    text = (tmp_path / "out.md").read_text(encoding="utf-8").partition("## ")[2]
    assert capsys.readouterr().out == f"## {text}" * 3
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert sum(int(row["parameters"]) for row in rows if row["network"] == "alexnet") == 61_100_840
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["networks"]
    assert [network["total"] for network in found] == [61_100_840, 62_378_344]
    assert found[1]["layers"][0] | {"name": "conv1", "kernel": "11·11", "parameters": 34_944} == found[1]["layers"][0]
    with pytest.raises(UserError, match="out.csv exists"):
        counted("alexnet", "--output", tmp_path / "out.csv")
    counted("alexnet", "--total", "--output", tmp_path / "out.csv", "--overwrite")
    assert "alexnet,8,61100840,0" in (tmp_path / "out.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (
            ["alexnett"],
            "unknown network 'alexnett'; did you mean 'alexnet'\\? allowed: mobilenet_v2, .*alexnet_original",
        ),
        (["hf:model"], "unknown network 'hf:model'; .*allowed"),
        (["alexnet", "--output", "figures.txt"], "ends in .md, .csv, .json"),
        (["alexnet", "--output", "no/such/folder.md"], "there is no folder"),
    ],
)
def test_bad_input(arguments, said):
    with pytest.raises(UserError, match=said):
        counted(*arguments)
