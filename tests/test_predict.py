"""A trained checkpoint, loaded from its directory alone: what it answers, and what is refused when it is damaged."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image

import vqa
from common.config import parse
from common.errors import UserError
from common.images import read_image
from common.pretrained import find_checkpoint
from common.symmetry import Symmetry
from vqa.model import VqaModel
from vqa.options import EvaluateOptions, PredictVqaOptions, TrainVqaOptions
from vqa.predict import Answerer, predict
from vqa.scoring import evaluate_run
from vqa.shapes import write_shapes
from vqa.text import turned
from vqa.train import train

QUESTION = "hình ở góc trên bên trái màu gì"
SMALL = (
    "--depth 3 --width 4 --image-size 32 --embedding 8 --hidden 16 --projection 16 --attention-hidden 16 "
    "--fusion-hidden 16 --batch-size 8 --epochs 2 --workers 0"
).split()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "scenes", train=16, validation=6, test=6, size=32)


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    given = ["--data", str(scenes), "--output", str(folder / "run"), "--cache", str(folder / "cache"), *SMALL]
    return train(parse(TrainVqaOptions, given))


@pytest.fixture
def checkpoint(run, tmp_path) -> Path:
    """A copy of a checkpoint, away from its run, to spoil."""
    return Path(shutil.copytree(run / "checkpoints" / "best_accuracy", tmp_path / "checkpoint"))


@pytest.fixture
def photo(scenes) -> Path:
    return scenes / "images" / "200000.png"


def test_probabilities(checkpoint, photo):
    answerer = Answerer.from_pretrained(checkpoint)
    with Image.open(photo) as image:
        mixed = [photo, str(photo), image.convert("RGB")]  # by path or as a picture
    probabilities, output = answerer(mixed, [QUESTION, "ở giữa là hình gì", QUESTION])
    assert probabilities.shape == (3, len(answerer.processor.answers))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(probabilities[0], probabilities[2])
    assert output.grid_attention is None and not torch.equal(probabilities[0], probabilities[1])
    best = answerer.best(probabilities[0], 3)
    assert [row["probability"] for row in best] == sorted((row["probability"] for row in best), reverse=True)
    assert best[0]["answer"] == answerer.processor.answers.decode(int(probabilities[0].argmax()))
    assert len(answerer.best(probabilities[0], 10_000)) == len(answerer.processor.answers)


def test_an_answer_is_the_mean_over_the_ways_round(checkpoint, photo):
    answerer = Answerer.from_pretrained(checkpoint)
    with Image.open(photo) as image:
        plain, _ = answerer([image.convert("RGB")], [QUESTION])
        mirror = image.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    other, _ = answerer([mirror], [QUESTION.replace("trái", "phải")])
    answers = answerer.processor.answers.to_list()
    back = [answers.index(turned(answer, Symmetry(mirrored=True))) for answer in answers]
    assert back != list(range(len(answers)))  # "bên trái" is among them
    answerer.model.config.test_augment = ["flip"]
    mean, _ = answerer([photo], [QUESTION])
    expected = (plain.log() + other[:, back].log()).div(2).softmax(dim=-1)
    torch.testing.assert_close(mean, expected, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(mean, plain, atol=1e-4)


def test_attention_weights_are_shares(checkpoint, photo):
    answerer = Answerer.from_pretrained(checkpoint)
    _, output = answerer([photo], [QUESTION], return_attention=True)
    assert output.grid_attention.shape == (1, 2, 8, 8)  # glimpses, and 32 pixels by stride 4
    torch.testing.assert_close(output.grid_attention.sum(dim=(2, 3)), torch.ones(1, 2))


@pytest.mark.parametrize(
    "retyped",
    [
        unicodedata.normalize("NFD", QUESTION),
        QUESTION.upper(),
        QUESTION.capitalize() + "?",
        f"  {QUESTION}  ?",
        QUESTION.replace(" ", "  "),
    ],
)
def test_the_same_question_typed_otherwise(checkpoint, photo, retyped):
    answerer = Answerer.from_pretrained(checkpoint)
    assert torch.equal(answerer([photo], [QUESTION])[0], answerer([photo], [retyped])[0])


def test_a_batch_is_as_good_as_one_by_one(checkpoint, scenes):
    answerer = Answerer.from_pretrained(checkpoint)
    photos = sorted(scenes.glob("images/2*.png"))
    questions = ["ở giữa là hình gì", QUESTION, "có mấy hình"] * 2
    together = answerer(photos, questions)[0]
    alone = torch.cat([answerer([photo], [question])[0] for photo, question in zip(photos, questions, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_several_questions_about_one_photo_are_as_good_as_one_by_one(checkpoint, scenes):
    answerer = Answerer.from_pretrained(checkpoint)
    photos = sorted(scenes.glob("images/2*.png"))[:2]
    questions, which = ["ở giữa là hình gì", QUESTION, "có mấy hình", QUESTION], [1, 0, 1, 1]
    ready = [photos[0], answerer.processor.view(photos[1])]
    together, output = answerer(ready, questions, image_index=which, return_attention=True)
    assert output.grid_attention.shape[0] == 4
    alone = torch.cat([answerer([photos[n]], [text])[0] for n, text in zip(which, questions, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    for given in (None, [0, 1], [0, 1, 2, 0], [0, 1, -1, 0]):
        with pytest.raises(ValueError, match="4 questions about 2 photos"):
            answerer(ready, questions, image_index=given)


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the photos that are decoded, one by one."""
    names = []

    def read(path, **keywords):
        names.append(Path(path).name)
        return read_image(path, **keywords)

    for module in ("vqa.processor", "vqa.predict"):
        monkeypatch.setattr(f"{module}.read_image", read)
    return names


def asked(run: Path, folder: Path, rows: list[tuple[str, str]], *more: str) -> list[dict[str, str]]:
    """What `--input` writes for these rows of photo and question."""
    questions = folder / "questions.csv"
    lines = ["image,question", *(f"{image},{question}" for image, question in rows)]
    questions.write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = ["--run", str(run), "--input", str(questions), "--output", str(folder / "out.csv"), "--overwrite", *more]
    predict(parse(PredictVqaOptions, given))
    with open(folder / "out.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_photo_is_decoded_and_encoded_once_for_all_its_questions(run, scenes, tmp_path, decoded, monkeypatch):
    encoded = []
    encode = VqaModel.encode
    monkeypatch.setattr(VqaModel, "encode", lambda self, pixels: encoded.append(len(pixels)) or encode(self, pixels))
    photos = [path.name for path in sorted(scenes.glob("images/*.png"))[:5]]
    texts = ["ở giữa là hình gì", QUESTION, "có mấy hình"]
    rows = [(photo, text) for text in texts for photo in photos]  # a photo's questions lie apart
    found = asked(run, tmp_path, rows, "--images", str(scenes / "images"))
    assert decoded == photos and sum(encoded) == len(photos)
    assert [(row["image"], row["question"]) for row in found] == rows
    answerer = Answerer.from_pretrained(find_checkpoint(run, None, task="vqa"))
    for row in found:
        probabilities, _ = answerer([scenes / "images" / row["image"]], [row["question"]])
        best = answerer.best(probabilities[0], 1)[0]
        assert row["answer"] == best["answer"] and float(row["probability"]) == pytest.approx(
            best["probability"], abs=1e-4
        )
    for name, small in (("_BATCH", 2), ("_QUESTIONS", 4)):  # a photo's questions may come in several parts
        monkeypatch.setattr(f"vqa.predict.{name}", small)
    decoded.clear()
    again = asked(run, tmp_path, rows, "--images", str(scenes / "images"))
    assert decoded == photos
    for one, other in zip(found, again, strict=True):
        assert one["answer"] == other["answer"] and one["image"] == other["image"]


def test_bad_photos_are_told_with_their_row_or_skipped(run, scenes, tmp_path, decoded, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        shutil.copy(scenes / "images" / f"20000{number}.png", folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no photo")
    rows = [("0.png", "a"), ("bad.png", "a"), ("1.png", "a"), ("bad.png", "b"), ("gone.png", "a"), ("0.png", "b")]
    given = ("--images", str(folder))
    with pytest.raises(UserError, match=r"questions\.csv: row 6: .*gone\.png: no such image file; --on-bad-image skip"):
        asked(run, tmp_path, rows, *given)
    assert decoded == ["gone.png"]  # told before any work
    with pytest.raises(UserError, match=r"questions\.csv: row 3: .*bad\.png: .*not an image.*; --on-bad-image skip"):
        asked(run, tmp_path, rows[:4], *given)
    assert not (tmp_path / "out.csv").exists()
    found = asked(run, tmp_path, rows, *given, "--on-bad-image", "skip")
    assert [(row["image"], row["question"]) for row in found] == [rows[0], rows[2], rows[5]]
    assert "3 answers" in (said := capsys.readouterr().out) and "3 bad photos skipped" in said
    with pytest.raises(UserError, match="not one photo could be read"):
        asked(run, tmp_path, [rows[1], rows[4]], *given, "--on-bad-image", "skip")


WITHOUT_SENSE = [
    ("", "the question '' has no word in it; ask something"),
    (" ?!… ", "the question '?!…' has no word in it; ask something"),
    ("màu gì " * 30, "the question is too long: 209 letters, at most 200; shorten it"),
]


@pytest.mark.parametrize(("question", "told"), WITHOUT_SENSE, ids=["blank", "punctuation", "long"])
def test_what_asks_nothing_is_no_question(run, scenes, photo, tmp_path, question, told):
    """In Python, for one photo, for a folder of them, and in a table, which names the row."""
    ask = vqa.pipeline(run)
    for some in (question, ["màu gì", question]):
        with pytest.raises(UserError, match=re.escape(told)):
            ask(photo, some)
    out = tmp_path / "out.csv"
    given = ["--image", str(photo)], ["--input", str(scenes / "images"), "--output", str(out)]
    for some in given if question else ():
        with pytest.raises(UserError, match=re.escape(told)):
            predict(parse(PredictVqaOptions, ["--run", str(run), "--question", question, *some]))
    if question:
        rows = [(photo.name, "màu gì"), (photo.name, question)]
        with pytest.raises(UserError, match=r"questions\.csv: row 3: " + re.escape(told)):
            asked(run, tmp_path, rows, "--images", str(scenes / "images"))
    assert not out.exists()


def test_a_model_that_reads_no_question_takes_anything_for_one(scenes, photo, tmp_path, capsys):
    given = ["--data", str(scenes), "--output", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), *SMALL]
    run = train(parse(TrainVqaOptions, [*given, "--inputs", "image", "--epochs", "1", "--examples", "0"]))
    ask = vqa.pipeline(run)
    assert all(ask(photo, question) == ask(photo, "màu gì") for question, _ in WITHOUT_SENSE)
    predict(parse(PredictVqaOptions, ["--run", str(run), "--image", str(photo), "--question", "???"]))
    assert "%" in capsys.readouterr().out


def test_loads_in_a_new_process_from_its_directory_alone(checkpoint, photo, tmp_path):
    """No file of the run but the checkpoint's, another folder to work in, no network, another PYTHONHASHSEED."""
    code = (
        "import json, sys; from vqa.predict import Answerer\n"
        "print(json.dumps(Answerer.from_pretrained(sys.argv[1])([sys.argv[2]], [sys.argv[3]])[0].tolist()))"
    )
    root = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {"PYTHONHASHSEED": "7", "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    result = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint), str(photo), QUESTION],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert result.returncode == 0, result.stderr
    probabilities = torch.tensor(json.loads(result.stdout.splitlines()[-1]))
    torch.testing.assert_close(probabilities, Answerer.from_pretrained(checkpoint)([photo], [QUESTION])[0])


def test_find_checkpoint(run, checkpoint, tmp_path):
    assert find_checkpoint(run, None, task="vqa") == run / "checkpoints" / "best_accuracy"  # the one it was scored with
    assert find_checkpoint(run, "last", task="vqa") == run / "checkpoints" / "last"
    assert find_checkpoint(checkpoint, None, task="vqa") == checkpoint
    with pytest.raises(UserError, match="not a run directory"):
        find_checkpoint(tmp_path, None, task="vqa")
    with pytest.raises(UserError, match="not a run directory"):
        find_checkpoint(tmp_path / "nowhere", "last", task="vqa")
    broken = Path(shutil.copytree(run, tmp_path / "broken"))
    shutil.rmtree(broken / "checkpoints" / "last")
    with pytest.raises(UserError, match="last: no such checkpoint"):
        find_checkpoint(broken, "last", task="vqa")
    environment = json.loads((broken / "environment.json").read_text(encoding="utf-8")) | {"task": "video"}
    (broken / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    with pytest.raises(UserError, match="is a video run; a vqa run is needed here"):
        find_checkpoint(broken, None, task="vqa")


def test_a_run_killed_between_two_renames_still_answers(run, tmp_path, photo):
    killed = Path(shutil.copytree(run, tmp_path / "killed"))
    best = killed / "checkpoints" / "best_accuracy"
    best.rename(best.with_name("best_accuracy.old"))
    assert Answerer.from_pretrained(find_checkpoint(killed, None, task="vqa"))([photo], [QUESTION])[0].shape[0] == 1


def shorten(checkpoint: Path) -> None:
    answers = json.loads((checkpoint / "answers.json").read_text(encoding="utf-8"))
    (checkpoint / "answers.json").write_text(json.dumps(answers[:-1]), encoding="utf-8")


def cut(name: str):
    def damage(checkpoint: Path) -> None:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: len(content) // 2])

    return damage


def remove(name: str):
    return lambda checkpoint: (checkpoint / name).unlink()


def other_config(**changes):
    def damage(checkpoint: Path) -> None:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        (checkpoint / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")

    return damage


DAMAGED = {
    "an answer too few": (shorten, r"checkpoint: its vocabularies \(\d+ answers, .* do not fit its weights"),
    "no answers": (remove("answers.json"), r"answers\.json"),
    "cut answers": (cut("answers.json"), r"answers\.json"),
    "cut preprocessing": (cut("preprocessing.json"), r"preprocessing\.json: missing or damaged"),
    "no preprocessing": (remove("preprocessing.json"), r"preprocessing\.json: missing or damaged"),
    "wrong preprocessing": (
        lambda checkpoint: (checkpoint / "preprocessing.json").write_text('{"size": -3}', encoding="utf-8"),
        r"image size -3",
    ),
    "null for preprocessing": (
        lambda checkpoint: (checkpoint / "preprocessing.json").write_text("null", encoding="utf-8"),
        r"preprocessing\.json: is empty, and the model sees photos",
    ),
    "no encoder": (other_config(encoder=None), r"checkpoint.*lacks an encoder"),
    "no preprocessing in its config": (
        other_config(preprocessing=None),
        r"checkpoint.*the preprocessing of its photos",
    ),
    "cut weights": (cut("model.safetensors"), r"checkpoint"),
    "no weights": (remove("model.safetensors"), r"checkpoint"),
    "cut config": (cut("config.json"), r"checkpoint"),
    "no config": (remove("config.json"), r"checkpoint"),
    "another size": (other_config(hidden=24), r"checkpoint.*do not fit"),
    "other parts": (other_config(attention=False), r"checkpoint.*do not fit"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_checkpoint_is_refused_in_one_line(checkpoint, kind):
    damage, message = DAMAGED[kind]
    damage(checkpoint)
    with pytest.raises(UserError, match=message) as refused:
        Answerer.from_pretrained(checkpoint)
    assert "Traceback" not in str(refused.value)


def test_evaluate_refuses_a_vocabulary_that_does_not_fit_too(run, tmp_path):
    spoiled = Path(shutil.copytree(run, tmp_path / "spoiled"))
    shorten(spoiled / "checkpoints" / "best_accuracy")
    (spoiled / "checkpoints" / "best_accuracy" / "checksums.json").unlink()  # else that it was changed is told first
    with pytest.raises(UserError, match="do not fit its weights"):
        evaluate_run(parse(EvaluateOptions, [str(spoiled), "--workers", "0"]))
