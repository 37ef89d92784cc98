"""`data.cache`: where films are kept, what is refused, and that batches are the same with a cache and without."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data import cache_place
from dinov2.data.cache_place import fingerprint, open_cache
from dinov2.data.dataset import Pictures
from dinov2.data.loader import load_batches
from dinov2.errors import ConfigError
from dinov2.manifest import Manifest, from_folder, from_rows

REAL_OPEN = os.open


def batches(manifest, *, num_workers=0, cache=None, num_batches=14):
    return list(
        load_batches(
            manifest,
            crops=Crops(global_crops_size=56, local_crops_size=28, local_crops_number=2),
            augmentation=Augmentation(preset="cxr"),
            ibot=Ibot(),
            patch_size=14,
            seed=3,
            batch_size=4,
            rank=0,
            num_ranks=1,
            first_batch=0,
            num_batches=num_batches,
            num_workers=num_workers,
            prefetch_batches=2,
            pin_memory=False,
            cache=cache,
        )
    )


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        for name in ("positions", "global_crops", "local_crops", "masks"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("place", ["ram", "folder"])
def test_batches_are_the_same_with_a_cache_and_without(manifest, tmp_path, place, num_workers):
    """Over two passes: the first fills the cache, the second is made from it."""
    cache = open_cache(manifest, place="ram" if place == "ram" else str(tmp_path / "kept"), limit_gib=0.01)
    assert_same(batches(manifest, num_workers=num_workers, cache=cache), batches(manifest))
    assert sum(cache.holds(row) for row in range(24)) == 24


@pytest.mark.parametrize("place", ["ram", "folder"])
def test_a_film_that_is_kept_is_not_read_from_its_file_again(films, tmp_path, place):
    shutil.copytree(films, tmp_path / "films")
    manifest = from_folder(tmp_path / "films")
    expected = batches(manifest)
    cache = open_cache(manifest, place="ram" if place == "ram" else str(tmp_path / "kept"), limit_gib=0.01)
    batches(manifest, num_workers=2, cache=cache)
    for row in range(24):
        manifest.path(row).unlink()
    assert_same(batches(manifest, num_workers=2, cache=cache), expected)


def test_a_later_run_finds_the_films_of_an_earlier_one(manifest, tmp_path):
    place = f"{tmp_path}/kept"
    batches(manifest, cache=open_cache(manifest, place=place, limit_gib=0.01))
    again = open_cache(manifest, place=place, limit_gib=0.01)
    assert sum(again.holds(row) for row in range(24)) == 24


def test_a_cache_with_room_for_a_few_films_serves_these(manifest, tmp_path):
    cache = open_cache(manifest, place=f"{tmp_path}/kept", limit_gib=30_000 / 2**30)  # bytes; three films
    assert_same(batches(manifest, num_workers=2, cache=cache), batches(manifest))
    assert sum(cache.holds(row) for row in range(24)) == 3


def test_none_is_no_cache(manifest):
    assert open_cache(manifest, place="none", limit_gib=0) is None


@pytest.mark.parametrize(
    ("place", "limit_gib", "message"),
    [
        ("RAM", 1, r"data.cache=RAM: expected none, ram or a folder. For a folder of this name give ./RAM"),
        ("ram", 0, r"data.cache_gib=0 has no room for films: the table of 24 pictures alone takes"),
        ("ram", 10**6, r"data.cache_gib=1e\+06 for data.cache=ram, and this machine has .* GiB of memory"),
        ("/proc/nowhere", 1, r"data.cache=/proc/nowhere: films-.*.cache cannot be opened or made there \("),
    ],
)
def test_a_setting_that_cannot_be_followed_is_refused_with_what_to_do(manifest, place, limit_gib, message):
    with pytest.raises(ConfigError, match=message):
        open_cache(manifest, place=place, limit_gib=limit_gib)


def test_a_file_in_the_folders_place_is_refused(manifest, tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(ConfigError, match="cannot be opened or made there"):
        open_cache(manifest, place=f"{tmp_path}/kept", limit_gib=1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_disk_that_is_full_from_the_start_is_told_and_training_goes_on(manifest, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache_place.os, "open", lambda *_: REAL_OPEN("/dev/full", os.O_RDWR))
    assert open_cache(manifest, place=f"{tmp_path}/kept", limit_gib=1) is None
    assert "the disk is full. Training goes on without a cache" in caplog.text


def test_manifests_are_told_apart_by_names_sizes_order_and_folder(tmp_path):
    rows = [{"image": f"{i}.png", "width": 5, "height": 6} for i in range(6)]
    same = from_rows(rows, root=tmp_path)
    others = [
        from_rows(rows[::-1], root=tmp_path),
        from_rows(rows[:5], root=tmp_path),
        from_rows([*rows[:5], {"image": "5.png", "width": 5, "height": 7}], root=tmp_path),
        from_rows([*rows[:5], {"image": "5.png"}], root=tmp_path),
        from_rows([{"image": "0.pn"}, {"image": "g1.png"}, *rows[2:]], root=tmp_path),
        from_rows(rows, root=tmp_path / "elsewhere"),
    ]
    marks = {fingerprint(manifest) for manifest in (same, *others)}
    assert len(marks) == len(others) + 1


def test_a_manifest_is_itself_however_arrow_holds_it(tmp_path):
    rows = [{"image": f"{i}.png", "width": 5 if i % 2 else None, "height": 6} for i in range(6)]
    table = from_rows(rows, root=tmp_path).table
    longer = from_rows([{"image": "x.png"}, *rows, {"image": "y.png"}], root=tmp_path).table
    in_pieces = pa.concat_tables([table.slice(0, 2), table.slice(2, 1), table.slice(3)])
    marks = {fingerprint(Manifest(held, tmp_path)) for held in (table, in_pieces, longer.slice(1, 6))}
    assert len(marks) == 1


def test_films_made_anew_under_the_same_names_are_not_taken_from_the_cache(films, tmp_path, caplog):
    shutil.copytree(films, tmp_path / "films")
    manifest = from_folder(tmp_path / "films")
    cache = open_cache(manifest, place=f"{tmp_path}/kept", limit_gib=0.01)
    batches(manifest, cache=cache)
    for row in range(24):
        path = manifest.path(row)
        cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    again = open_cache(manifest, place=f"{tmp_path}/kept", limit_gib=0.01)
    assert "are not those on disk any more" in caplog.text
    assert not any(again.holds(row) for row in range(24))
    assert_same(batches(manifest, num_workers=2, cache=again), batches(manifest))


def test_a_file_that_is_not_a_cache_is_begun_anew(manifest, tmp_path, caplog):
    open_cache(manifest, place=f"{tmp_path}/kept", limit_gib=0.01)
    (kept,) = (tmp_path / "kept").glob("films-*.cache")
    kept.write_bytes(b"something else" * 1000)
    cache = open_cache(manifest, place=f"{tmp_path}/kept", limit_gib=0.01)
    assert "or is damaged; begun anew" in caplog.text
    assert_same(batches(manifest, cache=cache), batches(manifest))


KILLED = """
import sys
from pathlib import Path
from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data.cache_place import open_cache
from dinov2.data.loader import load_batches
from dinov2.manifest import from_folder
manifest = from_folder(Path(sys.argv[1]))
for batch in load_batches(
    manifest, crops=Crops(global_crops_size=56, local_crops_size=28, local_crops_number=2),
    augmentation=Augmentation(preset="cxr"), ibot=Ibot(), patch_size=14, seed=3, batch_size=4, rank=0, num_ranks=1,
    first_batch=0, num_batches=10**6, num_workers=2, prefetch_batches=2, pin_memory=False,
    cache=open_cache(manifest, place=sys.argv[2], limit_gib=1.0),
):
    print("ready", flush=True)
"""


def test_a_run_killed_while_it_writes_leaves_a_cache_whose_films_are_right(tmp_path):
    """Killed at the first batch, with both workers at work on films that take a while to write."""
    (tmp_path / "films").mkdir()
    rng = np.random.default_rng(0)
    for number in range(64):
        cv2.imwrite(str(tmp_path / f"films/{number:02d}.png"), rng.integers(0, 256, (300, 400), dtype=np.uint8))
    manifest = from_folder(tmp_path / "films")
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "films"), f"{tmp_path}/kept"],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)
    cache = open_cache(manifest, place=f"{tmp_path}/kept", limit_gib=1.0)
    kept = [row for row in range(64) if cache.holds(row)]
    assert kept
    for row in kept:
        assert np.array_equal(cache.get(row), Pictures(manifest).read(row))
    assert_same(batches(manifest, num_workers=2, cache=cache, num_batches=10), batches(manifest, num_batches=10))
