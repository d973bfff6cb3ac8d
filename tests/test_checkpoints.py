"""Checkpoints appear whole; training state comes back as it was, without pickles."""

import pytest
import torch

from common.checkpoints import load_state, save_state, whole_directory, write_directory
from common.errors import UserError


def test_state_round_trip(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "epoch": 3, "none": None, "rows": [{"a": 0.1}], "best": float("inf")}
    save_state(tmp_path, state)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    back = load_state(tmp_path)
    torch.testing.assert_close(back["optimizer"]["state"], state["optimizer"]["state"], rtol=0, atol=0)
    assert back["optimizer"]["param_groups"][0]["lr"] == 0.1 and list(back["optimizer"]["state"]) == [0, 1]
    assert {key: back[key] for key in ("epoch", "none", "rows", "best")} == {
        key: state[key] for key in ("epoch", "none", "rows", "best")
    }
    torch.optim.AdamW(layer.parameters()).load_state_dict(back["optimizer"])


def test_damaged_state_is_refused(tmp_path):
    save_state(tmp_path, {"a": torch.zeros(3)})
    (tmp_path / "state.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="missing or damaged"):
        load_state(tmp_path)


def test_checksums_that_are_gone_are_noticed(tmp_path, capsys):
    """Of two checkpoints the newer lost them, and maybe more; one that never had any is taken as it is."""
    for text in ("one", "two"):
        write_directory(
            tmp_path / "last", lambda path, text=text: (path / "x").write_text(text, encoding="utf-8"), keep_before=True
        )
    for file in (tmp_path / "last").iterdir():
        file.unlink()
    assert whole_directory(tmp_path / "last") == tmp_path / "last.old"
    assert "last is damaged: checksums.json is missing" in capsys.readouterr().err
    (tmp_path / "last.old" / "checksums.json").unlink()
    assert whole_directory(tmp_path / "last") == tmp_path / "last"


def test_directory_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "last"
    write_directory(path, lambda directory: (directory / "x").write_text("one", encoding="utf-8"))

    def torn(directory):
        (directory / "x").write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left.*untouched"):
        write_directory(path, torn)
    assert (path / "x").read_text(encoding="utf-8") == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


def test_a_kill_between_the_renames_leaves_the_one_before(tmp_path):
    (tmp_path / "last.old").mkdir()
    assert whole_directory(tmp_path / "last") == tmp_path / "last.old"
    with pytest.raises(UserError, match="no such checkpoint"):
        whole_directory(tmp_path / "best")
