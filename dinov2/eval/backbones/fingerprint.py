"""Which weights these are, as a short text.

In: named tensors, and what else decides the numbers. Out: 32 hexadecimal digits.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 16 << 20
DIGITS = 32


def fingerprint_of(state: Mapping[str, Tensor], **computes: Any) -> str:
    """sha256 over names, number formats, shapes and bytes of the tensors, in the order of their names.

    `computes` holds plain values that change the numbers and are not in the weights: the number of heads, the
    activation, how positions are resampled. One chunk at a time is copied, so a large model needs no second copy.
    """
    digest = hashlib.sha256(repr(sorted(computes.items())).encode())
    for name in sorted(state):
        tensor = state[name].detach()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.to("cpu").contiguous().reshape(-1).view(torch.uint8)
        for start in range(0, len(flat), CHUNK_BYTES):
            digest.update(flat[start : start + CHUNK_BYTES].numpy().tobytes())
    return digest.hexdigest()[:DIGITS]
