"""YAML that somebody else may have written: plain values, and no more of them than the text shows.

Belongs here: reading one YAML text safely, and writing one that reads back as it was. What the values mean is the
caller's business (`common/config.py`, `common/study.py`).
"""

from typing import Any

import yaml

from common.errors import UserError, reason
from common.files import MOST_DIGITS

MOST_BYTES = 500_000
"""Of a YAML file: PyYAML reads about so much in ten seconds."""
MOST_VALUES = 100_000
"""In a file with its aliases written out: a few lines of them can stand for more values than memory holds."""
_MOST_LETTERS = 100
"""Of a number as it is written: "1:59:59:59 ..." is one in YAML, to which each part adds two digits."""

UNUSABLE = "a text that holds a null character, or half of one"


def unusable(text: str) -> bool:
    """Whether a text holds what no path and no UTF-8 file can: a null character, or half of one (a lone surrogate)."""
    return "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without numbers and texts that nothing can work with."""

    def number(self, node: yaml.ScalarNode) -> int | float:
        whole = node.tag == "tag:yaml.org,2002:int"
        value = None
        if isinstance(node.value, str) and len(node.value) <= _MOST_LETTERS:
            value = self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
        if value is None or (whole and abs(value) >= 10**MOST_DIGITS):
            problem = f"a number of more than {MOST_DIGITS if whole else _MOST_LETTERS} digits"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        return value

    def text(self, node: yaml.ScalarNode) -> str:
        value = self.construct_yaml_str(node)
        if unusable(value):
            raise yaml.constructor.ConstructorError(problem=UNUSABLE, problem_mark=node.start_mark)
        return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.number)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.text)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which would write the odd line ends of Unicode as they are, and read them as spaces."""

    def text(self, value: str) -> yaml.ScalarNode:
        quoted = '"' if any(letter in value for letter in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=quoted)


_Dumper.add_representer(str, _Dumper.text)


def dump_yaml(values: Any) -> str:
    """Plain values as YAML that `parse_yaml` reads back to the same."""
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text: plain types only, no tag makes anything else. Raises `UserError`, naming `where`."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _size(node, {}, ()) > MOST_VALUES:
                raise UserError(f"{where}: its aliases stand for more than {MOST_VALUES:,} values; write fewer")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{where}{line}: is not valid YAML ({reason(ValueError(problem))})") from None
    except RecursionError:
        raise UserError(f"{where}: is not valid YAML (nested too deeply)") from None
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        # PyYAML lets through what its types say of "2001-13-01", "0x_" or "!!bool x"
        raise UserError(f"{where}: is not valid YAML ({reason(error)})") from None


def _size(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values a node stands for, itself and all that its aliases repeat."""
    if id(node) in above:
        raise yaml.YAMLError("a value that holds itself")
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (one for part in parts for one in (part if isinstance(part, tuple) else (part,)))
        known[id(node)] = 1 + sum(_size(part, known, (*above, id(node))) for part in parts)
    return known[id(node)]
