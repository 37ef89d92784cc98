"""The teacher leaves its run: at the steps that the configuration names, and whenever it is the best so far.

In: a `Run`. Out: `exports/<step>` and `exports/best`, each told as `Exported`. Called by every process.
"""

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dinov2.backbone_card import BackboneCard
from dinov2.checkpoint.export import card_of_run, export_teacher
from dinov2.checkpoint.from_checkpoint import load_teacher
from dinov2.distributed import from_main, gather_to_main
from dinov2.ssl import build_teacher
from dinov2.train.events import Exported
from dinov2.train.run import Run, facts_of
from dinov2.train.selection import BEST, Selected, exported_best, is_best


def export_step(this: Run) -> Iterator[Exported]:
    """The teacher as it is now, in `exports/<step>`."""
    yield from _export(this, folder=this.folder.exports / str(this.step), reason={})


def export_if_best(this: Run, *, best: Selected | None) -> Generator[Exported, None, Selected | None]:
    """The teacher as it is now, in `exports/best`, if no score before was better; returns what is the best then."""
    if this.score is None or not is_best(this, this.score, before=best):
        return best
    yield from _export(this, folder=this.folder.exports / BEST, reason=_reason(this, this.score))
    return Selected(this.step, this.score)


def mend_best(this: Run, best: Selected | None) -> Iterator[Exported]:
    """`exports/best` from the best checkpoint, where an earlier process ended between the one and the other."""
    checkpoint = None if best is None else this.store.path(best.step)
    if best is None or checkpoint is None:
        return
    if not from_main(checkpoint.is_dir() and exported_best(this) != best, world=this.world):
        return
    this.pulse.at("export", step=this.step)
    saved = load_teacher(checkpoint)  # every process takes part in reading
    if not this.world.is_main:
        return
    card = card_of_run(saved.config, saved.parts, facts=saved.facts, more=_reason(this, best.score))
    yield _write(saved.parts, card=card, folder=this.folder.exports / BEST)


def _export(this: Run, *, folder: Path, reason: Mapping[str, Any]) -> Iterator[Exported]:
    """The main process writes the teacher; the others send it their shards and go on."""
    this.pulse.at("export", step=this.step)
    config = this.config
    state = gather_to_main(this.tools.networks.teacher, world=this.world)
    if not this.world.is_main:
        return
    module = build_teacher(
        state, student=config.student, dino=config.dino, ibot=config.ibot, img_size=config.crops.global_crops_size
    )
    teacher = dict(module.items())
    card = card_of_run(config, teacher, facts=facts_of(this) | {"step": this.step}, more=reason)
    yield _write(teacher, card=card, folder=folder)


def _write(teacher: Mapping[str, nn.Module], *, card: BackboneCard, folder: Path) -> Exported:
    return Exported(step=card.step, path=export_teacher(teacher, card=card, folder=folder))


def _reason(this: Run, score: float) -> dict[str, Any]:
    """Why this teacher is the best, for its card."""
    keep = this.config.checkpoint
    return {"selected_by": keep.select_by, "select_mode": keep.select_mode, "score": score}
