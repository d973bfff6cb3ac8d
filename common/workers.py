"""How processes that load data are started beside a training.

Belongs here: that choice alone. What they load is `common/batches.py`'s and `common/streams.py`'s business.

Before Python 3.11.10 a fork may stand still for ever if one of the libraries' threads enters or leaves Python at that
moment (python/cpython issue 112275): the new process waits for a lock that its parent's thread held. Threads of the
kind are those by which several processes talk. There, loading processes are forks of a server that has no threads.
"""

import multiprocessing
import sys
from typing import Any

import torch.distributed

_MENDED = (3, 11, 10)
_LIBRARIES = ["accelerate", "datasets", "einops", "torchvision.transforms.v2", "transformers"]  # what takes long


def loading_context(workers: int) -> Any:
    """`multiprocessing_context` of a `DataLoader` with so many workers; None is its own choice."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not workers or not several or sys.platform == "win32" or sys.version_info >= _MENDED:
        return None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LIBRARIES)
    return context
