"""The parts of one run, put together from its configuration.

In: `Config`, `World`, `RunFolder`. Out: a `Run`, ready for its next step.
"""

import os
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dinov2 import __version__
from dinov2.batch import Batch
from dinov2.checkpoint.store import CheckpointStore, read_facts
from dinov2.config.schema import Config
from dinov2.data.loader import load_batches
from dinov2.data.unreadable import UnreadableCounter
from dinov2.distributed import World
from dinov2.manifest import Manifest
from dinov2.optim.schedules import Schedule, build_schedule
from dinov2.train.build import build_tools
from dinov2.train.run_folder import RunFolder
from dinov2.train.state import restore_scaler, restore_tensors, scaler_facts
from dinov2.train.step import StepTools


@dataclass(kw_only=True)
class Run:
    """What moves is `step`, `position` and what `tools` and `unreadable` hold; all else is fixed."""

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
    """Pictures per optimiser step over all ranks and micro-batches."""
    return config.train.batch_size_per_gpu * world.size * config.runtime.gradient_accumulation_steps


def num_workers(config: Config) -> int:
    """Loader processes: as configured, but no more than the cores this process may use."""
    return min(config.train.num_workers, len(os.sched_getaffinity(0)))


def build_run(config: Config, *, world: World, folder: RunFolder, pictures: Manifest, store: CheckpointStore) -> Run:
    """A run at step 0 with random weights."""
    return Run(
        config=config,
        world=world,
        folder=folder,
        pictures=pictures,
        schedule=build_schedule(
            config.optim, config.teacher, train=config.train, global_batch=global_batch(config, world=world)
        ),
        tools=build_tools(config, world=world),
        store=store,
        unreadable=UnreadableCounter(len(pictures), max_share=config.data.max_unreadable_share),
    )


def restore(this: Run, checkpoint: Path) -> None:
    """Puts the run where it was when `checkpoint` was written.  Raises CheckpointError."""
    facts = read_facts(checkpoint)
    restore_tensors(this.tools, checkpoint)
    restore_scaler(this.tools.scaler, facts["scaler"])
    this.step, this.position = facts["step"], facts["position"]
    this.unreadable.files.update(facts["unreadable"])


def facts_of(this: Run) -> dict[str, Any]:
    """What a checkpoint says besides its tensors."""
    return {
        "position": this.position,
        "scaler": scaler_facts(this.tools.scaler),
        "unreadable": this.unreadable.files,
        "config": asdict(this.config),
        "global_batch": this.global_batch,
        "world_size": this.world.size,
        "dinov2": __version__,
        "torch": torch.__version__,
    }


def micro_batches(this: Run) -> Generator[Batch]:
    """This rank's batches from the run's position in the sample stream to the end of the run.

    At another global batch than before, the stream goes on at the first whole batch after the position.
    """
    config, per_batch = this.config, this.config.train.batch_size_per_gpu * this.world.size
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
        first_batch=-(-this.position // per_batch),
        num_batches=(this.schedule.total_steps - this.step) * config.runtime.gradient_accumulation_steps,
        num_workers=num_workers(config),
        prefetch_batches=config.data.prefetch_batches,
        pin_memory=this.world.device.type == "cuda",
    )
