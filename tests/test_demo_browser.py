"""The page in a headless Chromium, as somebody uses it: upload, ask, read, look; wrong files; both languages; a phone.

Skipped where there is no Chromium, with a line that says what to install.
"""

import base64
import io
import signal
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from demo_browser import DESKTOP, PHONE, ask, chromium, opened, served, take_photo
from demo_helpers import make_study, train_clips, train_scenes
from PIL import Image
from video_helpers import write_clip

from common.demo_html import CSS, block, percent, table
from video.demo import PHRASES as VIDEO
from vqa.demo import PHRASES as VQA
from vqa.demo_examples import example_questions
from vqa.predict import Answerer

QUESTION = "hình ở góc trên bên trái màu gì"


@pytest.fixture(scope="module")
def browser():
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def runs(browser, tmp_path_factory) -> dict[str, Path]:
    """After the browser: nothing is trained where all is skipped."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "study").mkdir()
    return {
        "vqa": train_scenes(folder / "vqa", "--attention"),
        "video": train_clips(folder / "video", "--readout", "attention"),
        "study": make_study(folder / "study"),
        "photos": folder / "vqa" / "scenes" / "test.csv",
        "clips": folder / "video" / "clips",
    }


@pytest.fixture(scope="module")
def server(runs):
    given = [part for name, path in runs.items() for part in (f"--{name}", path)]
    with served(*given, "--max-upload-mb", 1) as started:
        yield started


@pytest.fixture
def visit(browser, server):
    """Open the page; at the end, nothing that it asked for was elsewhere."""
    pages = []

    def visit(path: str = "/", **more):
        pages.append(opened(browser, server[0] + path, **more))
        return pages[-1][0]

    yield visit
    for page, asked in pages:
        page.close()
        assert asked
        assert {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}


@pytest.fixture(scope="module")
def photo(runs) -> Path:
    return runs["photos"].parent / "images" / "200003.png"


def pictures(page, place: str) -> list[np.ndarray]:
    """The pictures in a part of the page, decoded; each is shown, with pixels."""
    found = []
    for picture in page.locator(f"{place} img").all():
        assert picture.is_visible() and picture.evaluate("image => image.naturalWidth") > 0
        data = picture.get_attribute("src").partition("base64,")[2]
        found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"), dtype=float))
    return found


def test_upload_ask_read_the_answer_see_where_it_looked(visit, runs, photo):
    page = visit()
    take_photo(page, photo)
    ask(page, QUESTION)
    answerer = Answerer.from_pretrained(runs["vqa"] / "checkpoints" / "best_accuracy")
    probabilities, _ = answerer([photo], [QUESTION])
    best = answerer.best(probabilities[0], 5)
    assert page.inner_text("#answer .first") == best[0]["answer"]
    assert page.locator("#answer .bars dt").all_inner_texts() == [row["answer"] for row in best]
    figures = page.locator("#answer .bars .figure").all_inner_texts()
    assert figures == [percent(row["probability"], "vi") for row in best]
    widths = [bar.bounding_box()["width"] for bar in page.locator("#answer .bars .bar i").all()]
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[-1]
    whole, *glimpses = pictures(page, "#answer")
    assert len(glimpses) == answerer.model.config.glimpses
    for looked in glimpses:  # the same photo, some of it as it was and some veiled
        assert looked.shape == whole.shape and np.abs(whole - looked).mean() > 0.5
    assert "lần nhìn 1" in page.inner_text("#answer")


def test_the_table_of_a_study_fits_a_desktop(browser):
    """All of a report's columns, at the width that the page gives them (936 pixels of 1200)."""
    columns = "model weights reported test-seconds loss accuracy validation seeds seconds parameters".split()
    row = dict.fromkeys(columns, "0.8151 ± 0.0317") | {"model": "ResNet152, fixed lr", "weights": "random", "seeds": 3}
    page = browser.new_page(viewport=DESKTOP)
    found = block(table([row] * 3, {"validation": "độ chính xác đo được trên validation"}))
    page.set_content(f"<style>{CSS}</style><div style='width: 936px; font-family: DejaVu Sans'>{found}</div>")
    width, needed = page.evaluate("(e => [e.clientWidth, e.scrollWidth])(document.querySelector('.scroll'))")
    assert needed <= width == 936
    page.close()


def test_an_example_and_a_question_to_pick(visit, runs):
    page = visit()
    page.locator("#photos img").nth(1).click()
    page.wait_for_selector("#photo img")
    box = page.locator("#question textarea, #question input")
    page.wait_for_function("document.querySelector('#question textarea, #question input').value != ''")
    asked = box.input_value()
    place, chosen = next(
        (place, text) for place, text in enumerate(example_questions(str(runs["vqa"]), [])) if text != asked
    )
    page.locator("#questions button").nth(place).click()
    page.wait_for_function(
        "text => document.querySelector('#question textarea, #question input').value == text", arg=chosen
    )
    box.press("Enter")
    page.wait_for_selector("#answer .bars")
    assert chosen in page.inner_text("#answer .soft >> nth=0")


def test_the_webcam(visit):
    page = visit()
    page.locator("#photo .source-selection button").nth(1).click()
    page.locator("#photo button", has_text="Bấm để dùng máy ảnh").click()
    page.wait_for_function("document.querySelector('#photo video').videoWidth > 0")
    page.locator("#photo button[aria-label='capture photo']").click()
    page.wait_for_selector("#photo img")
    page.wait_for_load_state("networkidle")
    ask(page, QUESTION)
    assert len(pictures(page, "#answer")) > 1


@pytest.mark.parametrize("language", ["vi", "en"])
def test_wrong_files_are_told_in_words(visit, tmp_path, language):
    page = visit(f"/{language}/")
    page.click("#ask")
    page.locator("#answer [role=alert]", has_text=VQA["no_photo"][language]).wait_for()
    (tmp_path / "notes.txt").write_text("no photo", encoding="utf-8")
    page.set_input_files("#photo input[type=file]", str(tmp_path / "notes.txt"))
    words = {"vi": "notes.txt không phải là ảnh", "en": "notes.txt is not a photo"}[language]
    page.locator(".toast-body", has_text=words).first.wait_for()
    (tmp_path / "huge.png").write_bytes(b"x" * (2**20 + 1))
    page.set_input_files("#photo input[type=file]", str(tmp_path / "huge.png"))
    words = {"vi": "huge.png quá lớn: nhiều nhất 1.0 MB", "en": "huge.png is too large: at most 1.0 MB"}[language]
    page.locator(".toast-body", has_text=words).first.wait_for()
    (tmp_path / "text.jpg").write_text("no photo", encoding="utf-8")
    page.set_input_files("#photo input[type=file]", str(tmp_path / "text.jpg"))
    page.wait_for_selector("#photo img", state="attached")
    page.wait_for_load_state("networkidle")
    page.click("#ask")
    page.locator("#answer [role=alert]", has_text=VQA["no_question"][language]).wait_for()
    page.fill("#question textarea, #question input", QUESTION)
    page.click("#ask")
    told = page.locator("#answer [role=alert]", has_text=VQA["bad"][language])
    told.wait_for()
    assert "text.jpg" in told.inner_text() and "hoianh-demo" not in told.inner_text()


def test_both_languages(visit):
    page = visit()
    assert page.evaluate("document.documentElement.lang") == "vi" and page.url.endswith("/vi/")
    vietnamese = page.inner_text("body")
    assert "Câu hỏi (tiếng Việt)" in vietnamese and "Bấm để chọn ảnh" in vietnamese
    page.get_by_role("tab", name=VIDEO["title"]["vi"]).click()
    assert "Thả tệp vào đây" in page.inner_text("#clip") and "hoặc" in page.inner_text("#clip")
    page.get_by_role("link", name="English").click()
    page.wait_for_url("**/en/")
    page.wait_for_selector("#ask")
    page.wait_for_function("document.documentElement.lang == 'en'")
    english = page.inner_text("body")
    assert page.inner_text("#ask") == VQA["ask"]["en"]
    for texts in map(VQA.get, ("question", "pick", "examples", "empty")):
        assert texts["vi"] in vietnamese and texts["vi"] not in english and texts["en"] in english
    page.get_by_role("tab", name=VIDEO["title"]["en"]).click()
    assert "Drop File Here" in page.inner_text("#clip")


def test_on_a_phone(visit, photo):
    page = visit("/en/", size=PHONE)
    take_photo(page, photo)
    ask(page, QUESTION)
    page.wait_for_function("document.querySelector('#answer').getBoundingClientRect().top < innerHeight / 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for part in ("#photo", "#question", "#ask", "#answer .bars", "#answer img >> nth=1"):
        box = page.locator(part).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] and box["height"] >= 30, part
    assert page.locator("#answer img").first.bounding_box()["width"] > 120
    for tab in page.get_by_role("tab").all():
        assert tab.is_visible()


def classify(page, clip):
    page.set_input_files("#clip input[type=file]", str(clip))
    page.locator("#clip", has_text=clip.stem).locator("a, .file").first.wait_for()
    page.wait_for_load_state("networkidle")
    page.click("#classify")
    page.wait_for_selector("#class .bars")


def test_a_clip_on_a_phone(visit, tmp_path):
    page = visit("/en/", size=PHONE)
    page.get_by_role("tab", name=VIDEO["title"]["en"]).click()
    classify(page, write_clip(tmp_path / "clip.avi", seed=1, count=12))
    page.wait_for_function("document.querySelector('#class').getBoundingClientRect().top < innerHeight / 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_clip(visit, tmp_path):
    page = visit()
    page.get_by_role("tab", name=VIDEO["title"]["vi"]).click()
    page.click("#classify")
    page.locator("#class [role=alert]", has_text=VIDEO["no_clip"]["vi"]).wait_for()
    classify(page, write_clip(tmp_path / "clip.avi", seed=1, count=12))
    curve, *frames = pictures(page, "#class")
    assert len(frames) == page.locator("#class .small .bar").count() == 8 and curve.shape[1] > 600
    assert VIDEO["weights"]["vi"] in page.inner_text("#class")
    (tmp_path / "notes.mp4").write_text("no clip", encoding="utf-8")
    page.locator("#clip button[aria-label], #clip .icon-button-wrapper button").first.click()
    page.set_input_files("#clip input[type=file]", str(tmp_path / "notes.mp4"))
    page.locator("#clip", has_text="notes").locator("a, .file").first.wait_for()
    page.wait_for_load_state("networkidle")
    page.click("#classify")
    page.locator("#class [role=alert]", has_text=VIDEO["bad"]["vi"]).wait_for()


def test_a_study(visit):
    page = visit("/en/")
    page.get_by_role("tab", name="Study").click()
    page.wait_for_selector("#study table")
    cells = page.locator("#study tbody tr").first.locator("th, td").all_inner_texts()
    assert cells[0] == "with <i>attention</i>" and any(cell.startswith("0.5000") for cell in cells)
    assert len(pictures(page, "#study")) == 2
    with page.context.expect_page() as report:
        page.click("#study a")
    assert "R9" in report.value.inner_text("h1")
    report.value.close()


def test_it_can_be_ended_at_any_time(visit, server, photo):
    """With a page open and a file uploaded: it ends all the same and leaves nothing. The last test of this server."""
    page, process = visit(), server[1]
    take_photo(page, photo)
    kept = Path(page.get_attribute("#photo img", "src").partition("/file=")[2])
    assert kept.is_file()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "what was uploaded is deleted" in said
    assert not kept.exists() and not any(part.exists() for part in kept.parents if "hoianh-demo" in part.name)
