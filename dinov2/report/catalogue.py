"""Which numbers of a run are drawn, in which order, and what stands beside each.

In: records. Out: chapters of `Plan`s: a number's title, how to read it, and the value that means "nothing learned".
Numbers that are not known here are drawn in a chapter of their own, so a newer run loses nothing.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dinov2.report.folder import Record
from dinov2.report.pictures import told_series
from dinov2.report.series import Series

TOLD = "looks/told"
WAIT = "data_wait_percent"  # of the step's time; made here of two logged numbers
CLIP, CHANCE = "clip", "chance"  # where gradients are cut; what a guess would score
COUNTERS = ("pictures_seen", "nonfinite_steps", "unreadable_files", "skipped", "seconds_left", "data_wait_seconds")
PROBE = re.compile(r"(?P<probe>[^/]+)/(?P<split>[^/]+)/(?P<score>macro_auroc|accuracy)$")
OF_CLASS = re.compile(r"(?P<probe>[^/]+)/(?P<split>[^/]+)/auroc/(?P<name>.+)$")


@dataclass(frozen=True)
class Plan:
    """A chart to be: the number `key`."""

    key: str
    title: str
    note: str = ""
    unit: str = ""
    may_be_log: bool = True
    reference: str = ""  # "dino" or "ibot": ln K of that head; CLIP; CHANCE


@dataclass(frozen=True)
class Chapter:
    """Charts that are read together. `is_folded`: behind a line to open."""

    anchor: str
    title: str
    text: str
    plans: tuple[Plan, ...]
    is_folded: bool = False


LOSSES = (
    Plan("total_loss", "Total loss", "what is differentiated"),
    Plan("dino_global_cross_entropy", "DINO, global crops", "a plateau at ln K is no learning", "nats", False, "dino"),
    Plan("dino_local_cross_entropy", "DINO, local crops", "a plateau at ln K is no learning", "nats", False, "dino"),
    Plan("ibot_cross_entropy", "iBOT, hidden patches", "a plateau at ln K is no learning", "nats", False, "ibot"),
    Plan("koleo_loss", "KoLeo", "falls as class tokens move apart", may_be_log=False),
    Plan("teacher_entropy", "Teacher entropy", "of one assignment; ln K is uniform", "nats", False, "dino"),
    Plan(
        "teacher_marginal_entropy",
        "Prototype usage",
        "of the mean assignment; ln K: all in use",
        "nats",
        False,
        "dino",
    ),
)
FEATURES = (
    Plan("monitor/rankme", "Feature rank (RankMe)", "dimensions in use", may_be_log=False),
    Plan("monitor/effective_dimension", "Effective dimension", "participation ratio", may_be_log=False),
    Plan("monitor/mean_cosine", "Mean cosine", "1: all pictures look alike", may_be_log=False),
    Plan("monitor/patch_smoothness", "Patch smoothness", "near 0: patches say nothing of their place", "", False),
    Plan(TOLD, "Hidden patches predicted", "0: a uniform guess, 1: certain and right", "", False),
    Plan(
        "monitor/teacher_entropy",
        "Teacher entropy, monitored",
        "of one assignment; ln K is uniform",
        "nats",
        False,
        "dino",
    ),
    Plan(
        "monitor/teacher_marginal_entropy",
        "Prototype usage, monitored",
        "of the mean assignment",
        "nats",
        False,
        "dino",
    ),
)
SCHEDULES = (
    Plan("lr", "Learning rate", may_be_log=False),
    Plan("backbone_lr", "Learning rate, backbone", may_be_log=False),
    Plan("head_lr", "Learning rate, heads", may_be_log=False),
    Plan("last_layer_lr", "Learning rate, prototypes", may_be_log=False),
    Plan("wd", "Weight decay", may_be_log=False),
    Plan("mom", "Teacher momentum", may_be_log=False),
    Plan("teacher_temp", "Teacher temperature", may_be_log=False),
    Plan("loss_scale", "Loss scale", "of the fp16 scaler"),
)
SPEED = (
    Plan("pictures_per_second", "Speed", "", "pictures/s", False),
    Plan("seconds_per_step", "Time of a step", "", "s"),
    Plan(WAIT, "Wait for data", "of the step's time", "%", False),
    Plan("monitor_seconds", "Time of a look", "what the monitors took", "s", False),
    Plan("film_seconds", "Films of a look", "part of the time of a look", "s", False),
    Plan("matrix_share", "Share of the matrix rate", "of what the device multiplies at most", "", False),
    Plan("gpu_memory_gib", "GPU memory", "", "GiB", False),
    Plan("memory_gib", "Memory of the process", "", "GiB", False),
    Plan("cpu_share", "CPU in use", "share of the cores that it may use", "", False),
)
PARTS = {
    "grad_norm_backbone": "Gradient norm, backbone",
    "grad_norm_dino_head": "Gradient norm, DINO head",
    "grad_norm_ibot_head": "Gradient norm, iBOT head",
}


def numbers_of(record: Record) -> dict[str, Series]:
    """All numbers of a run, those of its metrics before those of its timing, with the share of waiting."""
    found = dict(record.timing.by_name) | dict(record.metrics.by_name)
    step, wait = found.get("seconds_per_step"), found.get("data_wait_seconds")
    if step is not None and wait is not None and np.array_equal(step.steps, wait.steps):
        with np.errstate(divide="ignore", invalid="ignore"):
            found[WAIT] = Series(step.steps, 100 * wait.values / step.values)
    if (told := told_series(record.looks)) is not None:
        found[TOLD] = told
    return {name: one for name, one in found.items() if len(one.finite)}


def chapters_of(numbers: Sequence[Mapping[str, Series]]) -> tuple[Chapter, ...]:
    """What there is to draw of these runs; a chapter that has nothing has no plans."""
    names = list(dict.fromkeys(name for one in numbers for name in one))
    gradients = tuple(
        Plan(
            name,
            PARTS.get(name, f"Gradient norm, {name.removeprefix('grad_norm_')}"),
            "before clipping",
            reference=CLIP,
        )
        for name in names
        if name.startswith("grad_norm_")
    )
    scores = [_score(name) for name in sorted(names)]
    probes = tuple(plan for plan in scores if plan is not None)
    classes = tuple(plan for name in sorted(names) if (plan := _of_class(name)) is not None)
    told = (*LOSSES, *FEATURES, *SCHEDULES, *SPEED, *gradients, *probes, *classes)
    known = {plan.key for plan in told} | set(COUNTERS)
    others = tuple(Plan(name, name) for name in names if name not in known)
    chapters = (
        Chapter("losses", "Losses and the teacher", "Dashes: ln K, the value of an answer that tells nothing.", LOSSES),
        Chapter("probes", "Probe scores", "", probes),
        Chapter("classes", "Probe scores, class by class", "", classes, is_folded=True),
        Chapter("features", "Features", "Of the teacher's class and patch tokens on the monitored pictures.", FEATURES),
        Chapter("gradients", "Gradients", "Dashes: optim.clip_grad, above which they are shortened.", gradients),
        Chapter("schedules", "Schedules", "", SCHEDULES),
        Chapter("speed", "Speed and machine", "", SPEED),
        Chapter("others", "Other numbers", "Logged, and drawn as they are.", others, is_folded=True),
    )
    there = set(names)
    return tuple(replace(one, plans=tuple(plan for plan in one.plans if plan.key in there)) for one in chapters)


def reference_of(plan: Plan, record: Record) -> tuple[float, str] | None:
    """The value that a chart of this run has dashes at, and its name."""
    if plan.reference == CHANCE:
        return 0.5, "chance"
    if plan.reference == CLIP:
        value = record.setting("optim.clip_grad")
        return (float(value), "clipped above") if isinstance(value, int | float) and value > 0 else None
    if not plan.reference:
        return None
    head = "ibot" if plan.reference == "ibot" and record.setting("ibot.separate_head") else "dino"
    count = record.setting(f"{head}.head_n_prototypes")
    return (math.log(count), f"ln {count:,}") if isinstance(count, int) and count > 1 else None


def _score(name: str) -> Plan | None:
    if (found := PROBE.match(name)) is None:
        return None
    is_area = found["score"] == "macro_auroc"
    title = f"{probe_name(found['probe'])}, {'macro AUROC' if is_area else 'accuracy'}"
    return Plan(name, title, f"on {found['split']}", may_be_log=False, reference=CHANCE if is_area else "")


def _of_class(name: str) -> Plan | None:
    if (found := OF_CLASS.match(name)) is None:
        return None
    title = found["name"].removeprefix("label_").replace("_", " ")
    note = f"{probe_name(found['probe'])}, AUROC on {found['split']}"
    return Plan(name, title, note, may_be_log=False, reference=CHANCE)


def probe_name(word: str) -> str:
    """As it is written in a sentence."""
    return {"knn": "kNN", "linear": "Linear probe"}.get(word, word)
