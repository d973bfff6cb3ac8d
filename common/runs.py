"""The run directory: where it lies, what is in it from the start, and what a run leaves behind.

Belongs here: `config.yaml`, `environment.json`, `metrics.json`, `predictions-<split>.csv`, `report.md`, and the lock on
a run. Checkpoints and history are written by `common/progress.py`; pictures by `common/plots.py`.
"""

import contextlib
import csv
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from common.config import read_yaml, to_plain, write_options
from common.errors import UserError
from common.files import read_object, write_json, write_whole
from common.spreadsheets import no_formula
from common.tables import error_table, split_table
from common.training import Scores

Result = TypeVar("Result")
_LOCK = ".lock"
_HELD: dict[Path, FileLock] = {}  # of the run directories that this process writes
_PACKAGES = (
    "hoianh torch torchvision transformers accelerate datasets evaluate tokenizers safetensors pyvi numpy".split()
)


def on_main(accelerator: Accelerator, function: Callable[[], Result]) -> Result:
    """Call `function` on the main process alone; all processes get its result, or its `UserError`."""
    box: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            box[0] = function()
        except UserError as error:
            box[1] = str(error)
    broadcast_object_list(box)
    if box[1] is not None:
        raise UserError(box[1])
    return box[0]


def main_first(accelerator: Accelerator, function: Callable[[], Result]) -> Result:
    """Call `function` on the main process, which fills the caches, then on the others; all get its `UserError`."""
    box: list[Result] = []
    on_main(accelerator, lambda: box.append(function()))
    return box[0] if box else function()


def cache_directory(given: str | None) -> Path:
    """The folder for what can be computed again: as given, $HOIANH_CACHE, or ~/.cache/hoianh."""
    path = Path(given or os.environ.get("HOIANH_CACHE") or Path.home() / ".cache" / "hoianh").expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cache folder {path} cannot be made ({error.strerror}); give another with --cache") from None
    return path.resolve()


def choose_output(options: Any, name: str) -> Path:
    """Where a run will be written. Creates nothing. Raises `UserError` if --output exists and nothing allows it."""
    if options.output is None:
        path, number = Path("runs") / name, 2
        while path.exists():
            path, number = Path("runs") / f"{name}-{number}", number + 1
        return path
    path = Path(options.output)
    if path.exists() and not options.resume:
        if not options.overwrite:
            go_on = "--resume (go on) or " if "resume" in to_plain(options) else ""
            raise UserError(f"--output {path} exists; choose another, or add {go_on}--overwrite (replace it)")
        _check_run(path)
    if path.is_dir():
        hold(path)
    return path


def hold(path: Path) -> None:
    """Keep a run directory to this process until it ends. Raises `UserError` if another one writes it now."""
    whole = path.resolve()
    if whole in _HELD:
        return
    lock = FileLock(whole / _LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"--output {path}: another process writes this run now; wait for it, or end it") from None
    except (OSError, NotImplementedError):
        return  # a folder that cannot be written says so later; a file system may have no locks
    _HELD[whole] = lock


def release(path: Path) -> None:
    """A run directory is whole: others may write it now. What ends otherwise is released when its process ends."""
    lock = _HELD.pop(path.resolve(), None)
    if lock is not None:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def open_run(
    path: Path,
    options: Any,
    *,
    task: str,
    command: str,
    parameters: tuple[int, int] | None = None,
    figures: Mapping[str, float] | None = None,
    device: str | None = None,
) -> None:
    """Create the run directory with its configuration and environment; an overwritten run goes only now.

    `parameters`: how many the model has, in all and trained; `figures`: more of the model, for tables;
    `device`: what it runs on.
    """
    try:
        if path.exists() and not options.resume:
            if not options.overwrite:
                raise UserError(f"--output {path} appeared meanwhile (another run?); choose another")
            _check_run(path)  # it may have been made, and be written, since the output was chosen
            hold(path)
            _empty(path)
        path.mkdir(parents=True, exist_ok=options.resume or options.overwrite)
        hold(path)
        write_options(path / "config.yaml", options, header=f"task: {task}\ncommand: {command}")
        environment: dict[str, Any] = {
            "task": task,
            "command": command,
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
        if parameters is not None:
            total, trained = parameters
            environment["parameters"] = {"trained": trained, "frozen": total - trained}
        if device is not None:
            environment["device"] = device
        if figures:
            environment["figures"] = dict(figures)
        if (commit := _commit()) is not None:
            environment["commit"] = commit
        environment["packages"] = {name: _version(name) for name in _PACKAGES}
        write_json(path / "environment.json", environment)
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror})") from None


def _check_run(path: Path) -> None:
    """Raises `UserError` for what --overwrite would delete though no run of ours wrote it."""
    if not path.is_dir() or (
        any(entry.name != _LOCK for entry in path.iterdir()) and not (path / "config.yaml").is_file()
    ):
        raise UserError(f"--output {path} exists and is not a run (no config.yaml): --overwrite will not delete it")


def _empty(path: Path) -> None:
    """Delete a run, but not the lock on it."""
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _LOCK:
            entry.unlink()


def read_run(path: str | Path) -> tuple[str, dict[str, Any]]:
    """A run's task and the options it was trained with. Raises `UserError` if `path` is no run."""
    path = Path(path)
    if not (path / "config.yaml").is_file() or not (path / "environment.json").is_file():
        raise UserError(f"{path}: not a run directory (no config.yaml and environment.json in it)")
    task = read_object(path / "environment.json").get("task")
    if not isinstance(task, str):
        raise UserError(f"{path / 'environment.json'}: is damaged (it names no task)")
    return task, read_yaml(path / "config.yaml")


def read_trained_on(run: Path) -> dict[str, list[str]]:
    """What a run says that it was trained on: kind of key → fingerprints. Raises `UserError`."""
    found = read_object(run / "trained-on.json")
    for name, keys in found.items():
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise UserError(f"{run / 'trained-on.json'}: is damaged ({name} is no list of texts)")
    return found


def refuse_changes(saved: Mapping[str, Any], options: Mapping[str, Any], *, may_change: Iterable[str]) -> None:
    """Refuse to resume a run with other options than it was started with, but for those that `may_change`."""
    for key, value in saved.items():
        if key in options and key not in may_change and options[key] != value:
            raise UserError(
                f"--resume: the run was started with {key} = {value}, not {options[key]}; leave the option out, or "
                f"start another run (may change: {', '.join(sorted(may_change))})"
            )


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text beside and rename it."""
    write_whole(path, lambda file: file.write(text))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as UTF-8 CSV, beside and renamed; the columns are the first row's.

    Texts that a spreadsheet would run as formulas become plain ones (`common/spreadsheets.py`).
    """

    def write(file: TextIO) -> None:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writerow({name: no_formula(name) for name in writer.fieldnames})
        writer.writerows({name: no_formula(value) for name, value in row.items()} for row in rows)

    write_whole(path, write)


def refuse_existing(path: str | None, *, overwrite: bool, option: str = "--output") -> None:
    """Refuse an output file that exists, or whose folder does not, before any work is done."""
    if path is None:
        return
    if Path(path).exists() and not overwrite:
        raise UserError(f"{option} {path} exists; choose another, or add --overwrite")
    if not Path(path).resolve().parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {Path(path).parent}; make it first")


def prediction_rows(
    scores: Scores, classes: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    """Per-sample predictions as rows: `columns` holds id, group, type, gold (as written) and anything else to keep."""
    lead = ("id", "group", "type", "gold")
    return [
        {name: columns[name][place] for name in lead}
        | {"predicted": classes[scores.predicted[place]], "probability": round(float(scores.probability[place]), 6)}
        | {name: values[place] for name, values in columns.items() if name not in lead}
        for place in range(len(scores.predicted))
    ]


def fingerprints(values: Iterable[str]) -> list[str]:
    """Short hashes of groups, photos or rows: enough to find an overlap later without keeping the data."""
    return sorted({hashlib.sha256(value.encode()).hexdigest()[:16] for value in values})


def write_report(
    run: Path, *, title: str, command: str, notes: Sequence[str], metrics: Mapping[str, Any], by: str = "by_type"
) -> str:
    """Write `report.md` and return its table, and that of its top-k errors, if it has such."""
    table = "\n\n".join(filter(None, (split_table(metrics, by=by), error_table(metrics))))
    lines = [f"# {title}", "", "```", command, "```", "", table, "", *[f"- {note}" for note in notes], ""]
    if (run / "curves.png").exists():
        lines += ["Each picture is there as SVG, too.", "", "![loss and accuracy per epoch](curves.png)", ""]
    for path in sorted(run.glob("accuracy-*.png")):
        lines += [f"![accuracy {by.replace('_', ' ')}, {path.stem.removeprefix('accuracy-')}]({path.name})", ""]
    for path in sorted(run.glob("confusion-*.png")):
        lines += [f"![predicted against gold, {path.stem.removeprefix('confusion-')}]({path.name})", ""]
    if (run / "examples.png").exists():
        lines += ["![examples of predictions](examples.png)", ""]
    for path in sorted(run.glob("photos-*.png")):
        lines += [f"![best and worst classified, {path.stem.removeprefix('photos-')}]({path.name})", ""]
    write_text(run / "report.md", "\n".join(lines))
    return table


def typed_command() -> str:
    """The command as it was typed, as near as a process can know."""
    import shlex

    return shlex.join([os.path.relpath(sys.argv[0]) if os.path.isabs(sys.argv[0]) else sys.argv[0], *sys.argv[1:]])


def _commit() -> str | None:
    """The commit of the checkout that this code lies in, with "-dirty" where files differ from it; None elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():  # installed: a repository further up is somebody else's
        return None
    # `describe --dirty` would write the index, lock and all, whatever one says of locks: it would be in the
    # way of its owner's commands, and a process that is killed then, or has no room, leaves the lock behind.
    git, said = ["git", "--no-optional-locks", "-C", str(root)], []
    for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run([*git, *command], capture_output=True, text=True, encoding="utf-8", timeout=20)
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
            return None
        if done.returncode:
            return None
        said.append(done.stdout.strip())
    return said[0] + "-dirty" * bool(said[1])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
