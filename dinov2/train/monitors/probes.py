"""kNN and linear probes of the class tokens, small enough to run beside a training.

In: `Seen` features of train and val pictures, and their labels. Out: numbers by the names they are logged under.

* knn: 20 neighbours by cosine, weighted by exp(cosine / 0.07), as DINO scores (Caron et al. 2021, arXiv:2104.14294).
* linear: a few heads of `dinov2.eval.probes.linear` on the class token, with and without the mean patch token of the
  last block. The head that is best on val is the one that is told; so a number is for comparing checkpoints, not for a
  paper: `dinov2 eval linear` chooses on val and reports test.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from dinov2.eval.examples import Examples
from dinov2.eval.outcome import Predictions
from dinov2.eval.probes.knn import knn_scores
from dinov2.eval.probes.linear import BATCH_SIZE, EPOCHS, Candidate, fit_heads
from dinov2.eval.probes.predictions import predictions_of
from dinov2.eval.scores import METRICS, auroc, macro_auroc
from dinov2.eval.scores.classes import class_views
from dinov2.train.monitors.passes import Seen
from dinov2.train.monitors.pictures import Monitored

NEIGHBOURS = 20
TEMPERATURE = 0.07
LEARNING_RATES = (1e-2, 1e-1, 5e-1)
INPUTS = ("cls", "cls + mean patch")
LEAST_STEPS = 150  # of the linear heads; few pictures are gone over more often


def probe_names(monitored: Monitored, probes: tuple[str, ...]) -> tuple[str, ...]:
    """What `run_probes` will give."""
    if monitored.val is None:
        return ()
    return tuple(name for probe in probes for name in _names(probe, monitored.val))


def run_probes(seen: Seen, monitored: Monitored, *, probes: tuple[str, ...], seed: int) -> dict[str, float]:
    """Every number of `probe_names`; NaN where a class of val has no positives or no negatives, or a fit diverged."""
    if monitored.val is None:
        return {}
    numbers: dict[str, float] = {}
    for probe in probes:
        said = _knn(seen, monitored) if probe == "knn" else _linear(seen, monitored, seed=seed)
        numbers |= _numbers(probe, predictions_of(monitored.val, said, calibrated=probe == "linear"))
    return numbers


def _names(probe: str, val: Examples) -> list[str]:
    names = ["macro_auroc", *(["accuracy"] if val.task == "multiclass" else [])]
    return [f"{probe}/val/{name}" for name in (*names, *(f"auroc/{one}" for one in val.classes))]


def _numbers(probe: str, said: Predictions) -> dict[str, float]:
    numbers = {"macro_auroc": macro_auroc(said)}
    if said.task == "multiclass":
        numbers["accuracy"] = METRICS["accuracy"](said)
    for view in class_views(said):
        numbers[f"auroc/{view.name}"] = auroc(view.labels, view.scores) if view.scored else math.nan
    return {f"{probe}/val/{name}": float(value) for name, value in numbers.items()}


def _knn(seen: Seen, monitored: Monitored) -> NDArray[np.float32]:
    """Scores of val by the neighbours in train.  -> [N, C]"""
    train = monitored.train
    said = knn_scores(
        seen.cls[: len(train)],
        train.labels,
        seen.cls[len(train) :],
        k=min(NEIGHBOURS, len(train)),
        temperature=TEMPERATURE,
        task=train.task,
        num_classes=len(train.classes),
    )
    return said.cpu().numpy()


def _linear(seen: Seen, monitored: Monitored, *, seed: int) -> NDArray[np.float32]:
    """Probabilities of val by the head that is best there.  -> [N, C]; NaN where every head diverged."""
    train, val = monitored.train, monitored.val
    assert val is not None
    inputs = dict(zip(INPUTS, (seen.cls, torch.cat([seen.cls, seen.pooled], dim=1)), strict=True))
    heads = fit_heads(
        {name: features[: len(train)] for name, features in inputs.items()},
        train.labels,
        task=train.task,
        num_classes=len(train.classes),
        candidates=[Candidate(input=name, learning_rate=rate) for name in INPUTS for rate in LEARNING_RATES],
        epochs=max(EPOCHS, LEAST_STEPS // math.ceil(len(train) / BATCH_SIZE)),
        seed=seed,
        device=seen.cls.device,
    )
    said = [head.probabilities(inputs[head.candidate.input][len(train) :]) for head in heads]
    scores = [macro_auroc(predictions_of(val, one)) for one in said]
    return said[max(range(len(said)), key=lambda i: scores[i] if math.isfinite(scores[i]) else -math.inf)]


def headline(numbers: Mapping[str, float]) -> list[str]:
    """The few that a line on the screen has room for."""
    names = [name for name in numbers if name.endswith("/val/macro_auroc")]
    return [f"{name.partition('/')[0]} AUROC {numbers[name]:.4f}" for name in names]
