"""What is watched while a network is trained: the clock, signals, and losses that are no numbers.

Belongs here: when a checkpoint is due within an epoch, and what ends a training early. Processes have to decide such
things alike, so each asks the others in the sum that a step needs anyway. The loop is `common/training.py`'s.
"""

import time

import torch
from accelerate.utils import gather_object

from common.checkpoints import has_checkpoint
from common.errors import Interrupted, UserError
from common.interruption import Stop, go_on_with
from common.progress import State

_LOOK = 50  # steps between two looks at the loss on a GPU, which has to finish its work for each


class Watch:
    """Beside the steps of one training.

    `minutes`: after so many without one, a checkpoint is written within an epoch; 0: never.
    """

    def __init__(self, state: State, stop: Stop, *, minutes: float, steps: int) -> None:
        self._state, self._stop, self._minutes, self._steps = state, stop, minutes, steps
        self._saved = time.monotonic()
        self._save = self._ends = False
        self._started = time.perf_counter()
        self._first_bad = torch.tensor(-1, device=state.accelerator.device)
        self._saved_after = state.progress.step  # of the epoch under way; 0: at its start, which was validated

    def start_epoch(self) -> None:
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Spent on the epoch under way, by this process and by those it goes on for."""
        return self._state.progress.seconds + time.perf_counter() - self._started

    def before_step(self, labelled: int) -> int:
        """How many labelled samples the processes have in this step, each telling its own.

        Raises `UserError` if the loss of an earlier step was no number.
        """
        late = self._minutes > 0 and time.monotonic() - self._saved >= 60 * self._minutes
        samples, save, ends, bad = self._sum([labelled, late, self._stop.asked, self._is_bad(_LOOK)])
        self._save, self._ends = bool(save), bool(ends)
        self._refuse(bad)
        return samples

    def after_step(self, loss: torch.Tensor, total: torch.Tensor) -> None:
        """Note a step's `loss` (a scalar), and save where it is due; `total` is what the epoch has summed up.

        Raises `UserError` for a loss that is no number, and `Interrupted` after the checkpoint, if that was asked for.
        """
        progress = self._state.progress
        good = torch.isfinite(loss.detach()) | (self._first_bad >= 0)
        self._first_bad = torch.where(good, self._first_bad, progress.step + 1)
        progress.step += 1
        alone = self._state.accelerator.num_processes == 1
        self._ends = self._ends or (alone and self._stop.asked)  # several agree before the next step
        if self._save or self._ends:
            self._refuse(self._sum([self._is_bad(1)])[0])
            before, progress.seconds = progress.seconds, self.seconds
            self._state.save(total)
            self._saved_after = progress.step
            progress.seconds, self._saved = before, time.monotonic()
        if self._ends:
            raise self._interrupted(f"in epoch {progress.epoch + 1} after step {progress.step} of {self._steps}")

    def end_steps(self) -> None:
        """After an epoch's last step. Raises `UserError` if the loss of one was no number."""
        self._refuse(self._sum([self._is_bad(1)])[0])

    def after_validation(self, finite: bool) -> None:
        """Raises `UserError` if the loss of a validation sample was no number: the weights after the last step are."""
        if not finite:
            raise self._refusal(f"epoch {self._state.progress.epoch + 1}: the validation loss", self._steps)

    def after_epoch(self) -> None:
        """After an epoch's checkpoints. Raises `Interrupted` if that was asked for."""
        self._saved, self._saved_after = time.monotonic(), 0
        if self._sum([self._stop.asked])[0]:
            raise self._interrupted(f"after epoch {self._state.progress.epoch}")

    def _sum(self, values: list[int]) -> list[int]:
        accelerator = self._state.accelerator
        values = [int(value) for value in values]
        if accelerator.num_processes == 1:
            return values
        return accelerator.reduce(torch.tensor(values, device=accelerator.device), "sum").tolist()

    def _is_bad(self, every: int) -> bool:
        """Whether a loss was no number, as far as one may know without waiting for a GPU at every step."""
        look = self._first_bad.device.type == "cpu" or self._state.progress.step % every == 0
        return look and int(self._first_bad) >= 0

    def _refuse(self, bad: int) -> None:
        if bad:
            progress = self._state.progress
            step = min(step for step in gather_object([int(self._first_bad)]) if step >= 0)  # of any process
            where = f"epoch {progress.epoch + 1}, step {step} of {self._steps}: the training loss"
            raise self._refusal(where, step - 1)

    def _refusal(self, where: str, steps: int) -> UserError:
        """The weights after `steps` of this epoch give no finite loss: a checkpoint of just these is taken back. Call
        on every process."""
        rate = self._state.optimizer.param_groups[0]["lr"]
        if 0 < self._saved_after == steps:
            self._state.drop_last()
        kept = "there is no checkpoint of before"
        if has_checkpoint(self._state.run):
            kept = "checkpoints/last is of before, with a finite loss"
        return UserError(
            f"{where} is no finite number, at learning rate {rate:.3g}; start another run with a lower "
            f"--learning-rate, a smaller --clip or --precision no ({kept})"
        )

    def _interrupted(self, where: str) -> Interrupted:
        return Interrupted(f"stopped {where}; a checkpoint is written; {go_on_with(self._state.run)}")
