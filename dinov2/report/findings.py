"""What is wrong with a run, or right, in sentences that say what to do.

In: a record and its numbers. Out: `Finding`s, the gravest first. The alarms are those of the training itself
(`dinov2.train.monitors.alarms`), heard again over the lines of the run; a run that was never looked at is heard over
means of its logged lines.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from dinov2.config import Config
from dinov2.config.keys import leaves
from dinov2.config.load import from_plain
from dinov2.errors import ConfigError, Dinov2Error
from dinov2.models.registry import architecture_arguments
from dinov2.report.catalogue import WAIT
from dinov2.report.folder import Record
from dinov2.report.scale import figure
from dinov2.report.series import Series
from dinov2.train.monitors.alarms import Alarms

Grade = Literal["bad", "warn", "note", "good"]
ORDER: tuple[Grade, ...] = ("bad", "warn", "good", "note")
WINDOWS = 20  # of a run without looks, each heard as one
WAIT_PERCENT = 10.0
SPIKE = 20.0  # times the median gradient norm
BEHIND = 0.01  # of the best probe score, that the last may be below it
RANK_LOST = 0.5  # of the greatest rank
SENTENCE = re.compile(
    r"step \d+: (?:no longer so: )?(?P<what>.+?) since step (?P<since>\d+)\.(?P<advice>.*)", re.DOTALL
)
LETTERS = 16  # by which the end of an alarm is known to be its end: before the first number

Numbers = Mapping[str, Series]


@dataclass(frozen=True)
class Finding:
    """A sentence; `advice` is what to do. `more` sentences are those for which the same is to be done."""

    grade: Grade
    text: str
    advice: str = ""
    more: tuple[str, ...] = ()


def findings_of(record: Record, *, numbers: Numbers) -> tuple[Finding, ...]:
    """What somebody should know first about a run."""
    found = [*_of_state(record), *_alarms(record, numbers), *_of_faults(record, numbers), *_of_trend(record, numbers)]
    found += _of_speed(numbers)
    if numbers and not any(one.grade in ("bad", "warn") for one in found):
        found.append(_of_peace(record, numbers))
    return _together(sorted(found, key=lambda one: ORDER.index(one.grade)))


def _of_peace(record: Record, numbers: Numbers) -> Finding:
    """That nothing is wrong, as far as it can be said."""
    num_looks, patience = len(numbers.get("monitor/rankme", ())), record.setting("monitors.patience", 1)
    if 0 < num_looks < patience:
        so_far = "1 so far" if num_looks == 1 else f"{num_looks} so far"
        return Finding(
            "note", f"Too early to say that all is well: it takes {patience} looks at the teacher, {so_far}."
        )
    text = "No alarm holds: no loss term is at its uniform value"
    return Finding("good", f"{text}, features keep their rank and differ." if num_looks else f"{text}.")


def _together(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Those that give the same advice as one."""
    kept: dict[tuple[str, str], Finding] = {}
    for place, one in enumerate(found):
        key = (one.grade, one.advice or str(place))
        kept[key] = replace(kept[key], more=(*kept[key].more, one.text)) if key in kept else one
    return tuple(kept.values())


def _of_state(record: Record) -> Iterator[Finding]:
    if record.state == "failed":
        yield Finding("bad", f"The run failed: {record.words or 'it left no last words.'}", "See logs/train.log.")
    elif record.state == "stopped":
        of = f" of {record.total_steps:,}" if record.total_steps else ""
        yield Finding("note", f"The run stopped at step {record.step:,}{of}.", "The same command continues it.")
    elif record.state == "waiting":
        yield Finding("note", f"The run has not begun{f': {record.words}' if record.words else ''}.")
    if not record.metrics.by_name and record.state != "waiting":
        yield Finding("note", "No step has been logged yet, so there is nothing to draw.")
    if record.metrics.num_damaged + record.timing.num_damaged:
        count = record.metrics.num_damaged + record.timing.num_damaged
        lines = "1 line" if count == 1 else f"{count:,} lines"
        yield Finding("note", f"{lines} of training_metrics.json or logs/timing.json cannot be read and are left out.")
    unknown = set(record.settings) - set(leaves(Config))
    if unknown:
        names = ", ".join(sorted(unknown)[:4]) + (" ..." if len(unknown) > 4 else "")
        yield Finding("note", f"The run was written by another version: it has settings that this one lacks ({names}).")


def _alarms(record: Record, numbers: Numbers) -> Iterator[Finding]:
    """Each alarm once: that it holds, or that it is over."""
    config = config_of(record.settings)
    width = _width(config) if config is not None else None
    if config is None or width is None or not numbers:
        return
    splits = 2 if config.monitors.dataset else 1
    alarms = Alarms(config, num_pictures=record.num_monitored or splits * config.monitors.max_pictures, width=width)
    held: dict[tuple[str, str], re.Match[str]] = {}
    over: dict[tuple[str, str], int] = {}
    for step, line in _lines(numbers):
        for text, is_warning in alarms.hear(step, line):
            if (said := SENTENCE.match(text)) is None:
                continue
            key = (said["since"], said["what"][:LETTERS])
            if is_warning:
                held[key] = said
            else:
                over[key] = step
    for key, said in held.items():
        what, since = said["what"][0].upper() + said["what"][1:], f"{int(said['since']):,}"
        if key in over:
            yield Finding("note", f"{what}: from step {since} to {over[key]:,}, and no longer.")
        else:
            yield Finding("bad", f"{what} since step {since}.", said["advice"].strip())


def _lines(numbers: Numbers) -> Iterator[tuple[int, dict[str, float]]]:
    """The looks of the monitors; of a run without them, means over windows of what was logged."""
    looks = numbers.get("monitor/rankme")
    if looks is not None:
        at = {}
        for name, one in numbers.items():
            looked = np.isin(one.steps, looks.steps)
            at[name] = dict(zip(one.steps[looked].tolist(), one.values[looked].tolist(), strict=True))
        for step in looks.steps.tolist():
            yield step, {name: values[step] for name, values in at.items() if step in values}
        return
    heard = {name: one.finite for name, one in numbers.items() if name.endswith(("_cross_entropy", "_entropy"))}
    heard = {name: one for name, one in heard.items() if len(one) >= WINDOWS}
    if not heard:
        return
    last = max(int(one.steps[-1]) for one in heard.values())
    edges = np.linspace(0, last, WINDOWS + 1)
    for begin, end in pairwise(edges.tolist()):
        means = {}
        for name, one in heard.items():
            inside = (one.steps > begin) & (one.steps <= end)
            if inside.any():
                means[f"monitor/{name}" if name.startswith("teacher") else name] = float(one.values[inside].mean())
        yield int(end), means


def config_of(settings: Mapping[str, Any]) -> Config | None:
    """The settings that this version knows; None where they are none of a training."""
    known = leaves(Config)
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        if key in known:
            *parents, last = key.split(".")
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[last] = value
    try:
        return from_plain(Config, tree) if tree else None
    except ConfigError:
        return None


def _width(config: Config) -> int | None:
    try:
        return int(architecture_arguments(config.student, img_size=config.crops.global_crops_size)["embed_dim"])
    except Dinov2Error:
        return None


def _of_faults(record: Record, numbers: Numbers) -> Iterator[Finding]:
    skipped = max(_last(numbers, "nonfinite_steps"), float(record.facts.get("num_nonfinite") or 0))
    if skipped > 0:
        dump = f"dinov2 replay {record.path.name}/nonfinite/{record.dumps[-1]}" if record.dumps else ""
        words = "1 step was" if skipped == 1 else f"{skipped:,.0f} steps were"
        yield Finding(
            "bad" if record.dumps else "warn",
            f"{words} skipped: a loss or gradient was not finite.",
            f"The last was written down: {dump}"
            if dump
            else "If it goes on: a lower optim.base_lr, a longer optim.warmup_steps, runtime.precision=bf16.",
        )
    if (bad := _last(numbers, "unreadable_files")) > 0:
        words = "1 file could" if bad == 1 else f"{bad:,.0f} files could"
        advice = "Repair or exclude them (data.exclude=FILES.csv); they are listed below."
        yield Finding("warn", f"{words} not be read; neighbours took their place.", advice)
    for name, one in numbers.items():
        if name.startswith("grad_norm_") and len(one.finite) > WINDOWS:
            values, middle = one.finite.values, float(np.median(one.finite.values))
            highest = int(np.argmax(values))
            if middle > 0 and values[highest] > SPIKE * middle and highest > len(values) // WINDOWS:
                part = name.removeprefix("grad_norm_").replace("_", " ")
                yield Finding(
                    "note",
                    f"The gradient of the {part} rose to {figure(float(values[highest]))} at step "
                    f"{one.finite.steps[highest]:,}, {values[highest] / middle:,.0f} times its median.",
                    "Clipping has cut it (optim.clip_grad); should it come again, lower optim.base_lr.",
                )


def _of_trend(record: Record, numbers: Numbers) -> Iterator[Finding]:
    if numbers and "monitor/rankme" not in numbers:
        yield Finding(
            "note",
            "The teacher was never looked at, so there is neither a score nor a rank.",
            "Set monitors.every_steps below the run's length, and monitors.dataset with monitors.labels for scores.",
        )
    for name, one in numbers.items():
        if not name.endswith("/val/macro_auroc") or len(one.finite) < 3:
            continue
        values, steps = one.finite.values, one.finite.steps
        best = int(np.argmax(values))
        if values[-1] < values[best] - BEHIND:
            probe = {"knn": "kNN", "linear": "linear-probe"}.get(name.partition("/")[0], name.partition("/")[0])
            kept = record.best is not None
            yield Finding(
                "note",
                f"The {probe} macro AUROC was best at step {steps[best]:,} ({values[best]:.4f}); it is "
                f"{values[-1]:.4f} at step {steps[-1]:,}.",
                f"exports/best holds step {record.best.step:,}."
                if kept and record.best
                else f"To keep the best: checkpoint.select_by={name}.",
            )
    rank = numbers.get("monitor/rankme")
    if rank is not None and len(rank.finite) >= 3:
        values, steps = rank.finite.values, rank.finite.steps
        highest = int(np.argmax(values))
        if values[-1] < RANK_LOST * values[highest] and highest < len(values) - 1:
            yield Finding(
                "warn",
                f"The feature rank has fallen from {values[highest]:.1f} at step {steps[highest]:,} to "
                f"{values[-1]:.1f}.",
                "Features draw together. Try a larger dino.koleo_loss_weight or a lower optim.base_lr.",
            )


def _of_speed(numbers: Numbers) -> Iterator[Finding]:
    wait = numbers.get(WAIT)
    if wait is not None and len(wait.finite) >= 3:
        middle = float(np.median(wait.finite.values))
        if middle > WAIT_PERCENT:
            yield Finding(
                "warn",
                f"The step waits for data {middle:.0f} % of its time.",
                "More train.num_workers, data.cache=ram, or smaller pictures; dinov2 bench loader measures it.",
            )


def _last(numbers: Numbers, name: str) -> float:
    value = numbers[name].last if name in numbers else math.nan
    return value if math.isfinite(value) else 0.0
