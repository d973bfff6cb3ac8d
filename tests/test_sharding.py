"""A model shared out over two processes trains, goes on and is saved as a whole one is, and takes half the memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import is_torch_version
from sharding_world import ENCODERS, OPTIONS, VARIANTS, Deep, go_on
from test_training import train, without_time
from test_transformers_encoders import tiny
from torch import nn

from common import sharding
from common.encoders import build_encoder
from common.errors import UserError
from common.training import make_accelerator

ROOT = Path(__file__).parent.parent
if not is_torch_version(">=", "2.11"):
    pytest.skip("on CPUs --fsdp was tried from torch 2.11 on", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def world(folder) -> list[dict]:
    """What each of the two processes found."""
    tiny("vit").save_pretrained(folder / "vit")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [*command, "tests/sharding_world.py", str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-5000:]
    return [json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


def close(history, other) -> bool:
    """Sums that are added in another order differ by rounding alone."""
    return all(row == pytest.approx(its, abs=1e-7) for row, its in zip(history, other, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_trains_as_a_whole_model_does(world, variant):
    for found in (rank["losses"][variant] for rank in world):
        assert close(found["shared"], found["whole"]) and found["apart"] < 1e-6
        assert found["whole"][-1]["validation_loss"] != found["whole"][0]["validation_loss"]


def test_so_it_does_with_dropout(world):
    found = world[0]["dropout"]
    assert close(found["shared"], found["whole"]) and found["apart"] < 1e-6
    assert not close(found["whole"], world[0]["losses"]["adamw"]["whole"])


def test_one_process_alone_has_nothing_to_share_out(tmp_path):
    shared, whole = (train(tmp_path / str(fsdp), Deep(), fsdp=fsdp, **OPTIONS)[0].history for fsdp in (True, False))
    assert without_time(shared) == without_time(whole)


def test_one_process_goes_on_where_two_stopped(world, folder):
    history = go_on(folder / "killed")
    # BatchNorm sees whole batches here and half of them there, so that what follows is another training.
    assert [row["epoch"] for row in history] == [1, 2, 3] and history[0] == world[0]["losses"]["adamw"]["shared"][0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_goes_on_from_any_checkpoint_and_a_whole_model_from_its(world, variant):
    found = world[0]["resumed"][variant]
    unbroken = world[0]["losses"][variant]
    assert found["True-True"] == unbroken["shared"]  # bit for bit
    assert close(found["True-False"], unbroken["whole"]) and close(found["False-True"], unbroken["whole"])


def test_each_process_holds_its_half(world):
    whole = world[0]["held"]["whole"]
    for kind, each in (("weights", 1), ("gradients", 1), ("moments", 2)):
        held = [rank["held"][kind] for rank in world]
        assert sum(held) == each * whole and max(held) < 0.53 * each * whole


@pytest.mark.parametrize("name", [*ENCODERS, "vit"])
def test_every_encoder_can_be_shared_out(world, name):
    for rank in world:
        (found,) = (found for key, found in rank["encoders"].items() if key.endswith(name))
        assert found["units"] > 2 and found["apart"] < 1e-5
        assert found["norms"][0] == pytest.approx(found["norms"][1], rel=1e-4) != 0


def test_so_can_stages_behind_frozen_ones(world):
    found = world[0]["finished"]
    assert found["apart"] < 1e-5 and found["norms"][0] == pytest.approx(found["norms"][1], rel=1e-4) != 0


def test_units_are_blocks_of_a_million_parameters():
    encoder = build_encoder("resnet152", train_from="all")
    units = sharding._units(encoder)
    sizes = [sum(parameter.numel() for parameter in unit.parameters()) for unit in units]
    taken = {parameter for unit in units for parameter in unit.parameters()}
    left = sum(parameter.numel() for parameter in encoder.parameters() if parameter not in taken)
    assert len(units) == 40 and min(sizes) >= 1e6 and max(sizes) < 7e6 and 2.5e6 < left < 2.6e6
    assert {type(unit).__name__ for unit in units} == {"Bottleneck", "Conv2d"}  # the widest shortcut's, too


def test_a_unit_in_a_unit_counts_once():
    inner = nn.Linear(1500, 1500)
    block = nn.Sequential(inner, nn.Linear(1500, 10))  # what is beside the inner one is too little for its own
    assert sharding._units(nn.Sequential(block, nn.Linear(4, 4))) == [inner]


def test_a_parameter_without_numbers_is_refused():
    model = nn.Module()
    model.registers = nn.Parameter(torch.zeros(0, 4))
    with pytest.raises(UserError, match="--fsdp: registers has no numbers"):
        sharding.SharedOut(model, Accelerator())


def test_processes_that_add_instead_of_averaging_are_refused(monkeypatch):
    monkeypatch.setattr(sharding, "init_device_mesh", lambda *_: None)
    monkeypatch.setattr(sharding, "reduce_scatter_tensor", lambda mean, ones, op: mean.fill_(2))
    with pytest.raises(UserError, match="--fsdp: torch .* does not average"):
        sharding.SharedOut(nn.Linear(2, 2), Accelerator())


def test_fp16_is_refused():
    with pytest.raises(UserError, match="--fsdp does not go with --precision fp16.*bf16"):
        make_accelerator(SimpleNamespace(precision="fp16", tracker="none", fsdp=True))


def test_an_old_torch_is_refused(monkeypatch):
    monkeypatch.setattr("common.training.is_torch_version", lambda *_: False)
    with pytest.raises(UserError, match="--fsdp needs torch 2.7 or newer"):
        make_accelerator(SimpleNamespace(precision="no", tracker="none", fsdp=True))
