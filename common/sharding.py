"""Weights, gradients and the optimiser's state shared out over processes, for models too large to be trained on one.

Belongs here: torch's fully sharded data parallel (FSDP), the units that a model is shared out in, and making whole what
is scored and saved. When that is done is the loop's business (`common/training.py`). Slow to import: the loop does so
only with --fsdp. Not Accelerate's own FSDP, which it turns on only beside several GPUs: torch's works on CPUs, too,
where the tests try it.

A shared-out tensor is a `DTensor`: it has the whole's shape, and each process holds some of its rows. In a step a
process holds whole, beside its shares, the units that are being computed and what belongs to no unit; in bf16 also
autocast's copies of what is trained. Validation and saving want the whole model. (docs/scaling.md has the bytes.)
"""

import copy
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from torch.distributed import ReduceOp, reduce_scatter_tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from common.errors import UserError

_UNIT = 1_000_000  # parameters; fewer are not worth messages of their own


class SharedOut:
    """One training of a model that is shared out. All methods are to be called on every process.

    `whole`: the model that was given, which stays on the CPU but while it is scored; `trained`: a copy, shared out.
    Raises `UserError` for a parameter that has no numbers, and for processes that cannot average gradients.
    """

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        for name, parameter in model.named_parameters():
            if parameter.numel() == 0:
                raise UserError(f"--fsdp: {name} has no numbers, and torch cannot share it out; leave --fsdp out")
        self._device, self._saves = accelerator.device, accelerator.is_main_process
        self._mesh = init_device_mesh(self._device.type, (accelerator.num_processes,))
        mean, ones = torch.zeros(1, device=self._device), torch.ones(accelerator.num_processes, device=self._device)
        reduce_scatter_tensor(mean, ones, op=ReduceOp.AVG)  # as gradients are; gloo of torch 2.7 quietly adds them up
        if mean.item() != 1:
            raise UserError(
                f"--fsdp: torch {torch.__version__} does not average over processes on this device; install a newer one"
            )
        with torch.no_grad():  # the first process's weights become those of all
            for tensor in model.state_dict().values():
                tensor.copy_(broadcast(tensor.to(self._device)))
        self.whole = model.cpu()
        self.trained = self.share(copy.deepcopy(self.whole))

    def share(self, model: nn.Module) -> nn.Module:
        """`model` itself, shared out; parameters of one number become lists of one, for it is rows that are shared."""
        for module in model.modules():
            for name, number in module.named_parameters(recurse=False):
                if number.ndim == 0:
                    row = nn.Parameter(number.detach().reshape(1), requires_grad=number.requires_grad)
                    module.register_parameter(name, row)
        for unit in _units(model):
            fully_shard(unit, mesh=self._mesh)
        fully_shard(model, mesh=self._mesh)
        return model

    @torch.no_grad()
    def gather(self, shared: nn.Module) -> None:
        """Give `whole` the weights and buffers of a shared-out model."""
        target = self.whole.state_dict()
        for name, value in shared.state_dict().items():
            target[name].copy_(_whole(value).reshape(target[name].shape))

    @torch.no_grad()
    def scatter(self, state: dict[str, Any], shared: nn.Module) -> None:
        """Give a shared-out model a whole one's state dict. Raises `KeyError` or `RuntimeError` for another model's."""
        for name, value in shared.state_dict().items():
            value.copy_(_like(state[name], value))

    def scatter_optimizer(self, state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """An optimiser's whole state dict, shared out as the parameters of `optimizer` are; what is not of their shapes
        stays as it is, for the checks of a state to find."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        shared = {
            index: {
                name: _like(value, parameters[index])
                if getattr(value, "shape", None) == parameters[index].shape
                else value
                for name, value in values.items()
            }
            for index, values in state["state"].items()
        }
        return state | {"state": shared}

    def whole_state(self, state: Any) -> Any:
        """A state dict, of a model or an optimiser, with what is shared out whole and on the CPU; None for that on all
        processes but the main one, which alone saves it."""
        if isinstance(state, dict):
            return {name: self.whole_state(value) for name, value in state.items()}
        if not isinstance(state, DTensor):
            return state
        whole = _whole(state)
        return whole.cpu() if self._saves else None


def _units(model: nn.Module) -> list[nn.Module]:
    """What is gathered at a time, the innermost first: blocks (of a list or a sequence, which calls them) that have a
    million parameters or more beside those of the units in them. What is left is whole during a step."""
    lists = (module for module in model.modules() if isinstance(module, nn.Sequential | nn.ModuleList))
    blocks = {block for blocks in lists for block in blocks}
    units: list[nn.Module] = []
    taken: set[nn.Parameter] = set()
    for module in reversed(list(model.modules())):  # what a module holds comes before it
        own = set(module.parameters()) - taken
        if module in blocks and sum(parameter.numel() for parameter in own) >= _UNIT:
            units.append(module)
            taken |= own
    return units


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """A whole tensor, shared out as `shared` is, if that is."""
    if not isinstance(shared, DTensor):
        return value
    value = value.reshape(1) if value.ndim == 0 else value
    return distribute_tensor(value.to(shared.device), shared.device_mesh, shared.placements)
