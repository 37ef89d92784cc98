import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dinov2.batch import Batch
from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data.augmentation import apply_crop, draw_crops, resolve
from dinov2.data.dataset import read_picture
from dinov2.data.loader import load_batches
from dinov2.data.stream import SampleStream
from dinov2.errors import ConfigError, DataError
from dinov2.manifest import Manifest, from_folder, from_rows

CROPS = Crops(global_crops_size=42, local_crops_size=28, local_crops_number=3)


def load(manifest: Manifest, **changes: object) -> Iterator[Batch]:
    settings: dict[str, object] = {
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
        "num_workers": 0,
        "prefetch_batches": 2,
        "pin_memory": False,
    }
    return load_batches(manifest, **settings | changes)


def assert_same(one: Batch, other: Batch) -> None:
    assert torch.equal(one.positions, other.positions)
    assert torch.equal(one.global_crops, other.global_crops)
    assert torch.equal(one.local_crops, other.local_crops)
    assert torch.equal(one.masks, other.masks)


def test_a_batch_has_the_shapes_of_the_door(manifest):
    batch = next(load(manifest))
    assert batch.global_crops.shape == (8, 42, 42)
    assert batch.local_crops.shape == (12, 28, 28)
    assert batch.masks.shape == (8, 9)
    assert batch.positions.tolist() == [0, 1, 2, 3]
    assert batch.replaced == ()


def test_crops_lie_crop_major_each_made_of_its_own_picture_and_draws(manifest):
    batch = list(load(manifest))[1]
    stream = SampleStream(len(manifest), seed=5)
    for i, position in enumerate(batch.positions.tolist()):
        picture = read_picture(manifest.path(stream.row(position)))
        draws = draw_crops(resolve(Augmentation()), crops=CROPS, seed=5, position=position)
        for c in range(2):
            assert np.array_equal(batch.global_crops[c * 4 + i].numpy(), apply_crop(picture, draws[c], size=42))
        for c in range(3):
            assert np.array_equal(batch.local_crops[c * 4 + i].numpy(), apply_crop(picture, draws[2 + c], size=28))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")  # on a machine of two cores
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_batches_do_not_depend_on_the_number_of_workers(manifest, num_workers):
    pairs = zip(load(manifest, num_batches=7), load(manifest, num_batches=7, num_workers=num_workers), strict=True)
    for alone, shared in pairs:
        assert_same(alone, shared)


def test_batches_do_not_depend_on_where_the_run_starts(manifest):
    whole = list(load(manifest, num_batches=9))  # 36 positions: over the end of a pass of 24
    resumed = list(load(manifest, first_batch=5, num_batches=4))
    for one, other in zip(whole[5:], resumed, strict=True):
        assert_same(one, other)


def test_two_ranks_of_four_see_what_one_rank_of_eight_sees(manifest):
    alone = list(load(manifest, batch_size=8))
    ranks = [list(load(manifest, batch_size=4, rank=rank, num_ranks=2)) for rank in (0, 1)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(whole.positions, torch.cat([part.positions for part in parts]))
        for name, num_crops in (("global_crops", 2), ("local_crops", 3), ("masks", 2)):
            rows = getattr(whole, name).unflatten(0, (num_crops, 8))
            split = torch.cat([getattr(part, name).unflatten(0, (num_crops, 4)) for part in parts], dim=1)
            assert torch.equal(rows, split), name


def test_another_seed_is_another_run(manifest):
    one, other = next(load(manifest)), next(load(manifest, seed=6))
    assert not torch.equal(one.global_crops, other.global_crops)


def test_no_local_crops_is_a_batch_without_them(manifest):
    no_locals = Crops(global_crops_size=42, local_crops_size=28, local_crops_number=0)
    with_locals, without = next(load(manifest)), next(load(manifest, crops=no_locals, num_workers=1))
    assert without.local_crops.shape == (0, 28, 28)
    assert torch.equal(with_locals.global_crops, without.global_crops)


def test_nothing_is_masked_where_ibot_has_no_weight(manifest):
    assert not any(batch.masks.any() for batch in load(manifest, ibot=Ibot(loss_weight=0.0)))


def test_half_of_the_global_crops_of_every_batch_of_eight_are_masked(manifest):
    crops = Crops(global_crops_size=112, local_crops_size=28, local_crops_number=0)
    for batch in load(manifest, crops=crops, batch_size=8):
        assert batch.masks.any(dim=1).view(2, 8).sum(dim=1).tolist() == [4, 4]


def test_starting_a_loader_leaves_torchs_random_numbers_alone(manifest):
    before = torch.get_rng_state()
    list(load(manifest, num_workers=1))
    assert torch.equal(before, torch.get_rng_state())


def test_workers_do_well_after_this_process_used_opencv_threads(manifest):
    cv2.setNumThreads(2)
    expected = list(load(manifest))
    for one, other in zip(expected, load(manifest, num_workers=2), strict=True):
        assert_same(one, other)


@pytest.fixture
def damaged(tmp_path: Path, manifest: Manifest) -> Manifest:
    """The films, three of them unreadable."""
    for row in range(len(manifest)):
        (tmp_path / manifest.path(row).name).write_bytes(manifest.path(row).read_bytes())
    for row in (3, 4, 11):
        (tmp_path / f"{row:03d}.png").write_bytes(b"damaged")
    return from_folder(tmp_path)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_file_is_replaced_by_the_next_of_the_stream_under_its_own_draws(damaged, num_workers):
    stream = SampleStream(24, seed=5)
    batches = list(load(damaged, num_batches=6, num_workers=num_workers))
    reported = [replaced for batch in batches for replaced in batch.replaced]
    assert {Path(r.path).name for r in reported} == {"003.png", "004.png", "011.png"}
    assert all("does not decode" in r.reason for r in reported)
    for replaced in reported:
        assert Path(replaced.path).name in (f"{stream.row(p):03d}.png" for p in range(replaced.position, 24 + 3))
        batch = batches[replaced.position // 4]
        place = next(p for p in range(replaced.position, 100) if stream.row(p) not in (3, 4, 11))
        picture = read_picture(damaged.path(stream.row(place)))
        draw = draw_crops(resolve(Augmentation()), crops=CROPS, seed=5, position=replaced.position)[0]
        assert np.array_equal(batch.global_crops[replaced.position % 4].numpy(), apply_crop(picture, draw, size=42))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_where_nothing_can_be_read_the_run_ends_with_one_message(tmp_path, num_workers):
    (tmp_path / "a.png").write_bytes(b"damaged")
    rows = from_rows([{"image": "a.png"}], root=tmp_path)
    with pytest.raises(
        DataError, match=r"^64 pictures in a row cannot be read, from position 0 .*a.png: does not decode"
    ):
        next(load(rows, num_workers=num_workers))


def test_a_faulty_augmentation_is_refused_before_any_worker_starts(manifest):
    with pytest.raises(ConfigError, match="hflip_p=2 is a probability"):
        load(manifest, augmentation=Augmentation(hflip_p=2))


def children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    if not listed.exists():
        pytest.skip("this system does not list a process's children in /proc")
    return {int(word) for word in listed.read_text().split()}


def test_a_worker_that_dies_is_told_as_such(manifest):
    before = children()
    batches = load(manifest, num_workers=1, num_batches=500)
    next(batches)
    for worker in children() - before:
        os.kill(worker, signal.SIGKILL)
    with pytest.raises(DataError, match=r"a data worker died .*lower train.num_workers"):
        list(batches)


def test_closing_the_iterator_ends_its_workers(manifest):
    before = children()
    batches = load(manifest, num_workers=2, num_batches=500)
    next(batches)
    assert len(children() - before) >= 2
    batches.close()
    assert not children() - before


INTERRUPTED = """
import sys, torch
from pathlib import Path
from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data.loader import load_batches
from dinov2.manifest import from_folder
batches = load_batches(
    from_folder(Path(sys.argv[1])),
    crops=Crops(global_crops_size=42, local_crops_size=28, local_crops_number=3),
    augmentation=Augmentation(), ibot=Ibot(), patch_size=14, seed=0, batch_size=4, rank=0, num_ranks=1,
    first_batch=0, num_batches=10**6, num_workers=2, prefetch_batches=2, pin_memory=False,
)
try:
    for batch in batches:
        print("ready", flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_the_main_process_and_its_workers_without_a_word(films):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(films)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, so that the signal reaches the workers too, as from a terminal
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    deadline = time.monotonic() + 20
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "")
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a worker outlived the main process")
