"""What `dinov2 bench kernels` runs: every way there is here to do a piece of the step, on tensors of a case's shapes.

In: a `Case`, a number format, a device. Out: `Trial`s. The work of a trial is counted once, however often a kernel does
it: products for what arithmetic bounds, bytes that must be read and written for what memory bounds.

Legend: T tokens of all crops, D width, H heads, d width of a head, M masked patches, b bottleneck, K prototypes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, normalize

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.bench.case import Case, Form, config_of, random_masks
from dinov2.bench.plain_step import STUDENT_TEMPERATURE, plain_patch_loss, plain_sinkhorn
from dinov2.config.schema import Config
from dinov2.errors import ConfigError
from dinov2.layers.kernels import ATTENTION_NAMES, AttentionKernel, choose_attention
from dinov2.layers.packing import Groups
from dinov2.loss import ONE_PROCESS, prototype_cross_entropy, sinkhorn_assignment
from dinov2.models.vision_transformer import SIZES
from dinov2.optim import update_teacher
from dinov2.ssl import Networks
from dinov2.train.build import random_networks

FORWARD, BOTH = "forward", "forward + backward"
TEACHER_TEMPERATURE, ITERATIONS = 0.05, 3
ADAMW = ("fused", "foreach", "for-loop")
SUBJECTS = ("attention", "prototypes", "sinkhorn", "adamw", "teacher", "norms")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One kernel at one piece of work; `work` is None where it cannot run here, and `reason` says why."""

    subject: str
    shape: str
    kernel: str
    passes: str
    work: Callable[[], Any] | None
    flops: float = 0.0  # for what products bound
    bytes: float = 0.0  # for what memory bounds
    given: tuple[Tensor, ...] = ()  # what it works on, which is not counted as memory that it takes
    reason: str = ""


def trials(subject: str, case: Case, *, dtype: torch.dtype, device: torch.device, compiled: bool) -> Iterator[Trial]:
    """The trials of one subject, made one after the other."""
    config = config_of(case, Form(precision="fp32", compile="never"), device=device)
    if subject == "attention":
        yield from _attention(case, dtype=dtype, device=device)
    elif subject == "prototypes":
        yield from _prototypes(config, dtype=dtype, device=device, compiled=compiled)
    elif subject == "sinkhorn":
        yield from _sinkhorn(config, dtype=dtype, device=device, compiled=compiled)
    elif subject == "adamw":
        yield from _adamw(random_networks(config).to(device))
    elif subject == "teacher":
        yield from _teacher(random_networks(config).to(device))
    else:
        yield from _norms(case, dtype=dtype, device=device)


def _attention(case: Case, *, dtype: torch.dtype, device: torch.device) -> Iterator[Trial]:
    """All kernels by name, on crops of each size alone and on both together, as in the step."""
    heads, width = SIZES[case.arch]["num_heads"], SIZES[case.arch]["embed_dim"]
    global_, local = _groups(case)
    shapes: list[Groups] = [(global_,), (global_, local)] if local[0] else [(global_,)]
    for groups in shapes:
        tokens = sum(pictures * length for pictures, length in groups)
        qkv = torch.randn(tokens, 3, heads, width // heads, device=device).to(dtype).requires_grad_()
        gradient = torch.randn(tokens, heads, width // heads, device=device).to(dtype)
        flops = sum(4.0 * pictures * length**2 * width for pictures, length in groups)
        shape = " + ".join(f"{pictures} x {length} tokens" for pictures, length in groups) + f", {heads} heads"
        for name in ATTENTION_NAMES:
            trial = partial(Trial, subject="attention", shape=shape, kernel=name, given=(qkv, gradient))
            try:
                kernel = choose_attention(name, device)
            except ConfigError as error:
                yield trial(passes=BOTH, work=None, reason=str(error))
                continue
            yield trial(passes=FORWARD, work=partial(_attend, kernel, qkv.detach(), groups), flops=flops)
            yield trial(passes=BOTH, work=partial(_attend, kernel, qkv, groups, gradient=gradient), flops=3 * flops)


def _attend(kernel: AttentionKernel, qkv: Tensor, groups: Groups, *, gradient: Tensor | None = None) -> None:
    attended = kernel(qkv, groups)
    if gradient is not None:
        torch.autograd.grad(attended, qkv, gradient)


def _prototypes(config: Config, *, dtype: torch.dtype, device: torch.device, compiled: bool) -> Iterator[Trial]:
    """The patch term of the loss from the bottleneck on, with its gradients."""
    masks = random_masks(config).to(device)
    logits, prototypes, shape = _teacher_logits(config, rows=int(masks.sum()), dtype=dtype, device=device)
    rows, width = len(logits), prototypes.shape[1]
    features = _units(rows, width, dtype=dtype, device=device).requires_grad_()
    prototypes = prototypes.requires_grad_()
    weights = (1 / masks.sum(-1).clamp(min=1.0)).unsqueeze(-1).expand_as(masks)[masks]
    flops = 3 * 2.0 * rows * width * len(prototypes)
    assignment = sinkhorn_assignment(logits, temperature=TEACHER_TEMPERATURE, reductions=ONE_PROCESS)
    targets = plain_sinkhorn(logits, temperature=TEACHER_TEMPERATURE)
    given = (features, prototypes, weights, logits, assignment.center, targets)
    trial = partial(Trial, subject="prototypes", shape=shape, passes=BOTH, flops=flops, given=given)

    def chunked(compile_chunks: bool) -> None:
        loss = prototype_cross_entropy(
            features,
            prototypes,
            assignment,
            weights=weights / len(masks),
            temperature=STUDENT_TEMPERATURE,
            compiled=compile_chunks,
        )
        torch.autograd.grad(loss, (features, prototypes))

    yield trial(kernel="ours, in chunks", work=partial(chunked, False))
    if compiled:
        yield trial(kernel="ours, in chunks, compiled", work=partial(chunked, True))

    def plain() -> None:
        loss = plain_patch_loss(features @ prototypes.t(), targets, weight=weights, num_crops=len(masks))
        torch.autograd.grad(loss, (features, prototypes))

    yield trial(kernel="plain, all logits", work=plain)


def _sinkhorn(config: Config, *, dtype: torch.dtype, device: torch.device, compiled: bool) -> Iterator[Trial]:
    """The teacher's assignment of the masked patches; each iteration must read the logits once."""
    rows = int(random_masks(config).sum())
    logits, _, shape = _teacher_logits(config, rows=rows, dtype=dtype, device=device)
    read = float(ITERATIONS * logits.nbytes)
    trial = partial(Trial, subject="sinkhorn", shape=shape, passes=FORWARD, bytes=read, given=(logits,))
    ours = partial(
        sinkhorn_assignment,
        logits,
        temperature=TEACHER_TEMPERATURE,
        reductions=ONE_PROCESS,
        iterations=ITERATIONS,
    )
    yield trial(kernel="ours, two vectors", work=ours)
    if compiled:
        yield trial(kernel="ours, two vectors, compiled", work=partial(ours, compiled=True))
    yield trial(kernel="plain, written out", work=partial(plain_sinkhorn, logits, temperature=TEACHER_TEMPERATURE))


def _adamw(networks: Networks) -> Iterator[Trial]:
    """Weight, gradient and two means are read; weight and means are written; float32."""
    parameters = [parameter for parameter in networks.student.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    count = sum(parameter.numel() for parameter in parameters)
    for how in ADAMW:
        optimizer = torch.optim.AdamW(parameters, lr=1e-6, foreach=how == "foreach", fused=how == "fused")
        optimizer.step()  # which makes its state
        given = [*parameters, *(parameter.grad for parameter in parameters if parameter.grad is not None)]
        given += [tensor for state in optimizer.state.values() for tensor in state.values()]
        shape = f"{count / 1e6:.1f} million weights in {len(parameters)} tensors"
        trial = partial(Trial, subject="adamw", shape=shape, kernel=how, passes="step", bytes=28.0 * count)
        yield trial(work=optimizer.step, given=tuple(given))


def _teacher(networks: Networks) -> Iterator[Trial]:
    """Student and teacher are read, the teacher is written; float32."""
    students, teachers = list(networks.student.parameters()), list(networks.teacher.parameters())
    count = sum(parameter.numel() for parameter in teachers)
    shape = f"{count / 1e6:.1f} million weights in {len(teachers)} tensors"
    trial = partial(
        Trial, subject="teacher", shape=shape, passes="step", bytes=12.0 * count, given=(*students, *teachers)
    )
    yield trial(kernel="ours", work=partial(update_teacher, networks.student, networks.teacher, share=0.001))
    yield trial(kernel="for-loop", work=partial(_follow_one_by_one, students, teachers))


@torch.no_grad()
def _follow_one_by_one(students: list[nn.Parameter], teachers: list[nn.Parameter]) -> None:
    for student, teacher in zip(students, teachers, strict=True):
        teacher.mul_(0.999).add_(student, alpha=0.001)


def _norms(case: Case, *, dtype: torch.dtype, device: torch.device) -> Iterator[Trial]:
    """What stands between the products: forward reads and writes once, backward reads twice and writes once."""
    width = SIZES[case.arch]["embed_dim"]
    tokens = sum(pictures * length for pictures, length in _groups(case))
    scale, shift = (torch.randn(width, device=device).to(dtype).requires_grad_() for _ in range(2))
    for name, columns in (("layer norm", width), ("GELU", 4 * width)):
        x = torch.randn(tokens, columns, device=device).to(dtype).requires_grad_()
        gradient = torch.randn_like(x)

        def work(x: Tensor, *, gradient: Tensor | None, name: str) -> None:
            y = gelu(x) if name == "GELU" else layer_norm(x, x.shape[-1:], scale, shift)
            if gradient is not None:
                torch.autograd.grad(y, x, gradient)

        trial = partial(
            Trial, subject="norms", shape=f"{tokens} x {columns}", kernel=name, given=(x, gradient, scale, shift)
        )
        yield trial(passes=FORWARD, work=partial(work, x.detach(), gradient=None, name=name), bytes=2.0 * x.nbytes)
        yield trial(passes=BOTH, work=partial(work, x, gradient=gradient, name=name), bytes=5.0 * x.nbytes)


def _groups(case: Case) -> tuple[tuple[int, int], tuple[int, int]]:
    """(crops, tokens) of the global and of the local crops of a batch."""
    sides = ((NUM_GLOBAL_CROPS, case.global_size), (case.local_crops, case.local_size))
    first, second = ((count * case.batch_size, 1 + (side // case.patch_size) ** 2) for count, side in sides)
    return first, second


def _teacher_logits(
    config: Config, *, rows: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, str]:
    """Logits [M, K] of random features, the prototypes [K, b], and the shape in words."""
    head = config.dino
    prototypes = _units(head.head_n_prototypes, head.head_bottleneck_dim, dtype=dtype, device=device)
    logits = _units(rows, head.head_bottleneck_dim, dtype=dtype, device=device) @ prototypes.t()
    return logits, prototypes, f"{rows} rows x {head.head_n_prototypes:,} prototypes"


def _units(rows: int, width: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    return normalize(torch.randn(rows, width, device=device), dim=-1).to(dtype)
