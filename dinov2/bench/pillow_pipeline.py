"""The yardstick of the loader benchmark: multi-crop augmentation as public code does it, with Pillow in colour.

In: a file, or the bytes of one, and the very draws that our own pipeline uses. Out: normalised float32 crops. It
decodes to RGB, cuts and resizes with an antialiased bicubic, jitters brightness, contrast, saturation and hue on three
channels, turns some crops grey, blurs, solarises, and converts every crop to float. Written for comparison only;
nothing trains on it.
"""

import random
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from dinov2.data.augmentation import CropDraw, place_box

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
SATURATION = 0.2
HUE = 0.1
GREY_P = 0.2


def pillow_crops(
    file: Path | BytesIO, draws: tuple[CropDraw, ...], *, sizes: list[int], seed: int
) -> list[NDArray[np.float32]]:
    """Every crop of one file.  -> a list of float32 [3, S, S]"""
    rng = random.Random(seed)
    picture = Image.open(file).convert("RGB")
    return [_to_float(_crop(picture, draw, size=size, rng=rng)) for draw, size in zip(draws, sizes, strict=True)]


def _crop(picture: Image.Image, draw: CropDraw, *, size: int, rng: random.Random) -> Image.Image:
    box = place_box(draw, height=picture.height, width=picture.width)
    region = picture.crop((box.left, box.top, box.left + box.width, box.top + box.height))
    crop = region.resize((size, size), Image.Resampling.BICUBIC)
    if draw.hflip:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if draw.brightness is not None and draw.contrast is not None:
        crop = _jitter(crop, brightness=draw.brightness, contrast=draw.contrast, rng=rng)
    if rng.random() < GREY_P:
        crop = crop.convert("L").convert("RGB")
    if draw.blur_sigma is not None:
        crop = crop.filter(ImageFilter.GaussianBlur(draw.blur_sigma))
    return crop if draw.solarize_threshold is None else ImageOps.solarize(crop, draw.solarize_threshold)


def _jitter(crop: Image.Image, *, brightness: float, contrast: float, rng: random.Random) -> Image.Image:
    saturation = rng.uniform(1 - SATURATION, 1 + SATURATION)
    crop = ImageEnhance.Brightness(crop).enhance(brightness)
    crop = ImageEnhance.Contrast(crop).enhance(contrast)
    crop = ImageEnhance.Color(crop).enhance(saturation)
    turn = round(255 * rng.uniform(-HUE, HUE))
    hue, *rest = crop.convert("HSV").split()
    return Image.merge("HSV", (hue.point([(level + turn) % 256 for level in range(256)]), *rest)).convert("RGB")


def _to_float(crop: Image.Image) -> NDArray[np.float32]:
    pixels = np.asarray(crop).transpose(2, 0, 1).astype(np.float32) / 255
    normalised: NDArray[np.float32] = np.ascontiguousarray((pixels - MEAN) / STD)
    return normalised
