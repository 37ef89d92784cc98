"""A run, from its configuration to its last checkpoint.

In: `Config`, a `World`, a `RunFolder`, a stop request, a pulse. Out: events, while checkpoints, metrics and exports
appear in the folder. Every process runs it; what concerns all of them is agreed on between two steps.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch

from dinov2.batch import Batch, Views
from dinov2.checkpoint.store import CheckpointStore, Retention, read_facts
from dinov2.config.load import to_yaml
from dinov2.config.schema import Config
from dinov2.data.board import WorkerBoard
from dinov2.data.source import open_pictures
from dinov2.distributed import World, from_main
from dinov2.distributed.pulse import Pulse
from dinov2.optim import schedule_at
from dinov2.train.about import about_run, without_patients
from dinov2.train.agreement import Agreed, agree_between_steps
from dinov2.train.announce import announce
from dinov2.train.events import Ended, Event, Message, Saved
from dinov2.train.exporting import export_if_best, export_step, mend_best
from dinov2.train.garbage import collector_between_steps
from dinov2.train.loggers import Loggers, check_installed
from dinov2.train.loggers.system import Workload
from dinov2.train.monitors import Monitors
from dinov2.train.nonfinite import count, stop_over
from dinov2.train.records import open_records
from dinov2.train.resume import compare_configs
from dinov2.train.run import Run, build_run, facts_of, micro_batches, restore
from dinov2.train.run_folder import RunFolder
from dinov2.train.seeds import step_seed
from dinov2.train.selection import best_so_far, check_selection, score_of
from dinov2.train.signals import StopRequest
from dinov2.train.start import start_weights
from dinov2.train.state import named_tensors
from dinov2.train.step import StepResult, train_step


def run(
    config: Config,
    *,
    folder: RunFolder,
    world: World,
    stop: StopRequest,
    pulse: Pulse,
    board: WorkerBoard,
    workload: Workload | None = None,
) -> Iterator[Event]:
    """Trains until `total_steps` or a stop request, whichever is first; yields what happens.

    Continues from the newest sound checkpoint in the folder, where there is one. With a `workload`, timing tells how
    much of the device's arithmetic is used.
    """
    pulse.at("start", step=0)
    check_installed(config)
    with closing(_store(config, folder=folder)) as store:
        checkpoint, passed_over = from_main(store.newest_sound(), world=world)
        for text in passed_over:
            yield Message(text=text, warning=True)
        if checkpoint is not None:
            yield from compare_configs(read_facts(checkpoint), config, checkpoint=checkpoint)
        pictures = open_pictures(config.train.dataset_path, data=config.data, seed=config.train.seed)
        yield Message(text=f"{len(pictures):,} pictures from {config.train.dataset_path}")
        about, pictures = about_run(pictures, world=world), without_patients(pictures)
        monitors = Monitors(config, pictures=pictures)
        check_selection(config, monitored=monitors.names)
        this = build_run(
            config,
            world=world,
            folder=folder,
            pictures=pictures,
            store=store,
            board=board,
            pulse=pulse,
            about=about,
        )
        yield from _fill_in(this, checkpoint)
        yield from announce(this)
        if world.is_main:
            folder.config_file.write_text(to_yaml(config))
        yield from monitors.begin(this)
        loggers = Loggers(this)
        yield from loggers.hear(_train(this, monitors, stop=stop, loggers=loggers, workload=workload))


def _store(config: Config, *, folder: RunFolder) -> CheckpointStore:
    keep = config.checkpoint
    return CheckpointStore(
        folder.checkpoints,
        retention=Retention(
            keep_last=keep.keep_last,
            keep_every_steps=keep.keep_every_steps,
            keep_best=keep.keep_best if keep.select_by else 0,
            mode=keep.select_mode,
        ),
        asynchronous=keep.asynchronous,
        timeout_seconds=config.runtime.exchange_timeout_seconds,
    )


def _fill_in(this: Run, checkpoint: Path | None) -> Iterator[Message]:
    """Weights of a new run, or everything of one that goes on."""
    if checkpoint is not None:
        this.pulse.at("restore", step=0)
        restore(this, checkpoint)
        yield Message(text=f"continuing from {checkpoint} at step {this.step} of {this.schedule.total_steps}")
        return
    this.pulse.at("weights", step=0)
    for report in start_weights(this.tools, this.config, world=this.world):
        yield Message(text=report)
    if this.config.checkpoint.self_test:
        this.pulse.at("self-test", step=0)
        this.store.self_test(tensors=named_tensors(this.tools), facts=facts_of(this))
        yield Message(text=f"a checkpoint was written to {this.folder.checkpoints} and read back: equal")


def _train(
    this: Run, monitors: Monitors, *, stop: StopRequest, loggers: Loggers, workload: Workload | None
) -> Iterator[Event]:
    total, config = this.schedule.total_steps, this.config
    agreed = Agreed()
    best = best_so_far(this)
    yield from mend_best(this, best)
    with (
        open_records(this, workload=workload) as records,
        closing(micro_batches(this)) as batches,
        collector_between_steps(config.runtime.garbage_collection_steps) as collect,
    ):
        if from_main(this.step == total and not (this.folder.exports / str(total)).is_dir(), world=this.world):
            yield from export_step(this)  # an earlier process ended between the last checkpoint and the export
        while this.step < total and not agreed.stop:
            clock = _Clock(this)
            result = _one_step(this, clock.timed(batches))
            this.step += 1
            this.position += this.global_batch
            loggers.begin()
            yield from _note_nonfinite(this, result)
            seconds = clock.elapsed()
            monitored = yield from monitors.run(this)
            if monitored:
                this.about.judged(this.step, monitored)
            if monitored or this.step % config.logging.every_steps == 0 or this.step == total:
                report = records.write(
                    this,
                    result,
                    seconds=seconds,
                    waited=clock.waited,
                    monitored=monitored,
                    monitor_timing=monitors.timing,
                )
                this.score = score_of(report.metrics, config.checkpoint, before=this.score, monitored=monitors.names)
                yield report
                yield from monitors.alarms(this.step, report.metrics)
            agreed = agree_between_steps(this, stop=stop)
            chosen_by = config.checkpoint.select_by in monitored
            if this.step == total or (not this.nonfinite_in_row and (chosen_by or _is_due(this, agreed))):
                best = yield from export_if_best(this, best=best)
                _save(this)
            elif chosen_by:
                this.score = None  # it is of this step alone, which is not kept
            yield from (Saved(step=int(path.name), path=path) for path in this.store.finished())
            every = config.evaluation.eval_period_iterations
            if this.step == total or (every and this.step % every == 0):
                yield from export_step(this)
            collect(this.step)
    this.pulse.at("checkpoint", step=this.step)
    this.store.wait()
    yield from (Saved(step=int(path.name), path=path) for path in this.store.finished())
    yield Ended(
        step=this.step,
        total_steps=total,
        stopped_by=agreed.stop if this.step < total else None,
        saved_step=max(this.store.steps(), default=0),
    )


def _one_step(this: Run, batches: Iterator[Batch]) -> StepResult:
    torch.manual_seed(step_seed(this.config.train.seed, step=this.step, rank=this.world.rank))
    num_micro_batches = this.config.runtime.gradient_accumulation_steps
    return train_step(
        this.tools,
        _views(this, islice(batches, num_micro_batches)),
        plan=schedule_at(this.step, schedule=this.schedule),
        num_micro_batches=num_micro_batches,
        at=lambda phase: this.pulse.at(phase, step=this.step),
    )


def _views(this: Run, batches: Iterator[Batch]) -> Iterator[Views]:
    data = this.config.data
    this.batches.clear()
    for batch in batches:
        this.batches.append(batch)
        if batch.made and (slow := this.pace.add(batch.made)):
            this.pulse.note(slow)
        yield batch.to(this.world.device).views(mean=data.mean, std=data.std)


def _note_nonfinite(this: Run, result: StepResult) -> Iterator[Message]:
    """Counts and tells; raises TrainingError where such steps do not end."""
    for text in count(this, result.findings):
        yield Message(text=text, warning=True)
    if this.nonfinite_in_row >= this.config.runtime.max_nonfinite_steps:
        stop_over(this, result.findings)


def _is_due(this: Run, agreed: Agreed) -> bool:
    """Whether a checkpoint is to be written now; not while steps fail, for those weights may be why they do."""
    return bool(agreed.stop) or this.step % this.config.checkpoint.every_steps == 0


def _save(this: Run) -> None:
    this.pulse.at("checkpoint", step=this.step)
    this.store.save(
        this.step,
        tensors=named_tensors(this.tools),
        facts=facts_of(this),
        files={"config.yaml": to_yaml(this.config)},
        score=this.score,
    )
    this.score = None


class _Clock:
    """Seconds since its making, and how many of them went into waiting for data."""

    def __init__(self, this: Run) -> None:
        self._this = this
        self._started = time.perf_counter()
        self.waited = 0.0

    def elapsed(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._started

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the wait for each is added to `waited`."""
        while True:
            self._this.pulse.at("data", step=self._this.step)
            started = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - started
            if batch is None:
                return
            yield batch
