"""The best checkpoint by a score, and its teacher in `exports/best`.

In: `checkpoint.select_by`, the scores of checkpoints. Out: which numbers there will be to choose by; whether a score is
the best so far. Scores lie in the checkpoints, so a run that continues decides as if it had never stopped.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.backbone_card import read_card
from dinov2.checkpoint.reading import read_facts
from dinov2.checkpoint.retention import best_first
from dinov2.config.schema import Checkpoint, Config
from dinov2.distributed import from_main
from dinov2.errors import CheckpointError, ConfigError, WeightsError
from dinov2.ssl.networks import needed_heads
from dinov2.train.run import Run

BEST = "best"  # folder of exports
# Names in the line of every logged step, besides those that follow from the losses.
ALWAYS = ("lr", "last_layer_lr", "wd", "mom", "teacher_temp", "loss_scale", "skipped", "nonfinite_steps")
COUNTS = ("pictures_seen", "unreadable_files")


@dataclass(frozen=True)
class Selected:
    """A step and its score."""

    step: int
    score: float


def check_selection(config: Config, *, monitored: tuple[str, ...]) -> None:
    """Raises ConfigError, on every process alike, where `checkpoint.select_by` is a number that will not be there."""
    name = config.checkpoint.select_by
    there = (*logged_names(config), *monitored)
    if not name or name in there:
        return
    error = ConfigError(
        f"checkpoint.select_by = {name}: training_metrics.json will have no such number. There will be "
        f"{', '.join(there)}."
    )
    error.everywhere = True
    raise error


def logged_names(config: Config) -> tuple[str, ...]:
    """Every number of a logged step, without those of monitors."""
    crops = ("global", *(["local"] if config.crops.local_crops_number else []))
    names = ["total_loss"]
    if config.dino.loss_weight > 0:
        names += [f"dino_{crop}_crops_loss" for crop in crops] + [f"dino_{crop}_cross_entropy" for crop in crops]
        names += ["teacher_entropy", "teacher_marginal_entropy"]
    names += ["koleo_loss"] if config.dino.koleo_loss_weight > 0 else []
    names += ["ibot_loss", "ibot_cross_entropy"] if config.ibot.loss_weight > 0 else []
    names += [f"grad_norm_{part}" for part in ("backbone", *needed_heads(dino=config.dino, ibot=config.ibot))]
    names += ["backbone_lr", "head_lr"] if config.init_from.freeze_backbone_steps else []
    return (*names, *ALWAYS, *COUNTS)


def score_of(
    metrics: dict[str, float], keep: Checkpoint, *, before: float | None, monitored: tuple[str, ...]
) -> float | None:
    """The number that checkpoints are chosen by, of a logged step.

    A number of the monitors is of its own step alone; of any other, the value `before` holds until there is a finite
    one again.
    """
    if not keep.select_by:
        return None
    value = metrics.get(keep.select_by, math.nan)
    if math.isfinite(value):
        return value
    return None if keep.select_by in monitored else before


def best_so_far(this: Run) -> Selected | None:
    """The best of the checkpoints that are there and of `exports/best`; the same on every process.

    Scores of another `select_by` do not count, nor does an export of a step that is still to be made again.
    """
    keep = this.config.checkpoint
    if not keep.select_by:
        return None
    return from_main(_best_on_disk(this) if this.world.is_main else None, world=this.world)


def is_best(this: Run, score: float, *, before: Selected | None) -> bool:
    """Whether this step's score is the best; of equal ones the later is, as with `checkpoints/best`."""
    scores = {this.step: score} | ({before.step: before.score} if before is not None else {})
    return best_first(scores, mode=this.config.checkpoint.select_mode)[:1] == [this.step]


def exported_best(this: Run) -> Selected | None:
    """What lies in `exports/best`, where it was chosen by the same number."""
    try:
        card = read_card(this.folder.exports / BEST)
    except WeightsError:
        return None
    return _selected(card.provenance, this.config.checkpoint, step=card.step, score=card.provenance.get("score"))


def _best_on_disk(this: Run) -> Selected | None:
    found = [one for path in _checkpoints(this) if (one := _scored(path, this.config.checkpoint)) is not None]
    if (exported := exported_best(this)) is not None:
        found.append(exported)
    known = {one.step: one.score for one in found if one.step <= this.step}
    ranked = best_first(known, mode=this.config.checkpoint.select_mode)
    return Selected(ranked[0], known[ranked[0]]) if ranked else None


def _checkpoints(this: Run) -> Iterator[Path]:
    return (this.store.path(step) for step in this.store.steps())


def _scored(checkpoint: Path, keep: Checkpoint) -> Selected | None:
    try:
        facts = read_facts(checkpoint)
    except CheckpointError:
        return None
    section = facts["config"]["checkpoint"]
    provenance = {"selected_by": section.get("select_by"), "select_mode": section.get("select_mode")}
    return _selected(provenance, keep, step=int(facts["step"]), score=facts.get("score"))


def _selected(provenance: dict[str, Any], keep: Checkpoint, *, step: int, score: Any) -> Selected | None:
    same = (provenance.get("selected_by"), provenance.get("select_mode")) == (keep.select_by, keep.select_mode)
    return Selected(step, float(score)) if same and score is not None else None
