"""How long `dinov2 explore` takes to open many films, and how much a browser has to fetch.

In: how many films, how wide their features, which map. Out: seconds of the real command to its address, when it makes
the map and when it finds it kept; seconds and bytes of the page, of the first films' small pictures (six connections,
as a browser opens) and of a film's neighbours. Features, manifest and films are made up; the pictures are 32 files
which the rows share.
"""

import argparse
import gzip
import http.client
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.table import Table

from dinov2.bench.loader import draw_films
from dinov2.bench.machine import machine_facts
from dinov2.bench.progress import announced
from dinov2.errors import ConfigError

NUM_PICTURES = 32
GROUPS = 14
CONNECTIONS = 6  # of a browser to one server
FIRST_FILMS = 13  # the chosen film and its neighbours
MOST_SECONDS = 3.0  # for a page of 20,000 films
ADDRESS = re.compile(r"open: http://127\.0\.0\.1:(\d+)/")
DATA = re.compile(rb'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
LAST_CHARACTERS = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dinov2 bench explore`."""
    parser.add_argument("--films", type=int, default=20_000, help="on the map (default 20000)")
    parser.add_argument("--width", type=int, default=768, help="of their features (default 768)")
    parser.add_argument("--method", choices=("pca", "tsne", "umap"), default="pca", help="of the map (default pca)")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Makes the films up and opens them twice.  Raises ConfigError where the command fails."""
    if arguments.films < FIRST_FILMS or arguments.width < 2:
        raise ConfigError(f"--films {arguments.films} --width {arguments.width}: give at least {FIRST_FILMS} and 2.")
    with tempfile.TemporaryDirectory() as name, announced("bench explore", total=3) as tell:
        folder = Path(name)
        tell("making films up")
        words = write_films(folder, num=arguments.films, width=arguments.width)
        tell("dinov2 explore, which makes the map")
        with _explorer(*words, "--method", arguments.method) as (_, seconds_made):
            pass
        tell("dinov2 explore once more, and its page")
        with _explorer(*words, "--method", arguments.method) as (port, seconds_kept):
            fetched = fetch_page(port)
    return {
        "machine": machine_facts(torch.device("cpu")),
        "settings": {"films": arguments.films, "width": arguments.width, "method": arguments.method},
        "seconds_to_address_making_the_map": seconds_made,
        "seconds_to_address": seconds_kept,
        **fetched,
    }


def table(result: dict[str, Any]) -> Table:
    """What it took beside what it may take."""
    settings = result["settings"]
    opened = result["page_seconds"] + result["films_seconds"]
    shown = Table(
        title=f"dinov2 explore of {settings['films']:,} films, width {settings['width']}, {settings['method']}",
        caption=f"A page that opens: its bytes, and the small pictures of {FIRST_FILMS} films.",
    )
    for column in ("what", "seconds", "bytes", "at most"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    size = f"{result['page_bytes'] / 1e6:.2f} MB, {result['page_unpacked_bytes'] / 1e6:.2f} MB unpacked"
    shown.add_row("command to address, making the map", f"{result['seconds_to_address_making_the_map']:.1f}", "", "")
    shown.add_row("command to address, map kept", f"{result['seconds_to_address']:.1f}", "", "")
    shown.add_row("page", f"{result['page_seconds']:.3f}", size, "")
    shown.add_row("first films", f"{result['films_seconds']:.3f}", f"{result['films_bytes'] / 1e3:.0f} kB", "")
    shown.add_row("page opens", f"{opened:.3f}", "", f"{MOST_SECONDS:g} s")
    shown.add_row("a film's row and neighbours", f"{result['row_seconds']:.3f}", f"{result['row_bytes']:,} B", "")
    return shown


def write_films(folder: Path, *, num: int, width: int) -> list[str]:
    """Features in groups, a manifest of words and numbers, pictures.  -> the options that open them"""
    rng = np.random.default_rng(0)
    (folder / "films").mkdir()
    draw_films(folder / "films", count=NUM_PICTURES)
    groups = rng.integers(GROUPS, size=num)
    vectors = rng.normal(size=(GROUPS, width)).astype(np.float32)[groups] * 0.5
    vectors += rng.standard_normal((num, width), dtype=np.float32)
    names = [f"site-{row % 7}/study-{row:06d}" for row in range(num)]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
    pq.write_table(pa.table({"image_id": names, "cls": lists}), folder / "features.parquet")
    manifest = {
        "image_id": names,
        "image": [f"films/{row % NUM_PICTURES:03d}.png" for row in range(num)],
        "view": [("PA", "AP", "LAT", None)[group % 4] for group in groups.tolist()],
        "group": [f"group {group:02d}" for group in groups.tolist()],
        "age": np.clip(rng.normal(58, 17, num), 0, 99),
    }
    pq.write_table(pa.table(manifest), folder / "manifest.parquet")
    return ["--features", str(folder / "features.parquet"), "--manifest", str(folder / "manifest.parquet")]


@contextmanager
def _explorer(*words: str) -> Iterator[tuple[int, float]]:
    """The command in a process of its own: its port, and seconds until it said so."""
    begun = time.perf_counter()
    command = [sys.executable, "-u", "-m", "dinov2", "explore", "--port", "0", *words]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        found = next((found for line in process.stdout if (found := ADDRESS.search(line))), None)
        seconds = time.perf_counter() - begun
        if found is None:
            errors.seek(0)
            code = process.wait()
            raise ConfigError(f"dinov2 explore ended with exit code {code}: {errors.read().strip()[-LAST_CHARACTERS:]}")
        try:
            yield int(found[1]), seconds
        finally:
            process.send_signal(signal.SIGINT)


def fetch_page(port: int) -> dict[str, float]:
    """What a browser fetches, unpacked and read as far as its script reads it."""
    begun = time.perf_counter()
    packed = _get(port, "/")
    page = gzip.decompress(packed)
    found = DATA.search(page)
    assert found is not None
    json.loads(found[1])
    page_seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    row = _get(port, "/row/0")
    row_seconds = time.perf_counter() - begun
    shown = [0, *json.loads(row)["neighbours"]][:FIRST_FILMS]
    begun = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        films = list(pool.map(lambda film: len(_get(port, f"/film/{film}/small")), shown))
    return {
        "page_seconds": page_seconds,
        "page_bytes": len(packed),
        "page_unpacked_bytes": len(page),
        "films_seconds": time.perf_counter() - begun,
        "films_bytes": sum(films),
        "row_seconds": row_seconds,
        "row_bytes": len(row),
    }


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ConfigError(f"dinov2 explore answered {answer.status} to {path}: {content.decode()[-LAST_CHARACTERS:]}")
    return content
