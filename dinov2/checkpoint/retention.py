"""Which checkpoints of a run stay on disk, and why.

In: the steps that are there, their scores, and what the configuration keeps. Out: the reasons of every step that
stays; a step without a reason goes. Nothing is remembered between saves: scores are read from the checkpoints
themselves, so a run that was restarted decides as if it had never stopped.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What is kept: the last ones, every n-th step, and the best by score. The newest always stays."""

    keep_last: int  # 0: all
    keep_every_steps: int = 0  # 0: none for this reason
    keep_best: int = 0
    mode: Literal["min", "max"] = "max"


KEEP_ALL = Retention(keep_last=0)


def reasons_to_keep(scores: Mapping[int, float | None], *, retention: Retention) -> dict[int, tuple[str, ...]]:
    """Step -> why it stays, for those that do; `scores` holds every step that is there, None where it has no score."""
    steps = sorted(scores)
    reasons: dict[int, list[str]] = {step: [] for step in steps}
    if steps:
        reasons[steps[-1]].append("latest")
    ranked = best_first(scores, mode=retention.mode)
    for place, step in enumerate(ranked[: retention.keep_best]):
        reasons[step].append(f"among the best {retention.keep_best}" if place else "best")
    for step in steps:
        if retention.keep_every_steps and step > 0 and step % retention.keep_every_steps == 0:
            reasons[step].append(f"every {retention.keep_every_steps:,}")
    for step in steps[-retention.keep_last :] if retention.keep_last else steps:
        reasons[step].append(f"last {retention.keep_last}" if retention.keep_last else "all are kept")
    return {step: tuple(why) for step, why in reasons.items() if why}


def best_first(scores: Mapping[int, float | None], *, mode: Literal["min", "max"]) -> list[int]:
    """Steps that have a score, the best first; of equal scores the later step."""
    sign = 1.0 if mode == "max" else -1.0
    known = {step: sign * score for step, score in scores.items() if score is not None and math.isfinite(score)}
    return sorted(known, key=lambda step: (known[step], step), reverse=True)
