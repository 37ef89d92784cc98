"""Where the time of one step goes, by the kind of work.

In: a function that does a step. Out: seconds per kind: on a CPU each operation's own time, on a GPU the time of the
kernels that each operation starts, and what is left of the step's seconds, in which the device waits for the host.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from dinov2.bench.ceilings import settle
from dinov2.bench.plain_step import LOSSES

MATRIX, ATTENTION, NORMS, GELU = "matrix products", "attention", "norms", "GELU"
LOSS, COPIES, OPTIMISER = "softmax and losses", "copies and casts", "optimiser, clipping, teacher"
ELSE, WAITING = "elementwise and the rest", "device waits for the host"
KINDS = (MATRIX, ATTENTION, NORMS, GELU, LOSS, COPIES, OPTIMISER, ELSE, WAITING)
NUM_RECORDED = 4

# What an operation works for, told by an operation around it. _Explicit and _WithGradients are functions of
# dinov2.layers.kernels and dinov2.loss.prototypes.
SCOPES = (
    (ATTENTION, re.compile(r"_Explicit|scaled_dot_product|memory_efficient_attention|_?varlen|flash_attn")),
    (OPTIMISER, re.compile(r"^Optimizer\.|aten::_foreach|_fused_adam")),
    (LOSS, re.compile(rf"^{LOSSES}$|softmax|_WithGradients", re.IGNORECASE)),
)
# What an operation is, told by its own name or that of its kernel; the first that fits. Products of many small
# matrices are made by attention alone.
OWN = (
    (ATTENTION, re.compile(r"flash|fmha|attention|sdpa|dot_product|_Explicit|fused__softmax|::(baddbmm|bmm)\b", re.I)),
    (OPTIMISER, re.compile(r"_foreach|adam|multi_tensor_apply|lpnorm", re.IGNORECASE)),
    (MATRIX, re.compile(r"::(addmm|mm|mv|dot)\b|conv|gemm|cutlass|nvjet|xmma|cublas|linear", re.I)),
    (NORMS, re.compile(r"layer_?norm|rms_?norm", re.IGNORECASE)),
    (GELU, re.compile(r"gelu", re.IGNORECASE)),
    (LOSS, re.compile(r"softmax|logsumexp|log_sum_exp", re.IGNORECASE)),
    (
        COPIES,
        re.compile(r"mem(cpy|set)|copy|catarray|::(cat|fill_|zero_|clone|index\w*|gather|roll)\b|^triton.*_to_", re.I),
    ),
)


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """Seconds of one step, and how they divide; the parts add up to the whole."""

    label: str
    seconds: float
    kinds: dict[str, float]


def profile_step(
    do: Callable[[], Any], *, label: str, seconds: float, prototypes: int, device: torch.device
) -> StepProfile:
    """One step under torch's profiler. `seconds`: what a step takes without it, which the shares are of.

    The fastest of a few: the first records lie between the tensors in memory, so that large tensors find no place among
    what was freed and are faulted in page by page, which a step without records does not do.
    """
    on_gpu = device.type == "cuda"
    recorded = (_recorded(do, device=device) for _ in range(NUM_RECORDED))
    clock, events = min(recorded, key=lambda one: one[0])
    spent = dict.fromkeys(KINDS, 0.0)
    for kind, took in (_on_gpu if on_gpu else _on_cpu)(events, prototypes=prototypes):
        spent[kind] += took
    if on_gpu:  # kernels take as long with the profiler as without it; the host does not
        spent[WAITING] = max(seconds - sum(spent.values()), 0.0)
    else:
        spent[ELSE] += max(clock - sum(spent.values()), 0.0)
    scale = seconds / sum(spent.values())
    return StepProfile(label=label, seconds=seconds, kinds={kind: took * scale for kind, took in spent.items()})


def _recorded(do: Callable[[], Any], *, device: torch.device) -> tuple[float, Any]:
    """Seconds of a step with records, and the records."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    settle(device)
    with profile(activities=activities, record_shapes=True) as profiler:
        started = time.perf_counter()
        do()
        settle(device)
        clock = time.perf_counter() - started
    return clock, profiler.events() or []


def name_compiled_kernels() -> None:
    """Lets the kernels that torch compiles for a CPU appear in profiles; called before anything is compiled."""
    import torch._inductor.config as settings  # not at the top: it is needed only here, and takes a second

    settings.cpp.enable_kernel_profile = True


def kind_of(name: str, *, around: tuple[str, ...] = (), shapes: tuple[Any, ...] = (), prototypes: int = 0) -> str:
    """The kind of an operation by its name, by those around it (nearest first), and by what it works on."""
    own = next((kind for kind, pattern in OWN if pattern.search(name)), None)
    scope = next((kind for one in around for kind, pattern in SCOPES if pattern.search(one)), None)
    if ATTENTION in (own, scope):
        return ATTENTION
    if own == MATRIX:
        return MATRIX
    if scope is not None:
        return scope
    if own in (None, COPIES) and any(len(shape) > 1 and shape[-1] == prototypes for shape in shapes if shape):
        return LOSS  # a number for every token and prototype
    return own or ELSE


def _on_cpu(events: Any, *, prototypes: int) -> Iterator[tuple[str, float]]:
    """(kind, seconds) of every operation's own time."""
    for event in events:
        yield _kind_of(event, event.name, prototypes=prototypes), event.self_cpu_time_total / 1e6


def _on_gpu(events: Any, *, prototypes: int) -> Iterator[tuple[str, float]]:
    """(kind, seconds) of every kernel: the kind of the operation that started it, or else that of its own name."""
    attributed = 0.0
    for event in events:
        for kernel in event.kernels:
            kind = _kind_of(event, event.name, prototypes=prototypes)
            if kind == ELSE:
                kind = _kind_of(event, kernel.name, prototypes=prototypes)
            attributed += kernel.duration / 1e6
            yield kind, kernel.duration / 1e6
    total = sum(
        event.self_device_time_total / 1e6
        for event in events
        if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
    )
    yield ELSE, max(total - attributed, 0.0)


def _kind_of(event: FunctionEvent, name: str, *, prototypes: int) -> str:
    given: Any = event.input_shapes or ()  # a list a tensor, whatever the annotation says; other things are empty
    shapes = tuple(tuple(shape) for shape in given if isinstance(shape, (list, tuple)))
    return kind_of(name, around=tuple(_around(event)), shapes=shapes, prototypes=prototypes)


def _around(event: FunctionEvent) -> Iterator[str]:
    parent = event.cpu_parent
    while parent is not None:
        yield parent.name
        parent = parent.cpu_parent
