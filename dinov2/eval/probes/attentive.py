"""A head that attends to patch tokens: learnt queries, one cross-attention, one linear layer.

In: patch tokens of the last block [N, P, D] and labels. Out: a head per learning rate; probabilities [N, C].

The attentive probe of the self-supervised literature (Chen et al. 2022, arXiv:2202.03026, section 4; Bardes et al.
2024, arXiv:2404.08471, section 5), trained with AdamW and a cosine to 0.

Legend: B pictures of a batch, P patches, D width, Q queries, C classes, O outputs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dinov2.errors import ConfigError
from dinov2.eval.features import Features, Labelled, PatchRows
from dinov2.eval.outcome import Predictions
from dinov2.eval.probes.classification_loss import Balance, Outputs, targets_of
from dinov2.eval.probes.linear import cosine_share
from dinov2.eval.probes.predictions import predictions_of
from dinov2.eval.probes.uncertainty import Policy
from dinov2.eval.protocol import Settings

LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
HEAD_WIDTH = 64  # of one attention head, where the width allows it
FIRST_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class AttentiveSettings:
    """What is the same for every learning rate."""

    epochs: int = 10
    batch_size: int = 128
    num_queries: int = 1
    weight_decay: float = 0.05
    policy: Policy = "ignore"
    balance: Balance = "none"
    seed: int = 0


class AttentiveHead(nn.Module):
    """Q learnt queries look at the normalised patch tokens; what they gather is normalised and classified."""

    def __init__(self, dim: int, *, outputs: Outputs, num_queries: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.queries = nn.Parameter(torch.randn(1, num_queries, dim) * FIRST_STD)
        self.norm_patches = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, _num_heads(dim), batch_first=True)
        self.norm_gathered = nn.LayerNorm(dim)
        self.linear = nn.Linear(num_queries * dim, outputs.width)

    def forward(self, patches: Tensor) -> Tensor:
        """[B, P, D] -> logits [B, O]."""
        seen = self.norm_patches(patches)
        queries = self.queries.expand(len(patches), -1, -1)
        gathered, _ = self.attention(queries, seen, seen, need_weights=False)  # [B, Q, D]
        logits: Tensor = self.linear(self.norm_gathered(gathered).flatten(1))
        return logits


class AttentiveProbe:
    """Fits a head per learning rate over the same batches; a candidate is {"learning_rate": x}."""

    def __init__(
        self,
        *,
        settings: AttentiveSettings,
        groups: Sequence[str] = (),
        device: torch.device | str = "cpu",
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self._settings, self._groups, self._advance = settings, tuple(groups), advance
        self._device = torch.device(device)

    def fit(self, candidates: Sequence[Settings], split: Labelled) -> Sequence[AttentiveHead]:
        """Heads in the order of the candidates, each from the same first weights."""
        settings, patches = self._settings, _patches(split.features)
        targets = targets_of(
            split.examples.labels,
            task=split.examples.task,
            num_classes=len(split.examples.classes),
            policy=settings.policy,
            balance=settings.balance,
            seed=settings.seed,
        ).to(self._device)
        heads = [self._first_head(patches.shape[2], targets.outputs) for _ in candidates]
        optimizers = [
            torch.optim.AdamW(
                head.parameters(), lr=float(candidate["learning_rate"]), weight_decay=settings.weight_decay
            )
            for head, candidate in zip(heads, candidates, strict=True)
        ]
        total, step = settings.epochs * math.ceil(len(split) / settings.batch_size), 0
        for epoch in range(settings.epochs):
            order = np.random.default_rng([settings.seed, epoch]).permutation(len(split))
            for rows in np.split(order, range(settings.batch_size, len(order), settings.batch_size)):
                batch, where = self._moved(patches[np.sort(rows)]), torch.from_numpy(np.sort(rows)).to(self._device)
                for head, optimizer, candidate in zip(heads, optimizers, candidates, strict=True):
                    for group in optimizer.param_groups:
                        group["lr"] = float(candidate["learning_rate"]) * cosine_share(step, total=total)
                    optimizer.zero_grad()
                    torch.autograd.backward(targets.loss(head(batch)[None], where)[0])
                    optimizer.step()
                step += 1
                if self._advance is not None:
                    self._advance(1)
        return [head.eval() for head in heads]

    @torch.inference_mode()
    def predict(self, fitted: AttentiveHead, split: Labelled) -> Predictions:
        """Probabilities of a split."""
        patches = _patches(split.features)
        size = self._settings.batch_size
        said = [
            fitted.outputs.probabilities(fitted(self._moved(patches[start : start + size]))).cpu()
            for start in range(0, len(split), size)
        ]
        return predictions_of(split.examples, torch.cat(said).numpy(), groups=self._groups)

    def _first_head(self, dim: int, outputs: Outputs) -> AttentiveHead:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._settings.seed)
            head = AttentiveHead(dim, outputs=outputs, num_queries=self._settings.num_queries)
        return head.to(self._device).train()

    def _moved(self, rows: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(rows, dtype=np.float32)).to(self._device)


def _patches(features: Features) -> PatchRows:
    if features.patches is None:
        raise ConfigError("this backbone has no patch tokens to attend to. Use `dinov2 eval linear`.")
    return features.patches


def _num_heads(dim: int) -> int:
    return dim // HEAD_WIDTH if dim % HEAD_WIDTH == 0 else 1
