"""What the project promises about itself: who cites, reads the changelog or sets up the hooks finds what is there."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["title"] and citation["authors"]
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


def test_the_changelog_tells_of_this_version():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert any(name == "Unreleased" or name.split()[0].strip("[]") == PROJECT["version"] for name in headings)


def extra(name: str) -> set[str]:
    """The packages of an extra, with those of the extras it names."""
    found: set[str] = set()
    for needed in PROJECT["optional-dependencies"][name]:
        inner = re.fullmatch(r"hoianh\[(\w+)\]", needed)
        found |= extra(inner[1]) if inner else {re.split(r"[<>=!~\[; ]", needed)[0].lower()}
    return found


def test_hooks_run_what_the_extra_dev_installs():
    told = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in told["repos"] for hook in repository["hooks"]]
    assert {hook["entry"].split()[0] for hook in hooks} == {"ruff", "mypy"} <= extra("dev")
    assert "pre-commit" in extra("dev")
    assert all(hook["language"] == "system" for hook in hooks)  # nothing is downloaded


def test_ci_runs_what_the_hooks_check():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    checks = ["ruff check .", "ruff format --check .", "mypy"]
    assert [line for line in lines if line in checks] == checks
    assert any(line.startswith("pip install") and ".[dev]" in line for line in lines)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md"])
def test_files_that_are_named_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = set(re.findall(r"`(?:pytest )?((?:[\w.]+/)+[\w.]*)`?", text)) | set(re.findall(r"\]\(([^)#:]+)\)", text))
    paths |= set(re.findall(r"`([\w.-]+\.(?:toml|cff|md|yaml))`", text))
    assert {"common/zoo.py", "vqa/attention.py", ".ci/run", "tests/test_text.py"} <= paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
