"""Pictures of every kind become the same pixels, those of transformers; what is no picture is refused in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dinov2.encoder import Encoder
from dinov2.errors import ConfigError, PictureError
from tests.encoder.made import noise, processor, small_encoder

SHAPES = [(90, 81), (81, 90), (70, 70), (70, 93), (93, 70), (40, 61), (300, 70), (200, 15)]
FILM_SHAPES = [(1801, 1302), (1303, 1799), (1449, 1603)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return small_encoder(tmp_path_factory.mktemp("weights"))


def theirs(pictures: Any, *, size: int = 70) -> torch.Tensor:
    return processor(size)(pictures, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_pixels_are_those_of_transformers_bit_for_bit(encoder: Encoder, shape: tuple, channels: tuple) -> None:
    picture = Image.fromarray(noise(*shape, *channels))
    assert torch.equal(encoder.preprocess(picture), theirs(picture))
    assert torch.equal(encoder.preprocess(picture, size=42), theirs(picture, size=42))


@pytest.mark.parametrize("shape", FILM_SHAPES)
def test_of_a_large_film_few_pixels_differ_by_one_level(encoder: Encoder, shape: tuple) -> None:
    grey, colour = noise(*shape), noise(*shape, 3)
    for picture in (Image.fromarray(grey), Image.fromarray(colour)):
        apart = (encoder.preprocess(picture, size=210) - theirs(picture, size=210)).abs() * 0.2583 * 255
        assert float(apart.max()) < 1.001
        assert 0 < float((apart > 0.5).float().mean()) < 0.01
    assert torch.equal(encoder.preprocess(Image.fromarray(grey).convert("RGB")), encoder.preprocess(grey))


def test_smaller_taller_and_enlarged_pictures_are_exact(encoder: Encoder) -> None:
    for shape, size in (((1448, 1448), 70), ((3500, 640), 70), ((1400, 1500), 1414)):
        picture = Image.fromarray(noise(*shape))
        assert torch.equal(encoder.preprocess(picture, size=size), theirs(picture, size=size))


def test_grey_in_three_channels_is_grey(encoder: Encoder) -> None:
    grey = noise(290, 81)
    as_colour = np.repeat(grey[..., None], 3, axis=2)
    almost = as_colour.copy()
    almost[289, 0, 2] ^= 1
    framing = encoder.preparation()
    for picture in (as_colour, Image.fromarray(as_colour), torch.from_numpy(as_colour)):
        assert framing.square(picture, where="it").ndim == 2
    for picture in (almost, Image.fromarray(almost), torch.from_numpy(almost)):
        assert framing.square(picture, where="it").ndim == 3
    assert torch.equal(encoder.preprocess(as_colour), encoder.preprocess(grey))


def test_grey_takes_the_mean_and_deviation_of_every_channel(tmp_path: Path) -> None:
    uneven = small_encoder(tmp_path, mean=(0.1, 0.2, 0.1), std=(0.5, 0.4, 0.5))
    white = uneven.preprocess(np.full((90, 80), 255, dtype=np.uint8))
    assert_close(white[0, :, 0, 0], torch.tensor([0.9 / 0.5, 0.8 / 0.4, 0.9 / 0.5]))


def test_arrays_tensors_and_files_are_the_picture_that_they_hold(encoder: Encoder, tmp_path: Path) -> None:
    grey, colour = noise(90, 81), noise(90, 81, 3)
    for name in ("grey.png", "grey.tiff"):
        Image.fromarray(grey).save(tmp_path / name)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    of_grey = [grey, grey[..., None], grey[None], torch.from_numpy(grey), torch.from_numpy(grey)[None]]
    of_grey += [Image.fromarray(grey), tmp_path / "grey.png", str(tmp_path / "grey.tiff")]
    of_colour = [colour, torch.from_numpy(colour), torch.from_numpy(colour).permute(2, 0, 1), colour.transpose(2, 0, 1)]
    of_colour += [Image.fromarray(colour), tmp_path / "colour.png"]
    for kinds in (of_grey, of_colour):
        expected = encoder.preprocess(kinds[0])
        for kind in kinds:
            assert torch.equal(encoder.preprocess(kind), expected)


def test_a_jpeg_is_decoded_as_pillow_does(encoder: Encoder, tmp_path: Path) -> None:
    Image.fromarray(noise(90, 81)).save(tmp_path / "film.jpg", quality=80)
    with Image.open(tmp_path / "film.jpg") as opened:
        assert torch.equal(encoder.preprocess(tmp_path / "film.jpg"), theirs(opened.convert("RGB")))


def test_palettes_and_bilevel_pictures_show_what_they_show(encoder: Encoder) -> None:
    for picture in (
        Image.fromarray(noise(90, 81, 3)).quantize(16),
        Image.fromarray(noise(90, 81)).convert("1"),
        Image.fromarray(noise(90, 81, 3)).convert("YCbCr"),
    ):
        assert torch.equal(encoder.preprocess(picture), theirs(picture.convert("RGB")))


def test_floats_keep_what_256_levels_cannot_hold(encoder: Encoder) -> None:
    levels = noise(90, 81) // 2 + 64  # so far from black and white that rounding alone tells them apart
    of_levels, of_floats = encoder.preprocess(levels), encoder.preprocess(levels.astype(np.float64) / 255)
    assert 0 < float((of_levels - of_floats).abs().max()) < 1.5 / 255 / 0.2583
    fine = np.full((70, 70), 0.5 + 0.3 / 255, dtype=np.float32)
    assert_close(encoder.preprocess(fine), torch.full((1, 3, 70, 70), (0.5 + 0.3 / 255 - 0.5307) / 0.2583))
    edges = np.zeros((90, 90), dtype=np.float32)
    edges[:, 45:] = 1  # where a cubic filter would go beyond black and white
    darkest, brightest = (0 - 0.5307) / 0.2583, (1 - 0.5307) / 0.2583
    assert encoder.preprocess(edges).min() >= darkest - 1e-6
    assert encoder.preprocess(edges).max() <= brightest + 1e-6
    for kind in (torch.bfloat16, torch.float16):
        assert encoder.preprocess(torch.full((70, 70), 0.5, dtype=kind)).shape == (1, 3, 70, 70)


def test_a_list_of_everything_is_a_batch_and_keeps_its_order(encoder: Encoder, tmp_path: Path) -> None:
    Image.fromarray(noise(90, 81, seed=4)).save(tmp_path / "film.png")
    pictures = [noise(200, 90), Image.fromarray(noise(71, 80, 3)), torch.rand(3, 90, 90), tmp_path / "film.png"]
    together = encoder.preprocess(pictures)
    assert together.shape == (4, 3, 70, 70)
    assert together.dtype == torch.float32
    assert torch.equal(together, torch.cat([encoder.preprocess(one) for one in tuple(pictures)]))


def test_an_array_of_four_axes_is_a_batch(encoder: Encoder) -> None:
    batch = noise(2, 90, 81, 3)
    assert torch.equal(encoder.preprocess(batch), encoder.preprocess(list(batch)))
    assert torch.equal(encoder.preprocess(torch.from_numpy(batch).permute(0, 3, 1, 2)), encoder.preprocess(batch))


def test_a_network_of_one_channel_is_given_the_luminance(tmp_path: Path) -> None:
    grey_network = small_encoder(tmp_path, in_chans=1, mean=(0.5,), std=(0.25,))
    colour = Image.fromarray(noise(90, 81, 3))
    assert torch.equal(grey_network.preprocess(colour), grey_network.preprocess(colour.convert("L")))
    as_floats = grey_network.preprocess(np.asarray(colour).astype(np.float32) / 255)
    assert float((as_floats - grey_network.preprocess(colour)).abs().max()) < 2.5 / 255 / 0.25


def test_a_network_of_four_channels_takes_pixels_and_no_pictures(tmp_path: Path) -> None:
    four = small_encoder(tmp_path, in_chans=4)
    with pytest.raises(ConfigError, match=r"takes 4 channels, and pictures have one or three"):
        four.preprocess(noise(90, 81))
    assert four.encode(torch.zeros(1, 4, 70, 70))[0].shape == (1, 64)


def deep() -> Image.Image:
    return Image.fromarray(np.zeros((90, 81), dtype=np.uint16))


REFUSED = [
    (np.zeros((90, 81, 4), np.uint8), r"array of \[90, 81, 4\]; its channels must be one or three"),
    (np.zeros((90, 81, 2), np.uint8), r"array of \[90, 81, 2\]; its channels must be one or three"),
    (np.zeros((90, 81, 0), np.uint8), r"array of \[90, 81, 0\]; its channels"),
    (torch.zeros((4, 90, 81), dtype=torch.uint8), r"array of \[4, 90, 81\]; its channels"),
    (np.zeros(90, np.uint8), r"array of \[90\]; give \[H, W\]"),
    (np.zeros((0, 90), np.uint8), r"has no pixel"),
    (np.zeros((90, 81), np.uint16), r"array of uint16; give uint8, or floats within 0\.\.1"),
    (np.zeros((90, 81), np.int64), r"array of int64; give uint8"),
    (np.full((90, 81), 1.5), r"floats from 1\.5 to 1\.5; give them within 0\.\.1"),
    (np.full((90, 81), np.nan), r"no finite numbers"),
    (np.zeros((90, 13), np.uint8), r"90 x 13 pixels, less than one patch of 14 x 14"),
    (Image.new("RGBA", (90, 90)), r"has transparency \(mode RGBA\); give grey or RGB"),
    (Image.new("LA", (90, 90)), r"has transparency \(mode LA\)"),
    (Image.new("CMYK", (90, 90)), r"mode CMYK with 4 channels; give grey or RGB"),
    (Image.new("F", (90, 90)), r"more than 8 bits \(mode F\)"),
    (deep(), r"more than 8 bits \(mode I;16\)\. Give the path of its file"),
    (b"bytes", r"the picture: a bytes; give a PIL image, a numpy array"),
    (None, r"the picture: a NoneType; give"),
    ([], r"no picture was given"),
]


@pytest.mark.parametrize(("picture", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_no_picture_is_refused_in_one_sentence(encoder: Encoder, picture: Any, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        encoder.extract_features(picture)


def test_the_message_says_which_picture_of_several_it_is(encoder: Encoder) -> None:
    with pytest.raises(PictureError, match=r"^picture 2 of 3: an array of uint16"):
        encoder.preprocess([noise(90, 81), np.zeros((90, 81), np.uint16), noise(90, 81)])


def test_a_file_that_is_absent_a_folder_or_damaged_is_named(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"absent\.png: cannot be read \(No such file"):
        encoder.preprocess(tmp_path / "absent.png")
    with pytest.raises(PictureError, match=r": a folder\. Give the paths of its files, or a manifest"):
        encoder.preprocess(tmp_path)
    Image.fromarray(noise(90, 81)).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(PictureError, match=r"cut\.png: is cut short or damaged"):
        encoder.preprocess(str(tmp_path / "cut.png"))
    (tmp_path / "header.png").write_bytes(content[:20])
    with pytest.raises(PictureError, match=r"header\.png: "):
        encoder.preprocess(tmp_path / "header.png")
    Image.new("RGBA", (90, 90)).save(tmp_path / "clear.png")
    with pytest.raises(PictureError, match=r"clear\.png: has transparency"):
        encoder.preprocess(tmp_path / "clear.png")


@pytest.mark.parametrize(
    ("size", "advice"), [(75, "give 70 or 84"), (7, "give 14"), (15, "give 14 or 28"), (0, "give 14"), (-14, "give 14")]
)
def test_a_size_that_is_no_multiple_of_the_patch_names_the_nearest(encoder: Encoder, size: int, advice: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"size={size}: a side must be a multiple of the patch of 14 pixels; {advice}"
    ):
        encoder.preprocess(noise(90, 81), size=size)
