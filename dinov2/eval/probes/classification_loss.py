"""What heads are trained on: targets once per split, losses and probabilities from logits.

In: labels of a split. Out: `Targets`, which give the loss of some rows; `Outputs`, which turn
logits into probabilities.

A loss is a mean over pictures, and every class of a multi-label task is learnt as if it were alone: so the learning
rate means the same at any batch size, number of classes and share of labels that nobody stated.

Legend: K heads, N pictures, B pictures of a batch, C classes, O outputs of a head.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dinov2.errors import ConfigError
from dinov2.eval.examples import Task
from dinov2.eval.probes.uncertainty import Policy, apply_policy

Balance = Literal["none", "balanced"]
STATES = 3  # absent, present, uncertain


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the outputs of a head stand for."""

    task: Task
    num_classes: int
    own_class: bool  # three outputs per class, absent, present and uncertain, instead of one

    @property
    def width(self) -> int:
        """O: logits of one head."""
        return self.num_classes * (STATES if self.own_class else 1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """[..., O] -> [..., C]; of three states, present against absent alone (U-MultiClass of Irvin 2019)."""
        if self.task == "multiclass":
            return logits.softmax(dim=-1)
        if self.own_class:
            states = logits.reshape(*logits.shape[:-1], self.num_classes, STATES)
            return (states[..., 1] - states[..., 0]).sigmoid()
        return logits.sigmoid()


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Targets of N pictures and how much each counts."""

    outputs: Outputs
    values: Tensor  # multilabel [N, C] float; multiclass [N] int64
    weights: Tensor  # multilabel [N, C], of which unknown entries are 0; multiclass [C]
    pos_weight: Tensor  # multilabel [C]: what a positive counts beside a negative

    def to(self, device: torch.device) -> "Targets":
        """The same on a device."""
        return replace(
            self,
            values=self.values.to(device),
            weights=self.weights.to(device),
            pos_weight=self.pos_weight.to(device),
        )

    def loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Loss of every head on its own: logits [K, B, O] of `rows` [B] -> [K]."""
        values = self.values[rows]
        if self.outputs.task == "multiclass":
            flat = functional.cross_entropy(logits.flatten(0, 1), values.repeat(len(logits)), reduction="none")
            return (flat.view(len(logits), -1) * self.weights[values]).mean(dim=1)
        if self.outputs.own_class:
            states = logits.reshape(*logits.shape[:-1], self.outputs.num_classes, STATES).movedim(3, 1)  # [K, 3, B, C]
            entries = functional.cross_entropy(states, values.long().expand(len(logits), -1, -1), reduction="none")
            entries = entries * torch.where(values == 1, self.pos_weight, 1.0)
        else:
            entries = functional.binary_cross_entropy_with_logits(
                logits, values.expand_as(logits), pos_weight=self.pos_weight, reduction="none"
            )
        return (entries * self.weights[rows]).sum(dim=2).mean(dim=1)


def targets_of(
    labels: NDArray[np.float32],
    *,
    task: Task,
    num_classes: int,
    policy: Policy = "ignore",
    balance: Balance = "none",
    seed: int = 0,
) -> Targets:
    """Targets of a split: multilabel [N, C] of 1, 0, UNCERTAIN, NaN; multiclass [N] indices.

    An entry of a class counts N / (its stated entries), so that a batch's sum over B is, on average, the class's mean
    over the entries that are stated. `balanced` makes positives of a class weigh as much as its negatives, or the
    classes of a multiclass task as much as each other.

    Raises:
        ConfigError: a segmentation, or a multiclass label that is not stated.
    """
    if task == "multiclass":
        return _multiclass(labels, num_classes=num_classes, balance=balance)
    if task != "multilabel":
        raise ConfigError("this probe classifies pictures, and the data has masks. Give --labels, or use: segment.")
    values = apply_policy(labels, policy, seed=seed)
    known = ~np.isnan(values)
    weights = known * (len(values) / np.maximum(known.sum(axis=0), 1))
    ones = np.where(known, values == 1 if policy == "own-class" else values, 0).sum(axis=0)
    zeros = (values == 0).sum(axis=0) if policy == "own-class" else known.sum(axis=0) - ones
    balanced = np.where((ones > 0) & (zeros > 0), zeros / np.maximum(ones, 1e-6), 1.0)
    return Targets(
        outputs=Outputs(task=task, num_classes=num_classes, own_class=policy == "own-class"),
        values=torch.from_numpy(np.nan_to_num(values, nan=0.0).astype(np.float32)),
        weights=torch.from_numpy(weights.astype(np.float32)),
        pos_weight=torch.from_numpy((balanced if balance == "balanced" else np.ones(num_classes)).astype(np.float32)),
    )


def _multiclass(labels: NDArray[np.float32], *, num_classes: int, balance: Balance) -> Targets:
    if not np.isfinite(labels).all() or (labels < 0).any():
        raise ConfigError(f"{int((~(labels >= 0)).sum())} pictures have no class. Leave them out of the manifest.")
    indices = labels.astype(np.int64)
    counts = np.bincount(indices, minlength=num_classes)
    balanced = len(indices) / (np.maximum(counts, 1) * max(int((counts > 0).sum()), 1))
    return Targets(
        outputs=Outputs(task="multiclass", num_classes=num_classes, own_class=False),
        values=torch.from_numpy(indices),
        weights=torch.from_numpy((balanced if balance == "balanced" else np.ones(num_classes)).astype(np.float32)),
        pos_weight=torch.ones(num_classes),
    )
