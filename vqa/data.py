"""Questions about photos: from any supported source to checked splits of `datasets.Dataset`.

    data = load_vqa("FOLDER", cache_directory=Path("cache"))
    data.splits["train"][0]      # id, image, image_hash, question, answer, answers, type, group, row[, boxes]

Belongs here: where rows come from, which of their columns is what, that every photo is there, may be read and can be
read, and that no split leaks into another. Does not belong here: how files are read (`common/records.py`), photos found
and checked (`common/photos.py`), groups split and compared (`common/splits.py`), texts spelled (`vqa/text.py`).

A source is a folder of split files (train, validation or val/valid/dev, test), one file, or a Hugging Face data set
(saved in a folder, or a Hub id). A file is .csv, .tsv, .json, .jsonl or .parquet. Whatever is wrong with it is told
once, at load, with file and row: in CSV and TSV the header is row 1, elsewhere the first record is.
"""

import functools
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from common.columns import map_columns, need_columns
from common.errors import UserError
from common.images import content_hash
from common.photos import PhotoFolder, broken_text, check_photos, photo_reference, plain_text
from common.records import SPLITS, Columns, Source, find_sources, open_file, to_path
from common.splits import Overlap, check_overlap, describe, group_split, link_groups
from vqa.boxes import check_count, read_boxes
from vqa.text import normalise

MOST_ANSWERS = 1_000
"""Of one question: ten is what people collect."""
COLUMNS = ("image", "question", "answer", "answers", "type", "group", "id", "boxes")
VIVQA_TYPES = {"0": "object", "1": "number", "2": "color", "3": "location"}  # Tran et al., PACLIC 2021


@dataclass(kw_only=True)
class VqaData:
    """A loaded source."""

    splits: dict[str, datasets.Dataset]
    """train, validation, test; see `load_vqa` for the columns"""
    notes: list[str]
    """lines for a person: sizes, types, how splits were made, what was left out, what leaks"""
    leaks: list[Overlap]
    """overlaps between the source's own splits, empty unless `allow_leaky_split`"""


# --- loading ----------------------------------------------------------------------------------------------------------


def load_vqa(
    source: str,
    *,
    images: str | None = None,
    columns: Mapping[str, str] | None = None,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_image: str = "fail",
    allow_leaky_split: bool = False,
    need_images: bool = True,
    cache_directory: Path,
    limit: int | None = None,
    check_boxes: bool = False,
) -> VqaData:
    """Load and check the three splits of `source`.

    Columns: `id`, `image` (absolute path), `image_hash` (SHA-256 of the photo's bytes), `question`, `answer`, `answers`
    (all reference answers), `type` ("all" where the source has none), `group`, `row`, and `boxes` (JSON or "") where
    the source has it. Texts stay as they are in the source. Without an `answer` column it is the most frequent of
    `answers` (the first of equals). Without a `group` column the photo's content is the group: equal file names in two
    folders are two photos, one photo under two names is one. Where ids are missing or not unique they are SPLIT-ROW.

    images: folder the photos are in; default the folder of the source. A photo named by a number (ViVQA's `img_id`) is
      found as `N.jpg`, as `000000000N.jpg` or by COCO's names, in that folder or a folder in it.
    columns: ours → theirs, for sources that name them otherwise. ViVQA's own columns need no mapping.
    validation_fraction, test_fraction, split_seed: a split the source lacks is taken from train, in whole groups,
      stratified by type and answer; test first, validation from what is left.
    on_bad_image: "fail", or "skip": rows of missing or unreadable photos are left out and counted in the notes.
    need_images: False for models that see none: photos may be absent, `image` and `image_hash` are "".
    limit: use only the first so many photos of each file, for smoke tests.
    check_boxes: refuse boxes that `vqa.boxes.read_boxes` cannot read; nobody else looks at them.

    Raises `UserError` for anything wrong with the source: see the module.
    """
    _check_choice("on_bad_image", on_bad_image, ("fail", "skip"))
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: give a number of photos, 1 or more")
    found = find_sources(source, cache_directory)
    if "train" not in found:
        raise UserError(f"{source}: has no train split, only {', '.join(found)}")
    tables = {
        split: _read_table(
            part,
            columns=columns or {},
            need_images=need_images,
            cache=cache_directory,
            limit=limit,
            check_boxes=check_boxes,
        )
        for split, part in found.items()
    }
    notes = [] if limit is None else [f"limit: only the first {limit:,} photos of each file are used"]
    notes += _add_photos(
        list(tables.values()), images, need_images=need_images, on_bad_image=on_bad_image, cache=cache_directory
    )
    splits = {split: _to_dataset(table.columns) for split, table in tables.items()}
    leaks = [
        leak
        for pair in itertools.combinations([split for split in SPLITS if split in splits], 2)
        if (leak := check_leak(splits[pair[0]], splits[pair[1]], names=pair, allow=allow_leaky_split))
    ]
    for split, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if split not in splits:
            where, count = tables["train"].where, len(splits["train"])
            splits["train"], splits[split] = _take_split(
                splits["train"], fraction=fraction, seed=split_seed, what=where
            )
            notes.append(
                f"{split}: {len(splits[split]):,} of {count:,} training rows of {where}, whole groups, stratified by "
                f"type and answer (split seed {split_seed})"
            )
    splits = {split: splits[split] for split in SPLITS}
    notes = [_summary(split, rows) for split, rows in splits.items()] + notes
    return VqaData(splits=splits, notes=notes + [f"LEAKY: {describe(leak)}" for leak in leaks], leaks=leaks)


def load_rows(
    source: str,
    *,
    split: str = "test",
    images: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad_image: str = "fail",
    need_images: bool = True,
    cache_directory: Path,
    check_boxes: bool = False,
) -> tuple[datasets.Dataset, list[str]]:
    """Load one file, or `split` of a folder or Hub id, to be scored: → rows as from `load_vqa`, and notes."""
    _check_choice("on_bad_image", on_bad_image, ("fail", "skip"))
    path = to_path(source)
    if os.path.isfile(path):
        split, part = path.stem, open_file(path)
    else:
        part = find_sources(source, cache_directory, only=split)[split]
    table = _read_table(
        part, columns=columns or {}, need_images=need_images, cache=cache_directory, check_boxes=check_boxes
    )
    notes = _add_photos([table], images, need_images=need_images, on_bad_image=on_bad_image, cache=cache_directory)
    rows = _to_dataset(table.columns)
    return rows, [_summary(split, rows), *notes]


def read_questions(
    source: str | Path,
    *,
    images: str | None = None,
    columns: Mapping[str, str] | None = None,
    question: str | None = None,
    need_images: bool = True,
) -> list[dict[str, Any]]:
    """The rows of a file to be answered: `image` as written, `path` (absolute), `question` (or the one given), `row`.

    Whether a photo is there and can be read is not checked, only that its path may be followed.
    """
    needed = ("image",) * need_images + ("question",) * (question is None)
    table = _read_table(
        open_file(to_path(source)),
        columns=columns or {},
        need_images=need_images,
        cache=None,
        needed=needed,
        also=("question",),
    )
    paths = _locate_all(table, images) if need_images else {}
    texts = [question] * len(table.columns["row"]) if question is not None else table.columns["question"]
    rows = []
    for reference, text, row in zip(table.columns["image"], texts, table.columns["row"], strict=True):
        if need_images and not reference:
            raise UserError(f"{table.where}, row {row}: image is blank")
        rows.append({"image": reference, "path": paths.get(reference, ""), "question": text, "row": row})
    return rows


# --- leaks ------------------------------------------------------------------------------------------------------------


def row_key(row: Mapping[str, str]) -> str:
    """What makes two rows the same: question and answer as `normalise` spells them, and the photo (else the group)."""
    return "\t".join((normalise(row["question"]), normalise(row["answer"]), row["image_hash"] or row["group"]))


def split_keys(rows: datasets.Dataset) -> dict[str, list[str]]:
    """What `find_overlap` compares: photos, groups and rows of a split. Without photos the groups stand for them."""
    groups = rows["group"][:]
    photos = [digest or group for digest, group in zip(rows["image_hash"][:], groups, strict=True)]
    spelled = functools.cache(normalise)  # questions come in few phrasings, answers in few words
    keys = zip(map(spelled, rows["question"][:]), map(spelled, rows["answer"][:]), photos, strict=True)
    return {"photos": photos, "groups": groups, "rows": list(map("\t".join, keys))}


def check_leak(
    first: datasets.Dataset, second: datasets.Dataset, *, names: tuple[str, str], allow: bool = False
) -> Overlap | None:
    """What `second` shares with `first`: refused with the counts (`UserError`), or with `allow` returned."""
    return check_overlap(split_keys(first), split_keys(second), names=names, allow=allow)


def check_trained_on(
    trained: Mapping[str, Iterable[str]], scored: Mapping[str, Iterable[str]], *, where: str, allow: bool
) -> str | None:
    """Refuse to score what a run was trained on; with `allow` a line that says so. Keys, or fingerprints of keys."""
    overlap = check_overlap(trained, scored, names=("the run's training split", where), allow=allow)
    return None if overlap is None else f"LEAKY: {describe(overlap)}"


# --- from tables to splits --------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Table:
    """The rows of one file under our column names; `row` and `image` (references, later paths) are always there."""

    where: str  # how messages name it
    root: Path  # where its photos are
    columns: Columns

    def keep(self, places: Sequence[int]) -> None:
        self.columns = {name: [values[place] for place in places] for name, values in self.columns.items()}


def _to_dataset(columns: Columns) -> datasets.Dataset:
    text = datasets.Value("string")
    features = dict.fromkeys(("id", "image", "image_hash", "question", "answer"), text)
    features |= {"answers": [text], "type": text, "group": text, "row": datasets.Value("int64")}
    if "boxes" in columns:
        features["boxes"] = text
    return datasets.Dataset.from_dict({name: columns[name] for name in features}, features=datasets.Features(features))


def _take_split(
    rows: datasets.Dataset, *, fraction: float, seed: int, what: str
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Whole groups off `rows`: → what stays, and about `fraction`. A photo in two groups holds them together."""
    groups = rows["group"][:]
    photos = [digest or group for digest, group in zip(rows["image_hash"][:], groups, strict=True)]
    labels = ["\t".join(pair) for pair in zip(rows["type"][:], rows["answer"][:], strict=True)]
    stay, go = group_split(labels, link_groups(groups, photos), fraction=fraction, seed=seed, what=what)
    kept, taken = (datasets.Dataset.from_dict(rows[places], features=rows.features) for places in (stay, go))
    return kept, taken


def _summary(split: str, rows: datasets.Dataset) -> str:
    photos = len(set(rows["image"][:]) - {""})
    about = f" about {photos:,} photos" if photos else ""
    types = Counter(rows["type"][:]).most_common()
    shown = ", ".join(f"{name} {count:,}" for name, count in types[:10])
    more = f" and {len(types) - 10} more" if len(types) > 10 else ""
    return f"{split}: {len(rows):,} questions{about} in {len(set(rows['group'][:])):,} groups; types: {shown}{more}"


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UserError(f"--{name.replace('_', '-')} {value!r}: allowed are {', '.join(allowed)}")


# --- columns ----------------------------------------------------------------------------------------------------------


def _read_table(
    source: Source,
    *,
    columns: Mapping[str, str],
    need_images: bool,
    cache: Path | None,
    limit: int | None = None,
    needed: Sequence[str] | None = None,
    also: Sequence[str] = COLUMNS,
    check_boxes: bool = False,
) -> _Table:
    """The rows of a source under our names, checked but for the photos, and for boxes unless `check_boxes`. `needed`
    columns must be there (default: what a scored row needs), of the others only `also`."""
    if needed is None:
        needed = ("image",) * need_images + ("question", "answer")
    names = _map_columns(source, columns, needed)
    names = {ours: theirs for ours, theirs in names.items() if ours in ("image", *needed, *also)}
    found: Columns = {ours: [] for ours in ("row", *names)}
    photo = functools.partial(photo_reference, cache=cache, write=need_images)
    converters: dict[str, Callable[[Any], Any]] = {
        "image": photo,
        "answers": _answer_list,
        "boxes": _checked_boxes if check_boxes else _boxes,
    }
    for numbers, batch in source.batches(list(dict.fromkeys(names.values()))):
        found["row"] += numbers
        for ours, theirs in names.items():
            convert = converters.get(ours, plain_text)
            for row, value in zip(numbers, batch[theirs], strict=True):
                try:
                    found[ours].append(convert(value))
                except UserError as error:
                    raise UserError(f"{source.where}, row {row}: column '{theirs}' {error}") from None
    if not found["row"]:
        raise UserError(f"{source.where}: has no rows")
    table = _Table(where=source.where, root=source.root, columns=found)
    if limit is not None:
        photos = found.get("image") or found.get("group") or found["row"]
        first = set(list(dict.fromkeys(photos))[:limit])
        table.keep([place for place, photo in enumerate(photos) if photo in first])
    _complete(table, source.stem, names, needed)
    return table


def _map_columns(source: Source, given: Mapping[str, str], needed: Sequence[str]) -> dict[str, str]:
    """Ours → theirs. ViVQA names a photo by COCO's number, in `img_id`; the photo is the group."""
    names = map_columns(source.names, given, COLUMNS, source.where, needed=())
    if "image" not in names and "img_id" in source.names:
        names["image"] = "img_id"
        names.setdefault("group", "img_id")
    need_columns(
        names, [ours for ours in needed if ours != "answer" or "answers" not in names], source.names, source.where
    )
    return names


def _complete(table: _Table, stem: str, names: Mapping[str, str], needed: Sequence[str]) -> None:
    """Check the texts and fill in what the source leaves out, except what needs the photos."""
    columns = table.columns
    for name, values in columns.items():
        if name in ("question", "answer", "type", "group", "id", "boxes"):
            _check_unicode(values, name, table)
    if "answers" in columns:
        columns.setdefault("answer", [max(given, key=given.count, default="") for given in columns["answers"]])
    for name in ("question", "answer"):
        for row, text in zip(columns["row"], columns.get(name, ()), strict=False):
            if name in needed and (not text or text.isspace()):
                raise UserError(f"{table.where}, row {row}: {name} is blank; fill it in or remove the row")
    count = len(columns["row"])
    if "answer" in columns:
        given = columns.get("answers", [[]] * count)
        columns["answers"] = [some or [answer] for some, answer in zip(given, columns["answer"], strict=True)]
    columns.setdefault("image", [""] * count)
    types = [value.strip() for value in columns.get("type", ["all"] * count)]
    if names.get("image") == "img_id" and set(types) <= set(VIVQA_TYPES):
        types = [VIVQA_TYPES[value] for value in types]
    columns["type"] = [value or "none" for value in types]
    columns["group"] = [value.strip() for value in columns.get("group", [""] * count)]
    ids = columns.get("id", [])
    if len(set(ids)) < count or "" in ids:  # such as the photos' ids: no name for a row
        columns["id"] = [f"{stem}-{row}" for row in columns["row"]]


def _check_unicode(values: Sequence[str], name: str, table: _Table) -> None:
    try:
        "".join(values).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell and nothing can store
        row = next(row for row, text in zip(table.columns["row"], values, strict=True) if broken_text(text))
        raise UserError(f"{table.where}, row {row}: {name} holds a broken Unicode character") from None


def _answer_list(value: Any) -> list[str]:
    """A list of texts, or VQA v2's of `{"answer": text}`, as such or as JSON; blank ones are dropped."""
    wrong = UserError('must be a JSON list, such as ["mèo", "con mèo"]')
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError):
            raise wrong from None
    if isinstance(value, dict):  # `datasets` turns a list of dicts into a dict of lists
        value = value.get("answer")
    if not (value is None or isinstance(value, list)):
        raise wrong
    value = value or []
    if len(value) > MOST_ANSWERS:
        raise UserError(f"holds {len(value):,} answers; a question has at most {MOST_ANSWERS:,}")
    texts = [plain_text(item.get("answer") if isinstance(item, dict) else item) for item in value]
    plain_text("".join(texts))  # together they are no longer than a text may be
    if any(map(broken_text, texts)):
        raise UserError("holds a broken Unicode character")
    return [text for text in texts if text.strip()]


def _boxes(value: Any) -> str:
    if isinstance(value, list):
        check_count(value)
        value = json.dumps(value)
    return plain_text(value)


def _checked_boxes(value: Any) -> str:
    text = _boxes(value)
    read_boxes(text)
    return text


# --- photos -----------------------------------------------------------------------------------------------------------


def _photo_folder(table: _Table, images: str | None) -> PhotoFolder:
    if images is not None and not os.path.isdir(to_path(images)):
        raise UserError(f"--images {images}: no such folder")
    return PhotoFolder(table.root if images is None else to_path(images))


def _locate_all(table: _Table, images: str | None) -> dict[str | Path, str]:
    """Reference → absolute path, for every photo of a table ("" for a blank one)."""
    folder = _photo_folder(table, images)
    paths: dict[str | Path, str] = {"": ""}
    for reference, row in zip(table.columns["image"], table.columns["row"], strict=True):
        if reference not in paths:
            try:
                paths[reference] = str(reference) if isinstance(reference, Path) else folder.find(reference)
            except UserError as error:
                raise UserError(f"{table.where}, row {row}: {error}") from None
    return paths


def _add_photos(
    tables: Sequence[_Table], images: str | None, *, need_images: bool, on_bad_image: str, cache: Path
) -> list[str]:
    """Turn each table's references into paths, hashes and (where it has none) groups. → notes of what was left out."""
    if not need_images:
        for table in tables:
            _group_without_photos(table, images)
        return []
    first: dict[str, tuple[_Table, int]] = {}  # path → where it occurs first
    for table in tables:
        paths = _locate_all(table, images)
        table.columns["image"] = [paths[reference] for reference in table.columns["image"]]
        for path, row in zip(table.columns["image"], table.columns["row"], strict=True):
            first.setdefault(path, (table, row))
    checked = check_photos(list(first), cache, stop=on_bad_image == "fail")
    bad = {
        path: f"{first[path][0].where}, row {first[path][1]}: {result}"
        for path, result in checked.items()
        if isinstance(result, UserError)
    }
    if bad and on_bad_image == "fail":
        raise UserError(f"{next(iter(bad.values()))}; --on-bad-image skip leaves such rows out")
    return [note for table in tables if (note := _fill_in_photos(table, checked, bad))]


def _fill_in_photos(table: _Table, checked: Mapping[str, str | UserError], bad: Mapping[str, str]) -> str | None:
    """Hashes and groups from the photos, without the rows of bad ones; → a note if there were any."""
    count = len(table.columns["row"])
    lost = [path for path in table.columns["image"] if path in bad]
    table.keep([place for place, path in enumerate(table.columns["image"]) if path not in bad])
    if len(lost) == count:
        raise UserError(f"{table.where}: no row is left, for every photo is missing or unreadable: {bad[lost[0]]}")
    columns = table.columns
    columns["image_hash"] = [checked[path] for path in columns["image"]]
    columns["group"] = [
        group or digest[:16] for group, digest in zip(columns["group"], columns["image_hash"], strict=True)
    ]
    if not lost:
        return None
    return (
        f"skipped: {len(lost):,} of {count:,} rows of {table.where}, whose photos ({len(set(lost)):,}) are missing or "
        f"unreadable; the first: {bad[lost[0]]}"
    )


def _group_without_photos(table: _Table, images: str | None) -> None:
    """For questions alone: where there are no groups, photos that happen to be there are told apart by content."""
    columns = table.columns
    folder = _photo_folder(table, images)
    name = functools.cache(functools.partial(_name_photo, folder))
    columns["group"] = [
        group or (name(reference) if reference else id_)
        for group, reference, id_ in zip(columns["group"], columns["image"], columns["id"], strict=True)
    ]
    columns["image"] = columns["image_hash"] = [""] * len(columns["row"])


def _name_photo(folder: PhotoFolder, reference: str | Path) -> str:
    """The group that a photo is for itself: as with photos, its content; else its reference."""
    if isinstance(reference, Path):
        return reference.stem[:16]
    try:
        path = folder.find(reference)
        return content_hash(path)[:16] if os.path.isfile(path) else reference
    except UserError:
        return reference
