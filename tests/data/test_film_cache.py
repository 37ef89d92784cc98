"""A film from the cache is the film that was put in, or none, whatever happened to the file."""

import fcntl
import logging
import multiprocessing
import os
import resource
import signal

import numpy as np
import pytest

from dinov2.data.film_cache import ENTRY_BYTES, GIVEN_AT, NUMBER, PAGE, FilmCache, films_start

MARK = bytes(range(32))
NUM_ROWS = 40


def film(row: int) -> np.ndarray:
    rng = np.random.default_rng(row)
    return rng.integers(0, 256, (20 + row, 30), dtype=np.uint8)


def begin(path, *, limit_bytes: int = 10**6) -> FilmCache:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    return FilmCache.begin(descriptor, name=str(path), fingerprint=MARK, num_rows=NUM_ROWS, limit_bytes=limit_bytes)


def go_on(path, *, mark: bytes = MARK, num_rows: int = NUM_ROWS, limit_bytes: int = 10**6) -> FilmCache | None:
    descriptor = os.open(path, os.O_RDWR)
    return FilmCache.go_on(descriptor, name=str(path), fingerprint=mark, num_rows=num_rows, limit_bytes=limit_bytes)


def right_or_none(cache: FilmCache) -> int:
    """How many films it has, each held against the true one."""
    count = 0
    for row in range(NUM_ROWS):
        found = cache.get(row)
        assert found is None or np.array_equal(found, film(row))
        count += found is not None
    return count


@pytest.fixture
def path(tmp_path):
    return tmp_path / "films.cache"


def test_films_come_back_as_they_were_in_this_process_and_when_opened_again(path):
    cache = begin(path)
    assert cache.get(3) is None
    for row in (3, 0, 39):
        cache.put(row, film(row))
    assert right_or_none(cache) == 3
    assert cache.num_bytes == films_start(NUM_ROWS) + sum(film(row).size for row in (3, 0, 39))
    assert right_or_none(go_on(path)) == 3
    assert [row for row in range(NUM_ROWS) if cache.holds(row)] == [0, 3, 39]


def test_a_film_that_is_a_view_comes_back(path):
    cache = begin(path)
    cache.put(1, film(1)[::2, ::-1])
    assert np.array_equal(cache.get(1), film(1)[::2, ::-1])


def test_a_film_that_was_taken_out_is_the_callers_own(path):
    cache = begin(path)
    cache.put(1, film(1))
    cache.get(1)[:] = 0
    assert np.array_equal(cache.get(1), film(1))


def test_the_cache_of_another_manifest_is_not_opened(path):
    begin(path).put(0, film(0))
    assert go_on(path, mark=bytes(32)) is None
    assert go_on(path, num_rows=NUM_ROWS + 1) is None
    path.write_bytes(path.read_bytes()[:70])
    assert go_on(path) is None
    path.write_bytes(b"")
    assert go_on(path) is None


def test_a_row_beyond_the_manifest_is_refused(path):
    with pytest.raises(IndexError, match="row 40 of a cache of 40 films"):
        begin(path).get(NUM_ROWS)


def test_a_full_cache_keeps_what_it_has_takes_no_more_and_says_so_once(path, caplog):
    limit = films_start(NUM_ROWS) + film(0).size + film(1).size
    writers = [begin(path, limit_bytes=limit), go_on(path, limit_bytes=limit)]
    for writer in writers:
        for row in range(6):
            writer.put(row, film(row))
    assert [row for row in range(NUM_ROWS) if writers[0].holds(row)] == [0, 1]
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert "data.cache_gib allows no more. Training goes on" in told[0]
    again = go_on(path, limit_bytes=limit)
    again.tell_anew()
    again.put(7, film(7))
    assert len(caplog.records) == 2


def test_a_higher_limit_lets_an_old_cache_grow(path):
    limit = films_start(NUM_ROWS) + film(0).size
    small = begin(path, limit_bytes=limit)
    small.put(0, film(0))
    small.put(1, film(1))
    larger = go_on(path)
    larger.put(1, film(1))
    assert right_or_none(larger) == 2


def fill_a_full_disk(path, answers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (films_start(NUM_ROWS) + 1000, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit is an error then, as on a full disk
    cache = go_on(path)
    for row in range(NUM_ROWS):
        cache.put(row, film(row))
    answers.put((right_or_none(cache), cache._keeps))


def test_a_disk_that_takes_no_more_ends_the_keeping_and_not_the_run(path):
    begin(path)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=fill_a_full_disk, args=(path, answers))
    process.start()
    assert answers.get(timeout=60) == (1, False)  # 600 bytes fit, 630 more do not
    process.join()
    assert process.exitcode == 0
    assert right_or_none(go_on(path)) == 1


def test_a_film_whose_writer_was_killed_is_not_given_and_is_written_again_in_its_place(path):
    cache = begin(path)
    place = cache._place(5, height=25, width=30)
    os.pwrite(cache._file, film(5).tobytes()[:100], place.offset)  # and then: killed
    assert cache.get(5) is None
    before = cache.num_bytes
    again = go_on(path)
    again.put(5, film(5))
    assert np.array_equal(cache.get(5), film(5))
    assert cache.num_bytes == before


def test_a_damaged_film_or_entry_is_never_taken_for_a_film(path):
    cache = begin(path)
    for row in range(NUM_ROWS):
        cache.put(row, film(row))
    assert right_or_none(cache) == NUM_ROWS
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for place in (
            rng.integers(PAGE, PAGE + NUM_ROWS * ENTRY_BYTES),
            rng.integers(films_start(NUM_ROWS), len(whole)),
        ):
            content[place] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        assert right_or_none(cache) in (NUM_ROWS - 2, NUM_ROWS - 1, NUM_ROWS)
    path.write_bytes(whole[: len(whole) // 2])
    assert 0 < right_or_none(cache) < NUM_ROWS


def test_films_that_were_given_one_place_after_a_power_cut_are_not_taken_for_each_other(path):
    cache = begin(path)
    cache.put(0, film(0))
    cache.put(1, film(1))
    os.pwrite(cache._file, NUMBER.pack(0), GIVEN_AT)  # the header's newest bytes were lost
    cache.put(2, film(2))
    assert cache.get(0) is None  # overwritten
    assert right_or_none(cache) >= 1


def write_all(path, seed):
    cache = go_on(path)
    for row in np.random.default_rng(seed).permutation(NUM_ROWS):
        cache.put(int(row), film(int(row)))
    os._exit(0)


def test_several_processes_write_at_once_and_every_film_is_whole_and_kept_once(path):
    cache = begin(path)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_all, args=(path, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert right_or_none(cache) == NUM_ROWS
    assert cache.num_bytes == films_start(NUM_ROWS) + sum(film(row).size for row in range(NUM_ROWS))


def hold_the_lock(path, held):
    descriptor = os.open(path, os.O_RDWR)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    held.set()
    signal.pause()


def test_a_process_that_holds_the_lock_stops_nobody_and_killed_it_gives_it_back(path):
    cache = begin(path)
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold_the_lock, args=(path, held))
    process.start()
    assert held.wait(timeout=60)
    cache.put(0, film(0))
    assert cache.get(0) is None
    process.kill()
    process.join()
    cache.put(0, film(0))
    assert np.array_equal(cache.get(0), film(0))
