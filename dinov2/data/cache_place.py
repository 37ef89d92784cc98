"""Where decoded films are kept: what `data.cache` and `data.cache_gib` say.

In: the two settings and a manifest. Out: an open `FilmCache`, new or begun by another process or an earlier run; or
none. What is opened belongs to exactly this manifest: file names, sizes, places in shards, their order and their
folder, and to this version of the decoder.
"""

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinov2.data.dataset import Pictures, Unreadable
from dinov2.data.film_cache import NO_ROOM, FilmCache, films_start
from dinov2.errors import ConfigError
from dinov2.manifest import PLACES, Manifest

NONE, RAM = "none", "ram"
COLUMNS = ("image", "width", "height", *PLACES)
NUM_LOOKED_AT = 4096  # entries, spread evenly, among which kept films are looked for ...
NUM_COMPARED = 16  # ... and films that are compared with their files
GIB = 2**30

log = logging.getLogger(__name__)


def open_cache(manifest: Manifest, *, place: str, limit_gib: float) -> FilmCache | None:
    """The cache that `data.cache=place` asks for.

    `none`: none. `ram`: memory of this process and the workers it forks. A folder: a file in there, of all processes of
    a machine and of later runs. Raises ConfigError for a setting that cannot be followed.
    """
    if place == NONE:
        return None
    limit_bytes = _limit_bytes(limit_gib, num_rows=len(manifest))
    if place == RAM:
        cache: FilmCache | None = _in_memory(manifest, limit_bytes=limit_bytes)
    elif os.sep in place:
        cache = _in_folder(manifest, Path(place).expanduser(), limit_bytes=limit_bytes)
    else:
        raise ConfigError(
            f"data.cache={place}: expected none, ram or a folder. For a folder of this name give ./{place}."
        )
    if cache is not None:
        log.info(
            "data.cache: decoded films are kept in %s, up to %.4g GiB (%.2f GiB held).",
            *(cache.name, limit_gib, cache.num_bytes / GIB),
        )
    return cache


def fingerprint(manifest: Manifest) -> bytes:
    """32 bytes that tell manifests apart by what decides which film a row is, and decoders by their version."""
    digest = hashlib.sha256(f"{manifest.root.absolute()}\0OpenCV {cv2.__version__}\0".encode())
    for name in COLUMNS:
        if name not in manifest.table.column_names:
            continue
        digest.update(name.encode())
        for content in _contents(manifest.table.column(name)):
            digest.update(content)
    return digest.digest()


def _contents(column: pa.ChunkedArray) -> Iterator[memoryview]:
    """The bytes of a column's values, however Arrow happens to hold them."""
    if pa.types.is_integer(column.type):
        for chunk in column.chunks:
            yield _bytes(pc.fill_null(chunk, -1).cast(pa.int64()))
        return
    words = [pc.fill_null(chunk.cast(pa.large_string()), "") for chunk in column.chunks]
    for chunk in words:
        yield _bytes(pc.binary_length(chunk))
    for chunk in words:
        _, offsets, letters = chunk.buffers()
        ends = np.frombuffer(offsets, dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        if letters is not None and len(chunk):
            yield memoryview(letters)[ends[0] : ends[-1]]


def _bytes(numbers: pa.Array) -> memoryview:
    return np.ascontiguousarray(numbers.to_numpy(zero_copy_only=False)).data


def _limit_bytes(limit_gib: float, *, num_rows: int) -> int:
    least = films_start(num_rows)
    if not limit_gib * GIB > least:
        raise ConfigError(
            f"data.cache_gib={limit_gib:g} has no room for films: the table of {num_rows} pictures alone takes "
            f"{least / GIB:.2g} GiB. Give more (a film of 518 x 622 pixels takes 0.0003 GiB), or data.cache=none."
        )
    return int(limit_gib * GIB)


def _in_memory(manifest: Manifest, *, limit_bytes: int) -> FilmCache:
    if not hasattr(os, "memfd_create"):
        raise ConfigError("data.cache=ram works on Linux only. Give a folder.")
    machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if limit_bytes > machine_bytes:
        raise ConfigError(
            f"data.cache_gib={limit_bytes / GIB:g} for data.cache=ram, and this machine has {machine_bytes / GIB:.1f} "
            "GiB of memory. Give less, for each process of the machine, or a folder."
        )
    return FilmCache.begin(
        os.memfd_create("dinov2-films", os.MFD_CLOEXEC),
        name="memory",
        fingerprint=fingerprint(manifest),
        num_rows=len(manifest),
        limit_bytes=limit_bytes,
    )


def _in_folder(manifest: Manifest, folder: Path, *, limit_bytes: int) -> FilmCache | None:
    mark = fingerprint(manifest)
    path = folder / f"films-{mark.hex()[:16]}.cache"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if path.is_file():
                cache = _opened(path, mark, num_rows=len(manifest), limit_bytes=limit_bytes)
                if cache is not None and _is_of_today(cache, manifest):
                    cache.tell_anew()
                    return cache
                log.warning("%s holds films that are not those on disk any more, or is damaged; begun anew.", path)
            return _begun(path, mark, num_rows=len(manifest), limit_bytes=limit_bytes)
    except OSError as error:
        if error.errno in NO_ROOM:
            log.warning("data.cache: %s cannot be made, the disk is full. Training goes on without a cache.", path)
            return None
        raise ConfigError(
            f"data.cache={folder}: {path.name} cannot be opened or made there ({error.strerror or error}). Give a "
            "folder on a disk of this machine that can be written to and has room, ram, or none."
        ) from error


def _opened(path: Path, mark: bytes, *, num_rows: int, limit_bytes: int) -> FilmCache | None:
    return FilmCache.go_on(
        os.open(path, os.O_RDWR | os.O_CLOEXEC),
        name=str(path),
        fingerprint=mark,
        num_rows=num_rows,
        limit_bytes=limit_bytes,
    )


def _begun(path: Path, mark: bytes, *, num_rows: int, limit_bytes: int) -> FilmCache:
    """A new file that takes the place of what was there; who has that open goes on with it."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    try:
        cache = FilmCache.begin(
            os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644),
            name=str(path),
            fingerprint=mark,
            num_rows=num_rows,
            limit_bytes=limit_bytes,
        )
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    return cache


def _is_of_today(cache: FilmCache, manifest: Manifest) -> bool:
    """Whether a few of the kept films, spread over the manifest, are what their files hold now.

    The manifest says nothing of a file's content, and pictures may have been made anew under the same names.
    """
    pictures = Pictures(manifest)
    kept = [row for row in manifest.spread_rows(NUM_LOOKED_AT) if cache.holds(row)]
    chosen = [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, NUM_COMPARED).astype(int))] if kept else []
    for row in chosen:
        film = cache.get(row)
        try:
            if film is not None and not np.array_equal(film, pictures.read(row)):
                return False
        except Unreadable:
            continue  # the loader will tell
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time opens a cache in `folder`; the others wait for the moment that takes."""
    with (folder / ".films.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
