"""What a submission of training would start, checked as far as it can be from here.

In: the words of `dinov2 train`, a sweep's settings, the number of processes. Out: a `Plan` with the runs that are to
be started, or one error that lists every fault of every run: settings, data, weights, checkpoints that do not fit,
folders in use.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov2.cli.console import stderr

if TYPE_CHECKING:
    from dinov2.config.load import LoadedConfig
    from dinov2.config.schema import Config
    from dinov2.launch import Variant

NUM_NAMED = 3  # runs that are named beside a fault which many share
HEARD = 12  # digits of a hash


@dataclass(frozen=True)
class Planned:
    """One run."""

    variant: "Variant"
    path: Path
    words: tuple[str, ...]  # of the command line, `train` first
    loaded: "LoadedConfig"
    is_finished: bool


@dataclass(frozen=True)
class Plan:
    """All runs of a submission. `frozen` is where the configuration file goes, so that a later edit changes no job."""

    output: Path
    config_file: Path
    frozen: Path
    runs: tuple[Planned, ...]
    is_sweep: bool
    starts_anew: bool

    @property
    def to_start(self) -> tuple[Planned, ...]:
        """Those that are not finished."""
        return tuple(run for run in self.runs if not run.is_finished)


def make_plan(training: argparse.Namespace, variants: "Sequence[Variant]", *, num_processes: int) -> Plan:
    """Raises ConfigError with the faults of all runs together, LaunchError where a folder is in use."""
    from dinov2.config.presets import find_config
    from dinov2.launch import jobs_folder

    file = find_config(training.config_file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:HEARD]
    frozen = jobs_folder(training.output_dir) / f"{file.stem}-{digest}.yaml"
    runs = _planned(training, variants, file=file, frozen=frozen)
    _check_all(runs, num_processes=num_processes, resume=not training.no_resume)
    return Plan(
        output=training.output_dir,
        config_file=file,
        frozen=frozen,
        runs=tuple(runs),
        is_sweep=bool(variants[0].settings),
        starts_anew=training.no_resume,
    )


def _planned(training: argparse.Namespace, variants: "Sequence[Variant]", *, file: Path, frozen: Path) -> list[Planned]:
    from dinov2.config.load import load_config
    from dinov2.errors import ConfigError

    faults: list[tuple[str, str]] = []
    runs: list[Planned] = []
    for variant in variants:
        path = training.output_dir / variant.name
        overrides = [*training.overrides, *variant.overrides]
        try:
            loaded = load_config(file, overrides=overrides)
        except ConfigError as error:
            faults += [(variant.name, fault) for fault in error.faults or (str(error),)]
            continue
        words = ("train", "--config-file", str(frozen), "--output-dir", str(path), *overrides)
        is_finished = not training.no_resume and _is_finished(path, loaded.config)
        runs.append(Planned(variant, path, words, loaded, is_finished))
    _raise(faults, num_runs=len(variants))
    return runs


def _is_finished(path: Path, config: "Config") -> bool:
    from dinov2.config.lengths import lengths
    from dinov2.launch import newest_step

    step = newest_step(path)
    return step is not None and step >= lengths(config.optim, config.teacher, train=config.train).total


def _check_all(runs: Sequence[Planned], *, num_processes: int, resume: bool) -> None:
    """Everything that would end a run at once; what is finished is not looked at."""
    from dinov2.errors import Dinov2Error
    from dinov2.launch import is_running

    stderr.print("looking at the settings, the pictures and what is on the disk", style="dim")
    faults: list[tuple[str, str]] = []
    known: dict[Any, str] = {}
    for run in runs:
        if run.is_finished:
            continue
        if is_running(run.path):
            faults.append((run.variant.name, f"{run.path}: a run is writing to this folder. Wait for it, or stop it."))
        checks = _checks(run, num_processes=num_processes, resume=resume)
        for key, check in checks:
            if key not in known:
                known[key] = ""
                try:
                    check()
                except Dinov2Error as error:
                    known[key] = str(error)
            if known[key]:
                faults.append((run.variant.name, known[key]))
    _raise(faults, num_runs=len(runs))


def _checks(run: Planned, *, num_processes: int, resume: bool) -> Iterator[tuple[Any, Callable[[], object]]]:
    """Each with a key that is the same for runs that share it, so that data are looked at once."""
    from dinov2.config.lengths import pictures_per_process
    from dinov2.data.source import open_pictures

    config = run.loaded.config
    data, seed = config.data, config.train.seed
    yield (config.train.dataset_path, data), lambda: open_pictures(config.train.dataset_path, data=data, seed=seed)
    start = config.init_from
    weights = (config.student.pretrained_weights, start.dino_head, start.ibot_head, start.revision)
    yield weights, lambda: _find_weights(config)
    if config.train.global_batch_size is not None:
        yield ("batch", run.variant.name), lambda: pictures_per_process(config, num_processes=num_processes)
    if resume:
        yield ("checkpoint", run.variant.name), lambda: _compare(run)


def _find_weights(config: "Config") -> None:
    """Paths must be there; a hub id need not be in this machine's cache, but whoever submits should know."""
    from dinov2.errors import WeightsError
    from dinov2.models.hub import cached_folder

    given = {
        "student.pretrained_weights": config.student.pretrained_weights,
        "init_from.dino_head": config.init_from.dino_head,
        "init_from.ibot_head": config.init_from.ibot_head,
    }
    for key, text in given.items():
        if not text or text == "none" or Path(text).exists():
            continue
        name = _as_hub_id(text)
        if name is None:
            raise WeightsError(
                f"{key} = {text}: no such file or folder, and no OWNER/NAME of a hub. A cluster needs a path that all "
                "its machines know."
            )
        if cached_folder(name) is None:
            stderr.print(
                f"{key} = {text}: no file or folder here, so it is taken for a model of the Hugging Face hub, and is "
                "not in this machine's cache. The job will ask the hub; where its machines have no network: "
                f"hf download {name}",
                style="yellow",
                markup=False,
            )


def _as_hub_id(text: str) -> str | None:
    """`owner/name`, unless it ends as a file of weights does."""
    from dinov2.models.hub import hub_id
    from dinov2.models.weights import PICKLES

    return None if text.endswith((".safetensors", *PICKLES)) else hub_id(text)


def _compare(run: Planned) -> None:
    """Whether what is in the folder can be continued with these settings; says what would change."""
    from dinov2.launch import newest_step

    step = newest_step(run.path)
    if step is None:
        return
    from dinov2.checkpoint.store import read_facts
    from dinov2.train.resume import compare_configs

    checkpoint = run.path / "checkpoints" / str(step)
    for message in compare_configs(read_facts(checkpoint), run.loaded.config, checkpoint=checkpoint):
        stderr.print(f"{run.path}: {message.text}", style="yellow", markup=False)


def _raise(faults: Sequence[tuple[str, str]], *, num_runs: int) -> None:
    """One ConfigError with every fault once, and the runs that have it where there are several."""
    from dinov2.errors import ConfigError

    if not faults:
        return
    by_text: dict[str, list[str]] = {}
    for name, text in faults:
        by_text.setdefault(text, []).append(name)
    lines = []
    for text, names in by_text.items():
        more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
        where = "" if num_runs == 1 else "every run: " if len(names) == num_runs else None
        lines.append(f"{', '.join(names[:NUM_NAMED])}{more}: {text}" if where is None else f"{where}{text}")
    title = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
    listed = "\n".join(f"  - {line}" for line in lines)
    raise ConfigError(f"{title}; nothing was submitted:\n{listed}", faults=tuple(lines))
