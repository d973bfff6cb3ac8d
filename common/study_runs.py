"""Running a study: what is still to do, and what is made of it.

Belongs here: planning the runs of every cell with every seed, so that what is finished is not run again. What a study
is, is in `common/study.py`; starting and ending them in `common/study_processes.py` and
`common/study_jobs.py`; its tables in `common/study_tables.py`.

The study's folder holds `cells/NAME-seedN.yaml` (the options a run was started with), `runs/NAME-seedN/` (the run),
`runs/NAME-seedN.log` (all it printed), the tables and, of jobs, `jobs/` (what submitit writes). A run is finished when
it has `metrics.json`, which the training scripts write last.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.config import read_yaml, same_value
from common.errors import UserError
from common.interruption import terminated_like_interrupted
from common.options import NOT_MEASURED
from common.runs import typed_command
from common.study import Cell, Study, StudyOptions, choose, read_study
from common.study_jobs import SLURM_JOBS, Jobs, slurm_parameters
from common.study_options import Assigned, cell_options, left_out_note
from common.study_processes import Executor, Processes, run_all
from common.study_start import Run
from common.study_tables import write_tables
from common.terminal import say_result
from common.yaml_files import dump_yaml

_PATHS = (
    "data",
    "images",
    "clips",
    "lists",
    "features",
    "index",
    "weights",
)  # options that the scripts write back as absolute paths


def run_study(given: StudyOptions, *, scripts: Path) -> int:
    """Run what is not finished, write the tables, and return the exit code: 1 if a run failed, else 0.

    `scripts` is the folder of the training scripts. Raises `UserError` before anything starts for a study, an option or
    a finished run that does not fit.
    """
    if given.slurm and given.executor != "slurm":
        raise UserError("--slurm is of jobs that go to SLURM: add --executor slurm, or leave it out")
    slurm_parameters(given.slurm)
    study = read_study(given.study, seeds=given.seeds)
    output = Path(given.output or Path("runs") / Path(given.study).stem)
    launcher = _read_launcher(given.launcher)
    chosen = choose(study.cells, given.only)
    known = {script: _known_options(scripts, script) for script in {cell.script for cell in study.cells}}
    assigned = cell_options(study.cells, chosen, given, known)
    before = _finished_before([cell for cell in study.cells if cell.name in assigned.left_out], output)
    assigned.options |= before
    cells = [cell for cell in study.cells if cell.name in assigned.options]
    left_out = left_out_note({name: why for name, why in assigned.left_out.items() if name not in before}, chosen)
    runs = _runs(cells, assigned.options, known, output)
    wanted = [run for run in runs if run.cell in chosen and run.cell.name not in assigned.left_out]
    for run in wanted:
        _refuse_other_options(run)
    if left_out is not None:
        print(left_out, flush=True)
    if given.dry_run:
        _list(study, wanted, scripts, launcher)
        return 0
    todo = [run for run in wanted if not run.finished]
    print(f"{study.title}: {len(wanted)} runs, {len(wanted) - len(todo)} of them finished before", flush=True)
    failed: dict[str, str] = {}
    jobs = given.jobs or (SLURM_JOBS if given.executor == "slurm" else 1)
    try:
        executor = _executor(given, output, jobs, scripts, launcher) if todo else None
        _make(output)
        with terminated_like_interrupted():
            failed = run_all(todo, jobs, executor, keep=given.checkpoints) if executor is not None else {}
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr, flush=True)
        raise
    shown = [run for run in runs if run in wanted or (run.finished and _difference(run) is None)]
    cells = [cell for cell in cells if any(run.cell is cell for run in shown)]
    table = write_tables(
        output,
        title=study.title,
        command=typed_command(),
        cells=cells,
        options=assigned.options,
        runs={(run.cell.name, run.seed): run.path for run in shown},
        commands={cell.name: _shown_command(_of(wanted + runs, cell), scripts, launcher) for cell in cells},
        failed=failed,
        compare=study.compare,
        pivot=study.pivot,
        weights_named=assigned.weights_named,
        more_notes=[*study.notes, *([left_out] if left_out is not None else []), *_notes(cells, assigned, given)],
    )
    print(f"\n{table}\n\neverything is in {output}; {output / 'report.html'} shows it", flush=True)
    say_result(output=output, table=output / "table.json", report=output / "report.html", failed=failed)
    if failed:
        print(f"\n{len(failed)} failed; the same command tries them again:", file=sys.stderr)
        for name, why in failed.items():
            print(f"  {name}: {why}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def _executor(given: StudyOptions, output: Path, jobs: int, scripts: Path, launcher: Sequence[str]) -> Executor:
    if given.executor == "here":
        return Processes(jobs, scripts, launcher)
    return Jobs(given.executor, output, jobs, scripts, launcher, given.slurm)


def _finished_before(cells: Sequence[Cell], output: Path) -> dict[str, dict[str, Any]]:
    """Cell's name → the options it was run with, of cells that this command leaves out: they stay in the table."""
    found = {}
    for cell in cells:
        for seed in cell.seeds:
            name = f"{cell.slug}-seed{seed}"
            file = output / "cells" / f"{name}.yaml"
            if file.is_file() and (output / "runs" / name / "metrics.json").is_file():
                found[cell.name] = {key: value for key, value in read_yaml(file).items() if key != "seed"}
    return found


def _notes(cells: Sequence[Cell], assigned: Assigned, given: StudyOptions) -> list[str]:
    """What the command line changed, and a reader of the table has to know."""
    notes = []
    missed = sorted(cells[0].own_data) if given.other_data and cells else []
    if missed:
        notes.append(
            f"other data than the study's own (which reported figures are of): without its {', '.join(missed)}"
        )
    if given.features:
        without = f", and no {', '.join(assigned.not_stored)}" if assigned.not_stored else ""
        notes.append(f"encoder, size and frames are those that the features were made with, not the study's{without}")
    random = [cell.name for cell in cells if cell.name in assigned.random]
    if random:
        notes.append(f"random weights where the study asks for ImageNet's: {'; '.join(random)}")
    return notes


def _runs(cells: Sequence[Cell], options: dict[str, Any], known: dict[str, set[str]], output: Path) -> list[Run]:
    """All runs, first every cell's first seed: so a study that is cut short has whole rows to compare."""
    runs = []
    for cell in cells:
        for seed in cell.seeds:
            name = f"{cell.slug}-seed{seed}"
            seeded = {"seed": seed} if "seed" in known[cell.script] else {}
            runs.append(
                Run(
                    cell=cell,
                    seed=seed,
                    options=options[cell.name] | seeded,
                    path=output / "runs" / name,
                    file=output / "cells" / f"{name}.yaml",
                    resumes="resume" in known[cell.script],
                )
            )
    return sorted(runs, key=lambda run: run.cell.seeds.index(run.seed))


def _known_options(scripts: Path, script: str) -> set[str]:
    """The options a script has, as its `--help` lists them: at once, and without importing a task here."""
    path = scripts / f"{script}.py"
    if not path.is_file():
        others = ", ".join(sorted(other.stem for other in scripts.glob("*.py")))
        raise UserError(f"script {script}: there is no scripts/{script}.py; there are: {others}")
    environment = os.environ | {"PYTHON_COLORS": "0", "PYTHONIOENCODING": "utf-8"}
    asked = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, encoding="utf-8", env=environment
    )
    found = {name.replace("-", "_") for name in re.findall(r"^  --([a-z][\w-]*)", asked.stdout, re.MULTILINE)}
    if asked.returncode or not {"config", "output"} <= found:
        raise UserError(f"scripts/{script}.py cannot run a cell: its --help lists no --config and --output")
    return found


def _read_launcher(given: str | None) -> list[str]:
    if given is None:
        return [sys.executable]
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise UserError(f"--launcher {given!r}: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise UserError(f"--launcher {given!r}: there is no such command")
    return words


def _difference(run: Run) -> str | None:
    """The first option in which what lies in the run's directory differs from what is wanted, or None."""
    if not (run.path / "config.yaml").is_file():
        return None
    header = f"# script: {run.cell.script}"
    saved_by_study = run.file.is_file()
    saved = read_yaml(run.file if saved_by_study else run.path / "config.yaml")
    if saved_by_study and header not in run.file.read_text(encoding="utf-8").splitlines():
        return f"another script than {run.cell.script}"
    # The study's file holds what was asked for; a script's own may hold more, and defaults that it chose by itself.
    for key in sorted(set(saved) | set(run.options) if saved_by_study else run.options):
        if key not in NOT_MEASURED and not same_value(saved.get(key), run.options.get(key), path=key in _PATHS):
            return f"{key} = {saved.get(key, 'its default')}, not {run.options.get(key, 'its default')}"
    return None


def _refuse_other_options(run: Run) -> None:
    difference = _difference(run) if run.finished or run.goes_on else None  # else it is started anew
    if difference is not None:
        raise UserError(f"{run.path} was run with {difference}; choose another --output, or delete that folder")


def _make(output: Path) -> None:
    try:
        for name in ("cells", "runs"):
            (output / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror})") from None


def _list(study: Study, runs: Sequence[Run], scripts: Path, launcher: Sequence[str]) -> None:
    print(study.title)
    for cell in study.cells:
        mine = [run for run in runs if run.cell is cell]
        if mine:
            shown = {key: value for key, value in mine[0].options.items() if key != "seed"}
            print(f"\n{cell.name} ({cell.script})")
            print("  " + dump_yaml(shown).strip().replace("\n", "\n  "))
        for run in mine:
            state = "finished" if run.finished else f"$ {_shown_command(run, scripts, launcher)}"
            print(f"  seed {run.seed}: {state}")


def _shown_command(run: Run, scripts: Path, launcher: Sequence[str]) -> str:
    """The command that runs it from the start, to be read and typed by people."""
    start = ["python"] if list(launcher) == [sys.executable] else launcher
    script = os.path.relpath(scripts / f"{run.cell.script}.py")
    arguments = run.arguments() if not run.finished else ["--config", str(run.file), "--output", str(run.path)]
    return shlex.join([*start, script, *arguments])


def _of(runs: Sequence[Run], cell: Cell) -> Run:
    return next(run for run in runs if run.cell is cell)
