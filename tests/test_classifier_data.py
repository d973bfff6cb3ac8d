"""Labelled photos: the layouts they come in, their classes and splits, and one clear line for all that is wrong."""

from pathlib import Path

import pytest
from classifier_helpers import CLASSES, write_folder, write_photo

from common.classifier_data import label_key, load_photos, load_scored
from common.errors import UserError


def labels(rows) -> dict[str, str]:
    return dict(zip(rows["id"][:], rows["label"][:], strict=True))


def load(folder: Path, **keywords):
    return load_photos(str(folder), cache_directory=folder.parent / "cache", **keywords)


def test_a_folder_per_class_is_split(tmp_path):
    data = load(write_folder(tmp_path / "data", each=10))
    assert data.classes == CLASSES and set(data.splits) == {"train", "validation", "test"}
    assert sum(len(rows) for rows in data.splits.values()) == 30
    row = data.splits["train"][0]
    assert row["id"].startswith(row["label"] + "/") and Path(row["image"]).is_absolute()
    assert row["group"] == row["hash"][:16]
    again = load(tmp_path / "data")
    assert labels(again.splits["test"]) == labels(data.splits["test"])
    assert labels(load(tmp_path / "data", split_seed=1).splits["test"]) != labels(data.splits["test"])


def test_splits_of_its_own_are_kept_and_none_is_made_of_train_for_test(tmp_path):
    data = load(write_folder(tmp_path / "data", splits=("train", "val")))
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 12, "validation": 12}
    assert any("test: none" in note for note in data.notes)
    data = load(write_folder(tmp_path / "other", splits=("train", "test")))
    assert len(data.splits["test"]) == 12 and len(data.splits["train"]) + len(data.splits["validation"]) == 12


def test_photos_named_by_their_label(tmp_path):
    folder = write_folder(tmp_path / "data", splits=("train", "validation"))
    names = ["Blue-Thing_1.jpg", "green thing.jpg", "red_thing (2).jpg", "red_thing_3.PNG", "greenthing-11.jpg"]
    for seed, name in enumerate(names, start=100):
        write_photo(folder / "test" / name, seed)
    found = labels(load(folder).splits["test"])
    assert found == {
        f"test/{name}": wanted
        for name, wanted in zip(
            names, ["blue_thing", "green_thing", "red_thing", "red_thing", "green_thing"], strict=True
        )
    }


def test_a_number_may_belong_to_the_class(tmp_path):
    classes = ["type_1", "type_2"]
    for seed, name in enumerate(("type_2.jpg", "type_1_5.jpg", "Type 2_1.jpg")):
        write_photo(tmp_path / "held" / name, seed)
    rows, _ = load_scored(str(tmp_path / "held"), classes=classes, cache_directory=tmp_path / "cache")
    assert labels(rows) == {"type_2.jpg": "type_2", "type_1_5.jpg": "type_1", "Type 2_1.jpg": "type_2"}


def test_a_flat_folder_can_be_trained_on(tmp_path):
    for seed in range(12):
        write_photo(tmp_path / "data" / f"{('cat', 'dog')[seed % 2]}_{seed}.jpg", seed)
    data = load(tmp_path / "data")
    assert data.classes == ["cat", "dog"] and sum(map(len, data.splits.values())) == 12


@pytest.mark.parametrize(
    "names",
    [
        ["IMG_{:04}", "_DSC{:05}", "PXL_20240103_1011{:05}.MP", "IMG-20240101-WA{:04}"],
        ["2024-01-03 10.00.{:02}", "20240103_1010{:02}", "Screenshot ({})", "P10100{:02}", "photo {}"],
    ],
)
def test_what_a_camera_called_a_photo_is_no_label(tmp_path, names):
    for seed in range(12):
        write_photo(tmp_path / "data" / f"{names[seed % len(names)].format(seed)}.jpg", seed)
    with pytest.raises(UserError, match="and 11 others are called as a camera calls them.*a folder per class"):
        load(tmp_path / "data")


def test_numbers_are_labels(tmp_path):
    for seed in range(12):
        write_photo(tmp_path / "data" / f"{seed % 2}_{seed}.jpg", seed)
    assert load(tmp_path / "data").classes == ["0", "1"]


def test_a_table_with_groups_and_splits(tmp_path):
    folder = write_folder(tmp_path / "photos", each=3)
    lines = ["file,label,group,split"]
    for label in CLASSES:
        spelled = label.replace("_", " ").title()
        lines += [
            f"{label}/{label}_{n}.jpg,{spelled if n else label},g-{label}-{n},{'train' if n else 'dev'}"
            for n in range(3)
        ]
    (folder / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    data = load(folder / "table.csv", columns={"image": "file"})
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 6, "validation": 3}
    assert data.classes == ["Blue Thing", "Green Thing", "Red Thing"]
    assert data.splits["validation"]["label"][:] == data.classes
    assert data.splits["validation"]["group"][:] == [f"g-{label}-0" for label in CLASSES]
    (tmp_path / "alone.csv").write_text("\n".join(lines).replace(",dev", ",train"), encoding="utf-8")
    with pytest.raises(UserError, match="blue_thing_0.jpg: no such photo"):
        load(tmp_path / "alone.csv", columns={"image": "file"})
    assert len(load(tmp_path / "alone.csv", columns={"image": "file"}, images=str(folder)).splits["train"]) < 9


def test_groups_stay_whole_and_leaks_are_refused(tmp_path):
    folder = write_folder(tmp_path / "data", splits=("train", "test"))
    same = folder / "test" / "red_thing" / "again.jpg"
    same.write_bytes((folder / "train" / "red_thing" / "red_thing_0.jpg").read_bytes())
    with pytest.raises(UserError, match="leak: 8 % of test photos are in train .photos 1 of 13"):
        load(folder)
    data = load(folder, allow_leaky_split=True)
    assert len(data.leaks) == 1 and any("LEAKY" in note for note in data.notes)
    copies = write_folder(tmp_path / "copies", each=5)
    for label in CLASSES:  # each photo twice: both or none in a split
        for number in range(5):
            source = copies / label / f"{label}_{number}.jpg"
            (copies / label / f"copy_{number}.jpg").write_bytes(source.read_bytes())
    splits = load(copies).splits
    hashes = [set(rows["hash"][:]) for rows in splits.values()]
    assert sum(map(len, hashes)) == len(set.union(*hashes)) == 15


def test_label_key():
    assert label_key("Fan_capacitor") == label_key("fan-Capacitor ") == label_key("FANCAPACITOR")
    assert label_key("phở") == label_key("pho\u031b\u0309") != label_key("pho")


def broken(folder: Path, what: str) -> Path:
    write_folder(folder, splits=("train", "validation"))
    if what == "empty":
        (folder / "train" / "fan").mkdir()
    elif what == "no photo":
        (folder / "train" / "red_thing" / "red_thing_9.jpg").write_text("this is text", encoding="utf-8")
    elif what == "text":
        (folder / "train" / "red_thing" / "readme.txt").write_text("this is text", encoding="utf-8")
    elif what == "stranger":
        write_photo(folder / "validation" / "purple" / "1.jpg", 99)
    elif what == "beside":
        write_photo(folder / "train" / "1.jpg", 99)
    elif what == "twice":
        write_photo(folder / "val" / "red_thing" / "1.jpg", 99)
    elif what == "one class":
        for split in ("train", "validation"):
            for label in CLASSES[1:]:
                for path in (folder / split / label).iterdir():
                    path.unlink()
                (folder / split / label).rmdir()
    elif what == "junk":
        (folder / "train" / "red_thing" / "Thumbs.db").write_bytes(b"\0")
        (folder / "train" / "red_thing" / "._1.jpg").write_bytes(b"\0")
        (folder / "licence.txt").write_text("free", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("empty", "train.fan: a class folder without a photo"),
        ("no photo", "red_thing_9.jpg: cannot be read as an image .*--on-bad-image skip"),
        ("text", "readme.txt: cannot be read as an image"),
        ("stranger", r"1 label matches no class of the training photos of .*'purple' \(validation/purple/1.jpg\)"),
        ("beside", "1.jpg lies beside the folders of the classes"),
        ("twice", "both val and validation could be its validation"),
        ("one class", "only one class, blue_thing"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, what, said):
    with pytest.raises(UserError, match=said) as error:
        load(broken(tmp_path / "data", what))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("what", "said"), [("empty", "fan"), ("no photo", "skipped: 1 of 25"), ("text", "skipped: 1")])
def test_what_is_wrong_is_left_out_and_counted(tmp_path, what, said):
    data = load(broken(tmp_path / "data", what), on_bad_image="skip")
    assert len(data.splits["train"]) == 12 and data.classes == CLASSES
    assert any(said in note for note in data.notes)


def test_what_file_managers_leave_is_no_photo(tmp_path):
    assert len(load(broken(tmp_path / "data", "junk")).splits["train"]) == 12


def test_nothing_there(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no train file in it .*, nor a photo"):
        load(tmp_path / "empty")
    with pytest.raises(UserError, match="no such file or folder"):
        load(tmp_path / "nowhere")
    write_folder(tmp_path / "held", splits=("train", "validation"))
    with pytest.raises(UserError, match="has no test split; it has train, validation"):
        load_scored(str(tmp_path / "held"), classes=CLASSES, cache_directory=tmp_path / "cache")
    with pytest.raises(UserError, match=r"3 labels match no class of the run: 'blue_thing' \(train/"):
        load_scored(str(tmp_path / "held"), classes=["x", "y"], split="train", cache_directory=tmp_path / "cache")


@pytest.mark.parametrize("given", [{"columns": {"image": "file"}}, {"images": "."}])
def test_what_only_a_table_has_is_refused_for_a_folder(tmp_path, given):
    with pytest.raises(UserError, match=f"--{next(iter(given))} names .* a table"):
        load(write_folder(tmp_path / "data", each=2), **given)
