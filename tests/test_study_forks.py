"""Runs as forks of a process with the libraries imported: what they say, how they end, and that they are ended."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from common.study_forks import Forks, can_fork

pytestmark = pytest.mark.skipif(not can_fork(), reason="no forkserver here, or a GPU beside it")

SCRIPT = """
import multiprocessing, os, sys, time
print("said", sys.argv[1:], __name__, multiprocessing.get_start_method(), "torch" in sys.modules, flush=True)
print("complained", file=sys.stderr, flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    forks = Forks(os.environ)

    def start(*arguments: str):
        with open(tmp_path / "log", "ab") as log:
            return forks.start(tmp_path / "script.py", arguments, log), tmp_path / "log"

    return start


def ended(fork, seconds: float = 60) -> int:
    until = time.monotonic() + seconds
    while fork.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    return fork.returncode


def test_a_fork_is_like_a_process(start):
    environment = dict(os.environ)
    fork, log = start("3", "more")
    assert ended(fork) == 3 and os.environ == environment
    said, complained = log.read_text(encoding="utf-8").splitlines()
    assert (
        said.startswith(f"said ['3', 'more'] __main__ {multiprocessing.get_start_method()} ")
        and said.endswith(" True")
        and complained == "complained"
    )
    again, _ = start("0")
    assert ended(again) == 0 and len(log.read_text(encoding="utf-8").splitlines()) == 4


def test_a_fork_is_ended_with_its_group_and_alone(start):
    fork, log = start("wait")
    while not (log.exists() and b"complained" in log.read_bytes()):
        time.sleep(0.02)
        assert fork.poll() is None
    assert os.getpgid(fork.pid) == fork.pid != os.getpgid(0)
    os.killpg(fork.pid, signal.SIGTERM)
    assert ended(fork, 10) == -signal.SIGTERM


def test_a_study_ended_in_its_first_seconds_leaves_no_run_behind(tmp_path):
    """The server still imports: a fork that it makes afterwards sees that nobody waits for it."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "datasets.py").write_text("raise SystemExit('a file that is called like a library')", encoding="utf-8")
    (tmp_path / "study.py").write_text(
        "import os\nfrom pathlib import Path\nfrom common.study_forks import Forks\n"
        "if __name__ == '__main__':\n"
        "    print('starts', flush=True)\n"
        "    fork = Forks(os.environ).start(Path('script.py'), ['0'], open('log', 'ab'))\n"
        "    while fork.poll() is None:\n        pass\n"
        "    print('ended', fork.returncode)\n",
        encoding="utf-8",
    )
    study = subprocess.Popen([sys.executable, "study.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert study.stdout.readline() == "starts\n"
    time.sleep(0.7)
    study.send_signal(signal.SIGTERM)
    study.wait()
    assert study.returncode == -signal.SIGTERM
    whole = subprocess.run([sys.executable, "study.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert whole.stdout == "starts\nended 0\n", whole.stderr
    said = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert len(said) == 2 and said[0].startswith("said ['0']")  # of the second alone, which took longer to start
