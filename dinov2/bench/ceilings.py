"""What this machine can do at most: matrix products and copies of memory, measured where they are compared with.

In: a device and a number format. Out: rates. No kernel is faster: one that is bound by arithmetic comes near the first,
one that is bound by memory near the second.
"""

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from dinov2.layers.products import Weight

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
FEWEST_RUNS = 3  # the first touches memory that was never used
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}  # beyond every cache


@dataclass(frozen=True, kw_only=True)
class MatrixRates:
    """FLOP/s of large square matrix products."""

    torch: float  # of torch's own product, a @ b
    blocks: float  # of the product that the blocks of a network use, whose weight is laid out before

    @property
    def best(self) -> float:
        """What the machine can do, as far as is known: on a CPU neither is the faster one everywhere."""
        return max(self.torch, self.blocks)

    @classmethod
    def highest(cls, several: Iterable["MatrixRates"]) -> "MatrixRates":
        """The highest of each kind."""
        all_rates = list(several)
        return cls(torch=max(one.torch for one in all_rates), blocks=max(one.blocks for one in all_rates))


def matrix_rates(
    *, device: torch.device, dtype: torch.dtype, seconds: float = 2.0, side: int | None = None
) -> MatrixRates:
    """The best of several products of each kind over about `seconds`."""
    side = side or MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    weight = Weight(b)
    by_torch, by_blocks = (
        2 * side**3 / _best(way, device=device, seconds=seconds / 2) for way in (lambda: a @ b, lambda: weight(a))
    )
    return MatrixRates(torch=by_torch, blocks=by_blocks)


def matrix_rate(*, device: torch.device, dtype: torch.dtype, seconds: float = 2.0, side: int | None = None) -> float:
    """FLOP/s of large square matrix products, by the faster of the two ways."""
    return matrix_rates(device=device, dtype=dtype, seconds=seconds, side=side).best


def copy_rate(*, device: torch.device, seconds: float = 1.0) -> float:
    """Bytes/s, read and written together, of a copy from one place of the device's memory to another; the best."""
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device=device, seconds=seconds)


def seconds_of(work: Callable[[], Any], *, device: torch.device) -> float:
    """Seconds of `work`, until the device has done it."""
    settle(device)
    started = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - started


def settle(device: torch.device) -> None:
    """Waits until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def give_back(device: torch.device) -> None:
    """Gives the device what nothing holds any more, for others to take."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _best(work: Callable[[], Any], *, device: torch.device, seconds: float) -> float:
    best, spent, runs = float("inf"), 0.0, 0
    while spent < seconds or runs < FEWEST_RUNS:
        took = seconds_of(work, device=device)
        best, spent, runs = min(best, took), spent + took, runs + 1
    return best
