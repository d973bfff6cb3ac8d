"""Options: typed dataclasses with defaults, set from a YAML file, overridden on the command line.

Belongs here: how options are declared, read, checked, shown by `--help` and written back. Does not belong here: the
options themselves; they live in `common/options.py`, `vqa/options.py` and `video/options.py`, which import nothing
heavy, so that `--help` answers at once.

A class decorated with `@options` is a pydantic dataclass: each field has a type, a default and a docstring under it,
which is its help text. Classes combine by inheritance into the options of one command, and each is a group in `--help`.
"""

import argparse
import difflib
import os
import textwrap
import types
import typing
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import pydantic

from common.completion import PrintCompletion, suggest
from common.errors import UserError
from common.files import read_text, write_whole
from common.yaml_files import MOST_BYTES, UNUSABLE, dump_yaml, parse_yaml, unusable

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

Made = TypeVar("Made")
Options = TypeVar("Options", bound="DataclassInstance")


@typing.dataclass_transform(kw_only_default=True, field_specifiers=(pydantic.Field,))
def options(cls: type[Made]) -> type[Made]:
    """Make a class one of options: a pydantic dataclass with keyword arguments only, and no number that is none."""
    config = pydantic.ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    return cast(type[Made], pydantic.dataclasses.dataclass(cls, kw_only=True, config=config))  # `cls` itself


def positional(**keywords: Any) -> Any:
    """A field given by its place on the command line instead of by a `--name`."""
    return pydantic.Field(json_schema_extra={"positional": True}, **keywords)


def parse(cls: type[Options], arguments: Sequence[str] | None = None) -> Options:
    """Read the options `cls` from the command line and, if it has a `config` field, from the YAML file named there.

    Later wins: defaults, then the YAML file, then the command line; with `--resume`, the options saved in the run's own
    directory come first of all. Raises `UserError` that names the option, the value and what is allowed.
    """
    parser = _parser(cls)
    given = vars(parser.parse_args(arguments))
    values: dict[str, Any] = {}
    names = {field.name for field in fields(cls)}
    if given.get("resume") and "output" in names:
        if not given.get("output"):
            raise UserError("--resume needs to know which run goes on: add --output RUN_DIR")
        saved = Path(given["output"]) / "config.yaml"
        if not saved.is_file():
            raise UserError(
                f"--resume: {given['output']} holds no run (no config.yaml); leave --resume out to start one"
            )
        values |= {key: value for key, value in read_yaml(saved).items() if key in names}
    if given.get("config"):
        values |= read_options(cls, given["config"])
    values |= given
    return build(cls, values, where=given.get("config"))


def build(cls: type[Options], values: dict[str, Any], *, where: str | None = None) -> Options:
    """Make the options `cls` of plain values, checked. Raises `UserError` at the first that does not fit."""
    _refuse_unknown(cls, values, where)
    _refuse_unusable(values, where)
    try:
        return cls(**values)
    except UserError as error:  # of options that do not go together, or of a name that there is not
        raise UserError(f"{where}: {error}" if where else str(error)) from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "options"
        if first["type"] == "missing":
            raise UserError(f"{flag(name)} is missing (--help says what it is)") from None
        place = f"{where}: " if where else ""
        given = repr(first["input"])
        raise UserError(f"{place}{flag(name)} {given[:200]}{'…' * (len(given) > 200)}: {first['msg']}") from None


def read_options(cls: type, path: str | Path) -> dict[str, Any]:
    """The values a YAML file sets, its keys checked against the fields of `cls`."""
    values = read_yaml(path)
    _refuse_unknown(cls, values, str(path))
    return values


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds one mapping. Raises `UserError` that names the file (and the line of a syntax error)."""
    values = parse_yaml(read_text(path, most=MOST_BYTES), str(path))
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path}: must hold 'option: value' lines, not a {type(values).__name__}")
    return values


def write_options(path: str | Path, values: Any, *, header: str = "") -> None:
    """Write options as YAML that `parse` reads back to the same options.

    Left out: how this one process was started (`config`, `resume`, `overwrite`), which is no part of what it did.
    """
    kept = {key: value for key, value in to_plain(values).items() if key not in ("config", "resume", "overwrite")}
    text = dump_yaml(kept)
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    write_whole(Path(path), lambda file: file.write(comment + text))


def to_plain(values: Any) -> dict[str, Any]:
    """Options as plain values for YAML and JSON."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(values).items()}


def same_value(saved: Any, wanted: Any, *, path: bool) -> bool:
    """Whether two values of an option are equal or, of one that may name a file, two ways to write one path."""
    if path and isinstance(saved, str) and isinstance(wanted, str):
        return saved == wanted or os.path.realpath(saved) == os.path.realpath(os.path.expanduser(wanted))
    return saved == wanted


def flag(name: str) -> str:
    """How a field is written on the command line."""
    return "--" + name.replace("_", "-")


def _refuse_unknown(cls: type, values: dict[str, Any], where: str | None) -> None:
    allowed = [field.name for field in fields(cls)]
    for key in values:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            place = f"{where}: " if where else ""
            raise UserError(f"{place}unknown option '{key}'; {hint}allowed: {', '.join(sorted(allowed))}")


def _refuse_unusable(values: dict[str, Any], where: str | None) -> None:
    """Texts that no file can keep: bytes that are not UTF-8 reach Python as halves of characters."""
    for key, value in values.items():
        texts = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(text, str) and unusable(text) for text in texts):
            place = f"{where}: " if where else ""
            raise UserError(f"{place}{flag(key)} {ascii(value)[:200]}: is {UNUSABLE}; write it in UTF-8")


class _Parser(argparse.ArgumentParser):
    """argparse that raises `UserError` instead of printing its usage, and suggests the nearest option."""

    def error(self, message: str) -> typing.NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        known = [name for action in self._actions for name in action.option_strings if "_" not in name]
        close = difflib.get_close_matches(unknown.split("=")[0], known, n=1) if unknown else []
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"{message}{hint} (--help lists every option)")


def _parser(cls: Any) -> argparse.ArgumentParser:
    description, _, examples = (cls.__doc__ or "").partition("\n\n")
    parser = _Parser(
        description=" ".join(description.split()),
        epilog=textwrap.dedent(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        help="print what completes this command's options in that shell, and leave (README: What a run leaves)",
    )
    groups: dict[type, argparse._ArgumentGroup] = {}
    owners = {
        name: next(base for base in reversed(cls.__mro__) if name in getattr(base, "__annotations__", {}))
        for name in cls.__pydantic_fields__
    }
    for name, owner in sorted(owners.items(), key=lambda item: item[1] is not cls):  # its own options first
        info = cls.__pydantic_fields__[name]
        if owner not in groups:
            title = (
                "this command" if owner is cls else " ".join((owner.__doc__ or owner.__name__).split("\n\n")[0].split())
            )
            groups[owner] = parser.add_argument_group(title)
        bases: list[Any] = [base for base in cls.__mro__ if _declares(base, name)]
        said = [base.__pydantic_fields__[name].description for base in bases]
        _add(groups[owner], name, info, next(filter(None, said), ""))
    return parser


def _declares(base: type, name: str) -> bool:
    return name in getattr(base, "__annotations__", {}) and hasattr(base, "__pydantic_fields__")


def _add(group: argparse._ArgumentGroup, name: str, info: pydantic.fields.FieldInfo, description: str) -> None:
    """One field as one argument. Values stay text here: pydantic turns them into their types, as it does YAML's."""
    default = info.get_default(call_default_factory=True)
    shown = "" if default is None or default == () else f" (default: {_show(default)})"
    shown = " (required)" if info.is_required() else shown
    text = (" ".join(description.split()) + shown).replace("%", "%%")
    kind, optional = _plain_type(info.annotation)
    keywords: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
    item, choices = kind, ()
    if kind is bool:
        keywords["action"] = argparse.BooleanOptionalAction
    else:
        origin = typing.get_origin(kind)
        item = typing.get_args(kind)[0] if origin in (tuple, list) else kind
        choices = typing.get_args(item) if typing.get_origin(item) is typing.Literal else ()
        keywords["metavar"] = "{" + ",".join(map(str, choices)) + "}" if choices else _metavar(name, item)
        if origin in (tuple, list):
            keywords["nargs"] = "*"
        if optional:
            keywords["type"] = lambda text: None if text.lower() == "none" else text
    if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("positional"):
        group.add_argument(name, **({k: v for k, v in keywords.items() if k != "default"} | {"metavar": name.upper()}))
        return
    suggest(group.add_argument(flag(name), dest=name, **keywords), choices, files=item is str)
    if "_" in name:  # the spelling of the YAML files works too, but is not shown
        group.add_argument(f"--{name}", dest=name, **keywords | {"help": argparse.SUPPRESS})


def _metavar(name: str, kind: Any) -> str:
    return {int: "N", float: "X"}.get(kind, name.upper())


def _plain_type(annotation: Any) -> tuple[Any, bool]:
    """The type behind `Annotated[...]` and `... | None`, and whether None is allowed."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain_type(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        arms = [arm for arm in typing.get_args(annotation) if arm is not type(None)]
        return _plain_type(arms[0])[0], len(arms) < len(typing.get_args(annotation))
    return annotation, False


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
