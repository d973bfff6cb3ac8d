"""The screenshots of the README, `docs/images/demo-*.png`, from a page that is served and used in Chromium.

    python tests/demo_screenshots.py --vqa RUN --video RUN --study DIR

with runs that were trained on the embedded sets, whose scenes and clips are nobody's.
"""

import argparse
from pathlib import Path

from demo_browser import DESKTOP, PHONE, chromium, opened, served
from PIL import Image

OUT = Path(__file__).resolve().parent.parent / "docs" / "images"
_COLORS = 256  # enough for a page and its photos, half of the bytes


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the README's screenshots.")
    for name in ("--vqa", "--video", "--study"):
        parser.add_argument(name, required=True)
    given = vars(parser.parse_args())
    OUT.mkdir(parents=True, exist_ok=True)
    arguments = [part for name, path in given.items() for part in (f"--{name}", path)]
    with chromium() as browser, served(*arguments) as (url, _):
        page, _ = opened(browser, url, DESKTOP)
        example(page, 0)
        save(page, "demo-vqa", height=760)
        page.get_by_role("tab").nth(1).click()
        page.locator("#clips button").nth(1).click()
        page.locator("#clip a").first.wait_for()
        page.click("#classify")
        page.wait_for_selector("#class .bars")
        save(page, "demo-video", height=1080)
        page.get_by_role("tab").nth(2).click()
        page.wait_for_selector("#study table")
        save(page, "demo-study", height=1000)
        page.close()
        page, _ = opened(browser, f"{url}/en/", PHONE)
        example(page, 3)
        page.wait_for_timeout(1500)  # until it has scrolled there
        save(page, "demo-phone", height=PHONE["height"], top=False)


def example(page, number: int) -> None:
    page.locator("#photos img").nth(number).click()
    page.wait_for_selector("#photo img")
    page.wait_for_function("document.querySelector('#question textarea, #question input').value != ''")
    page.wait_for_load_state("networkidle")
    page.click("#ask")
    page.wait_for_selector("#answer .bars")


def save(page, name: str, *, height: int, top: bool = True) -> None:
    """What a window of that height shows, as a PNG of few colours."""
    page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
    if top:
        page.evaluate("scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.wait_for_timeout(800)
    path = OUT / f"{name}.png"
    page.screenshot(path=str(path))
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path.relative_to(OUT.parent.parent)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
