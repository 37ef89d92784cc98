"""What the numbers of a look mean when a training goes wrong: in words, with what to do.

In: the numbers of every monitored step. Out: a sentence when something has held for `monitors.patience` looks in a row,
and one when it is over; never the same in between. Nothing is kept in a checkpoint: a run that continues goes over the
lines of its own file again.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dinov2.config.lengths import lengths
from dinov2.config.schema import Config
from dinov2.train.monitors.passes import most_entropy
from dinov2.train.records import prototypes_of

Numbers = Mapping[str, Any]  # of a line of training_metrics.json; None where a number is not finite


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Something that may be wrong, read off one number."""

    number: str
    wrong: Callable[[float], bool]
    is_that: str  # what is so; {value} is the number
    to_do: str


@dataclass
class _State:
    since: int | None = None  # the first of the looks in a row
    looks: int = 0
    told: bool = False


class Alarms:
    """The alarms of a run and how long each has held."""

    def __init__(self, config: Config, *, num_pictures: int, width: int) -> None:
        self._patience = config.monitors.patience
        self._warmup = lengths(config.optim, config.teacher, train=config.train).warmup
        self._states = [(alarm, _State()) for alarm in _alarms(config, num_pictures=num_pictures, width=width)]

    def catch_up(self, lines: Iterable[Numbers], *, until: int) -> None:
        """Goes over the looks of an earlier process, up to the step from which the run continues."""
        for line in lines:
            if line["step"] <= until and "monitor/rankme" in line:
                for _ in self.hear(line["step"], line):
                    pass

    def hear(self, step: int, numbers: Numbers) -> Iterator[tuple[str, bool]]:
        """What there is to say after a look; with each sentence whether it is a warning."""
        for alarm, state in self._states:
            value = numbers.get(alarm.number)
            if value is None or not math.isfinite(value):
                continue
            if alarm.wrong(value):
                state.since = step if state.since is None else state.since
                state.looks += 1
                if state.looks >= self._patience and not state.told:
                    state.told = True
                    yield self._begun(alarm, state, step=step, value=value), True
                continue
            if state.told:
                yield f"step {step}: no longer so: {alarm.is_that.format(value=value)} since step {state.since}.", False
            state.since, state.looks, state.told = None, 0, False

    def _begun(self, alarm: Alarm, state: _State, *, step: int, value: float) -> str:
        early = f" In the warm-up (until step {self._warmup}) this may still pass." if step <= self._warmup else ""
        return f"step {step}: {alarm.is_that.format(value=value)} since step {state.since}.{early} {alarm.to_do}"


def _alarms(config: Config, *, num_pictures: int, width: int) -> list[Alarm]:
    section, of_cls = config.monitors, config.dino.head_n_prototypes
    uniform, widest = math.log(of_cls), most_entropy(of_cls, num_pictures=num_pictures)
    most_rank = min(width, num_pictures)
    sinkhorn = "" if config.train.centering == "sinkhorn_knopp" else "train.centering=sinkhorn_knopp, "
    koleo = f"a larger dino.koleo_loss_weight (now {config.dino.koleo_loss_weight:g})"
    alarms = [
        Alarm(
            number="monitor/teacher_entropy",
            wrong=lambda value: value >= section.uniform_share * uniform,
            is_that=f"the teacher is at ln K: uniform (entropy {{value:.4f}} of ln {of_cls} = {uniform:.4f})",
            to_do="It tells no picture from another, so there is nothing to learn. Try fewer prototypes "
            f"(dino.head_n_prototypes, now {of_cls}), {sinkhorn}a lower teacher.warmup_teacher_temp and "
            "teacher.teacher_temp.",
        ),
        Alarm(
            number="monitor/teacher_marginal_entropy",
            wrong=lambda value: value <= section.one_prototype_share * widest,
            is_that="the teacher gives all pictures to about one prototype (entropy of the mean assignment "
            f"{{value:.4f}}, at most {widest:.4f})",
            to_do=f"All pictures are the same to it. Try {sinkhorn}a higher teacher.warmup_teacher_temp, a lower "
            "optim.base_lr.",
        ),
        Alarm(
            number="monitor/rankme",
            wrong=lambda value: value <= section.min_rank_share * most_rank,
            is_that=f"class tokens use {{value:.2f}} of {most_rank} dimensions (RankMe)",
            to_do=f"Dimensions have collapsed. Try {koleo}, a lower optim.base_lr, a longer optim.warmup_steps.",
        ),
        Alarm(
            number="monitor/mean_cosine",
            wrong=lambda value: value > section.max_cosine,
            is_that="class tokens of different pictures are nearly equal (mean cosine {value:.4f})",
            to_do=f"The backbone hardly looks at the picture. Try {koleo}, a lower optim.base_lr.",
        ),
    ]
    for name, count in prototypes_of(config).items():
        key = "ibot" if name == "ibot" and config.ibot.separate_head else "dino"
        alarms.append(_loss_at_uniform(name, count=count, share=section.uniform_share, key=key, sinkhorn=sinkhorn))
    return alarms


def _loss_at_uniform(name: str, *, count: int, share: float, key: str, sinkhorn: str) -> Alarm:
    uniform = math.log(count)
    return Alarm(
        number=f"{name}_cross_entropy",
        wrong=lambda value: abs(value - uniform) <= (1 - share) * uniform,
        is_that=f"the loss {name} is at the value of a uniform answer ({{value:.4f}}, ln {count} = {uniform:.4f})",
        to_do=f"Nothing is learnt from it. Try fewer prototypes ({key}.head_n_prototypes, now {count}), {sinkhorn}"
        "student.layerscale=1, optim.layerwise_decay=1.",
    )
