"""Predictions and overlaps with a known signal, for tests of scores and tables."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.outcome import Predictions, Segmentations


def multilabel(
    *,
    num: int = 300,
    num_patients: int = 100,
    prevalence: tuple[float, ...] = (0.3, 0.5),
    signal: float = 1.5,
    seed: int = 0,
    **more: Any,
) -> Predictions:
    """Scores around the label; a few labels are not known."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((num, len(prevalence))) < prevalence).astype(np.float32)
    scores = 1 / (1 + np.exp(-(signal * (labels - 0.5) + rng.normal(size=labels.shape))))
    labels[rng.random(labels.shape) < 0.05] = np.nan
    patients = np.sort(rng.integers(num_patients, size=num))
    told: dict[str, Any] = {
        "task": "multilabel",
        "classes": tuple(f"finding {i}" for i in range(len(prevalence))),
        "ids": np.asarray([f"image{i:05d}" for i in range(num)]),
        "patients": np.asarray([f"patient{i:04d}" for i in patients]),
        "labels": labels,
        "scores": scores.astype(np.float32),
        "groups": {"sex": np.where(patients % 2 == 0, "F", "M")},
    }
    return Predictions(**(told | more))


def multiclass(*, num: int = 300, num_classes: int = 3, seed: int = 0, **more: Any) -> Predictions:
    """Softmax scores around the true class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=num)
    logits = rng.normal(size=(num, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    told: dict[str, Any] = {
        "task": "multiclass",
        "classes": tuple(f"kind {i}" for i in range(num_classes)),
        "ids": np.asarray([f"image{i:05d}" for i in range(num)]),
        "patients": np.asarray([f"patient{i // 3:04d}" for i in range(num)]),
        "labels": labels.astype(np.float32),
        "scores": (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32),
    }
    return Predictions(**(told | more))


def segmentations(*, num: int = 40, seed: int = 0, **more: Any) -> Segmentations:
    """Two classes; the second is missing in a third of the pictures, in truth and prediction."""
    rng = np.random.default_rng(seed)
    there = np.stack([np.ones(num, bool), np.arange(num) % 3 > 0], axis=1)

    def pixels(low: int, high: int) -> NDArray[np.int64]:
        return np.where(there, rng.integers(low, high, size=there.shape), 0)

    told: dict[str, Any] = {
        "classes": ("lungs", "heart"),
        "ids": np.asarray([f"image{i:05d}" for i in range(num)]),
        "patients": np.asarray([f"patient{i // 2:04d}" for i in range(num)]),
        "true_positives": pixels(50, 100),
        "false_positives": pixels(0, 30),
        "false_negatives": pixels(0, 30),
        "hausdorff95": np.where(there, rng.uniform(1, 9, size=there.shape), np.nan).astype(np.float32),
    }
    return Segmentations(**(told | more))
