"""Comparing runs from their saved predictions: tiny run folders made here, worked by hand, and what is refused."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from common.compare import compare_runs
from common.compare_options import CompareOptions
from common.config import parse
from common.errors import UserError
from common.predictions import align, read_scored
from common.runs import prediction_rows, write_csv
from common.training import Scores

ROOT = Path(__file__).resolve().parent.parent
GROUPS = [f"photo {place // 2}" for place in range(12)]  # two questions about each of six photos


def write_run(
    path: Path, right: str, *, split: str = "test", columns: dict[str, Sequence[str]] | None = None, **options: Any
) -> Path:
    """A finished run that has the samples marked "+" right; `columns` replaces columns of its predictions."""
    path.mkdir(exist_ok=True)
    count = len(right)
    table = {"id": [f"test-{place + 2}" for place in range(count)], "group": GROUPS[:count], "type": ["dish"] * count}
    table |= {"gold": ["phở"] * count, "predicted": ["phở" if mark == "+" else "bún, chả" for mark in right]}
    table |= {"probability": ["0.5"] * count, "question": ["món gì"] * count} | (columns or {})
    table = {name: values for name, values in table.items() if values}
    with (path / f"predictions-{split}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])
    options = {"seed": 0, "output": str(path), "cache": None, "augment": ["flip"]} | options
    (path / "config.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    (path / "environment.json").write_text(json.dumps({"task": "vqa"}), encoding="utf-8")
    (path / "metrics.json").write_text(json.dumps({split: {"accuracy": right.count("+") / count}}), encoding="utf-8")
    return path


def compare(*arguments: object) -> Any:
    return compare_runs(parse(CompareOptions, list(map(str, arguments))))


def test_two_runs_by_hand(tmp_path, capsys):
    # Only A has both questions about photos 0, 1 and 2 right, and one about photo 3; only B one about photo 4.
    a = write_run(tmp_path / "a", "+++++++--+++", attention=True, weights=str(tmp_path / "x"), cache="c1")
    b = write_run(tmp_path / "b", "--------++++", attention=False, weights=str(tmp_path / "y" / ".." / "x"))
    output = tmp_path / "found.json"
    found = compare(a, b, "--output", output)
    printed = capsys.readouterr().out
    assert found.accuracies == pytest.approx((10 / 12, 4 / 12)) and found.difference == pytest.approx(0.5)
    assert (found.only_first, found.only_second) == ([7], [1])
    assert found.p_mcnemar == [pytest.approx(2 * 9 / 2**8)]
    # The photos' sums are 2, 2, 2, 1, −1 and 0. Of 32 ways to set the signs of five, three reach 6: all the twos up
    # and the ones not both down; as many reach −6.
    assert found.p_samples == pytest.approx(2 * 3 / 32)
    assert "scored on the same 12 samples (test) in 6 groups (by the column group)" in printed
    assert "| attention | True | False |" in " ".join(printed.split()) and "weights" not in printed
    assert "cannot be told from zero: +50.0 points [" in printed and "p = 0.19 (sign-flip of 6 groups)" in printed
    assert "6 groups are few" in printed and "McNemar's test is as if" in printed
    saved = json.loads(output.read_text(encoding="utf-8"))
    assert json.loads(printed.splitlines()[-1]) == saved  # for programs
    assert saved["options"] == {"attention": [True, False]} and saved["finding"] in printed
    assert saved["interval"] == pytest.approx(list(found.interval)) and saved["sign_flip"] == {
        "groups": found.p_samples,
        "seeds": None,
    }
    assert saved["runs"]["A"][0]["accuracy"] == pytest.approx(10 / 12)
    low, high = saved["runs"]["A"][0]["wilson"]
    assert f"| 0.8333 | {low:.4f} to {high:.4f} |" in " ".join(printed.split())


def test_one_way_of_training_is_better_than_another(tmp_path, capsys):
    """Six seeds: A always has photos 0, 1 and 2 right, B none of them; the rest they share."""
    first = [write_run(tmp_path / f"a{seed}", "+++++++-+-+-", seed=seed, head="gru") for seed in range(6)]
    second = [write_run(tmp_path / f"b{seed}", "------+-+-+-", seed=seed, head="mean") for seed in range(6)]
    found = compare(*first, "--against", *reversed(second), "--output", tmp_path / "o.md")
    printed = capsys.readouterr().out
    assert found.by_seed == [0.5] * 6 and found.p_seeds == 0.03125
    assert found.interval[0] > 0 and found.p_samples == 0.25  # three photos of one sign, 2 of 2³ ways
    assert "cannot be told from zero" in printed and "other samples could turn the difference round" in printed
    assert "- sign-flip of the 6 groups, seeds taken together: p = 0.25" in printed
    text = (tmp_path / "o.md").read_text(encoding="utf-8")
    assert text.startswith("# a0 against b0\n") and printed.rpartition("\n{")[0].strip() in text
    for path in (*first, *second):  # now in every photo
        write_run(path, "+-" * 5 + "--" if path in second else "++" * 6, seed=int(path.name[1]))
    compare(*first, "--against", *second)
    printed = capsys.readouterr().out
    assert "In words: A is better than B by +58.3 points [" in printed and "p = 0.031 (sign-flip of 6 seeds)" in printed
    assert "- no option differs" in printed
    compare(*second, "--against", *first)
    assert "In words: B is better than A by +58.3 points [" in capsys.readouterr().out
    compare(*first[:3], "--against", *second[:3])
    assert "cannot be told from zero: 3 seeds can reach no p below 0.25" in capsys.readouterr().out


def test_what_a_model_made_of_a_sample_is_no_part_of_it(tmp_path):
    """Photos that were shown instead (a control of VQA), and the place of the gold class (image runs)."""
    a = write_run(
        tmp_path / "a", "++-", columns={"shown_image": ["7.jpg", "8.jpg", "9.jpg"], "gold_rank": ["1", "1", "3"]}
    )
    b = write_run(
        tmp_path / "b", "-++", columns={"shown_image": ["8.jpg", "9.jpg", "7.jpg"], "gold_rank": ["2", "1", "1"]}
    )
    assert compare(a, b).only_first == [1]


def test_order_and_what_a_blind_run_leaves_empty_do_not_matter(tmp_path):
    a = write_run(tmp_path / "a", "++-+", columns={"image": ["1.jpg", "1.jpg", "2.jpg", "2.jpg"]})
    ids = ["test-5", "test-4", "test-3", "test-2"]
    b = write_run(tmp_path / "b", "-+++", columns={"id": ids, "group": ["x", "y", "z", "z"], "image": [""] * 4})
    found = align([read_scored(a, "test"), read_scored(b, "test")])
    assert found.right.tolist() == [[True, True, False, True], [True, True, True, False]]
    assert len(set(found.groups)) == 2  # photo 0 holds both that B calls z; y and x are photo 1 to A


@pytest.mark.parametrize(
    ("columns", "groups", "by"),
    [
        ({"group": [], "image": ["1.jpg", "1.jpg", "2.jpg", "2.jpg"]}, 2, "image"),
        ({"group": [""] * 4, "clip": ["v/1.avi", "v/1.avi", "v/2.avi", "v/3.avi"]}, 3, "clip"),
        ({"group": ["a", "a", "", ""]}, 3, "group"),
        ({"group": []}, 4, "id"),
    ],
)
def test_older_predictions_without_groups(tmp_path, capsys, columns, groups, by):
    a = write_run(tmp_path / "a", "++--", columns=columns)
    b = write_run(tmp_path / "b", "+-+-", columns=columns)
    assert compare(a, b).groups == groups
    said = {"group": "by the column group", "id": "no group is named: every sample for itself"}
    assert said.get(by, f"by the column {by}: no group is named") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["test-2", "test-9", "test-4"]}, "a/predictions-test.csv, row 3: sample 'test-3' is not in .*b/pred"),
        ({"gold": ["phở", "phở", "chả"], "predicted": ["phở"] * 3}, "row 4: sample 'test-4' has gold 'phở', but 'chả'"),
        ({"question": ["món gì", "ở đâu", "?"]}, "row 3: .* has question 'món gì', but 'ở đâu' in .*b/.*, row 3; runs"),
    ],
)
def test_runs_of_other_samples_are_refused(tmp_path, columns, message):
    a = write_run(tmp_path / "a", "+++")
    b = write_run(tmp_path / "b", "+++" if "gold" not in columns else "++-", columns=columns)
    with pytest.raises(UserError, match=message):
        compare(a, b)


def test_samples_that_only_the_second_run_has_are_refused(tmp_path):
    a, b = write_run(tmp_path / "a", "++"), write_run(tmp_path / "b", "+++")
    with pytest.raises(
        UserError, match="b/predictions-test.csv, row 4: sample 'test-4' is not in .*a/predictions-test"
    ):
        compare(a, b)


def test_what_cannot_be_read_is_refused(tmp_path):
    a, b = write_run(tmp_path / "a", "++"), write_run(tmp_path / "b", "+-")
    c = write_run(tmp_path / "c", "+-", seed=1)
    for arguments, message in (
        ((a,), "1 run directories: give two"),
        ((a, b, c), "3 run directories: give two"),
        ((a, b, "--against", c), "2 runs --against 1"),
        ((a, a), "a is given twice"),
        ((a, b, "--against", c, write_run(tmp_path / "d", "+-")), "b: another run of A has seed 0, too"),
        ((a, c, "--against", b, write_run(tmp_path / "e", "+-", seed=2)), "c has seed 1, and no run --against has it"),
        ((a, tmp_path), "not a run directory"),
        ((a, b, "--split", "validation"), "there is no predictions-validation.csv; predictions of test are there"),
        ((a, b, "--output", tmp_path / "x.txt"), "ends in .json or .md"),
        ((a, b, "--output", a / "metrics.json"), "exists"),
    ):
        with pytest.raises(UserError, match=message):
            compare(*arguments)
    write_run(b, "+-", columns={"predicted": []})
    with pytest.raises(UserError, match="has no column 'predicted'"):
        compare(a, b)
    write_run(b, "+-", columns={"id": ["x", "x"]})
    with pytest.raises(UserError, match="row 3: sample 'x' is already in row 2"):
        compare(a, b)
    write_run(b, "+-")
    (b / "metrics.json").write_text('{"test": {"accuracy": 1.0}}', encoding="utf-8")
    with pytest.raises(UserError, match="0.5000 of its rows are right, but metrics.json has the accuracy 1.0000"):
        compare(a, b)


def test_predictions_are_read_as_every_task_writes_them(tmp_path):
    numbers = {"probability": np.full(3, 0.5), "loss": np.zeros(3), "rank": np.ones(3, dtype=int)}
    scores = Scores(gold=np.array([0, 1, -1]), predicted=np.array([0, 0, 1]), **numbers)
    columns = {"id": ["x", "y", "z"], "group": ["1", "1", "2"], "type": ["all"] * 3, "gold": ["phở", "chả", "một, hai"]}
    write_csv(tmp_path / "predictions-test.csv", prediction_rows(scores, ["phở", "chả"], columns))
    found = read_scored(tmp_path, "test")
    assert found.right.tolist() == [True, False, False] and found.groups == ["1", "1", "2"] and found.rows == [2, 3, 4]


def test_the_command(tmp_path):
    a, b = write_run(tmp_path / "a", "++"), write_run(tmp_path / "b", "+-")
    (b / "predictions-test.csv").unlink()
    command = [sys.executable, str(ROOT / "scripts" / "compare_runs.py"), str(a), str(b), "--output", "o.json"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 2 and not (tmp_path / "o.json").exists()
    assert result.stderr.count("\n") == 1 and "there is no predictions-test.csv; it has no predictions" in result.stderr
