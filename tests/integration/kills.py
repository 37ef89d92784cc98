"""Runs that are killed and continued: how, when, and what is looked at afterwards.

In: a `Bench` (configuration, pictures, a folder) and `KillPoint`s. Out: an `Outcome` for each, with the faults found;
none means that the run went on as if nothing had happened. Processes are real, and so are the signals.
"""

import fcntl
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from dinov2.checkpoint.reading import newest_sound, steps_in

from .equality import differences
from .launches import Launch, launch, send
from .runs import command, finish_together, torchrun, train_words

TOTAL_STEPS = 12
EVERY_STEPS = 2  # so that most kills lose a step
INTERRUPTED = 130
LONGEST_END_SECONDS = 60

TINY_RUN = (
    f"checkpoint.every_steps={EVERY_STEPS}",
    "checkpoint.keep_last=2",
    "train.global_batch_size=8",
    f"optim.total_steps={TOTAL_STEPS}",
    "student.embed_dim=64",
    "dino.head_n_prototypes=256",
    "dino.head_hidden_dim=128",
)


class Setting(StrEnum):
    """What the run computes."""

    USUAL = "fp32"
    HALF = "fp16"  # the loss scale starts far too high: the first half of the steps is skipped
    ELASTIC = "elastic"  # nothing depends on the number of processes


WORDS: dict[Setting, tuple[str, ...]] = {
    Setting.USUAL: (),
    Setting.HALF: ("runtime.precision=fp16", "dino.loss_weight=0.1", "ibot.loss_weight=0.1"),
    Setting.ELASTIC: ("student.drop_path_rate=0", "dino.koleo_over_all_processes=true"),
}


class Kind(StrEnum):
    """What is done to the run, and at which moment."""

    ONE = "SIGKILL of one process"
    ALL = "SIGKILL of all"
    SELF_TEST = "SIGKILL of all in the self-test at step 0"
    SAVING = "SIGKILL of all during a save"
    SAVING_ONE = "SIGKILL of one process during a save"
    SAVED = "SIGKILL of all right after a save"
    EXPORT = "SIGKILL of all during the export at the end"
    TERM = "SIGTERM to all"
    TERM_ONE = "SIGTERM to one process"
    INT = "Ctrl-C"
    USR1 = "SIGUSR1 to all"


OF_ONE = (Kind.ONE, Kind.SAVING_ONE, Kind.TERM_ONE)
REQUESTS = {
    Kind.TERM: signal.SIGTERM,
    Kind.TERM_ONE: signal.SIGTERM,
    Kind.INT: signal.SIGINT,
    Kind.USR1: signal.SIGUSR1,
}


@dataclass(frozen=True, kw_only=True)
class KillPoint:
    """One kill: what, when, and with how many processes before and after."""

    kind: Kind
    before: int
    after: int
    step: int = 0  # its moment is looked for from this step on; 0: from the start of the processes
    delay: float = 0.0  # seconds from the moment to the kill
    victim: int = 0  # rank, where one process is meant

    def __str__(self) -> str:
        moment = f"step {self.step} + " if self.step else ""
        who = f" (rank {self.victim})" if self.kind in OF_ONE else ""
        return f"{self.before} -> {self.after}  {self.kind}{who}, {moment}{self.delay:.2f} s"


@dataclass(kw_only=True)
class Outcome:
    """What a kill left, and what became of it."""

    point: KillPoint
    happened: bool = True  # False: the run was through before its moment came
    half_saved: bool = False  # a save was under way
    checkpoint: int = 0  # the newest whole one after the kill; 0: none
    seconds_to_end: float = 0.0  # from the kill until the launcher was gone
    faults: list[str] = field(default_factory=list)


class Bench:
    """Runs of one configuration on one set of pictures, below one folder; uninterrupted ones are made once."""

    def __init__(self, folder: Path, *, config: Path, pictures: Path) -> None:
        self.folder, self.config, self.pictures = folder, config, pictures
        self._whole: dict[tuple[Setting, int], Path] = {}

    def start(
        self, run: Path, *, size: int, setting: Setting, asynchronous: bool = True, max_restarts: int = 0
    ) -> Launch:
        """The command on `size` processes; what it says lies beside the run folder."""
        words = self._words(run, setting=setting, asynchronous=asynchronous)
        whole = command(*words)
        if size > 1:
            whole = torchrun(size, *words)
            whole[3:3] = [f"--max-restarts={max_restarts}"]
        return launch(whole, size=size, folder=run.parent)

    def _words(self, run: Path, *, setting: Setting, asynchronous: bool = True) -> list[str]:
        saving = f"checkpoint.asynchronous={str(asynchronous).lower()}"
        return train_words(self.config, self.pictures, run, *TINY_RUN, *WORDS[setting], saving)

    def whole_run(self, setting: Setting, *, size: int) -> Path:
        """An uninterrupted run."""
        if (setting, size) not in self._whole:
            run = self.folder / f"whole_{setting}_{size}" / "run"
            finish_together(size, command(*self._words(run, setting=setting)))
            self._whole[setting, size] = run
        return self._whole[setting, size]

    def judge(self, points: Sequence[KillPoint], *, name: str, setting: Setting | None = None) -> list[Outcome]:
        """One run, killed at every point in turn and each time continued by the same command, then compared.

        Faults of the end are those of the last outcome.
        """
        sizes = {size for point in points for size in (point.before, point.after)}
        exactly = len(sizes) == 1
        setting = setting or (Setting.USUAL if exactly else Setting.ELASTIC)
        reference = self.whole_run(setting, size=points[0].before if exactly else 1)
        run = self.folder / name / "run"
        outcomes: list[Outcome] = []
        launches: list[Launch] = []
        try:
            for point in points:
                launches.append(self.start(run, size=point.before, setting=setting, asynchronous=_asynchronous(point)))
                outcomes.append(_kill(launches[-1], run, point))
            faults = self._finish(run, points[-1], setting=setting)
            outcomes[-1].faults += faults or differences(run, reference, exactly=exactly)
        finally:  # the next start never waits for what is left of the one before
            left = [words for started in launches for words in started.leftovers(seconds=20)]
        outcomes[-1].faults += left
        return outcomes

    def _finish(self, run: Path, point: KillPoint, *, setting: Setting) -> list[str]:
        whole = newest_step(run)
        started = self.start(run, size=point.after, setting=setting, asynchronous=_asynchronous(point))
        code, faults = started.wait(seconds=600), started.leftovers(seconds=20)
        if code != 0:
            return [*faults, f"the same command ended with {code}: {started.complained[-1500:]}"]
        return faults + _faults_of_resuming(started, whole)


def draw_points(count: int, *, seed: int) -> Iterator[KillPoint]:
    """Kinds and numbers of processes in turn, each as often as the others; moments at random."""
    rng = random.Random(seed)
    worlds = [(2, 2), (1, 1), (2, 1), (1, 4), (4, 2)]
    kinds = list(Kind)
    for i in range(count):
        kind = kinds[i % len(kinds)]
        before, after = worlds[(i + i // len(kinds)) % len(worlds)]
        yield KillPoint(
            kind=kind, before=before, after=after, victim=rng.randrange(before), **_draw_moment(kind, rng=rng)
        )


def _draw_moment(kind: Kind, *, rng: random.Random) -> dict[str, Any]:
    if kind in (Kind.SELF_TEST, Kind.EXPORT):
        return {"delay": rng.uniform(0, 0.1)}
    if kind in (Kind.SAVING, Kind.SAVING_ONE, Kind.SAVED):
        return {"step": rng.randrange(EVERY_STEPS, TOTAL_STEPS, EVERY_STEPS), "delay": rng.uniform(0, 0.05)}
    if rng.random() < 0.25:  # any time since the start, before the first step included
        return {"delay": rng.uniform(0, 12)}
    return {"step": rng.randrange(1, TOTAL_STEPS), "delay": rng.uniform(0, 0.5)}


def await_moment(started: Launch, run: Path, point: KillPoint) -> bool:
    """Returns when it is time to kill; False where the run ended before."""
    has_come = _moment(run, point)
    deadline = time.monotonic() + 300
    while not (has_come() and started.ranks()):
        if started.process.poll() is not None:
            return False
        assert time.monotonic() < deadline, f"{point}: its moment never came\n{started.complained[-2000:]}"
        time.sleep(0.002)
    time.sleep(point.delay)
    return started.process.poll() is None


def _moment(run: Path, point: KillPoint) -> Callable[[], bool]:
    checkpoints, step = run / "checkpoints", point.step
    match point.kind:
        case Kind.SELF_TEST:
            return (checkpoints / ".partial-self-test").is_dir
        case Kind.SAVING | Kind.SAVING_ONE:
            return lambda: any(int(p.name[9:]) >= step for p in checkpoints.glob(".partial-[0-9]*"))
        case Kind.SAVED:
            return lambda: _number_in(checkpoints / "latest") >= step
        case Kind.EXPORT:
            return lambda: any(True for _ in (run / "exports").glob("*"))
        case _:
            return lambda: step == 0 or _last_step(run) >= step


def strike(started: Launch, point: KillPoint) -> None:
    """Does what the point says."""
    ranks = started.ranks()
    number = REQUESTS.get(point.kind, signal.SIGKILL)
    if point.kind in OF_ONE:
        targets = [ranks.get(point.victim, started.process.pid)]
    elif point.kind is Kind.INT:  # what a terminal does: its foreground group, which torchrun's processes are not in
        os.killpg(started.process.pid, number)
        return
    elif point.kind in REQUESTS:  # what a cluster does: every process, the data workers too
        targets = started.pids()
        if point.kind is Kind.USR1 and started.size > 1:
            targets.remove(started.process.pid)  # torchrun knows nothing of it and would die
    else:
        targets = [started.process.pid, *ranks.values()]
    for pid in targets:
        send(pid, number)


def newest_step(run: Path) -> int:
    """Step of the newest whole checkpoint; 0 where there is none."""
    newest, _ = newest_sound(run / "checkpoints")
    return int(newest.name) if newest else 0


def _kill(started: Launch, run: Path, point: KillPoint) -> Outcome:
    """Waits for the moment, kills, and looks at what is left."""
    whole = newest_step(run)
    outcome = Outcome(point=point, happened=await_moment(started, run, point))
    killed = time.monotonic()
    if outcome.happened:
        strike(started, point)
        outcome.half_saved = _is_saving(run)
    code = started.wait(seconds=2 * LONGEST_END_SECONDS)
    outcome.seconds_to_end = time.monotonic() - killed
    if code is not None and _stays_locked(run):  # the next start may come at once
        outcome.faults.append("the run folder is locked, though the run is over")
    outcome.checkpoint = newest_step(run)
    outcome.faults += _faults_of_resuming(started, whole)
    outcome.faults += _faults_of_the_end(started, outcome, code=code)
    outcome.faults += _faults_on_disk(run, _stopped_at(started) if outcome.happened else None)
    return outcome


def _faults_of_resuming(started: Launch, checkpoint: int) -> list[str]:
    """Whether a start went on where the newest whole checkpoint stood (0: from the beginning)."""
    found = re.search(r"continuing from \S+ at step (\d+)", started.said)
    resumed = int(found[1]) if found else 0
    spoke = found or re.search(r"^step \d+/", started.said, re.MULTILINE)
    if spoke and resumed != checkpoint:
        return [f"went on at step {resumed}, the newest whole checkpoint was {checkpoint}"]
    return []


def _faults_of_the_end(started: Launch, outcome: Outcome, *, code: int | None) -> list[str]:
    point, complained = outcome.point, started.complained
    faults = []
    if code is None:
        faults.append(f"the launcher was not through {2 * LONGEST_END_SECONDS} s after the kill")
    if re.search(r'File ".*/dinov2/', complained):
        faults.append(f"a traceback where one message is due:\n{complained[-3000:]}")
    stopped = _stopped_at(started) is not None
    if stopped and started.size == 1 and code != INTERRUPTED:
        faults.append(f"stopped with exit code {code}")
    in_time = outcome.happened and point.step
    if in_time and point.kind in REQUESTS and not stopped and "done:" not in started.said:
        faults.append(f"nothing was said of stopping:\n{started.said[-600:]}{complained[-1200:]}")
    if in_time and point.kind in (Kind.ONE, Kind.SAVING_ONE) and started.size > 1:
        last_words = [line for line in complained.splitlines() if line.startswith("dinov2")]
        if not any(re.search(rf"\brank {point.victim}\b", line) for line in last_words):
            faults.append(f"no survivor named rank {point.victim}:\n{complained[-1500:]}")
        if outcome.seconds_to_end > LONGEST_END_SECONDS:
            faults.append(f"the others took {outcome.seconds_to_end:.0f} s to end")
    return faults


def _faults_on_disk(run: Path, stopped_at: int | None) -> list[str]:
    """What bears a checkpoint's name must be whole, and `latest` must not lag."""
    checkpoints = run / "checkpoints"
    steps = steps_in(checkpoints)
    _, passed_over = newest_sound(checkpoints)
    faults = [f"a checkpoint that is not whole bears its name: {words}" for words in passed_over]
    if stopped_at is not None and stopped_at not in steps[-1:]:
        faults.append(f"stopped at step {stopped_at}, the checkpoints are {steps}")
    # The kill may fall between the renaming of a checkpoint and that of `latest`.
    if steps and _number_in(checkpoints / "latest") not in [0, *steps][-2:]:
        faults.append(f"checkpoints are {steps}, latest holds {_number_in(checkpoints / 'latest')}")
    return faults


def _asynchronous(point: KillPoint) -> bool:
    return point.kind is not Kind.EXPORT  # the last checkpoint is then whole before the export begins


def _stopped_at(started: Launch) -> int | None:
    found = re.search(r"stopped by \S+ at step (\d+)", started.said)
    return int(found[1]) if found else None


def _stays_locked(run: Path) -> bool:
    """Processes that were killed take a moment to let go of their files; data workers take five seconds to give up."""
    deadline = time.monotonic() + 3
    while (run / ".lock").is_file():
        with (run / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > deadline:
                    return True
            else:
                return False
        time.sleep(0.05)
    return False


def _is_saving(run: Path) -> bool:
    return any(True for _ in (run / "checkpoints").glob(".partial-[0-9]*"))


def _last_step(run: Path) -> int:
    path = run / "training_metrics.json"
    return path.read_text().count("\n") if path.is_file() else 0


def _number_in(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
