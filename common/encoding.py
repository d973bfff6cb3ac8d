"""Squares through a frozen encoder, as fast as the machine goes.

Belongs here: the order of the work. Which squares, and what becomes of their features, is `common/features.py`'s.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.functional import adaptive_avg_pool2d

from common.encoders import Encoder
from common.folding import folded
from common.images import Preprocessing, normalise

STORED = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_THREADS = 8  # that encode at once on a CPU: with many more, they would wait for Python's lock
# Squares per core that a thread has at a time: few fit a core's caches, and of so few the largest layers fit a heap of
# glibc's threads (64 MB), which would be made anew for each layer otherwise.
_PART, _PART_BF16 = 4, 8


@contextmanager
def exact_fp32(exact: bool = True) -> Iterator[None]:
    """Within it, fp32 on an NVIDIA GPU is fp32: convolutions and matrix products keep all 24 bits of their factors.

    Left to itself, cuDNN rounds the factors of fp32 convolutions to the 11 bits of TF32. What is published as computed
    in fp32 must not depend on the machine like that. Not `exact`: TF32 wherever there is any. (These two settings are
    the ones that every torch 2 knows, those by the name of `fp32_precision` only from 2.9 on; mixing both kinds is an
    error there.)
    """
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not exact
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def encoder_for(encoder: Encoder, device: torch.device) -> Encoder:
    """A copy of a frozen encoder as it is fastest on `device`: BatchNorm folded, channels last."""
    return folded(encoder).to(device).to(memory_format=torch.channels_last)


def shared_threads(device: torch.device) -> ThreadPoolExecutor | None:
    """Threads for decoding squares and encoding them both: on a CPU as many as torch has.

    Had both threads of their own, there would be twice as many as cores: they would take turns on these, and push each
    other's tensors out of their caches. None on a GPU; nor where torch has a single thread, beside which there often
    are cores that can decode (`accelerate launch` gives it one), or more than encode at once.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or not 1 < threads <= _THREADS:
        return None
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


def encode_batches(
    encoder: Encoder,
    batches: Iterable[tuple[torch.Tensor, Any]],
    *,
    preprocessing: Preprocessing,
    device: torch.device,
    precision: str = "fp16",
    pool: int | None = None,
    batch_size: int = 32,
    compiled: bool = False,
    shared: ThreadPoolExecutor | None = None,
) -> Generator[tuple[torch.Tensor, Any], None, None]:
    """Batches of squares `(U, 3, S, S)` uint8, each with whatever belongs to it → their features on the CPU, in order.

    Features are `Encoder.frozen_features` in the kind that `precision` stores; with `pool`, of a wholly frozen encoder,
    averages over pool × pool parts of the grid, `(U, C·pool²)`. The encoder sees at most `batch_size` squares at once.
    In fp32 and fp16 it computes in fp32, on a GPU, too (see `exact_fp32`).

    On a CPU, each core works on squares of its own: sharing those of one batch, they would wait for the slowest at
    every layer, and for ever so long where the loader's processes need them too. On a GPU, the next squares are on
    their way while the last ones' features come back. `compiled`: by `torch.compile`, which takes a minute at first and
    needs a C++ compiler on a CPU; every part then has as many squares, for each number would be compiled anew.
    `shared`: the `shared_threads` that make the batches, too, and that are the caller's to shut down.
    """
    cores = torch.get_num_threads()
    workers, size, within = 2, batch_size, cores
    if device.type == "cpu":
        workers = min(cores, _THREADS)
        size = min(batch_size, (_PART_BF16 if precision == "bf16" else _PART) * (cores // workers))
        within = cores // workers
    pooled = pool is not None and encoder.frozen_part == "all"

    def network() -> Callable[[torch.Tensor], torch.Tensor]:
        fast = encoder_for(encoder, device)
        return torch.compile(fast.frozen_features, dynamic=False) if compiled else fast.frozen_features

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        features = made.result()
        count = len(pixels)
        pixels = normalise(pixels.to(device, non_blocking=True), preprocessing)
        if compiled and count < size:
            pixels = torch.cat([pixels, pixels[:1].expand(size - count, -1, -1, -1)])
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            grid = features(pixels)[:count]
        if pooled:
            grid = adaptive_avg_pool2d(grid.float(), pool).flatten(1)
        # Put in order while they are at hand: a shard of them, written later, would have to come from memory once more.
        return grid.to(STORED[precision], memory_format=torch.contiguous_format).cpu()

    threads = shared or ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(within,))
    waiting: deque[tuple[list[Future[torch.Tensor]], Any]] = deque()
    parts = 0
    exact = ExitStack()
    if precision != "bf16":
        exact.enter_context(exact_fp32())
    try:
        torch.set_num_threads(within)  # of this thread, too: sharing small steps, it would wait for cores that encode
        made = threads.submit(network)  # while the first squares are decoded
        if device.type != "cpu":
            made.result()  # before a loader's processes are forked: no thread may be at work then
        for pixels, rest in batches:
            futures = [threads.submit(encode, part) for part in pixels.tensor_split(math.ceil(len(pixels) / size))]
            waiting.append((futures, rest))
            parts += len(futures)
            while parts - len(waiting[0][0]) >= 2 * workers:  # enough to do while the oldest batch is waited for
                futures, rest = waiting.popleft()
                parts -= len(futures)
                yield torch.cat([future.result() for future in futures]), rest
        for futures, rest in waiting:
            yield torch.cat([future.result() for future in futures]), rest
    finally:
        if shared is None:
            threads.shutdown(cancel_futures=True)
        exact.close()
        torch.set_num_threads(cores)  # which the initializer has set for threads to come
