"""Do the last rows of a film look filled up because its data ended early?

In: film values as decoded. Out: yes or no. Whoever cuts a stream and fills up the rest leaves one exact value from some
pixel on, in reading order (after whole blocks of 8 or 16 rows where the stream was a JPEG); collimators, shutters and
letterboxes end at a whole row, and slanted ones fade or move from row to row.
"""

import numpy as np
from numpy.typing import NDArray

BLOCKS = (1, 8, 16)  # rows that are decoded together: native and lossless data, JPEG, JPEG with subsampled colour
FEWEST_PIXELS = 8  # of the broken row, on either side of the break: fewer prove nothing
LEAST_SHARE = 0.25  # of the row above, beyond the break, that must be film: a slanted edge leaves less
STEP_SHARE = 0.02  # of the width: by how much the edge of a film may move from one row to the next
JUMP = 1.2  # the fill lies this many usual row-to-row differences away from the row above
JUMP_SHARE = 0.01  # and this share of the film's range
CHUNK_ROWS = 64


def is_filled_up(pixels: NDArray[np.float32]) -> bool:
    """Whether the end of a film [H, W] is a fill that began within a row, and does not continue what lies above it."""
    num_rows = _rows_before_fill(pixels, fill=pixels[-1, -1])
    if num_rows == 0 or num_rows == len(pixels):
        return False  # one value all over, or not even the last row is filled
    film = pixels[:num_rows]
    if _breaks_off(film, fill=pixels[-1, -1], blocks=BLOCKS):
        return True
    # A JPEG decoder that gives up may leave the begun row of blocks grey, and what follows black.
    return _breaks_off(film, fill=film[-1, -1], blocks=BLOCKS[1:])


def _rows_before_fill(pixels: NDArray[np.float32], *, fill: np.float32) -> int:
    """How many rows there are up to the last one that holds another value; looks from the end, so that it is quick."""
    stop = len(pixels)
    while stop > 0:
        start = max(0, stop - CHUNK_ROWS)
        others = np.flatnonzero((pixels[start:stop] != fill).any(axis=1))
        if others.size:
            return start + int(others[-1]) + 1
        stop = start
    return 0


def _breaks_off(film: NDArray[np.float32], *, fill: np.float32, blocks: tuple[int, ...]) -> bool:
    """Whether the last rows of `film` [h, W] are film up to some column and `fill` from there on."""
    begin = int(np.flatnonzero(film[-1] != fill)[-1]) + 1 if (film[-1] != fill).any() else 0
    width = film.shape[1]
    if begin < FEWEST_PIXELS or width - begin < FEWEST_PIXELS:
        return False
    filled = (film[-max(blocks) - 1 :, begin:] == fill).all(axis=1)
    height = int(np.argmin(filled[::-1]))  # of the broken row: a row, or a row of blocks
    if height not in blocks or len(film) < height + 2 or (height > 1 and (begin % 8 or len(film) % height)):
        return False
    before, above, broken = film[-height - 2], film[-height - 1], film[-height]
    here = np.flatnonzero(above[begin:] != fill) + begin
    if here.size < max(FEWEST_PIXELS, LEAST_SHARE * (width - begin)):
        return False
    if here[-1] < np.flatnonzero(before != fill)[-1:].max(initial=0) - STEP_SHARE * width:
        return False  # the row above ends early itself: a slanted edge, not a broken row
    spread = float(np.ptp(film[:: max(1, len(film) // 64), :: max(1, width // 64)]))
    jump = float(np.median(np.abs(above[here] - fill)))
    usual = float(np.median(np.abs(above[here] - before[here])))
    if jump <= max(JUMP * usual, JUMP_SHARE * spread):
        return False
    step, usual = (float(np.median(np.abs(a[:begin] - b[:begin]))) for a, b in ((broken, above), (above, before)))
    return step <= max(jump / 2, 2 * usual)  # where the broken row is film, it goes on as film
