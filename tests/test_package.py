"""The house as a whole: who may import whom, thin scripts, configurations that are accepted, and what a wheel holds."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from common.config import parse
from vqa.options import TrainVqaOptions

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("common", "vqa", "video")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FORBIDDEN = {"common": {"vqa", "video"}, "vqa": {"video"}, "video": {"vqa"}}
SCRIPTS = ["train_vqa.py", "evaluate.py", "predict_vqa.py", "baseline_vqa.py", "run_study.py"]
SCRIPTS += ["train_video.py", "predict_video.py", "show_leak.py", "extract_features.py", "compare_runs.py"]
SCRIPTS += ["count_parameters.py", "train_letters.py", "prepare_data.py", "benchmark.py"]
SCRIPTS += ["export.py", "train_image.py", "predict_image.py", "evaluate_encoder.py", "evaluate_attention.py"]
SCRIPTS += ["demo.py"]
MOST_LINES = 26  # of a script


def imports(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0] if not node.level else path.parent.name)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            found |= {arg.value.split(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_do_not_open_into_each_other(package):
    files = [path for path in MODULES if path.relative_to(ROOT).parts[0] == package]
    assert files
    wrong = {path.name: imports(path) & FORBIDDEN[package] for path in files}
    assert not {name: names for name, names in wrong.items() if names}


def test_scripts_only_parse_and_call():
    scripts = sorted((ROOT / "scripts").glob("*.py"))
    assert set(SCRIPTS) <= {path.name for path in scripts}
    for path in scripts:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MOST_LINES, path.name
        tree = ast.parse(text)
        defined = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        assert defined == ["main"], path.name
        loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While | ast.Try)]
        assert not loops, path.name


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_torch(script):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['scripts/{script}', '--help']\n"
        "try:\n"
        f"    runpy.run_path('scripts/{script}', run_name='__main__')\n"
        "except SystemExit as left:\n"
        "    assert not left.code, left.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'gradio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout and "examples:" in result.stdout and "--" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="tells no processor time of children")
@pytest.mark.parametrize("script", ["train_vqa.py", "train_video.py", "benchmark.py"])
def test_help_answers_at_once(script):
    """Within 3 s even where other work shares the machine: by processor time, which does not count waiting."""
    import resource

    def spent() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = spent()
    subprocess.run([sys.executable, f"scripts/{script}", "--help"], cwd=ROOT, check=True, capture_output=True)
    assert spent() - before < 3


def test_libraries_that_only_some_need_are_not_imported():
    code = (
        "import sys, vqa, video, vqa.train, video.train\n"
        "heavy = {'matplotlib', 'gradio', 'deepspeed', 'webdataset'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "config", sorted((ROOT / "configs" / "vqa").glob("*.yaml")), ids=lambda path: getattr(path, "name", "none")
)
def test_configurations_are_accepted(config):
    options = parse(TrainVqaOptions, ["--config", str(config)])
    assert options.output is None  # whoever runs it says where, else a second run would be refused
    assert config.read_text(encoding="utf-8").startswith("#")  # what it is for, and what to expect


def test_no_file_knows_a_machine():
    """No absolute path of somebody's machine in what we ship."""
    path = re.compile(r"(?<![\w./~$}])/(?:home|Users|root|workspace|work|mnt|tmp/\w)(?:/|\b)|\b[A-Z]:\\\\?Users")
    places = [
        *MODULES,
        *(ROOT / "common" / "templates").iterdir(),
        *(ROOT / "scripts").glob("*.py"),
        *(ROOT / "configs").rglob("*.yaml"),
        ROOT / "pyproject.toml",
    ]
    places += [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob(".github/**/*.yml")]
    found = [
        f"{place.relative_to(ROOT)}:{number}: {line.strip()}"
        for place in places
        for number, line in enumerate(place.read_text(encoding="utf-8").splitlines(), start=1)
        if path.search(line)
    ]
    assert not found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """A wheel built from a copy, so that the build leaves nothing in the working tree."""
    copy, out = tmp_path_factory.mktemp("source") / "project", tmp_path_factory.mktemp("dist")
    tool = {"runs", "build", "dist", "__pycache__", ".git", ".venv", "venv"}
    shutil.copytree(ROOT, copy, ignore=lambda _, names: [n for n in names if n in tool or n.endswith(".egg-info")])
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--quiet", "--wheel-dir", str(out)]
    if importlib.util.find_spec("setuptools") is not None:
        command.append("--no-build-isolation")
    result = subprocess.run(command, cwd=copy, capture_output=True, text=True, encoding="utf-8")
    offline = re.search(r"connection|network|resolve|No matching distribution", result.stderr, re.IGNORECASE)
    if result.returncode and offline:
        pytest.skip(f"setuptools cannot be had: {result.stderr.splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_a_wheel_installs_three_packages_and_nothing_else(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)


def test_a_wheel_holds_every_module(wheel):
    inside = {name for name in wheel.namelist() if name.endswith(".py")}
    assert inside == {path.relative_to(ROOT).as_posix() for path in MODULES}


def test_a_wheel_holds_the_templates_of_reports(wheel):
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "common" / "templates").iterdir()}
    assert len(templates) == 3 and templates == {name for name in wheel.namelist() if name.endswith(".j2")}
