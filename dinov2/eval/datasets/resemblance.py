"""Whether two films are the same, though one was resized, cropped a little or compressed again.

In: pictures. Out: perceptual hashes that find candidates among millions, and a score that decides on a pair.

The thresholds were read off 243 films of 71 patients, each beside a copy cropped by up to 3 % at every side, resized to
150 pixels and compressed again (JPEG 60). Hashes of a copy differed in at most 46 of 256 bits from the nearest crop of
its original; those of other patients in 67 and more (56,720 pairs), other films of the same patient in 60 and more.
Scores of copies were 0.85 and more, of other films of the same patient at most 0.85, of other patients at most 0.61.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from dinov2.data.dataset import Unreadable, decode_picture
from dinov2.errors import ManifestError
from dinov2.manifest import Manifest
from dinov2.manifest.duplicates import WORDS, Rows, Words, words_of
from dinov2.manifest.leakage import near_pairs
from dinov2.preprocess.quality.perceptual import perceptual_hash

CROPS = (0.0, 0.0075, 0.015, 0.0225, 0.03)  # of each side that a copy may have lost
CANDIDATE_BITS = 56  # of 256, between a copy and the nearest crop
SAME_FILM = 0.75  # score above which two films are one, or at least of one patient
SIDE = 128  # pixels that films are laid over each other in
DETAIL_PX = 6.0  # blur that is taken away: what remains is this patient, not any chest
SCALES = tuple(np.arange(0.92, 1.081, 0.02))
MARGIN = 16  # pixels of SIDE by which they may be shifted
FILMS_AT_ONCE = 64

Grey = NDArray[np.uint8]


def fingerprints(picture: Grey) -> Words:
    """Hashes of a film uint8 [H, W] and of its crops.  -> uint64 [5, 4], that of the whole film first"""
    height, width = picture.shape
    hashes = []
    for share in CROPS:
        top, left = int(share * height), int(share * width)
        crop = np.ascontiguousarray(picture[top : height - top, left : width - left])
        hashes.append(perceptual_hash(crop))
    return words_of(hashes)


def all_fingerprints(manifest: Manifest, *, threads: int) -> Iterator[Words]:
    """Those of every row, in order; zeros (near nothing) where a picture cannot be read."""

    def one(row: int) -> Words:
        try:
            return fingerprints(read_grey(manifest, row))
        except ManifestError:
            return np.zeros((len(CROPS), WORDS), dtype=np.uint64)

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(manifest), FILMS_AT_ONCE):  # so that no more films wait in memory
            yield from pool.map(one, range(start, min(start + FILMS_AT_ONCE, len(manifest))))


def candidates(ours: Words, theirs: Words) -> Iterator[tuple[int, Rows, Rows]]:
    """Rows of ours with the nearest of theirs, if either film whole is near a crop of the other.

    uint64 [N, 5, 4], uint64 [M, 5, 4] (see `fingerprints`) -> part by part: rows looked at so far (5 N in all), rows,
    others. A row may come several times.
    """
    num_crops = len(CROPS)
    crops = np.ascontiguousarray(theirs.reshape(-1, WORDS))  # M x 5: the place says which film
    for done, rows, places, _ in near_pairs(ours[:, 0], crops, max_bits=CANDIDATE_BITS):
        yield done, rows, places // num_crops
    for crop in range(1, num_crops):
        for done, rows, places, _ in near_pairs(ours[:, crop], theirs[:, 0], max_bits=CANDIDATE_BITS):
            yield crop * len(ours) + done, rows, places


def read_grey(manifest: Manifest, row: int) -> Grey:
    """The film of a row.  -> uint8 [H, W]   Raises ManifestError."""
    try:
        return decode_picture(manifest.place(row).read())
    except (OSError, Unreadable) as error:
        raise ManifestError(f"row {row}: {manifest.path(row)}: {error}") from error


def resemblance(one: Grey, other: Grey) -> float:
    """The best correlation of two films laid over each other, in many sizes and places.  -> -1 .. 1

    Grey levels count by their ranks, so that windows do not matter, and broad shadows are taken away.
    """
    ground, ranks = _detail(_ranks(one)), _ranks(other)
    best = -1.0
    for down, across in product(SCALES, SCALES):
        scaled = _detail(cv2.resize(ranks, (round(SIDE * across), round(SIDE * down)), interpolation=cv2.INTER_LINEAR))
        template = scaled[MARGIN:-MARGIN, MARGIN:-MARGIN]
        best = max(best, float(cv2.matchTemplate(ground, template, cv2.TM_CCOEFF_NORMED).max()))
    return best


def _ranks(picture: Grey) -> NDArray[np.float32]:
    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    counts = np.bincount(small.ravel(), minlength=256)
    ranks: NDArray[np.float32] = ((np.cumsum(counts) - counts / 2) / small.size).astype(np.float32)[small]
    return ranks


def _detail(ranks: NDArray[np.float32]) -> NDArray[np.float32]:
    detail: NDArray[np.float32] = ranks - cv2.GaussianBlur(ranks, (0, 0), DETAIL_PX)
    return detail
