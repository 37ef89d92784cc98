"""Everything that a run's folder tells, read once.

In: a run, or a folder of runs. Out: a `Record` of each: state, numbers, settings, facts, pictures, messages. What is
absent or of another version is left empty; nothing is written.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.backbone_card import read_card
from dinov2.checkpoint.reading import read_facts
from dinov2.errors import CheckpointError, LaunchError, WeightsError
from dinov2.launch import RunReport, read_runs
from dinov2.looks import Films, Look, read_films, read_looks
from dinov2.report.series import Numbers, read_numbers

LOGGED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (?P<level>[A-Z]+) (?P<text>.*)")
MONITORED = re.compile(r"monitors: every \d+ steps on (?P<what>.+), \d+ px")
COUNT = re.compile(r"(?<![\w.])\d[\d,]*(?= )")
MAX_MESSAGES = 200  # warnings of a log that are kept, the newest


@dataclass(frozen=True)
class Best:
    """What `exports/best` holds."""

    step: int
    score: float | None
    selected_by: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A run."""

    path: Path
    name: str
    state: str  # finished, running, waiting, stopped, failed
    words: str  # its last ones, where it failed or waits
    step: int
    total_steps: int | None
    metrics: Numbers
    timing: Numbers
    settings: Mapping[str, Any]  # dotted keys of config.yaml
    facts: Mapping[str, Any]  # of the newest checkpoint, or as far as the newest export has them
    best: Best | None
    messages: tuple[str, ...]  # warnings and errors of the log
    num_monitored: int | None  # pictures that the monitors look at
    dumps: tuple[int, ...]  # steps in nonfinite/
    films: Films
    looks: tuple[Look, ...]  # those that fit the films

    def setting(self, key: str, default: Any = None) -> Any:
        """A value of config.yaml; `default` where that version did not have it."""
        return self.settings.get(key, default)


def read_records(folders: Sequence[Path]) -> list[Record]:
    """A record of every run in the folders, each once.  Raises LaunchError where there is none, or a file is named."""
    for folder in folders:
        if folder.is_file():
            raise LaunchError(f"{folder}: a file. Give the folder of the run: {folder.parent}")
    # one run may be named twice, or stand in a folder that is named too
    reports = list({report.path.resolve(): report for report in read_runs(folders)}.values())
    names = _names([report.path for report in reports])
    return [_read(report, name=name) for report, name in zip(reports, names, strict=True)]


def _read(report: RunReport, *, name: str) -> Record:
    path = report.path
    metrics, timing = (read_numbers(path / file) for file in ("training_metrics.json", "logs/timing.json"))
    step = max(report.step, metrics.last_step)
    over = report.total_steps is not None and step >= report.total_steps
    messages, num_monitored = _from_log(path / "logs" / "train.log")
    films = read_films(path)
    return Record(
        path=path,
        name=name,
        # A folder that was copied without its checkpoints has run to its end all the same.
        state="finished" if report.state == "stopped" and over else report.state,
        words=report.words,
        step=step,
        total_steps=report.total_steps,
        metrics=metrics,
        timing=timing,
        settings={key: value for key, value in report.settings.items() if isinstance(key, str)},
        facts=_facts(path),
        best=_best(path / "exports" / "best"),
        messages=messages,
        num_monitored=num_monitored,
        dumps=_numbered(path / "nonfinite"),
        films=films,
        looks=tuple(look for look in read_looks(path) if _fits(look, films)),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """As short as tells them apart: the folder's name, with as many of its parents as it takes."""
    resolved = [path.resolve() for path in paths]
    for parts in range(1, max((len(path.parts) for path in resolved), default=1) + 1):
        names = ["/".join(path.parts[-parts:]) for path in resolved]
        if len(set(names)) == len(names):
            break
    return names


def _fits(look: Look, films: Films) -> bool:
    """Whether a look is of these films and whole in itself."""
    shape = (len(films), *look.grid)
    maps = (look.attention.shape, look.masks.shape, look.agreement.shape)
    rows = look.neighbours.shape == look.similarity.shape and len(look.neighbours) == len(films)
    return len(films) > 0 and look.colours.shape == (*shape, 3) and all(one == shape for one in maps) and rows


def _facts(path: Path) -> Mapping[str, Any]:
    for step in reversed(_numbered(path / "checkpoints")):
        try:
            facts = read_facts(path / "checkpoints" / str(step))
        except CheckpointError:
            continue
        if isinstance(facts, dict):
            return facts
    for step in reversed(_numbered(path / "exports")):
        try:
            provenance = read_card(path / "exports" / str(step)).provenance
        except WeightsError:
            continue
        known = ("data", "hardware", "wall_seconds", "preprocessing")
        about = {name: provenance[name] for name in known if name in provenance}
        return {**provenance, "about": about}
    return {}


def _best(folder: Path) -> Best | None:
    try:
        card = read_card(folder)
    except WeightsError:
        return None
    score = card.provenance.get("score")
    return Best(
        step=int(card.step),
        score=float(score) if isinstance(score, int | float) else None,
        selected_by=str(card.provenance.get("selected_by") or ""),
    )


def _numbered(folder: Path) -> tuple[int, ...]:
    """Folders whose name is a number, ascending."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(int(one.name) for one in folder.iterdir() if one.name.isdecimal() and one.is_dir()))


def _from_log(path: Path) -> tuple[tuple[str, ...], int | None]:
    """Warnings and errors, each once; and on how many pictures the monitors look."""
    messages: dict[str, None] = {}
    num_monitored = None
    try:
        stream = path.open(encoding="utf-8", errors="replace")
    except OSError:
        return (), None
    with stream:
        for line in stream:
            if (found := LOGGED.match(line)) is None:
                continue
            if found["level"] in ("WARNING", "ERROR", "CRITICAL"):
                messages[found["text"]] = None
            elif (looked := MONITORED.match(found["text"])) is not None:
                counts = COUNT.findall(looked["what"])
                num_monitored = sum(int(count.replace(",", "")) for count in counts) or None
    return tuple(messages)[-MAX_MESSAGES:], num_monitored
