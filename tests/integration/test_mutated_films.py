"""Thousands of damaged films through the real command: none stops it, none is lost, none becomes a wrong picture."""

import csv
import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit

from dinov2.phantom.anatomy import render
from dinov2.phantom.body import Findings, draw_body
from dinov2.phantom.dicom import WRITABLE, Identification, Technique, write_film
from tests.integration.mutations import Mutant, Original, mutants

NUM_FILMS = int(os.environ.get("DINOV2_FUZZ_FILES", "3000"))
PLANTED = ("SMITH", "19570101", "DOE^JANE", "evil", "PHANTOM-SECRET")
DECODED = {"duplicate_uid", "duplicate_pixels", "near_duplicate"}  # reasons of files that gave a good picture


def originals(folder: Path) -> list[Original]:
    """A small film in every transfer syntax, and as PNG, JPEG and TIFF."""
    film = render(draw_body(np.random.default_rng(0), view="PA", findings=Findings()), short_side=96).film
    found = []
    for number, syntax in enumerate(WRITABLE):
        path = folder / f"{number}.dcm"
        technique = Technique(syntax=syntax, bits_stored=8 if syntax == JPEGBaseline8Bit else 12)
        who = Identification(series="fuzz", patient="PHANTOM-SECRET-1", number=number, view="PA")
        write_film(path, film, technique=technique, identification=who)
        data = path.read_bytes()
        size = len(pydicom.dcmread(path).PixelData)
        is_native = not syntax.is_encapsulated
        # A deflated data set hides its pixels; the end of a native one may be a pad byte, of a packed one delimiters
        pixels = 400 if syntax.is_deflated else len(data) - size - (0 if is_native else 8)
        tail = 1 if syntax.is_deflated else size % 2 if is_native else 8 + 2
        found.append(Original(name=syntax.name, data=data, is_dicom=True, pixels=pixels, tail=tail))
    grey = Image.fromarray((film * 255).astype(np.uint8))
    for form in ("PNG", "JPEG", "TIFF"):
        stream = io.BytesIO()
        grey.save(stream, form)
        content = stream.getvalue()
        found.append(Original(name=form, data=content, is_dicom=False, pixels=200, tail=400 if form == "TIFF" else 0))
    return found


def drawn(films: list[Original], *, count: int) -> list[Mutant]:
    """The same mutants in every run."""
    found: list[Mutant] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutants(films))
    def collect(mutant: Mutant) -> None:
        found.append(mutant)

    while len(found) < count:
        collect()
    return found[:count]


def write(folder: Path, *, mutant: Mutant, number: int, uids: dict[str, bytes]) -> str:
    """A file of its own, with a UID of its own as far as the damage left one."""
    data, uid = mutant.data, uids.get(mutant.original)
    if uid is not None:
        data = data.replace(uid, uid[:-6] + b"%06d" % number)
    # Of several files with one UID (a deflated header hides its own) the first is kept: let that be the good one.
    name = f"{'+good' if mutant.kind == 'none' else f'{number % 16:x}'}/{number:06d}"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return name


def preprocess(films: Path, output: Path) -> "subprocess.CompletedProcess[str]":
    changes = [
        "resample.short_side=64",
        "max_rejected_share=1",
        "limits.seconds_per_file=20",
        "limits.max_megapixels=4",
    ]
    words = ["--input", films, "--output", output, "--workers", 2, *changes, "privacy.source_names=path"]
    return subprocess.run(
        [sys.executable, "-m", "dinov2", "preprocess", *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=1500,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of the command over all mutants: what was damaged how, and what became of it."""
    root = tmp_path_factory.mktemp("fuzz")
    (root / "good").mkdir()
    films = originals(root / "good")
    uids = {
        film.name: str(pydicom.dcmread(io.BytesIO(film.data), stop_before_pixels=True).SOPInstanceUID).encode()
        for film in films
        if film.is_dicom and film.name != "Deflated Explicit VR Little Endian"
    }
    good = [Mutant(original=film.name, kind="none", data=film.data, harmless=True) for film in films]
    listed = [*good, *drawn(films, count=NUM_FILMS)]
    mutated = {
        write(root / "films", mutant=mutant, number=number, uids=uids): mutant for number, mutant in enumerate(listed)
    }
    done = preprocess(root / "films", root / "out")
    rows = {row["source"]: row for row in pq.read_table(root / "out/manifest.parquet").to_pylist()}
    with (root / "out/rejected.csv").open(newline="") as stream:
        rejects = {row["file"]: row["reason"] for row in csv.DictReader(stream)}
    return root, mutated, done, rows, rejects


def test_the_command_ends_well(run):
    _, _, done, _, _ = run
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr


def test_every_mutant_is_in_the_manifest_or_in_the_rejects_and_never_in_both(run):
    _, mutated, _, rows, rejects = run
    assert rows.keys() | rejects.keys() == mutated.keys()
    assert not rows.keys() & rejects.keys()


def test_no_picture_comes_of_a_film_whose_bytes_show_the_damage(run):
    _, mutated, _, rows, rejects = run
    wrong = [
        (name, mutant.original, mutant.kind, len(mutant.data))
        for name, mutant in mutated.items()
        if mutant.hopeless and (name in rows or rejects[name] in DECODED)
    ]
    assert not wrong


def test_what_does_not_touch_the_pixels_does_not_change_the_picture(run):
    _, mutated, _, rows, _ = run
    pictures = {m.original: rows[name]["sha256"] for name, m in mutated.items() if m.kind == "none"}
    changed = [(name, m.original) for name, m in mutated.items() if m.harmless and name in rows]
    assert len(changed) > len(pictures)
    assert all(rows[name]["sha256"] == pictures[original] for name, original in changed)


def test_nothing_waits_for_the_time_limit_and_no_worker_dies(run):
    _, _, _, _, rejects = run
    assert not [name for name, reason in rejects.items() if reason in ("time_limit", "worker_died")]


def test_no_planted_text_comes_out(run):
    root, _, done, _, _ = run
    outputs = [done.stdout.encode(), done.stderr.encode()]
    outputs += [path.read_bytes() for path in (root / "out").rglob("*") if path.is_file() and path.suffix != ".png"]
    outputs.append(str(pq.read_table(root / "out/manifest.parquet").to_pydict()).encode())
    for text in PLANTED:
        assert not [content[:200] for content in outputs if text.encode() in content], text


def test_what_became_of_each_kind_of_damage_is_told(run):
    _, mutated, _, rows, rejects = run
    counts: dict[str, Counter[str]] = {}
    for name, mutant in mutated.items():
        counts.setdefault(mutant.kind, Counter())["picture" if name in rows else rejects[name]] += 1
    for kind, found in sorted(counts.items()):
        print(f"{kind:20s} {sum(found.values()):5d}  " + ", ".join(f"{why} {n}" for why, n in found.most_common()))
    assert sum(sum(found.values()) for found in counts.values()) == NUM_FILMS + len(
        {m.original for m in mutated.values()}
    )
