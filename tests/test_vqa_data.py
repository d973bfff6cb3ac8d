"""Sources of questions about photos: every format gives the same rows, and whatever is wrong is told in one line."""

import csv
import gc
import hashlib
import json
import os
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import common.photos
import common.places
from common.errors import UserError
from vqa.data import check_leak, check_trained_on, load_rows, load_vqa, read_questions, row_key, split_keys

HEADER = ("image", "group", "question", "answer", "type")


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "data"


def photo(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(path, format="PNG")
    return path


def rows_about(photos: range, *, start: str = "images") -> list[dict[str, str]]:
    """Two rows about each photo."""
    return [
        {"image": f"{start}/{n:03d}.png", "group": f"g{n}", "question": question, "answer": answer, "type": type_}
        for n in photos
        for question, answer, type_ in (("đây là gì?", f"món {n % 2}", "dish"), ("có cá không", "có", "yes/no"))
    ]


def write_csv(path: Path, rows: list[dict], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_table(path: Path, rows: list[dict]) -> Path:
    """Rows in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".csv", ".tsv"):
        write_csv(path, rows, "," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def make_set(folder: Path, suffix: str = ".csv", names=("train", "validation", "test"), **change) -> Path:
    """10, 3 and 4 photos with two rows each, as split files; `change` replaces columns (None removes one)."""
    for split, photos in zip(("train", "validation", "test"), (range(10), range(10, 13), range(13, 17)), strict=True):
        for number in photos:
            photo(folder / "images" / f"{number:03d}.png", number)
        name = {"train": names[0], "validation": names[1], "test": names[2]}[split]
        if name:
            rows = [{k: v for k, v in (row | change).items() if v is not None} for row in rows_about(photos)]
            write_table(folder / f"{name}{suffix}", rows)
    return folder


def refused(match: str, *arguments, **keywords) -> None:
    """load_vqa refuses with one line that matches."""
    with pytest.raises(UserError, match=match) as error:
        load_vqa(*map(str, arguments), **keywords)
    assert "\n" not in str(error.value)


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_columns(folder, cache, suffix):
    data = load_vqa(str(make_set(folder, suffix)), cache_directory=cache)
    assert [len(rows) for rows in data.splits.values()] == [20, 6, 8]
    assert list(data.splits) == ["train", "validation", "test"]
    path = folder / "images" / "000.png"
    first = 2 if suffix in (".csv", ".tsv") else 1
    assert data.splits["train"][0] == {
        "id": f"train-{first}",
        "image": str(path),
        "image_hash": hashlib.sha256(path.read_bytes()).hexdigest(),
        "question": "đây là gì?",
        "answer": "món 0",
        "answers": ["món 0"],
        "type": "dish",
        "group": "g0",
        "row": first,
    }
    assert "train: 20 questions about 10 photos in 10 groups; types: dish 10, yes/no 10" in data.notes
    assert data.leaks == []


@pytest.mark.parametrize("alias", ["val", "valid", "dev", "Validation"])
def test_split_files_have_aliases(folder, cache, alias):
    data = load_vqa(str(make_set(folder, names=("train", alias, "test"))), cache_directory=cache)
    assert data.splits["validation"]["id"][0] == "validation-2"


def test_two_files_of_one_split_are_refused(folder, cache):
    make_set(folder)
    write_table(folder / "dev.json", rows_about(range(10, 13)))
    refused("both dev.json and validation.csv could be its validation", folder, cache_directory=cache)


def test_texts_stay_as_they_are(folder, cache):
    photo(folder / "a.png")
    answers = ["01", "NA", "null", "None", "NaN", "1.0", " hai dòng\nđây ", "Hòa", "true", "ba, bốn"]
    for suffix in (".csv", ".json", ".parquet"):
        rows = [{"image": "a.png", "question": "gì", "answer": answer} for answer in answers]
        rows, _ = load_rows(str(write_table(folder / f"x{suffix}", rows)), cache_directory=cache)
        assert rows["answer"][:] == answers


def test_byte_order_mark_crlf_blank_lines_and_quoted_newlines(folder, cache):
    photo(folder / "a.png")
    text = '\ufeffimage,question,answer\r\na.png,"một\r\nhai",x\r\n\r\na.png,"nói ""có""",y\r\n'
    (folder / "x.csv").write_bytes(text.encode())
    rows, _ = load_rows(str(folder / "x.csv"), cache_directory=cache)
    assert rows["question"][:] == ["một\r\nhai", 'nói "có"']
    assert rows["row"][:] == [2, 4]


def test_json_lines_under_the_name_of_json_and_u2028_within_a_text(folder, cache):
    photo(folder / "a.png")
    lines = [
        {"image": "a.png", "question": "một\u2028hai", "answer": 2},
        {"image": "a.png", "question": "b", "answer": "c"},
    ]
    (folder / "x.json").write_text("\n".join(json.dumps(x, ensure_ascii=False) for x in lines), encoding="utf-8")
    rows, _ = load_rows(str(folder / "x.json"), cache_directory=cache)
    assert rows["question"][:] == ["một\u2028hai", "b"]
    assert rows["answer"][:] == ["2", "c"]


def test_missing_optional_columns_are_filled_in(folder, cache):
    data = load_vqa(str(make_set(folder, group=None, type=None)), cache_directory=cache)
    row = data.splits["test"][0]
    assert row["type"] == "all"
    assert row["group"] == row["image_hash"][:16]
    assert "boxes" not in row


def test_ids_are_kept_if_they_are_unique(folder, cache):
    photo(folder / "a.png")
    rows = [{"image": "a.png", "question": "q", "answer": "a", "id": name} for name in ("7", "8")]
    assert load_rows(str(write_csv(folder / "x.csv", rows)), cache_directory=cache)[0]["id"][:] == ["7", "8"]
    rows[1]["id"] = "7"
    assert load_rows(str(write_csv(folder / "x.csv", rows)), cache_directory=cache)[0]["id"][:] == ["x-2", "x-3"]


def test_boxes_are_kept_as_json_text(folder, cache):
    photo(folder / "a.png")
    row = {"image": "a.png", "question": "q", "answer": "a"}
    write_csv(folder / "x.csv", [row | {"boxes": "[[0.1, 0, 1, 1]]"}, row | {"question": "r", "boxes": ""}])
    write_table(folder / "y.json", [row | {"boxes": [[0.1, 0, 1, 1]]}, row | {"question": "r"}])
    for name in ("x.csv", "y.json"):
        assert load_rows(str(folder / name), cache_directory=cache)[0]["boxes"][:] == ["[[0.1, 0, 1, 1]]", ""]


def test_columns_can_be_mapped(folder, cache):
    photo(folder / "a.png")
    path = write_csv(folder / "x.csv", [{"anh": "a.png", "cau_hoi": "đây là gì", "tra_loi": "cá", "loai": "dish"}])
    names = {"image": "anh", "question": "cau_hoi", "answer": "tra_loi", "type": "loai"}
    rows, _ = load_rows(str(path), columns=names, cache_directory=cache)
    assert (rows[0]["question"], rows[0]["answer"], rows[0]["type"]) == ("đây là gì", "cá", "dish")
    refused("no column 'cau'.*it has: anh, cau_hoi", path, columns={"question": "cau"}, cache_directory=cache)
    refused("'quest' is no column of ours", path, columns={"quest": "cau_hoi"}, cache_directory=cache)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x.csv", '["mèo", "chó", "chó", "mèo"]'),
        ("x.json", ["mèo", "chó", "chó", "mèo"]),
        ("x.parquet", ["mèo", "chó", "chó", "mèo"]),
        ("x.jsonl", [{"answer": answer, "answer_id": 1} for answer in ("mèo", "chó", "chó", "mèo")]),
    ],
)
def test_several_reference_answers(folder, cache, name, value):
    photo(folder / "a.png")
    path = write_table(folder / name, [{"image": "a.png", "question": "con gì", "answers": value}])
    rows, _ = load_rows(str(path), cache_directory=cache)
    assert rows["answers"][:] == [["mèo", "chó", "chó", "mèo"]]
    assert rows["answer"][:] == ["mèo"]  # of equally frequent ones the first


def test_answers_that_are_no_list_are_refused(folder, cache):
    photo(folder / "a.png")
    path = write_csv(folder / "x.csv", [{"image": "a.png", "question": "q", "answers": "mèo|chó"}])
    refused(r"x.csv, row 2: column 'answers' must be a JSON list", path, cache_directory=cache)


# --- splits -----------------------------------------------------------------------------------------------------------


def test_a_single_file_is_split_by_group_and_by_the_split_seed(folder, cache):
    for number in range(40):
        photo(folder / "images" / f"{number:03d}.png", number)
    rows = rows_about(range(40))
    for row in rows:
        row["group"] = f"g{int(row['group'][1:]) // 2}"  # two photos a group
    path = write_csv(folder / "all.csv", rows)
    data = load_vqa(str(path), cache_directory=cache)
    groups = {split: set(part["group"][:]) for split, part in data.splits.items()}
    assert sum(map(len, groups.values())) == 20 == len(set.union(*groups.values()))
    assert [len(part) for part in data.splits.values()] == [52, 12, 16]
    assert any(note.startswith("test: 16 of 80 training rows of") and "split seed 0" in note for note in data.notes)
    again = load_vqa(str(path), cache_directory=cache)
    assert again.splits["test"]["id"][:] == data.splits["test"]["id"][:]
    other = load_vqa(str(path), split_seed=1, cache_directory=cache)
    assert set(other.splits["test"]["group"][:]) != groups["test"]


def test_validation_is_taken_from_train_where_the_folder_has_none(folder, cache):
    data = load_vqa(str(make_set(folder, names=("train", "", "test"))), cache_directory=cache)
    assert [len(rows) for rows in data.splits.values()] == [16, 4, 8]
    assert check_leak(data.splits["train"], data.splits["validation"], names=("train", "validation")) is None


def test_a_photo_in_two_groups_holds_them_together(folder, cache):
    for number in range(20):
        photo(folder / "images" / f"{number:03d}.png", number % 10)  # ten contents, each under two names and groups
    data = load_vqa(str(write_csv(folder / "all.csv", rows_about(range(20)))), cache_directory=cache)
    for pair in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert check_leak(data.splits[pair[0]], data.splits[pair[1]], names=pair) is None


def test_one_photo_cannot_be_split(folder, cache):
    photo(folder / "images/000.png")
    refused(r"all.csv: 1 group", write_csv(folder / "all.csv", rows_about(range(1))), cache_directory=cache)


def test_limit_takes_the_first_photos_of_each_file(folder, cache):
    data = load_vqa(str(make_set(folder)), limit=2, cache_directory=cache)
    assert [len(rows) for rows in data.splits.values()] == [4, 4, 4]
    assert set(data.splits["test"]["group"][:]) == {"g13", "g14"}
    refused("--limit 0", folder, limit=0, cache_directory=cache)


def test_a_folder_without_train_is_refused(folder, cache):
    refused("has no train split, only test", make_set(folder, names=("", "", "test")), cache_directory=cache)


# --- leaks ------------------------------------------------------------------------------------------------------------


def test_a_shared_group_is_refused_with_the_count_or_recorded(folder, cache):
    make_set(folder)
    rows = rows_about(range(13, 17))
    rows[0]["group"] = "g3"
    write_csv(folder / "test.csv", rows)
    refused(r"leak: 20 % of test groups are in train \(photos 0 of 4, groups 1 of 5", folder, cache_directory=cache)
    data = load_vqa(str(folder), allow_leaky_split=True, cache_directory=cache)
    assert [(leak.first, leak.second, leak.shared) for leak in data.leaks] == [
        ("train", "test", {"photos": 0, "groups": 1, "rows": 0})
    ]
    assert any(note.startswith("LEAKY: 20 % of test groups are in train") for note in data.notes)


def test_the_same_photo_under_another_name_and_group_is_found(folder, cache):
    make_set(folder)
    photo(folder / "images/014.png", 2)
    refused(r"25 % of test photos are in train \(photos 1 of 4, groups 0 of 4", folder, cache_directory=cache)


def test_identical_rows_are_compared_as_normalised(folder, cache):
    make_set(folder)
    photo(folder / "images/014.png", 2)
    rows = rows_about(range(13, 17))
    for row in rows:
        row["question"] = row["question"].upper() + " ?"
    write_csv(folder / "test.csv", rows)
    data = load_vqa(str(folder), allow_leaky_split=True, cache_directory=cache)
    assert data.leaks[0].shared["rows"] == 2


def test_a_train_file_given_as_test_is_refused(folder, cache):
    data = load_vqa(str(make_set(folder)), cache_directory=cache)
    rows, _ = load_rows(str(folder / "train.csv"), cache_directory=cache)
    with pytest.raises(UserError, match="100 % of test photos are in train .photos 10 of 10, groups 10 of 10, rows 20"):
        check_leak(data.splits["train"], rows, names=("train", "test"))
    trained = split_keys(data.splits["train"])
    with pytest.raises(UserError, match="leak: 100 % of train.csv photos are in the run's training split"):
        check_trained_on(trained, split_keys(rows), where="train.csv", allow=False)
    assert check_trained_on(trained, split_keys(rows), where="train.csv", allow=True).startswith("LEAKY: 100 %")
    rows, _ = load_rows(str(folder), split="test", cache_directory=cache)
    assert check_trained_on(trained, split_keys(rows), where="test.csv", allow=False) is None


def test_row_keys_one_by_one_and_together_are_the_same(folder, cache):
    rows, _ = load_rows(str(make_set(folder)), cache_directory=cache)
    assert [row_key(row) for row in rows] == split_keys(rows)["rows"]


@pytest.mark.parametrize("need_images", [True, False])
def test_photos_of_equal_names_in_two_folders_are_two_photos(folder, tmp_path, cache, need_images):
    make_set(folder, group=None)
    other = tmp_path / "other"
    photo(other / "images/000.png", 99)
    write_csv(other / "held.csv", [{"image": "images/000.png", "question": "đây là gì", "answer": "món 0"}])
    data = load_vqa(str(folder), need_images=need_images, cache_directory=cache)
    rows, _ = load_rows(str(other / "held.csv"), need_images=need_images, cache_directory=cache)
    assert check_leak(data.splits["train"], rows, names=("train", "held")) is None


def test_load_rows_needs_the_split(folder, cache):
    make_set(folder, names=("train", "", "test"))
    with pytest.raises(UserError, match="has no validation split; it has train, test"):
        load_rows(str(folder), split="validation", cache_directory=cache)


# --- bad files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.csv", b"", "x.csv: the file is empty"),
        ("x.csv", b" \n\n", "x.csv: the file is empty"),
        ("x.csv", b"image,question,answer\n", "x.csv: has a header but no rows"),
        (
            "x.csv",
            b"image,answer\na.png,b\n",
            "x.csv: no column 'question'; it has: image, answer.*--columns question=",
        ),
        ("x.csv", b"image,question\na.png,b\n", "x.csv: no column 'answer'"),
        ("x.csv", b"question,answer\na,b\n", "x.csv: no column 'image'"),
        ("x.csv", b"image,question,answer\na.png,q,a\na.png, ,b\n", "x.csv, row 3: question is blank"),
        ("x.csv", b"image,question,answer\na.png,q,\n", "x.csv, row 2: answer is blank"),
        ("x.csv", b"image,question,answer\na.png,q\n", "x.csv, row 2: answer is blank"),
        ("x.csv", b"image,question,answer\na.png,q,a,b\n", "x.csv, row 2: 4 fields, but the header has 3"),
        ("x.csv", b"image,question,question,answer\na,b,c,d\n", "x.csv: two columns are called 'question'"),
        ("x.csv", b'image,question,answer\na.png,"q,a\n', "x.csv, row 2: unexpected end of data"),
        ("x.csv", "image,question,answer\na.png,q,b\na.png,đ,a\n".encode("cp1258"), "x.csv, line 3: is not UTF-8"),
        ("x.csv", "image,question,answer\n".encode("utf-16"), "x.csv, line 1: is not UTF-8"),
        ("x.csv", b"image,question,answer\n,q,a\n", "x.csv, row 2: image is blank"),
        (
            "x.jsonl",
            b'{"image": "a.png", "question": "q", "answer": "a"}\n{"image": \n',
            "x.jsonl, row 2: is not valid JSON",
        ),
        ("x.jsonl", b'{"a": 1}\n[1]\n', "x.jsonl, row 2: is no JSON object"),
        ("x.json", b'[{"image": "a.png"', "x.json: is not valid JSON"),
        ("x.json", b"3", "x.json: must hold a list of objects"),
        ("x.json", b"[]", "x.json: has no rows"),
        ("x.json", b"[" * 100_000, "x.json: JSON nested too deeply"),
        ("x.json", b'[{"image": "a.png", "question": ["q"], "answer": "a"}]', "row 1: column 'question' holds a list"),
        ("x.json", b'[{"image": "a.png", "question": "\\ud83d", "answer": "a"}]', "row 1: question holds a broken"),
        (
            "x.json",
            b'[{"image": "a.png", "question": "q", "answer": "a"}, {"answer": "a"}]',
            "x.json, row 2: question is blank",
        ),
        ("x.parquet", b"PAR1 no", "x.parquet: is no readable Parquet file"),
        ("x.parquet", b"", "x.parquet: the file is empty"),
        ("x.xlsx", b"PK", "x.xlsx: of this kind no rows can be read"),
    ],
)
def test_a_bad_file_is_told_in_one_line(folder, cache, name, content, match):
    photo(folder / "a.png")
    (folder / name).write_bytes(content)
    refused(match, folder / name, cache_directory=cache)


def test_a_source_that_is_not_there(tmp_path, folder, cache, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("the Hub was asked for a path"))
    monkeypatch.chdir(tmp_path)
    refused("nowhere.csv: no such file or folder", tmp_path / "nowhere.csv", cache_directory=cache)
    refused("--data data/nowhere: no such file or folder", make_set(folder) and "data/nowhere", cache_directory=cache)
    (tmp_path / "empty").mkdir()
    refused("empty: no train file in it", tmp_path / "empty", cache_directory=cache)
    refused("--images .*gone: no such folder", folder, images=str(tmp_path / "gone"), cache_directory=cache)
    refused("--on-bad-image 'ignore': allowed are fail, skip", folder, on_bad_image="ignore", cache_directory=cache)


# --- photos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda path: path.unlink(), r"train.csv, row 6: .*images/002.png: no such photo; --on-bad-image skip"),
        (lambda path: path.write_bytes(b"no photo"), r"train.csv, row 6: .*images/002.png: cannot be read as an image"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:40]),
            r"train.csv, row 6: .*images/002.png: cannot be read as an image",
        ),
        (lambda path: (path.unlink(), path.mkdir()), r"train.csv, row 6: .*images/002.png is a folder, not a photo"),
        (lambda path: (path.unlink(), os.mkfifo(path)), r"train.csv, row 6: .*images/002.png is not a file"),
    ],
)
def test_a_bad_photo_stops_the_load_or_is_skipped_and_counted(folder, cache, spoil, match):
    make_set(folder)
    spoil(folder / "images/002.png")
    refused(match, folder, cache_directory=cache)
    data = load_vqa(str(folder), on_bad_image="skip", cache_directory=cache)
    assert [len(rows) for rows in data.splits.values()] == [18, 6, 8]
    assert "g2" not in data.splits["train"]["group"][:]
    (note,) = [note for note in data.notes if note.startswith("skipped")]
    assert "2 of 20 rows" in note and "train.csv" in note and "row 6" in note


def test_a_split_whose_photos_are_all_bad_is_refused(folder, cache):
    make_set(folder)
    for number in range(13, 17):
        (folder / f"images/{number:03d}.png").unlink()
    refused("test.csv: no row is left, for every photo", folder, on_bad_image="skip", cache_directory=cache)


@pytest.mark.parametrize("on_bad_image", ["fail", "skip"])
@pytest.mark.parametrize(
    ("reference", "match"),
    [
        ("../secret.png", "row 3: photo ../secret.png leads out of the data folder"),
        ("../../../../../../etc/hostname", "row 3: .*leads out of the data folder"),
        ("../data-beside/secret.png", "row 3: .*leads out of the data folder"),
        ("{outside}/secret.png", "row 3: .*leads out of the data folder"),
        ("images/link.png", "row 3: .*leads out of the data folder"),
        ("images/linked/secret.png", "row 3: .*leads out of the data folder"),
        ("images/linked/../secret.png", "row 3: .*leads out of the data folder"),
        ("images/dangling.png", "row 3: .*leads out of the data folder"),
        ("http://example.org/a.png", "row 3: .*is a URL; download"),
        ("file:///etc/hostname", "row 3: .*is a URL; download"),
        ("a\0.png", "line 3: holds a null character"),
    ],
)
def test_a_path_that_leads_out_of_the_data_folder_is_refused(tmp_path, folder, cache, reference, match, on_bad_image):
    photo(folder / "images/a.png")
    photo(tmp_path / "secret.png")
    photo(tmp_path / "data-beside/secret.png")
    (folder / "images/link.png").symlink_to(tmp_path / "secret.png")
    (folder / "images/linked").symlink_to(tmp_path / "data-beside")
    (folder / "images/dangling.png").symlink_to(tmp_path / "nothing.png")
    rows = [{"image": "images/a.png", "question": "q", "answer": "a"}]
    rows.append(rows[0] | {"image": reference.format(outside=tmp_path)})
    path = write_csv(folder / "x.csv", rows)
    refused(match, path, on_bad_image=on_bad_image, cache_directory=cache)
    with pytest.raises(UserError, match=match):
        read_questions(path)


def test_paths_and_links_within_the_data_folder_are_followed(tmp_path, folder, cache):
    path = photo(folder / "images/a.png")
    (folder / "images/link.png").symlink_to(path)
    (folder / "linked").symlink_to(folder / "images")
    references = ["images/a.png", str(path), "images/../images/a.png", "images/link.png", "linked/a.png"]
    rows = [{"image": reference, "question": f"q {reference}", "answer": "a"} for reference in references]
    rows, _ = load_rows(str(write_csv(folder / "x.csv", rows)), cache_directory=cache)
    assert len(set(rows["image_hash"][:])) == 1
    assert rows["image"][3] == str(folder / "images/link.png")
    (tmp_path / "alias").symlink_to(folder)  # the data folder itself may be reached by a link
    rows, _ = load_rows(str(tmp_path / "alias" / "x.csv"), cache_directory=cache)
    assert len(rows) == 5


def test_a_link_into_the_hub_cache_is_followed(tmp_path, folder, cache, monkeypatch):
    monkeypatch.setattr(common.places.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder.mkdir()
    (folder / "a.png").symlink_to(photo(tmp_path / "hub" / "blobs" / "0123"))
    path = write_csv(folder / "x.csv", [{"image": "a.png", "question": "q", "answer": "a"}])
    assert load_rows(str(path), cache_directory=cache)[0]["image"][:] == [str(folder / "a.png")]


def test_images_names_another_folder_which_is_then_the_limit(tmp_path, folder, cache):
    make_set(folder)
    (folder / "images").rename(tmp_path / "photos")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "photos").rename(tmp_path / "elsewhere" / "images")
    data = load_vqa(str(folder), images=str(tmp_path / "elsewhere"), cache_directory=cache)
    assert data.splits["train"]["image"][0] == str(tmp_path / "elsewhere/images/000.png")
    path = write_csv(folder / "x.csv", [{"image": str(folder / "train.csv"), "question": "q", "answer": "a"}])
    refused("leads out of the data folder", path, images=str(tmp_path / "elsewhere"), cache_directory=cache)


def test_vietnamese_file_names_in_either_unicode_form(folder, cache):
    photo(folder / "pho\u031b\u0309.png")  # decomposed on disk
    path = write_csv(folder / "x.csv", [{"image": "phở.png", "question": "q", "answer": "a"}])
    assert len(load_rows(str(path), cache_directory=cache)[0]) == 1


def test_good_photos_are_decoded_once_and_changed_ones_again(folder, cache, monkeypatch):
    make_set(folder)
    decoded = []
    monkeypatch.setattr(common.photos, "read_image", lambda path: decoded.append(Path(path).name))
    load_vqa(str(folder), cache_directory=cache)
    assert len(decoded) == 17
    assert len((cache / "checked-photos.txt").read_text(encoding="utf-8").split()) == 17
    decoded.clear()
    data = load_vqa(str(folder), cache_directory=cache)
    assert decoded == []
    photo(folder / "images/004.png", 200)
    changed = load_vqa(str(folder), cache_directory=cache)
    assert decoded == ["004.png"]
    assert changed.splits["train"]["image_hash"][8] != data.splits["train"]["image_hash"][8]


def test_a_damaged_record_of_checked_photos_only_costs_time(folder, cache):
    cache.mkdir()
    (cache / "checked-photos.txt").write_bytes(b"\xff half a line")
    assert len(load_vqa(str(make_set(folder)), cache_directory=cache).splits["train"]) == 20


# --- photos inside the source, Hugging Face data sets -----------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda content: content, lambda content: {"bytes": content, "path": "x.png"}])
def test_photos_inside_a_parquet_file_become_files_of_the_cache(tmp_path, folder, cache, wrap):
    content = photo(tmp_path / "a.png").read_bytes()
    rows = [{"image": wrap(content), "question": question, "answer": "a"} for question in ("q", "r")]
    path = write_table(folder / "x.parquet", rows)
    rows, _ = load_rows(str(path), cache_directory=cache)
    digest = hashlib.sha256(content).hexdigest()
    assert rows["image"][:] == [str(cache / "images" / f"{digest}.png")] * 2
    assert Path(rows["image"][0]).read_bytes() == content
    assert set(rows["image_hash"][:]) == {digest}
    blind, _ = load_rows(str(path), need_images=False, cache_directory=tmp_path / "other")
    assert blind["group"][:] == rows["group"][:]
    assert not (tmp_path / "other").exists()


def hugging_face(folder: Path, photos: range) -> datasets.Dataset:
    rows = rows_about(photos)
    columns = {name: [row[name] for row in rows] for name in ("question", "answer", "group", "type")}
    columns["image"] = [str(photo(folder / row["image"], int(row["group"][1:]))) for row in rows]
    rows = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    return rows.cast_column("type", datasets.ClassLabel(names=["dish", "yes/no"]))


def test_a_hub_id_goes_through_load_dataset(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(common.places.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    loaded = datasets.DatasetDict(
        {
            "train": hugging_face(tmp_path / "hub", range(10)),
            "dev": hugging_face(tmp_path / "hub", range(10, 12)),
            "test": hugging_face(tmp_path / "hub", range(12, 15)),
        }
    )
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or loaded)
    data = load_vqa("ai/mon-an", cache_directory=cache)
    assert asked == ["ai/mon-an"]
    assert [len(rows) for rows in data.splits.values()] == [20, 4, 6]
    row = data.splits["train"][1]
    assert (row["id"], row["type"], row["image"]) == ("train-2", "yes/no", str(tmp_path / "hub/images/000.png"))


def test_a_hub_id_that_cannot_be_loaded_is_told_in_one_line(tmp_path, cache, monkeypatch):
    def fail(name):
        raise ConnectionError("no route to host\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.chdir(tmp_path)
    refused(
        r"ai/mon-an: no such file or folder, and the Hugging Face Hub.*\(no route to host\)",
        "ai/mon-an",
        cache_directory=cache,
    )


def test_a_saved_hugging_face_folder(tmp_path, folder, cache):
    photos = hugging_face(tmp_path / "photos", range(10))
    files = photos.cast_column("image", datasets.Image(decode=False))
    embedded = files.map(lambda row: {"image": {"bytes": Path(row["image"]["path"]).read_bytes(), "path": None}})
    datasets.DatasetDict({"train": embedded.cast_column("image", datasets.Image())}).save_to_disk(str(folder))
    data = load_vqa(str(folder), cache_directory=cache)
    assert sum(map(len, data.splits.values())) == 20
    assert data.splits["train"]["image"][0].startswith(str(cache / "images"))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # `datasets` leaves metadata.csv open
def test_a_folder_of_photos_with_metadata(folder, cache):
    for split, photos in (("train", range(8)), ("test", range(8, 12))):
        rows = [{"file_name": f"{n}.png", "question": "đây là gì", "answer": f"món {n % 2}"} for n in photos]
        for n in photos:
            photo(folder / split / f"{n}.png", n)
        write_csv(folder / split / "metadata.csv", rows)
    data = load_vqa(str(folder), cache_directory=cache)
    assert [len(rows) for rows in data.splits.values()] == [7, 1, 4]
    assert data.splits["test"]["image"][0] == str(folder / "test" / "8.png")
    gc.collect()


# --- ViVQA, and questions without photos ------------------------------------------------------------------------------


def vivqa_rows(numbers: list[int]) -> list[dict[str, str]]:
    return [
        {"": str(place), "question": f"màu gì {place}", "answer": "đỏ", "img_id": str(number), "type": str(place % 4)}
        for place, number in enumerate(numbers)
    ]


@pytest.mark.parametrize(
    "name",
    [
        "{0}.jpg",
        "{0:012d}.jpg",
        "COCO_val2014_{0:012d}.jpg",
        "train2014/COCO_train2014_{0:012d}.jpg",
        "val2017/{0:012d}.jpg",
    ],
)
def test_vivqa_columns_and_coco_names_are_recognised(tmp_path, folder, cache, name):
    for number in (68857, 119776, 7):
        photo(tmp_path / "coco" / name.format(number), number)
    path = write_csv(folder / "train.csv", vivqa_rows([68857, 119776, 7, 68857]))
    rows, _ = load_rows(str(path), images=str(tmp_path / "coco"), cache_directory=cache)
    assert rows["type"][:] == ["object", "number", "color", "location"]
    assert rows["group"][:] == ["68857", "119776", "7", "68857"]
    assert rows["image"][0] == str(tmp_path / "coco" / name.format(68857))
    assert rows["image"][3] == rows["image"][0]


def test_a_missing_coco_photo_is_told_by_its_number(tmp_path, folder, cache):
    photo(tmp_path / "coco/train2014/COCO_train2014_000000000007.jpg")
    path = write_csv(folder / "train.csv", vivqa_rows([7, 8]))
    match = r"train.csv, row 3: no photo 8.jpg, 000000000008.jpg or COCO_\*_000000000008.jpg"
    refused(match, path, images=str(tmp_path / "coco"), cache_directory=cache)
    refused("row 2: no photo 7.jpg.*--images names the folder", path, cache_directory=cache)


def test_questions_alone_need_no_photos(folder, cache):
    write_csv(folder / "train.csv", vivqa_rows([1, 2, 3, 4, 5, 6, 1, 2]))
    write_csv(folder / "test.csv", vivqa_rows([7, 8]))
    data = load_vqa(str(folder), need_images=False, cache_directory=cache)
    assert {row["image"] for rows in data.splits.values() for row in rows} == {""}
    assert {row["image_hash"] for rows in data.splits.values() for row in rows} == {""}
    assert data.splits["test"]["group"][:] == ["7", "8"]


def test_questions_alone_need_no_image_column(folder, cache):
    path = write_csv(folder / "x.csv", [{"question": "đây là gì", "answer": "cá"}] * 2)
    rows, _ = load_rows(str(path), need_images=False, cache_directory=cache)
    assert rows["group"][:] == ["x-2", "x-3"]


def test_questions_alone_do_not_open_what_lies_outside(tmp_path, folder, cache):
    photo(tmp_path / "secret.png")
    row = {"question": "q", "answer": "a"}
    path = write_csv(folder / "x.csv", [row | {"image": "../secret.png"}, row | {"image": "https://example.org/a.png"}])
    rows, _ = load_rows(str(path), need_images=False, cache_directory=cache)
    assert rows["group"][:] == ["../secret.png", "https://example.org/a.png"]


# --- questions to be answered -----------------------------------------------------------------------------------------


def test_questions_to_be_answered(folder):
    path = write_csv(folder / "x.csv", [{"image": "a.png", "question": "con gì", "more": "x"}])
    asked = {"image": "a.png", "path": str(folder / "a.png"), "question": "con gì", "row": 2}
    assert read_questions(path) == [asked]
    assert read_questions(path, question="màu gì") == [asked | {"question": "màu gì"}]
    write_csv(path, [{"image": "a.png"}])
    assert read_questions(path, question="màu gì") == [asked | {"question": "màu gì"}]
    with pytest.raises(UserError, match="no column 'question'"):
        read_questions(path)
    write_csv(path, [{"question": "màu gì"}])
    assert read_questions(path, need_images=False) == [asked | {"image": "", "path": "", "question": "màu gì"}]
    with pytest.raises(UserError, match="no column 'image'"):
        read_questions(path)


# --- the real sets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vifood_vqa", [11544, 2392, 5040]),
        ("viparts_vqa", [5666, 939, 1545]),
        ("viphoto_vqa", [3045, 505, 770]),
    ],
)
def test_real_photo_sets_load_clean(real_data, cache, name, sizes):
    data = load_vqa(str(real_data / name), cache_directory=cache)
    assert [len(rows) for rows in data.splits.values()] == sizes
    assert data.leaks == []
    assert ("boxes" in data.splits["train"].column_names) == (name == "viparts_vqa")


def test_vivqa_leaks_half_of_its_test_photos(real_data, cache):
    source = str(real_data / "vivqa")
    refused("49 % of test photos are in train .photos 1,376 of 2,789", source, need_images=False, cache_directory=cache)
    data = load_vqa(source, need_images=False, allow_leaky_split=True, cache_directory=cache)
    assert sum(map(len, data.splits.values())) == 15000
    assert len(data.splits["test"]) == 3001
    assert data.leaks[0].fraction == pytest.approx(0.49, abs=0.005)
    assert check_leak(data.splits["train"], data.splits["validation"], names=("train", "validation")) is None
    assert set(data.splits["test"]["type"][:]) == {"object", "number", "color", "location"}
