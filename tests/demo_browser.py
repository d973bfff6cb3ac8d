"""A headless Chromium and a page served by `scripts/demo.py`, for the tests of the page and for its screenshots."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
).split()
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator:
    """A browser with a camera that shows a test picture. Skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason='no Playwright: pip install -e ".[test]"')
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    with sync_api.sync_playwright() as playwright:
        path = found or playwright.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("no Chromium: apt install chromium, or: python -m playwright install --with-deps chromium")
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def served(*arguments: object) -> Iterator[tuple[str, subprocess.Popen]]:
    """The page's address and its process, ended as a scheduler would if it still runs."""
    command = [sys.executable, "scripts/demo.py", *map(str, arguments), "--port", "0"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("Hỏi Ảnh: http://127.0.0.1:"), line
            yield line.split()[2].rstrip("/"), process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)


def opened(browser, address: str, size: dict[str, int] = DESKTOP):
    """The page, loaded, and the addresses that it asks for from then on."""
    page = browser.new_page(viewport=size, locale="en-US", permissions=["camera"])
    page.set_default_timeout(60_000)  # other work may share the machine
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#ask, #classify, #study")
    page.wait_for_load_state("networkidle")
    return page, asked


def take_photo(page, path: Path) -> None:
    """Upload a photo, and wait until the page shows it."""
    page.set_input_files("#photo input[type=file]", str(path))
    page.wait_for_selector("#photo img")
    page.wait_for_load_state("networkidle")


def ask(page, question: str) -> None:
    page.fill("#question textarea, #question input", question)
    page.click("#ask")
    page.wait_for_selector("#answer .bars")
