"""Runs scripts as forks of one process that has imported the libraries: a start takes tenths of a second, not seconds.

Belongs here: that process (run as a program: requests come on standard input, exit codes go out) and the side of the
tests that asks it (`ScriptServer`). A fork is otherwise what `python scripts/NAME.py` is: its own process, folder,
environment, standard output and error; tests of starting itself (imports, launchers, threads, hash seeds) start Python.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common.study_forks import LIBRARIES


class ScriptServer:
    """Starts scripts in `folder`, with this process's environment and `environment` over it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a script to its end, as `subprocess.run` does with its output captured."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            said = [Path(folder, name) for name in ("stdout", "stderr")]
            self._process.stdin.write(json.dumps([list(arguments), *map(str, said)]) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            texts = [path.read_text(encoding="utf-8") for path in said]
        return subprocess.CompletedProcess(list(arguments), code, *texts)

    def close(self) -> None:
        """End the process, if it still runs."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def _become(arguments: list[str], stdout: str, stderr: str) -> None:
    """Be the script, in a fork: its files in place of the server's, its arguments, its folder first on the path."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in ((0, os.devnull), (1, stdout), (2, stderr)):
        file = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, number)
        os.close(file)
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).resolve().parent)
    runpy.run_path(arguments[0], run_name="__main__")


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests' own Ctrl-C ends the tests, which close standard input
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w")
    for line in requests:
        child = os.fork()
        if not child:
            requests.close()
            answers.close()
            _become(*json.loads(line))  # and leave as a script does: by its end, or by SystemExit
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
