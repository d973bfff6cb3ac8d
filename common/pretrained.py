"""Loading a checkpoint of ours whole, or not at all, whoever made it.

Belongs here: what all tasks' checkpoints have in common when they are opened: safetensors and JSON, weights that fit
their configuration, and nothing that could run code. Vocabularies and preprocessing are the tasks'.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils.logging import set_tqdm_hook

from common.errors import UserError, reason
from common.files import read_object
from common.progress import checkpoint_directory
from common.runs import read_run
from common.weights import PICKLES, how_to_convert

Model = TypeVar("Model", bound=PreTrainedModel)
_MOST_LAYERS = 1_000  # that a configuration may ask for: each is built before it is compared with the weights


def open_checkpoint(model_class: type[Model], directory: str | Path, *, run: str) -> Model:
    """The model of a checkpoint directory, complete by itself, in eval mode, on the CPU.

    `run` names the kind of run it should be of. Raises `UserError` that names what is missing, damaged, or a pickle;
    nothing of the weights' size is allocated before they are known to fit their configuration.
    """
    directory = Path(directory)
    for name in ("config.json", "model.safetensors"):
        if not (directory / name).is_file():  # transformers would look on the Hub, or take its defaults
            pickles = sorted(path.name for path in directory.glob("*") if path.suffix.lower() in PICKLES)
            if pickles:
                raise UserError(f"{directory / pickles[0]}: {how_to_convert('model.safetensors')}")
            raise UserError(f"{directory / name}: missing; is {directory} a checkpoint of {run} run?")
    try:
        _refuse_giants(read_object(directory / "config.json"), "")
        _refuse_other_weights(model_class, directory)
        return model_class.from_pretrained(directory, local_files_only=True).eval()
    except UserError as error:
        if str(directory) in str(error):
            raise
        raise UserError(f"checkpoint {directory}: {error}") from None
    except Exception as error:  # a stranger's configuration and weights, read by transformers: nearly any kind
        raise UserError(f"checkpoint {directory}: damaged ({reason(error)}); copy it again, or train anew") from None


def find_checkpoint(run: str | Path, name: str | None, *, task: str) -> Path:
    """The checkpoint `name` of a run (default: the one it was scored with), or `run` itself if it is a checkpoint.

    Raises `UserError` for a run of another task than `task`, and where there is no such checkpoint.
    """
    path = Path(run)
    if name is None and (path / "model.safetensors").is_file():
        return path
    found, saved = read_run(path)
    if found != task:
        raise UserError(f"{path} is a {found} run; a {task} run is needed here")
    scored = name or saved.get("score")
    if not isinstance(scored, str):
        raise UserError(f"{path / 'config.yaml'}: does not say which checkpoint was scored; name one with --checkpoint")
    return checkpoint_directory(path, scored)


def needed(tensor: torch.Tensor | None, name: str) -> torch.Tensor:
    """An input of a model that may be left out, but not here. Raises `ValueError`."""
    if tensor is None:
        raise ValueError(f"this model needs {name}")
    return tensor


def load_whole(from_pretrained: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """transformers' `from_pretrained`, but missing or unfitting weights are refused (`UserError`), not made up."""
    wanted = keywords.pop("output_loading_info", False)
    try:
        with _bars_on_terminals():
            model, info = from_pretrained(*arguments, output_loading_info=True, **keywords)
    except RuntimeError as error:  # a shape that does not fit
        raise UserError(f"checkpoint {arguments[0]}: weights do not fit its config ({error})") from None
    wrong = sorted(map(str, info["missing_keys"])) + sorted(map(str, info["mismatched_keys"]))
    wrong += sorted(map(str, info["unexpected_keys"]))
    if wrong:
        raise UserError(f"checkpoint {arguments[0]}: its weights do not fit its config ({wrong[0]} and others)")
    return (model, info) if wanted else model


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """Within it transformers' bars are drawn on a terminal alone, not into a log or a pipe; settings stay as they are,
    and so does what somebody does with the bars himself (transformers' `set_tqdm_hook`)."""
    if sys.stderr is not None and sys.stderr.isatty():
        yield
        return
    before = set_tqdm_hook(lambda bar, given, keywords: bar(*given, **keywords | {"disable": True}))
    if before is not None:
        set_tqdm_hook(before)
    try:
        yield
    finally:
        set_tqdm_hook(before)


def _refuse_giants(value: Any, key: str) -> None:
    """Refuse a configuration of more layers than any network has: building them alone would take hours."""
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_giants(item, name)
    elif isinstance(value, list):
        for item in value:
            _refuse_giants(item, key)
    elif ("layers" in key or "depth" in key) and isinstance(value, int | float) and not value <= _MOST_LAYERS:
        raise UserError(f"config.json asks for {key} {value}; at most {_MOST_LAYERS:,} are built")


def _refuse_other_weights(model_class: type[PreTrainedModel], directory: Path) -> None:
    """Compare names and shapes of the weights with those of the model, which takes no memory."""
    config_class: Any = model_class.config_class
    with torch.device("meta"):
        model = model_class(config_class.from_pretrained(directory, local_files_only=True))
    needed = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}
    wrong = sorted(name for name in needed.keys() | found.keys() if needed.get(name) != found.get(name))
    if wrong:
        raise UserError(
            f"checkpoint {directory}: its weights do not fit its config ({wrong[0]}"
            f"{f' and {len(wrong) - 1:,} others' * (len(wrong) > 1)})"
        )
