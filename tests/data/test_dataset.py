from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dinov2.data.dataset import Pictures, Unreadable, read_picture
from dinov2.manifest import from_rows


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


def sixteen_bit(path: Path, grey: np.ndarray) -> None:
    cv2.imwrite(str(path), grey.astype(np.uint16) * 16)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda *_: None, "No such file"),
        (lambda path, _: path.write_bytes(b""), "the file is empty"),
        (lambda path, _: path.write_text("not a picture"), "does not decode: cut short, damaged or not a picture"),
        (cut_short, "does not decode: cut short"),
        (sixteen_bit, r"not an 8-bit picture \(uint16\): run dinov2 preprocess"),
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
