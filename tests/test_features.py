"""The cache of frozen features: computed once, found again, and never stale."""

import gc
import json
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch
from encoder_helpers import noise_photos
from PIL import Image
from safetensors.torch import save_file

from common import features
from common.encoders import build_encoder
from common.errors import UserError
from common.features import FeatureStore, PhotoViews, ViewDataset, cached_features, view_batches
from common.images import Preprocessing, content_hash, normalise, read_image, to_tensor
from common.training import make_accelerator
from vqa.options import TrainVqaOptions

PREPROCESSING = Preprocessing(size=32, resize="squash")
CPU = torch.device("cpu")


@pytest.fixture
def photos(tmp_path):
    return noise_photos(tmp_path / "photos")


def make_encoder(seed: int = 0):
    torch.manual_seed(seed)
    return build_encoder("custom_cnn", depth=3, width=4)


class Counted:
    """How many images an encoder was asked for; `fail_after` calls it is interrupted."""

    def __init__(self, encoder, fail_after: int | None = None) -> None:
        self.images = self.calls = 0
        original = encoder.forward

        def forward(pixels):
            if self.calls == fail_after:
                raise KeyboardInterrupt
            self.calls += 1
            self.images += len(pixels)
            return original(pixels)

        encoder.forward = forward


def cached(encoder, photos, cache, **changes):
    options = {"preprocessing": PREPROCESSING, "precision": "fp32", "batch_size": 2, "workers": 0} | changes
    views = PhotoViews(preprocessing=options.pop("preprocessing"), augmentation=options.pop("augmentation", ()))
    hashes = [content_hash(path) for path in photos]
    accelerator = make_accelerator(TrainVqaOptions())
    options |= {"source": views, "cache": cache, "accelerator": accelerator}
    return cached_features(encoder, photos, hashes, **options), hashes


def keys(cache):
    return sorted(path.name for path in (cache / "features").iterdir())


@torch.no_grad()
def direct(encoder, photos):
    pixels = torch.stack([to_tensor(read_image(path), PREPROCESSING)[0] for path in photos])
    return encoder.eval()(normalise(pixels, PREPROCESSING))


def test_computed_once_and_right(photos, tmp_path):
    encoder = make_encoder()
    expected = direct(encoder, photos)
    first = Counted(encoder)
    store, hashes = cached(encoder, photos, tmp_path)
    assert first.images == 7
    again = make_encoder()  # another process would build it anew
    Counted(again, fail_after=0)
    for found in (store, cached(again, photos, tmp_path)[0]):
        grid, valid = found.take([(digest, 0) for digest in hashes])
        assert grid.dtype == torch.float32
        torch.testing.assert_close(grid, expected, atol=1e-5, rtol=1e-4)
        assert valid.tolist() == [[0, 0, 1, 1]] * 7
    (key,) = keys(tmp_path)
    about = json.loads((tmp_path / "features" / key / "about.json").read_text(encoding="utf-8"))
    assert about["encoder"] == "custom_cnn" and about["preprocessing"]["size"] == 32


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_precisions_are_close_to_a_direct_forward(photos, tmp_path, precision):
    encoder = make_encoder()
    expected = direct(encoder, photos).flatten(1)
    store, hashes = cached(encoder, photos, tmp_path, precision=precision)
    grid = store.take([(digest, 0) for digest in hashes])[0]
    assert grid.dtype == {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert torch.nn.functional.cosine_similarity(grid.float().flatten(1), expected).min() > 0.999


def test_only_a_changed_photo_is_computed_again(photos, tmp_path):
    encoder = make_encoder()
    before, hashes = cached(encoder, photos, tmp_path)
    with Image.open(photos[3]) as image:
        changed = image.copy()
    red, green, blue = changed.getpixel((0, 0))
    changed.putpixel((0, 0), (255 - red, 255 - green, 255 - blue))
    changed.save(photos[3])
    counted = Counted(encoder)
    after, fresh = cached(encoder, photos, tmp_path)
    assert counted.images == 1 and len(keys(tmp_path)) == 1
    assert [one == other for one, other in zip(hashes, fresh, strict=True)] == [True] * 3 + [False] + [True] * 3
    old, new = before.take([(hashes[3], 0)])[0], after.take([(fresh[3], 0)])[0]
    assert not torch.equal(old, new)


def test_two_names_of_one_photo_are_computed_once(photos, tmp_path):
    encoder = make_encoder()
    counted = Counted(encoder)
    cached(encoder, [photos[0], photos[0], photos[1]], tmp_path)
    assert counted.images == 2


def test_whatever_changes_the_features_changes_the_key(photos, tmp_path):
    cached(make_encoder(), photos, tmp_path)
    cached(make_encoder(seed=1), photos, tmp_path)
    cached(make_encoder(), photos, tmp_path, preprocessing=Preprocessing(size=24, resize="squash"))
    cached(make_encoder(), photos, tmp_path, preprocessing=Preprocessing(size=32, resize="pad"))
    cached(make_encoder(), photos, tmp_path, precision="fp16")
    cached(make_encoder(), photos, tmp_path, views=2, augmentation=("flip",))
    cached(make_encoder(), photos, tmp_path, views=2, augmentation=("flip", "color"))
    assert len(keys(tmp_path)) == 7
    other = make_encoder()
    counter = next(buffer for name, buffer in other.named_buffers() if name.endswith("running_mean"))
    counter += 0.1  # batch norm's statistics are weights too
    cached(other, photos, tmp_path)
    assert len(keys(tmp_path)) == 8


def test_more_views_of_the_same_kind_are_added(photos, tmp_path):
    encoder = make_encoder()
    cached(encoder, photos, tmp_path, views=2, augmentation=("crop", "color"))
    counted = Counted(encoder)
    cached(encoder, photos, tmp_path, views=4, augmentation=("crop", "color"))
    assert counted.images == 2 * 7 and len(keys(tmp_path)) == 1


def test_views_differ_and_come_out_the_same_again(photos, tmp_path):
    encoder = make_encoder()
    plain = direct(encoder, photos)
    views = {"views": 3, "augmentation": ("crop", "flip", "color", "blur")}
    one, hashes = cached(encoder, photos, tmp_path / "a", **views)
    torch.manual_seed(99)  # wherever the process's own chance stands, and whatever the order
    other, _ = cached(encoder, photos[::-1], tmp_path / "b", **views)
    grids = []
    for view in range(3):
        rows = [(digest, view) for digest in hashes[:6]]
        grids.append(one.take(rows)[0])
        torch.testing.assert_close(grids[-1], other.take(rows)[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(grids[0], plain[:6], atol=1e-5, rtol=1e-4)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert all(not torch.allclose(a, b, atol=1e-3) for a, b in zip(grids[first], grids[second], strict=True))
    with pytest.raises(KeyError):
        one.take([(hashes[6], 3)])


@pytest.mark.parametrize("workers", [1, 5])
def test_threads_that_decode_change_nothing(photos, workers):
    """The same squares in the same order: threads take turns with the one generator that augmentation draws from."""
    source = PhotoViews(preprocessing=PREPROCESSING, augmentation=("crop", "flip", "color", "blur"))
    rows = [(content_hash(path), view) for path in photos for view in range(6)]
    views = ViewDataset([path for path in photos for _ in range(6)], rows, source)
    wanted = torch.cat([pixels for pixels, _ in view_batches(views, batch_size=4, workers=0, device=CPU)])
    torch.manual_seed(5)
    after = torch.rand(3)
    for _ in range(5):
        torch.manual_seed(5)
        threads, filters = torch.get_num_threads(), list(warnings.filters)
        found = [pixels for pixels, _ in view_batches(views, batch_size=4, workers=workers, device=CPU)]
        assert torch.equal(torch.cat(found), wanted) and len(found) == -(-len(rows) // 4)
        assert torch.equal(torch.rand(3), after)
        assert torch.get_num_threads() == threads and warnings.filters == filters


@pytest.fixture
def one_thread():
    """Several work on batches side by side, and which of them are whole by then is a matter of chance."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_an_interrupted_extraction_goes_on(photos, tmp_path, monkeypatch, one_thread):
    monkeypatch.setattr(features, "_SHARD_BYTES", 1)  # a shard per batch
    encoder = make_encoder()
    expected = direct(encoder, photos)
    broken = make_encoder()
    Counted(broken, fail_after=2)
    with pytest.raises(KeyboardInterrupt):
        cached(broken, photos, tmp_path)
    counted = Counted(encoder)
    store, hashes = cached(encoder, photos, tmp_path)
    assert counted.images == 7 - 2 * 2
    torch.testing.assert_close(store.take([(digest, 0) for digest in hashes])[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_torn_shard_is_computed_again(photos, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(features, "_SHARD_BYTES", 1)
    encoder = make_encoder()
    expected = direct(encoder, photos)
    cached(encoder, photos, tmp_path)
    shard = sorted((tmp_path / "features" / keys(tmp_path)[0]).glob("*.safetensors"))[0]
    whole = shard.read_bytes()
    if damage == "foreign":  # sound, but none of ours
        save_file({"weight": torch.zeros(2)}, shard)
    else:
        shard.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    counted = Counted(encoder)
    store, hashes = cached(encoder, photos, tmp_path)
    assert 1 <= counted.images <= 2  # the rows of that shard alone
    torch.testing.assert_close(store.take([(digest, 0) for digest in hashes])[0], expected, atol=1e-5, rtol=1e-4)


def test_rows_come_in_the_order_asked_for(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_SHARD_BYTES", 1)
    encoder = make_encoder()
    expected = direct(encoder, photos)
    store, hashes = cached(encoder, photos, tmp_path)
    assert len(list(store.directory.glob("*.safetensors"))) == 4
    for order in ([6, 0, 3, 3, 1, 5], [2], [1, 0], list(range(7))):
        grid, valid = store.take([(hashes[place], 0) for place in order])
        torch.testing.assert_close(grid, expected[order], atol=1e-5, rtol=1e-4)
        assert valid.shape == (len(order), 4)


def test_padding_is_remembered(photos, tmp_path):
    store, hashes = cached(make_encoder(), photos, tmp_path, preprocessing=Preprocessing(size=32, resize="pad"))
    _, valid = store.take([(hashes[0], 0)])
    x0, y0, x1, y1 = valid[0].tolist()  # 48 x 40 pixels in a square
    assert (x0, x1) == (0, 1) and y1 - y0 == pytest.approx(40 / 48, abs=1 / 32)


def test_a_store_is_mapped_not_read(tmp_path):
    """Opening a shard of 64 MiB and taking two rows costs next to no memory."""
    rows = [[f"{number:064x}", 0] for number in range(64)]
    tensors = {"features": torch.ones(64, 16, 128, 128), "valid": torch.zeros(64, 4)}
    save_file(tensors, tmp_path / "one.safetensors", metadata={"rows": json.dumps(rows)})
    del tensors
    gc.collect()
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    store = FeatureStore(tmp_path)
    grid, _ = store.take([(rows[60][0], 0), (rows[1][0], 0)])
    grown = process.memory_info().rss - before
    assert float(grid.sum()) == grid.numel()
    assert grown < 24 * 2**20


def test_features_that_are_no_numbers_are_refused(photos, tmp_path):
    encoder = make_encoder()
    with torch.no_grad():
        next(encoder.parameters()).fill_(1e30)
    cores, filters, running = torch.get_num_threads(), list(warnings.filters), threading.active_count()
    torch.set_num_threads(3)
    try:
        with pytest.raises(
            UserError, match="of custom_cnn are not finite in fp16.*--feature-precision fp32"
        ) as refused:
            cached(encoder, photos, tmp_path, precision="fp16", workers=2)
        assert torch.get_num_threads() == 3 and warnings.filters == filters and threading.active_count() <= running
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(cores)
    assert refused.tb and not list(tmp_path.glob("features/*/*.safetensors"))  # while what was raised is still held


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photo_that_vanished_is_named(photos, tmp_path, workers):
    hashes = [content_hash(path) for path in photos]
    os.remove(photos[2])
    accelerator = make_accelerator(TrainVqaOptions())
    with pytest.raises(UserError, match="2.png: no such image file") as refused:
        cached_features(
            make_encoder(),
            photos,
            hashes,
            source=PhotoViews(preprocessing=PREPROCESSING),
            cache=tmp_path,
            accelerator=accelerator,
            workers=workers,
        )
    assert "Traceback" not in str(refused.value)


def test_a_second_run_waits_for_what_the_first_is_extracting(photos, tmp_path):
    """Two runs that need the same features at once: the later one finds them instead of making them again."""
    first, second = make_encoder(), make_encoder()
    slow, counted, started = Counted(first), Counted(second), threading.Event()
    original = first.forward

    def forward(pixels):
        started.set()
        time.sleep(0.3)
        return original(pixels)

    first.forward = forward
    thread = threading.Thread(target=cached, args=(first, photos, tmp_path))
    thread.start()
    assert started.wait(20)
    store, hashes = cached(second, photos, tmp_path)
    thread.join()
    assert slow.images == len(photos) and counted.images == 0
    assert all((digest, 0) in store for digest in hashes)


@pytest.mark.parametrize(("cores", "workers", "shared"), [(2, 0, True), (2, 3, True), (1, 2, False), (3, 2, False)])
def test_decoding_and_encoding_share_their_threads(photos, tmp_path, monkeypatch, cores, workers, shared):
    """On a CPU: with threads of their own they would take turns on the cores. Not with one, nor with very many."""
    decoding, encoding = set(), set()
    load, encoder = PhotoViews.load, make_encoder()
    forward = encoder.forward

    def seen_load(self, *arguments):
        decoding.add(threading.get_ident())
        time.sleep(0.01)
        return load(self, *arguments)

    def seen_forward(pixels):
        encoding.add(threading.get_ident())
        time.sleep(0.01)
        return forward(pixels)

    monkeypatch.setattr(PhotoViews, "load", seen_load)
    monkeypatch.setattr("common.encoding.folded", lambda encoder: encoder)
    encoder.forward = seen_forward
    monkeypatch.setattr("common.encoding._THREADS", 2)  # as if three were very many
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        cached(encoder, photos, tmp_path, workers=workers)
        assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)
    assert threading.get_ident() not in decoding | encoding
    assert 1 <= len(decoding) <= (cores if shared else workers) and 1 <= len(encoding) <= cores
    assert len(decoding | encoding) <= cores if shared else not decoding & encoding
