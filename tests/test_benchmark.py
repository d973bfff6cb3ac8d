"""The benchmark on the smallest data: every part finds figures, tables show them, and a page takes them."""

import functools
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from common.benchmark import Bench, Measured, Side, machine, ratio, side_by_side
from common.benchmark_encoding import extraction, loader, operations, repeated, squares_at_once
from common.benchmark_gpu import matmul_rate, throughput
from common.benchmark_options import BenchmarkOptions
from common.benchmark_run import run_benchmark
from common.benchmark_tables import aims_table, fill_page, page_tables
from common.benchmark_training import one_epoch
from common.config import parse
from common.encoders import build_encoder
from common.errors import UserError
from common.features import cached_features
from common.images import Preprocessing
from common.options import TrainingOptions
from video.benchmark import PARTS as CLIPS
from video.benchmark import decode_all, gpu, read_as_r0, read_by_seeking, write_clip
from video.decode import read_clip
from video.frames import ClipViews
from video.sampling import Sampling
from vqa.benchmark import PARTS as PHOTOS
from vqa.benchmark import shared_out
from vqa.options import TrainVqaOptions

ROOT = Path(__file__).parent.parent
SMALL = "--encoder custom_cnn --image-size 32 --clips 2 --photos 6 --squares 7 --frames 3".split()
SMALL += ["--repeats", "1"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("clips") / "clip.avi"))


def test_the_median_of_what_came_in_turn():
    order = []
    found = side_by_side({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, units=4, unit="thing")
    assert order == ["a", "b"] * 4 and [len(side.seconds) for side in found.values()] == [3, 3]
    order.clear()
    found = side_by_side({name: functools.partial(order.append, name) for name in "ab"}, 3, seldom=["b"])
    assert "".join(order) == "aababa" and [len(side.seconds) for side in found.values()] == [3, 2]
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


def test_a_trained_encoder_is_shared_out_beside_whole_ones(tmp_path, monkeypatch):
    """The commands that part f starts, and what it makes of their losses."""
    asked = []

    def child(arguments, *, processes, threads):
        given = parse(TrainVqaOptions, list(arguments[1:]))
        asked.append((processes, given.fsdp))
        assert (given.encoder, given.train_encoder, given.batch_norm) == ("resnet18", "all", "eval")
        run = Path(given.output)
        run.mkdir()
        row = {"train_loss": 2.0, "validation_loss": 1.0 + 0.5 * given.fsdp, "seconds": float(len(asked))}
        (run / "history.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        return 'benchmark {"seconds": 0.0}\n'

    monkeypatch.setattr("vqa.benchmark.child", child)
    options = parse(BenchmarkOptions, ["--output", "x.json", *SMALL])
    found = shared_out(Bench(options=options, folder=tmp_path, cores=1, say=print))
    assert asked == [(1, False), (2, False), (2, True)]
    assert [figure.value for figure in found.figures] == [0.5, 1.5] and found.figures[0].aim == 1e-4
    assert [side.seconds for side in found.sides] == [[1.0], [2.0], [3.0]]


def test_a_device_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("common.benchmark_gpu.matmul_rate", lambda *_: 1e9)
    options = parse(BenchmarkOptions, ["--output", "x.json", *SMALL])
    bench = Bench(options=options, folder=tmp_path, cores=1, say=print)
    found = gpu(bench)
    values = {figure.what: figure.value for figure in found.figures}
    assert values["squares a second, fp32"] == pytest.approx(
        found.sides[0].units / statistics.median(found.sides[0].seconds)
    )
    cost = operations(build_encoder("custom_cnn"), 32)
    assert cost > 1e6
    share = values["share of the matrix products' rate, fp32"]
    assert share == pytest.approx(values["squares a second, fp32"] * cost / 1e9)
    assert matmul_rate(torch.device("cpu"), torch.float32, 1) > 1e6


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


def test_what_a_gpu_is_left_to_do_is_timed(monkeypatch):
    order = []
    for name, value in (("is_available", True), ("is_initialized", True)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))
    side_by_side({name: functools.partial(order.append, name) for name in "ab"}, 1, warm=False)
    assert order == ["wait", "a", "wait", "wait", "b", "wait"]


def test_an_encoder_is_folded_once_and_outside_of_the_time(tmp_path, monkeypatch):
    folded = []
    monkeypatch.setattr("common.benchmark_gpu.matmul_rate", lambda *_: 1e9)
    monkeypatch.setattr("common.benchmark_gpu._loading", lambda *_: Measured())
    monkeypatch.setattr("common.encoding.folded", lambda encoder: folded.append(1) or encoder)
    options = parse(BenchmarkOptions, ["--output", "x.json", *SMALL[:-1], "3"])
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    source = SimpleNamespace(preprocessing=Preprocessing(size=32), load=lambda *_: (pixels, torch.zeros(4), None))
    bench = Bench(options=options, folder=tmp_path, cores=1, say=print)
    found = throughput(bench, build_encoder("custom_cnn", depth=1, width=4), source, [("a", "0" * 64)])
    assert folded == [1] and [side.name for side in found.sides] == ["the bare encoder, fp32", "the bare encoder, bf16"]


@pytest.mark.parametrize(("kind", "squares"), [("cpu", 32), ("cuda", 128)])
def test_extraction_and_what_it_is_held_against_have_batches_of_one_size(clip, kind, squares, monkeypatch):
    """A loader's as `cached_features` makes them for a device, and those of the network by itself."""
    device, made = torch.device(kind), []
    source = ClipViews(sampling=Sampling(frames=3), preprocessing=Preprocessing(size=8))

    class Seen(DataLoader):
        def __init__(self, *arguments, **keywords):
            made.append(keywords["batch_size"])
            super().__init__(*arguments, **keywords | {"pin_memory": False})

    monkeypatch.setattr("common.features.DataLoader", Seen)
    encoder = build_encoder("custom_cnn", depth=1, width=4)
    accelerator = SimpleNamespace(
        device=device, is_main_process=True, process_index=0, num_processes=1, wait_for_everyone=lambda: None
    )
    monkeypatch.setattr("common.features.broadcast_object_list", lambda value: value)

    def encode(_, batches, *, batch_size, **__):
        next(batches)
        made.append(batch_size)
        yield from ()

    monkeypatch.setattr("common.features.encode_batches", encode)
    monkeypatch.setattr("common.features.shared_threads", lambda _: None)  # so that a loader makes them here, too
    with pytest.raises(UserError, match="are not there"):  # nothing was encoded
        cached_features(
            encoder, [clip], ["0" * 64], source=source, workers=0, accelerator=accelerator,
            cache=Path(clip).parent / kind,
        )  # fmt: skip
    assert made == [squares // 3, squares]
    assert squares_at_once(device) == squares
    assert loader(source, [(clip, "0" * 64)], 0, device).batch_size == squares // 3


def test_files_are_repeated_as_others():
    files = repeated([("a", "0" * 64), ("b", "1" * 64)], 3)
    assert [path for path, _ in files] == list("ababab") and len({digest for _, digest in files}) == 6
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for _, digest in files)


def test_few_files_make_an_extraction_that_is_long_enough(tmp_path):
    """Every side counts what it did: the plain way takes each file once."""
    loaded = []

    def load(path, digest, view):
        loaded.append(digest)
        return torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([0.0, 0.0, 1.0, 1.0]), None

    source = SimpleNamespace(preprocessing=Preprocessing(size=32), load=load, frames=1, unit="image", about={})
    options = parse(BenchmarkOptions, ["--output", "x.json", *SMALL, "--squares", "5"])
    bench = Bench(options=options, folder=tmp_path, cores=1, say=print)
    files = [("a", "0" * 64), ("b", "1" * 60 + "0000")]
    found = extraction(bench, build_encoder("custom_cnn", depth=1, width=4), source, files, kind="photos", plain=True)
    units = {side.name.removeprefix("photos: "): side.units for side in found.sides}
    assert {units.pop(name) for name in list(units) if name.startswith("the plain way")} == {2}
    assert len(units) == 7 and set(units.values()) == {6}
    # Once to know them; decoding and four extractions, two of which write nothing, each warmed and measured; the plain
    # way that loads here, once.
    assert len(loaded) == 2 + 5 * 2 * 6 + 2 and len(set(loaded)) == 6
    unwritten = [
        figure
        for figure in found.figures
        if figure.what.endswith("nothing written, of (decoding + encoding) / 1 cores")
    ]
    assert [figure.aim for figure in unwritten] == [None, None]


def test_epochs_are_counted_on_the_accelerators_device(monkeypatch):
    """More of them than the schedule knows of, and the sums where the loss is."""
    device, seen = torch.device("meta"), []
    accelerator = SimpleNamespace(device=device, prepare=lambda *parts: parts)
    monkeypatch.setattr("common.benchmark_training.make_accelerator", lambda _: accelerator)
    monkeypatch.setattr("common.benchmark_training.train_batches", lambda *_, epoch, **__: epoch)
    monkeypatch.setattr(
        "common.benchmark_training.train_one_epoch", lambda _, epoch, *, total, **__: seen.append((epoch, total.device))
    )
    train = one_epoch(torch.nn.Linear(1, 1), range(4), TrainingOptions(epochs=1, batch_size=2))
    for _ in range(3):
        train()
    assert seen == [(1, device), (2, device), (3, device)]


def test_memory_is_this_programs_own():
    """Not that of the larger process which started it; and of its children, those that load."""
    code = """
import json, multiprocessing, subprocess, time
from vqa.benchmark_child import Memory, peak_bytes
memory = Memory()
memory.look()
small = memory.worker
def load(): held = bytearray(64 << 20); time.sleep(1.2)
process = multiprocessing.get_context("fork").Process(target=load)
other = subprocess.Popen(["sleep", "1"])
process.start()
for _ in range(5): time.sleep(0.2); memory.look()
process.join(); other.wait()
print(json.dumps([peak_bytes(), memory.own, small, memory.worker]))
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not tell")
    held = torch.ones(100 << 20)  # 400 MiB
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert held.sum() > 0 and result.returncode == 0, result.stderr
    peak, own, small, worker = json.loads(result.stdout)
    assert own <= peak < 300 << 20 and small is None and 64 << 20 < worker < 300 << 20


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
