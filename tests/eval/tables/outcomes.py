"""Outcomes of probes that nobody ran, for tests of tables."""

from dataclasses import replace
from typing import Any

import numpy as np

from dinov2.eval.outcome import Outcome
from tests.eval.scores.made import multiclass, multilabel, segmentations

MADE = {"multilabel": multilabel, "multiclass": multiclass, "segmentation": segmentations}


def outcome(kind: str = "multilabel", *, seed: int = 0, probe: str = "linear", **more: Any) -> Outcome:
    """Of a linear probe with two candidates."""
    said = {name: MADE[kind](num=90, seed=seed + i) for i, name in enumerate(("test", "val"))}
    told: dict[str, Any] = {
        "probe": probe,
        "backbone": "random:vit_small",
        "dataset": "phantoms",
        "settings": {"epochs": 3, "rates": np.asarray([0.1, np.inf]), "note": None, "rate": np.float32(0.5)},
        "metric": "mean_dice" if kind == "segmentation" else "macro_auroc",
        "chosen": {"blocks": 4, "pool": True},
        "trail": (
            {"blocks": 1, "pool": False, "validation": float("nan")},
            {"blocks": 4, "pool": True, "validation": 0.8},
        ),
        "fitted_on": "train + val",
        "counts": {"train": 200, "val": 90, "test": 90},
        "val": replace(said["val"], patients=np.char.add("val ", said["val"].patients)),
        "test": said["test"],
    }
    return Outcome(**(told | more))
