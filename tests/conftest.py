"""What several test files need: where the real data lie (if they do), and commands run as a user would run them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from script_server import ScriptServer

# A shell that is no terminal starts what it puts behind it (`&`) deaf to Ctrl-C, and runs would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Test processes side by side share the cores: threads of one would spin while those of the other work. Before torch is
# imported, and not in the process that starts them, whose environment they get.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    side_by_side = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // side_by_side)))

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


# Files of tests that take long begin first, so that none of them is left for one process at the end.
LONG = ("test_scripts_vqa", "test_readme_commands", "test_kills", "test_streaming", "test_benchmark", "test_study")


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # xdist's own order: by the number of tests in a file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """`../shared/data`; the test is skipped where it is not."""
    if not (SHARED / "data").is_dir():
        pytest.skip("../shared/data is not here")
    return SHARED / "data"


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    path = SHARED / "weights" / "mobilenet_v2-imagenet.safetensors"
    if not path.is_file():
        pytest.skip("../shared/weights is not here")
    return path


@pytest.fixture(scope="session")
def script_cache(tmp_path_factory) -> dict[str, str]:
    """What scripts that tests start have in their environment: a cache of the test session's own, and no network."""
    return {"HOIANH_CACHE": str(tmp_path_factory.mktemp("cache")), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def script_server(script_cache):
    server = ScriptServer(ROOT, script_cache)
    yield server
    server.close()


@pytest.fixture(scope="session")
def run_script(script_cache, request):
    """Run `scripts/NAME` in a process of its own, in the repository's root: a fork of `ScriptServer`, or, with a
    launcher or with variables of the environment, a new one."""

    def run(*arguments: object, launcher: tuple[str, ...] = (), check: bool = True, **environment: str):
        if launcher or environment:
            result = subprocess.run(
                [*(launcher or (sys.executable,)), *map(str, arguments)],
                cwd=ROOT,
                env=os.environ | script_cache | environment,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=900,
            )
        else:
            result = request.getfixturevalue("script_server").run([str(argument) for argument in arguments])
        if check:
            assert result.returncode == 0, result.stdout + result.stderr
        return result

    return run
