"""Splits by group and the overlaps between splits."""

import random
from collections import Counter

import pytest

from common.errors import UserError
from common.splits import (
    check_overlap,
    describe,
    find_leaks,
    find_overlap,
    group_split,
    limit_note,
    link_groups,
    sample_keys,
    split_off,
    spread_of_each,
    summary,
)


def rows_of_photos(photos: int, per_photo: int = 4) -> tuple[list[str], list[str]]:
    """Labels and groups; a photo's labels are its kind (of 3) and some yes and no."""
    labels, groups = [], []
    for photo in range(photos):
        labels += [f"kind {photo % 3}", "yes", "no", "yes"][:per_photo]
        groups += [f"photo {photo}"] * per_photo
    return labels, groups


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 0.95])
def test_groups_stay_whole_and_the_part_is_as_large_as_asked(fraction):
    labels, groups = rows_of_photos(300)
    stay, go = group_split(labels, groups, fraction=fraction, seed=0)
    assert sorted(stay + go) == list(range(len(labels)))
    assert not {groups[row] for row in stay} & {groups[row] for row in go}
    assert len(go) / len(labels) == pytest.approx(fraction, abs=0.01)


def test_labels_keep_their_proportions():
    labels, groups = rows_of_photos(300)
    _, go = group_split(labels, groups, fraction=0.2, seed=0)
    counts = Counter(labels[row] for row in go)
    assert {kind: counts[kind] for kind in ("kind 0", "kind 1", "kind 2")} == pytest.approx(
        {"kind 0": 20, "kind 1": 20, "kind 2": 20}, abs=1
    )


def test_the_seed_decides_the_split_and_the_order_of_rows_does_not():
    labels, groups = rows_of_photos(60)
    order = random.Random(0).sample(range(len(labels)), len(labels))
    _, go = group_split(labels, groups, fraction=0.2, seed=3)
    _, shuffled = group_split([labels[i] for i in order], [groups[i] for i in order], fraction=0.2, seed=3)
    _, other = group_split(labels, groups, fraction=0.2, seed=4)
    assert {groups[row] for row in go} == {groups[order[row]] for row in shuffled}
    assert {groups[row] for row in go} != {groups[row] for row in other}


def test_the_order_of_rows_decides_nothing_among_many_equally_frequent_labels():
    labels = [f"answer {row // 8}" for row in range(2000)]
    groups = [f"photo {row % 250}" for row in range(2000)]
    _, go = group_split(labels, groups, fraction=0.2, seed=0)
    _, backwards = group_split(labels[::-1], groups[::-1], fraction=0.2, seed=0)
    assert {groups[row] for row in go} == {groups[::-1][row] for row in backwards}


@pytest.mark.parametrize("photos", [2, 3, 5])
@pytest.mark.parametrize("fraction", [0.01, 0.15, 0.5, 0.9])
def test_few_groups_still_make_two_parts(photos, fraction):
    labels, groups = rows_of_photos(photos)
    stay, go = group_split(labels, groups, fraction=fraction, seed=0)
    assert stay and go
    assert not {groups[row] for row in stay} & {groups[row] for row in go}


def test_labels_that_occur_once_are_no_obstacle():
    groups = [f"g{row // 2}" for row in range(40)]
    stay, go = group_split([f"answer {row}" for row in range(40)], groups, fraction=0.2, seed=0)
    assert (len(stay), len(go)) == (32, 8)


def test_one_group_or_a_bad_fraction_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"^train.csv: 1 group\(s\) in 3 row\(s\).*split needs two"):
        group_split(["a", "b", "a"], ["g"] * 3, fraction=0.2, seed=0, what="train.csv")
    with pytest.raises(UserError, match="between 0 and 1"):
        group_split(["a", "b"], ["g", "h"], fraction=1.0, seed=0)


def test_groups_that_share_a_content_are_joined():
    assert link_groups(["b", "a", "c", "d", "c"], ["1", "1", "2", "3", "3"]) == ["a", "a", "c", "c", "c"]
    assert link_groups(["x", "y", "x"], ["1", "2", "3"]) == ["x", "y", "x"]
    assert link_groups([], []) == []


def test_an_overlap_is_counted_by_what_is_different_in_the_second_split():
    first = {"photos": ["p1", "p2", "p2", "p3"], "groups": ["g1", "g2", "g2", "g3"], "rows": ["r1", "r2", "r3", "r4"]}
    second = {"photos": ["p2", "p2", "p9", "p8"], "groups": ["g9", "g9", "g9", "g8"], "rows": ["r3", "r5", "r6", "r7"]}
    overlap = find_overlap(first, second, names=("train", "dev"))
    assert overlap.shared == {"photos": 1, "groups": 0, "rows": 1}
    assert overlap.total == {"photos": 3, "groups": 2, "rows": 4}
    assert overlap.fraction == pytest.approx(1 / 3)
    assert describe(overlap) == "33 % of dev photos are in train (photos 1 of 3, groups 0 of 2, rows 1 of 4)"


def test_splits_that_share_nothing_have_no_overlap():
    assert find_overlap({"photos": ["a"]}, {"photos": ["b"]}) is None
    assert check_overlap({"photos": ["a"]}, {"photos": ["b"]}, names=("train", "test"), allow=False) is None


def test_an_overlap_is_refused_unless_allowed():
    first, second = {"groups": ["a", "b"]}, {"groups": ["b", "c"]}
    with pytest.raises(UserError, match="50 % of test groups are in train .groups 1 of 2.*--allow-leaky-split"):
        check_overlap(first, second, names=("train", "test"), allow=False)
    assert check_overlap(first, second, names=("train", "test"), allow=True).shared == {"groups": 1}


def test_a_tiny_overlap_is_not_rounded_to_nothing():
    overlap = find_overlap({"photos": ["0"]}, {"photos": [str(number) for number in range(500)]})
    assert describe(overlap).startswith("less than 1 % of test photos are in train (photos 1 of 500")


def samples(count: int, *, split: str = "") -> list[dict[str, str]]:
    """Of two labels, each in a group of its own; every photo is there twice, in two groups."""
    return [
        {"label": "ab"[n % 2], "group": f"{split}g{n}", "hash": f"{split}h{n // 4}-{n % 2}", "split": split}
        for n in range(count)
    ]


def test_a_part_of_labelled_samples_is_split_off_with_all_its_copies():
    rows = samples(80)
    stay, go, note = split_off(rows, "validation", fraction=0.25, seed=0, where="SOURCE", unit="photos")
    assert sorted(row["group"] for row in stay + go) == sorted(row["group"] for row in rows)
    assert len(go) == 20 and not {row["hash"] for row in stay} & {row["hash"] for row in go}
    assert note == ("validation: 20 of 80 training photos of SOURCE, whole groups, stratified by label (split seed 0)")
    folds = [
        split_off(rows, "validation", fraction=0.25, seed=0, where="SOURCE", unit="photos", folds=4, fold=fold)
        for fold in range(4)
    ]
    assert sorted(row["group"] for _, go, _ in folds for row in go) == sorted(row["group"] for row in rows)
    assert folds[3][2].endswith("(split seed 0), fold 3 of 4")


def test_every_pair_of_splits_is_looked_at():
    splits = {name: samples(8, split=name) for name in ("train", "validation", "test")}
    splits["test"].append(splits["validation"][0] | {"group": "another"})

    def keys(rows):
        return sample_keys(rows, [row["hash"] for row in rows], unit="clips")

    (leak,) = find_leaks({name: keys(rows) for name, rows in splits.items()}, allow=True)
    assert (leak.first, leak.second) == ("validation", "test")
    assert leak.shared == {"clips": 1, "groups": 0, "rows": 1}
    with pytest.raises(UserError, match="leak: .* of test clips are in validation"):
        find_leaks({name: keys(rows) for name, rows in splits.items()}, allow=False)


@pytest.mark.parametrize("order", ["in turn", "sorted"])
def test_a_limit_keeps_the_share_of_every_class(order):
    """Every fourth of six classes in turn would be three of them."""
    labels = [f"class {place % 6}" for place in range(960)]
    labels = sorted(labels) if order == "sorted" else labels
    rows = [{"split": "train", "label": label, "place": place} for place, label in enumerate(labels)]
    kept = spread_of_each(rows, 240)
    assert Counter(row["label"] for row in kept) == {f"class {number}": 40 for number in range(6)}
    places = [row["place"] for row in kept]
    assert places == sorted(places) and places[0] < 48 and places[-1] >= 912
    few = spread_of_each(rows, 7)
    assert len(few) == 7 and len({row["label"] for row in few}) == 6


def test_a_limit_is_spread_over_each_split():
    rows = samples(20, split="train") + samples(10, split="test")
    kept = spread_of_each(rows, 5)
    assert [row["group"] for row in kept] == [f"traing{n}" for n in (1, 4, 9, 12, 17)] + [
        f"testg{n}" for n in (1, 2, 5, 6, 9)
    ]
    assert spread_of_each(rows, None) == rows and spread_of_each(rows, 100) == rows
    assert limit_note(None, unit="clips") == []
    assert limit_note(5, unit="clips") == [
        "limit: only 5 clips of each split are used, spread evenly over it and its classes"
    ]


def test_a_summary_counts_samples_groups_and_labels():
    rows = samples(3) + [samples(1)[0] | {"label": "c"}]
    assert summary("train", rows, unit="photos") == "train: 4 photos in 3 groups; a 2, b 1, c 1"
    assert summary("train", rows, unit="photos", shown=1) == "train: 4 photos in 3 groups; a 2 and 2 more"
