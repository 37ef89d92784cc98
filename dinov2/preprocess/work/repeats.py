"""Pictures that repeat an earlier one, pixel by pixel or nearly.

In: the state after every file is done. Out: `Repeats`, which answers per picture in the order of the listing; and the
pictures that `filters.flags` turns away for it are taken out of the images folder. 80 bytes a picture are in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.config.preprocess import PreprocessConfig
from dinov2.manifest.duplicates import near, same_pixels
from dinov2.preprocess.reasons import Flag
from dinov2.preprocess.work.identity import ID_LETTERS
from dinov2.preprocess.work.shelf import Shelf
from dinov2.preprocess.work.state import State


@dataclass(frozen=True)
class Repeats:
    """Pictures [N] in the order of the listing, those that are turned away included."""

    image_ids: bytes  # ID_LETTERS each
    same: NDArray[np.int64]  # [N] the earliest picture with the same pixels, or -1
    near: NDArray[np.int64]  # [N] the earliest picture that is nearly the same, or -1

    def of(self, number: int) -> tuple[Flag, str] | None:
        """The flag of a picture and the id of the one that it repeats; None where it repeats none."""
        for flag, earlier in ((Flag.DUPLICATE_PIXELS, self.same), (Flag.NEAR_DUPLICATE, self.near)):
            if earlier[number] >= 0:
                start = int(earlier[number]) * ID_LETTERS
                return flag, self.image_ids[start : start + ID_LETTERS].decode()
        return None


def find_repeats(state: State, *, near_duplicate_bits: int) -> Repeats:
    """Compare all pictures of the listing."""
    ids, digests, hashes = bytearray(), bytearray(), bytearray()
    for _, _, image_id, sha256, perceptual, _ in state.fingerprints():
        ids += image_id.encode()
        digests += sha256
        hashes += bytes.fromhex(perceptual)
    words = np.frombuffer(hashes, dtype=">u8").astype(np.uint64).reshape(-1, 4)
    return Repeats(
        bytes(ids),
        same_pixels(np.frombuffer(digests, dtype=np.uint64).reshape(-1, 4)),
        near(words, near_duplicate_bits),
    )


def turn_away_repeats(state: State, repeats: Repeats, *, shelf: Shelf, config: PreprocessConfig) -> int:
    """Take the pictures that `filters.flags` names out of the images folder, and mark those that were taken out before
    and repeat nothing any more.  -> how many files are to be converted again
    """
    turned_away = frozenset(config.filters.flags)
    changes = list(_changes(state, repeats, turned_away=turned_away))
    for reason, _, _, image_id in changes:
        if reason is not None:
            shelf.places.picture(image_id).unlink(missing_ok=True)
    state.refuse((reason, name, frame) for reason, name, frame, _ in changes)
    revived = {name for reason, name, _, _ in changes if reason is None}
    state.convert_again(revived)
    state.commit(now=True)
    return len(revived)


def _changes(
    state: State, repeats: Repeats, *, turned_away: frozenset[str]
) -> Iterator[tuple[str | None, str, int, str]]:
    """reason, name, frame, image id of each picture that is to be treated otherwise than before."""
    for number, (name, frame, image_id, _, _, before) in enumerate(state.fingerprints()):
        found = repeats.of(number)
        now = str(found[0]) if found and found[0] in turned_away else None
        if now != before:
            yield now, name, frame, image_id
