"""Which number format the networks compute in, and why.

In: `runtime.precision` and the device. Out: a `Precision`. Weights, optimiser, losses and the teacher's average stay
in float32.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Precision:
    """`reason` is for the log: what `auto` saw."""

    name: str
    device: torch.device
    reason: str

    @property
    def needs_scaler(self) -> bool:
        """fp16 gradients underflow without loss scaling."""
        return self.name == "fp16"

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which forward passes run."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.name])


def choose_precision(name: str, *, device: torch.device) -> Precision:
    """`fp32`, `bf16` or `fp16` as asked; `auto` takes bf16 where the device computes it natively, else fp16 on a GPU,
    fp32 on a CPU.
    """
    if name != "auto":
        return Precision(name=name, device=device, reason="as configured")
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return Precision(name="bf16", device=device, reason="auto: this GPU multiplies bf16 natively")
        return Precision(
            name="fp16", device=device, reason="auto: this GPU has no native bf16; fp16 with a gradient scaler"
        )
    features = torch.cpu.get_capabilities()
    native = [feature for feature in ("amx_bf16", "avx512_bf16") if features.get(feature)]
    if native:
        return Precision(name="bf16", device=device, reason=f"auto: this CPU has {' and '.join(native)}")
    return Precision(name="fp32", device=device, reason="auto: this CPU has no native bf16")
