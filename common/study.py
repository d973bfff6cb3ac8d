"""What a study is: a YAML file that names its cells (a grid, further rows), their seeds and the figures once reported.

Belongs here: reading and checking that file, and which options each cell gets. Running the cells is in
`common/study_runs.py`, tables in `common/study_tables.py`. Nothing here knows a task or imports anything heavy: what
options a script has is asked of the script itself.

    title: "R4: attention or not"
    script: train_vqa                    # scripts/NAME.py that runs a cell
    config: ../vqa/food.yaml             # options of all cells, relative to the study file
    options: {epochs: 20}                # over config
    seeds: [0, 1, 2]
    grid:                                # axes in order: axis -> cell name -> options (config: FILE among them)
      encoder:
        MobileNetV2: {encoder: mobilenet_v2, weights: imagenet}
        CNN: {encoder: custom_cnn, weights: none}
      attention:
        attention: {attention: true}
        no attention: {attention: false}
    rows:                                # further cells; a row's own seeds are not changed by --seeds
      - {name: question only, options: {inputs: question}}
      - {name: majority, script: baseline_vqa, options: {baseline: majority}, seeds: [0]}
    reported:                            # cell -> metric -> figure, as printed
      MobileNetV2, attention: {loss: 0.4503, accuracy: 0.8317}
"""

import difflib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from common.config import build, options, positional, read_yaml
from common.errors import UserError
from common.options import Count

Seed = Annotated[int, Field(ge=0, lt=2**31)]
# Options that no study file and no --set may give, and where they come from instead.
_RESERVED = {
    "seed": "seeds: [...] names the seeds",
    "output": "every cell has a folder of its own under --output",
    "resume": "the study goes on by itself",
    "overwrite": "the study starts broken runs anew by itself",
    "config": "a file of options cannot name another",
}


@options
class StudyOptions:
    """Run every cell of a study file with every seed, and write one table: reported beside measured.

    Finished runs are not run again and interrupted ones go on, so the same command continues a study.

    examples:
      python scripts/run_study.py configs/studies/r4_vqa_attention.yaml --data FOLDER --weights FILE
      python scripts/run_study.py STUDY.yaml --data FOLDER --seeds 0 1 2 --jobs 2
      python scripts/run_study.py STUDY.yaml --only "CNN, attention" --set epochs=1 limit=20 --output runs/trial
      python scripts/run_study.py STUDY.yaml --launcher "accelerate launch"
      python scripts/run_study.py STUDY.yaml --dry-run
    """

    study: str = positional()
    """YAML file of the study; common/study.py shows its shape"""
    data: str | None = None
    """data of every cell: folder, file or Hub id; default what the study says, else the embedded data set"""
    features: str | None = None
    """instead of --data, features that someone computed before (scripts/extract_features.py), for every cell"""
    weights: str | None = None
    """local weights file for the cells whose weights are imagenet"""
    output: str | None = None
    """folder of the study: runs/, cells/ and the tables; default runs/NAME-OF-THE-STUDY-FILE"""
    seeds: tuple[Seed, ...] = ()
    """instead of the study's seeds; a row with seeds of its own keeps them"""
    jobs: Count = 1
    """runs side by side; each gets its share of the CPU cores as OMP_NUM_THREADS, unless that is set"""
    only: tuple[str, ...] = ()
    """run only these cells, by name or by the name on one axis; finished others stay in the table"""
    launcher: str | None = None
    """command that starts the scripts, such as "accelerate launch"; default this Python"""
    cache: str | None = None
    """folder for what can be computed again, for every cell"""
    test: bool = True
    """score the test split; --no-test leaves it unopened in every cell; to score it later, take another --output"""
    set: tuple[str, ...] = ()
    """OPTION=VALUE pairs over every cell's options, for quick trials"""
    dry_run: bool = False
    """list the cells, their options and what would be done; start and write nothing"""


@options
class _File:
    """the study file"""

    title: str | None = None
    script: str | None = None
    config: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    grid: dict[Any, Any] = Field(default_factory=dict)
    rows: tuple[dict[str, Any], ...] = ()
    reported: dict[Any, Any] = Field(default_factory=dict)


@options
class _Row:
    """one of its rows"""

    name: str
    script: str | None = None
    options: dict[str, Any] | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None


@dataclass(kw_only=True)
class Cell:
    """One row of the table: a script and its options, to be run with several seeds."""

    name: str
    parts: tuple[str, ...]  # its names on the axes
    script: str
    shared: dict[str, Any]  # the study's options: those that the cell's script does not have are left out
    own: dict[str, Any]  # options of its axes or row, which its script must have
    seeds: tuple[int, ...]
    reported: dict[str, float]

    @property
    def slug(self) -> str:
        """Its name as the name of a folder."""
        return re.sub(r"[^\w.]+", "-", self.name.lower()).strip("-.")


@dataclass(kw_only=True)
class Study:
    title: str
    cells: list[Cell]


def read_study(path: str | Path, *, seeds: Sequence[int] = ()) -> Study:
    """A study file, checked; `seeds` stand in for its own. Raises `UserError` that names the file and the place."""
    path = Path(path)
    file = build(_File, read_yaml(path), where=str(path))
    shared = (read_yaml(path.parent / file.config) if file.config else {}) | _read_options(
        path, "options", file.options
    )
    _refuse_reserved(f"{path}: config and options", shared)
    seeds = tuple(dict.fromkeys(seeds or file.seeds))
    cells: list[Cell] = []

    def add(name: str, parts: tuple[str, ...], script: str | None, own: dict[str, Any], its: Sequence[int]) -> None:
        if script is None or not re.fullmatch(r"\w+", script):
            raise UserError(f"{path}: cell '{name}' needs script: NAME (of scripts/NAME.py), not {script!r}")
        cell = Cell(name=name, parts=parts, script=script, shared=shared, own=own, seeds=tuple(its), reported={})
        same = next((other for other in cells if other.slug == cell.slug), None)
        if same is not None or not cell.slug:
            clash = f"'{same.name}' is called the same" if same else "it holds no letter or digit"
            raise UserError(f"{path}: cell '{name}' needs another name: {clash}")
        cells.append(cell)

    axes = [_read_axis(path, axis, named) for axis, named in file.grid.items()]
    for chosen in itertools.product(*axes) if axes else ():
        parts = tuple(name for name, _ in chosen)
        own = {key: value for _, given in chosen for key, value in given.items()}
        add(", ".join(parts), parts, file.script, own, seeds)
    for number, given in enumerate(file.rows, start=1):
        if "name" not in given:
            raise UserError(f"{path}, row {number}: has no name")
        row = build(_Row, given, where=f"{path}, row {number}")
        own = _read_options(path, f"row '{row.name}'", row.options)
        add(row.name, (), row.script or file.script, own, tuple(dict.fromkeys(row.seeds or seeds)))
    if not cells:
        raise UserError(f"{path}: a study needs a grid or rows")
    _add_reported(path, cells, file.reported)
    return Study(title=" ".join((file.title or path.stem).split()), cells=cells)


def choose(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells called so, or so on one of their axes; all if nothing is named. Raises `UserError` for another name."""
    for name in only:
        if not any(name in (cell.name, *cell.parts) for cell in cells):
            raise _unknown("--only", name, [cell.name for cell in cells])
    return [cell for cell in cells if not only or {cell.name, *cell.parts} & set(only)]


def cell_options(
    cells: Sequence[Cell], given: StudyOptions, known: Mapping[str, set[str]]
) -> dict[str, dict[str, Any]]:
    """Cell name → its options, without the seed: config < options < axes or row < command line < `--set`.

    `known` is script → the options it has. A study's common options (and the command line's) reach the cells whose
    script has them, for a baseline has no learning rate; one that no script has is refused, and so is an option of
    a cell's own that its script has not.
    """
    common = {name: getattr(given, name) for name in ("data", "features", "cache") if getattr(given, name) is not None}
    common |= {} if given.test else {"test": False}
    forced = _read_pairs(given.set)
    anywhere = set().union(*(known[cell.script] for cell in cells))
    for where, values in (("--set", forced), (given.study, {key: 0 for cell in cells for key in cell.shared} | common)):
        for key in values:
            if key not in anywhere:
                raise _unknown(f"{where}: option", key, anywhere)
    found, replaced = {}, False
    for cell in cells:
        allowed = known[cell.script]
        for key in cell.own:
            if key not in allowed:
                raise _unknown(f"{given.study}: cell '{cell.name}': option of scripts/{cell.script}.py", key, allowed)
        values = {key: value for key, value in (cell.shared | cell.own | common).items() if key in allowed}
        if given.weights is not None and values.get("weights") == "imagenet":
            values["weights"], replaced = given.weights, True
        found[cell.name] = values | {key: value for key, value in forced.items() if key in allowed}
    if given.weights is not None and not replaced:
        raise UserError(f"--weights {given.weights}: no cell of {given.study} has weights: imagenet to be replaced")
    return found


def _read_axis(path: Path, axis: Any, named: Any) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(named, dict) or not named:
        raise UserError(f"{path}: grid '{axis}' must be 'cell name: options' lines, not {named!r}")
    return [
        (_name(path, f"grid '{axis}'", name), _read_options(path, f"grid '{axis}', '{name}'", given))
        for name, given in named.items()
    ]


def _read_options(path: Path, place: str, given: Any) -> dict[str, Any]:
    """Options as the study gives them, over those of the file that its `config` names."""
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise UserError(f"{path}: {place} must be 'option: value' pairs, not {given!r}")
    values = dict(given)
    config = values.pop("config", None)
    if config is not None:
        values = read_yaml(path.parent / str(config)) | values
    _refuse_reserved(f"{path}: {place}", values)
    return values


def _refuse_reserved(place: str, values: Iterable[str]) -> None:
    for key in values:
        if key in _RESERVED:
            raise UserError(f"{place}: {key} cannot be given here; {_RESERVED[key]}")


def _name(path: Path, place: str, name: Any) -> str:
    """A cell's name; numbers may stand unquoted, but YAML reads an unquoted yes, no, on or off as true or false."""
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise UserError(f'{path}: {place}: {name!r} is no name; write it in quotes, such as "no"')
    return str(name)


def _add_reported(path: Path, cells: Sequence[Cell], reported: Mapping[Any, Any]) -> None:
    by_name = {cell.name: cell for cell in cells}
    for key, figures in reported.items():
        name = _name(path, "reported", key)
        if name not in by_name:
            raise _unknown(f"{path}: reported for cell", name, by_name)
        if not isinstance(figures, dict):
            raise UserError(f"{path}: reported '{name}' must be 'metric: figure' pairs, not {figures!r}")
        for metric, value in figures.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise UserError(f"{path}: reported '{name}': {metric} {value!r} is no number")
            by_name[name].reported[str(metric)] = value


def _read_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise UserError(f"--set {pair!r}: write OPTION=VALUE, for example epochs=1")
        try:
            values[key.lstrip("-").replace("-", "_")] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--set {pair!r}: the value is not valid YAML") from None
    _refuse_reserved("--set", values)
    return values


def _unknown(place: str, name: str, allowed: Iterable[str]) -> UserError:
    allowed = list(allowed) if not isinstance(allowed, set) else sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return UserError(f"{place} '{name}' is unknown; {hint}allowed: {'; '.join(allowed)}")
