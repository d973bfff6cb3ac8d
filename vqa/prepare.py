"""A question set from photos: read, grouped, split, asked about, balanced, and written as a folder that trains.

Belongs here: that flow, and what the written folder says about itself. Does not belong here: how labels and boxes are
read (`common/classifier_rows.py`, `vqa/box_files.py`), what is asked (`vqa/questions.py`), and the rules of our own
sets (`vqa/prepare_sets.py`).
"""

import csv
import functools
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import datasets
import numpy as np

from common.classifier_rows import label_names, read_photos
from common.columns import columns_from
from common.config import to_plain
from common.errors import UserError
from common.files import read_object, write_json
from common.folders import write_folder
from common.images import read_image
from common.photos import check_photos, plain_text
from common.records import SPLITS, open_file, to_path
from common.runs import cache_directory, typed_command, write_text
from common.tables import markdown
from vqa.baseline_options import BaselineOptions
from vqa.baselines import fit_baseline, score
from vqa.box_files import fractions, read_boxed
from vqa.color_names import ColorRule, dominant_color
from vqa.prepare_options import PrepareOptions
from vqa.prepare_sets import rebuild
from vqa.prepare_splits import split_photos
from vqa.questions import WORDINGS, Photo, Question, ask_boxes, ask_labels, balance, chance, spelled

ABOUT = "about.json"
BASELINES: tuple[Literal["majority", "majority_per_type", "lookup"], ...] = ("majority", "majority_per_type", "lookup")
FEW = 500  # training photos; with so few, the 20 epochs of the configuration are too short


@dataclass(kw_only=True)
class Names:
    """What a CSV of `--names` says: label → name, name → category, and names of what is not counted."""

    name: dict[str, str]
    category: dict[str, str]
    uncountable: frozenset[str]

    def of(self, label: str) -> str:
        return self.name.get(_plain(label), _plain(label))


def _plain(label: str) -> str:
    """A label as it is looked up, and as its name is where nobody gave one: a folder may have either of the spellings
    "xanh_la" and "xanh la"."""
    return spelled(label.replace("_", " "))


def prepare(options: PrepareOptions) -> Path:
    """`scripts/prepare_data.py`: make the set, print what it is and what a blind guess scores; → its folder.

    Raises `UserError` for anything wrong with the source or the options; nothing is written then.
    """
    source, output = to_path(options.source), to_path(options.output)
    if not source.exists():
        raise UserError(f"{options.source}: no such file or folder")
    check_output(source, output, overwrite=options.overwrite)
    cache = cache_directory(options.cache)
    if options.kind in ("labels", "boxes"):
        photos, names, notes = (_labelled if options.kind == "labels" else _boxed)(options, cache)
        photos, more = split_photos(photos, options)
        asked, asking = _ask(photos, names, options)
        notes += more + asking
        named = {photo.name: f"images/{photo.name}" for photo in photos}
    else:
        asked, named, notes = rebuild(options, cache)
    if options.photos == "stay":
        root = to_path(options.images) if options.images else (source if source.is_dir() else source.parent)
        named = {
            q.photo.name: Path(os.path.relpath(q.photo.path, root)).as_posix() for part in asked.values() for q in part
        }
    for split in ("train", "validation", "test"):
        if not asked.get(split):
            raise UserError(
                f"{options.source}: no question is left for {split}; give more photos, or other --questions, "
                "--balance or --clear-color"
            )
    notes = [*_counts(asked), *notes]
    table = blind_table(asked, options.seed)
    boxes = any(question.boxes for part in asked.values() for question in part)
    train = "accelerate launch scripts/train_vqa.py --config configs/vqa/food.yaml --data "
    train += shlex.quote(options.output)
    if len({question.photo.name for question in asked["train"]}) < FEW:
        train += " --epochs 60"
    if options.photos == "stay":
        train += f" --images {shlex.quote(str(root))}"
    write_folder(
        output,
        lambda folder: _fill(folder, asked, named, options, notes=notes, table=table, boxes=boxes),
        last=ABOUT,
        replace=options.overwrite,
    )
    told = [*notes, "", "what a guess that never looks scores on test:", "", table, "", f"{output} is ready. Next:"]
    print("\n".join([*told, f"  {train}"]), flush=True)
    return output


def check_output(source: Path, output: Path, *, overwrite: bool) -> None:
    """Raises `UserError` for an output that must not be written, before any work is done."""
    here, there = os.path.realpath(output), os.path.realpath(source)
    if here == there or here.startswith(there + os.sep) or there.startswith(here + os.sep):
        raise UserError(f"--output {output}: lies in the source, or the source in it; choose a folder of its own")
    if os.path.lexists(output):
        if not overwrite:
            raise UserError(f"--output {output} exists; choose another, or add --overwrite")
        if not (output / ABOUT).is_file() or read_object(output / ABOUT).get("made by") != "prepare_data":
            raise UserError(f"--overwrite replaces only what this command made, and {output} is something else")


# --- photos -----------------------------------------------------------------------------------------------------------


def _labelled(options: PrepareOptions, cache: Path) -> tuple[list[Photo], Names, list[str]]:
    columns = columns_from(options.columns)
    rows, notes = read_photos(
        options.source, images=options.images, columns=columns, skip=options.on_bad_image == "skip", cache=cache
    )
    names = read_names(options.names, {label_names(row)[-1] for row in rows})
    root = os.path.realpath(to_path(options.images or options.source))
    root = root if os.path.isdir(root) else os.path.dirname(root)
    photos: dict[str, Photo] = {}
    for row in rows:
        name = _name(row["image"], root, row["hash"])
        photo = Photo(
            path=row["image"],
            name=name,
            digest=row["hash"],
            group="" if row["group"] == row["hash"][:16] else row["group"],  # the photo itself: no group was given
            split=row["split"] if options.keep_splits else "",
            label=names.of(label_names(row)[-1]),
        )
        if (there := photos.setdefault(name, photo)).label != photo.label or there.split != photo.split:
            raise UserError(
                f"{row['where']}, row {row['row']}: {row['image']} is listed twice, with another label or split"
            )
    kept = list(photos.values())
    if options.per_class is not None:
        kept = _per_class(kept, options.per_class, options.seed)
        notes.append(f"--per-class {options.per_class}: {len(kept):,} of {len(photos):,} photos are used")
    labels = {photo.label for photo in kept}
    if len(labels) < 2:
        raise UserError(f"{options.source}: all photos have the label {labels.pop()!r}; questions need two or more")
    return kept, names, notes


def _boxed(options: PrepareOptions, cache: Path) -> tuple[list[Photo], Names, list[str]]:
    columns = columns_from(options.columns)
    told, root = read_boxed(options.source, format=options.format, images=options.images, columns=columns)
    names = read_names(options.names, {label for photo in told for label, _, _ in photo.things})
    skip = options.on_bad_image == "skip"
    checked = check_photos(list(dict.fromkeys(photo.path for photo in told)), cache, stop=not skip)
    photos: dict[str, Photo] = {}
    bad: list[str] = []
    for boxed in told:
        try:
            found = checked[boxed.path]
            if isinstance(found, UserError):
                raise found
            things = fractions(boxed)
        except UserError as error:
            bad.append(str(error))
            if not skip:
                raise UserError(f"{error}; --on-bad-image skip leaves such photos out") from None
            continue
        name = _name(boxed.path, os.path.realpath(root), found)
        photo = Photo(path=boxed.path, name=name, digest=found, group=boxed.group)
        photo.split = boxed.split if options.keep_splits else ""
        if name in photos:
            raise UserError(f"{boxed.where}: {boxed.path} has boxes in {photos[name].path} already; keep one of them")
        for label, box, _ in things:
            photo.boxes.setdefault(names.of(label), []).append(box)
        photo.crowds = frozenset(names.of(label) for label, _, crowd in things if crowd)
        photo.label = " ".join(sorted(photo.boxes))
        photos[name] = photo
    if not photos:
        raise UserError(f"{options.source}: no photo is left, for all are missing or unreadable: {bad[0]}")
    notes = [f"skipped: {len(bad):,} of {len(told):,} photos; the first: {first}" for first in bad[:1]]
    return list(photos.values()), names, notes


def _name(path: str, root: str, digest: str) -> str:
    """A photo's path in the source, or for one elsewhere (the Hub's cache) its content."""
    inside = os.path.relpath(os.path.realpath(os.path.dirname(path)), root)
    if inside.startswith(".."):
        return digest + PurePath(path).suffix
    return PurePath(inside, os.path.basename(path)).as_posix()


def _per_class(photos: Sequence[Photo], most: int, seed: int) -> list[Photo]:
    counts: Counter[tuple[str, str]] = Counter()
    kept = []
    for photo in sorted(photos, key=lambda photo: chance(seed, "per class", photo.name).random()):
        counts[photo.split, photo.label] += 1
        if counts[photo.split, photo.label] <= most:
            kept.append(photo)
    return sorted(kept, key=lambda photo: photo.name)


def read_names(path: str | None, labels: set[str]) -> Names:
    """The file of `--names`. Raises `UserError` for one without its columns, and for a label that the photos lack."""
    if path is None:
        return Names(name={}, category={}, uncountable=frozenset())
    source = open_file(to_path(path))
    for column in ("label", "name"):
        if column not in source.names:
            raise UserError(f"{path}: no column '{column}'; it has: {', '.join(source.names[:20])}")
    columns: list[str] = [name for name in ("label", "name", "category", "countable") if name in source.names]
    known = {_plain(label) for label in labels}
    name: dict[str, str] = {}
    category: dict[str, str] = {}
    uncountable = set()
    for numbers, batch in source.batches(columns):
        for place, number in enumerate(numbers):
            row = {column: spelled(plain_text(batch[column][place])) for column in columns}
            if not row["label"] or not row["name"]:
                raise UserError(f"{path}, row {number}: label or name is blank; fill it in or remove the row")
            label = _plain(row["label"])
            if label not in known:
                raise UserError(f"{path}, row {number}: no photo has the label {row['label'][:50]!r}; is it misspelt?")
            if label in name:
                raise UserError(f"{path}, row {number}: the label {row['label'][:50]!r} is named twice")
            name[label] = row["name"]
            if row.get("category"):
                category[row["name"]] = row["category"]
            countable = row.get("countable", "").lower() or "yes"
            if countable not in ("yes", "no", "có", "không"):
                raise UserError(f"{path}, row {number}: countable is {countable[:20]!r}; write yes or no")
            if countable in ("no", "không"):
                uncountable.add(row["name"])
    return Names(name=name, category=category, uncountable=frozenset(uncountable))


# --- questions --------------------------------------------------------------------------------------------------------


def color_of(rule: ColorRule, clear: float) -> Callable[[Photo], str | None]:
    """What `vqa.color_names` says of a photo."""

    @functools.cache
    def named(path: str) -> str | None:
        return dominant_color(read_image(path, shrink_to=256), rule, clear=clear)

    return lambda photo: named(photo.path)


def _ask(photos: Sequence[Photo], names: Names, options: PrepareOptions) -> tuple[dict[str, list[Question]], list[str]]:
    categories = names.category if options.kind == "labels" else {}
    wordings = WORDINGS["photo"] | WORDINGS[options.style]
    for kind in wordings:
        wordings[kind] = getattr(options, kind.replace("/", "_")) or wordings[kind]
    default = ("what", "yes/no", "color", *(("category",) if categories else ()))
    kinds = options.questions or (default if options.kind == "labels" else ("yes/no", "number", "place"))
    if "category" in kinds and not categories:
        raise UserError("--questions category: needs --names with a column category")
    asked, gone = {}, 0
    for split in SPLITS:
        part = [photo for photo in photos if photo.split == split]
        if options.kind == "labels":
            rule = ColorRule(middle=options.color_middle)
            found = ask_labels(
                part,
                kinds,
                wordings,
                style=options.style,
                seed=options.seed,
                split=split,
                categories=categories,
                color_of=color_of(rule, options.clear_color),
            )
        else:
            found = ask_boxes(
                part,
                kinds,
                wordings,
                seed=options.seed,
                split=split,
                most_counted=options.most_counted,
                uncountable=names.uncountable,
            )
        if options.balance is not None:
            types = ("color", "number", "place")
            found, count = balance(found, types=types, most=options.balance, seed=options.seed, split=split)
            gone += count
        asked[split] = found
    told = f"left out: {gone:,} questions for colour, number or place, so that no answer is a good guess (--balance)"
    return asked, [told] * bool(gone)


# --- what is told -----------------------------------------------------------------------------------------------------


def _counts(asked: Mapping[str, Sequence[Question]]) -> list[str]:
    notes = []
    for split, questions in asked.items():
        types = Counter(question.type for question in questions)
        told = ", ".join(f"{name} {count:,}" for name, count in sorted(types.items()))
        photos = {question.photo.name for question in questions}
        groups = {question.photo.group for question in questions}
        notes.append(
            f"{split}: {len(questions):,} questions about {len(photos):,} photos in {len(groups):,} groups; {told}"
        )
    return notes


def blind_table(asked: Mapping[str, Sequence[Question]], seed: int) -> str:
    """Accuracy on test of the guesses that see no photo, fitted on train, for each type and for all: Markdown."""
    train, test = (
        datasets.Dataset.from_dict(
            {name: [getattr(question, name) for question in asked[split]] for name in ("question", "answer", "type")}
        )
        for split in ("train", "test")
    )
    types = np.array(test["type"][:])
    rows: list[dict[str, Any]] = [
        {"type": name, "n": int((types == name).sum())} for name in sorted(set(types.tolist()))
    ] + [{"type": "all", "n": len(types)}]
    for baseline in BASELINES:
        guess, answers = fit_baseline(train, BaselineOptions(baseline=baseline, seed=seed))
        scores = score(guess, answers, test, probabilities=True)
        right = scores.predicted == scores.gold
        for row in rows:
            some = right if row["type"] == "all" else right[types == row["type"]]
            row[baseline.replace("_", " ")] = float(some.mean())
    return markdown(rows)


def _fill(
    folder: Path,
    asked: Mapping[str, Sequence[Question]],
    named: Mapping[str, str],
    options: PrepareOptions,
    *,
    notes: Sequence[str],
    table: str,
    boxes: bool,
) -> None:
    columns = ["image", "group", "question", "answer", "type", *(["boxes"] if boxes else [])]
    for split, questions in asked.items():
        with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            for one in questions:
                row = [named[one.photo.name], one.photo.group, one.question, one.answer, one.type]
                writer.writerow(row + [one.boxes] * boxes)
        if options.photos == "copy":
            for photo in {question.photo.name: question.photo for question in questions}.values():
                target = folder / named[photo.name]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(photo.path, target)
    plain = {key: value for key, value in to_plain(options).items() if key not in ("overwrite", "cache")}
    write_json(folder / ABOUT, {"made by": "prepare_data", "options": plain, "notes": list(notes)})
    lines = [
        "# Questions about photos",
        "",
        "Made by this command; the same photos and options give the same files:",
        "",
        f"    {typed_command()}",
        "",
        *[f"- {note}" for note in notes],
        "",
        "What a guess that never looks at a photo scores on test:",
        "",
        table,
        "",
        "The questions come from wordings, not from people. The photos keep their owners' licence.",
        "",
    ]
    write_text(folder / "README.md", "\n".join(lines))
