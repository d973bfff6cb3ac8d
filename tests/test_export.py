"""Sharing a run: the folder, its card, ONNX without PyTorch, the Hub, and answers in three lines."""

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from classifier_helpers import write_folder
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from PIL import Image
from transformers.utils import logging
from video_helpers import read_json, write_set

import common
import video
import vqa
from common.classifier_options import TrainImageOptions
from common.classifier_train import train as train_image
from common.config import build, parse
from common.errors import UserError
from common.export import export_run
from common.export_options import ExportOptions
from common.hub import upload
from common.statistics import wilson
from video.export import open_shareable as video_shareable
from video.options import TrainVideoOptions
from video.train import train as train_video
from vqa.export import open_shareable as vqa_shareable
from vqa.model import VqaModel
from vqa.options import TrainVqaOptions
from vqa.predict import Answerer
from vqa.shapes import write_shapes
from vqa.train import train as train_vqa

ROOT = Path(__file__).resolve().parent.parent
SMALL = "--depth 2 --width 4 --epochs 1 --workers 0 --examples 0"
VQA = f"{SMALL} --image-size 32 --embedding 8 --hidden 8 --projection 8 --attention-hidden 8 --fusion-hidden 8"
QUESTION = "hình ở góc trên bên trái màu gì"
WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "common", "vqa", "video"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sharing")


@pytest.fixture(scope="module")
def scenes(place) -> Path:
    return write_shapes(place / "scenes", train=12, validation=4, test=4, size=32)


@pytest.fixture(scope="module")
def run(place, scenes) -> Path:
    given = ["--data", scenes, "--output", place / "vqa-run", "--cache", place / "cache", *VQA.split()]
    return train_vqa(parse(TrainVqaOptions, list(map(str, given))))


@pytest.fixture(scope="module")
def shared(run, place) -> Path:
    return export(run, "folder", place / "shared", "--license", "cc-by-4.0")


@pytest.fixture(scope="module")
def clip_run(place) -> Path:
    data = write_set(place / "clips")
    small = f"{SMALL} --image-size 16 --frames 3 --hidden 4 --batch-size 4 --no-test".split()
    given = ["--data", data, "--output", place / "video-run", "--cache", place / "cache", *small]
    return train_video(parse(TrainVideoOptions, list(map(str, given))))


def export(run: Path, to: str, output: Path, *more: str, task=vqa_shareable) -> Path:
    export_run(parse(ExportOptions, [str(run), "--to", to, "--output", str(output), *more]), task)
    return output


def code(folder: Path) -> str:
    """The lines of Python in a card."""
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)[1]


def run_lines(lines: str, folder: Path) -> str:
    """What lines of Python print in a new process, in a folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_card_in_the_format_of_the_hub(run, shared, place):
    card = ModelCard.load(shared / "README.md")
    data, metrics = card.data, read_json(run / "metrics.json")
    assert (data.language, data.license, data.library_name) == ("vi", "cc-by-4.0", "hoianh")
    assert data.pipeline_tag == "visual-question-answering" and data.datasets is None  # on no Hub
    figures = {result.metric_type: result.metric_value for result in data.eval_results}
    assert figures["accuracy"] == pytest.approx(metrics["test"]["accuracy"], abs=1e-6)
    assert {result.dataset_split for result in data.eval_results} == {"test"}
    low, high = wilson(metrics["test"]["accuracy"], metrics["test"]["n"])
    shown = f"{metrics['test']['accuracy']:.4f}     | {low:.4f} – {high:.4f}"
    assert shown in card.text and f"| {metrics['test']['n']} " in card.text
    assert read_json(run / "environment.json")["command"].split()[-1].split("/")[-1] in card.text
    assert "- train: " in card.text and "leak check: no photo" in card.text
    assert "Of the weights: cc-by-4.0. Of the training data: not stated." in card.text
    assert "It chooses one of the" in card.text and " as the answer to all would have " in card.text
    for file in ("README.md", "training.yaml"):  # whose machine it was, is nobody's business
        assert str(place) not in (shared / file).read_text(encoding="utf-8")


def test_options_of_the_training_train_again(run, shared):
    options = build(TrainVqaOptions, yaml.safe_load((shared / "training.yaml").read_text(encoding="utf-8")))
    assert (options.data, options.hidden, options.output) == ("scenes", 8, None)
    assert "--config training.yaml --data DATA --output" in (shared / "README.md").read_text(encoding="utf-8")


def test_a_folder_is_complete_wherever_it_lies(run, shared, scenes, tmp_path):
    """Moved, in a new process, by the lines in its card."""
    shutil.copytree(shared, tmp_path / "shared")
    shutil.copy(scenes / "images" / "200000.png", tmp_path / "photo.jpg")
    said = run_lines(code(shared), tmp_path)
    question = re.search(r'ask\("photo.jpg", "(.*?)"', code(shared))[1]
    expected = vqa.pipeline(run)(scenes / "images" / "200000.png", question, top_k=3)
    found = ast.literal_eval(said)
    assert [row["answer"] for row in found] == [row["answer"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-5)


def test_onnx_answers_without_torch(run, scenes, place):
    folder = export(run, "onnx", place / "onnx")
    shutil.copy(scenes / "images" / "200001.png", folder / "photo.jpg")
    question = re.search(r'normalize_str\("(.*?)"', code(folder))[1]
    best = vqa.pipeline(run)(scenes / "images" / "200001.png", question)[0]["answer"]
    assert run_lines(WITHOUT_TORCH + code(folder), folder) == best
    about = read_json(folder / "description.json")
    assert about["checked"]["largest_difference"] < 1e-4
    assert "photos of validation" in about["checked"]["on"] and len(set(about["checked"]["inputs"])) == 3
    assert best in about["answers"] and set(about["outputs"]) == {"logits", "grid_attention"}
    assert not list(folder.glob("*.safetensors"))
    assert "onnx" in ModelCard.load(folder / "README.md").data.tags


def averaged(run: Path, folder: Path, *names: str, **changes: object) -> Path:
    """A copy of a run whose answers are the mean over these ways round."""
    copy = Path(shutil.copytree(run, folder))
    for path in copy.glob("checkpoints/*/config.json"):
        path.write_text(json.dumps(read_json(path) | {"test_augment": names} | changes), encoding="utf-8")
        path.with_name("checksums.json").unlink()
    return copy


@pytest.mark.parametrize("names", [("flip",), ("flip", "turn")], ids="-".join)
def test_onnx_answers_as_the_mean_over_ways_round(run, scenes, tmp_path, names):
    """The card's own lines, for questions that say a side and for one that does not, as the pipeline."""
    photo = scenes / "images" / "200001.png"
    run = averaged(run, tmp_path / "run", *names)
    folder = export(run, "onnx", tmp_path / "onnx")
    shutil.copy(photo, folder / "photo.jpg")
    asked = re.search(r'text = "(.*?)"', code(folder))[1]
    told = "\nodds = np.exp(logits.astype(float)); print((odds / odds.sum()).tolist())"
    for question in ("Hình ở góc trên  bên TRÁI màu gì?", "bên phải có mấy hình", "có mấy hình"):
        best, shares = run_lines(WITHOUT_TORCH + code(folder).replace(asked, question) + told, folder).splitlines()
        expected = {row["answer"]: row["score"] for row in vqa.pipeline(run)(photo, question, top_k=None)}
        answers = read_json(folder / "description.json")["answers"]
        assert ast.literal_eval(shares) == pytest.approx([expected[answer] for answer in answers], abs=1e-4)
        assert best == next(iter(expected))
    about, card = read_json(folder / "description.json"), (folder / "README.md").read_text(encoding="utf-8")
    ways = 2 if names == ("flip",) else 8
    assert f"({', '.join(names)}; {ways} in all)" in about["mean_over"] and f"each photo {ways} times" in card
    assert len(about["question"]["ways"]) == ways and about["inputs"]["lengths"].startswith("(ways, questions)")


def test_an_export_is_compared_with_what_people_are_answered(run, tmp_path, monkeypatch):
    """A mean that only the pipeline makes is noticed, and nothing is left."""
    run = averaged(run, tmp_path / "run", "flip")
    honest = Answerer.log_probabilities

    def exchanged(self, *given, **keywords):
        log_p, output = honest(self, *given, **keywords)
        return log_p.flip(-1), output

    monkeypatch.setattr(Answerer, "log_probabilities", exchanged)
    with pytest.raises(UserError, match="onnxruntime's logits differ from PyTorch's by"):
        export(run, "onnx", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_onnx_of_clips_without_torch(clip_run, place):
    folder = export(clip_run, "onnx", place / "clips-onnx", task=video_shareable)
    clip = place / "clips" / "clips" / "test02.avi"
    shutil.copy(clip, folder / "clip.mp4")
    assert run_lines(WITHOUT_TORCH + code(folder), folder) == video.pipeline(clip_run)(clip)[0]["label"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "No test figures: test was not opened" in card and "\nTest:" not in card
    assert ModelCard.load(folder / "README.md").data.eval_results is None


def test_photos_of_classes(place):
    from common.classifier_export import open_shareable

    write_folder(place / "photos", splits=("train", "validation", "test"))
    given = [
        "--data",
        place / "photos",
        "--output",
        place / "image-run",
        "--cache",
        place / "cache",
        *SMALL.split()[:-2],
    ]
    given += ["--encoder", "custom_cnn", "--image-size", "32"]
    run = train_image(parse(TrainImageOptions, list(map(str, given))))
    photo = place / "photos" / "test" / "red_thing" / "red_thing_0.jpg"
    folder = export(run, "folder", place / "photos-shared", task=open_shareable)
    found = common.pipeline(folder)([photo, photo.read_bytes(), Image.open(photo)], top_k=2)
    assert len(found) == 3 and all(row == found[0] for row in found) and len(found[0]) == 2
    assert set(found[0][0]) == {"label", "score"} and found[0][0]["score"] >= found[0][1]["score"]
    onnx = export(run, "onnx", place / "photos-onnx", task=open_shareable)
    shutil.copy(photo, onnx / "photo.jpg")
    assert run_lines(WITHOUT_TORCH + code(onnx), onnx) == found[0][0]["label"]


def test_what_is_refused(run, shared, tmp_path):
    with pytest.raises(UserError, match="exists; choose another, or add --overwrite"):
        export(run, "folder", shared)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(UserError, match="is no export .*: --overwrite will not delete it"):
        export(run, "folder", tmp_path / "mine", "--overwrite")
    assert (tmp_path / "mine" / "thesis.txt").is_file()
    unfinished = Path(shutil.copytree(run, tmp_path / "unfinished"))
    (unfinished / "metrics.json").unlink()
    with pytest.raises(UserError, match="is not finished .*: name one of its checkpoints with --checkpoint"):
        export(unfinished, "folder", tmp_path / "out")
    export(unfinished, "folder", tmp_path / "out", "--checkpoint", "best_loss")
    assert "the run was not finished" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for given, told in (
        (["--to", "folder"], "--to folder needs a folder to write: add --output FOLDER"),
        (["--to", "hub"], "--to hub needs the name of the repository: add --name you/name"),
        (["--to", "hub", "--name", "no-owner"], "give a repository as you/name"),
        (["--to", "onnx", "--output", "x", "--name", "a/b"], "--name and --private are of --to hub"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            parse(ExportOptions, [str(run), *given])


def test_overwritten_whole(run, tmp_path):
    output = export(run, "folder", tmp_path / "out")
    (output / "left-over.txt").write_text("old", encoding="utf-8")
    export(run, "folder", output, "--overwrite", "--license", "mit")
    assert not (output / "left-over.txt").exists() and "license: mit" in (output / "README.md").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_stays_of_onnx_that_differs(run, tmp_path, monkeypatch):
    monkeypatch.setattr("common.export_onnx.TOLERANCE", 0.0)
    with pytest.raises(UserError, match="differ from PyTorch's by"):
        export(run, "onnx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


class FakeHub:
    """The part of `HfApi` that is used; `fails` is raised instead."""

    sent: dict[str, bytes] = {}
    fails: Exception | None = None

    def __init__(self, token=None) -> None:
        self.token = token

    def create_repo(self, name, *, exist_ok, private=None):
        if self.fails is not None:
            raise self.fails
        assert exist_ok
        return f"https://huggingface.co/{name}"

    def upload_folder(self, *, repo_id, folder_path):
        for path in Path(folder_path).rglob("*"):
            FakeHub.sent[f"{repo_id}/{path.relative_to(folder_path).as_posix()}"] = path.read_bytes()


def test_to_the_hub(run, monkeypatch, capsys):
    monkeypatch.setattr("common.hub.HfApi", FakeHub)
    monkeypatch.setattr("common.hub.get_token", lambda: "token")
    monkeypatch.setattr(FakeHub, "sent", {})
    export_run(parse(ExportOptions, [str(run), "--to", "hub", "--name", "toi/hoi-anh"]), vqa_shareable)
    assert "https://huggingface.co/toi/hoi-anh" in capsys.readouterr().out
    assert {"toi/hoi-anh/README.md", "toi/hoi-anh/model.safetensors", "toi/hoi-anh/answers.json"} <= set(FakeHub.sent)
    assert 'vqa.pipeline("toi/hoi-anh")' in FakeHub.sent["toi/hoi-anh/README.md"].decode()
    answerer = vqa.pipeline(run).answerer
    answerer.push_to_hub("toi/khac", private=True)
    assert "toi/khac/config.json" in FakeHub.sent


def test_what_goes_wrong_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr("common.hub.HfApi", FakeHub)
    monkeypatch.setattr("common.hub.get_token", lambda: None)
    with pytest.raises(UserError, match="no token for the Hub; log in with `hf auth login`"):
        upload(tmp_path, "toi/hoi-anh")
    answer = SimpleNamespace(headers={}, request=None)  # the Hub's client has changed the library that makes these
    for error, told in (
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        (HfHubHTTPError("403 Forbidden", response=answer), "the Hub refused .*403 Forbidden.*may your token write"),
        (ConnectionError("name not known"), "the Hub cannot be reached .*name not known"),
    ):
        monkeypatch.setattr(FakeHub, "fails", error)
        with pytest.raises(UserError, match=told):
            upload(tmp_path, "toi/hoi-anh", token="token")


def test_command_without_a_network(run, run_script):
    """A port where nobody listens: one line, exit code 2."""
    given = ("scripts/export.py", run, "--to", "hub", "--name", "toi/hoi-anh")
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_none"}
    done = run_script(*given, check=False, **nowhere)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "export.py: error: toi/hoi-anh: the Hub cannot be reached" in done.stderr.splitlines()[-1]


def test_pipeline_takes_what_there_is(run, shared, scenes):
    ask, photo = vqa.pipeline(shared), scenes / "images" / "200000.png"
    one = ask(photo, QUESTION, top_k=2)
    assert [set(row) for row in one] == [{"answer", "score"}] * 2 and one[0]["score"] >= one[1]["score"]
    assert ask(photo.read_bytes(), QUESTION, top_k=2) == one
    with Image.open(photo) as picture:
        assert ask(picture.convert("RGBA"), QUESTION, top_k=2) == one
    assert ask({"image": str(photo), "question": QUESTION}, top_k=2) == one
    assert sum(row["score"] for row in ask(photo, QUESTION, top_k=None)) == pytest.approx(1, abs=1e-5)

    other = scenes / "images" / "200001.png"
    apart = [ask(image, text) for image, text in ((photo, QUESTION), (photo, "có mấy hình"), (other, "có mấy hình"))]
    pairs = [photo, photo, other], [QUESTION, "có mấy hình", "có mấy hình"]
    asked = [{"image": image, "question": text} for image, text in zip(*pairs, strict=True)]
    for size in (1, 2, 16):
        for found in (ask(*pairs, batch_size=size), ask(asked, batch_size=size)):
            for row, alone in zip(found, apart, strict=True):
                assert [best["answer"] for best in row] == [best["answer"] for best in alone]
                assert [best["score"] for best in row] == pytest.approx([best["score"] for best in alone], abs=1e-5)
    assert len(ask(photo, [QUESTION] * 3)) == 3 and len(ask([photo, other], QUESTION)) == 2
    for given, told in (
        (([photo] * 2, [QUESTION] * 3), "2 photos and 3 questions: give as many, or one of either"),
        ((photo,), "a question is no text"),
        (([photo],), "no question: give one"),
        ((None, QUESTION), "a photo is missing"),
        ((b"no photo", QUESTION), "the photo's bytes: .*not an image"),
    ):
        with pytest.raises(UserError, match=told):
            ask(*given)
    with pytest.raises(UserError, match="top_k 0: give 1 or more"):
        ask(photo, QUESTION, top_k=0)
    with pytest.raises(UserError, match="there is no such run, and it is no name on the Hub"):
        vqa.pipeline("runs/none/at/all")
    with pytest.raises(UserError, match="is a vqa run; a video run is needed here"):
        video.pipeline(run)


def test_pipeline_of_clips(clip_run, place):
    classify, clip = video.pipeline(clip_run), place / "clips" / "clips" / "test00.avi"
    one = classify(clip, top_k=1)
    assert set(one[0]) == {"label", "score"} and classify([clip, clip.read_bytes()], top_k=1) == [one, one]
    with pytest.raises(UserError, match="the clip's bytes"):
        classify(b"no clip")


@pytest.mark.parametrize("terminal", [False, True], ids=["a pipe", "a terminal"])
def test_loading_draws_bars_on_a_terminal_alone(run, clip_run, monkeypatch, terminal):
    """Whichever way it is loaded, and what the user set stays set."""
    said = io.StringIO()
    said.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", said)
    shown = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        for load in (
            lambda: vqa.pipeline(run),
            lambda: video.pipeline(clip_run),
            lambda: VqaModel.from_pretrained(run / "checkpoints" / "best_accuracy"),
        ):
            said.truncate(0)
            load()
            assert ("Loading weights" in said.getvalue()) == terminal
            assert logging.is_progress_bar_enabled()
            assert logging.set_tqdm_hook(None) is None
        mine = []
        logging.set_tqdm_hook(lambda bar, given, keywords: mine.append(keywords) or bar(*given, **keywords))
        vqa.pipeline(run)
        assert mine and not any("disable" in keywords for keywords in mine)
        assert logging.set_tqdm_hook(None) is not None
    finally:
        logging.set_tqdm_hook(None)
        if not shown:
            logging.disable_progress_bar()


def test_importing_costs_nothing():
    said = run_lines(
        "import sys, common, vqa, video; print(sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))",
        ROOT,
    )
    assert said == "[]"
