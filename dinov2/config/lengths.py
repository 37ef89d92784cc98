"""How many optimizer steps each phase of a run takes, and how many pictures each process.

In: the sections optim, teacher and train. Out: `Lengths`. A length given in steps wins over the same length in
epochs; an epoch is `train.OFFICIAL_EPOCH_LENGTH` steps, as in the public code.
"""

from dataclasses import dataclass

from dinov2.config.schema import Config, Optim, Teacher, Train
from dinov2.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Phases of a run in optimizer steps."""

    total: int
    warmup: int
    freeze_last_layer: int
    warmup_teacher_temp: int


def lengths(optim: Optim, teacher: Teacher, *, train: Train) -> Lengths:
    """The phases in steps; epochs may be fractions, and a fraction of a step is dropped."""
    epoch = train.OFFICIAL_EPOCH_LENGTH

    def steps(given: int | None, *, epochs: float) -> int:
        return int(epochs * epoch) if given is None else given

    return Lengths(
        total=steps(optim.total_steps, epochs=optim.epochs),
        warmup=steps(optim.warmup_steps, epochs=optim.warmup_epochs),
        freeze_last_layer=steps(optim.freeze_last_layer_steps, epochs=optim.freeze_last_layer_epochs),
        warmup_teacher_temp=steps(teacher.warmup_teacher_temp_steps, epochs=teacher.warmup_teacher_temp_epochs),
    )


def pictures_per_process(config: Config, *, num_processes: int) -> int:
    """Pictures of one forward pass: as configured, or a process's part of `train.global_batch_size`.

    Raises ConfigError where that cannot be divided equally.
    """
    whole, accumulation = config.train.global_batch_size, config.runtime.gradient_accumulation_steps
    if whole is None:
        return config.train.batch_size_per_gpu
    share = num_processes * accumulation
    if whole % share:
        near = sorted({max(1, whole // share) * share, (whole // share + 1) * share})
        raise ConfigError(
            f"train.global_batch_size = {whole} cannot be divided among {num_processes} processes x "
            f"runtime.gradient_accumulation_steps = {accumulation}. Take {' or '.join(map(str, near))}, or another "
            "number of processes."
        )
    return whole // share
