"""Photos and questions to pick on the page that asks a picture.

Belongs here: which ones, and bringing photos where the browser may read them. The tab itself is `vqa/demo.py`.
"""

import itertools
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from common.demo_options import DemoOptions
from common.errors import UserError
from common.images import read_image
from common.runs import read_run
from vqa.data import read_questions
from vqa.examples import read_predictions
from vqa.scenes import ask as ask_scene
from vqa.scenes import draw, make_scene

_EXAMPLES = 6  # photos
_QUESTIONS = 6  # to pick from
_SHOWN = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")  # what any browser shows
_SCENE = 256  # pixels of an embedded scene on the page


def example_photos(options: DemoOptions, folder: Path) -> list[tuple[Path, str]]:
    """Photos with a question ("" for none), copied into `folder`, from which the browser may read them.

    From `--photos`, evenly spread; of a run that was trained on the embedded scenes, test scenes of it. Raises
    `UserError` for a folder without photos, and for a table that cannot be read.
    """
    if options.photos is None:
        return _scenes(folder) if options.vqa and _trained_on_scenes(options.vqa) else []
    source = Path(options.photos)
    if not source.exists():
        raise UserError(f"--photos {source}: no such folder or table")
    if source.is_dir():
        rows = [(str(path), "") for path in sorted(source.iterdir())]
    else:
        rows = [(row["path"], row["question"]) for row in read_questions(source)]
    rows = [row for row in rows if row[0].lower().endswith(_SHOWN) and Path(row[0]).is_file()]
    if not rows:
        raise UserError(f"--photos {source}: no photos there that a browser shows ({', '.join(_SHOWN)})")
    by_photo = list(dict(reversed(rows)).items())[::-1]  # of several questions the first
    found = []
    for number, (path, question) in enumerate(by_photo[:: -(-len(by_photo) // _EXAMPLES)]):
        read_image(path)  # an example that cannot be asked is none
        found.append((Path(shutil.copyfile(path, folder / f"{number}{Path(path).suffix.lower()}")), question))
    return found


def _trained_on_scenes(run: str) -> bool:
    try:
        return read_run(run)[1].get("data") is None
    except UserError:  # a checkpoint by itself is no run, and does not say
        return False


def _scenes(folder: Path) -> list[tuple[Path, str]]:
    found = []
    for number in range(_EXAMPLES):
        rng = random.Random(f"page {number}")
        scene = make_scene(rng)
        path = folder / f"{number}.png"
        draw(scene, size=_SCENE).save(path)
        questions = ask_scene(scene, rng)
        found.append((path, questions[number % len(questions)].text))
    return found


def example_questions(run: str, more: Sequence[str]) -> list[str]:
    """Questions to pick from: those that a run was scored on, the most frequent of each type in turn; else `more`."""
    for split in ("test", "validation"):
        try:
            rows = read_predictions(Path(run), split)
        except UserError:  # a checkpoint by itself, or a run that was not scored on it
            continue
        counts: dict[str, Counter[str]] = {}
        for row in rows:
            counts.setdefault(row["type"], Counter())[row["question"]] += 1
        by_type = (sorted(its.items(), key=lambda row: (-row[1], row[0])) for _, its in sorted(counts.items()))
        ordered = [[text for text, _ in its] for its in by_type]
        turns = itertools.chain.from_iterable(itertools.zip_longest(*ordered))
        return list(dict.fromkeys(filter(None, turns)))[:_QUESTIONS]
    return list(dict.fromkeys(filter(None, more)))[:_QUESTIONS]
