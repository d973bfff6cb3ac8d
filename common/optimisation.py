"""Update rules, learning rates over time and the running mean of the weights.

Belongs here: making them from the options. When they take a step, is the loop's business (`common/training.py`).
"""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import get_scheduler

from common.options import TrainingOptions


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """The update rule over what is trained; a trained encoder (all whose name starts so) has a learning rate of its
    own."""
    encoder = [p for name, p in model.named_parameters() if p.requires_grad and name.startswith("encoder")]
    rest = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("encoder")]
    groups = [{"params": rest, "lr": options.learning_rate}]
    if encoder:
        groups.append({"params": encoder, "lr": options.encoder_learning_rate or options.learning_rate})
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=options.momentum, weight_decay=options.weight_decay)
    rule = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[options.optimizer]
    return rule(groups, weight_decay=options.weight_decay)


def make_schedule(optimizer: torch.optim.Optimizer, options: TrainingOptions, *, steps: int) -> Any:
    """The learning rate over `options.epochs` epochs of `steps` steps each; plateau's is stepped once per epoch, and so
    are all with `schedule_per: epoch`."""
    if not moves_per_step(options):
        steps = 1
    if options.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=options.plateau_factor, patience=options.plateau_patience
        )
    if options.schedule == "cosine_restarts":
        return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=options.restart_every * steps)
    total = options.epochs * steps
    name = "constant_with_warmup" if options.schedule == "constant" else options.schedule
    rising = round(options.warmup * total)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=rising, num_training_steps=total)
    if rising and not moves_per_step(options):
        # The first step's rate is 0, which is nothing beside thousands of steps, but would be a whole epoch here.
        factor = schedule.lr_lambdas[0]
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: factor(epoch + 1))
    return schedule


def moves_per_step(options: TrainingOptions) -> bool:
    return options.schedule != "plateau" and options.schedule_per == "step"


def make_averaged(model: nn.Module, options: TrainingOptions) -> AveragedModel | None:
    """The running mean of the weights, if wanted."""
    if not options.weight_averaging:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.weight_averaging))
