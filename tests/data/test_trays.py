"""Batches in shared memory: used again, never while somebody still reads them, and nothing is left behind."""

import gc
import os
import pickle
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch

from dinov2.batch import Made
from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data.loader import load_batches
from dinov2.data.trays import BatchShape, InTray, Numbered, Trays
from dinov2.errors import DataError

CROPS = Crops(global_crops_size=42, local_crops_size=28, local_crops_number=3)
SHAPE = BatchShape(num_pictures=4, crops=CROPS, num_patches=9)
MADE = Made(worker=0, process=1, seconds=0.1, slowest_path="a.png", slowest_seconds=0.1)


def load(manifest, **changes):
    settings = {
        "crops": CROPS,
        "augmentation": Augmentation(),
        "ibot": Ibot(),
        "patch_size": 14,
        "seed": 5,
        "batch_size": 4,
        "rank": 0,
        "num_ranks": 1,
        "first_batch": 0,
        "num_batches": 3,
        "num_workers": 2,
        "prefetch_batches": 2,
        "pin_memory": False,
    }
    return load_batches(manifest, **settings | changes)


def test_tensors_of_a_tray_have_the_shapes_of_a_batch_and_do_not_overlap():
    trays = Trays(SHAPE, count=2)
    for tray in (0, 1):
        pixels = trays.fill(tray)
        assert {name: tuple(tensor.shape) for name, tensor in pixels.items()} == {
            "global_crops": (8, 42, 42),
            "local_crops": (12, 28, 28),
            "masks": (8, 9),
        }
        for number, tensor in enumerate(pixels.values()):
            tensor.fill_(10 * tray + number)
    for tray in (0, 1):
        seen = trays.fill(tray)
        assert bool((seen["global_crops"] == 10 * tray).all())
        assert bool((seen["local_crops"] == 10 * tray + 1).all())
        assert seen["masks"].dtype == torch.bool
        assert bool(seen["masks"].all())


def test_a_tray_is_free_again_only_when_the_last_view_of_it_is_gone():
    trays = Trays(SHAPE, count=1)
    tray = trays.take()
    assert tray == 0
    assert trays.take() is None
    pixels = trays.lend(tray)
    slice_of_it = pixels["local_crops"][2:4].flatten()
    del pixels
    assert trays.num_free == 0
    del slice_of_it
    assert trays.num_free == 1


def test_more_memory_than_there_can_be_is_refused_with_what_to_lower():
    with pytest.raises(DataError, match=r"no memory for .* batches of 0.0 MB .*Lower train.num_workers"):
        Trays(SHAPE, count=2**40)


def test_word_of_a_tray_finds_the_trays_that_it_speaks_of():
    trays, others = Trays(SHAPE, count=1), Trays(SHAPE, count=1)
    trays.fill(0)["global_crops"].fill_(7)
    others.fill(0)["global_crops"].fill_(8)
    word = InTray(trays, trays.take(), (3, 4, 5, 6), (), MADE)
    arrays = pickle.loads(pickle.dumps(word)).arrays()
    assert bool((arrays["global_crops"] == 7).all())
    assert arrays["positions"].tolist() == [3, 4, 5, 6]
    assert (arrays["replaced"], arrays["made"]) == ((), MADE)


def test_a_pinned_batch_leaves_its_tray_free(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)  # page-locked memory needs an accelerator
    trays = Trays(SHAPE, count=1)
    trays.fill(0)["global_crops"].fill_(7)
    pinned = InTray(trays, trays.take(), (0, 1, 2, 3), (), MADE).pin_memory()
    assert trays.num_free == 1
    trays.fill(0)["global_crops"].fill_(9)
    assert bool((pinned["global_crops"] == 7).all())


def test_batches_are_numbered_with_trays_for_as_long_as_there_are_any():
    assert list(Numbered(range(5, 9), Trays(SHAPE, count=3))) == [(5, 2), (6, 1), (7, 0), (8, None)]
    assert list(Numbered(range(2), None)) == [(0, None), (1, None)]


def test_batches_that_are_kept_stay_what_they_were(manifest):
    """More of them than there are trays, so that the last ones come another way."""
    kept = list(load(manifest, num_batches=12))
    for batch, alone in zip(kept, load(manifest, num_batches=12, num_workers=0), strict=True):
        for name in ("global_crops", "local_crops", "masks", "positions"):
            assert torch.equal(getattr(batch, name), getattr(alone, name)), name


def test_a_part_of_a_batch_that_is_kept_stays_what_it_was(manifest):
    parts = [batch.local_crops[:2] for batch in load(manifest, num_batches=12)]
    for part, alone in zip(parts, load(manifest, num_batches=12, num_workers=0), strict=True):
        assert torch.equal(part, alone.local_crops[:2])


def test_memory_is_used_again_from_batch_to_batch(manifest):
    places = {batch.global_crops.data_ptr() for batch in load(manifest, num_batches=40)}
    assert len(places) <= 5  # two under way and three more


def descriptors(process: "int | str") -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def maps(process: "int | str") -> int:
    return len(Path(f"/proc/{process}/maps").read_text().splitlines())


def shared_files() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir() if path.stat().st_uid == os.getuid()}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not list a process's maps in /proc")
def test_many_batches_use_no_more_descriptors_and_maps_than_a_few(manifest):
    with closing(load(manifest, num_batches=400)) as batches:
        for _ in range(20):
            batch = next(batches)
        watched = ["self", batch.made.process]
        before = [(descriptors(process), maps(process)) for process in watched]
        for batch in batches:
            if batch.positions[0] >= 4 * 390:
                break
        after = [(descriptors(process), maps(process)) for process in watched]
    for (fewer, fewer_maps), (more, more_maps) in zip(before, after, strict=True):
        assert more <= fewer + 2
        assert more_maps <= fewer_maps + 8  # the allocator's own


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="this system has no /dev/shm")
def test_closing_early_again_and_again_leaves_nothing_behind(manifest):
    def start_and_stop() -> None:
        with closing(load(manifest, num_batches=500)) as batches:
            next(batches)

    start_and_stop()
    gc.collect()
    before = (descriptors("self"), maps("self"))
    for _ in range(4):
        start_and_stop()
    gc.collect()
    assert descriptors("self") <= before[0] + 2
    assert maps("self") <= before[1] + 8


KILLED = """
import sys
from pathlib import Path
from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data.loader import load_batches
from dinov2.manifest import from_folder
for batch in load_batches(
    from_folder(Path(sys.argv[1])),
    crops=Crops(global_crops_size=42, local_crops_size=28, local_crops_number=3),
    augmentation=Augmentation(), ibot=Ibot(), patch_size=14, seed=0, batch_size=4, rank=0, num_ranks=1,
    first_batch=0, num_batches=10**6, num_workers=2, prefetch_batches=2, pin_memory=False,
):
    print("ready", flush=True)
"""


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="this system has no /dev/shm")
def test_a_killed_run_leaves_no_shared_memory(films):
    before = shared_files()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(films)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for _ in range(20):
        assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    left = {name for name in shared_files() - before if str(process.pid) in name}
    assert not left
