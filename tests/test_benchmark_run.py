"""A benchmark's file grows part by part, and what cannot be done is refused before anything is measured."""

import json

import pytest
import torch

from common.benchmark import Figure, Measured, Side
from common.benchmark_options import BenchmarkOptions
from common.benchmark_run import run_benchmark
from common.config import parse
from common.errors import Interrupted, UserError

SMALL = ["--encoder", "custom_cnn", "--image-size", "32"]


def good(bench):
    return Measured(
        sides=[Side(name="a side", seconds=[1.0], core_seconds=[1.0])], figures=[Figure(what="a figure", value=1.0)]
    )


def broken(bench):
    raise RuntimeError("tensors on two devices")


def stopped(bench):
    raise KeyboardInterrupt


def measure(output, parts, *arguments):
    threads = torch.get_num_threads()
    try:
        return run_benchmark(parse(BenchmarkOptions, ["--output", str(output), *SMALL, *arguments]), parts)
    finally:
        torch.set_num_threads(threads)


def test_a_part_that_fails_costs_no_other(tmp_path, capsys):
    output, page = tmp_path / "measured.json", tmp_path / "page.md"
    marks = "".join(f"<!-- {name} -->\nas it was\n<!-- end -->\n" for name in ("machine", "aims", "times", "cost"))
    page.write_text(marks, encoding="utf-8")
    with pytest.raises(UserError, match=r"part b: failed \(RuntimeError: tensors on two devices\).*measured.json"):
        measure(output, {"a": [good], "b": [good, broken], "c": [good]}, "--page", str(page))
    found = json.loads(output.read_text(encoding="utf-8"))
    assert set(found["parts"]) == {"a", "c"} and set(found["missing"]) == {"b"}
    said = capsys.readouterr()
    assert said.out.count("a figure") == 2 and "Part b: failed" in said.out and "Traceback" in said.err
    assert page.read_text(encoding="utf-8") == marks


def test_ctrl_c_leaves_what_was_measured(tmp_path, capsys):
    output = tmp_path / "measured.json"
    with pytest.raises(Interrupted, match="measured.json"):
        measure(output, {"a": [good], "b": [stopped], "c": [good]})
    found = json.loads(output.read_text(encoding="utf-8"))
    assert set(found["parts"]) == {"a"} and set(found["missing"]) == {"b", "c"}
    assert "a figure" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["measured.json"]


def test_the_file_is_there_while_a_part_is_measured(tmp_path):
    output, seen = tmp_path / "measured.json", []

    def look(bench):
        found = json.loads(output.read_text(encoding="utf-8"))
        seen.append((set(found["parts"]), set(found["missing"])))
        return good(bench)

    found = measure(output, {"a": [look], "b": [look]})
    assert seen == [(set(), {"a", "b"}), ({"a"}, {"b"})] and found["missing"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "not-there"], "--data not-there: no such folder"),
        (["--weights", "not-there.safetensors"], "not-there.safetensors"),
        (["--page", "not-there.md"], "--page not-there.md: cannot be read"),
        (["--page", "README.md"], "0 marks <!-- machine -->"),
    ],
)
def test_paths_are_looked_at_before_anything_is_measured(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("# no marks", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        measure(tmp_path / "measured.json", {"a": [lambda _: pytest.fail("measured")]}, *arguments)
    assert not (tmp_path / "measured.json").exists()


@pytest.mark.parametrize("text", ['{"machine": {}, "parts": {}}', '{"machine": {}, "options": {}, "parts": []}', "[]"])
def test_other_files_are_no_measurements(tmp_path, run_script, text):
    (tmp_path / "other.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="is not what --output writes"):
        run_benchmark(parse(BenchmarkOptions, ["--measured", str(tmp_path / "other.json")]), {})
