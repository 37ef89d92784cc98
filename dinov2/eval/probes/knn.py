"""Nearest neighbours in feature space.

In: features of the training pictures (the bank) and of others (queries). Out: scores; a `Probe` over k and temperature.

Weights are exp(cosine / temperature) of the k nearest, made to sum to 1. Single-label: every neighbour votes for its
class (Wu et al. 2018, arXiv:1805.01978; as in Caron et al. 2021, arXiv:2104.14294, temperature 0.07). Multi-label: the
weighted mean of the neighbours' labels, those that nobody stated left out. Of equally near pictures the earlier comes
first, so the answer is fixed.

Legend: M pictures of the bank, N queries, K neighbours, D width, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from dinov2.errors import ConfigError
from dinov2.eval.examples import UNCERTAIN, Task
from dinov2.eval.features import Features, Labelled
from dinov2.eval.outcome import Predictions
from dinov2.eval.probes.predictions import predictions_of
from dinov2.eval.protocol import Settings

KS = (5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07
MAX_PRODUCT = 2**26  # similarities at once: 256 MiB
Tokens = Literal["cls", "pooled", "both"]
TOKENS: tuple[str, ...] = get_args(Tokens)


@dataclass(frozen=True)
class Neighbours:
    """The nearest of the bank for each query, the nearest first."""

    similarity: Tensor  # [N, K] cosine
    rows: Tensor  # [N, K] int64, of the bank


def nearest(
    bank: "Tensor | NDArray[Any]", queries: "Tensor | NDArray[Any]", *, k: int, leave_out: Tensor | None = None
) -> Neighbours:
    """The k nearest by cosine, by chunks of queries so that memory stays bounded, where the tensors are.

    [M, D], [N, D] -> [N, k]; of equal ones the earlier row of the bank first. `leave_out` [N] is a row of the bank that
    a query must not find: itself. Raises ConfigError where the bank holds fewer than k others.
    """
    rows, asked = (normalize(torch.as_tensor(array).float(), dim=1) for array in (bank, queries))
    if not 1 <= k <= len(rows) - (leave_out is not None):
        num_near = len(rows) - (leave_out is not None)
        raise ConfigError(f"k={k}: there are {num_near} pictures to be near to. Give --k at most {num_near}.")
    similarity, indices = [], []
    for first in range(0, len(asked), max(1, MAX_PRODUCT // len(rows))):
        chunk = asked[first : first + max(1, MAX_PRODUCT // len(rows))]
        values = chunk @ rows.T
        if leave_out is not None:
            values[torch.arange(len(chunk), device=values.device), leave_out[first : first + len(chunk)]] = -torch.inf
        found, places = _first_of(values, k=k)
        similarity.append(found)
        indices.append(places)
    if not similarity:
        return Neighbours(asked.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=asked.device))
    return Neighbours(torch.cat(similarity), torch.cat(indices))


def _first_of(values: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, of equal ones the first; `topk` alone leaves open which."""
    found, places = values.topk(k, dim=1)
    in_order = places.sort(dim=1).values
    found, order = values.gather(1, in_order).sort(dim=1, descending=True, stable=True)
    places = in_order.gather(1, order)
    # Where more than k are as large as the k-th, topk chose among them by chance.
    tied = (values >= found[:, -1:]).sum(dim=1) > k
    if tied.any():
        all_values, all_places = values[tied].sort(dim=1, descending=True, stable=True)
        found[tied], places[tied] = all_values[:, :k], all_places[:, :k]
    return found, places


def vote(
    neighbours: Neighbours,
    bank_labels: "Tensor | NDArray[Any]",
    *,
    k: int,
    temperature: float,
    task: Task,
    num_classes: int,
) -> Tensor:
    """Scores by the first k neighbours.  -> [N, C] float32

    Multi-label entries that are NaN or UNCERTAIN do not count; where no neighbour states a class, its share in the bank
    is given (0 where nobody states it).
    """
    device = neighbours.similarity.device
    weights = torch.softmax(neighbours.similarity[:, :k].double() / temperature, dim=1)  # [N, k]
    labels = torch.as_tensor(bank_labels).to(device)
    if task == "multiclass":
        votes = one_hot(labels.long(), num_classes)[neighbours.rows[:, :k]]  # [N, k, C]
        return torch.einsum("nk,nkc->nc", weights, votes.double()).float()
    known = ~(labels.isnan() | (labels == UNCERTAIN))
    stated = torch.where(known, labels, torch.zeros_like(labels)).double()
    near = neighbours.rows[:, :k]
    total = torch.einsum("nk,nkc->nc", weights, known[near].double())
    positive = torch.einsum("nk,nkc->nc", weights, stated[near])
    share = stated.sum(dim=0) / known.sum(dim=0).clamp(min=1)
    return torch.where(total > 0, positive / total.clamp(min=1e-300), share).float()


def knn_scores(
    bank: "Tensor | NDArray[Any]",
    bank_labels: "Tensor | NDArray[Any]",
    queries: "Tensor | NDArray[Any]",
    *,
    k: int,
    temperature: float = TEMPERATURE,
    task: Task,
    num_classes: int,
) -> Tensor:
    """Scores of queries by their k nearest in the bank, on the device of `bank`.

    bank [M, D], bank_labels [M] (class indices) or [M, C] (1, 0, UNCERTAIN, NaN), queries [N, D] -> [N, C] float32 in
    0..1; single-label rows sum to 1. Raises ConfigError for k outside 1..M or a temperature that is not positive.
    """
    _check(temperature=temperature, task=task)
    return vote(
        nearest(bank, queries, k=k), bank_labels, k=k, temperature=temperature, task=task, num_classes=num_classes
    )


def tokens_of(features: Features, tokens: str) -> NDArray[np.float32]:
    """What neighbours are measured by, of the last block: CLS, mean patch token, or both, each of length 1.  -> [N, F]

    Raises ConfigError for a backbone without patch tokens where they are asked for.
    """
    cls = np.asarray(features.cls[:, -1], dtype=np.float32)
    if tokens == "cls":
        return cls
    if tokens not in TOKENS:
        raise ConfigError(f"--tokens {tokens}: give one of {', '.join(TOKENS)}.")
    if features.pooled is None:
        raise ConfigError(f"--tokens {tokens}: this backbone has no patch tokens to average. Give --tokens cls.")
    pooled = np.asarray(features.pooled[:, -1], dtype=np.float32)
    if tokens == "pooled":
        return pooled
    return np.concatenate([_unit(cls), _unit(pooled)], axis=1)


def candidates_for(num_pictures: int, *, ks: Sequence[int] = KS, temperatures: Sequence[float]) -> list[Settings]:
    """Every k that the bank is large enough for, with every temperature.

    Raises ConfigError for k below 1, no k small enough, or a temperature that is not positive.
    """
    for temperature in temperatures:
        _check(temperature=temperature, task="multilabel")
    if min(ks) < 1:
        raise ConfigError(f"--k {min(ks)}: give 1 or more.")
    fitting = [k for k in dict.fromkeys(ks) if k <= num_pictures]
    if not fitting:
        raise ConfigError(
            f"--k {' '.join(map(str, ks))}: there are {num_pictures} training pictures. Give smaller ones."
        )
    return [{"k": k, "temperature": one} for k, one in product(fitting, dict.fromkeys(temperatures))]


@dataclass
class _Bank:
    """Training pictures, and the neighbours found last: all candidates ask for the same."""

    inputs: Tensor  # [M, F]
    labels: NDArray[np.float32]
    most: int  # of neighbours that any candidate asks for
    last: tuple[Labelled, Neighbours] | None = field(default=None)


@dataclass(frozen=True)
class KnnFit:
    """A bank, and how it is asked."""

    bank: _Bank
    k: int
    temperature: float


class KnnProbe:
    """Chooses k and temperature; fitting is keeping the bank."""

    def __init__(self, *, tokens: str = "cls", groups: Sequence[str] = (), device: torch.device | str = "cpu") -> None:
        self._tokens, self._groups, self._device = tokens, tuple(groups), device

    def fit(self, candidates: Sequence[Settings], split: Labelled) -> Sequence[KnnFit]:
        """One bank for all candidates."""
        if split.examples.task == "segmentation":
            raise ConfigError("this probe classifies pictures, and the data has masks. Give --labels, or use: segment.")
        bank = _Bank(
            inputs=self._inputs(split), labels=split.examples.labels, most=max(int(one["k"]) for one in candidates)
        )
        return [KnnFit(bank, int(one["k"]), float(one["temperature"])) for one in candidates]

    def predict(self, fitted: KnnFit, split: Labelled) -> Predictions:
        """Scores of a split, in its order."""
        bank = fitted.bank
        if bank.last is None or bank.last[0] is not split:
            bank.last = (split, nearest(bank.inputs, self._inputs(split), k=bank.most))
        scores = vote(
            bank.last[1],
            bank.labels,
            k=fitted.k,
            temperature=fitted.temperature,
            task=split.examples.task,
            num_classes=len(split.examples.classes),
        )
        return predictions_of(split.examples, scores.cpu().numpy(), groups=self._groups)

    def _inputs(self, split: Labelled) -> Tensor:
        return torch.from_numpy(tokens_of(split.features, self._tokens).copy()).to(self._device)


def _check(*, temperature: float, task: Task) -> None:
    if not temperature > 0:
        raise ConfigError(f"temperature {temperature}: give more than 0.")
    if task == "segmentation":
        raise ConfigError("nearest neighbours classify pictures, and the data has masks. Give --labels.")


def _unit(array: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(array, axis=1, keepdims=True).astype(np.float32)
    return np.asarray(array / np.maximum(lengths, 1e-12), dtype=np.float32)
