"""Clips as batches: which view of which clip, in which order, and that a cache changes nothing but the time.

Frame number n of clip c has the mean brightness `grey(c, n)`, so that every frame tells which one it is.
"""

import hashlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from video_helpers import write_frames

from common.batches import evaluation_batches, train_batches
from common.encoders import build_encoder
from common.features import cached_features
from common.images import Preprocessing
from common.training import make_accelerator
from video.batches import ClipBatches
from video.frames import ClipViews, shuffled
from video.model import VideoConfig, VideoModel
from video.sampling import Sampling
from video.stored import StoredFeatures

CLASSES = ["chạy", "ngã"]
COUNTS = (9, 3, 6, 9)
"""Frames of each clip."""
PREPROCESSING = Preprocessing(size=16, resize="squash")


def grey(clip: int, frame: int) -> int:
    return 20 + 50 * clip + 5 * frame


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> datasets.Dataset:
    """Four clips, the last of a class that is not known."""
    folder = tmp_path_factory.mktemp("clips")
    texture = np.random.default_rng(0).integers(-9, 10, (8, 16, 3))
    texture = np.concatenate([texture, -texture])  # of mean 0
    paths = []
    for clip, count in enumerate(COUNTS):
        images = [(grey(clip, frame) + texture).astype(np.uint8) for frame in range(count)]
        paths.append(str(write_frames(folder / f"{clip}.mkv", images, codec="ffv1", pixels="bgr0")))
    return datasets.Dataset.from_dict(
        {
            "path": paths,
            "hash": [hashlib.sha256(bytes([clip])).hexdigest() for clip in range(4)],  # Matroska has random bytes
            "label": ["ngã", "chạy", "ngã", "bay"],
            "place": list(range(4)),
        }
    )


def views(**changes) -> ClipViews:
    """How clips are read: four of their frames, unless told otherwise."""
    rule = {name: changes.pop(name) for name in ("kind", "frames", "stride", "short") if name in changes}
    return ClipViews(sampling=Sampling(**({"frames": 4} | rule)), preprocessing=PREPROCESSING, **changes)


def frames(batch: dict) -> list[list[int]]:
    """Which frames each clip of a batch shows, by their brightness."""
    inputs = batch["inputs"]
    level = inputs["pixels"].float().mean((1, 2, 3))[inputs["places"]]
    order = inputs.get("order")
    level = (level if order is None else level[order]).round().int() - 20
    clips = level.split(inputs["lengths"].tolist())
    for item, clip in zip(batch["index"].tolist(), clips, strict=True):
        assert (clip // 50 == item % len(COUNTS)).all()  # none of another clip
    return [(clip % 50 // 5).tolist() for clip in clips]


class Store:
    """Features that are the number of their view, three frames a clip; it remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def take_clips(self, rows):
        self.asked += rows
        return torch.tensor([[float(view)] for _, view in rows for _ in range(3)]), torch.tensor([3] * len(rows))


def epoch(source: ClipBatches, number: int = 1) -> list[dict]:
    options = {"batch_size": 3, "accumulation": 1, "seed": 0, "rank": 0, "world": 1, "workers": 0}
    return [part for step in train_batches(source, epoch=number, **options) for part in step]


def scored(source: ClipBatches) -> list[dict]:
    batches = evaluation_batches(source, batch_size=3, rank=0, world=1, workers=0)
    return [part for step in batches for part in step]


# --- labels and frames ------------------------------------------------------------------------------------------------


def test_labels_are_places_among_the_classes_and_minus_one_outside(rows):
    batch = ClipBatches(rows, CLASSES, source=views()).__getitems__([(3, 0), (0, 0), (1, 0)])
    assert batch["labels"].tolist() == [-1, 1, 0] and batch["index"].tolist() == [3, 0, 1]


def test_clips_of_different_lengths_stand_one_after_another(rows):
    source = ClipBatches(rows, CLASSES, source=views())
    batch = source.__getitems__([(1, 0), (0, 0), (2, 0)])
    assert batch["inputs"]["lengths"].tolist() == [3, 4, 4]
    assert frames(batch) == [[0, 1, 2], [1, 3, 5, 7], [0, 2, 3, 5]]
    assert batch["inputs"]["pixels"].dtype == torch.uint8 and batch["inputs"]["pixels"].shape == (11, 3, 16, 16)


@pytest.mark.parametrize(
    ("short", "shown", "kept"), [("repeat", [0, 1, 2, 2, 2], 3), ("loop", [0, 1, 2, 0, 1], 3), ("mask", [0, 1, 2], 3)]
)
def test_frames_that_come_twice_are_there_once(rows, short, shown, kept):
    source = ClipBatches(rows, CLASSES, source=views(kind="first", frames=5, short=short))
    batch = source.__getitems__([(0, 0), (1, 0)])
    assert frames(batch) == [[0, 1, 2, 3, 4], shown]
    assert len(batch["inputs"]["pixels"]) == 5 + kept


def test_black_frames_count_as_frames(rows):
    batch = ClipBatches(rows, CLASSES, source=views(short="zeros", frames=5)).__getitems__([(1, 0), (2, 0)])
    level = batch["inputs"]["pixels"].float().mean((1, 2, 3))[batch["inputs"]["places"]].round().tolist()
    assert batch["inputs"]["lengths"].tolist() == [5, 5]
    assert level[:5] == [grey(1, 0), grey(1, 1), grey(1, 2), 0, 0] and 0 not in level[5:]


# --- views ------------------------------------------------------------------------------------------------------------


def test_copies_show_each_clip_once_plain_and_once_augmented_an_epoch(rows):
    store = Store()
    source = ClipBatches(rows, CLASSES, store=store, copies=1, varied=True)
    assert len(source) == source.samples == 8
    for number in (1, 2):
        store.asked.clear()
        labels = Counter(int(label) for batch in epoch(source, number) for label in batch["labels"])
        assert sorted(store.asked) == sorted((digest, view) for digest in rows["hash"] for view in (0, 1))
        assert labels == {0: 2, 1: 4, -1: 2}
    twice = ClipBatches(rows, CLASSES, store=store, copies=2, varied=True)
    store.asked.clear()
    epoch(twice)
    assert sorted(store.asked) == sorted((digest, view) for digest in rows["hash"] for view in (0, 1, 2))


def test_copies_that_are_not_kept_are_varied_anew_each_epoch(rows):
    source = ClipBatches(rows, CLASSES, source=views(augmentation=("color",)), copies=1, varied=True)

    def shown(number: int) -> dict[int, torch.Tensor]:
        found = {}
        for batch in epoch(source, number):
            parts = batch["inputs"]["pixels"].split(batch["inputs"]["lengths"].tolist())
            found |= dict(zip(batch["index"].tolist(), parts, strict=True))
        return found

    first, second = shown(1), shown(2)
    assert sorted(first) == list(range(8))
    for clip in range(4):
        plain = views().load(rows["path"][clip], rows["hash"][clip], 0)[0]
        assert torch.equal(first[clip], plain) and torch.equal(second[clip], plain)
        copies = first[clip + 4], second[clip + 4]
        assert not torch.equal(copies[0], plain) and not torch.equal(*copies)


def test_kept_views_take_turns_and_scoring_sees_the_plain_one(rows):
    store = Store()
    source = ClipBatches(rows, CLASSES, store=store, views=3, varied=True)
    assert len(source) == 4
    assert source.__getitems__([(0, 7), (1, 3)])["inputs"]["features"].flatten().tolist() == [1] * 3 + [0] * 3
    seen = Counter()
    for number in range(1, 30):
        store.asked.clear()
        epoch(source, number)
        assert sorted(digest for digest, _ in store.asked) == sorted(rows["hash"])
        seen.update(view for _, view in store.asked)
    assert set(seen) == {0, 1, 2} and min(seen.values()) > 20
    store.asked.clear()
    scored(source)
    assert store.asked == [(digest, 0) for digest in rows["hash"]]


def test_views_that_are_not_kept_are_new_ones_and_the_same_for_the_same_draw(rows):
    source = ClipBatches(rows, CLASSES, source=views(augmentation=("color",)), varied=True)
    shown = [source.__getitems__([(0, draw)])["inputs"]["pixels"] for draw in (0, 5, 6, 5)]
    assert torch.equal(shown[0], views().load(rows["path"][0], rows["hash"][0], 0)[0])
    assert torch.equal(shown[1], shown[3])
    assert not torch.equal(shown[0], shown[1]) and not torch.equal(shown[1], shown[2])
    plain = ClipBatches(rows, CLASSES, source=views())  # nothing varies: every draw is the plain view
    assert torch.equal(plain.__getitems__([(0, 5)])["inputs"]["pixels"], shown[0])


def test_random_frames_differ_by_draw_and_are_midpoints_in_scoring(rows):
    source = ClipBatches(rows, CLASSES, source=views(kind="random"), varied=True)
    seen = {tuple(frames(source.__getitems__([(0, draw)]))[0]) for draw in range(1, 30)}
    assert len(seen) > 5
    for shown in seen:  # one of each of the segments 0–1, 2–3, 4–5, 6–8
        assert all(
            low <= frame < high for frame, (low, high) in zip(shown, [(0, 2), (2, 4), (4, 6), (6, 9)], strict=True)
        )
    assert frames(source.__getitems__([(0, 7), (3, 7)])) == frames(source.__getitems__([(0, 7), (3, 7)]))
    by_clip = [frames(source.__getitems__([(0, draw), (3, draw)])) for draw in range(1, 10)]
    assert any(one != other for one, other in by_clip)  # clips of equal length
    assert [frame for batch in scored(source) for frame in frames(batch)][0] == [1, 3, 5, 7]


def test_a_frame_that_comes_twice_is_varied_twice_if_frames_are_varied_one_by_one(rows):
    path, digest = rows["path"][1], rows["hash"][1]
    for per, distinct in (("frame", 6), ("clip", 3)):
        source = views(frames=6, short="loop", augmentation=("color",), per=per)
        pixels, valid, places = source.load(path, digest, 4)
        assert len(places) == 6 and valid.tolist() == [0, 0, 1, 1]
        assert len({frame.numpy().tobytes() for frame in pixels[places]}) == distinct


def test_what_the_cache_is_told_of_views():
    plain = views().about
    assert views(augmentation=("blur",)).about != plain != views(frames=5).about
    assert views(augmentation=("blur",), per="frame").about != views(augmentation=("blur",)).about
    assert views(per="frame").about == plain  # nothing varies


# --- order ------------------------------------------------------------------------------------------------------------


def test_shuffled_is_a_permutation_by_clip_and_draw():
    one = shuffled(50, "ab" * 32, 3)
    assert sorted(one.tolist()) == list(range(50)) != one.tolist()
    assert torch.equal(one, shuffled(50, "ab" * 32, 3))
    assert not torch.equal(one, shuffled(50, "ab" * 32, 4)) and not torch.equal(one, shuffled(50, "ac" * 32, 3))


def test_shuffled_frames_stay_in_their_clip(rows):
    source = ClipBatches(rows, CLASSES, source=views(kind="all"), order="shuffled")
    keys = [(0, 9), (1, 9), (3, 9)]
    shown = frames(source.__getitems__(keys))
    assert [sorted(clip) for clip in shown] == [list(range(9)), [0, 1, 2], list(range(9))]
    assert shown[0] != list(range(9)) and shown[0] != shown[2]  # clips of equal length, each in its own order
    assert frames(source.__getitems__(keys)) == shown
    assert frames(source.__getitems__([(0, 8)]))[0] != shown[0]  # another epoch, another order
    assert frames(source.__getitems__([(3, 9), (0, 9)])) == [shown[2], shown[0]]  # whatever its batch
    first, again = ([frames(batch) for batch in scored(source)] for _ in range(2))
    assert first == again and first[0][0] != list(range(9))
    assert "order" not in ClipBatches(rows, CLASSES, source=views()).__getitems__([(0, 0)])["inputs"]


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train_from", ["none", "block2"])
@pytest.mark.parametrize("rule", [{}, {"kind": "all", "frames": 5, "short": "loop"}], ids=str)
def test_kept_features_give_the_logits_of_pixels(rows, tmp_path, train_from, rule):
    torch.manual_seed(0)
    encoder = build_encoder("custom_cnn", depth=2, width=4, train_from=train_from)
    about = {"encoder": encoder.config, "preprocessing": vars(PREPROCESSING), "pool": 2}
    model = VideoModel(VideoConfig(**about, hidden=8, classes=CLASSES)).eval()
    source = views(augmentation=("color",), **rule)
    store = cached_features(
        model.encoder,
        rows["path"],
        rows["hash"],
        source=source,
        cache=tmp_path,
        accelerator=make_accelerator(SimpleNamespace(precision="no", tracker="none")),
        precision="fp32",
        views=2,
        pool=2,
        workers=0,
    )
    kept = ClipBatches(rows, CLASSES, store=store, views=2, varied=True)
    decoded = ClipBatches(rows, CLASSES, source=source, varied=True)
    logits = []
    for draw in (0, 1):
        keys = [(clip, draw) for clip in (2, 0, 1)]
        one, other = (model(**batches.__getitems__(keys)["inputs"]).logits for batches in (kept, decoded))
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
        logits.append(one)
    assert (logits[0] - logits[1]).abs().max() > 1e-5  # the views are not one
    assert len(list(Path(tmp_path).rglob("*.safetensors"))) == 1


def test_features_computed_before_lose_their_padding(rows, tmp_path):
    features = torch.randn(4, 5, 3)
    save_file({"features": features, "lengths": torch.tensor([5, 2, 1, 4])}, tmp_path / "f.safetensors")
    source = ClipBatches(rows, CLASSES, stored=StoredFeatures(tmp_path / "f.safetensors"), order="shuffled")
    inputs = source.__getitems__([(3, 2), (1, 2)])["inputs"]
    assert inputs["lengths"].tolist() == [4, 2]
    assert torch.equal(inputs["features"], torch.cat([features[3, :4], features[1, :2]]))
    order = inputs["order"].tolist()
    assert sorted(order[:4]) == [0, 1, 2, 3] and sorted(order[4:]) == [4, 5]
