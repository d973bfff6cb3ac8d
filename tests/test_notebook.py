"""The notebook for Colab and Kaggle: valid, without outputs, and run from the top down with small parameters."""

import json
import os
import shutil
import site
import subprocess
import venv
from pathlib import Path

import nbclient
import nbformat
import pytest
from page_world import write_classes, write_weights

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "hoianh.ipynb"
PICTURES = {"curves": 2, "ask": 1, "clips": 1, "own": 2}  # cell → pictures it shows


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_valid_and_holds_no_outputs(notebook):
    nbformat.validate(notebook, relax_add_props=False)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, cell.id
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    given: dict = {}
    exec(parameters.source, given)
    assert given["URL"] == "" and given["DATA"] == "" and given["WEIGHTS"] == "imagenet"


def test_it_runs_from_the_top_down(notebook, tmp_path, monkeypatch):
    """As a person would run it, on own photos, too; every figure and picture is there."""
    here = tmp_path / "hoianh"
    here.mkdir()
    for name in ("scripts", "configs"):
        (here / name).symlink_to(ROOT / name)
    write_classes(tmp_path / "ảnh của tôi", first=1, each=9)
    weights = write_weights(tmp_path / "weights.safetensors", "mobilenet_v2")
    small = {"EPOCHS": 1, "SCENES": 12, "CLIPS": 12, "DATA": str(tmp_path / "ảnh của tôi"), "WEIGHTS": str(weights)}
    small["OPTIONS"] = "--epochs 1 --image-size 32 --views 1 --augment --workers 0"
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source += "".join(f"\n{name} = {value!r}" for name, value in small.items())
    monkeypatch.setenv("HOIANH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(here)}}
    )
    client.execute()
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    said = {
        name: "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for name, cell in cells.items()
    }
    assert not any("SystemExit" in text or "error:" in text for text in said.values()), said
    for name, count in PICTURES.items():
        assert sum("image/png" in output.get("data", {}) for output in cells[name].outputs) == count, said[name]
    for run in ("notebook-shapes", "notebook-clips", "notebook-own"):
        assert "accuracy" in json.loads((here / "runs" / run / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert "'answer'" in said["pipeline"] and said["pipeline"].count("'score'") == 6
    assert "'label'" in said["classify"]


def test_without_a_repository_or_its_address_it_says_what_is_missing(notebook, tmp_path):
    notebook.cells = [cell for cell in notebook.cells if cell.id in ("parameters", "install")]
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="URL"):
        client.execute()


@pytest.fixture
def bare_kernel(tmp_path, monkeypatch) -> Path:
    """An environment with all that is here but Hỏi Ảnh, whose kernel is called "bare"; pip reaches no network in it."""
    place = tmp_path / "bare"
    venv.create(place, with_pip=False, symlinks=True)
    (own,) = place.glob("lib/python*/site-packages")
    others = tmp_path / "others"
    others.mkdir()
    for folder in map(Path, site.getsitepackages()):
        for found in folder.iterdir() if folder.is_dir() else ():
            if "hoianh" not in found.name and found.suffix != ".pth" and not (others / found.name).exists():
                (others / found.name).symlink_to(found)
    (own / "others.pth").write_text(f"{others}\n", encoding="utf-8")
    kernel = tmp_path / "jupyter" / "kernels" / "bare"
    kernel.mkdir(parents=True)
    command = [str(place / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "bare", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name, value in {"NO_INDEX": "1", "NO_DEPS": "1", "NO_BUILD_ISOLATION": "0", "NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    return own


@pytest.mark.skipif(os.name == "nt" or shutil.which("git") is None, reason="needs git and symbolic links")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
@pytest.mark.parametrize("left_over", [False, True], ids=["fresh", "clone-kept"])
def test_its_clone_is_installed_and_found_by_the_running_kernel(notebook, tmp_path, bare_kernel, left_over):
    """In a clone a package is found without being installed; what pip leaves there once does not count, either."""
    work = tmp_path / "work"
    work.mkdir()
    if left_over:  # of a machine whose disk stayed and whose packages did not
        subprocess.run(["git", "clone", "-q", str(ROOT), str(work / "hoianh")], check=True)
        (work / "hoianh" / "hoianh.egg-info").mkdir()
        about = "Metadata-Version: 2.1\nName: hoianh\nVersion: 0.1.0\n"
        (work / "hoianh" / "hoianh.egg-info" / "PKG-INFO").write_text(about, encoding="utf-8")
    notebook.cells = [cell for cell in notebook.cells if cell.id in ("parameters", "install")]
    notebook.cells[0].source += f"\nURL = {str(ROOT)!r}"
    # As the cells below use it, from this process and from another, whatever folder that is in.
    used = "import vqa\nprint(vqa.__file__)\n!cd / && {sys.executable} -c 'import vqa; print(vqa.__file__)'"
    notebook.cells.append(nbformat.v4.new_code_cell(used))
    resources = {"metadata": {"path": str(work)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="bare", resources=resources).execute()
    said = "".join(output.get("text", "") for output in notebook.cells[-1].outputs).split()
    assert said == [str(work / "hoianh" / "vqa" / "__init__.py")] * 2
    assert list(bare_kernel.glob("hoianh-*.dist-info"))
