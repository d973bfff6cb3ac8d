"""What a study says of its comparisons: who is tested, Holm over the primary ones, and runs that cannot be compared."""

import csv
import json
from pathlib import Path

import pytest
from test_compare import write_run
from test_study_tables import read, rows, tables

from common.errors import UserError
from common.study import Study

CELLS = "rows: [{name: seeing}, {name: blind}, {name: guess}, {name: half}]"
STUDY = f"""
script: train
{CELLS}
compare:
  - {{name: sight, cells: [seeing, blind], primary: true}}
  - {{name: thought, cells: [blind, guess], primary: true}}
  - {{name: both, cells: [seeing, guess]}}
"""
SEEING = ["++++++++++++", "+++++++++++-"]  # of even seeds, of odd ones
BLIND = ["+-+-+-+-+-+-"] * 2  # one question of each photo's two
GUESS = ["+-+-+-+-++--", "+-+-+-+-+-+-"]


def make(folder: Path, seeds: int = 7, **cells: list[str]) -> tuple[Study, dict[tuple[str, int], Path]]:
    runs = {
        (name, seed): write_run(folder / f"{name}-seed{seed}", marks[seed % 2], seed=seed)
        for name, marks in ({"seeing": SEEING, "blind": BLIND, "guess": GUESS} | cells).items()
        for seed in range(seeds)
    }
    for path in runs.values():
        metrics = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        metrics["test"]["n"] = 12
        (path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return read(folder, STUDY), runs


def differences(folder: Path) -> list[dict]:
    return json.loads((folder / "table.json").read_text(encoding="utf-8"))["differences"]


def test_primary_comparisons_are_tested_by_holm(tmp_path):
    study, runs = make(tmp_path)
    printed = tables(tmp_path, study, runs)
    sight, thought, both = differences(tmp_path)
    assert (
        sight["mean"] == pytest.approx((4 * 6 + 3 * 5) / (7 * 12)) and sight["groups"] == 6 and sight["interval"][0] > 0
    )
    # 7 seeds of one sign: 2 of 2⁷ ways. Holm: the smaller p twice. blind and guess have as many right with every seed.
    assert (sight["p"], sight["p_holm"]) == (2 / 2**7, 4 / 2**7) and (thought["p"], thought["p_holm"]) == (1, 1)
    assert sight["finding"].startswith("'seeing' is better than 'blind' by +46.4 points [")
    assert "p = 0.031 (Holm over 2) (6 groups are few" in sight["finding"]
    assert thought["finding"].startswith("cannot be told from zero: +0.0 points [")
    assert "p = 1 (Holm over 2); a difference of about" in thought["finding"]
    assert both["p"] is None and both["p_holm"] is None and "not a primary comparison: not tested" in both["finding"]
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    header, *found = rows(text, "differences")
    assert header[3:5] == ["95 % interval", "p (Holm)"] and [row[4] for row in found] == ["0.031", "1", "–"]
    assert f"- sight: {sight['finding']}\n" in text and f"sight: {sight['finding']}" in printed
    assert f"% sight: {sight['finding']}" in (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert "of the 2 comparisons that the study's file names primary" in text
    with (tmp_path / "differences.csv").open(encoding="utf-8", newline="") as file:
        first, _, last = csv.DictReader(file)
    assert float(first["p holm"]) == 4 / 2**7 and float(first["interval low"]) == sight["interval"][0]
    assert last["p"] == "" and last["primary"] == "False" and last["finding"].startswith("'+46.4 points")


def test_a_comparison_that_was_not_run_stays_in_the_family(tmp_path):
    study, runs = make(tmp_path)
    tables(tmp_path, study, {key: path for key, path in runs.items() if key[0] != "guess"})
    (sight,) = differences(tmp_path)
    assert sight["p_holm"] == 4 / 2**7


def test_three_seeds_cannot_tell(tmp_path):
    study, runs = make(tmp_path, seeds=3)
    tables(tmp_path, study, runs)
    sight = differences(tmp_path)[0]
    assert "cannot be told from zero: 3 seeds can reach no p below 0.5 (Holm over 2)" in sight["finding"]


def test_predictions_that_are_gone_or_of_other_samples(tmp_path):
    study, runs = make(tmp_path)
    (runs["guess", 3] / "predictions-test.csv").unlink()
    write_run(runs["seeing", 2], SEEING[0], columns={"question": ["ở đâu"] * 12})
    printed = tables(tmp_path, study, runs)
    sight, thought, both = differences(tmp_path)
    other = "scored on different samples, so that nothing is paired; no interval"
    assert sight["finding"] == f"{other} and no test" and sight["p"] is None and sight["interval"] is None
    gone = "guess-seed3: there is no predictions-test.csv; it has no predictions; score it again; no interval"
    assert thought["finding"] == f"{gone} and no test" and both["finding"] == gone
    assert thought["mean"] == pytest.approx(0) and str(tmp_path) not in thought["finding"]
    assert f"both: {gone}" in printed


def test_folds_are_not_averaged(tmp_path):
    study, runs = make(tmp_path, seeds=2)
    for (_, seed), path in runs.items():
        write_run(path, "+-" * 6, columns={"id": [f"fold{seed}-{row}" for row in range(12)]})
    tables(tmp_path, study, runs)
    assert "every seed was scored on samples of its own (folds)" in differences(tmp_path)[0]["finding"]


def test_what_is_to_be_said_of_several_comparisons_is_said_once(tmp_path):
    study, runs = make(tmp_path)
    for (name, _), path in runs.items():
        if name == "blind":
            write_run(path, BLIND[0][:-1], columns={"id": [f"other-{row}" for row in range(11)]})
    study.compare[0].primary = study.compare[1].primary = False
    tables(tmp_path, study, runs)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "- sight; thought: scored on different samples, so that nothing is paired; no interval\n" in text
    assert "p (Holm)" not in text


def test_primary_is_a_yes_or_no(tmp_path):
    with pytest.raises(UserError, match="compare 1: --primary 'perhaps'"):
        read(tmp_path, STUDY.replace("primary: true", "primary: perhaps", 1))
