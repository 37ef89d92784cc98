"""Files as pictures and masks: depth, colour, shards, run lengths."""

import pickle

import numpy as np
import pytest
from PIL import Image

from dinov2.data.dataset import Unreadable
from dinov2.errors import ManifestError
from dinov2.eval.datasets.reading import Films, decode_picture, read_label_picture, within
from dinov2.eval.datasets.rle import decode_relative
from dinov2.manifest import from_folder
from dinov2.manifest.pack import Packing
from tests.eval.datasets.copies import film, mask


def saved(tmp_path, values, name="a.png", mode=None):
    Image.fromarray(values, mode).save(tmp_path / name)
    return Films(from_folder(tmp_path)).picture(0)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_eight_bits_stay_as_they_are(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 256, (7, 9), dtype=np.uint8)
    picture = saved(tmp_path, values, f"a.{suffix}")
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, values)


def test_twelve_of_sixteen_bits_do_not_come_out_black(tmp_path):
    values = np.linspace(100, 4095, 63).reshape(7, 9).astype(np.uint16)
    picture = saved(tmp_path, values)
    assert picture.dtype == np.float32
    assert (picture.min(), picture.max()) == (0, 1)
    np.testing.assert_allclose(picture, (values - 100.0) / 3995, atol=1e-6)


def test_sixteen_bits_that_use_their_range_keep_their_levels(tmp_path):
    values = np.linspace(0, 65535, 63).reshape(7, 9).astype(np.uint16)
    np.testing.assert_allclose(saved(tmp_path, values), values / 65535, atol=1e-6)


def test_colour_has_red_first_and_colour_without_colour_is_grey(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(saved(tmp_path, values), values)
    grey = np.repeat(values[..., :1], 3, axis=2)
    np.testing.assert_array_equal(saved(tmp_path, grey), values[..., 0])


def test_packed_pictures_are_the_same_and_their_reader_can_be_sent_to_a_worker(tmp_path):
    for number in range(3):
        film(tmp_path / "in" / f"{number}.png", seed=number)
    manifest = from_folder(tmp_path / "in")
    packing = Packing(manifest, tmp_path / "packed", shard_mb=1)
    list(packing.run())
    packed = pickle.loads(pickle.dumps(Films(packing.manifest())))
    for row in range(3):
        np.testing.assert_array_equal(packed.picture(row), Films(manifest).picture(row))
        assert packed.size(row) == (12, 10)


def test_a_damaged_picture_is_named_with_its_row(tmp_path):
    film(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(ManifestError, match=r"row 1: .*b\.png: does not decode"):
        Films(from_folder(tmp_path)).picture(1)
    with pytest.raises(Unreadable, match="empty"):
        decode_picture(b"")


def test_a_palette_gives_its_numbers_not_its_colours(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_label_picture(tmp_path / "m.png"), [[0, 1], [2, 1]])


def test_a_coloured_mask_is_refused(tmp_path):
    Image.fromarray(np.eye(3, dtype=np.uint8)[None] * 255).save(tmp_path / "m.png")
    with pytest.raises(ManifestError, match="a coloured picture"):
        read_label_picture(tmp_path / "m.png")


def test_255_is_the_one_class_and_other_values_beyond_the_classes_are_refused():
    np.testing.assert_array_equal(within(np.array([[0, 255]], np.uint8), num_classes=1, where=""), [[0, 1]])
    with pytest.raises(ManifestError, match="row 4: the mask has the values 3, 255; with 2 classes"):
        within(np.array([[0, 1, 3, 255]], np.uint8), num_classes=2, where="row 4: the mask")


def test_runs_become_the_mask_that_was_drawn_by_hand():
    drawn = np.array(
        [
            [0, 1, 0, 0],
            [1, 1, 0, 0],
            [1, 0, 0, 1],
        ],
        dtype=np.uint8,
    )
    # down the columns: 0 1 1 | 1 1 0 | 0 0 0 | 0 0 1: skip 1, take 4; skip 6, take 1
    np.testing.assert_array_equal(decode_relative("1 4 6 1", height=3, width=4), drawn)


@pytest.mark.parametrize("text", ["", "-1", " -1 "])
def test_no_runs_are_an_empty_mask(text):
    assert decode_relative(text, height=3, width=4).sum() == 0


@pytest.mark.parametrize(
    ("text", "message"), [("1 2 3", "3 numbers"), ("10 5", "a run ends at pixel 15 of 12"), ("a 1", "invalid literal")]
)
def test_damaged_runs_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        decode_relative(text, height=3, width=4)


def test_masks_of_many_sizes_are_only_read(tmp_path):
    mask(tmp_path / "m.png", np.eye(4))
    before = (tmp_path / "m.png").stat().st_mtime_ns
    assert read_label_picture(tmp_path / "m.png").sum() == 4
    assert (tmp_path / "m.png").stat().st_mtime_ns == before
