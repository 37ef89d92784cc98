"""What a run is: its headline numbers, its pictures, its machine, and what went wrong on the way.

In: a record and its numbers. Out: rows of text for the page.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dinov2.report.catalogue import PROBE, probe_name
from dinov2.report.folder import Record
from dinov2.report.scale import figure
from dinov2.report.series import Series
from dinov2.report.settings import shown

GROUPS = {"by_dataset": "dataset", "by_view": "view", "by_split": "split"}
MOST_BARS = 12
MOST_FILES = 100
MOST_SKIPPED = 30
RECENT = 50  # logged steps over which a speed is a median

Numbers = Mapping[str, Series]


@dataclass(frozen=True)
class Card:
    """A headline number."""

    value: str
    label: str
    colour: str = ""


@dataclass(frozen=True)
class Bar:
    """A group of pictures; `length` is its share of the longest, `share` that of all, both in percent."""

    name: str
    count: int
    length: float
    share: float


@dataclass(frozen=True)
class Skipped:
    """Steps that were not finite between two logged ones."""

    after: int
    until: int
    count: int


def cards_of(record: Record, *, numbers: Numbers) -> list[Card]:
    """How far it is, what it has reached, how fast it goes."""
    of = f" of {record.total_steps:,}" if record.total_steps else ""
    cards = [Card(f"{record.step:,}", f"steps{of}")]
    seen = numbers["pictures_seen"].last if "pictures_seen" in numbers else math.nan
    if math.isfinite(seen):
        pictures = _data(record).get("pictures")
        passes = f", {seen / pictures:,.1f} passes" if isinstance(pictures, int) and pictures else ""
        cards.append(Card(_counted(seen), f"pictures seen{passes}"))
    cards += list(_scores(record, numbers))
    if "monitor/rankme" in numbers:
        cards.append(Card(f"{numbers['monitor/rankme'].last:.1f}", "feature rank (RankMe)"))
    if (speed := recent(numbers, "pictures_per_second")) is not None:
        cards.append(Card(figure(speed), "pictures/s"))
    left = numbers["seconds_left"].last if "seconds_left" in numbers else math.nan
    wall = (record.facts.get("about") or {}).get("wall_seconds")
    if record.state == "running" and math.isfinite(left):
        cards.append(Card(duration(left), "left"))
    elif isinstance(wall, int | float):
        cards.append(Card(duration(wall), "wall time"))
    return cards


def recent(numbers: Numbers, name: str) -> float | None:
    """Median of the newest values."""
    values = numbers[name].finite.values[-RECENT:] if name in numbers else np.empty(0)
    return float(np.median(values)) if len(values) else None


def groups_of(record: Record) -> list[tuple[str, tuple[Bar, ...], int]]:
    """Pictures by dataset, view and split: name, the largest groups, how many more there are."""
    data, found = _data(record), []
    for key, name in GROUPS.items():
        counts = {str(k): int(v) for k, v in (data.get(key) or {}).items() if isinstance(v, int)}
        if counts:
            ordered = sorted(counts.items(), key=lambda item: -item[1])
            longest, total = max(1, ordered[0][1]), max(1, sum(counts.values()))
            bars = tuple(Bar(one, n, 100 * n / longest, 100 * n / total) for one, n in ordered[:MOST_BARS])
            found.append((name, bars, len(ordered) - len(bars)))
    return found


def words_of(record: Record) -> tuple[str, ...]:
    """What the run is, in a line: network, pictures, machine, code."""
    facts = dict(_facts(record))
    pictures = _data(record).get("pictures")
    words = [
        facts["network"],
        f"{pictures:,} pictures" if isinstance(pictures, int) else "",
        facts["hardware"],
        f"commit {facts['commit']}" if facts.get("commit") else "",
    ]
    return tuple(word for word in words if word)


def facts_of(record: Record) -> list[tuple[str, str]]:
    """Data, machine, versions, code: what is known of them."""
    return [(name, text) for name, text in _facts(record) if text]


def bad_files_of(record: Record) -> list[tuple[str, str]]:
    """Files that could not be read, and why; as the newest checkpoint has them."""
    files = record.facts.get("unreadable")
    if not isinstance(files, Mapping):
        return []
    return [(shown(str(path)), str(reason)) for path, reason in list(files.items())[:MOST_FILES]]


def skipped_of(numbers: Numbers) -> list[Skipped]:
    """Where the counter of steps that were not finite has risen; the newest ones."""
    counter = numbers.get("nonfinite_steps")
    if counter is None:
        return []
    steps, counts = counter.finite.steps, counter.finite.values
    rises = np.diff(counts, prepend=0.0)
    return [Skipped(int(steps[i - 1]) if i else 0, int(steps[i]), int(rises[i])) for i in np.flatnonzero(rises > 0)][
        -MOST_SKIPPED:
    ]


def duration(seconds: float) -> str:
    """2 d 4 h, 3 h 05 min, 12 min, 40 s"""
    minutes = round(seconds / 60)
    if minutes >= 48 * 60:
        return f"{minutes // 1440} d {minutes % 1440 // 60} h"
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _scores(record: Record, numbers: Numbers) -> Iterator[Card]:
    if record.best is not None and record.best.score is not None:
        name = record.best.selected_by
        if (found := PROBE.match(name)) is not None:
            kind = "AUROC" if found["score"] == "macro_auroc" else "accuracy"
            name = f"{probe_name(found['probe'])} {kind}"
        yield Card(f"{record.best.score:.4f}", f"best {name}, step {record.best.step:,}", "main")
        return
    for name, one in numbers.items():
        if (found := PROBE.match(name)) is not None and found["score"] == "macro_auroc":
            yield Card(f"{one.last:.4f}", f"{probe_name(found['probe'])} AUROC, newest", "main")


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    data, about = _data(record), record.facts.get("about") or {}
    environment = record.facts.get("environment") or {}
    hardware = about.get("hardware") or {}
    if (pictures := data.get("pictures")) is not None:
        patients = f", {data['patients']:,} patients" if isinstance(data.get("patients"), int) else ""
        yield "pictures", f"{pictures:,}{patients}"
    yield "network", _network(record)
    batch, size = record.facts.get("global_batch"), record.facts.get("world_size")
    if isinstance(batch, int):
        yield (
            "pictures per step",
            f"{batch:,}" + (f" over {size:,} processes" if isinstance(size, int) and size > 1 else ""),
        )
    yield "hardware", ", ".join(map(str, hardware.get("devices") or ()))
    yield "precision", str(record.facts.get("precision") or "")
    versions = [
        f"{name} {environment[name]}" for name in ("dinov2", "torch", "python", "cuda") if environment.get(name)
    ]
    yield "versions", ", ".join(versions)
    git = environment.get("git") or {}
    if git.get("commit"):
        yield "commit", str(git["commit"])[:12] + (", with changes" if git.get("changed") else "")
    slurm = environment.get("slurm") or {}
    yield "SLURM", ", ".join(f"{name} {value}" for name, value in slurm.items())
    yield "newest checkpoint", f"step {record.facts['step']:,}" if isinstance(record.facts.get("step"), int) else ""
    if record.best is not None:
        score = "" if record.best.score is None else f", {record.best.score:.4f}"
        yield "exports/best", f"step {record.best.step:,}, by {record.best.selected_by}{score}"


def _network(record: Record) -> str:
    arch, patch = record.setting("student.arch"), record.setting("student.patch_size")
    if arch is None:
        return ""
    custom = ""
    if arch == "vit_custom":
        custom = f", {record.setting('student.depth')} blocks of width {record.setting('student.embed_dim')}"
    size = record.setting("crops.global_crops_size")
    return f"{arch}/{patch}{custom}" + (f", {size} px" if size else "")


def _data(record: Record) -> Mapping[str, Any]:
    data = (record.facts.get("about") or {}).get("data")
    return data if isinstance(data, Mapping) else {}


def _counted(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value:,.0f}"
