"""Loading processes beside several trainings: on a Python whose forks may stand still, they are no forks of these."""

import pickle

import pytest

from common import workers
from common.photos import PhotoFolder
from video.clips import ClipFolder


@pytest.mark.parametrize(
    ("version", "several", "count", "server"),
    [
        ((3, 11, 9), True, 2, True),
        ((3, 11, 9), True, 0, False),
        ((3, 11, 9), False, 2, False),
        ((3, 11, 10), True, 2, False),
        ((3, 12, 0), True, 2, False),
    ],
)
def test_loaders_are_forks_where_forks_are_sound(monkeypatch, version, several, count, server):
    monkeypatch.setattr(workers.torch.distributed, "is_initialized", lambda: several)
    monkeypatch.setattr(workers.sys, "version_info", version)
    context = workers.loading_context(count)
    assert (context is not None) == server
    if server:
        assert context.get_start_method() == "forkserver"


@pytest.mark.parametrize("folder", [PhotoFolder, ClipFolder])
def test_what_streams_load_with_can_be_sent_to_such_a_server(tmp_path, folder):
    """Sources of training go there as they are when it begins, having found something or not."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.jpg").touch()
    one = folder(tmp_path)
    found = one.find("a/b.jpg")
    assert pickle.loads(pickle.dumps(one)).find("a/b.jpg") == found
