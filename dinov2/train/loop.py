"""A run, from its configuration to its last checkpoint.

In: `Config`, a `World`, a `RunFolder`, a stop request. Out: events, while checkpoints, metrics and exports appear in the folder.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from dinov2 import __version__
from dinov2.batch import Batch, Views
from dinov2.checkpoint.export import export_teacher, make_card
from dinov2.checkpoint.store import CheckpointStore, read_facts
from dinov2.config.load import to_yaml
from dinov2.config.schema import Config
from dinov2.data.loader import load_batches
from dinov2.data.source import open_pictures
from dinov2.data.unreadable import UnreadableCounter
from dinov2.distributed import World, agree
from dinov2.manifest import Manifest
from dinov2.optim.schedules import Schedule, build_schedule, schedule_at
from dinov2.train import resume as resuming
from dinov2.train.build import build_tools, load_initial_weights
from dinov2.train.events import Ended, Event, Exported, Message, Saved, StepReport
from dinov2.train.log import JsonLines
from dinov2.train.run_folder import RunFolder
from dinov2.train.seeds import step_seed
from dinov2.train.signals import StopRequest
from dinov2.train.state import named_tensors, restore_scaler, restore_tensors, scaler_facts
from dinov2.train.step import StepResult, StepTools, mean_over_ranks, train_step


@dataclass(kw_only=True)
class _Run:
    """The moving state of a run is `step`, `position`, and what `tools` hold; all else is fixed."""

    config: Config
    world: World
    folder: RunFolder
    pictures: Manifest
    schedule: Schedule
    tools: StepTools
    store: CheckpointStore
    unreadable: UnreadableCounter
    step: int = 0  # completed optimiser steps
    position: int = 0  # pictures taken from the sample stream by all ranks

    @property
    def global_batch(self) -> int:
        """Pictures per optimiser step over all ranks and micro-batches."""
        return global_batch(self.config, world=self.world)


def global_batch(config: Config, *, world: World) -> int:
    """Pictures per optimiser step."""
    return config.train.batch_size_per_gpu * world.size * config.runtime.gradient_accumulation_steps


def run(config: Config, *, folder: RunFolder, world: World, resume: bool, stop: StopRequest) -> Iterator[Event]:
    """Trains until `total_steps` or a stop request, whichever is first; yields what happens.

    With `resume`, continues from the newest checkpoint in the folder; without, moves what is there aside.
    """
    store = CheckpointStore(folder=folder.checkpoints, keep_last=config.checkpoint.keep_last)
    if not resume and world.is_main and (aside := folder.set_aside()):
        yield Message(text=f"--no-resume: what an earlier run left in {folder.path} now lies in {aside}")
    checkpoint = store.path(store.steps()[-1]) if resume and store.steps() else None
    if checkpoint is not None:
        yield from resuming.compare_configs(read_facts(checkpoint), config, checkpoint=checkpoint)
    pictures = open_pictures(config.train.dataset_path, data=config.data, seed=config.train.seed)
    yield Message(text=f"{len(pictures):,} pictures from {config.train.dataset_path}")
    tools = build_tools(config, world=world)
    this = _Run(
        config=config,
        world=world,
        folder=folder,
        pictures=pictures,
        schedule=build_schedule(
            config.optim, config.teacher, train=config.train, global_batch=global_batch(config, world=world)
        ),
        tools=tools,
        store=store,
        unreadable=UnreadableCounter(len(pictures), max_share=config.data.max_unreadable_share),
    )
    if checkpoint is None:
        yield from load_messages(this)
    else:
        _restore(this, checkpoint)
        yield Message(text=f"continuing from {checkpoint} at step {this.step} of {this.schedule.total_steps}")
    yield from _announce(this)
    if world.is_main:
        folder.config_file.write_text(to_yaml(config))
    yield from _train(this, stop=stop)


def load_messages(this: _Run) -> Iterator[Message]:
    """Loads initial weights, reporting what was used, and starts all ranks alike."""
    for report in load_initial_weights(this.tools.networks, this.config, world=this.world):
        yield Message(text=report)


def _announce(this: _Run) -> Iterator[Message]:
    backbone = sum(p.numel() for p in this.tools.networks.student["backbone"].parameters())
    heads = sum(p.numel() for p in this.tools.networks.student.parameters()) - backbone
    precision = this.tools.precision
    yield Message(
        text=f"{this.config.student.arch}/{this.config.student.patch_size}: {backbone / 1e6:.1f} M parameters in the backbone, "
        f"{heads / 1e6:.1f} M in the heads; {this.world.size} process(es) on {this.world.device.type}, "
        f"{precision.name} ({precision.reason})"
    )
    passes = this.schedule.total_steps * this.global_batch / len(this.pictures)
    yield Message(
        text=f"{this.schedule.total_steps:,} steps of {this.global_batch} pictures: {passes:.1f} passes over the data; "
        f"peak learning rate {this.schedule.peak_lr:.3g}"
    )


def _restore(this: _Run, checkpoint: Path) -> None:
    facts = read_facts(checkpoint)
    restore_tensors(this.tools, checkpoint)
    restore_scaler(this.tools.scaler, facts["scaler"])
    this.step, this.position = facts["step"], facts["position"]
    this.unreadable.files.update(facts["unreadable"])


def _train(this: _Run, *, stop: StopRequest) -> Iterator[Event]:
    total, config = this.schedule.total_steps, this.config
    interrupted = False
    batches = _micro_batches(this)
    with _open_logs(this) as logs:
        while this.step < total and not interrupted:
            started = time.perf_counter()
            clock = _Clock()
            result = _one_step(this, clock.timed(batches))
            this.step += 1
            this.position += this.global_batch
            if this.step % config.logging.every_steps == 0 or this.step == total:
                yield logs.write(this, result, seconds=time.perf_counter() - started, waited=clock.waited)
            interrupted = agree(stop.received, world=this.world)
            ended = interrupted or this.step == total
            if ended or this.step % config.checkpoint.every_steps == 0:
                yield _save(this)
            every = config.evaluation.eval_period_iterations
            if this.step == total or (every and this.step % every == 0 and not interrupted):
                yield from _export(this)
    yield Ended(step=this.step, total_steps=total, interrupted=interrupted)


def _micro_batches(this: _Run) -> Iterator[Batch]:
    config, per_batch = this.config, this.config.train.batch_size_per_gpu * this.world.size
    first = math.ceil(this.position / per_batch)
    remaining = (this.schedule.total_steps - this.step) * config.runtime.gradient_accumulation_steps
    return load_batches(
        this.pictures,
        crops=config.crops,
        augmentation=config.augmentation,
        ibot=config.ibot,
        patch_size=config.student.patch_size,
        seed=config.train.seed,
        batch_size=config.train.batch_size_per_gpu,
        rank=this.world.rank,
        num_ranks=this.world.size,
        first_batch=first,
        num_batches=remaining,
        num_workers=config.train.num_workers,
        prefetch_batches=config.data.prefetch_batches,
        pin_memory=this.world.device.type == "cuda",
    )


def _one_step(this: _Run, batches: Iterator[Batch]) -> StepResult:
    torch.manual_seed(step_seed(this.config.train.seed, step=this.step, rank=this.world.rank))
    count = this.config.runtime.gradient_accumulation_steps
    return train_step(
        this.tools, _views(this, islice(batches, count)), plan=schedule_at(this.step, schedule=this.schedule), step=this.step + 1, num_micro_batches=count
    )


def _views(this: _Run, batches: Iterator[Batch]) -> Iterator[Views]:
    data = this.config.data
    for batch in batches:
        this.unreadable.add(batch.replaced)
        yield batch.to(this.world.device).views(mean=data.mean, std=data.std)


class _Clock:
    """Seconds spent waiting for data."""

    def __init__(self) -> None:
        self.waited = 0.0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the wait for each is added to `waited`."""
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - started
            if batch is None:
                return
            yield batch


class _open_logs:  # noqa: N801 - used as a `with` statement reads
    """The metrics and timing files of the main process."""

    def __init__(self, this: _Run) -> None:
        self._files: tuple[JsonLines, JsonLines] | None = None
        if this.world.is_main:
            self._files = (
                JsonLines(this.folder.metrics_file, keep_until_step=this.step),
                JsonLines(this.folder.timing_file, keep_until_step=this.step),
            )

    def __enter__(self) -> "_open_logs":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files or ():
            file.close()

    def write(self, this: _Run, result: StepResult, *, seconds: float, waited: float) -> StepReport:
        """One line in each file, and the same as a report."""
        metrics = _metrics(this, result)
        timing = {
            "seconds_per_step": seconds,
            "data_wait_seconds": waited,
            "pictures_per_second": this.global_batch / seconds,
            "seconds_left": (this.schedule.total_steps - this.step) * seconds,
        }
        if self._files is not None:
            self._files[0].write(this.step, metrics)
            self._files[1].write(this.step, timing)
        return StepReport(
            step=this.step,
            total_steps=this.schedule.total_steps,
            metrics=metrics,
            timing=timing,
            prototypes=_prototypes(this.config),
        )


def _metrics(this: _Run, result: StepResult) -> dict[str, float]:
    plan = schedule_at(this.step - 1, schedule=this.schedule)
    norms = {f"grad_norm_{name}": value for name, value in result.grad_norms.items()}
    return mean_over_ranks(result.values | norms, world=this.world) | {
        "lr": plan.lr,
        "last_layer_lr": plan.last_layer_lr,
        "wd": plan.weight_decay,
        "mom": plan.teacher_momentum,
        "teacher_temp": plan.teacher_temperature,
        "loss_scale": this.tools.scaler.get_scale() if this.tools.scaler.is_enabled() else 1.0,
        "skipped": float(result.skipped),
        "pictures_seen": this.position,
        "unreadable_files": len(this.unreadable.files),
    }


def _prototypes(config: Config) -> dict[str, int]:
    patches = config.ibot if config.ibot.separate_head else config.dino
    cls = config.dino.head_n_prototypes
    return {"dino_global": cls, "dino_local": cls, "ibot": patches.head_n_prototypes}


def _save(this: _Run) -> Saved:
    facts: dict[str, Any] = {
        "position": this.position,
        "scaler": scaler_facts(this.tools.scaler),
        "unreadable": this.unreadable.files,
        "config": asdict(this.config),
        "global_batch": this.global_batch,
        "world_size": this.world.size,
        "dinov2": __version__,
        "torch": torch.__version__,
    }
    return Saved(step=this.step, path=this.store.save(this.step, tensors=named_tensors(this.tools), facts=facts))


def _export(this: _Run) -> Iterator[Exported]:
    if this.world.is_main:
        teacher = dict(this.tools.networks.teacher.items())
        card = make_card(
            this.config, embed_dim=this.tools.networks.embed_dim, step=this.step, provenance={"pictures": len(this.pictures), "pictures_seen": this.position}
        )
        yield Exported(step=this.step, path=export_teacher(teacher, card=card, folder=this.folder.exports / str(this.step)))
