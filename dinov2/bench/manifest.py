"""What a manifest of millions of rows costs: seconds and peak memory of each thing that is done with one.

In: a number of rows. Out: a dictionary with a line per step. The rows are made up (16-digit ids, SHA-256 and perceptual
hashes, 3 to 4 films a patient, 1 film in 200 a copy or nearly one); the pictures they name are not on disk, but for the
20,000 that `open_pictures` looks for, which are hard links to one small PNG. Every step runs in a process of its own,
so that its peak memory is its own; a step's seconds leave out the start of Python.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from dinov2.bench.resident import resident_peak
from dinov2.config.preprocess import Quality
from dinov2.config.schema import Data
from dinov2.data.source import open_pictures
from dinov2.manifest import Manifest, ManifestWriter, read
from dinov2.manifest.check import file_faults, table_faults
from dinov2.manifest.duplicates import near, same_pixels, words_of
from dinov2.manifest.edit import split_by_patient
from dinov2.manifest.merge import merge

EXTRA = {
    "modality": pa.string(),
    "flags": pa.string(),
    "bits": pa.int32(),
    "perceptual_hash": pa.string(),
    "duplicate_of": pa.string(),
}
ROWS_AT_ONCE = 4096
FILMS_A_PATIENT = 3.5
COPIES = 0.0025  # of the rows repeat an earlier one's bytes, and as many are nearly an earlier one
FLIPPED_BITS = 3
RANDOM_ROWS = 1000
LINK = "link"  # not measured: it makes ready what `open` looks for
SIDE_PX = 8  # of the one small picture that is on disk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dinov2 bench manifest`."""
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of the merged manifest (default 2,000,000)")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures every step once, in the order of a real run."""
    lines = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name in STEPS:
            if name == "open":
                _in_process_of_its_own(LINK, folder, arguments)
            lines.append({"step": name, **_in_process_of_its_own(name, folder, arguments)})
        size = (Path(folder) / "all" / "manifest.parquet").stat().st_size
    import torch  # not at the top, nor what imports it: it would weigh on the memory of the steps

    from dinov2.bench.machine import machine_facts

    return {
        "machine": machine_facts(torch.device("cpu")) | {"arrow": pa.__version__},
        "settings": {"rows": arguments.rows, "seed": arguments.seed},
        "file_bytes": size,
        "steps": lines,
    }


def _in_process_of_its_own(step: str, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    words = [sys.executable, "-m", __name__, step, folder, str(arguments.rows), str(arguments.seed)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def table(result: dict[str, Any]) -> Table:
    """The steps as a table."""
    rows, machine = result["settings"]["rows"], result["machine"]
    shown = Table(
        title=f"manifest of {rows:,} rows, {result['file_bytes'] / 1e6:.0f} MB as Parquet; {machine['cores']} cores, "
        f"pyarrow {machine['arrow']}",
        caption="made-up rows; of the pictures only those that `open` looks for are on disk",
    )
    for column in ("step", "what", "seconds", "core seconds", "peak MB"):
        shown.add_column(column, justify="left" if column in ("step", "what") else "right")
    for line in result["steps"]:
        numbers = (f"{line['seconds']:.1f}", f"{line['core_seconds']:.1f}", f"{line['peak_bytes'] / 1e6:.0f}")
        shown.add_row(line["step"], line["what"], *numbers)
    return shown


def _write(folder: Path, num_rows: int, seed: int) -> str:
    """Two halves, as two shares of one conversion would write them."""
    for half in range(2):
        path = folder / f"half{half}" / "manifest.parquet"
        with ManifestWriter(path, extra=EXTRA) as writer:
            for rows in _made_up(num_rows, half=half, seed=seed):
                writer.add(rows)
    return "two halves, row by row as dictionaries; making them up is counted"


def _merge(folder: Path, num_rows: int, _seed: int) -> str:
    paths = [folder / f"half{half}" / "manifest.parquet" for half in range(2)]
    output = folder / "all" / "manifest.parquet"
    merged = merge(paths, output=output, near_duplicate_bits=Quality().near_duplicate_bits)
    assert merged.num_pictures == num_rows
    return f"the two halves; {sum(merged.flags.values()):,} rows flagged as duplicates"


def _read(folder: Path, num_rows: int, _seed: int) -> str:
    assert len(read(folder / "all" / "manifest.parquet")) == num_rows
    return "every column into memory"


def _check(folder: Path, _rows: int, _seed: int) -> str:
    faults = table_faults(read(folder / "all" / "manifest.parquet"))
    return f"the table, not the files: pictures and bytes in two rows, patients in two splits; {len(faults):,} found"


def _check_sample(folder: Path, _rows: int, _seed: int) -> str:
    manifest = _all(folder)
    rows = manifest.spread_rows(2000)
    missing = sum(fault is not None for fault in file_faults(manifest, rows=rows))
    return f"the files of 2,000 rows; {missing:,} absent"


def _filter(folder: Path, _rows: int, _seed: int) -> str:
    manifest = _all(folder)
    excluded = frozenset(str(manifest.table.column("image_id")[row]) for row in manifest.spread_rows(10_000))
    kept = manifest.filter(views=["PA"], splits=["train"], exclude=excluded)
    return f"view PA, split train, a list of 10,000 ids left out: {len(kept):,} rows stay"


def _split(folder: Path, _rows: int, seed: int) -> str:
    divided = split_by_patient(_all(folder), val=0.1, test=0.1, seed=seed)
    divided.write(folder / "split.parquet")
    return "by patient, and written"


def _sample(folder: Path, _rows: int, seed: int) -> str:
    return f"a tenth: {len(_all(folder).sample(0.1, seed=seed)):,} rows"


def _duplicates(folder: Path, _rows: int, _seed: int) -> str:
    table = read(folder / "all" / "manifest.parquet", columns=["image", "sha256", "perceptual_hash"]).table
    same = same_pixels(words_of(table.column("sha256")))
    alike = near(words_of(table.column("perceptual_hash")), Quality().near_duplicate_bits)
    return f"{(same >= 0).sum():,} rows of the same bytes, {(alike >= 0).sum():,} nearly the same"


def _open(folder: Path, _rows: int, seed: int) -> str:
    manifest = open_pictures(str(folder / "all" / "manifest.parquet"), data=Data(), seed=seed)
    return f"for training: {len(manifest):,} rows, 20,000 files looked for"


def _random(folder: Path, _rows: int, seed: int) -> str:
    manifest = _all(folder)
    rows = np.random.default_rng(seed).integers(0, len(manifest), RANDOM_ROWS)
    named = sum(bool(manifest.row(int(row))["image_id"]) and bool(manifest.place(int(row)).path.name) for row in rows)
    return f"every column and the place of {named:,} rows, after reading"


STEPS: dict[str, Callable[[Path, int, int], str]] = {
    "write": _write,
    "merge": _merge,
    "read": _read,
    "check": _check,
    "check files": _check_sample,
    "filter": _filter,
    "split": _split,
    "sample": _sample,
    "duplicates": _duplicates,
    "open": _open,
    "random rows": _random,
}


def measure(name: str, folder: Path, *, num_rows: int, seed: int) -> dict[str, Any]:
    """One step in this process: what it did, its seconds, those of its processor, and the peak memory in bytes."""
    started, started_core = time.perf_counter(), time.process_time()
    what = (STEPS | {LINK: _link})[name](folder, num_rows, seed)
    seconds, core_seconds = time.perf_counter() - started, time.process_time() - started_core
    return {"what": what, "seconds": seconds, "core_seconds": core_seconds, "peak_bytes": resident_peak()}


def _all(folder: Path) -> Manifest:
    return read(folder / "all" / "manifest.parquet")


def _link(folder: Path, _rows: int, _seed: int) -> str:
    """The pictures that `open_pictures` looks for, as names of one small file."""
    from PIL import Image

    manifest = _all(folder)
    one = manifest.root / "one.png"
    Image.new("L", (SIDE_PX, SIDE_PX)).save(one)
    for row in manifest.spread_rows(20_000):
        path = manifest.path(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(one, path)
    return "pictures for the next step"


def _made_up(num_rows: int, *, half: int, seed: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of one half, some at a time."""
    rng = np.random.default_rng([seed, half])
    first, last = half * (num_rows // 2), num_rows // 2 if half == 0 else num_rows
    num_patients = max(1, round(num_rows / FILMS_A_PATIENT))
    before: list[tuple[str, str]] = []
    for start in range(first, last, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, last - start)
        digests, hashes = _hashes(rng, count), _hashes(rng, count)
        patients, luck = rng.integers(0, num_patients, count), rng.random(count)
        rows = []
        for i in range(count):
            digest, hashed = digests[i], hashes[i]
            if before and luck[i] < 2 * COPIES:
                earlier = before[int(patients[i]) % len(before)]
                digest, hashed = earlier if luck[i] < COPIES else (digest, _nearly(earlier[1], int(patients[i])))
            rows.append(_row(start + i, patient=int(patients[i]), digest=digest, hashed=hashed))
        before = list(zip(digests, hashes, strict=True))
        yield rows


def _hashes(rng: np.random.Generator, count: int) -> list[str]:
    return [rng.bytes(32).hex() for _ in range(count)]


def _nearly(hashed: str, number: int) -> str:
    flipped = sum(1 << ((number * 7 + 64 * k) % 256) for k in range(FLIPPED_BITS))
    return f"{int(hashed, 16) ^ flipped:064x}"


def _row(number: int, *, patient: int, digest: str, hashed: str) -> dict[str, Any]:
    image_id = f"{(number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF:016x}"
    return {
        "image": f"images/{image_id[:2]}/{image_id}.png",
        "image_id": image_id,
        "dataset": "made up",
        "patient": f"{patient:016x}",
        "study": f"{number // 2:016x}",
        "view": ("PA", "AP", "LATERAL")[number % 3],
        "split": ("train", "train", "train", "val")[patient % 4],
        "width": 622,
        "height": 518,
        "sha256": digest,
        "source": image_id[::-1],
        "modality": "DX",
        "flags": "",
        "bits": 12,
        "perceptual_hash": hashed,
    }


if __name__ == "__main__":
    step, where, rows, seed = sys.argv[1:]
    print(json.dumps(measure(step, Path(where), num_rows=int(rows), seed=int(seed))))
