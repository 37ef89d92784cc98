"""The grid of linear heads on features, by the protocol.

In: `Labelled` splits and a grid. Out: heads and predictions; a candidate is
{"blocks": n, "pooled": bool, "learning_rate": x, "weight_decay": y}.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch

from dinov2.eval.features import Labelled
from dinov2.eval.outcome import Predictions
from dinov2.eval.probes.classification_loss import Balance
from dinov2.eval.probes.linear import BATCH_SIZE, EPOCHS, Candidate, Head, InputScaling, fit_heads
from dinov2.eval.probes.linear_inputs import InputChoice, inputs_of
from dinov2.eval.probes.predictions import predictions_of
from dinov2.eval.probes.uncertainty import Policy
from dinov2.eval.protocol import Settings

BLOCKS = (1, 4)
POOLED = (True, False)
LEARNING_RATES = (1e-3, 5e-3, 1e-2, 5e-2, 1e-1, 5e-1)
"""The published 1e-3 5e-3 1e-2 5e-2 is for a loss summed over 128 pictures and divided by the classes: with 15 classes
a class's gradient is 8.5 times that of its mean. Ours is the mean, so the grid goes ten times higher."""
WEIGHT_DECAYS = (0.0,)


@dataclass(frozen=True, kw_only=True)
class LinearSettings:
    """What is the same for every head of the grid."""

    epochs: int = EPOCHS
    batch_size: int = BATCH_SIZE
    policy: Policy = "ignore"
    balance: Balance = "none"
    scaling: InputScaling = "none"
    seed: int = 0


def grid(
    *,
    blocks: Sequence[int] = BLOCKS,
    pooled: Sequence[bool] = POOLED,
    learning_rates: Sequence[float] = LEARNING_RATES,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
) -> list[Settings]:
    """Every combination, once."""
    names = ("blocks", "pooled", "learning_rate", "weight_decay")
    combinations = dict.fromkeys(product(blocks, pooled, learning_rates, weight_decays))
    return [dict(zip(names, values, strict=True)) for values in combinations]


@dataclass(frozen=True, kw_only=True)
class FittedHead:
    """A head, and what it sees of the features."""

    choice: InputChoice
    head: Head


class LinearProbe:
    """Fits all candidates in one pass over the features."""

    def __init__(
        self,
        *,
        settings: LinearSettings,
        groups: Sequence[str] = (),
        device: torch.device | str = "cpu",
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self._settings, self._groups, self._device, self._advance = settings, tuple(groups), device, advance

    def fit(self, candidates: Sequence[Settings], split: Labelled) -> Sequence[FittedHead]:
        """One head per candidate, each from the same first weights."""
        settings = self._settings
        choices = [_choice(one) for one in candidates]
        heads = fit_heads(
            inputs_of(split.features, choices),
            split.examples.labels,
            task=split.examples.task,
            num_classes=len(split.examples.classes),
            candidates=[
                Candidate(
                    input=choice.name,
                    learning_rate=float(one["learning_rate"]),
                    weight_decay=float(one.get("weight_decay", 0.0)),
                )
                for one, choice in zip(candidates, choices, strict=True)
            ],
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            policy=settings.policy,
            balance=settings.balance,
            scaling=settings.scaling,
            seed=settings.seed,
            device=self._device,
            advance=self._advance,
        )
        return [FittedHead(choice=choice, head=head) for choice, head in zip(choices, heads, strict=True)]

    def predict(self, fitted: FittedHead, split: Labelled) -> Predictions:
        """Probabilities of a split; not numbers where the head diverged."""
        inputs = inputs_of(split.features, [fitted.choice])[fitted.choice.name]
        said = fitted.head.probabilities(inputs)
        return predictions_of(split.examples, said, groups=self._groups)


def _choice(settings: Settings) -> InputChoice:
    return InputChoice(blocks=int(settings["blocks"]), pooled=bool(settings["pooled"]))
