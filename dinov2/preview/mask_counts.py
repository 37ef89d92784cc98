"""iBOT's masks, drawn and counted.

In: a `MaskRecipe` and how many films to look at. Out: `MaskCounts`: how many crops are masked, how much of each, where,
and in what pieces.

Legend: M masked crops, h x w patches of a crop.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.data.masking import MaskRecipe

Shares = NDArray[np.float64]
FILMS_PER_CALL = 64  # of `advance`


@dataclass(frozen=True, kw_only=True)
class MaskCounts:
    """What was found over `num_films` films, from the first position of the sample stream on."""

    num_films: int
    num_crops: int
    shares: Shares  # [M] of a masked crop's patches that are hidden
    targets: Shares  # [M] the same as it was asked for
    often: Shares  # [h, w] share of the masked crops that hide a patch
    pieces: NDArray[np.int64]  # [pieces, 2] height and width, in patches, of what hangs together
    pieces_per_crop: NDArray[np.int64]  # [M]
    masked_per_film: NDArray[np.int64]  # [films]

    @property
    def num_masked(self) -> int:
        """M."""
        return len(self.shares)

    def masked_in_batches(self, batch_size: int) -> tuple[int, int] | None:
        """Fewest and most masked crops of a batch of so many films; None where not one batch was looked at."""
        whole = self.num_films // batch_size
        if not whole:
            return None
        sums = self.masked_per_film[: whole * batch_size].reshape(whole, batch_size).sum(axis=1)
        return int(sums.min()), int(sums.max())


def count_masks(
    recipe: MaskRecipe, *, num_films: int, advance: Callable[[int], None] = lambda _count: None
) -> MaskCounts:
    """Draws the masks of the first `num_films` positions as a run draws them.  `advance` hears how many were done.

    Pieces are patches that share an edge: blocks of a mask that touch or overlap are one.
    """
    shares, targets, pieces, pieces_per_crop = [], [], [], []
    often = np.zeros(recipe.grid, dtype=np.int64)
    masked_per_film = np.zeros(num_films, dtype=np.int64)
    for position in range(num_films):
        masks = recipe.masks(position, num_crops=NUM_GLOBAL_CROPS)
        for crop, flat in enumerate(masks):
            wanted = recipe.target(position, crop=crop)
            if wanted == 0:
                continue
            mask = flat.reshape(recipe.grid)
            labels, count = ndimage.label(mask)
            found = [(s[0].stop - s[0].start, s[1].stop - s[1].start) for s in ndimage.find_objects(labels)]
            shares.append(float(mask.mean()))
            targets.append(wanted / recipe.num_patches)
            pieces += found
            pieces_per_crop.append(count)
            often += mask
            masked_per_film[position] += 1
        if (position + 1) % FILMS_PER_CALL == 0:
            advance(FILMS_PER_CALL)
    return MaskCounts(
        num_films=num_films,
        num_crops=num_films * NUM_GLOBAL_CROPS,
        shares=np.asarray(shares, dtype=np.float64),
        targets=np.asarray(targets, dtype=np.float64),
        often=often / max(1, len(shares)),
        pieces=np.asarray(pieces, dtype=np.int64).reshape(-1, 2),
        pieces_per_crop=np.asarray(pieces_per_crop, dtype=np.int64),
        masked_per_film=masked_per_film,
    )
