"""Squares through a frozen encoder: in order, whatever the cores, the parts and the compiler."""

import functools

import pytest
import torch

from common.encoders import build_encoder
from common.encoding import encode_batches, exact_fp32
from common.images import normalise


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_encoder("custom_cnn", depth=2, width=4).eval()


@pytest.fixture(scope="module")
def batches():
    chance = torch.Generator().manual_seed(1)
    return [
        (torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=chance), size) for size in (5, 33, 1, 20)
    ]


def encoded(encoder, batches, **keywords):
    keywords = {"preprocessing": encoder.preprocessing, "device": torch.device("cpu"), "precision": "fp32"} | keywords
    return list(encode_batches(encoder, batches, **keywords))


@pytest.mark.parametrize("cores", [1, 3])
def test_features_come_in_order_whatever_the_cores(encoder, batches, cores):
    threads = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        found = encoded(encoder, batches, batch_size=16)
        assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(threads)
    assert [rest for _, rest in found] == [5, 33, 1, 20]
    for (grid, _), (pixels, _) in zip(found, batches, strict=True):
        expected = encoder.frozen_features(normalise(pixels, encoder.preprocessing))
        torch.testing.assert_close(grid, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_is_on_its_way_while_the_one_before_is_waited_for(encoder, precision):
    """Else the cores would have nothing to do while the last parts of each batch are computed."""
    events = []

    def asked():
        for number in range(4):
            events.append(f"{number} asked for")
            yield torch.zeros(32, 3, 16, 16, dtype=torch.uint8), number

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _, number in encode_batches(
            encoder,
            asked(),
            preprocessing=encoder.preprocessing,
            device=torch.device("cpu"),
            precision=precision,
        ):
            events.append(f"{number} given")
    finally:
        torch.set_num_threads(threads)
    for number in range(3):
        assert events.index(f"{number + 1} asked for") < events.index(f"{number} given")


def test_compiled_parts_are_of_one_size(encoder, batches, monkeypatch):
    """Compiled by a compiler that leaves all as it is: each other number of squares would be compiled anew."""
    sizes = set()

    def seen(function, **keywords):
        def counted(pixels):
            sizes.add(len(pixels))
            return function(pixels)

        return torch_compile(counted, backend="eager", **keywords)

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", seen)
    plain, compiled = (encoded(encoder, batches, batch_size=16, compiled=value) for value in (False, True))
    assert len(sizes) == 1
    for (grid, rest), (expected, _) in zip(compiled, plain, strict=True):
        assert grid.shape == expected.shape and len(grid) == rest
        torch.testing.assert_close(grid, expected, rtol=1e-4, atol=1e-5)


def test_an_error_in_the_network_comes_out(encoder, batches, monkeypatch):
    monkeypatch.setattr(type(encoder), "frozen_features", functools.partial(lambda _, pixels: 1 / 0, None))
    with pytest.raises(ZeroDivisionError):
        encoded(encoder, batches)


def tf32():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("fp16", False), ("bf16", True)])
def test_fp32_on_a_gpu_is_not_rounded(encoder, batches, precision, allowed):
    """While features are computed in fp32, and only then: the rest of a run keeps what torch was set to."""
    before = tf32()
    assert before[0]  # torch lets cuDNN round, by default
    seen = []

    def watched():
        for batch in batches:
            seen.append(torch.backends.cudnn.allow_tf32)
            yield batch

    found = encode_batches(
        encoder, watched(), preprocessing=encoder.preprocessing, device=torch.device("cpu"), precision=precision
    )
    next(found)
    assert seen[0] is allowed
    found.close()  # nobody wants the rest
    assert tf32() == before


def test_fp32_is_put_back_after_an_error():
    before = tf32()
    with pytest.raises(ZeroDivisionError), exact_fp32():
        assert tf32() == (False, False)
        with exact_fp32(False):
            assert tf32() == (True, True)
        assert tf32() == (False, False)
        raise ZeroDivisionError
    assert tf32() == before
