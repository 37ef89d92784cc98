"""Whether the nearest pictures are relevant.

In: features of queries and of a gallery. Out: `Found`: for each query which of its nearest are relevant; R@k and P@k
with intervals by patient.

Relevant by label: the two share a positive label, or have the same class. Relevant by patient: another picture of the
same patient. A query that nothing in the gallery is relevant to is left out and counted.

Legend: Q queries, M pictures of the gallery, K neighbours, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from dinov2.errors import ConfigError
from dinov2.eval.examples import Examples
from dinov2.eval.features import Labelled
from dinov2.eval.outcome import Predictions
from dinov2.eval.probes.knn import TEMPERATURE, Neighbours, nearest, tokens_of, vote
from dinov2.eval.probes.predictions import predictions_of
from dinov2.eval.scores import Interval, found_at_k, mean_interval, precise_at_k

KS = (1, 5, 10)
Relevance = Literal["label", "patient"]
RELEVANCES: tuple[str, ...] = get_args(Relevance)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The nearest K of every query."""

    queries: Labelled
    gallery: Labelled
    neighbours: Neighbours  # [Q, K]
    relevant: NDArray[np.bool_]  # [Q, K]
    findable: NDArray[np.bool_]  # [Q] whether the gallery holds anything relevant

    def scores(self, ks: Sequence[int], *, draws: int, seed: int) -> dict[str, Interval]:
        """`R@k` (the share of queries that find something relevant among the nearest k) and `P@k` (the mean share of
        relevant ones among them), over the queries that have something to find."""
        patients = self.queries.examples.patients
        told = {}
        for name, of in (("R", found_at_k), ("P", precise_at_k)):
            for k in ks:
                values = of(self.relevant, k=k, findable=self.findable)
                told[f"{name}@{k}"] = mean_interval(values, patients, draws=draws, seed=seed)
        return told

    def by_class(self, ks: Sequence[int]) -> dict[str, dict[str, float]]:
        """R@k and P@k of the queries that show each class, without those that have nothing to find."""
        shown = _shows(self.queries.examples)
        told: dict[str, dict[str, float]] = {}
        for place, name in enumerate(self.queries.examples.classes):
            rows = np.flatnonzero(shown[:, place] & self.findable)
            told[name] = {"queries": float(len(rows))}
            for k in ks if len(rows) else ():
                told[name][f"R@{k}"] = float(found_at_k(self.relevant[rows], k=k, findable=self.findable[rows]).mean())
                told[name][f"P@{k}"] = float(
                    precise_at_k(self.relevant[rows], k=k, findable=self.findable[rows]).mean()
                )
        return told

    def predictions(self, *, k: int, groups: Sequence[str] = ()) -> Predictions:
        """The vote of the nearest k for every query, as of the probe knn."""
        examples = self.queries.examples
        scores = vote(
            self.neighbours,
            self.gallery.examples.labels,
            k=k,
            temperature=TEMPERATURE,
            task=examples.task,
            num_classes=len(examples.classes),
        )
        return predictions_of(examples, scores.cpu().numpy(), groups=groups)


def retrieve(
    queries: Labelled,
    gallery: Labelled | None,
    *,
    most: int,
    by: Relevance = "label",
    tokens: str = "cls",
    device: torch.device | str = "cpu",
) -> Found:
    """The nearest `most` pictures of the gallery to every query; without a gallery, of the other queries.

    Raises:
        ConfigError: the gallery is too small, nothing relevant is in it, or the data has masks.
    """
    if queries.examples.task == "segmentation":
        raise ConfigError("retrieval goes by labels or patients, and the data has masks. Give --labels.")
    among = queries if gallery is None else gallery
    itself = torch.arange(len(queries), device=device) if gallery is None else None
    asked, bank = (torch.from_numpy(tokens_of(one.features, tokens).copy()).to(device) for one in (queries, among))
    neighbours = nearest(bank, asked, k=most, leave_out=itself)
    rows = neighbours.rows.cpu().numpy()
    if by == "patient":
        relevant = among.examples.patients[rows] == queries.examples.patients[:, None]
        names, counts = np.unique(among.examples.patients, return_counts=True)
        of_patient = dict(zip(names.tolist(), counts.tolist(), strict=True))
        num_relevant = np.asarray([of_patient.get(name, 0) for name in queries.examples.patients.tolist()])
        num_relevant = num_relevant - (gallery is None)
    else:
        shown, shown_by_query = _shows(among.examples), _shows(queries.examples)
        relevant = (shown[rows] & shown_by_query[:, None]).any(axis=2)
        # A class that only the query itself shows has nothing to find.
        findable_classes = shown.sum(axis=0) > (gallery is None)
        num_relevant = (shown_by_query & findable_classes).sum(axis=1)
    found = Found(queries=queries, gallery=among, neighbours=neighbours, relevant=relevant, findable=num_relevant > 0)
    if not found.findable.any():
        what = "has another picture of its patient" if by == "patient" else "shares a label with any other"
        raise ConfigError(
            f"{queries.examples.name}: no picture {what}: nothing could be found. Use other --labels or --by."
        )
    return found


def told(scores: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Intervals as plain values, for a result's settings."""
    return {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in scores.items()}


def _shows(examples: Examples) -> NDArray[np.bool_]:
    """Whether a picture shows a class.  -> [N, C]; uncertain labels and those that nobody stated do not."""
    if examples.task == "multiclass":
        shown: NDArray[np.bool_] = examples.labels[:, None] == np.arange(len(examples.classes))
        return shown
    return np.asarray(examples.labels == 1)
