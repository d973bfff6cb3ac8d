"""What `--help` promises: examples that the command accepts, and completion that a shell accepts."""

import contextlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from page_commands import options_of

from common.config import parse
from common.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


def examples(cls: type) -> list[list[str]]:
    """The words of each example in a command's help, without a comment after it."""
    told = (cls.__doc__ or "").partition("examples:")[2]
    return [shlex.split(line, comments=True) for line in told.splitlines() if line.strip()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_examples_are_accepted(script, tmp_path, monkeypatch, capsys):
    """Each by the options of the script that it names; whether there are such data is another matter."""
    told = examples(options_of(script))
    assert told
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").write_text("epochs: 3\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for words in told:
        place = next(number for number, word in enumerate(words) if word.startswith("scripts/"))
        assert words[0] in ("python", "accelerate", "torchrun") or "=" in words[0], words
        leaves = pytest.raises(SystemExit) if words[-1] == "--help" else contextlib.nullcontext()
        try:
            with leaves:
                parse(options_of(words[place].removeprefix("scripts/")), words[place + 1 :])
        except UserError as error:
            pytest.fail(f"{shlex.join(words)}: {error}")
    assert not capsys.readouterr().err


def test_what_must_be_given_is_marked(capsys):
    with pytest.raises(SystemExit):
        parse(options_of("predict_vqa.py"), ["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--run RUN run directory, or (but for --examples) a checkpoint directory (required)" in told


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize("script", ["train_vqa.py", "evaluate.py"])
def test_bash_completes_options_values_and_files(script, run_script, tmp_path):
    pytest.importorskip("shtab")
    (tmp_path / "complete.bash").write_text(run_script(f"scripts/{script}", "--print-completion", "bash").stdout)
    (tmp_path / "ảnh.csv").touch()
    asked = "source complete.bash; name=$(complete -p $1 | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); shift\n"
    asked += 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); $name; echo "${COMPREPLY[@]}"'

    def completed(*words: str) -> list[str]:
        command = ["bash", "-c", asked, "bash", script, f"scripts/{script}", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == 0 and not done.stderr
        return done.stdout.split()

    assert completed("--allow-l") == ["--allow-leaky-split"]
    assert completed("--on-bad-image", "") == ["fail", "skip"]
    assert completed("--data", "ả") == ["ảnh.csv"]


def test_completion_of_an_unknown_shell_is_refused():
    with pytest.raises(UserError, match="--print-completion.*'fsh'.*bash"):
        parse(options_of("train_vqa.py"), ["--print-completion", "fsh"])


def test_completion_without_shtab_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(UserError, match="pip install"):
        parse(options_of("train_vqa.py"), ["--print-completion", "bash"])
