"""One optimisation step: micro-batches in, new weights and what happened out.

Order: forward and backward of every micro-batch (gradients come out averaged over all processes), a look at what is
not finite, clipping per sub-module, AdamW, teacher average. A step with a loss or gradient that is not finite anywhere
is skipped everywhere: weights, optimiser, teacher and centres are as before.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from dinov2.batch import Views
from dinov2.distributed import World, agree, gather_values, let_go, sum_over_ranks
from dinov2.optim import StepPlan, apply_plan, clip_gradients, update_teacher
from dinov2.ssl import Losses, Networks, Objective
from dinov2.ssl.precision import Precision

SMALLEST_SCALE = 1.0  # an overflow at this loss scale or below is no matter of the scale


@dataclass(frozen=True, kw_only=True)
class StepTools:
    """Everything a step works with that stays the same from step to step; `scaler` is inactive unless fp16 is used."""

    networks: Networks
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    objective: Objective
    precision: Precision
    world: World
    clip_grad: float


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is not finite."""

    rank: int
    micro_batch: int | None  # of the step, from 0; None for a gradient, which is that of all micro-batches and ranks
    name: str  # the loss term, or the parameter whose gradient it is
    value: float


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step did; tensors stay on the device until they are logged."""

    values: dict[str, Tensor]  # scalars of this rank, means over its micro-batches
    counted: dict[str, Tensor]  # share of crops behind each cross-entropy of `values`, likewise
    marginal: Tensor | None  # [K] mean assignment of the teacher, likewise
    grad_norms: dict[str, Tensor]  # per sub-module, before clipping, over all ranks; empty where a loss is not finite
    overflow: bool  # the loss scale was too large: the step was skipped, which is usual now and then
    findings: tuple[Finding, ...]  # of all ranks; not empty: the step was skipped

    @property
    def skipped(self) -> bool:
        """Whether everything was left as before."""
        return self.overflow or bool(self.findings)


def train_step(
    tools: StepTools,
    micro_batches: Iterable[Views],
    *,
    plan: StepPlan,
    num_micro_batches: int,
    at: Callable[[str], None] | None = None,
) -> StepResult:
    """One step over `num_micro_batches` micro-batches; `at` hears of every phase as it begins."""
    enter = at or _unheard
    apply_plan(tools.optimizer.param_groups, plan)
    tools.optimizer.zero_grad(set_to_none=True)
    centers = [center.clone() for center in tools.networks.centers()]
    collected: list[Losses] = []
    for views in micro_batches:
        enter("forward")
        losses = tools.objective(
            tools.networks, views, teacher_temperature=plan.teacher_temperature, formats=tools.precision.formats
        )
        enter("backward")
        torch.autograd.backward(tools.scaler.scale(losses.total / num_micro_batches))
        collected.append(_detached(losses))
    enter("update")
    findings = _in_losses(collected, world=tools.world)
    norms: dict[str, Tensor] = {}
    overflow = False
    if not findings:
        norms, overflow, findings = _update(tools, plan=plan)
    if findings or overflow:
        for center, before in zip(tools.networks.centers(), centers, strict=True):
            center.copy_(before)
    return _result(collected, norms=norms, overflow=overflow, findings=findings)


def _unheard(_phase: str) -> None:
    """Nobody asks where the step stands."""


def _update(tools: StepTools, *, plan: StepPlan) -> tuple[dict[str, Tensor], bool, tuple[Finding, ...]]:
    """AdamW and the teacher, if the gradients are finite. -> their norms, an overflow of the loss scale, findings"""
    student = tools.networks.student
    tools.scaler.unscale_(tools.optimizer)
    norms = clip_gradients(student, max_norm=tools.clip_grad)
    finite = bool(torch.stack(list(norms.values())).isfinite().all())  # the same on every rank
    scale = tools.scaler.get_scale()
    if finite or tools.scaler.is_enabled():
        tools.scaler.step(tools.optimizer)  # the scaler leaves the weights alone after an overflow
        tools.scaler.update()
    if not finite:
        is_overflow = tools.scaler.is_enabled() and scale > SMALLEST_SCALE
        return norms, is_overflow, () if is_overflow else _in_gradients(tools)
    if tools.precision.sharded:
        let_go(tools.networks.teacher)
    update_teacher(student, tools.networks.teacher, momentum=plan.teacher_momentum)
    return norms, False, ()


def scalars(losses: Losses) -> dict[str, Tensor]:
    """Every scalar of `losses` under the name it is logged by."""
    values = {"total_loss": losses.total} | losses.terms
    values |= {f"{name}_cross_entropy": value for name, value in losses.cross_entropies.items()}
    if losses.teacher_entropy is not None:
        values["teacher_entropy"] = losses.teacher_entropy
    return values


def logged_values(result: StepResult, *, world: World) -> dict[str, float]:
    """The numbers of a step as they are logged, over all ranks alike; called by every rank."""
    norms = {f"grad_norm_{name}": value for name, value in result.grad_norms.items()}
    means = mean_over_ranks(
        result.values | norms | {f"{name} counted": share for name, share in result.counted.items()}, world=world
    )
    for name in result.counted:
        share = means.pop(f"{name} counted")
        means[f"{name}_cross_entropy"] = means[f"{name}_cross_entropy"] / share if share else float("nan")
    if result.marginal is not None:
        marginal = sum_over_ranks(result.marginal, world=world) / world.size
        means["teacher_marginal_entropy"] = float(torch.special.entr(marginal).sum())
    return means


def mean_over_ranks(values: Mapping[str, Tensor], *, world: World) -> dict[str, float]:
    """Scalars as Python numbers, averaged over ranks in one exchange."""
    stacked = torch.stack([value.float() for value in values.values()])
    return dict(zip(values, (sum_over_ranks(stacked, world=world) / world.size).tolist(), strict=True))


def _detached(losses: Losses) -> Losses:
    return Losses(
        total=losses.total.detach(),
        terms={name: value.detach() for name, value in losses.terms.items()},
        cross_entropies={name: value.detach() for name, value in losses.cross_entropies.items()},
        counted=losses.counted,
        teacher_entropy=losses.teacher_entropy,
        teacher_marginal=losses.teacher_marginal,
    )


def _result(
    collected: list[Losses], *, norms: dict[str, Tensor], overflow: bool, findings: tuple[Finding, ...]
) -> StepResult:
    marginals = [losses.teacher_marginal for losses in collected if losses.teacher_marginal is not None]
    return StepResult(
        values=_mean([scalars(losses) for losses in collected]),
        counted=_mean([losses.counted for losses in collected]),
        marginal=torch.stack(marginals).mean(dim=0) if marginals else None,
        grad_norms=norms,
        overflow=overflow,
        findings=findings,
    )


def _mean(collected: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([values[name] for values in collected]).mean() for name in collected[0]}


def _in_losses(collected: list[Losses], *, world: World) -> tuple[Finding, ...]:
    """What is not finite among the losses of all ranks; told to all only where there is something to tell."""
    values = [scalars(losses) for losses in collected]
    finite = bool(torch.stack([v.float() for one in values for v in one.values()]).isfinite().all())
    if not agree(not finite, world=world):
        return ()
    mine = [
        Finding(rank=world.rank, micro_batch=i, name=name, value=float(value))
        for i, one in enumerate(values)
        for name, value in one.items()
        if not value.isfinite()
    ]
    return tuple(finding for rank in gather_values(mine, world=world) for finding in rank)


def _in_gradients(tools: StepTools) -> tuple[Finding, ...]:
    """The parameters whose gradient is not finite, each from the first rank that holds a part of it."""
    mine = [
        Finding(rank=tools.world.rank, micro_batch=None, name=name, value=worst)
        for name, worst in _worst_gradients(tools.networks)
    ]
    found: dict[str, Finding] = {}
    for rank in gather_values(mine, world=tools.world):
        for finding in rank:
            found.setdefault(finding.name, finding)
    return tuple(found.values())


def _worst_gradients(networks: Networks) -> Iterator[tuple[str, float]]:
    for name, parameter in networks.student.named_parameters():
        gradient = parameter.grad
        local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
        if local is not None and not (finite := local.isfinite()).all():
            yield name, float(local[~finite][0])
