"""Sources of clips: every kind gives the same rows, splits keep groups whole, and what is wrong is told in one line.

The clips are a few bytes, of which a pretended decoder takes the number of frames; decoding has its own tests.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

import video.decode
from common.errors import UserError
from video.clips import check_clips, find_clips
from video.data import load_clips, load_video, split_keys


@pytest.fixture(autouse=True)
def counted(monkeypatch) -> list[str]:
    """A decoder that reads "NUMBER anything" as a clip of so many frames; → the names of the files that it opened."""
    opened = []

    def count_frames(path) -> int:
        opened.append(Path(path).name)
        frames = Path(path).read_text(encoding="utf-8").split(" ")[0]
        if not frames.isdecimal():
            raise UserError(f"{path}: no video in it")
        return int(frames)

    monkeypatch.setattr(video.decode, "count_frames", count_frames)
    return opened


@pytest.fixture
def load(tmp_path):
    return lambda source, **keywords: load_video(str(source), cache_directory=tmp_path / "cache", **keywords)


@pytest.fixture
def load_split(tmp_path):
    return lambda source, **keywords: load_clips(str(source), cache_directory=tmp_path / "cache", **keywords)


@pytest.fixture
def refused(load):
    """load_video refuses with one line that matches."""

    def check(match: str, source, **keywords) -> None:
        with pytest.raises(UserError, match=match) as error:
            load(source, **keywords)
        assert "\n" not in str(error.value)

    return check


def clip(path: Path, frames: int = 30) -> Path:
    """A file whose bytes no other has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{frames} {path}", encoding="utf-8")
    return path


def rows_of(groups: range, per_group: int = 2) -> list[dict[str, str]]:
    return [
        {"path": f"clips/{group:02d}_{number}.mp4", "label": ("fight", "calm")[group % 2], "group": f"s{group}"}
        for group in groups
        for number in range(per_group)
    ]


def write_table(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def make_set(folder: Path, suffix: str = ".csv", drop: tuple[str, ...] = (), splits=("train", "val", "test")) -> Path:
    """8, 2 and 4 groups of two clips each, as split files."""
    for split, groups in zip(("train", "val", "test"), (range(8), range(8, 10), range(10, 14)), strict=True):
        rows = rows_of(groups)
        for row in rows:
            clip(folder / row["path"])
        if split in splits:
            write_table(folder / f"{split}{suffix}", [{k: v for k, v in r.items() if k not in drop} for r in rows])
    return folder


def sizes(data) -> list[int]:
    return [len(rows) for rows in data.splits.values()]


def groups(rows) -> set[str]:
    return set(rows["group"][:])


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_columns(tmp_path, load, suffix):
    folder = make_set(tmp_path / "data", suffix)
    data = load(folder)
    assert list(data.splits) == ["train", "validation", "test"] and sizes(data) == [16, 4, 8]
    assert data.classes == ["calm", "fight"] and data.leaks == []
    path = folder / "clips" / "00_0.mp4"
    row = 2 if suffix in (".csv", ".tsv") else 1
    assert data.splits["train"][0] == {
        "id": f"train-{row}",
        "path": str(path),
        "hash": hashlib.sha256(path.read_bytes()).hexdigest(),
        "label": "fight",
        "group": "s0",
        "frames": 30,
        "row": row,
    }
    assert data.notes[0] == "train: 16 clips in 8 groups; fight 8, calm 8"
    assert "groups: named by the source (28 clips)" in data.notes


def test_a_single_file_is_split_by_group(tmp_path, load):
    make_set(tmp_path / "data")
    data = load(write_table(tmp_path / "data" / "all.csv", rows_of(range(14))))
    parts = [groups(rows) for rows in data.splits.values()]
    assert sum(sizes(data)) == 28 and set().union(*parts) == {f"s{n}" for n in range(14)}
    assert sum(map(len, parts)) == 14 and min(map(len, parts)) >= 1
    again = load(tmp_path / "data" / "all.csv", split_seed=1)
    assert groups(again.splits["test"]) != groups(data.splits["test"])


def test_a_split_column_in_a_single_file_is_honoured(tmp_path, load, refused):
    make_set(tmp_path / "data")
    names = ["train"] * 16 + ["Val"] * 4 + ["test"] * 8
    rows = [row | {"split": split} for row, split in zip(rows_of(range(14)), names, strict=True)]
    data = load(write_table(tmp_path / "data" / "all.csv", rows))
    assert sizes(data) == [16, 4, 8]
    rows[3]["split"] = "dog"
    refused(r"all.csv, row 5: split 'dog' is none of", write_table(tmp_path / "data" / "all.csv", rows))
    rows[3]["split"] = ""
    refused(r"all.csv, row 5: split is blank", write_table(tmp_path / "data" / "all.csv", rows))
    only = [row | {"split": "test"} for row in rows]
    refused(r"has no train split", write_table(tmp_path / "data" / "all.csv", only))


def test_columns_may_be_named_otherwise(tmp_path, load, refused):
    make_set(tmp_path / "data")
    rows = [{"video_name": row["path"], "tag": row["label"], "group": row["group"]} for row in rows_of(range(14))]
    file = write_table(tmp_path / "data" / "all.csv", rows)
    assert sum(sizes(load(file, columns={"path": "video_name", "label": "tag"}))) == 28
    refused(r"no column 'path'; it has: video_name, tag, group\..*--columns path=NAME", file)
    refused(r"no column 'name' \(--columns path=name\)", file, columns={"path": "name"})
    refused(r"'title' is no column of ours", file, columns={"title": "tag"})


def test_blank_cells_are_told_with_file_and_row(tmp_path, refused):
    folder = make_set(tmp_path / "data")
    for column in ("path", "label"):
        rows = rows_of(range(8))
        rows[2][column] = " "
        refused(rf"train.csv, row 4: {column} is blank", write_table(folder / "train.csv", rows).parent)


def test_a_limit_keeps_clips_of_each_split_and_all_classes(tmp_path, load, refused):
    data = load(make_set(tmp_path / "data"), limit=2)
    assert sizes(data) == [2, 2, 2] and data.classes == ["calm", "fight"]
    assert sorted(data.splits["train"]["label"][:]) == ["calm", "fight"]
    assert any(note.startswith("limit: only 2 clips of each split") for note in data.notes)
    refused(r"--limit 0", tmp_path / "data", limit=0)


def test_what_is_no_source_is_told(tmp_path, refused):
    (tmp_path / "empty").mkdir()
    refused(r"empty: no train file in it .* nor a clip \(\.avi", tmp_path / "empty")
    refused(r"no such file or folder", tmp_path / "nothing.csv")
    make_set(tmp_path / "data", splits=("test",))
    refused(r"has no train split, only test", tmp_path / "data")


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_per_class(tmp_path, load):
    for name in ("run", "walk"):
        for file in ("deeper/0.webm", "1.AVI", "2.mp4", "3.mkv", "4.mov", "5.gif"):
            clip(tmp_path / "data" / name / file)
    clip(tmp_path / "data" / "run" / "._1.avi")
    (tmp_path / "data" / "run" / "readme.txt").write_text("no clip", encoding="utf-8")
    data = load(tmp_path / "data")
    assert sum(sizes(data)) == 12 and data.classes == ["run", "walk"]
    ids = [row["id"] for rows in data.splits.values() for row in rows]
    assert "run/deeper/0.webm" in ids and "walk/1.AVI" in ids
    assert "groups: each clip for itself, by content (12 clips)" in data.notes


def test_a_folder_per_split_and_class(tmp_path, load):
    for split, count in (("train", 3), ("Val", 2), ("test", 1)):
        for name in ("run", "walk"):
            for number in range(count):
                clip(tmp_path / "data" / split / name / f"{number}.mp4")
    clip(tmp_path / "data" / "extra" / "run" / "1.mp4")
    data = load(tmp_path / "data")
    assert sizes(data) == [6, 4, 2]
    assert any(note.startswith("left out: 1 clips of") for note in data.notes)


def test_clips_without_a_class_are_refused(tmp_path, refused):
    clip(tmp_path / "data" / "movie.mp4")
    refused(r"movie.mp4 lies in no class's folder", tmp_path / "data")
    clip(tmp_path / "data" / "movie.mp4").rename(clip(tmp_path / "data" / "x" / "movie.mp4"))
    refused(r"only one class, x", tmp_path / "data")


def test_a_search_ends_where_links_lead_in_a_circle(tmp_path):
    clip(tmp_path / "run" / "1.mp4")
    (tmp_path / "run" / "again").symlink_to(tmp_path)
    (tmp_path / "run" / "self.mp4").symlink_to("self.mp4")
    assert find_clips(tmp_path) == ["run/1.mp4", "run/self.mp4"]


def test_classes_select_order_and_are_matched_in_any_case(tmp_path, load, refused):
    for name in ("Run", "walk", "jump"):
        for number in range(6):
            clip(tmp_path / "data" / name / f"{number}.mp4")
    data = load(tmp_path / "data", classes=["WALK", "run"])
    assert data.classes == ["walk", "Run"] and sum(sizes(data)) == 12
    refused(r"--classes wlak: .* of its 3 the nearest: walk", tmp_path / "data", classes=["run", "wlak"])


# --- UCF101 -----------------------------------------------------------------------------------------------------------

CLIPS = {
    "train": ["Archery_g08_c01", "Archery_g08_c02", "HandStandPushups_g09_c01", "HandStandPushups_g10_c01"],
    "test": ["Archery_g01_c01", "HandStandPushups_g02_c01"],
}


@pytest.fixture
def ucf(tmp_path) -> Path:
    """UCF101 in small: folders spell a class as the lists do, files otherwise; the lists lie beside."""
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 Archery\r\n2 HandstandPushups\r\n")
    for split, names in CLIPS.items():
        lines = []
        for name in names:
            label = name.split("_")[0].replace("Stand", "stand")
            clip(tmp_path / "UCF-101" / label / f"v_{name}.avi")
            lines.append(f"{label}/v_{name}.avi" + (f" {1 + (label != 'Archery')}" if split == "train" else ""))
        (lists / f"{split}list01.txt").write_bytes("\r\n".join(lines).encode())
    return tmp_path / "UCF-101"


def test_official_lists_decide_splits_labels_and_groups(ucf, load):
    clip(ucf / "Archery" / "v_Archery_g25_c07.avi")
    data = load(ucf, split_list=1)
    assert data.classes == ["Archery", "HandstandPushups"]
    assert sum(sizes(data)) == 6 and len(data.splits["test"]) == 2
    assert groups(data.splits["test"]) == {"Archery_g01", "HandstandPushups_g02"}
    assert groups(data.splits["train"]) | groups(data.splits["validation"]) == {
        "Archery_g08",
        "HandstandPushups_g09",
        "HandstandPushups_g10",
    }
    assert any("1 clips of" in note and note.startswith("left out") for note in data.notes)


def test_flat_folders_and_other_cases_are_found_too(ucf, load, tmp_path):
    for path in ucf.rglob("*.avi"):
        target = tmp_path / "flat" / path.name.upper().replace("STAND", "stand")
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    data = load(tmp_path / "flat", split_list=1)
    assert sum(sizes(data)) == 6 and data.classes == ["Archery", "HandstandPushups"]


def test_without_lists_the_names_give_groups(ucf, load):
    data = load(ucf)
    assert sum(sizes(data)) == 6
    assert set().union(*map(groups, data.splits.values())) == {
        *("Archery_g01", "Archery_g08"),
        *("HandstandPushups_g02", "HandstandPushups_g09", "HandstandPushups_g10"),
    }
    assert any("by UCF101's names" in note for note in data.notes)


def test_missing_listed_clips_are_counted(ucf, load, refused):
    (ucf / "Archery" / "v_Archery_g08_c02.avi").unlink()
    refused(
        r"1 listed clips are not in .*\(train 1 of 4, test 0 of 2\); the first: Archery/v_Archery", ucf, split_list=1
    )
    data = load(ucf, split_list=1, on_bad_clip="skip")
    assert sum(sizes(data)) == 5 and any(note.startswith("skipped: 1 listed") for note in data.notes)
    for path in ucf.rglob("*_g0[12]_*.avi"):
        path.unlink()
    refused(r"test is left empty", ucf, split_list=1, on_bad_clip="skip")


def test_a_few_real_clips_are_not_the_whole_set(real_data, refused):
    missing = r"13,299 listed clips .*train 9,537 of 9,537, test 3,762 of 3,783"
    refused(missing, real_data / "ucf101_clips", split_list=1)


# --- labels that differ in case ---------------------------------------------------------------------------------------


def test_labels_that_differ_in_case_alone_are_one_class(tmp_path, load):
    rows = rows_of(range(14))
    for row in rows:
        clip(tmp_path / row["path"])
    rows[0]["label"] = "Fight"
    data = load(write_table(tmp_path / "all.csv", rows))
    assert data.classes == ["calm", "fight"]
    assert "labels that differ in case are one class: Fight = fight" in data.notes


# --- bad clips --------------------------------------------------------------------------------------------------------


def spoil(folder: Path, how: str) -> Path:
    path = folder / "clips" / "01_0.mp4"
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "dangling":
        path.symlink_to("nowhere.mp4")
    elif how == "pipe":
        os.mkfifo(path)
    elif how != "missing":
        path.write_text({"empty": "", "text": "hello world", "frameless": "0 frames"}[how], encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("missing", "01_0.mp4: no such clip"),
        ("dangling", "01_0.mp4: no such clip"),
        ("folder", "01_0.mp4 is a folder, not a clip"),
        ("pipe", "01_0.mp4 is not a file"),
        ("empty", "01_0.mp4: the file is empty"),
        ("text", "01_0.mp4: no video in it"),
        ("frameless", "01_0.mp4: holds no frames"),
    ],
)
def test_bad_clips_stop_the_run_or_are_skipped_and_counted(tmp_path, load, refused, how, match):
    folder = make_set(tmp_path / "data")
    spoil(folder, how)
    refused(rf"train.csv, row 4: .*{match}; --on-bad-clip skip", folder)
    data = load(folder, on_bad_clip="skip")
    assert sizes(data) == [15, 4, 8]
    assert any(note.startswith("skipped: 1 of 28 clips") and match in note for note in data.notes)


def test_a_split_of_bad_clips_alone_is_refused(tmp_path, refused):
    folder = make_set(tmp_path / "data")
    for row in rows_of(range(10, 14)):
        (folder / row["path"]).unlink()
    refused(r"no clip of test is left, .*test.csv, row 2", folder, on_bad_clip="skip")
    refused(r"--on-bad-clip 'ignore': allowed are fail, skip", folder, on_bad_clip="ignore")


def test_links_inside_the_folder_are_followed_and_those_out_of_it_refused(tmp_path, load, refused):
    folder = make_set(tmp_path / "data")
    link = folder / "clips" / "00_0.mp4"
    link.rename(folder / "elsewhere.mp4")
    link.symlink_to("../elsewhere.mp4")
    assert load(folder).splits["train"]["path"][0] == str(link)
    link.unlink()
    link.symlink_to(clip(tmp_path / "outside.mp4"))
    out = r"train.csv, row 2: clip 'clips/00_0.mp4' \(a link to .*outside.mp4\) is no path inside the data folder"
    refused(out, folder)
    refused(out, folder, on_bad_clip="skip")


@pytest.mark.parametrize("path", ["../outside.mp4", "https://example.org/a.mp4", "a\0b.mp4"])
def test_paths_out_of_the_folder_are_refused(tmp_path, refused, path):
    clip(tmp_path / "outside.mp4")
    rows = [{"path": path, "label": "a"}, {"path": "b.mp4", "label": "b"}]
    refused(r"row 1: clip .* is no path inside the data folder", write_table(tmp_path / "data" / "train.jsonl", rows))


def test_frames_are_counted_once_for_each_content(tmp_path, counted):
    paths = [str(clip(tmp_path / f"{number}.mp4", frames=number + 1)) for number in range(3)]
    first = check_clips(paths, tmp_path / "cache", stop=True)
    assert [first[path].frames for path in paths] == [1, 2, 3] and len(counted) == 3
    assert check_clips(paths, tmp_path / "cache", stop=True) == first and len(counted) == 3
    clip(Path(paths[1]), frames=9)
    record = tmp_path / "cache" / "checked-clips.txt"
    torn = record.read_text(encoding="utf-8") + f"{first[paths[0]].hash} 7"  # cut short: it was 77, say
    record.write_text(torn, encoding="utf-8")
    again = check_clips(paths, tmp_path / "cache", stop=True)
    assert [again[path].frames for path in paths] == [1, 9, 3] and len(counted) == 4


def test_checking_stops_at_the_first_bad_clip_if_it_shall(tmp_path):
    paths = [str(clip(tmp_path / f"{number}.mp4")) for number in range(3)]
    Path(paths[1]).unlink()
    assert list(check_clips(paths, tmp_path / "cache", stop=True)) == paths[:2]
    found = check_clips(paths, tmp_path / "cache", stop=False)
    assert [isinstance(found[path], UserError) for path in paths] == [False, True, False]


# --- leaks ------------------------------------------------------------------------------------------------------------


def test_groups_in_two_splits_are_refused_with_the_count_or_allowed_and_noted(tmp_path, load, refused):
    folder = make_set(tmp_path / "data")
    rows = rows_of(range(10, 14))
    rows[0]["group"] = rows[1]["group"] = "s3"
    write_table(folder / "test.csv", rows)
    refused(r"leak: 25 % of test groups are in train \(clips 0 of 8, groups 1 of 4", folder)
    data = load(folder, allow_leaky_split=True)
    assert data.leaks[0].shared["groups"] == 1
    assert any(note.startswith("LEAKY: 25 % of test groups") for note in data.notes)


def test_equal_bytes_in_two_splits_are_refused(tmp_path, refused):
    folder = make_set(tmp_path / "data", drop=("group",))
    (folder / "clips" / "10_0.mp4").write_bytes((folder / "clips" / "00_0.mp4").read_bytes())
    refused(r"leak: 12 % of test clips are in train \(clips 1 of 8", folder)


def test_equal_bytes_hold_groups_together(tmp_path, load):
    make_set(tmp_path / "data")
    content = (tmp_path / "data" / "clips" / "00_0.mp4").read_bytes()
    for number in range(1, 13):
        (tmp_path / "data" / "clips" / f"{number:02d}_0.mp4").write_bytes(content)
    rows = rows_of(range(14)) + [{"path": "clips/x.mp4", "label": "calm", "group": "t"}]
    clip(tmp_path / "data" / "clips" / "x.mp4")
    data = load(write_table(tmp_path / "data" / "all.csv", rows))
    assert sorted(sizes(data)) == [1, 2, 26]


def test_a_random_split_has_the_sizes_of_the_split_by_group_and_leaks(tmp_path, load):
    make_set(tmp_path / "data")
    rows = rows_of(range(40), per_group=4)
    for row in rows:
        clip(tmp_path / "data" / row["path"])
    file = write_table(tmp_path / "data" / "all.csv", rows)
    honest, leaky = load(file), load(file, random_split=True)
    assert sizes(leaky) == sizes(honest) and honest.leaks == []
    assert leaky.splits["validation"]["id"][:] == honest.splits["validation"]["id"][:]
    assert sorted(row["id"] for rows in leaky.splits.values() for row in rows) == sorted(
        row["id"] for rows in honest.splits.values() for row in rows
    )
    labels = Counter(leaky.splits["test"]["label"][:])
    assert abs(labels["calm"] - labels["fight"]) <= 1
    (leak,) = leaky.leaks
    assert (leak.first, leak.second) == ("train", "test") and leak.shared["groups"] > 10 and not leak.shared["clips"]
    assert any(note.startswith("LEAKY:") for note in leaky.notes)
    assert load(file, random_split=True).splits["test"]["id"][:] == leaky.splits["test"]["id"][:]


def test_a_random_split_by_fractions_mixes_all_clips(tmp_path, load):
    folder = make_set(tmp_path / "data")
    data = load(folder, random_split=True, random_test_fraction=0.5, validation_fraction=0.25)
    assert sizes(data) == [10, 4, 14] and {leak.second for leak in data.leaks} == {"validation", "test"}
    assert "random split: clips of all splits mixed, whatever their group (split seed 0)" in data.notes
    honest = load(folder)
    for split in ("train", "validation", "test"):
        assert set(data.splits[split]["hash"][:]) - set(honest.splits[split]["hash"][:])
    with pytest.raises(UserError, match="of 28 clips that leaves none to train on"):
        load(folder, random_split=True, random_test_fraction=0.99)
    other = load(folder, random_split=True, random_test_fraction=0.5, split_seed=1)
    assert set(other.splits["test"]["id"][:]) != set(data.splits["test"]["id"][:])


def test_swapped_splits(tmp_path, load, refused):
    folder = make_set(tmp_path / "data")
    plain, swapped = load(folder), load(folder, swap_splits=True, validation_fraction=0.5)
    assert sizes(plain) == [16, 4, 8] and sizes(swapped) == [4, 4, 20] and not swapped.leaks
    trained = {*swapped.splits["train"]["hash"][:], *swapped.splits["validation"]["hash"][:]}
    assert trained == set(plain.splits["test"]["hash"][:])
    assert groups(swapped.splits["train"]).isdisjoint(groups(swapped.splits["validation"]))
    one = write_table(tmp_path / "data" / "all.csv", rows_of(range(14)))
    refused("--swap-splits: .*has no test split of its own", one, swap_splits=True)


# --- to be scored -----------------------------------------------------------------------------------------------------


def test_a_file_is_scored_whole_and_a_folder_by_split(tmp_path, load_split):
    folder = make_set(tmp_path / "data")
    rows, notes = load_split(folder, classes=["calm", "fight"])
    assert len(rows) == 8 and notes[0].startswith("test: 8 clips in 4 groups")
    assert len(load_split(folder, split="validation", classes=["calm"])[0]) == 4
    alone = load_split(folder / "test.csv", classes=["calm", "fight"])[0]
    assert alone.remove_columns("id").to_list() == rows.remove_columns("id").to_list()
    assert split_keys(rows)["groups"] == rows["group"][:]
    with pytest.raises(UserError, match="has no test split; it has train"):
        load_split(make_set(tmp_path / "other", splits=("train", "val")), classes=["calm"])


def test_a_folder_of_test_clips_alone_is_scored(tmp_path, load_split):
    for name in ("run", "walk"):
        clip(tmp_path / "data" / "test" / name / "1.mp4")
    rows, _ = load_split(tmp_path / "data", classes=["run", "walk"])
    assert rows["label"][:] == ["run", "walk"]
    assert load_split(tmp_path / "data" / "test", classes=["run", "walk"])[0]["hash"][:] == rows["hash"][:]


def test_labels_take_the_runs_spelling_and_unknown_ones_stay(tmp_path, load_split):
    folder = make_set(tmp_path / "data")
    rows, notes = load_split(folder / "test.csv", classes=["FIGHT", "dance"])
    assert Counter(rows["label"][:]) == {"FIGHT": 4, "calm": 4}
    assert "4 clips: never right, for the run has no class calm" in notes


def test_official_lists_choose_the_clips_of_a_runs_classes(ucf, load_split):
    rows, _ = load_split(ucf, split_list=1, classes=["handstandpushups"])
    assert rows["label"][:] == ["handstandpushups"] and rows["group"][:] == ["HandstandPushups_g02"]
    (ucf / "Archery" / "v_Archery_g08_c01.avi").unlink()  # one of train: not needed here
    assert len(load_split(ucf, split_list=1, classes=["Archery", "HandstandPushups"])[0]) == 2
