"""The benchmark on the smallest data: every part finds figures, tables show them, and a page takes them."""

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.benchmark import Bench, Side, machine, ratio, run_benchmark, side_by_side
from common.benchmark_encoding import throughput
from common.benchmark_options import BenchmarkOptions
from common.benchmark_tables import aims_table, cost_table, fill_page, page_tables
from common.config import parse
from common.errors import UserError
from video.benchmark import PARTS as CLIPS
from video.benchmark import _clip_files, decode_all, read_as_r0, read_by_seeking, write_clip
from video.decode import read_clip
from video.sampling import Sampling
from vqa.benchmark import PARTS as PHOTOS

ROOT = Path(__file__).parent.parent
SMALL = ["--encoder", "custom_cnn", "--image-size", "32", "--clips", "2", "--photos", "6", "--frames", "3"]
SMALL += ["--repeats", "1"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("clips") / "clip.avi"))


def test_the_median_of_what_came_in_turn():
    order = []
    found = side_by_side({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, units=4, unit="thing")
    assert order == ["a", "b"] * 4 and [len(side.seconds) for side in found.values()] == [3, 3]
    long, short = (
        Side(name=n, seconds=s, core_seconds=s, units=u) for n, s, u in (("l", [2, 9, 4], 2), ("s", [1] * 3, 1))
    )
    figure = ratio("long, of short", long, short)
    assert figure.value == figure.cores == 2  # 4 seconds for two, 1 for one


def test_the_machine_is_described_and_nobody_named():
    about = machine()
    assert about["cores"] >= 1 and about["torch"] == torch.__version__
    import socket

    assert socket.gethostname() not in json.dumps(about)


def test_a_made_clip_is_like_those_of_ucf101(clip):
    read = read_clip(clip, Sampling(frames=20), size=224)
    assert read.count == 180 and len(read.frames) == 20
    assert 100_000 < Path(clip).stat().st_size < 900_000
    by_seeking = read_by_seeking(clip, Sampling(frames=4), 64)
    ours = read_clip(clip, Sampling(frames=4), size=64).frames
    assert (by_seeking.float() - ours.float()).abs().mean() < 4  # the same frames, resized by another filter
    assert read_as_r0(clip).shape == (100, 3, 480, 480)
    decode_all(clip)


def test_every_part_finds_its_figures(tmp_path, monkeypatch, capsys, clip):
    for slow in ("read_as_r0", "read_by_seeking"):  # tried above
        monkeypatch.setattr(f"video.benchmark.{slow}", lambda *_: decode_all(clip))
    monkeypatch.setattr("common.benchmark.usable_cores", lambda: 1)  # several threads on so little wait for each other
    output = tmp_path / "measured.json"
    threads = torch.get_num_threads()
    parts = {name: [*CLIPS.get(name, []), *PHOTOS.get(name, [])] for name in "abcd"}
    try:
        run_benchmark(parse(BenchmarkOptions, ["--output", str(output), *SMALL]), parts)
    finally:
        torch.set_num_threads(threads)
    found = json.loads(output.read_text(encoding="utf-8"))
    assert set(found["parts"]) == set("abcd")
    for part in found["parts"].values():
        assert part["figures"] and part["sides"]
        assert all(math.isfinite(figure["value"]) and figure["value"] > 0 for figure in part["figures"])
        assert all(len(side["seconds"]) >= 1 and min(side["seconds"]) > 0 for side in part["sides"])
    assert str(tmp_path) not in output.read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "≤ 1.10 ×" in said and "≥ 60.0 ×" in said
    run_benchmark(parse(BenchmarkOptions, ["--measured", str(output)]), {})
    assert capsys.readouterr().out == said
    with pytest.raises(UserError, match="exists"):
        run_benchmark(parse(BenchmarkOptions, ["--output", str(output)]), {})


def test_a_device_is_measured(tmp_path):
    options = parse(BenchmarkOptions, ["--output", "x.json", *SMALL])
    bench = Bench(options=options, folder=tmp_path, cores=1, say=print)
    found = throughput(bench, *_clip_files(bench))
    values = {figure.what: figure.value for figure in found.figures}
    assert values["squares a second, fp32"] == pytest.approx(
        found.sides[0].units / statistics.median(found.sides[0].seconds)
    )
    assert 0 < values["share of the matrix products' rate, fp32"] < 2


def test_a_training_of_its_own_tells_its_memory(tmp_path):
    from vqa.shapes import write_shapes

    write_shapes(tmp_path / "data", train=8, validation=4, test=1)
    command = [sys.executable, "-m", "vqa.benchmark_child", "--data", str(tmp_path / "data"), "--epochs", "1"]
    command += ["--output", str(tmp_path / "run"), "--cache", str(tmp_path / "cache"), "--segmentation", "syllable"]
    command += ["--batch-size", "4", "--no-test", "--train-encoder", "none", "--workers", "0"]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.rpartition("benchmark ")[2])
    assert told["peak"] >= told["own"] > 50 * 2**20 and told["seconds"] > 0


def test_tables_say_what_was_met(tmp_path):
    figures = [
        {"what": "good", "value": 1.0, "aim": 1.1, "at_most": True, "unit": "×", "cores": None},
        {"what": "bad", "value": 1.2, "aim": 1.1, "at_most": True, "unit": "×", "cores": 1.0},
        {"what": "told", "value": 3.0, "aim": None, "at_most": True, "unit": "×", "cores": None},
    ]
    side = {"name": "one", "seconds": [1.0, 3.0, 2.0], "core_seconds": [1.0] * 3, "units": 4, "unit": "clip"}
    found = {
        "machine": machine(),
        "options": {"data": [], "encoder": "e", "weights": "none", "repeats": 3},
        "parts": {"a": {"figures": figures, "sides": [side], "notes": ["by hand"]}},
    }
    lines = [[cell.strip() for cell in line.split("|")] for line in aims_table(found["parts"]).splitlines()[2:]]
    assert [line[-2] for line in lines] == ["yes", "**no**", ""]
    page = tmp_path / "page.md"
    marks = ("machine", "aims", "times", "cost")
    page.write_text("# T\n" + "".join(f"<!-- {m} -->\nstale\n<!-- end -->\n" for m in marks), encoding="utf-8")
    fill_page(page, found)
    once = page.read_text(encoding="utf-8")
    assert "stale" not in once and "500.00 ms a clip" in once and "- a: by hand" in once
    fill_page(page, found)
    assert page.read_text(encoding="utf-8") == once
    page.write_text("# no marks", encoding="utf-8")
    with pytest.raises(UserError, match="marks <!-- machine -->"):
        fill_page(page, found)


def test_the_cost_on_paper_by_hand():
    sides = [
        {"name": f"{kind}: {what}", "seconds": [1.0], "core_seconds": [cores], "units": 1000, "unit": "square"}
        for kind in ("clips", "photos")
        for what, cores in (
            ("decoding alone, one core", 3.6),
            ("encoding alone, fp32", 36.0),
            ("encoding alone, bf16", 18.0),
        )
    ]
    found = {"options": {"frames": 20}, "parts": {"b": {"sides": sides}}}
    row = [cell.strip() for cell in cost_table(found).splitlines()[3].split("|")]
    # 13,320 × 20 squares: 3.6 ms each of decoding, 36 and 18 of encoding; 5,000 a second on a GPU
    assert row[1:7] == ["UCF101", "266,400", "0.3", "2.7", "1.3", "33.4"]
    assert row[7] == "60 s (60 s decoding)" and "5,000 squares a second (assumed" in cost_table(found)
    assert cost_table({"options": {"frames": 20}, "parts": {}}) == ""


def test_the_page_shows_what_was_measured():
    """The tables of docs/scaling.md are those of the committed figures."""
    page = ROOT / "docs" / "scaling.md"
    (measured,) = (ROOT / "results" / "benchmark").glob("*.json")
    text = page.read_text(encoding="utf-8")
    for name, table in page_tables(json.loads(measured.read_text(encoding="utf-8"))).items():
        assert f"<!-- {name} -->\n\n{table}\n\n<!-- end -->" in text, name


def test_options_are_checked():
    for arguments, message in (
        ([], "--output FILE.json"),
        (["--output", "a.txt"], "name it .json"),
        (["--output", "a.json", "--encoder", "alexnett"], "alexnet"),
    ):
        with pytest.raises(UserError, match=message):
            parse(BenchmarkOptions, arguments)
