"""What becomes of memory that tensors on a CPU no longer need.

Belongs here: what is asked of the C library, which hands this memory out and takes it back. Tensors on a GPU are
torch's own business, which keeps what is freed as a matter of course.
"""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # by these numbers mallopt(3) knows them, in <malloc.h>
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have this process keep what it frees for what it needs next; → whether its C library has been told so.

    glibc hands pieces of more than 32 MB, and the end of a heap, back to the system at once. The next step asks for
    them again, and the system has to clear every page first, which is felt in a CNN's training and in frozen features
    in fp32. What is kept may lie in the way of other sizes, so that a process grows a little until its heap has found
    its shape. Before glibc 2.35 only pieces of up to 32 MB can be kept. Other systems and C libraries are left
    as they are, and so is one that was told otherwise by the environment (`mallopt(3)`).
    """
    if sys.platform != "linux" or any(name in os.environ for name in _SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    pieces = mallopt(_MMAP_THRESHOLD, 2**30) or mallopt(_MMAP_THRESHOLD, 2**25)
    return bool(pieces and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
