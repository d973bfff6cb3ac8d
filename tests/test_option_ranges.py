"""Every number among the options has an end: a configuration that somebody sent cannot name one that fails later on."""

import importlib
import math
import re
import typing
from pathlib import Path

import pytest

from common.config import _plain_type, build, flag
from common.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    f"{path.parent.name}.{path.stem}"
    for room in ("common", "vqa", "video")
    for path in (ROOT / room).glob("*options.py")
)


def numbers() -> list[tuple[type, str, type]]:
    found = []
    for module in map(importlib.import_module, MODULES):
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__ and hasattr(cls, "__pydantic_fields__"):
                for name, info in cls.__pydantic_fields__.items():
                    kind, _ = _plain_type(info.annotation)
                    if kind in (int, float) and name in cls.__annotations__:
                        found.append((cls, name, kind))
    return found


def required(cls: type) -> dict[str, str]:
    infos = {name: info for name, info in cls.__pydantic_fields__.items() if info.is_required()}
    kinds = {name: _plain_type(info.annotation)[0] for name, info in infos.items()}
    return {name: (typing.get_args(kind) or ("x",))[0] for name, kind in kinds.items()}


@pytest.mark.parametrize(("cls", "name", "kind"), numbers(), ids=lambda value: getattr(value, "__name__", value))
def test_no_option_takes_a_number_that_is_none(cls, name, kind):
    wrong = [2**31, 10**19, -(10**19)] if kind is int else [math.inf, -math.inf, math.nan, 1e300]
    if name in ("depth", "width"):  # refused where the network is described, which says what it would come to
        return
    for value in wrong:
        with pytest.raises(UserError, match=re.escape(f"{flag(name)} {value}")):
            build(cls, required(cls) | {name: value})


def test_there_are_such_options():
    found = numbers()
    assert len(found) > 80 and {kind for _, _, kind in found} == {int, float}
