"""Several processes and machines: configurations Accelerate reads, two nodes on one machine, a shared cache."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from encoder_helpers import noise_photos

from common import training
from common.encoders import build_encoder
from common.errors import UserError
from common.features import PhotoViews, cached_features
from common.images import content_hash
from vqa.shapes import write_shapes

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
SMALL = (
    "--depth 3 --width 4 --image-size 32 --embedding 8 --hidden 16 --projection 16 --attention-hidden 16 "
    "--fusion-hidden 16 --batch-size 4 --epochs 1 --workers 0 --segmentation syllable --train-encoder none "
    "--feature-precision fp32"
).split()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_configurations(path):
    read = load_config_from_file(str(path))
    assert read.mixed_precision == "no" and path.read_text(encoding="utf-8").startswith("#")
    several = read.num_processes > 1
    assert (read.distributed_type == DistributedType.MULTI_GPU) == several
    assert read.num_machines == (2 if path.stem == "several_nodes" else 1)


def test_all_ways_have_a_configuration():
    assert {path.stem for path in CONFIGS} == {"cpu", "one_gpu", "several_gpus", "several_nodes"}


def test_a_model_that_is_shared_out_is_refused(monkeypatch):
    shared = SimpleNamespace(distributed_type=DistributedType.FSDP)
    monkeypatch.setattr(training, "Accelerator", lambda **_: shared)
    with pytest.raises(UserError, match="set to FSDP.*several_gpus.yaml.*--fsdp"):
        training.make_accelerator(SimpleNamespace(precision="no", tracker="none"))


def test_a_cache_that_the_other_machines_do_not_share_is_told(tmp_path, monkeypatch):
    """The other process has extracted its half, but into a folder that is not ours."""
    paths = noise_photos(tmp_path / "photos", 4)
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda _: 2))
    encoder = build_encoder("custom_cnn", depth=2, width=4)
    with pytest.raises(UserError, match="2 of 4 features that other processes wrote are not there"):
        cached_features(
            encoder,
            paths,
            [content_hash(path) for path in paths],
            source=PhotoViews(preprocessing=encoder.preprocessing),
            cache=tmp_path / "cache",
            accelerator=Accelerator(),
            workers=0,
        )


def test_two_nodes_train_one_model_and_score_every_sample_once(tmp_path):
    """Two launches of torchrun, which find each other by an address, as on two machines."""
    data = write_shapes(tmp_path / "data", train=8, validation=5, test=7, size=32)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = []
    for rank in range(2):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
        launcher += ["--node_rank", str(rank), "--master_addr", "127.0.0.1", "--master_port", str(port)]
        given = ["scripts/train_vqa.py", "--data", str(data), "--output", str(tmp_path / "run"), *SMALL]
        environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": str(ROOT), "HOIANH_CACHE": str(tmp_path / "cache")}
        command = [*launcher, *given]
        nodes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True))
    said = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0]
    assert "2 process(es)" in said[0] and said[1] == ""
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    for split in ("validation", "test"):
        with (data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            wanted = len(list(csv.DictReader(file)))
        with (tmp_path / "run" / f"predictions-{split}.csv").open(encoding="utf-8", newline="") as file:
            ids = [row["id"] for row in csv.DictReader(file)]
        assert metrics[split]["n"] == wanted == len(ids) == len(set(ids))
    shards = list((tmp_path / "cache" / "features").rglob("*.safetensors"))
    assert len(shards) == 4  # each node extracted its share, of what is trained on and of what is scored
