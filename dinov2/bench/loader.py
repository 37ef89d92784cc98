"""Pictures a second of one process: our loader, a plain Pillow pipeline, and decoding alone.

In: pictures, or synthetic films that this module draws. Out: a dictionary of rates. The three are measured in one
process, in turns, on the same pictures with the same crops, so that their ratios hold on a busy machine too. A rate per
core is pictures per second of this process's own processor time; the rate by the clock stands beside it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.table import Table

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.bench.machine import machine_facts
from dinov2.bench.pillow_pipeline import pillow_crops
from dinov2.config.schema import Augmentation, Crops, Data, Ibot
from dinov2.data.augmentation import draw_crops
from dinov2.data.collate import BatchMaker
from dinov2.data.dataset import read_picture
from dinov2.data.loader import batch_maker
from dinov2.data.source import open_pictures
from dinov2.manifest import Manifest

FILM_HEIGHT_PX, FILM_WIDTH_PX = 518, 622
GRAIN = 4.5  # grey levels; makes a PNG about as large as that of a chest film of this size (about 195 kB)
NUM_FILMS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dinov2 bench loader`."""
    parser.add_argument("--dataset", default="", help="manifest, folder or dataset string; default: synthetic films")
    parser.add_argument("--rounds", type=int, default=5, help="each measures all three in turn (default 5)")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures a batch (default 8)")
    parser.add_argument("--global-size", type=int, default=518, help="side of the 2 global crops, pixels (default 518)")
    parser.add_argument("--local-size", type=int, default=196, help="side of the local crops, pixels (default 196)")
    parser.add_argument("--local-number", type=int, default=8, help="local crops a picture (default 8)")
    parser.add_argument("--preset", choices=("dinov2", "cxr"), default="cxr", help="augmentation preset (default cxr)")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures; rates are the median over the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        if arguments.dataset:
            manifest = open_pictures(arguments.dataset, data=Data(), seed=arguments.seed)
        else:
            manifest = draw_films(Path(folder), count=NUM_FILMS)
        with _one_thread():
            rounds = list(_rounds(manifest, arguments))
        sizes = [manifest.path(row).stat().st_size for row in range(min(len(manifest), 100))]
    rows = {}
    for name in ("ours", "pillow", "decode only"):
        per_core, by_clock = (statistics.median(r[name][i] for r in rounds) for i in (0, 1))
        rows[name] = {"pictures_per_core_second": per_core, "pictures_per_second": by_clock}
    return {
        "machine": machine_facts(torch.device("cpu")) | {"opencv": cv2.__version__},
        "settings": {name: value for name, value in vars(arguments).items() if name != "json"},
        "mean_file_bytes": round(statistics.mean(sizes)),
        "rows": rows,
        "ratio_to_pillow": statistics.median(r["ours"][0] / r["pillow"][0] for r in rounds),
        "share_of_decode_rate": statistics.median(r["ours"][0] / r["decode only"][0] for r in rounds),
    }


def table(result: dict[str, Any]) -> Table:
    """The rates as a table."""
    machine, settings = result["machine"], result["settings"]
    shown = Table(
        title=f"loader, one process on {machine['device']}: "
        f"2 x {settings['global_size']} + {settings['local_number']} x {settings['local_size']} crops, "
        f"files of {result['mean_file_bytes'] / 1000:.0f} kB, OpenCV {machine['opencv']}",
        caption=f"ours is {result['ratio_to_pillow']:.1f} times the Pillow pipeline, "
        f"and {result['share_of_decode_rate']:.0%} of the rate of decoding alone",
    )
    for column in ("pipeline", "pictures/s per core", "pictures/s by the clock"):
        shown.add_column(column, justify="left" if column == "pipeline" else "right")
    for name, row in result["rows"].items():
        shown.add_row(name, f"{row['pictures_per_core_second']:.1f}", f"{row['pictures_per_second']:.1f}")
    return shown


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


def _rounds(manifest: Manifest, arguments: argparse.Namespace) -> Iterator[dict[str, tuple[float, float]]]:
    """Rates of each pipeline, (per core second, per second); a first round warms up and is not given."""
    crops = Crops(
        global_crops_scale=(0.5, 1.0),
        local_crops_scale=(0.2, 0.5),
        global_crops_size=arguments.global_size,
        local_crops_size=arguments.local_size,
        local_crops_number=arguments.local_number,
    )
    augmentation = Augmentation(preset=arguments.preset)
    maker = batch_maker(
        manifest, crops=crops, augmentation=augmentation, ibot=Ibot(), patch_size=14, seed=arguments.seed
    )
    size = arguments.batch_size
    for number in range(arguments.rounds + 1):
        ours = range(4 * size * number, 4 * size * (number + 1))
        measured = {
            "ours": _rate(partial(_ours, maker, positions=ours, batch_size=size), num_pictures=len(ours)),
            "pillow": _rate(partial(_pillow, maker, positions=ours[:size]), num_pictures=size),
            "decode only": _rate(partial(_decode, maker, positions=ours), num_pictures=len(ours)),
        }
        if number:
            yield measured


def _ours(maker: BatchMaker, *, positions: range, batch_size: int) -> None:
    for start in range(0, len(positions), batch_size):
        maker.make(positions[start : start + batch_size])


def _pillow(maker: BatchMaker, *, positions: range) -> None:
    crops = maker.crops
    sizes = [crops.global_crops_size] * NUM_GLOBAL_CROPS + [crops.local_crops_size] * crops.local_crops_number
    for position in positions:
        draws = draw_crops(maker.recipe, crops=crops, seed=maker.seed, position=position)
        pillow_crops(maker.pictures.path(maker.stream.row(position)), draws, sizes=sizes, seed=position)


def _decode(maker: BatchMaker, *, positions: range) -> None:
    for position in positions:
        read_picture(maker.pictures.path(maker.stream.row(position)))


def _rate(work: Callable[[], object], *, num_pictures: int) -> tuple[float, float]:
    core, clock = time.process_time(), time.perf_counter()
    work()
    return num_pictures / (time.process_time() - core), num_pictures / (time.perf_counter() - clock)


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV and torch without threads of their own, as in a loader's worker."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])
