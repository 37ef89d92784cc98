"""The parts of one run, put together from its configuration.

In: `Config`, `World`, `RunFolder`. Out: a `Run`, ready for its next step.
"""

import os
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dinov2.batch import Batch
from dinov2.checkpoint.store import CheckpointStore, read_facts
from dinov2.config.lengths import pictures_per_process
from dinov2.config.schema import Config
from dinov2.data.board import WorkerBoard
from dinov2.data.cache_place import open_cache
from dinov2.data.film_cache import FilmCache
from dinov2.data.loader import load_batches
from dinov2.data.pace import Pace
from dinov2.data.unreadable import UnreadableCounter
from dinov2.distributed import World
from dinov2.distributed.pulse import Pulse
from dinov2.errors import ConfigError
from dinov2.manifest import Manifest
from dinov2.optim.schedules import Schedule, build_schedule
from dinov2.train.about import About
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
    board: WorkerBoard
    pulse: Pulse
    about: About
    cache: FilmCache | None = None  # decoded films
    step: int = 0  # steps done, skipped ones included
    position: int = 0  # pictures taken from the sample stream by all ranks
    num_nonfinite: int = 0  # steps skipped for a loss or gradient that is not finite
    nonfinite_in_row: int = 0  # the same without one in between that went well
    score: float | None = None  # the latest value of checkpoint.select_by since the last checkpoint
    pace: Pace = field(default_factory=Pace)  # of this process's data workers
    batches: list[Batch] = field(default_factory=list)  # those of the step under way, on this rank

    @property
    def global_batch(self) -> int:
        """Pictures per optimiser step over all ranks and micro-batches."""
        return global_batch(self.config, world=self.world)


def global_batch(config: Config, *, world: World) -> int:
    """Pictures per optimiser step over all ranks and micro-batches.  Raises ConfigError, on every rank alike."""
    try:
        of_one = pictures_per_process(config, num_processes=world.size)
    except ConfigError as error:
        error.everywhere = True
        raise
    return of_one * world.size * config.runtime.gradient_accumulation_steps


def num_workers(config: Config) -> int:
    """Loader processes: as configured, but no more than the cores this process may use."""
    return min(config.train.num_workers, len(os.sched_getaffinity(0)))


def build_run(
    config: Config,
    *,
    world: World,
    folder: RunFolder,
    pictures: Manifest,
    store: CheckpointStore,
    board: WorkerBoard,
    pulse: Pulse,
    about: About,
) -> Run:
    """A run at step 0, whose networks are still to be filled in."""
    return Run(
        config=config,
        world=world,
        folder=folder,
        pictures=pictures,
        schedule=build_schedule(
            config.optim,
            config.teacher,
            train=config.train,
            global_batch=global_batch(config, world=world),
            init_from=config.init_from,
        ),
        tools=build_tools(config, world=world),
        store=store,
        unreadable=UnreadableCounter(len(pictures), max_share=config.data.max_unreadable_share, warns=world.is_main),
        board=board,
        pulse=pulse,
        about=about,
        cache=open_cache(pictures, place=config.data.cache, limit_gib=config.data.cache_gib),
    )


def restore(this: Run, checkpoint: Path) -> None:
    """Puts the run where it was when `checkpoint` was written.  Raises CheckpointError."""
    facts = read_facts(checkpoint)
    restore_tensors(this.tools, checkpoint)
    restore_scaler(this.tools.scaler, facts["scaler"])
    this.step, this.position = facts["step"], facts["position"]
    this.num_nonfinite, this.nonfinite_in_row = facts["num_nonfinite"], facts["nonfinite_in_row"]
    this.unreadable.files.update(facts["unreadable"])
    this.about.continue_from(facts)


def facts_of(this: Run) -> dict[str, Any]:
    """What a checkpoint says besides its tensors."""
    return {
        "position": this.position,
        "scaler": scaler_facts(this.tools.scaler),
        "num_nonfinite": this.num_nonfinite,
        "nonfinite_in_row": this.nonfinite_in_row,
        "unreadable": this.unreadable.files,
        "config": asdict(this.config),
        "global_batch": this.global_batch,
        "world_size": this.world.size,
        "precision": this.tools.precision.name,
        "about": this.about.plain(),
    }


def micro_batches(this: Run) -> Generator[Batch]:
    """This rank's batches from the run's position in the sample stream to the end of the run.

    At another global batch than before, the stream goes on at the first whole batch after the position.
    """
    config, batch_size = this.config, pictures_per_process(this.config, num_processes=this.world.size)
    return load_batches(
        this.pictures,
        crops=config.crops,
        augmentation=config.augmentation,
        ibot=config.ibot,
        patch_size=config.student.patch_size,
        seed=config.train.seed,
        batch_size=batch_size,
        rank=this.world.rank,
        num_ranks=this.world.size,
        first_batch=-(-this.position // (batch_size * this.world.size)),
        num_batches=(this.schedule.total_steps - this.step) * config.runtime.gradient_accumulation_steps,
        num_workers=num_workers(config),
        prefetch_batches=config.data.prefetch_batches,
        pin_memory=this.world.device.type == "cuda",
        board=this.board,
        cache=this.cache,
    )
