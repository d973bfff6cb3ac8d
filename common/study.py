"""What a study is: a YAML file that names its cells (a grid, further rows), their seeds and the figures once reported.

Belongs here: reading and checking that file, and the options of the command. Which options each cell gets is in
`common/study_options.py`, running the cells in `common/study_runs.py`, tables in `common/study_tables.py`. Nothing here
knows a task or imports anything heavy: what options a script has is asked of the script itself.

    title: "R4: attention or not"
    script: train_vqa                    # scripts/NAME.py that runs a cell
    config: ../vqa/food.yaml             # options of all cells, relative to the study file
    options: {epochs: 20}                # over config
    own_data: {split_list: 1}            # of the study's own data: not with --other-data, nor for the embedded set
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
      MobileNetV2, attention: {loss: 0.4503, accuracy: 0.8317}  # also seconds, test seconds, validation loss, train ...
    across: attention                    # of two axes: accuracy once more, this one's names side by side
    compare:                             # accuracy of the first cell minus that of the second, seed by seed
      - {name: what attention earns, cells: ["CNN, attention", "CNN, no attention"], primary: true}
                                         # primary: tested over the seeds, by Holm; name it before the first run
    notes: [the reported figures are of one run]   # lines above the table
"""

import difflib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from common.config import build, options, positional, read_yaml
from common.errors import UserError
from common.options import Count

Seed = Annotated[int, Field(ge=0, lt=2**31)]
_LISTED = 3  # cells that a note names before it only counts them
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
      python scripts/run_study.py STUDY.yaml --data FOLDER --weights resnet50=FILE resnet101=FILE vgg16=none
      python scripts/run_study.py STUDY.yaml --features resnet50=FILE "ResNet101, 32 frames=FILE" --other-data
      python scripts/run_study.py STUDY.yaml --set epochs=30 "CNN:epochs=50" "CNN, attention:dropout=0.5"
      python scripts/run_study.py STUDY.yaml --launcher "accelerate launch"
      python scripts/run_study.py STUDY.yaml --executor slurm --slurm partition=gpu gpus=1 cpus=8 time=4:00:00
      python scripts/run_study.py STUDY.yaml --dry-run
    """

    study: str = positional()
    """YAML file of the study; common/study.py shows its shape"""
    data: str | None = None
    """data of every cell: folder, file or Hub id; default what the study says, else the embedded data set"""
    other_data: bool = False
    """the data are another set than the study's own: leave out its own_data options"""
    features: tuple[str, ...] = ()
    """instead of --data, features that someone computed before (scripts/extract_features.py): FILE for every cell,
    or NAME=FILE, as for --weights; cells without any are left out, and so are those whose own options would change the
    features, unless NAME is the cell or its name on an axis"""
    weights: tuple[str, ...] = ()
    """for the cells whose weights are imagenet: FILE, or NAME=FILE, or NAME=none (random), where NAME is a cell, its
    name on one axis or its encoder; the most exact name wins"""
    output: str | None = None
    """folder of the study: runs/, cells/, jobs/ (of --executor) and the tables; default runs/NAME-OF-THE-STUDY-FILE"""
    seeds: tuple[Seed, ...] = ()
    """instead of the study's seeds; a row with seeds of its own keeps them"""
    jobs: Count | None = None
    """runs side by side (default: 1); each gets its share of the CPU cores as OMP_NUM_THREADS, unless that is set; with
    --executor slurm, how many are submitted at once (default: 32), each with the cores of its job"""
    executor: Literal["here", "slurm", "local"] = "here"
    """what starts the runs: this command, or submitit, which sends them to SLURM as jobs, or, to try that without a
    cluster, starts processes; what submitit writes stays in jobs/ of the study's folder"""
    slurm: tuple[str, ...] = ()
    """KEY=VALUE pairs for the jobs of --executor slurm: partition, account, qos, time (minutes, H:MM:SS or D-H:MM:SS;
    default: a day), gpus, cpus, memory (such as 16G), constraint, gres, nodelist, exclude"""
    only: tuple[str, ...] = ()
    """run only these cells, by name or by the name on one axis; finished others stay in the table"""
    launcher: str | None = None
    """command that starts the scripts, such as "accelerate launch"; default this Python"""
    cache: str | None = None
    """folder for what can be computed again, for every cell"""
    checkpoints: Literal["scored", "all", "none"] = "scored"
    """which ones a run keeps when it has finished: the one it was scored with, all three, or none; each holds its
    frozen encoder, too"""
    test: bool = True
    """score the test split; --no-test leaves it unopened in every cell; to score it later, take another --output"""
    set: tuple[str, ...] = ()
    """OPTION=VALUE pairs over every cell's options, for quick trials; over them NAME:OPTION=VALUE, NAME as for
    --weights"""
    dry_run: bool = False
    """list the cells, their options and what would be done; start and write nothing"""


@options
class _File:
    """the study file"""

    title: str | None = None
    script: str | None = None
    config: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    own_data: dict[str, Any] = Field(default_factory=dict)
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    grid: dict[Any, Any] = Field(default_factory=dict)
    rows: tuple[dict[str, Any], ...] = ()
    reported: dict[Any, Any] = Field(default_factory=dict)
    across: Any = None
    compare: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


@options
class _Row:
    """one of its rows"""

    name: str
    script: str | None = None
    options: dict[str, Any] | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None


@options
class _Comparison:
    """two of its cells, compared"""

    name: str
    cells: Annotated[tuple[Any, ...], Field(min_length=2, max_length=2)]
    primary: bool = False


@dataclass(kw_only=True)
class Cell:
    """One row of the table: a script and its options, to be run with several seeds."""

    name: str
    parts: tuple[str, ...]  # its names on the axes
    script: str
    shared: dict[str, Any]  # the study's options: those that the cell's script does not have are left out
    own_data: dict[str, Any]  # more of them, which only the study's own data need
    own: dict[str, Any]  # options of its axes or row, which its script must have
    seeds: tuple[int, ...]
    reported: dict[str, float]

    @property
    def slug(self) -> str:
        """Its name as the name of a folder."""
        return re.sub(r"[^\w.]+", "-", self.name.lower()).strip("-.")


@dataclass(kw_only=True)
class Comparison:
    """A question that two cells answer: how much more accurate is the first than the second?"""

    name: str
    cells: tuple[str, str]
    primary: bool  # named beforehand as what the study is to decide: it alone is tested


@dataclass(kw_only=True)
class Pivot:
    """How a grid of two axes is shown as reports print it: one axis down, the other across."""

    axis: str  # the one whose names are rows
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    columns_first: bool  # in the names of cells, the axis of the columns comes first

    def parts(self, row: str, column: str) -> tuple[str, str]:
        """The names on both axes as a cell has them."""
        return (column, row) if self.columns_first else (row, column)


@dataclass(kw_only=True)
class Study:
    title: str
    cells: list[Cell]
    compare: list[Comparison]
    pivot: Pivot | None
    notes: tuple[str, ...]  # what the reader of its table has to know


def read_study(path: str | Path, *, seeds: Sequence[int] = ()) -> Study:
    """A study file, checked; `seeds` stand in for its own. Raises `UserError` that names the file and the place."""
    path = Path(path)
    file = build(_File, read_yaml(path), where=str(path))
    common, own_data = (_read_options(path, key, getattr(file, key)) for key in ("options", "own_data"))
    twice = next((key for key in own_data if key in common), None)
    if twice is not None:
        raise UserError(f"{path}: {twice} is in options and in own_data: give it in one of them")
    shared = (read_yaml(path.parent / file.config) if file.config else {}) | common
    refuse_reserved(f"{path}: config and options", shared)
    seeds = tuple(dict.fromkeys(seeds or file.seeds))
    cells: list[Cell] = []

    def add(name: str, parts: tuple[str, ...], script: str | None, own: dict[str, Any], its: Sequence[int]) -> None:
        if script is None or not re.fullmatch(r"\w+", script):
            raise UserError(f"{path}: cell '{name}' needs script: NAME (of scripts/NAME.py), not {script!r}")
        given: dict[str, Any] = {"shared": shared, "own_data": own_data, "own": own, "seeds": tuple(its)}
        cell = Cell(name=name, parts=parts, script=script, **given, reported={})
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
    return Study(
        title=" ".join((file.title or path.stem).split()),
        cells=cells,
        compare=_read_comparisons(path, cells, file.compare),
        notes=tuple(" ".join(note.split()) for note in file.notes),
        pivot=_read_pivot(path, file.across, dict(zip(map(str, file.grid), axes, strict=True))),
    )


def choose(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells called so, or so on one of their axes; all if nothing is named. Raises `UserError` for another name."""
    for name in only:
        if not any(name in (cell.name, *cell.parts) for cell in cells):
            raise unknown("--only", name, [cell.name for cell in cells])
    return [cell for cell in cells if not only or {cell.name, *cell.parts} & set(only)]


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
    refuse_reserved(f"{path}: {place}", values)
    return values


def refuse_reserved(place: str, values: Iterable[str]) -> None:
    """Raises `UserError` for an option that a study gives by itself."""
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
            raise unknown(f"{path}: reported for cell", name, by_name)
        if not isinstance(figures, dict):
            raise UserError(f"{path}: reported '{name}' must be 'metric: figure' pairs, not {figures!r}")
        for metric, value in figures.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise UserError(f"{path}: reported '{name}': {metric} {value!r} is no number")
            by_name[name].reported[str(metric)] = value


def _read_comparisons(path: Path, cells: Sequence[Cell], given: Sequence[dict[str, Any]]) -> list[Comparison]:
    names = [cell.name for cell in cells]
    found: list[Comparison] = []
    for number, values in enumerate(given, start=1):
        place = f"{path}, compare {number}"
        if not {"name", "cells"} <= set(values):
            raise UserError(f"{place}: write {{name: TEXT, cells: [A, B]}}")
        comparison = build(_Comparison, values, where=place)
        first, second = (_name(path, f"compare {number}", name) for name in comparison.cells)
        for name in (first, second):
            if name not in names:
                raise unknown(f"{place}: cell", name, names)
        if first == second:
            raise UserError(f"{place}: '{first}' is compared with itself")
        if any(comparison.name == other.name for other in found):
            raise UserError(f"{place}: '{comparison.name}' is another comparison's name, too")
        found.append(Comparison(name=comparison.name, cells=(first, second), primary=comparison.primary))
    return found


def _read_pivot(path: Path, across: Any, axes: Mapping[str, Sequence[tuple[str, Any]]]) -> Pivot | None:
    if across is None:
        return None
    across = _name(path, "across", across)
    if len(axes) != 2:
        raise UserError(f"{path}: across needs a grid of two axes; there are {len(axes)}")
    if across not in axes:
        raise unknown(f"{path}: across: axis", across, list(axes))
    down = next(axis for axis in axes if axis != across)
    rows, columns = (tuple(name for name, _ in axes[axis]) for axis in (down, across))
    return Pivot(axis=down, rows=rows, columns=columns, columns_first=next(iter(axes)) == across)


def unknown(place: str, name: str, allowed: Iterable[str]) -> UserError:
    """What is raised for a name that is none of the `allowed`: they are listed, and the nearest is suggested."""
    allowed = list(allowed) if not isinstance(allowed, set) else sorted(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return UserError(f"{place} '{name}' is unknown; {hint}allowed: {'; '.join(allowed)}")


def first_few(names: Sequence[str]) -> str:
    """Names of cells for a note, which is not to be longer than what it tells."""
    more = len(names) - _LISTED
    return "; ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
