"""In which number format each part computes, and how it lies over the processes.

In: a configuration, and where it will run. Out: a `PartFormat` for every part of student and teacher, as the training
chooses them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dinov2.config.schema import Config

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDES = ("student", "teacher")
STRATEGIES = ("FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD", "NO_SHARD")
REGATHERS = ("FULL_SHARD", "HYBRID_SHARD")  # weights are let go of after the forward pass and gathered again


@dataclass(frozen=True, kw_only=True)
class PartFormat:
    """Of one part of student or teacher."""

    strategy: str
    param_dtype: torch.dtype  # in which it computes
    reduce_dtype: torch.dtype  # in which its gradients are exchanged


Formats = Mapping[tuple[str, str], PartFormat]  # ("student", "backbone") -> its format


def part_formats(config: Config, *, parts: Iterable[str], on_gpu: bool) -> Formats:
    """As `runtime.precision` and `compute_precision` say; `auto` on a CPU is what this machine's CPU computes well."""
    chosen: str | None = config.runtime.precision
    if chosen == "auto":
        native = torch.cpu.get_capabilities()
        on_cpu = "bf16" if native.get("amx_bf16") or native.get("avx512_bf16") else "fp32"
        chosen = None if on_gpu else on_cpu
    formats: dict[tuple[str, str], PartFormat] = {}
    for side in SIDES:
        for part in parts:
            given = getattr(getattr(config.compute_precision, side), part)
            mixed = given.mixed_precision
            reduce = chosen if chosen and mixed.reduce_dtype != "fp32" else mixed.reduce_dtype
            formats[side, part] = PartFormat(
                strategy=given.sharding_strategy,
                param_dtype=DTYPES[chosen or mixed.param_dtype],
                reduce_dtype=DTYPES[reduce],
            )
    return formats


def shown(formats: Formats) -> str:
    """The formats in use, the student's backbone's first."""
    names: dict[Any, str] = {dtype: name for name, dtype in DTYPES.items()}
    return " and ".join(dict.fromkeys(names[one.param_dtype] for one in formats.values()))
