"""No room, no permission, no such folder: one line from every writer, and what was there before stays as it was.

A full disk is a limit on the size of a file here (RLIMIT_FSIZE): writing beyond it fails, as it does on a full disk.
"""

import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from classifier_helpers import write_photo
from video_helpers import write_clip

from common import features, photos, runs, settling
from common.checkpoints import save_state, whole_directory, write_directory
from common.config import write_options
from common.drawing import plt, save_figure
from common.encoders import build_encoder
from common.errors import UserError, command
from common.features import FeatureStore, PhotoViews, cached_features
from common.images import Preprocessing, content_hash
from common.runs import write_csv, write_json, write_text
from common.training import make_accelerator
from video.motions import embedded_motions
from video.render import write_marked
from video.stored import write_stored
from vqa.answers import AnswerVocabulary
from vqa.options import TrainVqaOptions
from vqa.shapes import embedded_shapes, write_shapes
from vqa.text import QuestionProcessor

ROOT = Path(__file__).resolve().parent.parent
VIEWS = PhotoViews(preprocessing=Preprocessing(size=32))


@contextlib.contextmanager
def full(limit: int):
    """Files can have so many bytes and no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_clip(folder / "clip.avi", seed=0, count=6, size=64)
    for number in range(3):
        write_photo(folder / f"{number}.png", number)
    return folder


def encoder(name: str = "custom_cnn", **size: int):
    torch.manual_seed(0)
    return build_encoder(name, **(size or {"depth": 2, "width": 64}))


def picture(place: Path, _: Path) -> None:
    save_figure(plt.figure(), place / "picture.png")


def processor(place: Path, _: Path) -> None:
    write = QuestionProcessor.build([f"từ{number} là gì" for number in range(99)], segmentation="syllable")
    write_directory(place / "processor", write.save_pretrained)


def state(place: Path, _: Path) -> None:
    write_directory(
        place / "state", lambda folder: save_state(folder, {"weights": torch.ones(9_999)}), keep_before=True
    )


def answers(place: Path, _: Path) -> None:
    write = AnswerVocabulary.from_list([f"đáp án {number}" for number in range(999)])
    write_directory(place / "answers", write.save_pretrained)


def fill_features(place: Path, made: Path) -> None:
    paths = [str(path) for path in sorted(made.glob("*.png"))]
    hashes = [content_hash(path) for path in paths]
    accelerator = make_accelerator(TrainVqaOptions())
    more = {"source": VIEWS, "cache": place, "workers": 0}
    cached_features(encoder(), paths, hashes, accelerator=accelerator, **more)


def settled(place: Path, made: Path) -> None:
    chosen = [(str(path), content_hash(path)) for path in sorted(made.glob("*.png"))]
    settling.settle(encoder().eval(), chosen, VIEWS, place)


def stored(place: Path, _: Path) -> None:
    rows = ({"path": f"{number}.avi", "label": "ngã"} for number in range(9))
    write_stored(place / "stored" / "f.safetensors", ((row, torch.ones(9, 99)) for row in rows))


WRITERS = {
    "text": lambda place, _: write_text(place / "report.md", "phở" * 9_999),
    "json": lambda place, _: write_json(place / "metrics.json", {"accuracy": [0.5] * 9_999}),
    "table": lambda place, _: write_csv(place / "predictions-test.csv", [{"id": "1" * 9_999}] * 3),
    "options": lambda place, _: write_options(place / "config.yaml", TrainVqaOptions(data="x" * 9_999)),
    "picture": picture,
    "checkpoint": state,
    "questions": processor,
    "answers": answers,
    "features": fill_features,
    "settled": settled,
    "stored": stored,
    "shapes": lambda place, _: embedded_shapes(place, train=2, validation=2, test=2, size=512),
    "motions": lambda place, _: embedded_motions(place, train=2, validation=2, test=2, size=128, progress=False),
    "marked": lambda place, made: write_marked(made / "clip.avi", place / "m.mp4", ["ngã"], overwrite=True),
    "photo": lambda place, _: photos.photo_reference(b"x" * 20_000, cache=place, write=True),
    "checked": lambda place, _: photos.remember(place / "checked-photos.txt", ["a" * 64] * 999),
}
APPENDS = ("checked",)  # what is left of a line there is no hash, and counts for nothing


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refused(write, place: Path, made: Path) -> str:
    with pytest.raises(UserError) as error:
        write(place, made)
    message = str(error.value)
    assert "\n" not in message and str(place) in message
    return message


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("limit", [0, 100, 2_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, made, kind, limit):
    with full(limit):
        message = refused(WRITERS[kind], tmp_path, made)
    assert "too large" in message.lower() or "cannot be written" in message
    if kind not in APPENDS:
        left = {name: len(content) for name, content in contents(tmp_path).items()}
        assert not {name for name in left if not name.endswith("about.json")}, left  # which says what the folder is for


@pytest.mark.parametrize("kind", ["text", "json", "table", "options", "picture", "checkpoint", "questions", "marked"])
def test_what_was_there_before_is_untouched(tmp_path, made, kind):
    WRITERS[kind](tmp_path, made)
    before = contents(tmp_path)
    assert before
    for limit in (0, 100, 2_000):
        with full(limit):
            refused(WRITERS[kind], tmp_path, made)
        assert contents(tmp_path) == before
    if kind == "checkpoint":
        assert whole_directory(tmp_path / "state") == tmp_path / "state"


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_in_the_place_of_the_folder(tmp_path, made, kind):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    refused(WRITERS[kind], tmp_path / "file", made)
    assert contents(tmp_path) == {"file": b"mine"}


NOBODY = """
import json, os, sys
from pathlib import Path
from common.errors import UserError
from test_disk_full import WRITERS

place, made, warm = map(Path, sys.argv[1:])
for kind, write in WRITERS.items():  # what is imported on the way may lie where nobody may read
    write(warm / kind, made)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for kind, write in WRITERS.items():
    try:
        write(place, made)
        print(json.dumps([kind, "written"]))
    except UserError as error:
        print(json.dumps([kind, f"refused {error}"]))
    except Exception as error:
        print(json.dumps([kind, f"{type(error).__name__} {error}"]))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_without_permission(made):
    """Root may write everywhere, so a process that is nobody tries, in a folder that only root may write. Not a fork:
    the threads that torch has started here are missing there, and it would wait for them."""
    with tempfile.TemporaryDirectory() as name:
        place, readable, warm = (Path(name) / part for part in ("mine", "made", "warm"))
        place.mkdir()
        shutil.copytree(made, readable)
        for kind in WRITERS:
            (warm / kind).mkdir(parents=True)
        for path in (Path(name), place, readable):
            path.chmod(0o555)
        done = run(sys.executable, "-c", NOBODY, place, readable, warm, cache=warm, more=ROOT / "tests")
        assert done.returncode == 0, done.stderr
        told = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
        assert set(told) == set(WRITERS)
        assert all(said.startswith("refused") and str(place) in said for said in told.values()), told
        assert not contents(place)


TRAINING = """
import json, resource, sys
from common.config import parse
from common.errors import UserError, command
from vqa.options import TrainVqaOptions
from vqa.train import train

hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in json.loads(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    small = "--epochs 1 --width 8 --workers 0 --batch-size 8 --train-encoder all --segmentation syllable".split()
    try:
        train(parse(TrainVqaOptions, ["--data", sys.argv[1], "--output", f"{sys.argv[2]}/{limit}", *small]))
        print(json.dumps([limit, "whole"]))
    except UserError as error:
        print(json.dumps([limit, str(error)]))
"""


def run(*arguments: object, cache: Path, more: Path = ROOT) -> subprocess.CompletedProcess:
    path = os.pathsep.join(map(str, (ROOT, more)))
    environment = os.environ | {"HOIANH_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [str(argument) for argument in arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=900
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, dict[int, str]]:
    """Runs for which the disk was full sooner and later, and one with room: what each said."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_shapes(folder / "data", train=8, validation=2, test=2, size=32)
    limits = json.dumps([100, 2_000, 30_000, 10**9])
    done = run(sys.executable, "-c", TRAINING, data, folder, limits, cache=folder / "cache")
    assert done.returncode == 0, done.stderr
    return folder, dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


def test_a_full_disk_leaves_no_lock_in_the_repository(tmp_path, monkeypatch):
    """A run notes the commit of its code; git writes its index when it is asked for changes, and finds no room."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    code = tmp_path / "common" / "runs.py"
    code.parent.mkdir()
    code.write_text("a" * 5_000, encoding="utf-8")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for step in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "a"]):
        subprocess.run([*git, *step], check=True)
    os.utime(code)  # so that the index is out of date
    monkeypatch.setattr(runs, "__file__", str(code))
    with full(0):
        runs._commit()
    assert not (tmp_path / ".git" / "index.lock").exists()


def test_a_run_on_a_full_disk_stops_with_a_line(trained):
    folder, said = trained
    assert said.pop(10**9) == "whole"
    for limit, message in said.items():
        assert "cannot be written" in message and str(folder) in message and "\n" not in message
        assert not (folder / str(limit) / "metrics.json").exists()  # nobody takes it for finished
        assert not list((folder / str(limit)).rglob("*.new"))


PYVI = """
from common.errors import command
from vqa.text import segment

@command
def main():
    segment("món này là món gì")

main()
"""


def test_no_room_for_pyvis_model(tmp_path):
    """The library unpacks it into the temporary folder."""
    (tmp_path / "main.py").write_text(PYVI, encoding="utf-8")
    done = run("bash", "-c", f"ulimit -f 1; {sys.executable} -B {tmp_path / 'main.py'}", cache=tmp_path)
    assert done.returncode == 2 and "segmentation pyvi: its model cannot be written" in done.stderr, done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that nobody may write to is needed")
def test_scoring_with_no_room_for_its_output_ends_with_exit_code_2(trained):
    folder, _ = trained
    run_directory = folder / str(10**9)
    done = run(
        sys.executable,
        "scripts/evaluate.py",
        run_directory,
        "--workers",
        0,
        "--output",
        "/proc/s.json",
        cache=folder / "cache",
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("evaluate.py: error: /proc/s.json: cannot be written")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/tmp/x"),
        FileNotFoundError("No usable temporary directory found"),
    ],
)
def test_a_library_that_finds_no_room(error, capsys):
    """Such as torch, which needs a temporary folder to be imported."""

    @command
    def main():
        raise error

    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.count("\n") == 1 and "make room, or set TMPDIR" in said


def test_a_path_longer_than_any(capsys):
    @command
    def main():
        Path("/tmp/" + "a" * 5_000).mkdir()

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "File name too long (/tmp/aaa" in said and len(said) < 400 and "make room" not in said


def test_another_os_error_is_a_defect(capsys):
    @command
    def main():
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file"):
        main()


def test_features_are_found_again_after_the_disk_was_full(tmp_path, made, monkeypatch):
    """What was whole before is kept, the rest is made."""
    monkeypatch.setattr(features, "_SHARD_BYTES", 1)
    with full(2_000):
        refused(fill_features, tmp_path, made)
    fill_features(tmp_path, made)
    (folder,) = (tmp_path / "features").iterdir()
    store = FeatureStore(folder)
    assert all((content_hash(path), 0) in store for path in made.glob("*.png"))
