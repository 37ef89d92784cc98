"""Which number formats the parts of student and teacher compute in, and why.

In: `runtime.precision`, `compute_precision` and the device. Out: a `Precision`. Weights, optimiser, losses and the
teacher's average stay in float32.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from dinov2.config.schema import ComputePrecision, ModulePrecision
from dinov2.distributed import Layout

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDES = ("student", "teacher")
Layouts = Mapping[tuple[str, str], Layout]  # ("student", "backbone") -> how that part lies and computes


@dataclass(frozen=True, kw_only=True)
class Precision:
    """`layouts` has an entry for every part of the student and of the teacher; `reason` is for the log."""

    layouts: Layouts
    device: torch.device
    sharded: bool  # then the parts bring their inputs and weights into their format themselves
    reason: str

    @property
    def name(self) -> str:
        """The formats in use, the student's backbone's first."""
        return in_words(self.layouts)

    @property
    def needs_scaler(self) -> bool:
        """Gradients in fp16 underflow without loss scaling."""
        return any(
            layout.param_dtype == torch.float16 for (side, _), layout in self.layouts.items() if side == "student"
        )

    def formats(self, side: str, part: str) -> AbstractContextManager[None]:
        """The context in which a part's forward pass runs."""
        dtype = self.layouts[side, part].param_dtype
        if self.sharded or dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=dtype)


def in_words(layouts: Layouts) -> str:
    """The formats in which parts compute, the student's backbone's first."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    return " and ".join(dict.fromkeys(names[layout.param_dtype] for layout in layouts.values()))


def choose_precision(
    name: str, compute: ComputePrecision, *, parts: Iterable[str], device: torch.device, sharded: bool
) -> Precision:
    """`fp32`, `bf16` or `fp16` in every part; `auto` is each part's own format on a GPU, and on a CPU bf16 where it
    computes that natively, else fp32.

    Where one format is taken for all parts, it replaces the configured half format of the exchange of gradients too.
    """
    chosen, reason = _format_for_all(name, device=device)
    layouts = {
        (side, part): _layout(getattr(getattr(compute, side), part), chosen=chosen) for part in parts for side in SIDES
    }
    return Precision(layouts=layouts, device=device, sharded=sharded, reason=reason)


def _layout(given: ModulePrecision, *, chosen: str | None) -> Layout:
    formats = given.mixed_precision
    reduce = chosen if chosen and formats.reduce_dtype != "fp32" else formats.reduce_dtype
    return Layout(
        strategy=given.sharding_strategy,
        param_dtype=DTYPES[chosen or formats.param_dtype],
        reduce_dtype=DTYPES[reduce],
        buffer_dtype=DTYPES[formats.buffer_dtype],
    )


def _format_for_all(name: str, *, device: torch.device) -> tuple[str | None, str]:
    """The one format of all parts, None where each has its own; and why."""
    if name != "auto":
        return name, "as configured"
    if device.type == "cuda":
        return None, "auto: each part as compute_precision says"
    features = torch.cpu.get_capabilities()
    native = [feature for feature in ("amx_bf16", "avx512_bf16") if features.get(feature)]
    if native:
        return "bf16", f"auto: this CPU has {' and '.join(native)}"
    return "fp32", "auto: this CPU has no native bf16"
