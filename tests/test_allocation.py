"""Memory that was freed is there for the next step, without the system having to clear it again."""

import os
import subprocess
import sys

import pytest

from common import allocation

STEPS = """
import resource, sys, torch
from common.allocation import keep_freed_memory

kept = "keep" in sys.argv and keep_freed_memory()

def step():
    for megabytes in (40, 3, 0.5):
        torch.ones(int(megabytes * 2**18))  # of fp32

for _ in range(5):  # until the heap has found its shape
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments, **environment):
    """Whether the C library was told, and how often the system had to find pages for ten steps."""
    plain = {name: value for name, value in os.environ.items() if name not in allocation._SETTINGS}
    command = [sys.executable, "-c", STEPS, *arguments]
    result = subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=True)
    return tuple(map(int, result.stdout.split()))


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_what_is_freed_is_kept_for_the_next_step():
    told, kept = faults("keep")
    if not told:
        pytest.skip("another C library")
    _, handed_back = faults()
    assert kept * 5 < handed_back


@pytest.mark.parametrize("name", allocation._SETTINGS)
def test_settings_of_the_environment_stand(monkeypatch, name):
    monkeypatch.setenv(name, "glibc.malloc.trim_threshold=1000" if name == "GLIBC_TUNABLES" else "1000")
    monkeypatch.setattr(allocation.ctypes, "CDLL", None)  # not even asked
    assert not allocation.keep_freed_memory()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch, platform):
    for name in allocation._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocation.sys, "platform", platform)
    monkeypatch.setattr(allocation.ctypes, "CDLL", None)
    assert not allocation.keep_freed_memory()


def test_a_c_library_without_it_is_left_alone(monkeypatch):
    for name in allocation._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocation.sys, "platform", "linux")
    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: object())
    assert not allocation.keep_freed_memory()
