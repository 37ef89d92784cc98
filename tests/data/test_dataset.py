"""Rows of a manifest as pictures: from files and from tar shards, 8 and 16 bits, and what cannot be used."""

import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data import dataset
from dinov2.data.dataset import Pictures, Unreadable, read_picture
from dinov2.data.loader import load_batches
from dinov2.manifest import from_rows, read
from dinov2.manifest.edit import measure, with_measures
from dinov2.manifest.pack import Packing


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_grey_picture_comes_back_bit_for_bit(tmp_path, grey, suffix):
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    assert np.array_equal(read_picture(tmp_path / f"a{suffix}"), grey)


def test_a_colour_picture_becomes_grey_by_luminance(tmp_path, grey):
    colour = np.stack([grey, grey // 2, grey // 4], axis=-1)
    Image.fromarray(colour).save(tmp_path / "a.png")
    expected = colour.astype(float) @ (0.299, 0.587, 0.114)
    picture = read_picture(tmp_path / "a.png")
    assert picture.shape == grey.shape
    assert np.abs(picture - expected).max() <= 1


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(Image.open(tmp_path / "a.jpg")).astype(int)
    assert np.abs(read_picture(tmp_path / "a.jpg") - expected).max() <= 1


def cut_short(path: Path, grey: np.ndarray) -> None:
    data = cv2.imencode(".png", grey)[1].tobytes()
    path.write_bytes(data[: len(data) * 9 // 10])


def twelve_of_sixteen_bits(path: Path, grey: np.ndarray) -> None:
    cv2.imwrite(str(path), grey.astype(np.uint16) * 16)


def floating_point(path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey.astype(np.float32)).save(path, format="TIFF")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda *_: None, "No such file"),
        (lambda path, _: path.write_bytes(b""), "the file is empty"),
        (lambda path, _: path.write_text("not a picture"), "does not decode: cut short, damaged or not a picture"),
        (cut_short, "does not decode: cut short"),
        (twelve_of_sixteen_bits, r"a 16-bit picture whose brightest level is 4080 of 65535.* run dinov2 preprocess"),
        (floating_point, r"neither an 8-bit nor a 16-bit picture \(float32\): run dinov2 preprocess"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, grey, spoil, reason):
    spoil(tmp_path / "a.png", grey)
    with pytest.raises(Unreadable, match=reason):
        read_picture(tmp_path / "a.png")


def test_a_picture_of_another_size_than_the_manifest_says_is_not_used(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "a.png")
    rows = [{"image": "a.png", "width": 50, "height": 40}, {"image": "a.png", "width": 40, "height": 50}]
    pictures = Pictures(from_rows(rows, root=tmp_path))
    assert np.array_equal(pictures.read(0), grey)
    with pytest.raises(Unreadable, match="is 50 x 40 pixels, the manifest says 40 x 50"):
        pictures.read(1)


def test_a_16_bit_picture_gives_its_upper_8_bits_rounded(tmp_path):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    cv2.imwrite(str(tmp_path / "a.png"), levels)
    picture = read_picture(tmp_path / "a.png")
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, np.rint(levels / 257).astype(np.uint8))


def test_a_picture_kept_in_16_bits_is_the_one_kept_in_8(tmp_path, grey):
    cv2.imwrite(str(tmp_path / "a.png"), grey.astype(np.uint16) * 257)
    assert np.array_equal(read_picture(tmp_path / "a.png"), grey)


@pytest.fixture
def packed(tmp_path, manifest):
    """The 24 films of the suite in several shards."""
    packing = Packing(measured(manifest), tmp_path / "packed", shard_mb=1)
    packing._most = 30_000  # bytes; a megabyte would hold all of them
    assert list(packing.run())[-1] == 24
    assert packing.num_shards > 3
    packing.manifest().write(tmp_path / "packed" / "manifest.parquet")
    return read(tmp_path / "packed" / "manifest.parquet")


def measured(manifest):
    return with_measures(manifest, list(measure(manifest)))


def test_pictures_from_shards_are_those_from_the_folder(manifest, packed):
    folder, shards = Pictures(manifest), Pictures(packed)
    for row in (*range(24), 3, 17, 3):
        assert np.array_equal(folder.read(row), shards.read(row))


def batches(manifest, *, num_workers):
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
            num_batches=5,
            num_workers=num_workers,
            prefetch_batches=2,
            pin_memory=False,
        )
    )


def test_batches_and_their_order_are_the_same_from_shards_and_from_the_folder(manifest, packed):
    expected = batches(manifest, num_workers=0)
    packed_pictures = batches(packed, num_workers=2)
    for one, other in zip(expected, packed_pictures, strict=True):
        assert torch.equal(one.positions, other.positions)
        assert torch.equal(one.global_crops, other.global_crops)
        assert torch.equal(one.local_crops, other.local_crops)
        assert torch.equal(one.masks, other.masks)


def read_elsewhere(pictures, row, answers):
    answers.put(pictures.read(row).tobytes())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_with_open_shards_goes_on_in_another_process_and_in_its_own(packed, method):
    pictures = Pictures(packed)
    before = [pictures.read(row).tobytes() for row in range(24)]
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=read_elsewhere, args=(pictures, 5, answers))
    process.start()
    assert answers.get(timeout=60) == before[5]
    process.join()
    assert [pictures.read(row).tobytes() for row in range(24)] == before


def test_few_shards_stay_open_however_many_are_read(packed, monkeypatch):
    monkeypatch.setattr(dataset, "MAX_OPEN_SHARDS", 2)
    pictures = Pictures(packed)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for row in (*range(24), *range(24)):
        pictures.read(row)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_a_shard_that_is_gone_or_cut_short_says_so(packed):
    shard = packed.place(0).path
    data = shard.read_bytes()
    shard.write_bytes(data[: packed.place(0).offset + 10])
    with pytest.raises(Unreadable, match="the shard ends before the picture does"):
        Pictures(packed).read(0)
    shard.unlink()
    with pytest.raises(Unreadable, match="No such file"):
        Pictures(packed).read(0)
