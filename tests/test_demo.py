"""The page without a browser: what it says to files of any kind, what it draws, what its gate lets through."""

import json
import os
import re
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_helpers import make_study, train_clips, train_scenes
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from video_helpers import write_clip

from common.config import parse
from common.demo import LANGUAGES, Limits, answering, make_app, own_folder, uploaded
from common.demo_gate import Gate
from common.demo_html import bars, percent, table
from common.demo_options import DemoOptions
from common.demo_study import study_page, study_tab
from common.errors import UserError
from video.demo import PHRASES as VIDEO
from video.demo import Watcher
from video.demo import answer as classify
from video.predict import Classifier
from vqa.demo import PHRASES as VQA
from vqa.demo import Asker, vqa_tab
from vqa.demo import answer as ask
from vqa.demo_examples import example_photos, example_questions
from vqa.predict import Answerer
from vqa.text import MOST_LETTERS

ROOT = Path(__file__).resolve().parent.parent
LIMITS = Limits(most_bytes=1_000_000, most_pixels=10_000, most_frames=40)
QUESTION = "hình ở góc trên bên trái màu gì"


@pytest.fixture(scope="module")
def scenes_run(tmp_path_factory) -> Path:
    return train_scenes(tmp_path_factory.mktemp("vqa"), "--attention")


@pytest.fixture(scope="module")
def clips_run(tmp_path_factory) -> Path:
    return train_clips(tmp_path_factory.mktemp("video"), "--readout", "attention")


@pytest.fixture
def folder():
    with own_folder() as made:
        yield made


def payload(path: Path, name: str | None = None) -> dict:
    return {"path": str(path), "orig_name": name or path.name, "meta": {"_type": "gradio.FileData"}}


def photo(folder: Path, size: tuple[int, int] = (60, 40)) -> Path:
    path = folder / "photo.png"
    Image.effect_noise(size, 80).convert("RGB").save(path)
    return path


# --- pictures and words -----------------------------------------------------------------------------------------------


def test_nothing_of_the_data_is_markup():
    evil = "<script>alert('x')</script>"
    made = bars([(evil, 0.5)], "vi") + table([{evil: evil, "b": evil}], {})
    assert "<script" not in made and made.count("&lt;script&gt;") == 4
    assert percent(0.7321, "vi") == "73,2 %" and percent(0.7321, "en") == "73.2%"


@pytest.mark.parametrize("phrases", [VQA, VIDEO])
def test_every_phrase_is_there_in_every_language(phrases):
    for name, texts in phrases.items():
        assert set(texts) == set(LANGUAGES) and all(texts.values()), name
        assert len({text.count("{}") for text in texts.values()}) == 1, name


# --- asking -----------------------------------------------------------------------------------------------------------


def test_an_answer_has_bars_and_a_picture_for_each_glimpse(scenes_run, folder):
    asker = Asker(str(scenes_run))
    path = photo(folder)
    said = {language: ask(asker, payload(path), QUESTION, language, LIMITS) for language in LANGUAGES}
    probabilities, output = Answerer.from_pretrained(scenes_run / "checkpoints" / "best_accuracy")([path], [QUESTION])
    for row in asker.answerer.best(probabilities[0], 5):
        assert row["answer"] in said["vi"] and percent(row["probability"], "vi") in said["vi"]
        assert percent(row["probability"], "en") in said["en"]
    glimpses = asker.answerer.model.config.glimpses
    assert said["vi"].count("<img") == 1 + glimpses
    assert f"lần nhìn {glimpses}" in said["vi"] and f"glimpse {glimpses}" in said["en"]
    assert VQA["cropped"]["vi"] not in said["vi"] or asker.answerer.processor.preprocessing.resize == "crop"
    assert not re.search(r"Câu trả lời|lần nhìn", said["en"]) and "/tmp" not in said["vi"]


def test_a_model_without_attention_says_so(tmp_path, folder):
    asker = Asker(str(train_scenes(tmp_path, "--no-attention")))
    said = ask(asker, payload(photo(folder)), QUESTION, "vi", LIMITS)
    assert VQA["no_attention"]["vi"] in said and said.count("<img") == 1
    assert "xyzzy" in ask(asker, payload(photo(folder)), "xyzzy màu gì", "en", LIMITS).partition("never learnt")[2]


def test_words_and_what_was_found_are_shown_too(tmp_path, folder):
    """Of a model that attends over words as well, with a net that looks for what is asked about."""
    asker = Asker(str(train_scenes(tmp_path, "--attention", "--attention-over", "both", "--grounding")))
    said = ask(asker, payload(photo(folder)), QUESTION, "vi", LIMITS)
    config = asker.answerer.model.config
    assert config.grounds and said.count("<img") == 1 + config.glimpses + 1
    assert said.count(VQA["grounding"]["vi"]) == 2  # under its picture, and in place of it
    pieces = asker.answerer.processor.questions.tokens(QUESTION)
    assert said.partition(VQA["words"]["vi"])[2].count("<span") == len(pieces)


def test_a_model_that_sees_no_photo_asks_for_none(tmp_path, folder):
    asker = Asker(str(train_scenes(tmp_path, "--inputs", "question")))
    said = ask(asker, None, QUESTION, "en", LIMITS)
    assert VQA["blind"]["en"] in said and "bars" in said and "<img" not in said


def test_a_model_that_reads_no_question_takes_anything_for_one(tmp_path, folder):
    asker = Asker(str(train_scenes(tmp_path, "--inputs", "image")))
    for question in ("", "???", "a" * (MOST_LETTERS + 1)):
        said = ask(asker, payload(photo(folder)), question, "en", LIMITS)
        assert VQA["deaf"]["en"] in said and "bars" in said and "&lt;unk" not in said


def test_wrong_questions_and_photos_are_told_in_words(scenes_run, folder, tmp_path):
    asker = Asker(str(scenes_run))
    (folder / "a.jpg").write_text("no photo", encoding="utf-8")
    good = photo(folder)
    cases = {
        "no_photo": (None, QUESTION),
        "no_question": (payload(good), "  \n"),
        "long": (payload(good), "a" * (MOST_LETTERS + 1)),
        "bad": (payload(folder / "a.jpg", "<b>món.jpg"), QUESTION),
    }
    for name, (given, question) in cases.items():
        for language in LANGUAGES:
            said = ask(asker, given, question, language, LIMITS)
            assert VQA[name][language].format(MOST_LETTERS) in said and "alert" in said, name
            assert str(folder) not in said and "<b>" not in said
    Image.new("RGB", (200, 100)).save(folder / "large.png")
    assert "0.01 triệu" in ask(asker, payload(folder / "large.png"), QUESTION, "vi", LIMITS)
    for strange in (5, [1], {"path": 5}, {"path": "\0"}, {"path": str(folder)}, payload(photo(tmp_path))):
        assert VQA["no_photo"]["en"] in ask(asker, strange, QUESTION, "en", LIMITS)
    for nothing in ({"a": 1}, "???", " . ", "(“”) !"):
        said = ask(asker, payload(good), nothing, "en", LIMITS)
        assert VQA["no_question"]["en"] in said and "bars" not in said


def test_only_uploads_are_opened(folder, tmp_path):
    (folder / "in").write_text("x", encoding="utf-8")
    (tmp_path / "out").write_text("x", encoding="utf-8")
    (folder / "link").symlink_to(tmp_path / "out")
    assert uploaded(payload(folder / "in")) == folder / "in"
    for path in (tmp_path / "out", folder / "link", folder / ".." / tmp_path.name / "out", folder / "not there"):
        assert uploaded(payload(path)) is None


def test_examples(scenes_run, folder, tmp_path):
    """Questions of each type, which the run was scored on; photos of a folder or a table, or a refusal."""
    found = example_questions(str(scenes_run), [])
    assert len(found) == len(set(found)) >= 4
    assert example_questions(str(scenes_run / "checkpoints" / "best_accuracy"), ["a", "a", ""]) == ["a"]
    photos = tmp_path / "photos"
    photos.mkdir()
    assert_refused(vqa_options(scenes_run, photos), folder, "no photos there")
    for number in range(9):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(photos / f"{number}.png")
    (photos / "notes.txt").write_text("x", encoding="utf-8")
    made = example_photos(vqa_options(scenes_run, photos), folder)
    assert 3 <= len(made) <= 6 and all(path.parent == folder and not question for path, question in made)
    (photos / "asked.csv").write_text("image,question\n1.png,màu gì\n1.png,ở đâu\n", encoding="utf-8")
    ((path, question),) = example_photos(vqa_options(scenes_run, photos / "asked.csv"), folder)
    assert question == "màu gì" and path.read_bytes() == (photos / "1.png").read_bytes()
    (photos / "0.png").write_text("no photo", encoding="utf-8")
    assert_refused(vqa_options(scenes_run, photos), folder, "cannot be read as an image")


def vqa_options(run: Path, photos: Path) -> DemoOptions:
    return parse(DemoOptions, ["--vqa", str(run), "--photos", str(photos)])


def assert_refused(options: DemoOptions, folder: Path, words: str) -> None:
    with pytest.raises(UserError, match=words):
        example_photos(options, folder)


# --- clips ------------------------------------------------------------------------------------------------------------


def test_a_clip_has_its_class_over_time_and_weights_of_frames(clips_run, folder):
    watcher = Watcher(str(clips_run))
    clip = write_clip(folder / "clip.avi", seed=1, count=12)
    watched = watcher(clip)
    whole, output = Classifier.from_pretrained(clips_run / "checkpoints" / "best_accuracy")(clip)
    assert watched.seen == list(range(1, len(watched.frames) + 1))
    torch.testing.assert_close(torch.from_numpy(watched.over_time[-1]), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(watched.over_time.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(watched.weights, output.attention[0].numpy(), rtol=1e-4)
    said = classify(watcher, payload(clip), "vi", LIMITS)
    assert VIDEO["weights"]["vi"] in said and said.count("<img") == 1 + len(watched.frames)
    assert percent(float(watched.weights[-1]), "vi") in said


def test_a_prefix_is_what_the_model_says_of_a_clip_that_ends_there(clips_run, folder):
    """Of frames that are all read, as the recipe of the run does with short clips."""
    watcher = Watcher(str(clips_run))
    frames = watcher.classifier.source.frames
    long, short = (write_clip(folder / f"{count}.avi", seed=2, count=count) for count in (frames, frames - 2))
    np.testing.assert_allclose(watcher(long).over_time[frames - 3], watcher(short).over_time[-1], atol=0.05)


def test_what_a_clip_cannot_show_is_said(tmp_path, folder):
    clip = write_clip(folder / "clip.avi", seed=1, count=6)
    shuffled = Watcher(str(train_clips(tmp_path, "--frame-order", "shuffled")))
    said = classify(shuffled, payload(clip), "vi", LIMITS)
    assert VIDEO["shuffled"]["vi"] in said and VIDEO["no_attention"]["vi"] in said
    assert said.count("<img") == len(shuffled(clip).frames)


def test_wrong_clips_are_told_in_words(clips_run, folder):
    watcher = Watcher(str(clips_run))
    (folder / "notes.txt").write_text("no clip", encoding="utf-8")
    (folder / "empty.mp4").touch()
    for language in LANGUAGES:
        assert VIDEO["no_clip"][language] in classify(watcher, None, language, LIMITS)
        for name in ("notes.txt", "empty.mp4"):
            said = classify(watcher, payload(folder / name), language, LIMITS)
            assert VIDEO["bad"][language] in said and name in said and str(folder) not in said
    long = write_clip(folder / "long.avi", seed=1, count=LIMITS.most_frames + 1)
    assert VIDEO["long"]["vi"].format(41, 40) in classify(watcher, payload(long), "vi", LIMITS)


# --- a study ----------------------------------------------------------------------------------------------------------


def test_a_study_has_its_table_and_its_curves(tmp_path, folder):
    study = make_study(tmp_path)
    said = study_page(study, "vi", folder, linked=True)
    assert "0.2500" in said and "0.6000" in said and "độ chính xác đo được" in said and "<b>bold" not in said
    assert said.count("<img") == 2 and "with &lt;i&gt;" in said and "/study.html" in said
    before = sorted(path.name for path in study.iterdir())
    (study / "curves.png").unlink()
    drawn = study_page(study, "en", folder)
    assert drawn.count("<img") == 2 and "measured accuracy" in drawn  # drawn anew, and not into the study
    assert sorted(path.name for path in study.iterdir()) == [name for name in before if name != "curves.png"]


def test_a_study_that_cannot_be_read(tmp_path, folder):
    study = tmp_path / "study"
    with pytest.raises(UserError, match="no such folder"):
        study_tab(parse(DemoOptions, ["--study", str(study)]))
    study.mkdir()
    with pytest.raises(UserError, match="is not a study's folder"):
        study_tab(parse(DemoOptions, ["--study", str(study)]))
    (study / "runs").mkdir()
    assert "run_study.py" in study_page(study, "vi", folder)
    for text in ("{", "[]", "{}", '{"cells": [5], "title": 1, "notes": []}'):
        (study / "table.json").write_text(text, encoding="utf-8")
        said = study_page(study, "vi", folder)
        assert "Không đọc được nghiên cứu này." in said and str(study) not in said


# --- the gate ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def gate(tmp_path):
    seen = []

    async def app(scope, receive, send):
        body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
        seen.append((scope["path"], body))
        await PlainTextResponse("in")(scope, receive, send)

    made = Gate(
        app,
        hosts={"127.0.0.1", "localhost", "[::1]"},
        languages=("vi", "en"),
        own=("/study.html",),
        folder=tmp_path,
        most_bytes=1000,
        most_stored=20_000,
    )
    return TestClient(made, base_url="http://127.0.0.1:7860"), seen


def test_what_the_page_needs_goes_through_the_gate(gate):
    client, seen = gate
    for path in ("/", "/study.html", "/vi/", "/en/assets/index.js", "/vi/theme.css", "/vi/gradio_api/file=/x/y.png"):
        answered = client.get(path)
        assert answered.status_code == 200, path
        assert "default-src 'self'" in answered.headers["content-security-policy"]
        assert answered.headers["x-content-type-options"] == "nosniff"
    asked = {"data": [{"path": "/x/photo.png"}, "https://is.a.question"], "fn_index": 1}
    own = {"origin": "http://127.0.0.1:7860"}
    assert client.post("/vi/gradio_api/queue/join", json=asked, headers=own).status_code == 200
    assert json.loads(seen[-1][1]) == asked  # read by the gate, and still there for the page
    assert client.post("/vi/gradio_api/upload", content=b"x" * 900).status_code == 200


@pytest.mark.parametrize(
    "path",
    "/vi/gradio_api/info /vi/gradio_api/openapi.json /vi/gradio_api/file=https://example.com/x /vi/docs /openapi.json "
    "/vi/gradio_api/proxy=http://x /vi/config /vi/gradio_api/runs /vi/monitoring /fr/ /vi/gradio_api/deep_link".split(),
)
def test_what_the_page_does_not_need_is_not_there(gate, path):
    client, seen = gate
    assert client.get(path).status_code == 404 and not seen
    assert client.post(path, json={}).status_code == 404 and not seen


def test_strangers_are_turned_away(gate, tmp_path):
    client, seen = gate
    join, upload = "/vi/gradio_api/queue/join", "/vi/gradio_api/upload"
    assert client.get("/vi/", headers={"host": "evil.example:7860"}).status_code == 421
    assert client.post(join, json={}, headers={"origin": "http://evil.example"}).status_code == 403
    for address in ("https://example.com/x.png", " HTTP://x", "file:///etc/passwd", "data:image/png;base64,xx"):
        asked = {"data": [{"path": address, "meta": {"_type": "gradio.FileData"}}]}
        assert client.post(join, json=asked).status_code == 403, address
        assert client.post("/vi/gradio_api/run/predict", json=asked).status_code == 403, address
    assert client.post(join, content=b"{").status_code == 400
    assert client.post(join, content=b"[" * 90_000).status_code in (400, 403)
    assert client.post(join, content=b"x" * 100_001).status_code == 413
    assert client.post(upload, content=b"x" * 200_000).status_code == 413
    assert client.post(upload, content=iter([b"x"])).status_code == 411  # a length that is not told
    (tmp_path / "kept").write_bytes(b"x" * 19_500)
    assert client.post(upload, content=b"x" * 900).status_code == 507
    assert not seen


def test_sockets_are_closed_unanswered(gate):
    client, seen = gate
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/vi/gradio_api/queue/join"):
        pass
    assert not seen


# --- the whole --------------------------------------------------------------------------------------------------------


def test_both_pages_are_served_without_an_api(scenes_run, folder):
    options = parse(DemoOptions, ["--vqa", str(scenes_run), "--max-upload-mb", "1"])
    with TestClient(make_app([vqa_tab(options)], options, folder), base_url="http://localhost") as client:
        assert client.get("/", follow_redirects=False).headers["location"] == "/vi/"
        for language, word in (("vi", "Câu hỏi (tiếng Việt)"), ("en", "Question (in Vietnamese)")):
            page = client.get(f"/{language}/").text
            config = json.loads(re.search(r"window.gradio_config = (\{.*?\});</script>", page).group(1))
            assert word in json.dumps(config, ensure_ascii=False)
            assert not config["analytics_enabled"] and config["max_file_size"] == 2**20
            assert all(not event["queue"] or event["api_visibility"] == "private" for event in config["dependencies"])
            assert "googleapis" not in client.get(f"/{language}/theme.css").text
            assert config["i18n_translations"]["vi"]["upload_text"]["click_to_upload"] == "Bấm để chọn tệp"
        refused = client.post("/vi/gradio_api/upload", files={"files": ("a.png", b"x" * (2**20 + 10))})
        assert refused.status_code == 413
        (kept,) = client.post("/vi/gradio_api/upload", files={"files": ("a.png", b"x" * 1000)}).json()
        assert uploaded({"path": kept}) is not None
        assert client.get(f"/vi/gradio_api/file={kept}").status_code == 200
        for path in ("/etc/passwd", str(ROOT / "README.md"), str(scenes_run / "config.yaml")):
            assert client.get(f"/vi/gradio_api/file={path}").status_code in (403, 404), path
    assert not Path(kept).exists()  # gone with the page


def test_uploads_are_deleted_after_a_while_and_examples_stay(scenes_run, folder):
    photos = scenes_run.parent / "scenes" / "images"
    options = parse(DemoOptions, ["--vqa", str(scenes_run), "--photos", str(photos), "--keep-minutes", "0.02"])
    with TestClient(make_app([vqa_tab(options)], options, folder), base_url="http://localhost") as client:
        shown = re.findall(r"/gradio_api/file=([^\"]+?\.png)", client.get("/vi/").text)
        (kept,) = client.post("/vi/gradio_api/upload", files={"files": ("a.png", b"x" * 1000)}).json()
        assert shown and Path(kept).is_file()
        for _ in range(100):
            if not Path(kept).exists():
                break
            time.sleep(0.1)
        assert not Path(kept).exists()
        time.sleep(1.5)  # another round
        for path in shown:
            assert client.get(f"/vi/gradio_api/file={path}").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "nothing to show: give a VQA run with --vqa RUN"),
        ("--vqa nowhere", "--vqa nowhere: no such file or folder"),
        ("--study nowhere", "--study nowhere: no such file or folder"),
        ("--study . --photos .", "--photos are examples for --vqa"),
        ("--vqa x --port 70000", "--port"),
        ("--vqa x --share", "unrecognized arguments: --share"),
    ],
)
def test_bad_options_end_in_one_line(monkeypatch, capsys, arguments, words):
    assert_ends(monkeypatch, capsys, arguments.split(), words)


def test_a_port_that_is_taken(monkeypatch, capsys, tmp_path):
    (tmp_path / "runs").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = ["--study", str(tmp_path), "--port", str(taken.getsockname()[1])]
        assert_ends(monkeypatch, capsys, given, f"--port {given[-1]}: cannot listen there")


def assert_ends(monkeypatch, capsys, arguments: list[str], words: str) -> None:
    """The script, in this process, ends with code 2 and one line."""
    monkeypatch.setattr("sys.argv", [str(ROOT / "scripts" / "demo.py"), *arguments])
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "demo.py"), run_name="__main__")
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and words in err and len(err.splitlines()) == 1 and not out


def test_without_gradio_a_line_says_what_to_install(tmp_path):
    (tmp_path / "gradio.py").write_text("raise ImportError('No module named gradio')", encoding="utf-8")
    command = [sys.executable, "scripts/demo.py", "--study", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert ended.returncode == 2 and 'pip install -e ".[demo]"' in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_the_folder_of_uploads_is_gone_at_the_end():
    before = os.environ.get("GRADIO_TEMP_DIR")
    with own_folder() as made:
        assert os.environ["GRADIO_TEMP_DIR"] == str(made)
        (made / "x").write_text("x", encoding="utf-8")
    assert not made.exists() and os.environ.get("GRADIO_TEMP_DIR") == before


def test_a_defect_is_told_in_words_too(capsys):
    @answering("vi")
    def broken() -> str:
        raise RuntimeError("of ours")

    assert "Lỗi của trang này" in broken() and "RuntimeError: of ours" in capsys.readouterr().err
