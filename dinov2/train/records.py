"""What is written down of a logged step.

In: a `Run` after a step, what the step gave, and how long it took. Out: a line in `training_metrics.json`, one in
`logs/timing.json` with the machine's figures, and the same as a `StepReport`. The first file holds nothing that depends
on the machine's speed, so an interrupted and an uninterrupted run write the same bytes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dinov2.config.schema import Config
from dinov2.optim.schedules import schedule_at
from dinov2.train.events import StepReport
from dinov2.train.log import JsonLines
from dinov2.train.loggers.system import System, Workload
from dinov2.train.run import Run
from dinov2.train.step import StepResult, logged_values


class Records:
    """The two files of the main process; other processes only take part in the averages."""

    def __init__(self, files: tuple[JsonLines, JsonLines] | None, *, system: System | None = None) -> None:
        self._files, self._system = files, system

    def write(
        self,
        this: Run,
        result: StepResult,
        *,
        seconds: float,
        waited: float,
        monitored: Mapping[str, float] = {},
        monitor_timing: Mapping[str, float] = {},
    ) -> StepReport:
        """One line in each file, and the same as a report. Called by every process, for the averages.

        `monitored` holds the numbers of the monitors, `monitor_timing` what they took, where the step was looked at.
        """
        metrics = metrics_of(this, result) | dict(monitored)
        timing = {
            "seconds_per_step": seconds,
            "data_wait_seconds": waited,
            "pictures_per_second": this.global_batch / seconds,
            "seconds_left": (this.schedule.total_steps - this.step) * seconds,
        } | (dict(monitor_timing) if monitored else {})
        if self._system is not None:
            timing |= self._system.figures(seconds=seconds)
        if self._files is not None:
            for file, numbers in zip(self._files, (metrics, timing), strict=True):
                file.write(this.step, numbers)
        return StepReport(
            step=this.step,
            total_steps=this.schedule.total_steps,
            metrics=metrics,
            timing=timing,
            prototypes=prototypes_of(this.config),
        )


@contextmanager
def open_records(this: Run, *, workload: Workload | None = None) -> Iterator[Records]:
    """The files, continued after the run's present step; with a `workload` they tell how much of the device is used."""
    if not this.world.is_main:
        yield Records(None)
        return
    with (
        JsonLines(this.folder.metrics_file, keep_until_step=this.step) as metrics,
        JsonLines(this.folder.timing_file, keep_until_step=this.step) as timing,
    ):
        yield Records((metrics, timing), system=System(this.world.device, workload=workload))


def metrics_of(this: Run, result: StepResult) -> dict[str, float]:
    """Losses and norms, averaged over ranks, and the values that the step used."""
    plan = schedule_at(this.step - 1, schedule=this.schedule)
    apart = {"backbone_lr": plan.backbone_lr, "head_lr": plan.head_lr} if this.schedule.freeze_backbone_steps else {}
    return logged_values(result, world=this.world) | {
        "lr": plan.lr,
        **apart,
        "last_layer_lr": plan.last_layer_lr,
        "wd": plan.weight_decay,
        "mom": plan.teacher_momentum,
        "teacher_temp": plan.teacher_temperature,
        "loss_scale": this.tools.scaler.get_scale() if this.tools.scaler.is_enabled() else 1.0,
        "skipped": float(result.skipped),
        "nonfinite_steps": this.num_nonfinite,
        "pictures_seen": this.position,
        "unreadable_files": len(this.unreadable.files),
    }


def prototypes_of(config: Config) -> dict[str, int]:
    """Prototypes behind each cross-entropy; their logarithm is the value of a uniform solution."""
    patches = config.ibot if config.ibot.separate_head else config.dino
    cls = config.dino.head_n_prototypes
    return {"dino_global": cls, "dino_local": cls, "ibot": patches.head_n_prototypes}
