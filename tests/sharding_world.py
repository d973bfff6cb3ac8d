"""What `test_sharding.py` asks of several processes, each of which runs this file: trainings whose model is shared out.

`torchrun --nproc_per_node 2 tests/sharding_world.py FOLDER` writes runs into it, and a file of figures of each process;
a small vision transformer is in FOLDER/vit.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file
from test_training import Killed, Mortal, Net, Points, train, without_time
from torch import nn
from torch.nn.functional import cross_entropy

from common import sharding
from common.checkpoints import whole_directory
from common.encoders import build_encoder
from common.optimisation import make_optimizer
from common.options import TrainingOptions
from common.training import make_accelerator

OPTIONS = {"epochs": 3, "accumulation": 2, "clip": 0.5}
VARIANTS = {
    "adamw": {},
    "sgd": {"optimizer": "sgd", "schedule": "plateau", "clip": 0.0},  # nothing here hides the gradient's size
    "averaged": {"weight_averaging": 0.9, "encoder_learning_rate": 0.01, "label_smoothing": 0.1},
}
DROPOUT = 0.3
ENCODERS = ("mobilenet_v2", "custom_cnn", "resnet18", "resnet50", "vgg16", "alexnet", "googlenet")


class Deep(Net):
    """With an encoder of two units, a recurrent net, a matrix used as such, a number, a buffer that training changes.
    In double precision, so that what differs by more than rounding shows."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.encoder = nn.Sequential(nn.Linear(4, 9), nn.Sequential(nn.ReLU(), nn.Linear(9, 7)), nn.BatchNorm1d(7))
        self.lstm = nn.LSTM(7, 3, batch_first=True, bidirectional=True)
        self.words = nn.Embedding(5, 4)
        self.join = nn.Linear(6, 4)
        self.sharpness = nn.Parameter(torch.tensor(1.0))
        self.double()

    def forward(self, points):
        seen = self.encoder(points.double() + self.words.weight[1])
        return super().forward(self.join(self.lstm(seen.unsqueeze(1))[0].squeeze(1)) * self.sharpness.exp())


def main(out: Path) -> None:
    accelerator = make_accelerator(SimpleNamespace(precision="no", tracker="none"))
    sharding._UNIT = 10
    figures = {
        "losses": {name: losses(out / name, **changes) for name, changes in VARIANTS.items()},
        "resumed": {name: resumed(out / f"{name}-resumed", **changes) for name, changes in VARIANTS.items()},
        "held": held(accelerator),
        "dropout": losses(out / "dropout", dropout=DROPOUT),
    }
    killed(out / "killed", fsdp=True)
    sharding._UNIT = 5_000
    figures["encoders"] = {name: encoded(name, accelerator) for name in (*ENCODERS, f"hf:{out / 'vit'}")}
    figures["finished"] = finished(accelerator)
    (out / f"rank{accelerator.process_index}.json").write_text(json.dumps(figures), encoding="utf-8")


def losses(run: Path, dropout: float = 0.0, **changes) -> dict:
    """Histories with the model whole and shared out, and how far their last weights are apart."""
    whole, _ = train(run / "whole", Deep(dropout), **OPTIONS | changes)
    shared, same = train(run / "shared", Deep(dropout), fsdp=True, **OPTIONS | changes)
    assert all(type(parameter) is nn.Parameter for parameter in same.parameters())
    kept = [load_file(run / name / "checkpoints" / "best_loss" / "model.safetensors") for name in ("whole", "shared")]
    apart = max(float((kept[0][name].double() - kept[1][name].double()).abs().max()) for name in kept[0])
    return {"whole": without_time(whole.history), "shared": without_time(shared.history), "apart": apart}


def resumed(run: Path, **changes) -> dict:
    """Histories of runs that were killed in their second epoch, each gone on with in another way."""
    found = {}
    for first, then in ((True, True), (True, False), (False, True)):
        here = killed(run / f"{first}-{then}", fsdp=first, **changes)
        found[f"{first}-{then}"] = go_on(here, fsdp=then, **changes)
    return found


def killed(run: Path, **changes) -> Path:
    """A run that was killed in its second epoch, after a checkpoint there."""
    try:
        train(run, Deep(), train_on=Mortal(24, 1, last=8), checkpoint_minutes=1e-9, **OPTIONS | changes)
    except Killed:
        return run
    raise AssertionError("nothing killed it")


def go_on(run: Path, **changes) -> list:
    last, again = whole_directory(run / "checkpoints" / "last"), Deep()
    again.load_state_dict(load_file(last / "model.safetensors"))
    return without_time(train(run, again, resume=last, **OPTIONS | changes)[0].history)


def held(accelerator) -> dict:
    """How many numbers this process holds of weights and of Adam's two moments after a step, and how many there are."""
    model = Deep()
    whole = sum(parameter.numel() for parameter in model.parameters())
    shared = sharding.SharedOut(model, accelerator).trained
    optimizer = make_optimizer(shared, TrainingOptions())
    batch = Points(6, 0).__getitems__([(item, 0) for item in range(6)])
    cross_entropy(shared(**batch["inputs"]).logits, batch["labels"]).backward()
    gradients = sum(parameter.grad.to_local().numel() for parameter in shared.parameters())
    optimizer.step()
    states = optimizer.state.values()
    moments = [state[name].to_local().numel() for state in states for name in ("exp_avg", "exp_avg_sq")]
    weights = sum(parameter.to_local().numel() for parameter in shared.parameters())
    return {"whole": whole, "weights": weights, "gradients": gradients, "moments": sum(moments)}


def encoded(name: str, accelerator) -> dict:
    """An encoder's output and gradient, whole and shared out, on the same photos in both processes."""
    torch.manual_seed(0)
    encoder = build_encoder(name, train_from="all").eval()
    units = len(sharding._units(encoder))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    sharing = sharding.SharedOut(encoder, accelerator)
    return {"units": units} | compare(encoder, sharing, pixels)


def finished(accelerator) -> dict:
    """The same of an encoder whose first stages are frozen and whose features are kept."""

    class Tail(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = build_encoder("resnet18", train_from="layer3").eval()

        def forward(self, features):
            return self.encoder.finish(features, 64)

    torch.manual_seed(0)
    tail = Tail()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    features = tail.encoder.frozen_features(pixels)
    return compare(tail, sharding.SharedOut(tail, accelerator), features)


def compare(whole: nn.Module, sharing: sharding.SharedOut, inputs: torch.Tensor) -> dict:
    norms, outputs = [], []
    for module in (whole, sharing.trained):
        output = module(inputs)
        (output**2).mean().backward()
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(trained, 1e9)
        norms.append(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))
        outputs.append(output.detach())
    apart = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())
    return {"apart": apart, "norms": norms}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
