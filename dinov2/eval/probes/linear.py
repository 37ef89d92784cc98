"""Linear heads on features, a whole grid of them in one pass.

In: inputs [N, F] by name, labels, candidates. Out: a `Head` per candidate, in their order.

Candidates that share an input are one matrix product; each has its own loss, so its answer is that of training it
alone. Settings are those of the public linear evaluation of DINOv2 (Oquab et al. 2023, arXiv:2304.07193, section 7):
SGD, momentum 0.9, cosine to 0, batches of 128; the losses are means (see `classification_loss`).

Legend: K heads of one input, N pictures, B pictures of a batch, F features, O outputs, C classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinov2.eval.examples import Task
from dinov2.eval.probes.classification_loss import Balance, Outputs, Targets, targets_of
from dinov2.eval.probes.uncertainty import Policy

InputScaling = Literal["none", "standard"]
MOMENTUM = 0.9
FIRST_STD = 0.01  # of a head's first weights, as published; the first bias is 0
EPOCHS = 10
BATCH_SIZE = 128
ROWS_AT_ONCE = 4096  # when predicting


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One head to train; weight decay is of its matrix, not of its bias."""

    input: str
    learning_rate: float
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Head:
    """A trained head; `diverged` where its weights are not finite."""

    candidate: Candidate
    weight: Tensor  # [F, O], on the CPU
    bias: Tensor  # [O]
    outputs: Outputs

    @property
    def diverged(self) -> bool:
        return not (bool(self.weight.isfinite().all()) and bool(self.bias.isfinite().all()))

    def probabilities(self, inputs: Tensor) -> NDArray[np.float32]:
        """[N, F] -> [N, C]; NaN where the head diverged."""
        said = [
            self.outputs.probabilities(rows.cpu().float() @ self.weight + self.bias)
            for rows in torch.split(inputs, ROWS_AT_ONCE)
        ]
        return torch.cat(said).numpy()


def fit_heads(
    inputs: Mapping[str, Tensor],
    labels: NDArray[np.float32],
    *,
    task: Task,
    num_classes: int,
    candidates: Sequence[Candidate],
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    policy: Policy = "ignore",
    balance: Balance = "none",
    scaling: InputScaling = "none",
    seed: int = 0,
    device: torch.device | str = "cpu",
    advance: Callable[[int], None] | None = None,
) -> tuple[Head, ...]:
    """Trains one head per candidate; the order of batches and the first weights are functions of `seed` alone.

    Args:
        inputs: name -> [N, F] float, wherever they lie; a batch at a time goes to `device`.
        labels: multilabel [N, C] of 1, 0, UNCERTAIN, NaN; multiclass [N] index.
        scaling: `standard` trains on features of mean 0 and deviation 1, which makes learning rates mean the same for
            every backbone; the heads that come back take the features as they are. `none` is as published.
        advance: told after every step, with 1.

    Raises:
        ConfigError: labels that cannot be trained on.
    """
    targets = targets_of(labels, task=task, num_classes=num_classes, policy=policy, balance=balance, seed=seed).to(
        torch.device(device)
    )
    stacks = [
        _Stack(
            inputs[name],
            [one for one in candidates if one.input == name],
            targets=targets,
            scaling=scaling,
            seed=seed,
        )
        for name in dict.fromkeys(one.input for one in candidates)
    ]
    num_rows = len(labels)
    total = epochs * math.ceil(num_rows / batch_size)
    step = 0
    for epoch in range(epochs):
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(num_rows))
        for rows in torch.split(order, batch_size):
            share = cosine_share(step, total=total)
            for stack in stacks:
                stack.step(rows, share=share)
            step += 1
            if advance is not None:
                advance(1)
    trained = {candidate: head for stack in stacks for candidate, head in stack.heads()}
    return tuple(trained[candidate] for candidate in candidates)


def cosine_share(step: int, *, total: int) -> float:
    """Share of the learning rate at a step: 1 at step 0, 0 at `total`."""
    return 0.5 * (1 + math.cos(math.pi * step / total))


class _Stack:
    """Heads on one input: weight [K, F, O], each with its own learning rate."""

    def __init__(
        self, source: Tensor, candidates: Sequence[Candidate], *, targets: Targets, scaling: InputScaling, seed: int
    ) -> None:
        self._source, self._candidates, self._targets = source, list(candidates), targets
        device = targets.values.device
        generator = torch.Generator().manual_seed(seed)
        first = torch.randn(source.shape[1], targets.outputs.width, generator=generator) * FIRST_STD
        self._weight = first.to(device).repeat(len(candidates), 1, 1).requires_grad_()  # [K, F, O]
        self._bias = torch.zeros(len(candidates), 1, targets.outputs.width, device=device, requires_grad=True)
        self._rates = torch.tensor([one.learning_rate for one in candidates], device=device)[:, None, None]
        self._decays = torch.tensor([one.weight_decay for one in candidates], device=device)[:, None, None]
        mean, deviation = _moments(source) if scaling == "standard" else (torch.zeros(1), torch.ones(1))
        self._mean, self._deviation = mean.to(device), deviation.to(device)
        self._momenta = (torch.zeros_like(self._weight), torch.zeros_like(self._bias))

    @torch.enable_grad()  # whoever calls may well have switched it off to make the features
    def step(self, rows: Tensor, *, share: float) -> None:
        """One step of SGD with momentum, as torch.optim.SGD takes it."""
        device = self._weight.device
        pictures = (self._source[rows].to(device, torch.float32) - self._mean) / self._deviation  # [B, F]
        logits = torch.matmul(pictures, self._weight) + self._bias  # [K, B, O]
        losses = self._targets.loss(logits, rows.to(device))
        gradients = torch.autograd.grad(losses.sum(), (self._weight, self._bias))
        with torch.no_grad():
            pairs = zip((self._weight, self._bias), gradients, self._momenta, (True, False), strict=True)
            for parameter, gradient, momentum, decays in pairs:
                whole = gradient + self._decays * parameter if decays else gradient
                momentum.mul_(MOMENTUM).add_(whole)
                parameter.sub_(self._rates * share * momentum)

    def heads(self) -> list[tuple[Candidate, Head]]:
        """Candidates with what they became, for features as they are."""
        weight = self._weight.detach() / self._deviation[:, None]  # [K, F, O]
        bias = self._bias.detach()[:, 0] - (self._mean[:, None] * weight).sum(dim=1)
        weights, biases = weight.cpu(), bias.cpu()
        return [
            (one, Head(candidate=one, weight=weight.clone(), bias=bias.clone(), outputs=self._targets.outputs))
            for one, weight, bias in zip(self._candidates, weights, biases, strict=True)
        ]


def _moments(source: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation [F] of every feature; a constant one keeps its scale."""
    parts = torch.split(source, ROWS_AT_ONCE)
    mean = torch.stack([part.double().sum(dim=0) for part in parts]).sum(dim=0) / len(source)
    squares = torch.stack([(part.double() - mean).square().sum(dim=0) for part in parts]).sum(dim=0)
    deviation = (squares / len(source)).sqrt()
    return mean.float(), torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0).float()
