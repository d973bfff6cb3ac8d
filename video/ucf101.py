"""UCF101 by its official lists: which clip is trained on, which is tested, and which clips come from one video.

    python -m video.ucf101 LISTS                                       # clips per class in the three official splits
    python -m video.ucf101 LISTS --split-list 1 --classes CricketShot PlayingCello Punch ShavingBeard TennisSwing

Belongs here: reading `trainlist0N.txt`, `testlist0N.txt` and `classInd.txt`, finding them, putting rows where they say,
and what the name of a clip tells. Does not belong here: clips as files (`video/clips.py`), other sources
(`video/data.py`).

UCF101 (Soomro et al., 2012) cut up to seven clips (cNN) from each of 25 source videos (gNN) of a class. Its three
official splits keep those videos apart; a random split does not, and its scores are too good (report R1).
"""

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from common.config import options, parse, positional
from common.errors import UserError, command
from common.files import read_text
from common.tables import markdown

NUMBERS = (1, 2, 3)
PLACES = ("ucfTrainTestlist", "ucf101_splits")  # folders in which the lists come
_NAME = re.compile(r"v_(.+)_g(\d{1,9})_c(\d{1,9})", re.IGNORECASE)
_MOST_BYTES, _MOST_LETTERS = 10_000_000, 1_000  # of a list, of a line in it

Listed = tuple[str, str, str]
"""A clip of a list: its path as written there, its class, its group."""


def name_class(path: str) -> str | None:
    """The class in the name `v_Class_gNN_cNN.avi`, as it is spelled there; None for a name of another kind."""
    match = _NAME.fullmatch(PurePosixPath(path).stem)
    return match and match[1]


def source_group(path: str, label: str = "") -> str | None:
    """Class and source video, "Punch_g08", of a clip named `v_Punch_g08_c01.avi`; None for a name of another kind.

    `label` decides how the class is spelled: files say HandStandPushups where folders and lists say HandstandPushups.
    """
    match = _NAME.fullmatch(PurePosixPath(path).stem)
    if match is None:
        return None
    name = label if label.casefold() == match[1].casefold() else match[1]
    return f"{name}_g{int(match[2]):02d}"


def match_classes(wanted: Sequence[str], known: Iterable[str], *, where: str) -> list[str]:
    """`wanted` as `known` spells them, each once. Raises `UserError` that tells what comes near an unknown one."""
    spelled: dict[str, str] = {}
    for name in sorted(known):
        spelled.setdefault(name.casefold(), name)
    for name in wanted:
        if name.casefold() not in spelled:
            near = difflib.get_close_matches(name.casefold(), spelled, n=3) or list(spelled)[:10]
            raise UserError(
                f"--classes {name}: {where} has no such class; of its {len(spelled)} the nearest: "
                f"{', '.join(spelled[key] for key in near)}"
            )
    return list(dict.fromkeys(spelled[name.casefold()] for name in wanted))


# --- the lists --------------------------------------------------------------------------------------------------------


def find_lists(folder: str | Path, lists: str | None, number: int) -> Path:
    """The folder of the official lists: `lists`, or in, beneath or beside the folder of the clips."""
    _check_number(number)
    base = Path(os.path.abspath(os.path.expanduser(lists or folder)))
    places = [base, *(base / name for name in PLACES)]
    if not lists:
        places += [base.parent / name for name in PLACES]
    for place in places:
        if (place / _list_name("train", number)).is_file():
            return place
    where = f"--lists {lists}" if lists else f"--split-list {number}"
    beside = "" if lists else " or beside"
    raise UserError(
        f"{where}: no {_list_name('train', number)} in {base}, nor in {' or '.join(PLACES)} beneath{beside} it; "
        "--lists names the folder of UCF101's official lists"
    )


def official_split(lists_folder: str | Path, number: int, classes: Sequence[str] = ()) -> dict[str, list[Listed]]:
    """Official split 1, 2 or 3: "train" and "test" → (path as listed, class, group) of every clip of `classes`.

    The lists come with CRLF, and the test lists without labels: a clip's class is its folder's name, as `classInd.txt`
    spells it. `classes`, in any case, select; without them all 101. Raises `UserError` with file and row.
    """
    _check_number(number)
    folder = Path(lists_folder)
    index = _read_index(folder / "classInd.txt")
    splits = {split: _read_list(folder / _list_name(split, number), index) for split in ("train", "test")}
    if not classes:
        return splits
    known = {label for clips in splits.values() for _, label, _ in clips}
    chosen = set(match_classes(classes, known, where=str(folder)))
    return {split: [clip for clip in clips if clip[1] in chosen] for split, clips in splits.items()}


def _check_number(number: int) -> None:
    if number not in NUMBERS:
        raise UserError(f"--split-list {number}: UCF101's official splits are 1, 2 and 3")


def _list_name(split: str, number: int) -> str:
    return f"{split}list{number:02d}.txt"


def _read_lines(path: Path) -> list[tuple[int, str]]:
    text = read_text(path, most=_MOST_BYTES)
    lines = [(row, line.strip()) for row, line in enumerate(text.splitlines(), start=1) if line.strip()]
    for row, line in lines:
        if len(line) > _MOST_LETTERS:
            raise UserError(f"{path}, row {row}: a line of {len(line):,} characters; is it one of UCF101's lists?")
    return lines


def _read_index(path: Path) -> dict[int, str]:
    index = {}
    for row, line in _read_lines(path):
        number, _, name = line.partition(" ")
        if not (number.isdecimal() and len(number) < 10 and name.strip()):
            raise UserError(f"{path}, row {row}: {line[:100]!r} is no number and class")
        index[int(number)] = name.strip()
    return index


def _read_list(path: Path, index: Mapping[int, str]) -> list[Listed]:
    spelled = {name.casefold(): name for name in index.values()}
    clips = []
    for row, line in _read_lines(path):
        match = re.fullmatch(r"(\S.*?)(?:\s+(\d{1,9}))?", line)
        name, number = match.groups() if match else (line, None)
        name = name.replace("\\", "/")
        named = name_class(name)
        if named is None:
            raise UserError(f"{path}, row {row}: {line[:100]!r} names no clip (v_Class_gNN_cNN.avi)")
        folder = PurePosixPath(name).parent.name
        label = spelled.get((folder or named).casefold())
        if label is None:
            raise UserError(f"{path}, row {row}: class {folder or named} is not in classInd.txt")
        if number and index.get(int(number)) != label:
            raise UserError(f"{path}, row {row}: {name} has number {number}, which is not {label}'s in classInd.txt")
        group = source_group(name, label)
        assert group is not None  # as `named` is
        clips.append((name, label, group))
    if not clips:
        raise UserError(f"{path}: the list is empty")
    return clips


# --- what they make of clips ------------------------------------------------------------------------------------------


def place_by_lists(
    rows: Sequence[dict[str, Any]],
    official: Mapping[str, Sequence[Listed]],
    *,
    where: str,
    skip: bool,
    needed: Sequence[str] = ("train", "test"),
    mixed: bool = False,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows (with `path`) of the listed clips, in the lists' order with their `label`, `group` and `split`; and notes.

    A clip is found by its name, in any case and whatever its folder. Raises `UserError` with the counts for listed
    clips that are not there, unless `skip`, and for a `needed` split of which none is; of splits that will be `mixed`,
    if none of both is.
    """
    known: dict[str, dict[str, Any]] = {}
    for row in rows:
        known.setdefault(_key(row["path"]), row)
    placed = [
        known[_key(name)] | {"label": label, "group": group, "split": split}
        for split, clips in official.items()
        for name, label, group in clips
        if _key(name) in known
    ]
    counts = Counter(row["split"] for row in placed)
    missing = {split: len(clips) - counts[split] for split, clips in official.items() if split in needed}
    notes = []
    if any(missing.values()):
        first = next(name for split in needed for name, _, _ in official.get(split, ()) if _key(name) not in known)
        parts = ", ".join(f"{split} {lost:,} of {len(official[split]):,}" for split, lost in missing.items())
        text = f"{sum(missing.values()):,} listed clips are not in {where} ({parts}); the first: {first}"
        if not skip:
            raise UserError(f"{text}; --classes names fewer classes, --on-bad-clip skip goes on without those clips")
        notes.append(f"skipped: {text}")
    for split in needed:
        if split in official and not counts[split] and not (mixed and placed):
            raise UserError(
                f"{where}: {split} is left empty, for none of its {len(official[split]):,} clips is there; try "
                "another --split-list, or leave it out"
            )
    if len(rows) > len(placed):
        notes.append(f"left out: {len(rows) - len(placed):,} clips of {where} that the lists of these classes lack")
    return placed, notes


def _key(path: str) -> str:
    return PurePosixPath(path).stem.casefold()


# --- counts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Clips of an official split."""

    train: dict[str, int]
    """class → training clips, classes by alphabet"""
    test: dict[str, int]
    """class → test clips"""
    overlap: int
    """groups that are in both"""


def summary(splits: Mapping[str, Sequence[Listed]]) -> Summary:
    """Counts per class, and how many groups train and test share, of what `official_split` returns."""
    counts = {split: Counter(label for _, label, _ in clips) for split, clips in splits.items()}
    classes = sorted(set(counts["train"]) | set(counts["test"]))
    groups = {split: {group for _, _, group in clips} for split, clips in splits.items()}
    return Summary(
        train={name: counts["train"][name] for name in classes},
        test={name: counts["test"][name] for name in classes},
        overlap=len(groups["train"] & groups["test"]),
    )


def counts_table(summaries: Mapping[int, Summary]) -> str:
    """Number of a split → its summary, as one Markdown table: a row per class, the totals, the shared groups."""
    rows = {
        name: {"class": name} for name in sorted({name for counted in summaries.values() for name in counted.train})
    }
    rows |= {name: {"class": name} for name in ("all", "groups in both")}
    for number, counted in summaries.items():
        for split, counts in (("train", counted.train), ("test", counted.test)):
            shared = {"groups in both": counted.overlap if split == "test" else ""}
            figures = counts | {"all": sum(counts.values())} | shared
            for name, row in rows.items():
                row[f"{split} {number}"] = f"{figures.get(name, 0):,}" if figures.get(name) != "" else ""
    return markdown(list(rows.values()))


@options
class Ucf101Options:
    """Count the clips of UCF101's official splits, from the lists alone.

    python -m video.ucf101 LISTS --split-list 1 --classes Basketball Diving GolfSwing Skiing
    """

    lists: str = positional()
    """Folder of trainlist0N.txt, testlist0N.txt and classInd.txt."""
    split_list: Annotated[int, Field(ge=1, le=3)] | None = None
    """Official split 1, 2 or 3; all three where none is named."""
    classes: tuple[str, ...] = ()
    """Only these classes; default all."""


@command
def main() -> None:
    given = parse(Ucf101Options)
    numbers = NUMBERS if given.split_list is None else (given.split_list,)
    folder = find_lists(given.lists, given.lists, numbers[0])
    print(counts_table({number: summary(official_split(folder, number, given.classes)) for number in numbers}))


if __name__ == "__main__":
    main()
