"""Whether a run that was interrupted is the run that was not.

In: two finished run folders. Out: words for every difference, or how large the largest is.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .runs import metrics

METRICS, WEIGHTS = "training_metrics.json", ("backbone.safetensors", "dino_head.safetensors")
# Another number of processes adds the same terms in another order, which changes the last bits of float32 (eps 1.2e-7);
# AdamW and a dozen steps let that grow. Measured: 3e-6 of a number, 3e-6 in a weight.
NUMBERS_RTOL, WEIGHTS_ATOL = 1e-4, 1e-4


def differences(run: Path, reference: Path, *, exactly: bool) -> list[str]:
    """Where a finished run is not what the uninterrupted one is: to the byte, or within rounding."""
    faults = _differing_metrics(run, reference, exactly=exactly)
    steps = [line["step"] for line in metrics(reference)]
    timed = [json.loads(line)["step"] for line in (run / "logs" / "timing.json").read_text().splitlines()]
    if timed != steps:
        faults.append(f"logs/timing.json holds the steps {timed}")
    for name in WEIGHTS:
        faults += _differing_weights(run, reference, name=f"exports/{steps[-1]}/{name}", exactly=exactly)
    for folder in (".", "exports"):
        ours, theirs = (sorted(path.name for path in (root / folder).iterdir()) for root in (run, reference))
        if ours != theirs:
            faults.append(f"{folder} holds {ours}, in the uninterrupted run {theirs}")
    ours, theirs = (sorted(path.name for path in (root / "checkpoints").iterdir()) for root in (run, reference))
    if len(ours) != len(theirs) or str(steps[-1]) not in ours:  # a stop may have saved at a step of its own
        faults.append(f"checkpoints holds {ours}, in the uninterrupted run {theirs}")
    return faults


def largest_differences(run: Path, reference: Path) -> tuple[float, float]:
    """Of any number of the metrics, relative to it, and of any exported weight."""
    pairs = [
        (float(mine[key]), float(other[key]))
        for mine, other in zip(metrics(run), metrics(reference), strict=True)
        for key in mine
        if mine[key] is not None
    ]
    numbers = max(abs(a - b) / max(abs(a), abs(b), torch.finfo(torch.float32).tiny) for a, b in pairs)
    last = metrics(reference)[-1]["step"]
    weights = max(_distance(run, reference, name=f"exports/{last}/{name}") for name in WEIGHTS)
    return numbers, weights


def _differing_metrics(run: Path, reference: Path, *, exactly: bool) -> list[str]:
    ours, theirs = metrics(run), metrics(reference)
    if [line["step"] for line in ours] != [line["step"] for line in theirs]:
        return [f"{METRICS} holds the steps {[line['step'] for line in ours]}"]
    faults = []
    for mine, other in zip(ours, theirs, strict=True):
        if keys := [key for key in other if not _equal(key, mine.get(key), other[key], exactly=exactly)]:
            shown = ", ".join(f"{key} {mine.get(key)} instead of {other[key]}" for key in keys[:3])
            faults.append(f"{METRICS}: step {mine['step']}: {shown}")
    if exactly and not faults and (run / METRICS).read_bytes() != (reference / METRICS).read_bytes():
        faults.append(f"{METRICS}: other bytes")
    return faults[:2]


def _equal(key: str, mine: Any, other: Any, *, exactly: bool) -> bool:
    if exactly or mine is None or other is None or key in ("step", "pictures_seen", "skipped", "loss_scale"):
        return bool(mine == other)
    return bool(abs(mine - other) <= NUMBERS_RTOL * max(abs(mine), abs(other)))


def _differing_weights(run: Path, reference: Path, *, name: str, exactly: bool) -> list[str]:
    if not (run / name).is_file():
        return [f"{name} is absent"]
    if exactly:
        return [] if (run / name).read_bytes() == (reference / name).read_bytes() else [f"{name}: other bytes"]
    worst = _distance(run, reference, name=name)
    return [] if worst <= WEIGHTS_ATOL else [f"{name}: weights differ by {worst:.2g}"]


def _distance(run: Path, reference: Path, *, name: str) -> float:
    ours, theirs = load_file(run / name), load_file(reference / name)
    return max(float((ours[key] - value).abs().max()) for key, value in theirs.items())
