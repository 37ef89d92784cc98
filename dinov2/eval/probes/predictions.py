"""Examples and scores -> `Predictions`, the one way every classifying probe speaks.

In: a split and scores [N, C] in its order. Out: `Predictions`, in which an uncertain label is not counted.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.examples import Examples
from dinov2.eval.outcome import Predictions
from dinov2.eval.probes.uncertainty import without_uncertain


def predictions_of(
    examples: Examples, scores: NDArray[Any], *, groups: Sequence[str] = (), calibrated: bool = True
) -> Predictions:
    """Scores [N, C] beside the truth, by the order of the dataset's classes; `groups` are columns of the manifest."""
    labels = without_uncertain(examples.labels) if examples.task == "multilabel" else examples.labels
    values = np.asarray(scores, dtype=np.float32)
    if values.shape != (len(examples), len(examples.classes)):
        raise AssertionError(f"scores are {values.shape}, not {len(examples)} pictures x {len(examples.classes)}")
    return Predictions(
        task=examples.task,
        classes=examples.classes,
        ids=examples.ids,
        patients=examples.patients,
        labels=labels,
        scores=values,
        groups={column: examples.group(column) for column in groups},
        calibrated=calibrated,
    )
