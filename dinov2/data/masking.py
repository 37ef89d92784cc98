"""iBOT's block masks.

In: a position of the sample stream and the number of a global crop. Out: a mask over its patches, True = hidden from
the student.

Which crops are masked, and how much of them, is a function of (seed, position, crop) alone, and yet every batch gets
its fair share: one well-spread number u in [0, 1) a crop decides both. It is a van der Corput sequence in base 2,
scrambled twice (Owen 1995), so each aligned block of 2**k positions has exactly one u in every interval of width 2**-k,
and which position gets which is random.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dinov2.config.schema import Ibot
from dinov2.data.randomness import WORD, Purpose, generator

MIN_BLOCK_PATCHES = 4
MIN_ASPECT = 0.3  # of a block, height / width; the largest is its inverse
NUM_TRIES = 10  # per block, before a mask is left short of its target
NUM_BITS = 64


@dataclass(frozen=True, kw_only=True)
class MaskRecipe:
    """How masks are drawn."""

    grid: tuple[int, int]  # patches down, patches across
    max_block_patches: int
    probability: float  # share of the global crops that are masked
    ratio: tuple[float, float]  # share of a masked crop's patches, from .. to
    seed: int

    @property
    def num_patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def target(self, position: int, *, crop: int) -> int:
        """Patches to hide in this crop; 0 for a crop that is not masked."""
        if self.probability <= 0:
            return 0
        u = spread(position, keys=strata_keys(self.seed, crop))
        if u >= self.probability:
            return 0
        low, high = self.ratio
        return int(self.num_patches * (low + (high - low) * u / self.probability))

    def masks(self, position: int, *, num_crops: int) -> NDArray[np.bool_]:
        """The masks of one picture's global crops.  -> bool [num_crops, N]"""
        rng = generator(self.seed, position, purpose=Purpose.MASKS)
        masks = [
            draw_mask(self.grid, self.target(position, crop=crop), max_block_patches=self.max_block_patches, rng=rng)
            for crop in range(num_crops)
        ]
        return np.stack(masks).reshape(num_crops, self.num_patches)


def mask_recipe(ibot: Ibot, *, crop_size: int, patch_size: int, seed: int) -> MaskRecipe:
    """The recipe of a run; nothing is hidden where iBOT's loss has no weight: it would only harm the CLS loss."""
    side = crop_size // patch_size
    return MaskRecipe(
        grid=(side, side),
        max_block_patches=max_block_patches(crop_size, patch_size),
        probability=ibot.mask_sample_probability if ibot.loss_weight > 0 else 0.0,
        ratio=ibot.mask_ratio_min_max,
        seed=seed,
    )


def max_block_patches(crop_size: int, patch_size: int) -> int:
    """The largest block: half of the grid, floored in the public code's order (518 / 14 gives 666, not 684)."""
    return crop_size // 2 // patch_size * crop_size // patch_size


def draw_mask(
    grid: tuple[int, int], num_hidden: int, *, max_block_patches: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Random rectangles until `num_hidden` patches are hidden; now and then a few fewer, never more.  -> bool [h, w]

    Each rectangle has an area drawn from 4 .. what is still wanted, and a log-uniform aspect (Bao et al. 2022, BEiT,
    algorithm 1).
    """
    mask = np.zeros(grid, dtype=bool)
    hidden = 0
    while hidden < num_hidden:
        gained = _add_block(mask, limit=min(num_hidden - hidden, max_block_patches), rng=rng)
        if gained == 0:
            break
        hidden += gained
    return mask


def _add_block(mask: NDArray[np.bool_], *, limit: int, rng: np.random.Generator) -> int:
    """Hide one rectangle that adds 1 .. `limit` patches; returns how many, 0 where no try fitted."""
    height, width = mask.shape
    span = math.log(1 / MIN_ASPECT)
    for u_area, u_aspect, u_top, u_left in rng.random((NUM_TRIES, 4)).tolist():
        # With fewer than 4 still wanted the range runs backwards, as in the public code: blocks then stay small.
        area = MIN_BLOCK_PATCHES + (limit - MIN_BLOCK_PATCHES) * u_area
        aspect = math.exp(span * (2 * u_aspect - 1))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h >= height or w >= width:
            continue
        top, left = int(u_top * (height - h + 1)), int(u_left * (width - w + 1))
        block = mask[top : top + h, left : left + w]
        gained = block.size - int(np.count_nonzero(block))
        if 0 < gained <= limit:
            block[:] = True
            return gained
    return 0


@lru_cache(maxsize=64)
def strata_keys(seed: int, crop: int) -> tuple[int, ...]:
    """The eight keys that scramble the sequence of one global crop."""
    words = generator(seed, crop, purpose=Purpose.STRATA).integers(0, WORD, size=8, dtype=np.uint64)
    return tuple(int(word) for word in words)


def spread(position: int, *, keys: tuple[int, ...]) -> float:
    """Van der Corput number of `position`, scrambled by eight 64-bit `keys`; in [0, 1).

    The first scramble flips each bit of the position by the bits above it: aligned blocks of 2**k positions stay
    blocks, and their inside is shuffled. Reversed, the position is its van der Corput number. The second scramble flips
    each bit of that number by the bits before it, which keeps one number per interval.
    """
    shuffled = _reverse(_mix_upwards(_reverse(position % WORD), keys=keys[:4]))
    scrambled = _reverse(_mix_upwards(shuffled, keys=keys[4:]))
    return (scrambled >> (NUM_BITS - 53)) / 2**53


def _mix_upwards(word: int, *, keys: tuple[int, ...]) -> int:
    """A keyed bijection of 64-bit words in which a bit depends on itself and on lower bits only.

    Adding and multiplying by an odd number carry upwards only; so does x ^ (x * even).
    """
    for key in keys:
        word = (word + key) % WORD
        word ^= word * (key << 1) % WORD
        word = word * (key | 1) % WORD
        word ^= word * ((key >> 7) & ~1) % WORD
    return word


def _reverse(word: int) -> int:
    """The 64 bits of `word` in the opposite order."""
    return int(f"{word:064b}"[::-1], 2)
