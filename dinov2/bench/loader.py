"""The loader on this machine: pictures a second, against Pillow and against what decoding alone allows; more below.

In: pictures, or synthetic films that this module draws. Out: a dictionary with a part for each question: how fast is
one process (`pipelines`), what do more workers bring (`workers`), does a worker's memory grow (`memory`), does the
start take longer with more rows (`start`).
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Group
from rich.table import Table

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.bench.ceilings import copy_rate
from dinov2.bench.loader_pipelines import DECODING, OURS, PILLOW, PIPELINES, Rate, Trial, one_thread, rounds
from dinov2.bench.loader_workers import resident_over, side_by_side, start_up
from dinov2.bench.machine import machine_facts
from dinov2.bench.progress import Tell, announced
from dinov2.config.schema import Augmentation, Crops, Data
from dinov2.data.source import open_pictures
from dinov2.manifest import Manifest

FILM_HEIGHT_PX, FILM_WIDTH_PX = 518, 622
GRAIN = 4.5  # grey levels; makes a PNG about as large as that of a chest film of this size (about 195 kB)
NUM_FILMS = 32
PARTS = ("pipelines", "workers", "memory", "start")
CPU = torch.device("cpu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dinov2 bench loader`."""
    parser.add_argument("--dataset", default="", help="manifest, folder or dataset string; default: synthetic films")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (default all)")
    parser.add_argument("--rounds", type=_count, default=5, help="each measures all pipelines in turn (default 5)")
    parser.add_argument("--batch-size", type=_count, default=8, help="pictures a batch (default 8)")
    parser.add_argument(
        "--global-size", type=_count, default=518, help="side of the 2 global crops, pixels (default 518)"
    )
    parser.add_argument("--local-size", type=_count, default=196, help="side of the local crops, pixels (default 196)")
    parser.add_argument("--local-number", type=int, default=8, help="local crops a picture (default 8)")
    parser.add_argument("--preset", choices=("dinov2", "cxr"), default="cxr", help="augmentation preset (default cxr)")
    parser.add_argument("--workers", nargs="+", type=_count, default=[1, 2], help="numbers to compare (default 1 2)")
    parser.add_argument("--worker-rounds", type=_count, default=3, help="of the comparison of workers (default 3)")
    parser.add_argument("--worker-films", type=_count, default=400, help="timed films of each (default 400)")
    parser.add_argument("--films-flat", type=_count, default=2000, help="films while memory is watched (default 2000)")
    parser.add_argument(
        "--start-rows",
        nargs="+",
        type=_count,
        default=[1000, 100_000, 1_000_000],
        help="manifests (default 1e3 1e5 1e6)",
    )
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures the parts asked for; rates are the median over the rounds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trial = _trial(arguments, folder=folder)
        with announced("loader", total=_num_steps(arguments)) as tell:
            parts = _measure(trial, arguments, folder=folder, tell=tell)
        places = [trial.manifest.place(row) for row in trial.manifest.spread_rows(100)]
        sizes = [place.num_bytes or place.path.stat().st_size for place in places]
    return {
        "machine": machine_facts(CPU) | {"opencv": cv2.__version__},
        "settings": {name: value for name, value in vars(arguments).items() if name != "json"},
        "mean_file_bytes": round(statistics.mean(sizes)),
        **parts,
    }


def table(result: dict[str, Any]) -> Group:
    """A table for every part that was measured."""
    shown = {"pipelines": _pipelines_table, "workers": _workers_table, "memory": _memory_table, "start": _start_table}
    return Group(*(draw(result) for part, draw in shown.items() if part in result))


def draw_films(folder: Path, *, count: int) -> Manifest:
    """Films of broad shapes under grain, 518 x 622, as PNGs of a realistic size."""
    y, x = np.mgrid[0:FILM_HEIGHT_PX, 0:FILM_WIDTH_PX]
    for number in range(count):
        rng = np.random.default_rng(number)
        picture = 170 - 40 * np.cos(y / rng.uniform(14, 22))
        for centre in (0.3, 0.7):
            away = ((x - centre * FILM_WIDTH_PX) / 120) ** 2 + ((y - 250) / 190) ** 2
            picture -= 90 * np.exp(-(away**2))
        picture += rng.normal(0, GRAIN, picture.shape)
        cv2.imwrite(str(folder / f"{number:03d}.png"), np.clip(picture, 0, 255).astype(np.uint8))
    return open_pictures(str(folder), data=Data(), seed=0)


def _trial(arguments: argparse.Namespace, *, folder: Path) -> Trial:
    if arguments.dataset:
        manifest = open_pictures(arguments.dataset, data=Data(), seed=arguments.seed)
    else:
        (folder / "films").mkdir()
        manifest = draw_films(folder / "films", count=NUM_FILMS)
    crops = Crops(
        global_crops_scale=(0.5, 1.0),
        local_crops_scale=(0.2, 0.5),
        global_crops_size=arguments.global_size,
        local_crops_size=arguments.local_size,
        local_crops_number=arguments.local_number,
    )
    return Trial(
        manifest=manifest,
        crops=crops,
        augmentation=Augmentation(preset=arguments.preset),
        batch_size=arguments.batch_size,
        seed=arguments.seed,
    )


def _num_steps(arguments: argparse.Namespace) -> int:
    steps = {
        "pipelines": arguments.rounds + 1,
        "workers": arguments.worker_rounds * len(arguments.workers),
        "memory": 1,
        "start": len(arguments.start_rows),
    }
    return sum(steps[part] for part in arguments.parts)


def _measure(trial: Trial, arguments: argparse.Namespace, *, folder: Path, tell: Tell) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if "pipelines" in arguments.parts:
        measured = list(rounds(trial, count=arguments.rounds, folder=folder, tell=tell))
        parts |= _pipelines(measured, trial)
    if "workers" in arguments.parts:
        parts["workers"] = side_by_side(
            trial,
            workers=arguments.workers,
            num_batches=max(1, arguments.worker_films // trial.batch_size),
            rounds=arguments.worker_rounds,
            tell=tell,
        )
    if "memory" in arguments.parts:
        parts["memory"] = resident_over(trial, num_films=arguments.films_flat, tell=tell)
    if "start" in arguments.parts:
        parts["start"] = start_up(trial, rows=arguments.start_rows, folder=folder, tell=tell)
    return parts


def _pipelines(measured: list[dict[str, Rate]], trial: Trial) -> dict[str, Any]:
    """Medians over the rounds, ratios taken within a round, and what the machine allows at most."""

    def ratio(name: str) -> float:
        return statistics.median(one[OURS].per_core / one[name].per_core for one in measured)

    rows = {
        name: {
            "pictures_per_core_second": statistics.median(one[name].per_core for one in measured),
            "pictures_per_second": statistics.median(one[name].by_clock for one in measured),
        }
        for name in PIPELINES
    }
    with one_thread():
        copied = copy_rate(device=CPU, seconds=0.5)
    moved = 2 * trial.maker().shape(1).num_bytes  # read and written once
    return {
        "pipelines": rows,
        "ratio_to_pillow": ratio(PILLOW),
        "share_of_decode_rate": ratio(DECODING),
        "ceilings": {
            "decoded_pictures_per_core_second": rows[DECODING]["pictures_per_core_second"],
            "memory_copy_bytes_per_second": copied,
            "pictures_copied_per_second": copied / moved,
        },
    }


def _pipelines_table(result: dict[str, Any]) -> Table:
    settings, ceilings = result["settings"], result["ceilings"]
    shown = Table(
        title=f"loader, one process on {result['machine']['device']}: "
        f"{NUM_GLOBAL_CROPS} x {settings['global_size']} + {settings['local_number']} x {settings['local_size']} "
        f"crops, files of {result['mean_file_bytes'] / 1000:.0f} kB, OpenCV {result['machine']['opencv']}",
        caption=f"ours is {result['ratio_to_pillow']:.1f} times the Pillow pipeline, and "
        f"{result['share_of_decode_rate']:.0%} of the rate of decoding alone; copying memory, "
        f"{ceilings['memory_copy_bytes_per_second'] / 1e9:.1f} GB/s here, would allow "
        f"{ceilings['pictures_copied_per_second']:,.0f} pictures/s",
    )
    for column in ("pipeline", "pictures/s per core", "pictures/s by the clock", "per core, of ours"):
        shown.add_column(column, justify="left" if column == "pipeline" else "right")
    ours = result["pipelines"][OURS]["pictures_per_core_second"]
    for name, row in result["pipelines"].items():
        per_core = row["pictures_per_core_second"]
        shown.add_row(name, f"{per_core:.1f}", f"{row['pictures_per_second']:.1f}", f"{per_core / ours:.2f}")
    return shown


def _workers_table(result: dict[str, Any]) -> Table:
    shown = Table(
        title="the loader by its workers, batches only taken",
        caption="train.num_workers: pictures/s of `dinov2 bench step` divided by those of one core, and one more",
    )
    for column in ("workers", "pictures/s per core", "pictures/s by the clock", "ratio by the clock"):
        shown.add_column(column, justify="right")
    for count, row in result["workers"].items():
        per_core, by_clock = row["pictures_per_core_second"], row["pictures_per_second"]
        shown.add_row(count, f"{per_core:.1f}", f"{by_clock:.1f}", f"{row['ratio']:.2f}")
    return shown


def _memory_table(result: dict[str, Any]) -> Table:
    memory = result["memory"]
    compared = f"{memory['compared_films']:,}"
    shown = Table(title="resident memory of a worker")
    for column in ("films", f"first {compared}, MB", f"last {compared}, MB", "growth"):
        shown.add_column(column, justify="right")
    first, last = (memory[f"{which}_bytes"] / 1e6 for which in ("first", "last"))
    shown.add_row(f"{memory['films']:,}", f"{first:.1f}", f"{last:.1f}", f"{memory['growth']:+.2%}")
    return shown


def _start_table(result: dict[str, Any]) -> Table:
    shown = Table(title="start of a loader")
    for column in ("rows", "first batch, s", "opening a cache, s"):
        shown.add_column(column, justify="right")
    for line in result["start"]:
        shown.add_row(f"{line['rows']:,}", f"{line['first_batch_seconds']:.2f}", f"{line['open_cache_seconds']:.2f}")
    return shown


def _count(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word} is less than 1")
    return number
