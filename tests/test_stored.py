"""Features computed before: both layouts, floats and 8 bits, give the same values; damage is told in one line."""

import copy
import csv
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from video.stored import StoredFeatures, load_stored, load_stored_clips, write_stored


def index_rows(count: int, names=("path", "label", "group", "split")) -> list[dict[str, str]]:
    """Two clips a group; the last quarter of the groups is the test split."""
    rows = []
    for number in range(count):
        split = "test" if number >= count * 3 // 4 else "train"
        row = {"path": f"c{number}.avi", "label": "ab"[number // 2 % 2], "group": f"g{number // 2}", "split": split}
        rows.append({name: row[name] for name in names})
    return rows


def write_index(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def save(folder: Path, count: int = 16, name: str = "features.safetensors", rows=None, **tensors: torch.Tensor) -> Path:
    """A file of `count` clips of 3 frames and size 4, and its index; `tensors` replace or join (None: leave out)."""
    folder.mkdir(exist_ok=True)
    tensors = {"features": torch.arange(count * 12.0).view(count, 3, 4)} | tensors
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, folder / name)
    write_index(folder / "index.csv", rows or index_rows(count))
    return folder / name


def refused(match: str, function, *arguments, **keywords) -> None:
    with pytest.raises(UserError, match=match) as error:
        function(*map(str, arguments), **keywords)
    assert "\n" not in str(error.value)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_clips_of_equal_and_of_different_lengths(tmp_path):
    equal = StoredFeatures(save(tmp_path / "equal", 2))
    assert (len(equal), equal.size, equal.lengths.tolist()) == (2, 4, [3, 3])
    assert torch.equal(equal[1], torch.arange(12.0, 24).view(3, 4))
    padded = StoredFeatures(save(tmp_path / "padded", 2, lengths=torch.tensor([3, 1])))
    one_after_another = {"features": torch.arange(16.0).view(4, 4), "lengths": torch.tensor([3, 1], dtype=torch.int32)}
    ragged = StoredFeatures(save(tmp_path / "ragged", 2, **one_after_another))
    for stored in (padded, ragged):
        features, lengths = stored.take([1, 0])
        assert features.dtype == torch.float32 and lengths.tolist() == [1, 3]
        assert torch.equal(features[0], torch.tensor([[12.0, 13, 14, 15], [0] * 4, [0] * 4]))
        assert torch.equal(features[1], torch.arange(12.0).view(3, 4))
    with pytest.raises(IndexError):
        ragged[2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_become_float32(tmp_path, dtype):
    stored = StoredFeatures(save(tmp_path, 2, features=torch.ones(2, 3, 4, dtype=dtype)))
    assert stored[0].dtype == torch.float32 and stored[0].sum() == 12


def test_eight_bits_are_squared_and_scaled(tmp_path):
    features = torch.tensor([[[0, 51, 255]]], dtype=torch.uint8)
    stored = StoredFeatures(save(tmp_path, 1, features=features, scale=torch.tensor([1.0, 10.0, 3.0])))
    assert torch.allclose(stored[0], torch.tensor([[0.0, 0.4, 3.0]]))


def test_a_folder_of_files_is_one_in_the_order_of_names(tmp_path):
    whole = torch.arange(60.0).view(5, 3, 4)
    save(tmp_path, 3, name="a.safetensors", features=whole[:3].clone())
    ragged = {"features": whole[3:].reshape(6, 4).half(), "lengths": torch.tensor([3, 3])}
    save(tmp_path, 2, name="b.safetensors", **ragged, rows=index_rows(5))
    stored = StoredFeatures(tmp_path)
    assert torch.equal(stored.take([4, 2, 3, 0])[0], whole[[4, 2, 3, 0]])
    save(tmp_path, 1, name="c.safetensors", features=torch.ones(1, 1, 9))
    refused(r"c.safetensors: features of size 9, but a.safetensors has 4", StoredFeatures, tmp_path)


def test_open_features_may_be_sent_to_another_process(tmp_path):
    stored = StoredFeatures(save(tmp_path, 2))
    first = stored[0]
    for other in (pickle.loads(pickle.dumps(stored)), copy.deepcopy(stored)):
        assert torch.equal(other[0], first)


NAN = float("nan")


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"features": None, "frames": torch.ones(2)}, r"has no tensor 'features'; it has: frames"),
        ({"features": torch.ones(2)}, r"features are 2 F32; \(clips ×\) frames × size"),
        ({"features": torch.ones(2, 0, 4)}, r"features are 2×0×4"),
        ({"features": torch.ones(2, 3, 4, dtype=torch.int64)}, r"features are 2×3×4 I64"),
        ({"features": torch.ones(6, 4)}, r"a tensor 'lengths' must tell"),
        ({"features": torch.ones(6, 4), "lengths": torch.tensor([3, 2])}, r"lengths add up to 5, but .* 6 frames"),
        ({"features": torch.ones(6, 4), "lengths": torch.tensor([6, 0])}, r"whole numbers, 1 or more"),
        ({"features": torch.ones(6, 4), "lengths": torch.tensor([3.0, 3.0])}, r"whole numbers, 1 or more"),
        ({"lengths": torch.tensor([3, 4])}, r"2 lengths up to 4 do not fit features of 2×3×4"),
        ({"lengths": torch.tensor([3])}, r"1 lengths up to 3 do not fit"),
        ({"features": torch.ones(2, 3, 4, dtype=torch.uint8)}, r"U8 features need a tensor 'scale'"),
        ({"scale": torch.ones(4)}, r"F32 has a scale"),
        ({"features": torch.ones(2, 3, 4, dtype=torch.uint8), "scale": torch.ones(3)}, r"scale is \(3,\).*4 floats"),
        (
            {"features": torch.ones(2, 3, 4, dtype=torch.uint8), "scale": torch.tensor([1, NAN, 1, 1])},
            r"scale is not all finite",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, tensors, match):
    refused(rf"features.safetensors: .*{match}", StoredFeatures, save(tmp_path, 2, **tensors))


def test_damaged_and_missing_files_are_told(tmp_path):
    path = save(tmp_path, 2)
    content = path.read_bytes()
    for damaged in (content[:-5], content[:20], b"", b"path,label\n"):
        path.write_bytes(damaged)
        refused(r"features.safetensors: is no whole safetensors file", StoredFeatures, path)
    refused(r"nothing: no such file or folder", StoredFeatures, tmp_path / "nothing")
    path.unlink()
    refused(r"no .safetensors file in this folder", StoredFeatures, tmp_path)


def test_features_that_are_no_numbers_are_told_with_the_clip(tmp_path):
    features = torch.ones(2, 3, 4)
    features[1, 2, 3] = NAN
    stored = StoredFeatures(save(tmp_path, 2, features=features))
    stored.take([0])
    with pytest.raises(UserError, match="features of clip 2 of 2 are not all finite"):
        stored.take([0, 1])


# --- rows -------------------------------------------------------------------------------------------------------------


def test_the_index_gives_rows_and_splits(tmp_path):
    data, stored = load_stored(str(save(tmp_path)))
    assert data.classes == ["a", "b"] and len(data.splits["test"]) == 4
    assert sum(len(rows) for rows in data.splits.values()) == 16
    row = data.splits["test"][0]
    assert (row["path"], row["label"], row["group"], row["row"], row["place"]) == ("c12.avi", "a", "g6", 14, 12)
    assert row["frames"] == 3 and row["hash"] == stored.digest(12)
    assert stored.take(data.splits["test"]["place"][:])[0][0, 0, 0] == 12 * 12


def test_places_stay_right_where_classes_are_chosen(tmp_path):
    rows = index_rows(16)
    for number in range(0, 16, 4):
        rows[number]["label"] = "c"
    data, _ = load_stored(str(save(tmp_path, rows=rows)), classes=["B", "c"])
    assert data.classes == ["b", "c"]
    for part in data.splits.values():
        assert [f"c{place}.avi" for place in part["place"]] == part["path"][:]


def test_without_groups_names_or_contents_are_groups(tmp_path):
    rows = index_rows(8, names=("path", "label"))
    for number in (0, 1):
        rows[number]["path"] = f"Punch/v_Punch_g01_c0{number}.avi"
    path = save(tmp_path, 8, rows=rows)
    data, stored = load_stored(str(path))
    groups = {row["path"]: row["group"] for part in data.splits.values() for row in part}
    assert groups["Punch/v_Punch_g01_c00.avi"] == groups["Punch/v_Punch_g01_c01.avi"] == "Punch_g01"
    assert groups["c5.avi"] == stored.digest(5)[:16]


def test_shared_groups_are_refused_and_equal_features_noted(tmp_path):
    features = torch.rand(16, 3, 4)
    features[12] = features[0]
    path = save(tmp_path, features=features)
    data, _ = load_stored(str(path))
    assert data.leaks == [] and any(note.startswith("duplicates: 25 % of test features") for note in data.notes)
    rows = index_rows(16)
    rows[12]["group"] = "g0"
    write_index(tmp_path / "index.csv", rows)
    refused(r"leak: 33 % of test groups are in train", load_stored, path)
    assert load_stored(str(path), allow_leaky_split=True)[0].leaks


def test_a_random_split_mixes_groups(tmp_path):
    data, _ = load_stored(str(save(tmp_path, 64)), random_split=True)
    assert len(data.splits["test"]) == 16 and data.leaks[0].shared["groups"] > 0


def test_rows_to_be_scored(tmp_path):
    path = save(tmp_path)
    rows, stored, notes = load_stored_clips(str(path), classes=["A"])
    assert rows["label"][:].count("A") == 2 and len(rows) == 4 and len(stored) == 16
    assert "2 clips: never right, for the run has no class b" in notes
    refused(r"has no validation split; it has train, test", load_stored_clips, path, split="validation", classes=["a"])


def test_an_index_that_does_not_fit_is_refused(tmp_path):
    path = save(tmp_path, 4)
    other = write_index(tmp_path / "other.csv", index_rows(5))
    refused(r"other.csv: 5 rows, but .*features.safetensors holds 4 clips", load_stored, path, other)
    (tmp_path / "index.csv").unlink()
    refused(r"index.csv: no such index; --index names", load_stored, path)


def test_ucf101_computed_by_others(real_data):
    data, stored = load_stored(str(real_data / "ucf101_vgg16" / "features.safetensors"))
    assert {split: len(rows) for split, rows in data.splits.items() if split == "test"} == {"test": 383}
    assert sum(len(rows) for rows in data.splits.values()) == 1363 and len(data.classes) == 10
    features, lengths = stored.take([0, 1362])
    assert features.shape == (2, 9, 4096) and lengths.tolist() == [9, 9] and features.min() == 0


# --- writing ----------------------------------------------------------------------------------------------------------


def clips_of(lengths: list[int], size: int = 4):
    generator = torch.Generator().manual_seed(0)
    for row, length in zip(index_rows(len(lengths)), lengths, strict=True):
        yield row, torch.rand(length, size, generator=generator)


def test_what_is_written_is_read_back(tmp_path):
    lengths = [1, 5, 2, 3, 4, 1, 2, 2]
    path = write_stored(tmp_path / "new" / "own.safetensors", clips_of(lengths))
    assert sorted(file.name for file in path.parent.iterdir()) == ["index.csv", "own.safetensors"]
    assert load_file(path)["features"].dtype == torch.float16
    data, stored = load_stored(str(path))
    assert stored.lengths.tolist() == lengths and len(data.splits["test"]) == 2
    for place, (_, features) in enumerate(clips_of(lengths)):
        assert torch.allclose(stored[place], features, atol=1e-3)


def failing():
    yield from clips_of([2, 2])
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("clips", "match"),
    [
        ([], r"no clips"),
        (
            [({"path": "a"}, torch.ones(2, 3)), ({"path": "b"}, torch.ones(2, 4))],
            r"b: features are \(2, 4\); frames × 3",
        ),
        ([({"path": "a"}, torch.ones(0, 3))], r"a: features are \(0, 3\)"),
        ([({"path": "a"}, torch.full((1, 3), 1e6))], r"a: features are not all finite numbers in float16"),
    ],
)
def test_nothing_half_written_stays(tmp_path, clips, match):
    with pytest.raises(UserError, match=match):
        write_stored(tmp_path / "own.safetensors", clips)
    with pytest.raises(KeyboardInterrupt):
        write_stored(tmp_path / "own.safetensors", failing())
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path):
    refused(r"own.npz: .* .safetensors", write_stored, tmp_path / "own.npz", clips=[])
    path = save(tmp_path, 2)
    refused(r"features.safetensors: is there already", write_stored, path, clips=[])
    refused(r"index.csv: is there already", write_stored, tmp_path / "own.safetensors", clips=[])
