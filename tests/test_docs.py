"""The pages under docs/: the messages, links and options they quote are there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("data.md", "own-data.md", "errors.md", "measured.md", "../README.md")


def told(node: ast.AST) -> str:
    """A string of the sources as the page writes it: … for what is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(told(part) for part in node.values)
    return told(node.left) + told(node.right) if isinstance(node, ast.BinOp) else "…"


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """What the sources may raise as a `UserError`."""
    found = []
    for package in ("common", "vqa", "video"):
        for path in (ROOT / package).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
                if name in ("UserError", "TooLarge") and node.args:
                    found.append(told(node.args[0]))
    return found


def test_every_quoted_message_is_in_the_sources(messages):
    headings = re.findall(r"^### (.*)$", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) > 35
    for heading in headings:
        quoted = re.fullmatch(r"`(.+)`", heading)
        assert quoted, heading
        # A … of the page may be a word that the sources fill in, or a message that they carry on from another.
        pattern = ".*".join(map(re.escape, re.split(r" ?… ?", quoted[1])))
        assert any(re.fullmatch(pattern, message, re.DOTALL) for message in messages), heading
        assert len(quoted[1].replace("…", "").strip(" .:,;")) > 10, f"{heading} would fit nearly anything"


@pytest.mark.parametrize("name", PAGES)
def test_links_of_the_pages_lead_somewhere(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert "://" in link or ((ROOT / "docs" / name).parent / link).exists(), link
    for path in re.findall(r"`((?:scripts|common|vqa|video|configs|tests)/[\w/.]+\.\w+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", PAGES)
def test_options_of_the_pages_exist(name):
    """Every --option that a page names is one of some command's; blocks are test_readme_commands.py's."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "common").glob("*.py"))
    sources += "\n".join(
        path.read_text(encoding="utf-8") for room in ("vqa", "video") for path in (ROOT / room).glob("*options.py")
    )
    text = re.sub(
        r"^```.*?^```$", "", (ROOT / "docs" / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    text = re.sub(r"`(?:accelerate launch|pytest|python -m playwright)[^`]*`", "", text)  # other people's options
    for option in set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", text)) - {"help"}:
        plain = option.removeprefix("no-").replace("-", "_")
        assert re.search(rf"^    {plain}: ", sources, re.MULTILINE), f"--{option}"
