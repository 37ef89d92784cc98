"""What is said of a run before its first step.

In: a `Run`. Out: messages: what is trained, on what, how it lies over the processes, for how long.
"""

from collections.abc import Iterator

from dinov2.train.events import Message
from dinov2.train.run import Run, num_workers


def announce(this: Run) -> Iterator[Message]:
    """A few lines for the log."""
    student, precision = this.tools.networks.student, this.tools.precision
    backbone = sum(p.numel() for p in student["backbone"].parameters())
    heads = sum(p.numel() for p in student.parameters()) - backbone
    yield Message(
        text=f"{this.config.student.arch}/{this.config.student.patch_size}: {backbone / 1e6:.1f} M parameters in the "
        f"backbone, {heads / 1e6:.1f} M in the heads; {this.world.size} process(es) on {this.world.device.type}, "
        f"{precision.name} ({precision.reason})"
    )
    form = this.tools.form
    yield Message(
        text=f"blocks {'compiled' if form.compiled else 'not compiled'} ({form.reason}); "
        f"activation checkpointing {form.checkpointing}"
        + ("; the first two steps take minutes" if form.compiled else "")
    )
    if this.world.size > 1:
        strategies = {name: layout.strategy for (side, name), layout in precision.layouts.items() if side == "student"}
        yield Message(text="over the processes: " + ", ".join(f"{name} {how}" for name, how in strategies.items()))
    passes = this.schedule.total_steps * this.global_batch / len(this.pictures)
    yield Message(
        text=f"{this.schedule.total_steps:,} steps of {this.global_batch} pictures: {passes:.1f} passes over the data; "
        f"peak learning rate {this.schedule.peak_lr:.3g}"
    )
    if frozen := this.schedule.freeze_backbone_steps:
        yield Message(
            text=f"the backbone is frozen for the first {frozen:,} steps; the heads learn at "
            f"{this.schedule.head_lr_factor:g} times the learning rate meanwhile"
            + ("; its blocks are compiled once more when it begins to learn" if form.compiled else "")
        )
    if note := this.about.fixed.get("preprocessing_note"):
        yield Message(text=f"the card of the exports will not say how pictures are preprocessed: {note}")
    if (workers := num_workers(this.config)) < this.config.train.num_workers:
        asked = this.config.train.num_workers
        yield Message(text=f"train.num_workers={asked}: {workers} are started, one per core that this process may use")
