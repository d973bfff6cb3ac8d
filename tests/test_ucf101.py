"""UCF101's official lists: the published counts, and what the lists and names of clips spell in more than one way."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from video.ucf101 import find_lists, match_classes, name_class, official_split, place_by_lists, source_group, summary

FIVE = ("CricketShot", "PlayingCello", "Punch", "ShavingBeard", "TennisSwing")
FOUR = ("Basketball", "Diving", "GolfSwing", "Skiing")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def lists(tmp_path) -> Path:
    """Split 1 of three classes, as distributed: CRLF, no labels in the test list, a class spelled in two ways."""
    folder = tmp_path / "ucfTrainTestlist"
    folder.mkdir()
    write(folder / "classInd.txt", "1 Archery", "2 HandstandPushups", "3 Punch")
    write(
        folder / "trainlist01.txt",
        "Archery/v_Archery_g08_c01.avi 1",
        "HandstandPushups/v_HandStandPushups_g08_c01.avi 2",
        "HandstandPushups/v_HandStandPushups_g08_c02.avi 2",
        "Punch/v_Punch_g09_c01.avi 3",
    )
    write(
        folder / "testlist01.txt",
        "Archery/v_Archery_g01_c01.avi",
        "HandStandPushups/v_HandStandPushups_g01_c01.avi",
        "",
    )
    return folder


def write(path: Path, *lines: str) -> None:
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())


def refused(match: str, function, *arguments, **keywords) -> None:
    with pytest.raises(UserError, match=match) as error:
        function(*arguments, **keywords)
    assert "\n" not in str(error.value)


# --- the published lists ----------------------------------------------------------------------------------------------


@pytest.fixture
def official(real_data) -> Path:
    return real_data / "ucf101_splits"


@pytest.mark.parametrize(("number", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_all_classes_have_the_published_counts_and_share_no_group(official, number, train, test):
    counted = summary(official_split(official, number))
    assert (sum(counted.train.values()), sum(counted.test.values())) == (train, test)
    assert len(counted.train) == len(counted.test) == 101
    assert counted.overlap == 0


def test_five_classes_have_the_counts_of_report_r0(official):
    counted = summary(official_split(official, 1, FIVE))
    assert list(counted.train) == list(FIVE)
    assert list(counted.train.values()) == [118, 120, 121, 118, 117]
    assert list(counted.test.values()) == [49, 44, 39, 43, 49]
    assert (sum(counted.train.values()), sum(counted.test.values()), counted.overlap) == (594, 224, 0)


def test_four_classes_have_the_counts_of_report_r2(official):
    counted = summary(official_split(official, 1, [name.upper() for name in FOUR]))
    assert (sum(counted.train.values()), sum(counted.test.values()), counted.overlap) == (399, 159, 0)


def test_every_class_of_the_published_lists_has_25_source_videos(official):
    splits = official_split(official, 1)
    groups = {group for clips in splits.values() for _, _, group in clips}
    assert len(groups) == 101 * 25


def test_the_command_prints_the_counts(official):
    command = [sys.executable, "-m", "video.ucf101", str(official), "--split-list", "1", "--classes", *FIVE]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    assert rows[0] == ["class", "train 1", "test 1"]
    assert ["Punch", "121", "39"] in rows
    assert rows[-2:] == [["all", "594", "224"], ["groups in both", "", "0"]]


# --- small lists ------------------------------------------------------------------------------------------------------


def test_lists_are_read_with_crlf_without_labels_and_in_any_case(lists):
    assert official_split(lists, 1) == {
        "train": [
            ("Archery/v_Archery_g08_c01.avi", "Archery", "Archery_g08"),
            ("HandstandPushups/v_HandStandPushups_g08_c01.avi", "HandstandPushups", "HandstandPushups_g08"),
            ("HandstandPushups/v_HandStandPushups_g08_c02.avi", "HandstandPushups", "HandstandPushups_g08"),
            ("Punch/v_Punch_g09_c01.avi", "Punch", "Punch_g09"),
        ],
        "test": [
            ("Archery/v_Archery_g01_c01.avi", "Archery", "Archery_g01"),
            ("HandStandPushups/v_HandStandPushups_g01_c01.avi", "HandstandPushups", "HandstandPushups_g01"),
        ],
    }


def test_classes_select_in_any_case(lists):
    splits = official_split(lists, 1, ["handstandPUSHUPS"])
    assert [len(clips) for clips in splits.values()] == [2, 1]


def test_shared_groups_are_counted(lists):
    write(lists / "testlist01.txt", "Punch/v_Punch_g09_c02.avi", "HandstandPushups/v_HandstandPushups_g08_c07.avi")
    counted = summary(official_split(lists, 1))
    assert counted.overlap == 2
    assert counted.test == {"Archery": 0, "HandstandPushups": 1, "Punch": 1}


@pytest.mark.parametrize(
    ("file", "line", "match"),
    [
        ("testlist01.txt", "Archery/movie.avi", r"testlist01.txt, row 1: 'Archery/movie.avi' names no clip"),
        ("testlist01.txt", "Golf/v_Golf_g01_c01.avi", r"row 1: class Golf is not in classInd.txt"),
        ("trainlist01.txt", "Punch/v_Punch_g01_c01.avi 1", r"trainlist01.txt, row 1: .* number 1, .* not Punch's"),
        ("trainlist01.txt", "", r"trainlist01.txt: the list is empty"),
        ("classInd.txt", "Archery", r"classInd.txt, row 1: 'Archery' is no number and class"),
    ],
)
def test_lists_that_do_not_fit_are_refused_with_file_and_row(lists, file, line, match):
    write(lists / file, line)
    refused(match, official_split, lists, 1)


def test_wrong_numbers_and_classes_are_refused(lists):
    refused(r"--split-list 4: .* 1, 2 and 3", official_split, lists, 4)
    refused(r"trainlist02.txt: cannot be read", official_split, lists, 2)
    refused(r"--classes punsh: .* the nearest: Punch", official_split, lists, 1, ["punsh"])


def test_match_classes_keeps_the_order_asked_for():
    assert match_classes(["b", "A", "B"], ["a", "B", "c"], where="x") == ["B", "a"]


# --- names and places -------------------------------------------------------------------------------------------------


def test_names_tell_class_and_group():
    assert name_class("x/y/v_HandStandPushups_g08_c01.AVI") == "HandStandPushups"
    assert source_group("v_HandStandPushups_g08_c01.avi", "HandstandPushups") == "HandstandPushups_g08"
    assert source_group("V_Punch_G8_C01.avi") == "Punch_g08"
    assert name_class("v_Punch.avi") is None and source_group("fight/fi015.mp4", "fight") is None


@pytest.mark.parametrize("data", ["ucfTrainTestlist", ".", "UCF-101"])
def test_lists_are_found_in_beneath_and_beside_the_clips(lists, data):
    folder = lists.parent / data
    folder.mkdir(exist_ok=True)
    assert find_lists(folder, None, 1) == lists
    assert find_lists("elsewhere", str(lists), 1) == lists
    assert find_lists("elsewhere", str(lists.parent), 1) == lists


def test_lists_that_are_nowhere_are_told(lists, tmp_path):
    refused(r"--split-list 2: no trainlist02.txt in .*; --lists names", find_lists, lists.parent, None, 2)
    refused(r"--lists .*none: no trainlist01.txt", find_lists, lists.parent, str(tmp_path / "none"), 1)


def test_rows_are_placed_by_name_and_missing_ones_counted(lists):
    rows = [
        {"path": f"any/{name}", "label": "?"} for name in ("V_ARCHERY_g08_c01.avi", "v_Archery_g01_c01.AVI", "z.avi")
    ]
    official = official_split(lists, 1)
    placed, notes = place_by_lists(rows, official, where="DIR", skip=True)
    assert [(row["path"], row["label"], row["group"], row["split"]) for row in placed] == [
        ("any/V_ARCHERY_g08_c01.avi", "Archery", "Archery_g08", "train"),
        ("any/v_Archery_g01_c01.AVI", "Archery", "Archery_g01", "test"),
    ]
    missing = r"4 listed clips are not in DIR \(train 3 of 4, test 1 of 2\); the first: Handstand"
    refused(missing, place_by_lists, rows, official, where="DIR", skip=False)
    assert [note.split()[0] for note in notes] == ["skipped:", "left"] and " 1 clips of DIR" in notes[1]
    refused(r"DIR: test is left empty", place_by_lists, rows[:1], official, where="DIR", skip=True)
    assert len(place_by_lists(rows[1:], official, where="DIR", skip=True, needed=("test",))[0]) == 1
