"""Rows that repeat earlier ones, by bytes and by perceptual hash, against plain comparison of all pairs."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from dinov2.manifest import duplicates
from dinov2.manifest.duplicates import near, same_pixels, words_of


def digests(*texts):
    return np.array([hashlib.sha256(text.encode()).digest() for text in texts], dtype="V32")


def every_pair(hashes, max_bits):
    """The earliest earlier row within `max_bits`, the slow way."""
    found = np.full(len(hashes), -1)
    for row in range(1, len(hashes)):
        close = np.flatnonzero(np.bitwise_count(hashes[:row] ^ hashes[row]).sum(axis=1) <= max_bits)
        if len(close):
            found[row] = close[0]
    return found


def clusters(rng, *, count, centres, flips):
    """Hashes that differ in up to `flips` bits from one of few."""
    hashes = rng.integers(1, 2**64, (centres, 4), dtype=np.uint64)[rng.integers(0, centres, count)]
    for _ in range(flips):
        bits = rng.integers(0, 256, count)
        hashes[np.arange(count), bits // 64] ^= np.uint64(1) << (bits % 64).astype(np.uint64)
    return hashes


def test_the_earliest_row_of_the_same_bytes_is_named():
    values = digests("a", "b", "a", "c", "b", "a")
    assert same_pixels(values).tolist() == [-1, -1, 0, -1, 1, 0]
    assert same_pixels(values.view("S32")).tolist() == [-1, -1, 0, -1, 1, 0]
    assert same_pixels(values.view(np.uint64).reshape(-1, 4)).tolist() == [-1, -1, 0, -1, 1, 0]


def test_rows_without_a_hash_repeat_nothing():
    words = words_of(["ab" * 32, None, "", None, "ab" * 32, "no hash at all", "xy" * 32, "éé" * 32])
    assert words.any(axis=1).tolist() == [True, False, False, False, True, False, False, False]
    assert same_pixels(words).tolist() == [-1, -1, -1, -1, 0, -1, -1, -1]
    assert near(words, 10).tolist() == [-1, -1, -1, -1, 0, -1, -1, -1]


def test_no_rows_give_no_answer():
    nothing = np.zeros((0, 4), dtype=np.uint64)
    assert same_pixels(nothing).tolist() == near(nothing, 6).tolist() == []


def test_digits_are_read_from_lists_and_arrow_columns_in_any_chunks():
    digits = [hashlib.sha256(bytes([i])).hexdigest() for i in range(50)]
    expected = [[int(text[i : i + 16], 16) for i in range(0, 64, 16)] for text in digits]
    assert words_of(digits).tolist() == expected
    assert words_of(pa.chunked_array([digits[:7], digits[7:]]).slice(3)).tolist() == expected[3:]
    assert words_of([text.upper() for text in digits]).tolist() == expected


@pytest.mark.parametrize("max_bits", [0, 1, 6, 10, 40])
@pytest.mark.parametrize("kind", ["random", "few clusters", "many clusters", "alike"])
@pytest.mark.parametrize("tight", [False, True], ids=["usual limits", "every path taken"])
def test_near_finds_exactly_what_comparing_all_pairs_finds(max_bits, kind, tight, monkeypatch):
    if tight:
        for name, value in (("LONG_RUN", 4), ("FIRST_BLOCK", 2), ("BLOCK", 16), ("PAIRS_BEFORE_SPLIT", 1)):
            monkeypatch.setattr(duplicates, name, value)
    rng, count = np.random.default_rng(max_bits), 250 if tight else 1000
    hashes = {
        "random": lambda: rng.integers(1, 2**64, (count, 4), dtype=np.uint64),
        "few clusters": lambda: clusters(rng, count=count, centres=3, flips=7),
        "many clusters": lambda: clusters(rng, count=count, centres=300, flips=5),
        "alike": lambda: clusters(rng, count=count, centres=40, flips=60) | np.uint64(0xFFFF0F0F00FFF0F1),
    }[kind]()
    assert np.array_equal(near(hashes, max_bits), every_pair(hashes, max_bits))


def test_a_chain_names_the_earliest_row_near_each_not_the_start_of_the_chain():
    first = np.full((1, 4), 0x0123456789ABCDEF, dtype=np.uint64)
    second, third = first.copy(), first.copy()
    second[0, 0] ^= np.uint64(0b1111)
    third[0, 0] ^= np.uint64(0b11111111)
    assert near(np.concatenate([first, second, third, second]), 4).tolist() == [-1, 0, 1, 0]


def test_many_films_of_which_many_are_alike_are_compared_in_memory_that_follows_their_number():
    """200,000 hashes, a tenth of them in one cluster: all pairs would be 2e10."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(1, 2**64, (200_000, 4), dtype=np.uint64)
    alike = np.sort(rng.choice(200_000, 20_000, replace=False))
    hashes[alike] = clusters(rng, count=20_000, centres=1, flips=4)
    found = near(hashes, 10)
    assert (found[alike[1:]] == alike[0]).all()
    assert (found >= 0).sum() == 19_999


def test_a_threshold_that_is_none_is_refused():
    with pytest.raises(ValueError, match="max_bits is 64; give 0 to 63"):
        near(np.zeros((2, 4), dtype=np.uint64), 64)
