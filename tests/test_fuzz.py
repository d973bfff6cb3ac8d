"""Hundreds of damaged inputs: each is read or refused in one line that names the file, in time and in memory.

By default a few of each kind; `HOIANH_FUZZ=500 pytest -s tests/test_fuzz.py` reads 500, `HOIANH_FUZZ_SEED` others.
"""

import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fuzzing

ROOT = Path(__file__).resolve().parent.parent
COUNT = int(os.environ.get("HOIANH_FUZZ", "60"))
SEED = int(os.environ.get("HOIANH_FUZZ_SEED", "0"))


def read_all(folder: Path) -> list[dict]:
    """What became of each input. A process that died is one input's doing; the next starts behind it."""
    ended: list[dict] = []
    while len(ended) < COUNT:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        script = [sys.executable, str(ROOT / "tests" / "fuzzing.py"), str(folder), "--seed", str(SEED)]
        process = subprocess.run(
            [*script, "--first", str(len(ended)), "--count", str(COUNT)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        told: dict[int, dict] = {}
        for line in process.stdout.splitlines():
            row = json.loads(line)
            told[row["number"]] = told.get(row["number"], {}) | row
        assert told, process.stderr[-3000:]  # it did not even begin
        for row in told.values():
            died = {"end": "wrong", "why": f"the process died ({process.returncode}): {process.stderr[-500:]}"}
            ended.append(row if "end" in row else row | died)
    return ended


def test_damaged_inputs_are_read_or_refused_in_one_line(tmp_path):
    ended = read_all(tmp_path / "inputs")
    counts = collections.Counter(row["end"] for row in ended)
    kinds = {row["kind"] for row in ended}
    slowest = max(ended, key=lambda row: row.get("cpu", 0))
    print(
        f"\n{len(ended)} inputs of {len(kinds)} kinds (seed {SEED}): {counts['refused']} refused in one line that names"
        f" the file, {counts['read']} read, {counts['wrong']} wrong; slowest {slowest.get('cpu')} s of CPU "
        f"({slowest['kind']}), memory up to {max(row.get('gib', 0) for row in ended)} GiB"
    )
    wrong = [row for row in ended if row["end"] == "wrong"]
    assert not wrong, "\n\n".join(f"{row['number']} {row['kind']} {row['what']}\n{row['why']}" for row in wrong)
    assert len(ended) == COUNT and max(row["gib"] for row in ended) < 4
    assert COUNT < 60 or (counts["refused"] >= COUNT // 4 and counts["read"] >= COUNT // 20)  # both happen


def test_inputs_are_the_same_every_time(tmp_path):
    """Without our libraries: a kind made by hand."""
    kinds = {"a": fuzzing.Kind(files={"a.csv": b"x,y\n1,2\n", "b.json": b'{"a": [1, 2]}'}, read=str)}
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for number in range(30):
            place = tmp_path / name / str(number)
            place.mkdir()
            what = fuzzing.write_input(kinds, place, seed=1, number=number)
            written.append((what, {path.name: path.read_bytes() for path in place.iterdir()}))
    assert written[:30] == written[30:] and len({str(one) for one in written}) > 20
