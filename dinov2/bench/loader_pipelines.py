"""One process making crops: our pipeline, with and without a cache of decoded films, Pillow's, and decoding alone.

In: a manifest and what a batch is. Out: pictures a second. All take turns in one process on the same pictures with the
same draws, so that their ratios hold on a busy machine too. A rate per core is pictures per second of this process's
own processor time; the rate by the clock stands beside it.
"""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.bench.pillow_pipeline import pillow_crops
from dinov2.bench.progress import Tell
from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data.augmentation import draw_crops
from dinov2.data.cache_place import open_cache
from dinov2.data.collate import BatchMaker
from dinov2.data.dataset import Pictures
from dinov2.data.film_cache import FilmCache
from dinov2.data.loader import batch_maker, load_batches
from dinov2.data.trays import Pixels
from dinov2.manifest import Manifest

OURS, IN_RAM, IN_FILE = "ours", "ours, films kept in RAM", "ours, films kept in a file"
PILLOW, DECODING = "pillow", "decode only"
PIPELINES = (OURS, IN_RAM, IN_FILE, PILLOW, DECODING)
BATCHES_A_TURN = 4
CACHE_GIB = 1.0


class Rate(NamedTuple):
    """Pictures a second."""

    per_core: float  # of processor time
    by_clock: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is made in every measurement."""

    manifest: Manifest
    crops: Crops
    augmentation: Augmentation
    batch_size: int
    seed: int

    def maker(self, *, cache: FilmCache | None = None) -> BatchMaker:
        """What a worker makes batches with."""
        return batch_maker(self.manifest, **self._recipe(), cache=cache)

    def batches(self, *, num_batches: int, num_workers: int) -> Any:
        """The loader itself, as training uses it."""
        return load_batches(
            self.manifest,
            **self._recipe(),
            batch_size=self.batch_size,
            rank=0,
            num_ranks=1,
            first_batch=0,
            num_batches=num_batches,
            num_workers=num_workers,
            prefetch_batches=4,
            pin_memory=False,
        )

    def _recipe(self) -> dict[str, Any]:
        return {
            "crops": self.crops,
            "augmentation": self.augmentation,
            "ibot": Ibot(),
            "patch_size": 14,
            "seed": self.seed,
        }


def rounds(trial: Trial, *, count: int, folder: Path, tell: Tell) -> Iterator[dict[str, Rate]]:
    """Rates of every pipeline, `count` times; a first round warms up, fills the caches, and is not given.

    A cache is asked for every picture once before it is measured: what is measured are films that are kept.
    """
    caches = {
        name: open_cache(trial.manifest, place=place, limit_gib=CACHE_GIB)
        for name, place in ((IN_RAM, "ram"), (IN_FILE, str(folder / "cache")))
    }
    makers = {name: trial.maker(cache=cache) for name, cache in caches.items()} | {OURS: trial.maker()}
    num = BATCHES_A_TURN * trial.batch_size
    into = makers[OURS].shape(trial.batch_size).blank()
    with one_thread():
        for number in range(count + 1):
            tell("warming up" if number == 0 else f"pipelines, round {number}")
            positions = range(num * number, num * (number + 1))
            for name in caches:  # those of this turn that no turn before met
                _read(makers[name].pictures, makers[name], positions=positions)
            measured = {
                name: _rate(partial(_ours, maker, positions=positions, into=into), num_pictures=num)
                for name, maker in makers.items()
            }
            few = positions[: trial.batch_size]
            measured[PILLOW] = _rate(partial(_pillow, trial, makers[OURS], positions=few), num_pictures=len(few))
            plain = partial(_read, makers[OURS].pictures, makers[OURS], positions=positions)
            measured[DECODING] = _rate(plain, num_pictures=num)
            if number:
                yield {name: measured[name] for name in PIPELINES}
    for cache in caches.values():
        if cache is not None:
            cache.close()


def decode_rate(manifest: Manifest, *, num_pictures: int = 64, seed: int = 0) -> Rate:
    """Pictures a second that one core reads and decodes, in a random order: no loader without a cache is faster."""
    pictures = Pictures(manifest)
    rows = [int(row) for row in torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))]
    chosen = [rows[i % len(rows)] for i in range(num_pictures)]
    with one_thread():
        pictures.read(chosen[0])
        return _rate(lambda: [pictures.read(row) for row in chosen], num_pictures=num_pictures)


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV and torch without threads of their own, as in a loader's worker."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _ours(maker: BatchMaker, *, positions: range, into: Pixels) -> None:
    """As a worker does: into memory that was used before."""
    size = len(positions) // BATCHES_A_TURN
    for start in range(0, len(positions), size):
        maker.make(positions[start : start + size], into=into)


def _pillow(trial: Trial, maker: BatchMaker, *, positions: range) -> None:
    crops = trial.crops
    sizes = [crops.global_crops_size] * NUM_GLOBAL_CROPS + [crops.local_crops_size] * crops.local_crops_number
    for position in positions:
        draws = draw_crops(maker.recipe, crops=crops, seed=trial.seed, position=position)
        place = trial.manifest.place(maker.stream.row(position))
        file = io.BytesIO(place.read()) if place.is_packed else place.path
        pillow_crops(file, draws, sizes=sizes, seed=position)


def _read(pictures: Pictures, maker: BatchMaker, *, positions: range) -> None:
    for position in positions:
        pictures.read(maker.stream.row(position))


def _rate(work: Callable[[], object], *, num_pictures: int) -> Rate:
    core, clock = time.process_time(), time.perf_counter()
    work()
    return Rate(num_pictures / (time.process_time() - core), num_pictures / (time.perf_counter() - clock))
