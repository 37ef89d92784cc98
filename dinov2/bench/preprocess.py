"""The conversion: our resampling against SimpleITK's, our files per second against a plain loop's, workers, memory.

In: nothing; synthetic films of full size are drawn and written as DICOM into a temporary folder. Out: a dictionary of
times, ratios and bytes. What is compared takes turns in one process, so that ratios hold on a busy machine too; times
per core are this process's own processor time.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from dinov2.bench.conversion import Spent, Trial, convert, convert_plainly, take_turns
from dinov2.bench.machine import machine_facts
from dinov2.config.preprocess import Intensity, PreprocessConfig
from dinov2.errors import ConfigError, Dinov2Error
from dinov2.phantom.anatomy import render
from dinov2.phantom.body import Findings, draw_body
from dinov2.phantom.dicom import Identification, Technique, write_film
from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.radiograph import Film
from dinov2.preprocess.render import itk, spline
from dinov2.preprocess.render.geometry import Size, target_size
from dinov2.preprocess.render.grey import to_grey
from dinov2.preprocess.work.convert import Request, open_conversion
from dinov2.preprocess.work.identity import Identity
from dinov2.preprocess.work.pool import Allowance, Lost, run_tasks
from dinov2.preprocess.work.task import Task, Workshop

NUM_BODIES = 4  # different films; the others are these under other identities
DRAWN_SHORT_SIDE = 600  # pixels at which a body is drawn before it is enlarged; its grain is added at full size
GRAIN = 0.012  # of the film's range
WARM_UP = 4  # outcomes per worker that are not timed: processes start at different moments
FEWEST_TIMED = 8  # outcomes of a run of the workers
WORKERS = (1, 2)


@dataclass(frozen=True)
class Resampled:
    """One film by both engines."""

    separable_ms: float
    simpleitk_ms: float
    ratio: float
    first_ms: float  # of the first film of a size, matrices included
    largest_difference: float  # share of the film's range
    equal_levels: float  # share of the 8-bit pixels
    largest_level_difference: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dinov2 bench preprocess`."""
    parser.add_argument("--films", type=int, default=32, help="DICOM files of 15 MB for the workers (default 32)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of everything that is compared (default 5)")
    parser.add_argument("--height", type=int, default=3056, help="of a film, pixels (default 3056)")
    parser.add_argument("--width", type=int, default=2500, help="of a film, pixels (default 2500)")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures; raises ConfigError where there are too few films to time."""
    fewest = WARM_UP * max(WORKERS) + FEWEST_TIMED
    if arguments.films < fewest or arguments.repeats < 1:
        raise ConfigError(f"--films {arguments.films} --repeats {arguments.repeats}: give at least {fewest} and 1.")
    size = (arguments.height, arguments.width)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_films(folder / "films", count=arguments.films, size=size, seed=arguments.seed)
        trials = _trials(folder, repeats=arguments.repeats)
        resampled = compare_engines(draw_film(size, seed=arguments.seed), repeats=arguments.repeats)
        (turns,) = _in_worker(take_turns, trials[:1])
        peaks = {
            "ours": max(_in_worker(convert, trials)),
            "plain loop": max(_in_worker(convert_plainly, trials[:NUM_BODIES])),
        }
        rounds = [
            {workers: _files_per_second(folder, workers=workers) for workers in WORKERS}
            for _ in range(arguments.repeats)
        ]
    rates = {workers: statistics.median(r[workers] for r in rounds) for workers in WORKERS}
    return {
        "machine": machine_facts(torch.device("cpu")) | {"opencv": cv2.__version__},
        "settings": {name: value for name, value in vars(arguments).items() if name != "json"},
        "resampling": asdict(resampled),
        "file_to_png": _summary(turns),
        "workers": {
            "files_per_second": {str(workers): rate for workers, rate in rates.items()},
            "ratio": statistics.median(r[2] / r[1] for r in rounds),
        },
        "peak_resident_bytes": peaks,
    }


def table(result: dict[str, Any]) -> Table:
    """Each measurement beside what it is compared with."""
    machine, settings = result["machine"], result["settings"]
    resampled, files, workers = result["resampling"], result["file_to_png"], result["workers"]
    rates, peaks = workers["files_per_second"], result["peak_resident_bytes"]
    shown = Table(
        title=f"conversion of {settings['height']} x {settings['width']} films of 16 bits on {machine['device']}",
        caption=f"both engines agree to {resampled['largest_difference']:.1e} of the film's range; "
        f"{resampled['equal_levels']:.4%} of the 8-bit pixels are equal, the others at most "
        f"{resampled['largest_level_difference']} apart. The first film of a size takes {resampled['first_ms']:.0f} ms",
    )
    for column in ("what", "ours", "beside it", "ratio"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    shown.add_row(
        "resampling, one thread: against SimpleITK",
        f"{resampled['separable_ms']:.1f} ms",
        f"{resampled['simpleitk_ms']:.1f} ms",
        f"{resampled['ratio']:.1f}",
    )
    shown.add_row(
        "DICOM file to PNG on disk, per core: against pydicom + SimpleITK + Pillow",
        f"{files['ours_core_ms']:.1f} ms",
        f"{files['plain_core_ms']:.1f} ms",
        f"{files['ratio']:.1f}",
    )
    shown.add_row(
        "files per second: 2 workers against 1", f"{rates['2']:.1f}", f"{rates['1']:.1f}", f"{workers['ratio']:.2f}"
    )
    shown.add_row(
        "peak resident memory of a worker: against the plain loop",
        f"{peaks['ours'] / 1e6:.0f} MB",
        f"{peaks['plain loop'] / 1e6:.0f} MB",
        f"{peaks['ours'] / peaks['plain loop']:.2f}",
    )
    return shown


def compare_engines(film: Film, *, repeats: int) -> Resampled:
    """Both engines in turns on one film, short side 518."""
    height, width = film.shape
    size = target_size(height, width, short_side=518)
    spline.axis_matrix.cache_clear()
    first = _core_ms(film, size=size, engine=spline)
    _core_ms(film, size=size, engine=itk)
    times = [(_core_ms(film, size=size, engine=spline), _core_ms(film, size=size, engine=itk)) for _ in range(repeats)]
    ours, reference = spline.resample(film, size=size), itk.resample(film, size=size)
    away = np.abs(_levels(ours) - _levels(reference))
    return Resampled(
        separable_ms=statistics.median(fast for fast, _ in times),
        simpleitk_ms=statistics.median(slow for _, slow in times),
        ratio=statistics.median(slow / fast for fast, slow in times),
        first_ms=first,
        largest_difference=float(np.abs(ours - reference).max() / np.ptp(film)),
        equal_levels=float((away == 0).mean()),
        largest_level_difference=int(away.max()),
    )


def draw_film(size: Size, *, seed: int) -> Film:
    """A chest film in 0..1 of any size: a phantom enlarged, under grain of its own."""
    rng = np.random.default_rng(seed)
    small = render(draw_body(rng, view="PA", findings=Findings()), short_side=min(DRAWN_SHORT_SIDE, *size)).film
    film = cv2.resize(small, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    film += np.float32(GRAIN) * rng.standard_normal(size, dtype=np.float32)
    np.clip(film, 0, 1, out=film)
    return np.asarray(film, np.float32)


def write_films(folder: Path, *, count: int, size: Size, seed: int) -> None:
    """Uncompressed DICOM files of 16 bits, every one under an identity of its own."""
    folder.mkdir()
    for body in range(min(NUM_BODIES, count)):
        film = draw_film(size, seed=seed + body)
        for number in range(body, count, NUM_BODIES):
            write_film(
                folder / f"{number:04d}.dcm",
                film,
                technique=Technique(bits_stored=16, monochrome1=number % 2 == 1),
                identification=Identification(series="bench", patient=f"BENCH{number:04d}", number=number, view="PA"),
            )


def _trials(folder: Path, *, repeats: int) -> list[Trial]:
    partial, plain = folder / "partial", folder / "plain"
    partial.mkdir()
    plain.mkdir()
    workshop = Workshop(config=PreprocessConfig(), identity=Identity(b"0" * 32), partial=partial)
    trials = []
    for path in sorted((folder / "films").iterdir()):
        stat = path.stat()
        source = Source(relative=path.name, path=path, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
        task = Task(name=path.stem, source=source, workshop=workshop)
        trials.append(Trial(task=task, plain_picture=plain / f"{path.stem}.png", repeats=repeats))
    return trials


def _in_worker(function: Any, trials: list[Trial]) -> Iterator[Any]:
    """Answers of one real worker process that is started for this and nothing else."""
    allowance = Allowance(seconds=600.0, memory_mb=0)
    for _, answer in run_tasks(function, trials, num_workers=1, allowance=allowance):
        if isinstance(answer, Lost):
            raise Dinov2Error(f"a worker of the benchmark gave no answer: {answer.value}")
        yield answer


def _files_per_second(folder: Path, *, workers: int) -> float:
    """Of the real conversion, start of the processes excluded."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        pictures = Path(output) / "pictures"
        request = Request(input=folder / "films", output=pictures, config=PreprocessConfig(), num_workers=workers)
        with open_conversion(request) as conversion:
            done = [time.perf_counter() for _ in conversion.run()]
    warm = WARM_UP * workers
    return (len(done) - warm) / (done[-1] - done[warm - 1])


def _core_ms(film: Film, *, size: Size, engine: Any) -> float:
    started = time.process_time()
    engine.resample(film, size=size)
    return 1000 * (time.process_time() - started)


def _levels(film: Film) -> NDArray[np.int64]:
    return to_grey(film, config=Intensity()).astype(np.int64)


def _summary(turns: list[tuple[Spent, Spent]]) -> dict[str, float]:
    return {
        "ours_core_ms": 1000 * statistics.median(ours.core for ours, _ in turns),
        "plain_core_ms": 1000 * statistics.median(plain.core for _, plain in turns),
        "ours_clock_ms": 1000 * statistics.median(ours.clock for ours, _ in turns),
        "plain_clock_ms": 1000 * statistics.median(plain.clock for _, plain in turns),
        "ratio": statistics.median(plain.core / ours.core for ours, plain in turns),
    }
