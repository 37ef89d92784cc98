"""The loader as training uses it: its workers side by side, their memory over many films, and how soon it starts.

In: a `Trial`. Out: rates by the clock, bytes and seconds.
"""

import resource
import statistics
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dinov2.bench.loader_pipelines import CACHE_GIB, Trial
from dinov2.bench.progress import Tell
from dinov2.data.cache_place import open_cache
from dinov2.manifest import Manifest

THOUSAND = 1000
STATM = "/proc/{process}/statm"
PAGE_BYTES = resource.getpagesize()


def side_by_side(trial: Trial, *, workers: list[int], num_batches: int, rounds: int, tell: Tell) -> dict[str, Any]:
    """Pictures a second with each number of workers, in turns; medians, and ratios to the first.

    The main process only takes the batches. By the clock: what the loader had ready when the clock starts is taken
    before. Per core: of the workers' processor time from their start to their end, which tells whether they hinder each
    other even where other work takes cores away.
    """
    rates: dict[int, list[float]] = {number: [] for number in workers}
    per_core: dict[int, list[float]] = {number: [] for number in workers}
    for number in range(rounds):
        for count in workers:
            tell(f"{count} worker{'s' * (count > 1)}, round {number + 1}")
            ready = 4 + 2 * count
            core = _seconds_of_children()
            with closing(trial.batches(num_batches=ready + num_batches, num_workers=count)) as batches:
                for _ in range(ready):
                    next(batches)
                started = time.perf_counter()
                taken = sum(1 for _ in batches)
                rates[count].append(taken * trial.batch_size / (time.perf_counter() - started))
            made = (ready + num_batches) * trial.batch_size
            per_core[count].append(made / (_seconds_of_children() - core))
    first = workers[0]
    return {
        str(count): {
            "pictures_per_core_second": statistics.median(per_core[count]),
            "pictures_per_second": statistics.median(rates[count]),
            "ratio": statistics.median(a / b for a, b in zip(rates[count], rates[first], strict=True)),
        }
        for count in workers
    }


def resident_over(trial: Trial, *, num_films: int, tell: Tell) -> dict[str, float]:
    """Resident bytes of one worker: means over its first and last thousand films; of fewer than 2,000, over halves."""
    tell(f"memory of a worker over {num_films:,} films")
    num_batches = max(2, num_films // trial.batch_size)
    seen: list[int] = []
    with closing(trial.batches(num_batches=num_batches, num_workers=1)) as batches:
        for batch in batches:
            statm = Path(STATM.format(process=batch.made.process)).read_text()
            seen.append(int(statm.split()[1]) * PAGE_BYTES)
    part = min(THOUSAND // trial.batch_size + 1, len(seen) // 2)
    first, last = statistics.mean(seen[:part]), statistics.mean(seen[-part:])
    return {
        "films": num_batches * trial.batch_size,
        "compared_films": part * trial.batch_size,
        "first_bytes": first,
        "last_bytes": last,
        "growth": last / first - 1,
        "most_bytes": max(seen),
    }


def start_up(trial: Trial, *, rows: list[int], folder: Path, tell: Tell) -> list[dict[str, float]]:
    """Seconds from asking for batches to the first one, and to open a cache, with manifests of many rows.

    The rows are made up: they name the trial's pictures again and again.
    """
    lines = []
    for num_rows in rows:
        tell(f"start with {num_rows:,} rows")
        long = replace(trial, manifest=_repeated(trial.manifest, num_rows=num_rows))
        started = time.perf_counter()
        with closing(long.batches(num_batches=1, num_workers=1)) as batches:
            next(batches)
            first_batch = time.perf_counter() - started
        started = time.perf_counter()
        cache = open_cache(long.manifest, place=str(folder / f"cache-{num_rows}"), limit_gib=CACHE_GIB)
        opened = time.perf_counter() - started
        if cache is not None:
            cache.close()
        lines.append({"rows": num_rows, "first_batch_seconds": first_batch, "open_cache_seconds": opened})
    return lines


def _seconds_of_children() -> float:
    """Processor time of the child processes that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _repeated(manifest: Manifest, *, num_rows: int) -> Manifest:
    chosen = pa.array(np.arange(num_rows) % len(manifest))
    return Manifest(manifest.table.take(chosen), manifest.root)
