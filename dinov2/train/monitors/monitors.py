"""The teacher is judged every n steps, while it trains.

In: a `Run` after a step. Out: numbers for its line in training_metrics.json, messages, and pictures of a few films in
RUN/looks. All processes look at their share of the pictures together; the main one fits probes and tells the numbers to
the others. Weights, random numbers and the place in the data are as before: a run with monitors ends in the same bytes
as one without.
"""

import time
from collections.abc import Generator, Iterator, Mapping

import torch
from torch import Tensor

from dinov2.config.lengths import lengths
from dinov2.config.schema import Config
from dinov2.distributed import from_main
from dinov2.looks import drop_looks
from dinov2.manifest import Manifest
from dinov2.optim import schedule_at
from dinov2.ssl.networks import backbone_of
from dinov2.train.events import Message
from dinov2.train.log import read_lines
from dinov2.train.monitors.alarms import Alarms
from dinov2.train.monitors.keeping import FilmKeeper, build_keeper
from dinov2.train.monitors.passes import Look, Seen, look
from dinov2.train.monitors.pictures import Monitored, choose_pictures, read_share
from dinov2.train.monitors.probes import headline, probe_names, run_probes
from dinov2.train.monitors.spread import effective_dimension, mean_cosine, rankme
from dinov2.train.run import Run, num_workers

COST_SHARE = 0.05  # of the training time, above which a cheaper cadence is named
SPREAD = ("monitor/rankme", "monitor/effective_dimension", "monitor/mean_cosine", "monitor/patch_smoothness")
ASSIGNMENTS = ("monitor/teacher_entropy", "monitor/teacher_marginal_entropy", "monitor/prototype_usage")


class Monitors:
    """What a run is judged by, or nothing where `monitors.every_steps` is 0 or longer than the run."""

    def __init__(self, config: Config, *, pictures: Manifest) -> None:
        """Opens the pictures' list, not the pictures.  Raises ManifestError, ConfigError, on every process alike."""
        self.timing: dict[str, float] = {}  # seconds of the last look, by the names of logs/timing.json
        self._section = config.monitors
        self._total = lengths(config.optim, config.teacher, train=config.train).total
        self._judges_heads = config.dino.loss_weight > 0 or (
            config.ibot.loss_weight > 0 and not config.ibot.separate_head
        )
        self._monitored = choose_pictures(config, pictures=pictures) if self._is_on else None
        self._share: Tensor | None = None  # uint8 [n, S, S] of this process
        self._alarms: Alarms | None = None
        self._films: FilmKeeper | None = None
        self._ended = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Every number that a look gives."""
        if self._monitored is None:
            return ()
        assignments = ASSIGNMENTS if self._judges_heads else ()
        return (*probe_names(self._monitored, self._section.probes), *SPREAD, *assignments)

    def begin(self, this: Run) -> Iterator[Message]:
        """Reads this process's pictures.  Raises ManifestError, on every process alike, where one cannot be read."""
        self._ended = time.perf_counter()
        if this.world.is_main:
            drop_looks(this.folder.path, after_step=this.step)
        if self._monitored is None or this.step >= self._total:
            return
        this.pulse.at("monitors", step=this.step)
        splits = " and ".join(f"{len(part):,} {part.name}" for part in self._monitored.parts)
        size = _size(this.config)
        yield Message(text=f"monitors: every {self._section.every_steps} steps on {splits}, {size} px; reading them")
        self._share = read_share(self._monitored, size=size, world=this.world, workers=num_workers(this.config))
        width = backbone_of(this.tools.networks.teacher).embed_dim
        self._alarms = Alarms(this.config, num_pictures=len(self._monitored), width=width)
        if this.world.is_main:
            self._alarms.catch_up(read_lines(this.folder.metrics_file), until=this.step)
        self._films = build_keeper(this, self._monitored, share=self._share)
        if self._films is not None and this.world.is_main:
            yield from self._films.begin(this.folder.path)
        self._ended = time.perf_counter()

    def are_due(self, step: int) -> bool:
        """Whether this step is looked at: every n-th, and the last."""
        return self._is_on and (step % self._section.every_steps == 0 or step == self._total)

    def run(self, this: Run) -> Generator[Message, None, dict[str, float]]:
        """The numbers of the step that was just made; none where it is not looked at."""
        if not self.are_due(this.step):
            return {}
        assert self._monitored is not None
        assert self._share is not None
        this.pulse.at("monitors", step=this.step)
        started = time.perf_counter()
        what, temperature = _look(this, self._monitored), _temperature(this)
        seen = look(this.tools, self._share, what=what, temperature=temperature)
        film_started = _now(this)
        if self._films is not None:
            yield from self._films.keep(this, seen, share=self._share, what=what, temperature=temperature)
        film_seconds = _now(this) - film_started
        numbers = from_main(self._judge(this, seen) if this.world.is_main else {}, world=this.world)
        ended = time.perf_counter()
        self.timing = {"monitor_seconds": ended - started}
        if self._films is not None:
            self.timing["film_seconds"] = film_seconds
        whole, self._ended = ended - self._ended, ended
        yield Message(text=f"step {this.step}: {', '.join(_words(numbers))}; {self._cost(whole)}")
        return numbers

    def alarms(self, step: int, numbers: Mapping[str, float]) -> Iterator[Message]:
        """What the line of a step that was looked at means, where that is bad news or the end of it."""
        if self._alarms is not None and self.are_due(step):
            for text, warning in self._alarms.hear(step, numbers):
                yield Message(text=text, warning=warning)

    @property
    def _is_on(self) -> bool:
        return 0 < self._section.every_steps <= self._total

    def _judge(self, this: Run, seen: Seen) -> dict[str, float]:
        assert self._monitored is not None
        seed = this.config.train.seed
        numbers = run_probes(seen, self._monitored, probes=self._section.probes, seed=seed)
        spread = (rankme(seen.cls), effective_dimension(seen.cls), mean_cosine(seen.cls), float(seen.smoothness.mean()))
        numbers |= dict(zip(SPREAD, spread, strict=True))
        of_heads = (seen.entropy, seen.marginal_entropy, seen.prototype_usage)
        return numbers | {name: value for name, value in zip(ASSIGNMENTS, of_heads, strict=True) if value is not None}

    def _cost(self, whole: float) -> str:
        seconds = self.timing["monitor_seconds"]
        share = seconds / whole
        of_films = ""
        if self._films is not None:
            kept = f"{self._films.written_bytes / 1000:.0f} kB"
            of_films = f" ({self.timing['film_seconds']:.1f} s and {kept} for the pictures of films)"
        text = f"monitors took {seconds:.1f} s{of_films}, {100 * share:.1f} % of the time since the last"
        if share <= COST_SHARE:
            return text
        enough = round(self._section.every_steps * share * (1 - COST_SHARE) / (COST_SHARE * (1 - share)) + 0.5)
        return f"{text} (monitors.every_steps={enough} would make it {100 * COST_SHARE:.0f} %)"


def _now(this: Run) -> float:
    """Seconds on a clock, once the device has done all it was given."""
    if this.world.device.type == "cuda":
        torch.cuda.synchronize(this.world.device)
    return time.perf_counter()


def _size(config: Config) -> int:
    return config.monitors.size or config.crops.global_crops_size


def _look(this: Run, monitored: Monitored) -> Look:
    config = this.config
    of_a_step = 2 * this.global_batch // (this.world.size * config.runtime.gradient_accumulation_steps)
    return Look(
        num_pictures=len(monitored),
        batch_size=config.monitors.batch_size or of_a_step,
        mean=config.data.mean,
        std=config.data.std,
    )


def _temperature(this: Run) -> float:
    """Of the teacher, in the step that was just made."""
    return schedule_at(this.step - 1, schedule=this.schedule).teacher_temperature


def _words(numbers: Mapping[str, float]) -> list[str]:
    short = {
        "rankme": "RankMe {:.2f}",
        "mean_cosine": "mean cosine {:.4f}",
        "teacher_entropy": "teacher entropy {:.4f}",
    }
    told = [text.format(numbers[f"monitor/{name}"]) for name, text in short.items() if f"monitor/{name}" in numbers]
    return [*headline(numbers), *told]
