"""What docs/security.md says: every test that it names exists, and the sources hold nothing that could run a file."""

import ast
import re
import tomllib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SOURCES = sorted(path for room in ("common", "vqa", "video", "scripts") for path in (ROOT / room).glob("*.py"))


def test_every_promise_names_a_test_that_exists():
    rows = [line for line in PAGE.partition("## Promises")[2].partition("## Trying it")[0].splitlines() if "|" in line][
        2:
    ]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/\w+\.py)::(\w+)`", row.split("|")[-2])
        assert named, row
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert test in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], f"{file}::{test}"


def calls(path: Path) -> list[tuple[str, dict[str, object], int]]:
    """What a file calls: dotted name, keywords that are constants, line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            keywords = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            found.append((ast.unparse(node.func), keywords, node.lineno))
    return found


def test_nothing_in_the_sources_could_run_a_file():
    refused = {"eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "yaml.load", "yaml.unsafe_load"}
    refused |= {"yaml.full_load", "joblib.load", "marshal.loads", "shelve.open", "os.system", "torch.jit.load"}
    seen = 0
    for path in SOURCES:
        for name, keywords, line in calls(path):
            seen += 1
            assert name not in refused, f"{path.name}:{line}: {name}"
            assert not keywords.get("trust_remote_code"), f"{path.name}:{line}: {name}"
            assert not keywords.get("shell"), f"{path.name}:{line}: {name}"
            if name == "torch.load":
                assert keywords.get("weights_only") is True, f"{path.name}:{line}"
            if name.endswith("np.load"):
                assert not keywords.get("allow_pickle"), f"{path.name}:{line}"
    assert seen > 1000


def test_warnings_of_ours_are_errors_and_versions_have_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = [name for name in project["tool"]["setuptools"]["packages"]]
    filters = project["tool"]["pytest"]["ini_options"]["filterwarnings"]
    assert all(any(entry.startswith("error") and room in entry for entry in filters) for room in rooms)
    assert all(">=" in entry for entry in project["project"]["dependencies"])
    for bound in re.findall(r"`(\w+<\d+)`", PAGE.partition("## Versions")[2]):
        name, _, version = bound.partition("<")
        assert any(
            entry.startswith(f"{name}>") and entry.endswith(f"<{version}")
            for entry in project["project"]["dependencies"]
        )


def test_a_warning_of_ours_is_an_error_here():
    for module in ("common.images", "vqa.text", "video.decode"):
        with pytest.raises(UserWarning):
            warnings.warn_explicit("ours", UserWarning, "file.py", 1, module=module)
    with warnings.catch_warnings(record=True):
        warnings.warn_explicit("theirs", UserWarning, "file.py", 1, module="torch.nn")
