"""Options: defaults, then YAML, then the command line; anything else is refused by name."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from common.config import options, parse, positional, read_yaml, write_options
from common.errors import UserError
from video.options import TrainVideoOptions
from vqa.options import TrainVqaOptions


@options
class Shared:
    """shared part"""

    epochs: Annotated[int, Field(ge=1)] = 3
    """passes over the data"""
    fast: bool = False
    """go faster"""


@options
class Options(Shared):
    """A command.

    examples:
      command --epochs 4
    """

    config: str | None = None
    """file"""
    rate: float = 0.5
    """step"""
    way: Literal["up", "down"] = "up"
    """where to"""
    names: tuple[str, ...] = ()
    """some names"""
    most: int | None = None
    """a limit"""


def test_later_sources_win(tmp_path):
    path = tmp_path / "o.yaml"
    path.write_text("epochs: 7\nrate: 1e-3\nnames: [a, b]\nfast: true\n", encoding="utf-8")
    read = parse(Options, ["--config", str(path), "--epochs", "9", "--no-fast"])
    assert (read.epochs, read.rate, read.names, read.fast, read.most) == (9, 1e-3, ("a", "b"), False, None)


def test_none_can_be_said_on_the_command_line(tmp_path):
    path = tmp_path / "o.yaml"
    path.write_text("most: 7\n", encoding="utf-8")
    assert parse(Options, ["--config", str(path), "--most", "none"]).most is None


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--epoch", "3"], "did you mean --epochs"),
        (["--epochs", "0"], "--epochs '0'"),
        (["--rate", "quick"], "--rate 'quick'"),
        (["--way", "left"], "'up' or 'down'"),
        (["--most"], "--most"),
    ],
)
def test_bad_command_line_is_refused_by_name(arguments, says):
    with pytest.raises(UserError, match=says):
        parse(Options, arguments)


@pytest.mark.parametrize(
    "text, says",
    [
        ("epoch: 3\n", "unknown option 'epoch'; did you mean 'epochs'.*allowed: config, epochs"),
        ("epochs: many\n", "--epochs 'many'"),
        ("- epochs\n", "not a list"),
        ("epochs: [1\n", "line 2: is not valid YAML"),
        ("!!python/object/apply:os.system ['true']\n", "is not valid YAML"),
    ],
)
def test_bad_yaml_is_refused_with_its_file(tmp_path, text, says):
    path = tmp_path / "o.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"o.yaml.*{says}"):
        parse(Options, ["--config", str(path)])


def test_yaml_that_is_missing_or_not_text(tmp_path):
    with pytest.raises(UserError, match="nowhere.yaml: cannot be read"):
        read_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "o.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_yaml(tmp_path / "o.yaml")


def test_help_is_documentation(capsys):
    with pytest.raises(SystemExit):
        parse(Options, ["--help"])
    text = capsys.readouterr().out
    assert "passes over the data (default: 3)" in text and "shared part" in text and "command --epochs 4" in text


def test_positional():
    @options
    class Place:
        """p"""

        where: str = positional()
        """a place"""

    assert parse(Place, ["here"]).where == "here"


def test_options_survive_a_round_trip(tmp_path):
    """What a run writes as config.yaml reads back as the same options."""
    before = parse(
        TrainVqaOptions, ["--no-attention", "--learning-rate", "3e-4", "--stages", "a", "b", "--data", "ảnh"]
    )
    write_options(tmp_path / "config.yaml", before, header="task: vqa")
    after = parse(TrainVqaOptions, ["--config", str(tmp_path / "config.yaml")])
    after.config = None
    assert after == before


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--resume", "--overwrite", "--output", "x"], "holds no run|give one of them"),
        (["--views", "3"], "needs --augment"),
        (["--augment", "flip", "--weights", "f.safetensors"], "needs cached views"),
        (["--columns", "question"], "OURS=THEIRS"),
        (["--encoder", "resnet19"], "did you mean 'resnet18'"),
    ],
)
def test_options_that_do_not_go_together(arguments, says):
    with pytest.raises(UserError, match=says):
        parse(TrainVqaOptions, arguments)


def test_the_help_of_a_field_that_a_command_declares_anew_is_its_own(capsys):
    with pytest.raises(SystemExit):
        parse(TrainVideoOptions, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "what training views of a clip vary" in text and "bên trái" not in text
