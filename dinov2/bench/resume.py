"""From the start of a command to the first batch of a continued run, at several steps.

In: a number of rows and steps. Out: seconds of each part: starting Python and torch, opening the manifest, building the
networks, reading the checkpoint, finding the place in the stream, the first batch. Every step is measured in processes
of its own, in turns. The manifest names the same few synthetic films over and over; the checkpoint is a real one, told
that it stands at the step.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.table import Table

from dinov2.bench.checkpoint import real_state, state_config
from dinov2.bench.loader import draw_films
from dinov2.bench.machine import machine_facts
from dinov2.checkpoint.store import CheckpointStore, load_tensors, read_facts
from dinov2.config.load import from_plain
from dinov2.config.schema import Config
from dinov2.data.loader import load_batches
from dinov2.data.source import open_pictures
from dinov2.data.stream import SampleStream

NUM_FILMS = 32
CPU = torch.device("cpu")
PARTS = ("start", "manifest", "networks", "checkpoint", "place", "batch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the manifest (default 1,000,000)")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1_000, 1_000_000], help="0 1000 1000000 by default")
    parser.add_argument("--global-batch", type=int, default=1024, help="pictures a step (default 1024)")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures of the first batch (default 8)")
    parser.add_argument("--arch", default="vit_small", help="default vit_small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """A row a step; medians over the rounds, the first of which warms up and is not counted."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        _prepare(folder, arguments)
        measured: dict[int, list[dict[str, float]]] = {step: [] for step in arguments.steps}
        for _ in range(arguments.rounds + 1):
            for step, rounds in measured.items():
                rounds.append(_in_process_of_its_own(folder, step=step, batch_size=arguments.batch_size))
    rows = [
        {"step": step} | {part: statistics.median(one[part] for one in rounds[1:]) for part in (*PARTS, "total")}
        for step, rounds in measured.items()
    ]
    return {
        "machine": machine_facts(CPU),
        "settings": {key: value for key, value in vars(arguments).items() if key not in ("json", "folder")},
        "rows": rows,
        "last_to_first": rows[-1]["total"] / rows[0]["total"],
    }


def table(result: dict[str, Any]) -> Table:
    """The rows as a table."""
    settings, machine = result["settings"], result["machine"]
    first, last = result["rows"][0]["step"], result["rows"][-1]["step"]
    shown = Table(
        title=f"seconds from the start to the first batch: {settings['arch']}, {settings['rows']:,} rows, "
        f"{settings['global_batch']:,} pictures a step, on {machine['device']}",
        caption=f"step {last:,} takes {result['last_to_first']:.2f} times as long as step {first:,}",
    )
    for heading in ("step", *PARTS, "total"):
        shown.add_column(heading, justify="right")
    for row in result["rows"]:
        shown.add_row(f"{row['step']:,}", *(f"{row[part]:.2f}" for part in (*PARTS, "total")))
    return shown


def _prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """Films, a manifest that names them, and a checkpoint for each step."""
    films = folder / "films"
    films.mkdir()
    draw_films(films, count=NUM_FILMS)
    names = [f"films/{number:03d}.png" for number in range(NUM_FILMS)]
    index = pa.array((row % NUM_FILMS for row in range(arguments.rows)), pa.int32(), size=arguments.rows)
    ids = pa.array((f"{row:012x}" for row in range(arguments.rows)), size=arguments.rows)
    images = pa.DictionaryArray.from_arrays(index, pa.array(names)).cast(pa.string())
    pq.write_table(pa.table({"image": images, "image_id": ids}), folder / "manifest.parquet")
    config = state_config(arguments.arch, patch_size=14, prototypes=8192, dataset=str(folder / "manifest.parquet"))
    tensors = real_state(config, device=CPU, shard=False)
    store = CheckpointStore(folder / "checkpoints")
    for step in arguments.steps:
        facts = {"position": step * arguments.global_batch, "config": asdict(config)}
        store.save(step, tensors=tensors, facts=facts)
    store.close()


def _in_process_of_its_own(folder: Path, *, step: int, batch_size: int) -> dict[str, float]:
    words = [sys.executable, "-m", __name__, str(folder), str(step), str(batch_size), str(time.time())]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(folder: Path, *, step: int, batch_size: int, started: float) -> dict[str, float]:
    """Seconds of each part in this process, which was asked for at `started` (seconds since 1970)."""
    seconds = {"start": time.time() - started}
    checkpoint = folder / "checkpoints" / str(step)
    facts = read_facts(checkpoint)
    config, position = from_plain(Config, facts["config"]), facts["position"]
    with _timed(seconds, "manifest"):
        pictures = open_pictures(config.train.dataset_path, data=config.data, seed=config.train.seed)
    with _timed(seconds, "networks"):
        tensors = real_state(config, device=CPU, shard=False)
    with _timed(seconds, "checkpoint"):
        load_tensors(checkpoint, into=tensors)
    with _timed(seconds, "place"):
        SampleStream(len(pictures), seed=config.train.seed).row(position)
    with _timed(seconds, "batch"):
        batches = load_batches(
            pictures,
            crops=config.crops,
            augmentation=config.augmentation,
            ibot=config.ibot,
            patch_size=config.student.patch_size,
            seed=config.train.seed,
            batch_size=batch_size,
            rank=0,
            num_ranks=1,
            first_batch=-(-position // batch_size),
            num_batches=1,
            num_workers=1,
            prefetch_batches=1,
            pin_memory=False,
        )
        next(batches)
    batches.close()
    return seconds | {"total": time.time() - started}


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


if __name__ == "__main__":
    where, at, pictures_a_batch, asked = sys.argv[1:]
    print(json.dumps(measure(Path(where), step=int(at), batch_size=int(pictures_a_batch), started=float(asked))))
