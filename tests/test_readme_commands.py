"""Every command that the READMEs and the pages beside them print is run, on small stand-ins and for an epoch.

The rule: each line of each bash block is run here as it is printed, but for

- names that stand for something of the reader's own (`STAND_INS`),
- options behind it that make it short (`SMOKE`, by script, and `SMOKE_STUDIES`); what takes no time gets none,
- the launcher: its options are read by its own parser, and what it starts runs in this process. The first command of
  the README is really launched, and so are lines that only a shell can run; several processes are started in
  `test_processes.py` and `test_scripts_video.py`,
- studies: each is listed with `--dry-run` as printed, which checks all names, options and files; then one cell is run,
- what differs from a command that was run in nothing but where it writes and its seed: its options are read, and
- what cannot be run here (`NOT_RUN`), with the reason, and
- what does not end by itself (`SERVES`): it is started on any free port, and ended by Ctrl-C as soon as it serves.

A script or a program that no table knows is run as it is, and fails the test if that fails. Blocks of Python are run,
too. A section that needs what an earlier one leaves runs that command first.
"""

import dataclasses
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import accelerate.state
import pytest
from page_commands import ROOT, SHELL, Command, commands, options_of, sections, shlex_plain
from page_world import build_world, write_weights

from common import zoo
from common.config import flag, parse
from common.weights import imagenet_file

PAGES = ("README.md", "docs/own-data.md", "docs/measured.md", "docs/security.md")
READ_ONLY = ("docs/scaling.md", "docs/reports/r0.md", "docs/reports/r1.md", "docs/reports/r2.md")
READ_ONLY += ("docs/reports/r3.md", "docs/reports/r4.md", "docs/attention.md")

# Programs that are not run here, and why; scripts/ and modules are never among them.
NOT_RUN = {
    "git": "the address of a clone is not public yet, and tests use no network",
    "cd": "belongs to git clone",
    "pip install": ".ci/run installs into a new environment before every run of the tests",
    "pytest": "is what runs this",
    "pip-audit": "asks a database that is not here",
    "srun": "needs a cluster; the torchrun in it is read by torchrun's own parser",
}
# Scripts that serve until they are stopped: started, and stopped by Ctrl-C as soon as they serve.
SERVES = {"demo.py"}
# A word of a command, a word that is in the same command, and what it becomes: what a reader replaces by his own.
STAND_INS = (
    ("FOLDER", "train_vqa.py", "FOLDER-questions"),
    ("FOLDER", "baseline_vqa.py", "FOLDER-questions"),
    ("FOLDER", "train_image.py", "FOLDER-photos"),
    ("FOLDER", "evaluate_encoder.py", "FOLDER-named"),
    ("FOLDER", "--streaming", "FOLDER-held"),
    ("FOLDER", "demo.py", "FOLDER-named"),
    ("FOLDER", "", "FOLDER-clips"),
    ("SHARED", "", "FOLDER-questions"),
    ("heldout.csv", "runs/clips", "heldout-clips.csv"),
    ("shards/train-*.tar", "train_vqa.py", "shards-questions/train-*.tar"),
    ("shards/train-*.tar", "train_video.py", "shards-clips/train-*.tar"),
    ("resnet50=FILE", "--features", "resnet50=FILE-features/features.safetensors"),
    ("mobilenet_v2=FILE", "--features", "mobilenet_v2=FILE-features/features.safetensors"),
)
PHOTOS = "--epochs 1 --image-size 32 --workers 0"
CLIPS = f"{PHOTOS} --frames 3"
FEW = "--limit 8"  # photos of each file; a stream has no index to take them from, and a table of features no frames
# Script → options behind the command's own, so that it is short. The later of two wins.
SMOKE = {
    "train_vqa.py": lambda given: (
        f"{PHOTOS} --views 1 --augment --examples 1 " + ("--stream-steps 2" if "--streaming" in given else FEW)
    ),
    "train_video.py": lambda given: (
        "--epochs 1 --workers 0"
        if "--features" in given
        else f"{CLIPS} --examples 1 " + ("--stream-steps 2" if "--streaming" in given else "--limit 16")
    ),
    "train_image.py": lambda given: PHOTOS,
    "show_leak.py": lambda given: f"{CLIPS} --seeds 0 --views 1 --augment --examples 0",
    "extract_features.py": lambda given: "--image-size 32 --frames 3 --workers 0 --limit 16",
    "evaluate.py": lambda given: "--workers 0",
    "evaluate_attention.py": lambda given: "--workers 0 --per-type 1",
    "benchmark.py": lambda given: (
        f"--only {'d' if '--page' in given else 'c'} --encoder custom_cnn --weights none --image-size 32 --clips 2 "
        "--photos 6 --squares 7 --repeats 1"
    ),
}
# Study → the cell that is run, and what --set gives it beside one epoch.
SMALL_CLIPS = "frames=2 image_size=32 workers=0 examples=0"
SMALL_PHOTOS = "image_size=32 views=1 augment=[] workers=0 examples=0"
SMOKE_STUDIES = {
    "r2_units": ("GRU 50, official", f"{SMALL_CLIPS} hidden=8 validation_fraction=0.3", "vgg16=none"),
    "r0_rnn_lr": ("MobileNetV2, fixed lr", f"{SMALL_CLIPS} timed=1 copies=0 augment=[]", "mobilenet_v2=none"),
    "r3_letters": ("RNN", "", ""),
    "r3_transfer": ("MobileNetV2, probe", "image_size=32 views=2 workers=0", ""),
    "r4_vqa_attention": ("MobileNetV2, attention", SMALL_PHOTOS, ""),
    "shapes": ("majority per type", "limit=4", ""),
    "photo": ("majority per type", "limit=4", ""),  # of VQA's studies, one trains: they are of one script
    "parts": ("majority per type", "limit=4", ""),
    "vivqa_question": ("majority", "limit=8", ""),
    "motions": ("mean of the frames", f"{SMALL_CLIPS} limit=12", ""),
    "fight_heads": ("mean of the frames", SMALL_CLIPS, ""),
    "ucf101_vgg16_heads": ("LSTM", "workers=0 validation_fraction=0.4 examples=0", ""),
}


@pytest.fixture(scope="module")
def typed(tmp_path_factory) -> dict:
    """Page → the folder that its commands are typed in; and the commands that were run, on whatever page."""
    return {"folders": {}, "ran": set(), "root": tmp_path_factory.mktemp("typed")}


class Page:
    """A page, and the folder in which its commands are typed."""

    def __init__(self, page: str, typed: dict) -> None:
        self.sections, self.ran = sections(page), typed["ran"]
        self.folder = typed["folders"].get(page)
        if self.folder is None:
            self.folder = typed["folders"][page] = build_world(typed["root"] / Path(page).stem)

    def blocks(self, language: str):
        return [(heading, text) for heading, found in self.sections.items() for kind, text in found if kind == language]

    def run_section(self, heading: str) -> None:
        for language, text in self.sections[heading]:
            if language == "python":
                self.need(re.findall(r'"((?:runs|shared)/[\w-]+)', text))
                exec(compile(text, heading, "exec"), {"__name__": "__main__"})
            elif language == "bash":
                for command in commands(text):
                    self.run(command)

    def need(self, words: list[str]) -> None:
        """Run what makes these, where an earlier section should have."""
        for word in words:
            made = re.match(r"(?:runs|data|shared|shapes)(?:/[\w-]+)?", word)
            if made and not (self.folder / made[0]).exists():
                makers = [c for _, text in self.blocks("bash") for c in commands(text) if output_of(c) == made[0]]
                assert makers, f"{word} is made by no command of the page"
                self.run(makers[0], needed=True)

    def run(self, command: Command, *, needed: bool = False) -> None:
        if SHELL.search(shlex_plain(command.text)) or command.text in REALLY_LAUNCHED:
            run_in_shell(command.text, self.folder)
            return
        if command.program in NOT_RUN:
            if command.program == "srun":
                for inner in commands(re.sub(r"\$\(.*?\)|\$\w+", "0", command.words[-1].replace("\\\n", " "))):
                    check_inner(inner)
            return
        command.check_launcher()
        words = [stand_in(word, command.words) for word in command.arguments]
        if command.program.startswith("python -m"):
            run_here(command.program.split()[-1], words, module=True)
            return
        if command.program in SERVES:
            if "runs/STUDY" in words and not Path("runs/STUDY").exists():
                study = (
                    "configs/studies/vivqa_question.yaml --data FOLDER-questions --only majority --output runs/STUDY"
                )
                run_here("run_study.py", study.split())
            self.need(words)
            serve(command.program, words)
            return
        output = output_of(command)
        self.need([word for word in words if word != output])
        options = parse(options_of(command.program, *words), words)
        same = (command.program, *without_place_and_seed(words))
        if "FIRST" in command.words or (same in self.ran and not needed):
            return
        self.ran.add(same)
        if command.program == "run_study.py":
            self.run_study(words, options)
            return
        short = SMOKE[command.program](words).split() if command.program in SMOKE else []
        run_here(command.program, [*words, *short])
        assert output is None or Path(output).exists(), f"{command.text} left no {output}"

    def run_study(self, words: list[str], options) -> None:
        study = Path(options.study).stem
        if not options.dry_run:
            run_here("run_study.py", [*words, "--dry-run"])
        if options.dry_run or ("study", study) in self.ran:
            return
        assert study in SMOKE_STUDIES, f"{study}: name a cell in SMOKE_STUDIES"
        self.ran.add(("study", study))
        cell, values, weights = SMOKE_STUDIES[study]
        short = ["--only", cell, "--seeds", "0", "--set", *values.split()]
        short += [] if cell.startswith("majority") else ["epochs=1"]
        short += ["--weights", weights] if weights else []
        run_here("run_study.py", [*words, *short, "--output", f"runs/short-{study}"])
        assert (self.folder / "runs" / f"short-{study}" / "report.html").is_file()


REALLY_LAUNCHED = ("pip install -e . && accelerate launch scripts/train_vqa.py --attention",)


def output_of(command: Command) -> str | None:
    """What a command says it writes."""
    words = command.words
    if words[:3] == ("python", "-m", "vqa.shapes"):
        return words[3]
    return words[words.index("--output") + 1] if "--output" in words else None


def stand_in(word: str, words: tuple[str, ...]) -> str:
    said = [Path(other).name if other.startswith("scripts/") else other for other in words]
    return next((new for old, beside, new in STAND_INS if word == old and (not beside or beside in said)), word)


def without_place_and_seed(words: list[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if word.startswith("--"):
            skip = word in ("--output", "--seed")
        if not skip:
            kept.append(word)
    return kept


def run_here(name: str, words: list[str], *, module: bool = False) -> None:
    """Run a script, or a module, as if it were started, but in this process: importing PyTorch takes seconds."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    before = sys.argv, list(sys.path)
    sys.argv = [name if module else f"scripts/{name}", *words]
    code: object = 0
    imported = sys.modules.pop(name, None) if module else None  # or runpy warns that it is there already
    try:
        if module:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    except SystemExit as left:
        code = left.code or 0
    finally:
        sys.argv, sys.path[:] = before
        if imported is not None:
            sys.modules[name] = imported
    assert code == 0, f"{name} {shlex.join(words)}: left with {code}"


def serve(name: str, words: list[str]) -> None:
    pytest.importorskip("gradio")
    command = [sys.executable, "-u", "-X", "faulthandler", str(ROOT / "scripts" / name), *words, "--port", "0"]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf-8"}
    with subprocess.Popen(command, **told) as process:
        said: list[str] = []
        late = threading.Timer(240, process.send_signal, [signal.SIGABRT])  # one that stands still says where
        late.start()
        try:
            for line in process.stdout or ():
                said.append(line)
                if "http://127.0.0.1:" in line:
                    process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0 and any("http://" in line for line in said), "".join(said)
        finally:
            late.cancel()
            process.kill()


def run_in_shell(text: str, folder: Path) -> None:
    """A line as it is, by bash, with the programs of this Python; `pip install` is left out, and training is short."""
    text = text.partition("&& ")[2] if text.startswith("pip install") else text
    if text in [line.partition("&& ")[2] for line in REALLY_LAUNCHED]:
        text += " " + SMOKE["train_vqa.py"]([])
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    given = os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", text], cwd=folder, env=given, capture_output=True, text=True, encoding="utf-8"
    )
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, text + ended.stdout + ended.stderr


def check_inner(command: Command) -> None:
    command.check_launcher()
    parse(options_of(command.program), [stand_in(word, command.words) for word in command.arguments])


@pytest.fixture
def page(request, typed, monkeypatch):
    """The page named, with its folder as the working directory."""
    weights, find = typed["root"] / "weights", imagenet_file

    def random_weights(name: str) -> Path:
        if zoo.describe(name).weights is None:
            return find(name)  # which refuses it
        path = weights / f"{name}.safetensors"
        return path if path.is_file() else write_weights(path, name)

    for room in ("weights", "encoders", "heads"):
        monkeypatch.setattr(f"common.{room}.imagenet_file", random_weights)
    monkeypatch.setattr("common.hub.HfApi", Hub)
    monkeypatch.setattr("common.hub.get_token", lambda: "token")
    monkeypatch.setenv("HOIANH_CACHE", str(typed["root"] / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = Page(request.param, typed)
    monkeypatch.chdir(made.folder)
    return made


class Hub:
    """The part of the Hub that `export.py --to hub` talks to; `test_export.py` looks at what it is sent."""

    def __init__(self, token=None) -> None:
        pass

    def create_repo(self, name, **_):
        return f"https://huggingface.co/{name}"

    def upload_folder(self, *, repo_id, folder_path):
        assert (Path(folder_path) / "README.md").is_file()


@pytest.mark.parametrize(
    ("page", "heading"), [(page, heading) for page in PAGES for heading in sections(page)], indirect=["page"]
)
def test_commands_of_a_section(page, heading):
    page.run_section(heading)


def test_commands_within_sentences_can_be_typed():
    """They have scripts that are there, and options that these know."""
    count = 0
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "reports").glob("*.md")]:
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for command in re.findall(r"`((?:python|scripts/)[^`]* [^`]*)`", text):
            words = shlex.split(command)
            file = next((ROOT / word for word in words if word.endswith(".py")), None)
            if file is None:
                continue
            assert file.is_file(), f"{path.name}: {command}"
            if file.parent.name == "scripts":
                known = {flag(name) for name in options_of(file.name, *words[2:]).__pydantic_fields__} | {"--help"}
                known |= {"--no-" + name[2:] for name in known} | {"--config", "--print-completion"}
            else:
                known = set(re.findall(r"--[\w-]+", file.read_text(encoding="utf-8")))
            assert {word for word in words if word.startswith("--")} <= known, f"{path.name}: {command}"
            count += 1
    assert count >= 5


@pytest.mark.parametrize("name", READ_ONLY)
def test_commands_of_reports_can_be_read(name, tmp_path, monkeypatch):
    """Those of other pages take hours; their options, launchers and configurations are read."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    count = 0
    for blocks in sections(name).values():
        for language, text in blocks:
            for command in commands(text) if language == "bash" else ():
                if command.program.endswith(".py") and not SHELL.search(shlex_plain(command.text)):
                    command.check_launcher()
                    words = [stand_in(word, command.words) for word in command.arguments]
                    assert dataclasses.is_dataclass(parse(options_of(command.program, *words), words))
                    count += 1
    assert count
