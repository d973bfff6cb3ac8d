"""Controls of a claim about attention: what a model scores when something that attention needs is taken away.

Belongs here: which photo is shown instead of a question's own, the hidden size that gives a model without attention as
many parameters as the one with it, and finding a run that was trained alike already. Weights that do not choose, or
that do not ask, are `vqa/attention.py`'s; rows that see no photo at all are `vqa/baselines.py`'s.
"""

import bisect
import copy
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.config import build, same_value, to_plain
from common.encoders import count_parameters
from common.errors import UserError
from common.options import NOT_MEASURED
from common.runs import read_run, read_trained_on
from common.splits import link_groups
from vqa.model import VqaConfig, VqaModel
from vqa.options import TrainVqaOptions

MATCHED = 0.01  # how far the parameters of a matched model may be from those it is to match, as a part of these
# Options that do not change what is trained, only where it lies and what is scored of it.
_NOT_TRAINED = {*"config output resume overwrite test score_train shuffled_images".split(), *NOT_MEASURED}
_PATHS = {"data", "images", "weights"}


def exchange_photos(photos: Sequence[str], groups: Sequence[str], seed: int) -> dict[str, str]:
    """For each photo another one, of another group: a permutation, so that each is shown as often as before.

    `photos` (hashes) and `groups` are those of the rows of a split. Another group, since near-duplicates share one: a
    derangement of the photos alone would now and then show a question its own dish from a step aside. What another
    photo happens to have in common with the right one (the same dish, say) it may still answer: chance is no zero.
    Raises `UserError` if one group has more than half of the photos, for then some would have to stay.
    """
    members: dict[str, list[str]] = {}
    for photo, group in sorted(set(zip(photos, link_groups(groups, photos), strict=True))):
        members.setdefault(group, []).append(photo)
    rng = np.random.default_rng(seed)
    names = sorted(members)
    line = [
        members[names[place]][photo]
        for place in rng.permutation(len(names))
        for photo in rng.permutation(len(members[names[place]]))
    ]
    # Groups stand whole in the line, so that a step as long as the largest one always leads into another.
    step = max(map(len, members.values()))
    if 2 * step > len(line):
        raise UserError(
            f"--shuffled-images: {step} of {len(line)} photos of a split are of one group, so that not every question "
            "can be shown a photo of another"
        )
    return dict(zip(line, line[step:] + line[:step], strict=True))


def matched_hidden(config: VqaConfig) -> tuple[int, int, int]:
    """For a model without attention: the size of its recurrent net with which it has as many trained parameters as
    the same model with attention. → that size, its count of parameters, and the other's.

    Raises `UserError` if the nearest size is more than 1 % off, as with models of a few thousand parameters.
    """
    wanted = _trained_parameters(config, attention=True)
    largest = config.hidden
    while _trained_parameters(config, hidden=largest) < wanted:
        largest *= 2
    sizes = range(1, largest + 1)
    above = bisect.bisect_left(sizes, wanted, key=lambda size: _trained_parameters(config, hidden=size))
    near = [(size, _trained_parameters(config, hidden=size)) for size in sizes[max(0, above - 1) : above + 1]]
    hidden, count = min(near, key=lambda one: abs(one[1] - wanted))
    if abs(count - wanted) > MATCHED * wanted:
        raise UserError(
            f"--match-parameters: {wanted:,} trained parameters with attention; without it {count:,} with a hidden "
            f"size of {hidden} are the nearest, more than {MATCHED:.0%} off: give a larger model"
        )
    return hidden, count, wanted


def _trained_parameters(config: VqaConfig, **changes: Any) -> int:
    changed = copy.deepcopy(config)
    for name, value in changes.items():
        setattr(changed, name, value)
    # On the meta device nothing is computed; random numbers are not drawn from the run's.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return count_parameters(VqaModel(changed))[1]


def same_training(options: TrainVqaOptions, trained_on: dict[str, list[str]]) -> Path | None:
    """A finished run beside the one to be made, trained on the same rows with the same options and seed, which still
    has the checkpoint to be scored; None if there is no such."""
    folder = Path(options.output).parent if options.output else Path("runs")
    own = Path(options.output).resolve() if options.output else None  # about to be overwritten
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        whole = all((path / name).is_file() for name in ("metrics.json", "history.jsonl", "trained-on.json"))
        if whole and path.resolve() != own and (path / "checkpoints" / options.score).is_dir():
            try:
                task, saved = read_run(path)
                same = task == "vqa" and _trains_alike(build(TrainVqaOptions, saved), options)
                if same and read_trained_on(path) == trained_on:
                    return path
            except UserError:  # somebody else's, damaged, or of options that are no more: of no use here
                continue
    return None


def _trains_alike(one: TrainVqaOptions, other: TrainVqaOptions) -> bool:
    first, second = to_plain(one), to_plain(other)
    names = {field.name for field in fields(TrainVqaOptions)} - _NOT_TRAINED
    return all(same_value(first[name], second[name], path=name in _PATHS) for name in names)
