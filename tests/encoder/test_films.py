"""A film's file goes the way that the pictures of the training went: the same pixels, the same features."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinov2.config.preprocess import Decode, Intensity, PreprocessConfig, Privacy, Resample
from dinov2.encoder import Encoder, films
from dinov2.encoder.films import picture_of
from dinov2.errors import PictureError, WeightsError
from dinov2.phantom.dicom import Technique
from tests.encoder.made import card_settings, noise, small_encoder, write_export
from tests.preprocess.films import CXR, convert, needs_radiographs, rows_of, write_phantom

SMALL = PreprocessConfig(resample=Resample(short_side=84), privacy=Privacy(source_names="path"))
WAYS = {
    "plain": SMALL,
    "percentile": replace(SMALL, intensity=Intensity(mapping="percentile")),
    "equalised": replace(SMALL, intensity=Intensity(mapping="equalise")),
    "16 bits": replace(SMALL, intensity=Intensity(bits=16)),
    "letterbox": replace(SMALL, resample=Resample(short_side=84, letterbox=True, antialias=True)),
    "window": replace(SMALL, decode=Decode(voi=True)),
}


def encoder_of(folder: Path, pictures: Path) -> Encoder:
    """One whose card records how these pictures were made."""
    return Encoder.from_pretrained(write_export(folder, preprocessing=card_settings(pictures)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("inverted", [False, True])
def test_a_film_gives_the_pixels_and_features_of_the_picture_that_preprocess_wrote(
    tmp_path: Path, way: str, inverted: bool
) -> None:
    film = write_phantom(tmp_path / "films/one.dcm", seed=3, technique=Technique(monochrome1=inverted))
    convert(tmp_path / "films", tmp_path / "pictures", config=WAYS[way])
    (row,) = rows_of(tmp_path / "pictures")
    written = np.asarray(Image.open(tmp_path / "pictures" / row["image"]))
    encoder = encoder_of(tmp_path / "export", tmp_path / "pictures")
    assert encoder.card is not None
    made = picture_of(film.read_bytes(), settings=encoder.card.preprocessing, where="it")
    if written.dtype == np.uint16:
        written = ((written.astype(np.uint32) + 128) // 257).astype(np.uint8)
    assert np.array_equal(made, written)
    for one, other in zip(encoder(film), encoder(written), strict=True):
        assert torch.equal(one, other)


def test_of_a_manifest_the_same_features_come_as_of_its_films(tmp_path: Path) -> None:
    for number in range(3):
        write_phantom(tmp_path / f"films/{number}.dcm", number=number, seed=number)
    for name in ("plain", "percentile", "16 bits"):
        output = tmp_path / name
        convert(tmp_path / "films", output, config=WAYS[name])
        encoder = encoder_of(tmp_path / f"export {name}", output)
        (batch,) = encoder.over(output / "manifest.parquet")
        of_films = encoder.extract_cls_token([tmp_path / "films" / row["source"] for row in rows_of(output)])
        assert torch.equal(batch.cls, of_films)


def test_a_deep_png_or_tiff_is_a_film(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    twelve_bits = noise(160, 140).astype(np.uint16) * 16
    for name in ("film.png", "film.tiff"):
        Image.fromarray(twelve_bits).save(tmp_path / name)
        made = picture_of((tmp_path / name).read_bytes(), settings={}, where="it")
        assert (made.min(), made.max()) == (0, 255)  # of its own levels, not of all that 16 bits can hold
        assert torch.equal(encoder.preprocess(tmp_path / name), encoder.preprocess(made))


def test_a_card_that_does_not_say_is_told_and_the_usual_way_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = small_encoder(tmp_path)
    film = write_phantom(tmp_path / "one.dcm")
    films._config.cache_clear()  # what other tests have been told already
    with caplog.at_level(logging.WARNING):
        pixels = encoder.preprocess([film, film])
    assert caplog.text.count("the weights do not record how their pictures were made") == 1
    usual = picture_of(film.read_bytes(), settings={}, where="it")
    assert min(usual.shape) == 518
    assert torch.equal(pixels, encoder.preprocess([usual, usual]))


def test_what_a_filter_would_have_said_is_told_and_the_film_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = small_encoder(tmp_path)
    film = write_phantom(tmp_path / "ankle.dcm", BodyPartExamined="ANKLE")
    with caplog.at_level(logging.WARNING):
        assert encoder(film)[0].shape == (1, 64)
    assert "ankle.dcm: the training would have left it out: (0018,0015) Body Part Examined is OTHER" in caplog.text or (
        "ankle.dcm: the training would have left it out: (0018,0015) Body Part Examined is ANKLE" in caplog.text
    )


def test_a_film_that_cannot_be_used_is_refused_for_its_reason(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    whole = write_phantom(tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PictureError, match=r"cut\.dcm: \(7FE0,0010\) Pixel Data holds 27877 of 56960 bytes"):
        encoder(tmp_path / "cut.dcm")
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    with pytest.raises(PictureError, match=r"junk: "):
        encoder(tmp_path / "junk")
    frames = np.stack([np.zeros((160, 160), np.uint16), np.ones((160, 160), np.uint16)]).tobytes()
    cine = write_phantom(tmp_path / "cine.dcm", Rows=160, Columns=160, NumberOfFrames=2, PixelData=frames)
    with pytest.raises(PictureError, match=r"cine\.dcm: \(0028,0008\) Number of Frames is 2"):
        encoder(cine)


def test_settings_of_another_version_are_refused_when_a_film_comes(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path, preprocessing={"resample.sharpen": 3})
    assert encoder(noise(90, 81))[0].shape == (1, 64)
    with pytest.raises(WeightsError, match=r"the card records how the pictures of the training were made, .*sharpen"):
        encoder(write_phantom(tmp_path / "one.dcm"))


@needs_radiographs
def test_two_files_of_one_real_film_give_nearly_the_same_pixels(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    names = ("chest_mono1_15bit_j2k.dcm", "chest_mono1_jpegls_near.dcm")
    lossless, near = (encoder.preprocess(CXR / "dicom" / name) for name in names)
    assert float((lossless - near).abs().mean()) < 1 / 255 / 0.2583
