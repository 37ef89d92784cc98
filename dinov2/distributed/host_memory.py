"""What this process does with memory that is freed, where networks compute on a CPU.

In: the device that computes. Out: the C library's allocator, told to keep what it once got from the system.

By itself glibc gives large blocks back as soon as they are free. The next tensor of that size is then faulted in and
filled with zeros page by page: a tenth of a training step, and up to a quarter of encoding (`dinov2 bench allocator`).
"""

import ctypes
import os
import sys
from collections.abc import Mapping

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt(3)
NEVER_TRIM, NO_BLOCKS_OF_THEIR_OWN = -1, 0
OF_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
TUNABLES = "GLIBC_TUNABLES"


def keep_freed_memory(device: torch.device, *, environ: Mapping[str, str] | None = None) -> bool:
    """From now on this process keeps freed memory for its next tensors, until it ends.  -> whether it does

    For processes of our own: the commands call it, the library never does. Nothing is changed where `device` is no CPU,
    where the C library is not glibc, and where `environ` (of the process) has settings of the user's for glibc's
    malloc. The most that a process holds hardly grows by it, but it no longer falls in between.
    """
    if device.type != "cpu" or _has_settings(os.environ if environ is None else environ):
        return False
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((M_TRIM_THRESHOLD, NEVER_TRIM), (M_MMAP_MAX, NO_BLOCKS_OF_THEIR_OWN))
    return all(library.mallopt(name, value) == 1 for name, value in settings)


def _has_settings(environ: Mapping[str, str]) -> bool:
    return any(environ.get(name) for name in OF_USERS) or "glibc.malloc" in environ.get(TUNABLES, "")
