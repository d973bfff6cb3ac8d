"""Memory that was freed is there for the next step, without the system having to clear it again."""

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from common import allocation, training

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


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in allocation._SETTINGS:
        monkeypatch.delenv(name, raising=False)


def faults(*arguments):
    """Whether the C library was told, and how often the system had to find pages for ten steps."""
    command = [sys.executable, "-c", STEPS, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(map(int, result.stdout.split()))


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_what_is_freed_is_kept_for_the_next_step():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another C library")
    told, kept = faults("keep")
    assert told
    _, handed_back = faults()
    assert kept * 5 < handed_back


@pytest.mark.parametrize("name", allocation._SETTINGS)
def test_settings_of_the_environment_stand(monkeypatch, name):
    monkeypatch.setenv(name, "glibc.malloc.trim_threshold=1000" if name == "GLIBC_TUNABLES" else "1000")
    monkeypatch.setattr(allocation.ctypes, "CDLL", None)  # not even asked
    assert not allocation.keep_freed_memory()


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch, system):
    monkeypatch.setattr(allocation.sys, "platform", system)
    monkeypatch.setattr(allocation.ctypes, "CDLL", None)
    assert not allocation.keep_freed_memory()


def test_a_c_library_without_it_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocation.sys, "platform", "linux")
    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: object())
    assert not allocation.keep_freed_memory()


def test_an_older_glibc_is_told_as_much_as_it_takes(monkeypatch):
    """Before 2.35 it refuses pieces of more than 32 MB."""
    monkeypatch.setattr(allocation.sys, "platform", "linux")
    asked = []

    def mallopt(parameter, value):
        asked.append((parameter, value))
        return int(parameter != -3 or value <= 2**25)

    monkeypatch.setattr(allocation.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert allocation.keep_freed_memory()
    assert asked == [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]


def test_what_trains_on_a_cpu_asks_for_it(monkeypatch):
    asked = []
    monkeypatch.setattr(training, "keep_freed_memory", lambda: asked.append(True))
    accelerator = training.make_accelerator(SimpleNamespace(precision="no", tracker="none"))
    assert asked == [True] * (accelerator.device.type == "cpu")
