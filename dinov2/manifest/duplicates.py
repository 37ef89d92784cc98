"""Which rows are copies of earlier ones: the same bytes, or nearly the same picture.

In: digests (SHA-256) and perceptual hashes of N rows. Out: for each row the earliest row that it repeats, or -1. The
answer depends on the values alone. Memory is a small multiple of the hashes' own 32 bytes a row.

Two hashes that differ in at most m of 256 bits are equal in at least one of any m + 1 groups of bits: there are not
enough differences to touch them all. So rows are sorted by each group of bits in turn, and only rows that share one are
compared. Bits are dealt to the groups like cards, because neighbouring ones are alike in all chest films.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

WORDS = 4  # of 64 bits
NO_ROW = -1
ROWS_AT_ONCE = 262_144
PAIRS_AT_ONCE = 2_097_152
LONG_RUN = 64  # rows that share a group of bits; a longer run is compared in blocks
FIRST_BLOCK, BLOCK = 32, 1024
PAIRS_BEFORE_SPLIT = 33_554_432
MOST_SPLITS = 2  # how often a long run is divided by further bits before every pair of it is compared
MIXERS = np.array(  # odd: multiplying by them loses nothing
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], dtype=np.uint64
)
NIBBLES = np.full(256, 255, dtype=np.uint8)
for _value, _letters in enumerate(
    ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "aA", "bB", "cC", "dD", "eE", "fF")
):
    for _letter in _letters:
        NIBBLES[ord(_letter)] = _value

Rows = NDArray[np.int64]
Words = NDArray[np.uint64]


def words_of(digits: "Sequence[str | None] | pa.Array | pa.ChunkedArray") -> Words:
    """64 hexadecimal digits a row as 4 words of 64 bits.  -> uint64 [N, 4]

    Rows that are null or hold anything else become zeros, which `same_pixels` and `near` take for unknown.
    """
    column = digits if isinstance(digits, pa.Array | pa.ChunkedArray) else pa.array(digits, type=pa.string())
    words = np.zeros((len(column), WORDS), dtype=np.uint64)
    for start in range(0, len(column), ROWS_AT_ONCE):
        part = column.slice(start, ROWS_AT_ONCE)
        part = part.combine_chunks() if isinstance(part, pa.ChunkedArray) else part
        whole = np.flatnonzero(pc.fill_null(pc.equal(pc.binary_length(part), 16 * WORDS), False))
        if len(whole):
            words[start + whole] = _parsed(part.take(pa.array(whole)))
    return words


def same_pixels(digests: "NDArray[np.bytes_] | NDArray[np.void] | Words") -> Rows:
    """The earliest row with the same digest, or -1.  -> int64 [N]

    `digests`: 32 bytes a row, as 'S32' or 'V32' [N] or uint64 [N, 4]. Rows of zeros are unknown and repeat nothing.
    """
    words = np.ascontiguousarray(digests).view(np.uint64).reshape(-1, WORDS)
    first = _earliest_equal(words)
    first[(first == np.arange(len(first))) | ~words.any(axis=1)] = NO_ROW
    return first


def near(hashes: Words, max_bits: int) -> Rows:
    """The earliest row before this one whose hash differs in at most `max_bits` of 256 bits, or -1.  -> int64 [N]

    `hashes`: uint64 [N, 4] (see `words_of`). Rows of zeros are unknown and near nothing. The answer is exact; it comes
    fast where few pairs of different pictures share 256 / (max_bits + 1) bits. Raises ValueError for `max_bits`
    outside 0 .. 63.
    """
    if not 0 <= max_bits <= 63:
        raise ValueError(f"max_bits is {max_bits}; give 0 to 63 of the 256 bits of a perceptual hash.")
    hashes = np.ascontiguousarray(hashes, dtype=np.uint64).reshape(-1, WORDS)
    first, known = _earliest_equal(hashes), hashes.any(axis=1)
    rows = np.arange(len(hashes))
    distinct = rows[(first == rows) & known]  # the first row of every hash
    best = np.arange(len(distinct))  # place in `distinct` of the earliest hash near this one, itself included
    if max_bits:
        values = hashes[distinct]
        for mask in _masks(np.arange(64 * WORDS), num_groups=max_bits + 1):
            _Search(values, best, max_bits=max_bits).run(np.arange(len(values)), mask)
    found = np.full(len(hashes), NO_ROW, dtype=np.int64)
    found[distinct] = distinct[best]
    found = np.where(known, found[first], NO_ROW)
    found[found == rows] = NO_ROW
    return found


class _Search:
    """One pass over hashes [N, 4] in the order of their rows; `best` [N] takes the earliest near one of each."""

    def __init__(self, values: Words, best: Rows, *, max_bits: int) -> None:
        self.values, self.best, self.max_bits = values, best, max_bits

    def run(self, places: Rows, mask: Words, *, splits: int = 0, spent: Words | None = None) -> None:
        """Compare all pairs of `places` (ascending) that are equal under `mask`.  `spent`: bits known to be equal."""
        order, starts, ends = _runs(self.values[places], mask)
        places, lengths = places[order], ends - starts
        short = (lengths > 1) & (lengths <= LONG_RUN)
        self._short_runs(places, starts[short], ends[short])
        spent = mask if spent is None else spent | mask
        for start, end in zip(starts[lengths > LONG_RUN], ends[lengths > LONG_RUN], strict=True):
            self._long_run(places[start:end], splits=splits, spent=spent)

    def _short_runs(self, places: Rows, starts: Rows, ends: Rows) -> None:
        """Pairs at every distance within the run: 1 apart, 2 apart ..."""
        lengths = ends - starts
        for apart in range(1, int(lengths.max(initial=1))):
            longer = lengths > apart
            starts, lengths = starts[longer], lengths[longer]
            counts = lengths - apart
            for low, high in _shares(counts, at_once=PAIRS_AT_ONCE):
                part = counts[low:high]
                earlier = np.repeat(starts[low:high] - np.cumsum(part) + part, part) + np.arange(part.sum())
                self._compare(places[earlier], places[earlier + apart])

    def _compare(self, earlier: Rows, later: Rows) -> None:
        close = np.zeros(len(earlier), dtype=np.uint16)
        for word in range(WORDS):
            close += np.bitwise_count(self.values[earlier, word] ^ self.values[later, word])
        hit = close <= self.max_bits
        np.minimum.at(self.best, later[hit], earlier[hit])

    def _long_run(self, run: Rows, *, splits: int, spent: Words) -> None:
        """Most of a real cluster is near its first members; what is not is told apart by further bits."""
        unresolved, start = run, 0
        for block in (run[:FIRST_BLOCK], run[FIRST_BLOCK:BLOCK]):
            unresolved = self._against(block, unresolved)
            start += len(block)
        left = np.setdiff1d(np.arange(64 * WORDS), _bits(spent), assume_unique=True)
        divisible = splits < MOST_SPLITS and len(left) >= 8 * (self.max_bits + 1)
        if divisible and len(unresolved) * (len(run) - start) > PAIRS_BEFORE_SPLIT:
            for mask in _masks(left, num_groups=self.max_bits + 1):
                self.run(run, mask, splits=splits + 1, spent=spent)
            return
        for first in range(start, len(run), BLOCK):
            unresolved = self._against(run[first : first + BLOCK], unresolved)

    def _against(self, block: Rows, targets: Rows) -> Rows:
        """Compare `targets` (ascending) with the hashes of `block` that come before them.

        -> the targets after the block that are near none of it
        """
        if not (len(block) and len(targets)):
            return targets
        left = []
        step = max(1, PAIRS_AT_ONCE // len(block))
        for start in range(0, len(targets), step):
            some = targets[start : start + step]
            differing = np.zeros((len(some), len(block)), dtype=np.uint16)
            for word in range(WORDS):
                differing += np.bitwise_count(self.values[some, word, None] ^ self.values[None, block, word])
            hit = (differing <= self.max_bits) & (block[None, :] < some[:, None])
            any_hit = hit.any(axis=1)
            earliest = block[hit[any_hit].argmax(axis=1)]
            self.best[some[any_hit]] = np.minimum(self.best[some[any_hit]], earliest)
            left.append(some[~any_hit & (some > block[-1])])
        return np.concatenate(left)


def _earliest_equal(words: Words) -> Rows:
    """The first row of the same words, which may be the row itself.  uint64 [N, 4] -> int64 [N]"""
    order, starts, ends = _runs(words, np.full(WORDS, ~np.uint64(0)))
    first = np.arange(len(words))
    first[order] = np.repeat(order[starts], ends - starts)
    unequal = np.flatnonzero((words != words[first]).any(axis=1))
    if len(unequal):  # two hashes of 64 bits met: compare the words themselves
        _, index, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
        first = index[inverse.ravel()]
    return first


def _runs(words: Words, mask: Words) -> tuple[Rows, Rows, Rows]:
    """Rows sorted by their masked words, earlier rows first, and where each run of equal ones starts and ends."""
    keys = np.zeros(len(words), dtype=np.uint64)
    for word in range(WORDS):
        keys ^= words[:, word] & mask[word]
        keys *= MIXERS[word]
        keys ^= keys >> np.uint64(29)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, dtype=int)
    return order, starts, np.append(starts[1:], len(keys)) if len(keys) else starts


def _masks(bits: NDArray[np.int64], *, num_groups: int) -> Iterator[Words]:
    """These bits dealt to groups in turn, each group as a mask of 4 words."""
    for group in range(num_groups):
        mask = np.zeros(WORDS, dtype=np.uint64)
        for bit in bits[group::num_groups]:
            mask[bit // 64] |= np.uint64(1) << np.uint64(bit % 64)
        yield mask


def _bits(mask: Words) -> NDArray[np.int64]:
    shifted = mask[:, None] >> np.arange(64, dtype=np.uint64)[None, :]
    return np.flatnonzero((shifted & np.uint64(1)).ravel())


def _shares(counts: Rows, *, at_once: int) -> Iterator[tuple[int, int]]:
    """Consecutive groups of runs whose pairs fit into memory together."""
    total = np.cumsum(counts)
    low = 0
    while low < len(counts):
        before = total[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(total, before + at_once, side="right")))
        yield low, high
        low = high


def _parsed(digits: pa.Array) -> Words:
    """Strings of 64 letters; one that holds anything but hexadecimal digits gives zeros."""
    letters = np.frombuffer("".join(digits.to_pylist()).encode("latin-1", "replace"), dtype=np.uint8)
    nibbles = NIBBLES[letters].reshape(len(digits), -1)
    packed = (nibbles[:, 0::2] << 4) | (nibbles[:, 1::2] & 15)
    words: Words = packed.view(">u8").astype(np.uint64)
    words[(nibbles > 15).any(axis=1)] = 0
    return words
