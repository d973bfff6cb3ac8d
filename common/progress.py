"""Where a training stands: what is saved so that it can go on as if nothing had happened.

Belongs here: the figures of its epochs, what of them is best, the states of random numbers, `history.jsonl` and the
checkpoint `last`. The loop is `common/training.py`'s, the files of a checkpoint `common/checkpoints.py`'s.
"""

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from torch.optim.swa_utils import AveragedModel

from common.checkpoints import load_state, save_state, whole_directory, write_directory
from common.errors import UserError, reason
from common.files import read_text, write_whole
from common.options import CHECKPOINTS, TrainingOptions

if TYPE_CHECKING:  # slow to import
    from common.sharding import SharedOut

RESUMES = "resumed.jsonl"
"""In a run: the epoch and step of each time that it was gone on with."""


@dataclass(kw_only=True)
class Progress:
    """Where a run stands; saved with its last checkpoint."""

    epoch: int = 0  # epochs finished
    best_loss: float = math.inf
    best_accuracy: float = -math.inf
    best_train_accuracy: float = -math.inf
    waited: int = 0  # epochs since the monitored figure improved
    watched: float = -math.inf  # best monitored figure (the loss negated)
    history: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0  # steps done of the epoch under way
    learning_rate: float = 0.0  # at its start
    seconds: float = 0.0  # spent on it before this process
    resumed: list[int] = field(default_factory=list)  # its steps after which a process went on

    def note(self, row: dict[str, Any], options: TrainingOptions) -> list[str]:
        """Note an epoch's figures; → the checkpoints that it is the best for so far."""
        kept = []
        if row["validation_loss"] < self.best_loss or self.epoch == 0:
            kept.append("best_loss")
            self.best_loss = row["validation_loss"]
        rises = row["validation_accuracy"] > self.best_accuracy
        if options.best_accuracy_rule == "both":  # R1: training and validation accuracy must both improve
            rises = rises and row["train_accuracy"] > self.best_train_accuracy
        if rises or self.epoch == 0:
            kept.append("best_accuracy")
            self.best_accuracy, self.best_train_accuracy = row["validation_accuracy"], row["train_accuracy"]
        watched = row["validation_accuracy"] if options.monitor == "accuracy" else -row["validation_loss"]
        if watched > self.watched + options.min_delta:
            self.watched, self.waited = watched, 0
        else:
            self.waited += 1
        self.epoch = row["epoch"]
        self.history.append(row | ({"resumed": self.resumed} if self.resumed else {}))
        self.step, self.seconds, self.resumed = 0, 0.0, []
        return kept


@dataclass(kw_only=True)
class State:
    """All that changes while a model is trained, and where it is kept."""

    model: nn.Module
    averaged: AveragedModel | None
    optimizer: torch.optim.Optimizer
    schedule: Any
    progress: Progress
    accelerator: Accelerator
    run: Path
    write: Callable[[nn.Module, Path], None]
    """writes what a task's `from_pretrained` needs"""
    sharing: "SharedOut | None" = None
    """of a `model` whose weights are shared out over the processes"""

    @property
    def newest(self) -> nn.Module:
        """What is to be scored and saved: the average of the weights, if there is one; shared out, if the model is."""
        return self.model if self.averaged is None else self.averaged.module

    @property
    def scored(self) -> nn.Module:
        """The same, whole; of a shared-out model, as it was when last gathered."""
        return self.newest if self.sharing is None else self.sharing.whole

    def gather(self) -> None:
        """Make whole what is to be scored and saved; call on every process."""
        if self.sharing is not None:
            self.sharing.gather(self.newest)

    def keep(self, names: list[str]) -> None:
        """Write checkpoints of the model as it is now, such as `best_loss`; call on every process."""
        if self.accelerator.is_main_process:
            for name in names:
                write_directory(self.run / "checkpoints" / name, lambda directory: self.write(self.scored, directory))

    def save(self, total: torch.Tensor | None = None) -> None:
        """Write the checkpoint `last`, to go on from; call on every process.

        Within an epoch `total (3,)` is what this process has summed up in it, and every process's random numbers are
        saved, too; each epoch starts with some of its own. The one before is kept, should this one be damaged.
        """
        within = [] if total is None else gather_object([{"total": total.tolist(), "random": _random_state()}])
        if total is not None:
            self.gather()
        # Scored and saved is the average; what goes on training is then part of the state.
        weights = None
        if self.averaged is not None:
            weights = {"model": self._whole(self.model.state_dict()), "averaged": self.averaged.n_averaged}
        optimizer = self._whole(self.optimizer.state_dict())
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "optimizer": optimizer,
                "schedule": self._schedule_state(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "progress": vars(self.progress),
                "weights": weights,
                "processes": within,
            }

            def write(directory: Path) -> None:
                self.write(self.scored, directory)
                save_state(directory, state)

            write_directory(self.run / "checkpoints" / "last", write, keep_before=True)
        self.accelerator.wait_for_everyone()

    def load(self, directory: Path, steps: int) -> torch.Tensor | None:
        """Go on from a checkpoint `last`, whose weights `model` has been given already, but for those of the average.

        → what this process had summed up when it was saved within an epoch; random numbers then go on as well. With
        another number of processes than before they start anew, and the first process takes all sums. `steps` are an
        epoch's. Raises `UserError` for a state that is damaged, or another training's.
        """
        state = load_state(directory)
        try:
            total = self._restore(state, steps)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{directory}: training state is damaged ({reason(error)}); take the checkpoint before it (last.old), "
                "or start anew with --overwrite"
            ) from None
        self._note_resume()
        return total

    def _restore(self, state: dict[str, Any], steps: int) -> torch.Tensor | None:
        """Raises one of half a dozen kinds of error for what is no state of this training."""
        sharing, optimizer = self.sharing, _of_shapes(state["optimizer"], self.optimizer)
        self.optimizer.load_state_dict(
            optimizer if sharing is None else sharing.scatter_optimizer(optimizer, self.optimizer)
        )
        _check_moments(self.optimizer)
        _check_alike(state["schedule"], self._schedule_state())
        self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        _check_alike(state["progress"], vars(Progress()))
        if not (0 <= state["progress"]["step"] <= steps and 0 <= state["progress"]["epoch"]):
            raise ValueError(f"step {state['progress']['step']} of {steps}")
        for name, value in state["progress"].items():
            setattr(self.progress, name, value)
        if self.averaged is not None:
            weights = state["weights"]["model"]
            if sharing is None:
                self.model.load_state_dict(weights)
            else:
                sharing.scatter(weights, self.model)
            self.averaged.n_averaged.copy_(state["weights"]["averaged"])
        within = state.get("processes") or []
        if not within:
            return None
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        if len(within) == world:
            _set_random_state(within[rank]["random"])
            return torch.tensor(within[rank]["total"])
        together = torch.tensor([mine["total"] for mine in within]).sum(dim=0)
        return together if rank == 0 else torch.zeros_like(together)

    def _whole(self, state: dict[str, Any]) -> dict[str, Any]:
        return state if self.sharing is None else self.sharing.whole_state(state)

    def _schedule_state(self) -> dict[str, Any]:
        """Without its functions, which are made anew."""
        state = dict(self.schedule.state_dict())
        if "lr_lambdas" in state or hasattr(self.schedule, "lr_lambdas"):
            state["lr_lambdas"] = [None] * len(self.optimizer.param_groups)
        return state

    def _note_resume(self) -> None:
        """Where this process goes on, on the disk before it does; `resumed` of an epoch is all of these."""
        path, progress = self.run / RESUMES, self.progress
        here = {"epoch": progress.epoch + 1, "step": progress.step}
        try:
            lines = read_text(path).splitlines() if path.is_file() else []
            notes = [*map(json.loads, lines), here]
            progress.resumed = [int(note["step"]) for note in notes if note["epoch"] == here["epoch"]]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: is damaged ({reason(error)}); delete it, and resume again") from None
        self.accelerator.wait_for_everyone()  # all have read it
        if self.accelerator.is_main_process:
            write_whole(path, lambda file: file.write("".join(json.dumps(note) + "\n" for note in notes)))

    def drop_last(self) -> None:
        """Take back the checkpoint `last` for the one before it, if there is one; call on every process."""
        if self.accelerator.is_main_process:
            last = self.run / "checkpoints" / "last"
            before = last.with_name("last.old")
            shutil.rmtree(last, ignore_errors=True)
            if before.is_dir():
                before.rename(last)
        self.accelerator.wait_for_everyone()

    def finish(self) -> None:
        """Wait for all processes, and drop the spare checkpoint."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            shutil.rmtree(self.run / "checkpoints" / "last.old", ignore_errors=True)

    def write_history(self) -> None:
        """`history.jsonl` from what is saved with the checkpoints, so that a resumed run never holds an epoch twice."""
        if self.accelerator.is_main_process:
            lines = "".join(json.dumps(row) + "\n" for row in self.progress.history)
            write_whole(self.run / "history.jsonl", lambda file: file.write(lines))

    def agree(self) -> None:
        """All processes decide alike whether to go on, even should their rounding differ."""
        self.progress.waited = broadcast_object_list([self.progress.waited])[0]


def checkpoint_directory(run: Path, name: str) -> Path:
    """A run's checkpoint by its name. Raises `UserError` for another name, or if the run has no whole one."""
    if name not in CHECKPOINTS:
        raise UserError(f"unknown checkpoint '{name}'; allowed: {', '.join(CHECKPOINTS)}")
    return whole_directory(run / "checkpoints" / name)


def _check_alike(found: Any, expected: dict[str, Any]) -> None:
    """Raises `ValueError` for other names than expected, or values of another kind: they would replace whatever an
    object has by that name."""
    if not isinstance(found, dict) or found.keys() != expected.keys():
        raise ValueError(f"it has not the entries {', '.join(expected)}"[:150])
    for name, value in expected.items():
        numbers = isinstance(value, int | float) and isinstance(found[name], int | float)
        if not numbers and value is not None and found[name] is not None and type(found[name]) is not type(value):
            raise ValueError(f"{name} is a {type(found[name]).__name__}, not a {type(value).__name__}")
        if isinstance(value, int) and isinstance(found[name], float):
            raise ValueError(f"{name} is {found[name]}, not a whole number")


def _of_shapes(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state whose moments of parameters of one number have their shape, which is () or, of models that
    are shared out, (1,)."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def of_shape(name: str, value: Any, parameter: torch.Tensor) -> Any:
        one = isinstance(value, torch.Tensor) and value.numel() == parameter.numel() == 1 and name != "step"
        return value.reshape(parameter.shape) if one else value

    moments = {
        index: {name: of_shape(name, value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return state | {"state": moments}


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raises `ValueError` for the state of another rule, or of other weights: it would be noticed in the first step."""
    names = {"momentum_buffer"} if isinstance(optimizer, torch.optim.SGD) else {"step", "exp_avg", "exp_avg_sq"}
    for weights, state in optimizer.state.items():
        if not isinstance(state, dict) or state.keys() != names:
            raise ValueError(f"the optimizer's state is not {', '.join(sorted(names))}")
        for name, value in state.items():
            shape = torch.Size() if name == "step" else weights.shape
            if value is not None and (not isinstance(value, torch.Tensor) or value.shape != shape):
                raise ValueError(f"the optimizer's {name} is not of the shape {tuple(shape)}")


def _random_state() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    drawn: Any = np.random.get_state()
    name, keys, place, has_gauss, cached = drawn
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), place, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
