"""A run, from its configuration to its last checkpoint.

In: `Config`, a `World`, a `RunFolder`, a stop request. Out: events, while checkpoints, metrics and exports appear in
the folder.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import torch

from dinov2.batch import Batch, Views
from dinov2.checkpoint.export import export_teacher, make_card
from dinov2.checkpoint.store import CheckpointStore, read_facts
from dinov2.config.load import to_yaml
from dinov2.config.schema import Config
from dinov2.data.source import open_pictures
from dinov2.distributed import World, agree
from dinov2.optim.schedules import schedule_at
from dinov2.train.build import load_initial_weights
from dinov2.train.events import Ended, Event, Exported, Message, Saved
from dinov2.train.records import open_records
from dinov2.train.resume import compare_configs
from dinov2.train.run import Run, build_run, facts_of, micro_batches, num_workers, restore
from dinov2.train.run_folder import RunFolder
from dinov2.train.seeds import step_seed
from dinov2.train.signals import StopRequest
from dinov2.train.state import named_tensors
from dinov2.train.step import StepResult, train_step


def run(config: Config, *, folder: RunFolder, world: World, resume: bool, stop: StopRequest) -> Iterator[Event]:
    """Trains until `total_steps` or a stop request, whichever is first; yields what happens.

    With `resume`, continues from the newest checkpoint in the folder; without, moves what is there aside.
    """
    store = CheckpointStore(folder=folder.checkpoints, keep_last=config.checkpoint.keep_last)
    if not resume and world.is_main and (aside := folder.set_aside()):
        yield Message(text=f"--no-resume: what an earlier run left in {folder.path} now lies in {aside}")
    checkpoint = store.path(store.steps()[-1]) if resume and store.steps() else None
    if checkpoint is not None:
        yield from compare_configs(read_facts(checkpoint), config, checkpoint=checkpoint)
    pictures = open_pictures(config.train.dataset_path, data=config.data, seed=config.train.seed)
    yield Message(text=f"{len(pictures):,} pictures from {config.train.dataset_path}")
    this = build_run(config, world=world, folder=folder, pictures=pictures, store=store)
    if checkpoint is None:
        for report in load_initial_weights(this.tools.networks, config, world=world):
            yield Message(text=report)
    else:
        restore(this, checkpoint)
        yield Message(text=f"continuing from {checkpoint} at step {this.step} of {this.schedule.total_steps}")
    yield from _announce(this)
    if world.is_main:
        folder.config_file.write_text(to_yaml(config))
    yield from _train(this, stop=stop)


def _announce(this: Run) -> Iterator[Message]:
    student, precision = this.tools.networks.student, this.tools.precision
    backbone = sum(p.numel() for p in student["backbone"].parameters())
    heads = sum(p.numel() for p in student.parameters()) - backbone
    yield Message(
        text=f"{this.config.student.arch}/{this.config.student.patch_size}: {backbone / 1e6:.1f} M parameters in the "
        f"backbone, {heads / 1e6:.1f} M in the heads; {this.world.size} process(es) on {this.world.device.type}, "
        f"{precision.name} ({precision.reason})"
    )
    passes = this.schedule.total_steps * this.global_batch / len(this.pictures)
    yield Message(
        text=f"{this.schedule.total_steps:,} steps of {this.global_batch} pictures: {passes:.1f} passes over the data; "
        f"peak learning rate {this.schedule.peak_lr:.3g}"
    )
    if (workers := num_workers(this.config)) < this.config.train.num_workers:
        asked = this.config.train.num_workers
        yield Message(text=f"train.num_workers={asked}: {workers} are started, one per core that this process may use")


def _train(this: Run, *, stop: StopRequest) -> Iterator[Event]:
    total, config = this.schedule.total_steps, this.config
    interrupted = False
    with open_records(this) as records, closing(micro_batches(this)) as batches:
        while this.step < total and not interrupted:
            clock = _Clock()
            result = _one_step(this, clock.timed(batches))
            this.step += 1
            this.position += this.global_batch
            if this.step % config.logging.every_steps == 0 or this.step == total:
                yield records.write(this, result, seconds=clock.elapsed(), waited=clock.waited)
            interrupted = agree(stop.received, world=this.world)
            if interrupted or this.step == total or this.step % config.checkpoint.every_steps == 0:
                path = this.store.save(this.step, tensors=named_tensors(this.tools), facts=facts_of(this))
                yield Saved(step=this.step, path=path)
            every = config.evaluation.eval_period_iterations
            if this.step == total or (every and this.step % every == 0):
                yield from _export(this)
    yield Ended(step=this.step, total_steps=total, interrupted=interrupted and this.step < total)


def _one_step(this: Run, batches: Iterator[Batch]) -> StepResult:
    torch.manual_seed(step_seed(this.config.train.seed, step=this.step, rank=this.world.rank))
    count = this.config.runtime.gradient_accumulation_steps
    plan = schedule_at(this.step, schedule=this.schedule)
    return train_step(
        this.tools, _views(this, islice(batches, count)), plan=plan, step=this.step + 1, num_micro_batches=count
    )


def _views(this: Run, batches: Iterator[Batch]) -> Iterator[Views]:
    data = this.config.data
    for batch in batches:
        this.unreadable.add(batch.replaced)
        yield batch.to(this.world.device).views(mean=data.mean, std=data.std)


class _Clock:
    """Seconds since its making, and how many of them went into waiting for data."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.waited = 0.0

    def elapsed(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._started

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the wait for each is added to `waited`."""
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - started
            if batch is None:
                return
            yield batch


def _export(this: Run) -> Iterator[Exported]:
    if not this.world.is_main:
        return
    teacher = dict(this.tools.networks.teacher.items())
    provenance = {"pictures": len(this.pictures), "pictures_seen": this.position}
    card = make_card(this.config, teacher, step=this.step, provenance=provenance)
    path = export_teacher(teacher, card=card, folder=this.folder.exports / str(this.step))
    yield Exported(step=this.step, path=path)
