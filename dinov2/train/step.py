"""One optimisation step: micro-batches in, new weights and what happened out.

Order: forward and backward of every micro-batch (gradients come out averaged over all processes), clipping per
sub-module, AdamW, teacher average. All of it is queued on the device without waiting for a result; then one look tells
what became of it. A step with a loss or gradient that is not finite anywhere is skipped everywhere, on the device:
weights, optimiser, teacher and centres are as before.

While the backbone is frozen the student's is gone through without gradients: there is no backward pass through it, and
AdamW, which leaves out what has no gradient, neither moves it nor remembers anything of it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from dinov2.batch import Views
from dinov2.distributed import World, gather_values, let_go, max_over_ranks, sum_over_ranks
from dinov2.optim import StepPlan, apply_plan, clip_gradients, update_teacher
from dinov2.optim.param_groups import BACKBONE
from dinov2.ssl import Losses, Networks, Objective
from dinov2.ssl.objective import Formats
from dinov2.ssl.precision import Precision
from dinov2.train.form import Form

SMALLEST_SCALE = 1.0  # an overflow at this loss scale or below is no matter of the scale


@dataclass(frozen=True, kw_only=True)
class StepTools:
    """Everything a step works with that stays the same from step to step; `scaler` is inactive unless fp16 is used."""

    networks: Networks
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    objective: Objective
    precision: Precision
    form: Form
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
    grad_norms: dict[str, Tensor]  # per sub-module, before clipping, over all ranks
    overflow: bool  # the loss scale was too large: the step was skipped, which is usual now and then
    findings: tuple[Finding, ...]  # of all ranks; not empty: the step was skipped

    @property
    def skipped(self) -> bool:
        """Whether everything was left as before."""
        return self.overflow or bool(self.findings)


@dataclass(frozen=True, kw_only=True)
class _Queued:
    """A step on its way through the device."""

    collected: list[Losses]
    norms: dict[str, Tensor]
    verdict: Tensor  # [3]: 1 where a loss is not finite, 1 where a gradient is not, the loss scale that was used


def train_step(
    tools: StepTools,
    micro_batches: Iterable[Views],
    *,
    plan: StepPlan,
    num_micro_batches: int,
    at: Callable[[str], None] | None = None,
) -> StepResult:
    """One step over `num_micro_batches` micro-batches; `at` hears of every phase as it begins."""
    return _judged(
        tools, _queue(tools, micro_batches, plan=plan, num_micro_batches=num_micro_batches, enter=at or _unheard)
    )


def _queue(
    tools: StepTools,
    micro_batches: Iterable[Views],
    *,
    plan: StepPlan,
    num_micro_batches: int,
    enter: Callable[[str], None],
) -> _Queued:
    apply_plan(tools.optimizer.param_groups, plan)
    tools.optimizer.zero_grad(set_to_none=True)
    centers = [center.clone() for center in tools.networks.centers()]
    collected: list[Losses] = []
    formats = _with_frozen_backbone(tools.precision.formats) if plan.is_backbone_frozen else tools.precision.formats
    for views in micro_batches:
        enter("forward")
        losses = tools.objective(tools.networks, views, teacher_temperature=plan.teacher_temperature, formats=formats)
        enter("backward")
        torch.autograd.backward(tools.scaler.scale(losses.total / num_micro_batches))
        collected.append(_detached(losses))
    enter("update")
    norms, verdict = _update(tools, collected, plan=plan)
    failed = verdict[:2].any()
    for center, before in zip(tools.networks.centers(), centers, strict=True):
        center.copy_(torch.where(failed, before, center))
    return _Queued(collected=collected, norms=norms, verdict=verdict)


def _with_frozen_backbone(formats: Formats) -> Formats:
    """The same number formats, and no gradients in the student's backbone."""

    @contextmanager
    def inside(side: str, part: str) -> Iterator[None]:
        is_frozen = (side, part) == ("student", BACKBONE)
        with formats(side, part), torch.set_grad_enabled(torch.is_grad_enabled() and not is_frozen):
            yield

    return inside


def _unheard(_phase: str) -> None:
    """Nobody asks where the step stands."""


def _update(tools: StepTools, collected: list[Losses], *, plan: StepPlan) -> tuple[dict[str, Tensor], Tensor]:
    """AdamW and the teacher, unless something is not finite. -> norms of the gradients, the verdict of `_Queued`"""
    student, device = tools.networks.student, tools.world.device
    values = torch.stack([value.float() for losses in collected for value in scalars(losses).values()])
    bad_loss = max_over_ranks((~values.isfinite()).any().float(), world=tools.world)
    scale = tools.scaler.scale(torch.ones((), device=device))
    tools.scaler.unscale_(tools.optimizer)
    norms = clip_gradients(student, max_norm=tools.clip_grad)  # the same on every rank
    bad_gradient = (~torch.stack(list(norms.values())).isfinite()).any().float()
    failed = torch.maximum(bad_loss, bad_gradient)
    # Fused AdamW leaves weights and moments alone where this is 1; so torch's GradScaler tells it of an overflow too.
    tools.optimizer.found_inf = failed  # type: ignore[attr-defined]
    tools.optimizer.step()
    tools.scaler.update()
    if tools.precision.sharded:
        let_go(tools.networks.teacher)
        if plan.is_backbone_frozen:  # no backward pass has done it
            let_go(student[BACKBONE])
    update_teacher(student, tools.networks.teacher, share=(1.0 - plan.teacher_momentum) * (1.0 - failed))
    return norms, torch.stack([bad_loss, bad_gradient, scale])


def _judged(tools: StepTools, queued: _Queued) -> StepResult:
    """What became of a step: the one time in it that anything waits for the device."""
    bad_loss, bad_gradient, scale = queued.verdict.tolist()
    findings: tuple[Finding, ...] = ()
    overflow = False
    if bad_loss:
        findings = _in_losses(queued.collected, world=tools.world)
    elif bad_gradient:
        overflow = tools.scaler.is_enabled() and scale > SMALLEST_SCALE
        findings = () if overflow else _in_gradients(tools)
    return _result(queued.collected, norms=queued.norms, overflow=overflow, findings=findings)


def scalars(losses: Losses) -> dict[str, Tensor]:
    """Every scalar of `losses` under the name it is logged by."""
    values = {"total_loss": losses.total} | losses.terms
    values |= {f"{name}_cross_entropy": value for name, value in losses.cross_entropies.items()}
    if losses.teacher_entropy is not None:
        values["teacher_entropy"] = losses.teacher_entropy
    return values


def logged_values(result: StepResult, *, world: World) -> dict[str, float]:
    """The numbers of a step as they are logged, over all ranks alike, in one exchange; called by every rank."""
    norms = {f"grad_norm_{name}": value for name, value in result.grad_norms.items()}
    alone = result.values | norms | {f"{name} counted": share for name, share in result.counted.items()}
    stacked = torch.stack([value.float() for value in alone.values()])
    marginal = stacked.new_empty(0) if result.marginal is None else result.marginal.float()
    both = sum_over_ranks(torch.cat([stacked, marginal]), world=world) / world.size
    entropy = torch.special.entr(both[len(stacked) :]).sum().unsqueeze(0)
    *numbers, marginal_entropy = torch.cat([both[: len(stacked)], entropy]).tolist()
    means: dict[str, float] = dict(zip(alone, numbers, strict=True))
    for name in result.counted:
        share = means.pop(f"{name} counted")
        means[f"{name}_cross_entropy"] = means[f"{name}_cross_entropy"] / share if share else float("nan")
    return means if result.marginal is None else means | {"teacher_marginal_entropy": marginal_entropy}


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
    """What is not finite among the losses of all ranks."""
    mine = [
        Finding(rank=world.rank, micro_batch=i, name=name, value=float(value))
        for i, losses in enumerate(collected)
        for name, value in scalars(losses).items()
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
