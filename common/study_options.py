"""Which options each cell of a study gets: the study's, its own, and what the command line gives, to all or by name.

Belongs here: how `--weights`, `--features` and `--set` name cells, and what wins. The study file is read in
`common/study.py`; what is run with these options is in `common/study_runs.py`.

A name is a cell's, its name on one axis, or its encoder (the option `encoder`); the more exact one wins, in this order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.study import Cell, StudyOptions, first_few, refuse_reserved, unknown
from common.yaml_files import parse_yaml

# Options that decide what the features of a clip or photo are. A file of features named for all, or for an encoder, is
# taken to be what that encoder's first cell would compute; a cell with other values of these needs a file of its own.
DECIDE_FEATURES = (
    "sampling frames stride short max_frames augment augment_per copies views image_size resize stages depth width "
    "train_encoder encoder_seed weights pool".split()
)
# Options of clips, which stored features cannot have: these have an index, and no frames that vary.
_OF_CLIPS = ("clips", "lists", "split_list", "augment", "copies", "views")
_BY_ENCODER = 2  # place of the encoder in `_names`; what stands before it names the cell itself


@dataclass(kw_only=True)
class Assigned:
    """What the cells get."""

    options: dict[str, dict[str, Any]]
    """cell name → its options, without the seed; cells that are left out are not in it"""
    left_out: dict[str, str]
    """cell name → why it is left out"""
    random: list[str]
    """cells whose encoder has random weights where the study asks for ImageNet's"""
    not_stored: list[str]
    """options of clips that cells with stored features were to have"""
    weights_named: bool
    """some cell's weights were changed by --weights NAME=..."""


def cell_options(
    cells: Sequence[Cell], chosen: Sequence[Cell], given: StudyOptions, known: Mapping[str, set[str]]
) -> Assigned:
    """Every cell's options: config < options and own_data < axes or row < command line < `--set`.

    `known` is script → the options it has. A study's common options (and the command line's) reach the cells whose
    script has them, for a baseline has no learning rate; one that no script has is refused, and so is an option of
    a cell's own that its script has not. `chosen` are the cells that are to be run. Raises `UserError` also for names
    that fit no cell and files that are not there.
    """
    common = {name: getattr(given, name) for name in ("data", "cache") if getattr(given, name) is not None}
    common |= {} if given.test else {"test": False}
    if given.features and given.data is not None:
        raise UserError("--features are used instead of --data: give one of them")
    anywhere = set().union(*(known[cell.script] for cell in cells))
    named_by_study = {key for cell in cells for key in (*cell.shared, *cell.own_data)}
    for key in (*sorted(named_by_study), *common, *["features"] * bool(given.features)):
        if key not in anywhere:
            raise unknown(f"{given.study}: option", key, anywhere)
    if given.other_data and not any(cell.own_data for cell in cells):
        raise UserError(f"--other-data: {given.study} has no own_data that it could leave out")
    for cell in cells:
        for key in cell.own:
            if key not in known[cell.script]:
                place = f"{given.study}: cell '{cell.name}': option of scripts/{cell.script}.py"
                raise unknown(place, key, known[cell.script])

    values = {cell.name: _of_script(cell, known, cell.shared | cell.own | common) for cell in cells}
    forced = _read_set(given.set, cells, values, known)
    encoders = {name: (mine | forced[name]).get("encoder") for name, mine in values.items()}
    wanted = {name: mine | forced[name] for name, mine in values.items()}
    features, left_out = _read_features(given.features, cells, chosen, encoders, wanted, known)
    if not given.other_data:
        for cell in cells:
            mine = values[cell.name] | forced[cell.name]
            if cell.name in features or mine.get("data") is not None or mine.get("features") is not None:
                all_shared = cell.shared | cell.own_data
                values[cell.name] = _of_script(cell, known, all_shared | cell.own | common)
    reading = [cell for cell in cells if cell.name not in (*features, *left_out)]  # of the others none reads clips
    asked = [cell for cell in reading if values[cell.name].get("weights") == "imagenet"]
    weights, weights_named = _read_weights(given, asked, encoders)
    options, not_stored = {}, set()
    for cell in cells:
        if cell.name not in left_out:
            name = cell.name
            replaced = {"weights": weights[name]} if name in weights else {}
            stored = {"features": features[name]} if name in features else {}
            unused = _OF_CLIPS if stored else ()
            mine = {key: value for key, value in values[name].items() if key not in unused}
            not_stored |= {key for key in unused if values[name].get(key)}
            options[name] = mine | stored | replaced | forced[name]
    random = [cell.name for cell in asked if options.get(cell.name, {}).get("weights") == "none"]
    return Assigned(
        options=options, left_out=left_out, random=random, not_stored=sorted(not_stored), weights_named=weights_named
    )


def left_out_note(left_out: Mapping[str, str], cells: Sequence[Cell]) -> str | None:
    """One line that tells how many of the cells are left out, which (the first few), and why; None if none is."""
    by_reason: dict[str, list[str]] = {}
    for cell in cells:
        if cell.name in left_out:
            by_reason.setdefault(left_out[cell.name], []).append(cell.name)
    count = sum(map(len, by_reason.values()))
    reasons = [f"{why}: {first_few(names)}" for why, names in by_reason.items()]
    return f"left out {count} of {len(cells)} cells: {'. And '.join(reasons)}" if count else None


def _of_script(cell: Cell, known: Mapping[str, set[str]], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in known[cell.script]}


def _names(cell: Cell, encoder: Any) -> list[tuple[str, ...]]:
    """What a cell is called, most exact first."""
    return [(cell.name,), cell.parts, (encoder,) if isinstance(encoder, str) else ()]


def _all_names(cells: Iterable[Cell], encoders: Mapping[str, Any]) -> list[str]:
    found = [level for cell in cells for level in enumerate(_names(cell, encoders[cell.name]))]
    return list(dict.fromkeys(name for _, names in sorted(found, key=lambda level: level[0]) for name in names))


def _most_exact(flag: str, named: Mapping[str, Any], cell: Cell, encoder: Any) -> tuple[int, Any] | None:
    """How exactly a cell is named (a place in `_names`), and the value it is given so."""
    for place, names in enumerate(_names(cell, encoder)):
        found = {name: named[name] for name in names if name in named}
        if found:
            values = list(found.values())
            if any(value != values[0] for value in values):
                both = " and ".join(f"'{name}'" for name in found)
                raise UserError(f"{flag}: {both} name cell '{cell.name}' for different values; name the cell itself")
            return place, values[0]
    return None


def _split(text: str, sign: str, names: Iterable[str]) -> tuple[str | None, str]:
    """`NAME<sign>REST` at the longest known name: names and files may hold the sign themselves."""
    fitting = [name for name in names if text.startswith(name + sign)]
    name = max(fitting, key=len, default=None)
    return name, text if name is None else text[len(name) + len(sign) :]


def _read_files(
    flag: str, texts: Sequence[str], names: Sequence[str], *, folders: bool, words: Sequence[str] = ()
) -> tuple[dict[str, str], str | None]:
    """`NAME=FILE` and at most one plain `FILE` → name → file, and the plain one. `words` may stand for named files."""
    named: dict[str, str] = {}
    plain: list[str] = []
    for text in texts:
        name, file = _split(text, "=", names)
        path = Path(file).expanduser()
        there = path.is_file() or (folders and path.exists())
        if name is None and "=" in text and not there:
            raise unknown(f"{flag}: name", text.partition("=")[0], names)
        if not there and not (name is not None and file in words):
            spare = f"; NAME={' or NAME='.join(words)} is allowed too" if words else ""
            raise UserError(f"{flag} {text}: no such file{' or folder' * folders}{spare}")
        if name is None:
            plain.append(file)
        elif name in named:
            raise UserError(f"{flag}: '{name}' is given twice; give each name once")
        else:
            named[name] = file
    if len(plain) > 1:
        allowed = f"give one FILE, and NAME=FILE for others; NAME is one of: {'; '.join(names)}"
        raise UserError(f"{flag} {' '.join(plain)}: which is for which cell? {allowed}")
    return named, plain[0] if plain else None


def _read_weights(
    given: StudyOptions, asked: Sequence[Cell], encoders: Mapping[str, Any]
) -> tuple[dict[str, str], bool]:
    """Cell name → weights instead of ImageNet's, which the cells `asked` want; and whether any was given by name."""
    if not given.weights:
        return {}, False
    names = _all_names(asked, encoders)
    named, plain = _read_files("--weights", given.weights, names, folders=False, words=["none"])
    if not asked:
        texts = " ".join(given.weights)
        stored = " (cells with --features have no use for them)" if given.features else ""
        raise UserError(f"--weights {texts}: no cell of {given.study} has weights: imagenet to be replaced{stored}")
    found = {}
    for cell in asked:
        exact = _most_exact("--weights", named, cell, encoders[cell.name])
        file = plain if exact is None else exact[1]
        if file is not None:
            found[cell.name] = file
    return found, bool(named)


def _read_features(
    texts: Sequence[str],
    cells: Sequence[Cell],
    chosen: Sequence[Cell],
    encoders: Mapping[str, Any],
    values: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, set[str]],
) -> tuple[dict[str, str], dict[str, str]]:
    """Cell name → its file of features, and cell name → why there is none for it, of scripts that take features."""
    if not texts:
        return {}, {}
    able = [cell for cell in cells if "features" in known[cell.script]]
    named, plain = _read_files("--features", texts, _all_names(able, encoders), folders=True)
    exact = {cell.name: _most_exact("--features", named, cell, encoders[cell.name]) for cell in able}
    if plain is not None:
        taking = [cell.name for cell in chosen if cell in able and exact[cell.name] is None]
        several = sorted({encoders[name] for name in taking if isinstance(encoders[name], str)})
        if len(several) > 1:
            raise UserError(
                f"--features {plain}: the cells have encoders {', '.join(several)}: give NAME=FILE for each"
            )
    found, left_out = {}, {}
    first: dict[Any, Mapping[str, Any]] = {}  # encoder → options of its first cell
    for cell in able:
        mine = values[cell.name]
        usual = first.setdefault(encoders[cell.name], mine)
        place, file = exact[cell.name] or (len(_names(cell, None)), plain)
        deciding = [key for key in DECIDE_FEATURES if mine.get(key) != usual.get(key)]
        if file is None:
            left_out[cell.name] = "no --features for"
        elif deciding and place >= _BY_ENCODER:
            left_out[cell.name] = (
                f"no --features under a name of the cell itself, though it has other {', '.join(deciding)}"
            )
        else:
            found[cell.name] = file
    if not any(cell.name in found or cell not in able for cell in chosen):
        raise UserError(f"--features: no cell is left to be run; {left_out_note(left_out, chosen)}")
    return found, left_out


def _read_set(
    texts: Sequence[str],
    cells: Sequence[Cell],
    values: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, set[str]],
) -> dict[str, dict[str, Any]]:
    """Cell name → the options that `--set` forces on it, of those that its script has."""
    encoders = {name: mine.get("encoder") for name, mine in values.items()}
    names = _all_names(cells, encoders)
    plain: dict[str, Any] = {}
    by_option: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, pair = _split(text, ":", names)
        option, equals, value = pair.partition("=")
        if name is None and ":" in option and equals:
            raise unknown("--set: name", option.rpartition(":")[0], names)
        if not option or not equals:
            raise UserError(f"--set {text!r}: write OPTION=VALUE or NAME:OPTION=VALUE, for example epochs=1")
        option = option.lstrip("-").replace("-", "_")
        refuse_reserved("--set", [option])
        called = {
            cell.name: {other for names in _names(cell, encoders[cell.name]) for other in names} for cell in cells
        }
        fitting = [cell for cell in cells if name is None or name in called[cell.name]]
        allowed = set().union(*(known[cell.script] for cell in fitting))
        if option not in allowed:
            raise unknown(f"--set{'' if name is None else f' {name}'}: option", option, allowed)
        target = plain if name is None else by_option.setdefault(option, {})
        if (option if name is None else name) in target:
            raise UserError(f"--set {text!r}: {option} is given twice; give it once")
        target[option if name is None else name] = parse_yaml(value, f"--set {text!r}: the value")
    forced = {}
    for cell in cells:
        mine = dict(plain)
        for option, named in by_option.items():
            exact = _most_exact(f"--set {option}", named, cell, encoders[cell.name])
            mine |= {} if exact is None else {option: exact[1]}
        forced[cell.name] = _of_script(cell, known, mine)
    return forced
