"""Pictures of a run's answers: what it takes for what, and typical right and wrong ones on their photos.

Belongs here: choosing what is shown of the predictions of a split, and finding its photos again. Does not belong here:
drawing (`common/plots.py`), counting (`common/confusion.py`), and where the predictions come from (`vqa/scoring.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from common.config import build
from common.confusion import confusions
from common.errors import UserError
from common.images import read_image, shown_box
from common.predictions import read_back
from common.progress import checkpoint_directory
from common.runs import cache_directory, read_run, refuse_existing
from vqa.options import PredictVqaOptions, TrainVqaOptions
from vqa.predict import Answerer
from vqa.scoring import load_source
from vqa.text import normalise

_MOST_TYPES = 12  # a data set may have dozens; a picture that long is read by nobody
PHOTO_SIDE = 460  # pixels of a photo on the sheet, and in memory until it is drawn
_BATCH = 32  # photos encoded together


def draw_confusions(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Draw which answer was given for which, for each type of question, from the rows of `predictions-<split>.csv`.

    At most the 30 most frequent answers of a type are told apart: its others are "khác (how many)", and what no
    question of that type has for an answer is "ngoài loại (how many)". At most the 12 most frequent types are drawn.
    """
    from common.plots import draw_confusion

    matrices = confusions(rows, most_groups=_MOST_TYPES, rest="khác", outside="ngoài loại")
    draw_confusion(matrices, path, title=title)


# --- choosing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Typical:
    """What stands for the answers to one type of question."""

    type: str
    n: int
    """answers of this type"""
    n_right: int
    right: list[dict[str, Any]]
    wrong: list[dict[str, Any]]


def _answered_right(row: Mapping[str, Any]) -> bool:
    return row["gold"] == row["predicted"]


def typical(
    rows: Sequence[Mapping[str, Any]],
    per_type: int = 4,
    *,
    right: Callable[[Mapping[str, Any]], bool] = _answered_right,
    by: str = "probability",
) -> list[Typical]:
    """Right and wrong answers that stand for the others, `per_type` of each type, chosen by a rule and not by eye.

    `rows` are those of `predictions-<split>.csv`, `probability` (or what `by` names) a number. Within a type the right
    answers are ordered by their probability (equal ones by id) and cut into `per_type + 1` equal parts; the answers at
    the cuts are taken: one is the median, three are the quartiles, four the quintiles. Of the wrong ones the most
    confident is taken, and the others at the cuts into `per_type` parts; with `per_type` 1 the median alone. If all
    fit, all are taken.

    A photo already taken, of this or another type, is avoided: the nearest answer with a new photo is taken instead,
    if it lies less than half a part away. Types come by name, answers by falling probability; of more than 12 types
    the most frequent. Nothing is random.
    """
    together: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        together.setdefault(row["type"], []).append(dict(row))
    largest = sorted(together, key=lambda name: (-len(together[name]), name))[:_MOST_TYPES]
    seen: set[tuple[str, str]] = set()
    found = []
    for name in sorted(largest):
        ordered = sorted(together[name], key=lambda row: (-row[by], row["id"]))
        hits = [row for row in ordered if right(row)]
        misses = [row for row in ordered if not right(row)]
        lead = per_type > 1  # the most confident mistake
        found.append(
            Typical(
                type=name,
                n=len(ordered),
                n_right=len(hits),
                right=_spread(hits, per_type, seen=seen),
                wrong=_spread(misses, per_type, seen=seen, lead=lead),
            )
        )
    return found


def _spread(
    ordered: Sequence[dict[str, Any]], count: int, *, seen: set[tuple[str, str]], lead: bool = False
) -> list[dict[str, Any]]:
    """`count` of these rows at equal distances, with `lead` the first one too; their photos join `seen`."""
    if len(ordered) <= count:
        chosen = list(range(len(ordered)))
    else:
        parts = count + (not lead)
        chosen = [0] if lead else []
        seen.update(_photo(ordered[place]) for place in chosen)
        for cut in range(1, parts):
            wanted, reach = cut * (len(ordered) - 1) / parts, (len(ordered) - 1) / parts / 2
            near = [place for place in range(len(ordered)) if abs(place - wanted) < max(reach, 1)]
            free = [place for place in near if place not in chosen]
            chosen.append(min(free, key=lambda place: (_photo(ordered[place]) in seen, abs(place - wanted), place)))
            seen.add(_photo(ordered[chosen[-1]]))
    seen.update(_photo(ordered[place]) for place in chosen)
    return [ordered[place] for place in sorted(chosen)]


def _photo(row: Mapping[str, Any]) -> tuple[str, str]:
    """Predictions name a photo by its file alone; two folders may have equal names, and groups tell them apart."""
    return row["group"], row["image"]


# --- showing ----------------------------------------------------------------------------------------------------------


def write_examples(options: PredictVqaOptions) -> None:
    """`scripts/predict_vqa.py --examples`: a sheet of typical answers of a run, and where it looked for them.

    Raises `UserError` for a run whose predictions of that split are missing or damaged, and if its data are gone or
    are not those that it was scored on.
    """
    assert options.examples is not None  # or nobody would call
    run, out = Path(options.run), Path(options.examples)
    refuse_existing(options.examples, overwrite=options.overwrite, option="--examples")
    if (run / "model.safetensors").is_file():
        raise UserError(f"{run} is a checkpoint: --examples needs the run directory it lies in, which has predictions")
    task, saved = read_run(run)
    if task != "vqa":
        raise UserError(f"{run} is a {task} run, not a VQA run")
    trained = build(TrainVqaOptions, saved, where=str(run / "config.yaml"))
    if trained.inputs == "question":
        raise UserError(f"--examples: {run} was trained on questions alone, so there are no photos to show")
    if trained.shuffled_images:
        raise UserError(
            f"--examples: {run} was scored with shuffled images: its answers are not about their own photos"
        )
    predictions = read_predictions(run, options.split)
    chosen = typical(predictions, options.per_type)
    disable_progress_bar()
    answerer = Answerer.from_pretrained(checkpoint_directory(run, trained.score))
    picked = _picked(chosen)
    paths = _photo_paths(picked, trained, options, run)
    _draw_sheet(answerer, chosen, paths, out, title=f"{run.resolve().name}, {options.split}", of=predictions)
    print(f"{len(picked)} of {len(predictions):,} answers of {options.split} in {out}")


def draw_examples(
    answerer: Answerer,
    said: Sequence[Mapping[str, Any]],
    photos: Mapping[str, str],
    out: Path,
    split: str,
    *,
    per_type: int,
) -> None:
    """The same sheet of a run that ends now, PNG and SVG: `said` are its predictions' rows, `photos` is id → file."""
    chosen = typical(said, per_type)
    paths = [photos[row["id"]] for row in _picked(chosen)]
    title = f"{out.resolve().parent.name}, {split}"
    _draw_sheet(answerer, chosen, paths, out, title=title, of=said, with_svg=True)


def _picked(chosen: Sequence[Typical]) -> list[dict[str, Any]]:
    return [row for part in chosen for row in part.right + part.wrong]


def _draw_sheet(
    answerer: Answerer,
    chosen: Sequence[Typical],
    paths: Sequence[str],
    out: Path,
    *,
    title: str,
    of: Sequence[Mapping[str, Any]],
    with_svg: bool = False,
) -> None:
    """Draw what was chosen of the predictions `of`; `paths` are the photos of what is picked, in order."""
    from common.plots import ShownRow, draw_answers

    shown = iter(_shown(answerer, _picked(chosen), paths))
    rows = []
    for part in chosen:
        for right, some in ((True, part.right), (False, part.wrong)):
            count = part.n_right if right else part.n - part.n_right
            heading = f"{part.type}: {'right' if right else 'wrong'}, {count:,} of {part.n:,} ({count / part.n:.1%})"
            rows.append(ShownRow(heading=heading, right=right, answers=[next(shown) for _ in some]))
    total = len({row["type"] for row in of})
    types = f", the {len(chosen)} most frequent of {total} types" if total > len(chosen) else ""
    over = ""
    preprocessing = answerer.processor.preprocessing
    if "grid" in answerer.model.config.attends and preprocessing is not None:
        cropped = preprocessing.resize == "crop"
        over = "; clear, within the line: where it looked" + ("; the edge was cropped away" if cropped else "")
    draw_answers(rows, out, title=f"{title}{types}: typical answers{over}", with_svg=with_svg)


def read_predictions(run: Path, split: str) -> list[dict[str, Any]]:
    """The rows of a run's `predictions-<split>.csv`, `probability` as a number. Raises `UserError` if there is none."""
    path = run / f"predictions-{split}.csv"
    if not path.is_file():
        hint = "; if it was trained with --no-test, show --split validation" if split == "test" else ""
        raise UserError(f"{path}: not there, so {run} was not scored on {split}{hint}")
    numbers, columns = read_back(path)
    wanted = ("id", "group", "type", "gold", "predicted", "question", "image", "probability")
    lacking = [name for name in wanted if name not in columns]
    if lacking:
        raise UserError(f"{path}: damaged (it has no column {lacking[0]}); score the run again")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for number, row in zip(numbers, rows, strict=True):
        try:
            row["probability"] = float(row["probability"])
        except ValueError:
            raise UserError(f"{path}, row {number}: damaged (probability is no number); score the run again") from None
        if not 0 <= row["probability"] <= 1:
            raise UserError(f"{path}, row {number}: damaged (probability is not in 0–1); score the run again")
    return rows


def _photo_paths(
    rows: Sequence[Mapping[str, Any]], trained: TrainVqaOptions, options: PredictVqaOptions, run: Path
) -> list[str]:
    """Where the photo of each prediction is, from the data of its run, loaded and checked as they were for it."""
    trained.images = options.images or trained.images
    if options.on_bad_image == "skip":
        trained.on_bad_image = "skip"
    split = load_source(trained, cache_directory(trained.cache)).splits[options.split]
    columns = (split[name][:] for name in ("id", "image", "question", "answer"))
    there = {name: row for name, *row in zip(*columns, strict=True)}
    paths = []
    for row in rows:
        path, question, answer = there.get(row["id"], ("", "", ""))
        if (Path(path).name, question, normalise(answer)) != (row["image"], row["question"], row["gold"]):
            raise UserError(
                f"{run}: the question {row['id']} it was scored on is not in {options.split} of "
                f"{trained.data or 'the embedded set'} any more; the data have changed since"
            )
        paths.append(path)
    return paths


def _shown(answerer: Answerer, rows: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> list[Any]:
    """Each answer with its photo, made small, and the mean of the glimpses if the model attends over the grid."""
    from common.plots import Shown

    looks = "grid" in answerer.model.config.attends
    preprocessing = answerer.processor.preprocessing
    assert preprocessing is not None  # or there would be no photos
    shown = []
    for start in range(0, len(rows), _BATCH):
        part = list(zip(rows[start : start + _BATCH], paths[start : start + _BATCH], strict=True))
        views, photos, sizes = [], [], []
        for _, path in part:
            photo = read_image(path)
            sizes.append(photo.size)
            if looks:
                views.append(answerer.processor.view(photo))
            photo.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
            photos.append(photo)
        maps: Any = [None] * len(part)
        if looks:
            _, output = answerer(views, [row["question"] for row, _ in part], return_attention=True)
            assert output.grid_attention is not None  # asked for
            maps = output.grid_attention.float().mean(dim=1).cpu().numpy()  # (B, h, w)
        for (row, _), photo, size, weights in zip(part, photos, sizes, maps, strict=True):
            shown.append(
                Shown(
                    photo=photo,
                    size=size,
                    weights=weights,
                    box=shown_box(size, preprocessing),
                    caption=row["question"],
                    gold=row["gold"],
                    predicted=row["predicted"],
                    probability=row["probability"],
                )
            )
    return shown
