"""Pictures of a manifest -> tar shards of about one size, and a manifest that points into them.

In: a manifest whose pictures are files (or lie in other shards). Out: `shards/00000.tar` ..., plain tar files in the
order of the rows, and a `Manifest` with the columns `offset` and `num_bytes`. The bytes depend on the pictures, their
ids and the size asked for, nothing else. A shard appears whole or not at all; complete ones are recognised.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.manifest.columns import PLACES
from dinov2.manifest.edit import with_columns
from dinov2.manifest.place import Place
from dinov2.manifest.table import Manifest, place_of

BLOCK = tarfile.BLOCKSIZE  # 512 bytes: a header, and what contents are filled up to
END = bytes(2 * BLOCK)
NAME_LETTERS = 100  # of a ustar header
GOOD_NAME = re.compile(r"(?!row\d{9}$)[A-Za-z0-9_-][A-Za-z0-9_/-]*")
ROWS_AT_ONCE = 4096
SUFFIX = r"\.[A-Za-z]{3,4}$"  # at the end of an id that is a file name
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class _Member:
    """A picture on its way into a shard."""

    row: int
    name: str
    place: Place
    num_bytes: int
    mtime: float
    sha256: str | None

    @property
    def size_in_tar(self) -> int:
        return BLOCK + -(-self.num_bytes // BLOCK) * BLOCK


class Packing:
    """One packing into a folder: iterate `run` for the rows done, then take `manifest`."""

    def __init__(self, manifest: Manifest, folder: Path, *, shard_mb: int) -> None:
        """Prepare the folder.  Raises ManifestError where it holds shards of other pictures or of another size."""
        if shard_mb < 1:
            raise ManifestError(f"--shard-mb {shard_mb}: give a size from 1.")
        self._source, self._folder, self._most = manifest, folder, shard_mb * MEGABYTE
        self._offsets, self._sizes = (np.zeros(len(manifest), dtype=np.int64) for _ in range(2))
        self._images: list[pa.Array] = []
        self.num_shards = self.num_kept = 0  # of them, complete before
        self._shards = folder / "shards"
        self._shards.mkdir(parents=True, exist_ok=True)
        self._claim(shard_mb)

    def run(self) -> Iterator[int]:
        """Write shard after shard; gives the number of rows done after each.

        Raises ManifestError where a picture is absent or not the one of the manifest, OSError where the disk takes
        nothing more. What is complete stays, and the next run begins after it.
        """
        for members in self._divided():
            path = self._shards / f"{self.num_shards:05}.tar"
            if _is_complete(path, members):
                self.num_kept += 1
            else:
                _write_shard(path, members)
            offset = 0
            for member in members:
                self._offsets[member.row], self._sizes[member.row] = offset + BLOCK, member.num_bytes
                offset += member.size_in_tar
            names = pa.array([member.name for member in members])
            self._images.append(pc.binary_join_element_wise(pa.scalar(f"shards/{path.name}"), names, "::"))
            self.num_shards += 1
            yield members[-1].row + 1
        for path in sorted(self._shards.glob("[0-9]*.tar")):
            if path.stem.isdigit() and int(path.stem) >= self.num_shards:
                path.unlink()  # of an earlier run over the same rows, when their files were larger

    def manifest(self) -> Manifest:
        """The rows with their new places; `root` is the folder."""
        columns = {"image": pa.chunked_array(self._images, type=pa.string())}
        columns |= {
            name: pa.array(values, type=PLACES[name])
            for name, values in zip(PLACES, (self._offsets, self._sizes), strict=True)
        }
        return Manifest(with_columns(self._source, columns).table, self._folder)

    def _claim(self, shard_mb: int) -> None:
        ids = self._source.table.column("image_id")
        digest = hashlib.sha256()
        for chunk in ids.chunks:
            digest.update("\0".join(str(value) for value in chunk.to_pylist()).encode() + b"\0")
        ours = {"pictures": len(ids), "image_ids_sha256": digest.hexdigest(), "shard_mb": shard_mb}
        path = self._shards / "pack.json"
        try:
            theirs: Any = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except ValueError:
            theirs = {}
        if theirs != ours and (theirs is not None or any(self._shards.glob("*.tar"))):
            raise ManifestError(
                f"{self._shards}: holds shards of other pictures, or of another --shard-mb. Give an empty --output, or "
                "remove this folder."
            )
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(ours) + "\n", encoding="utf-8")
        partial.replace(path)

    def _divided(self) -> Iterator[list[_Member]]:
        """The members shard by shard; one that is larger than a shard gets its own."""
        members: list[_Member] = []
        size = len(END)
        for member in self._members():
            if members and size + member.size_in_tar > self._most:
                yield members
                members, size = [], len(END)
            members.append(member)
            size += member.size_in_tar
        if members:
            yield members

    def _members(self) -> Iterator[_Member]:
        names = _unique_ids(self._source)
        columns = [name for name in ("image", "image_id", "sha256", *PLACES) if name in self._source.table.column_names]
        table = self._source.table.select(columns)
        for start in range(0, len(self._source), ROWS_AT_ONCE):
            part = table.slice(start, ROWS_AT_ONCE).combine_chunks()
            ids, images, digests = (part.column(name).to_pylist() for name in ("image_id", "image", "sha256"))
            for place in range(part.num_rows):
                row = start + place
                name = _member_name(ids[place] if names[row] else None, images[place], row=row)
                where = place_of(part, place, root=self._source.root)
                try:
                    found = where.path.stat()
                except OSError as error:
                    raise ManifestError(
                        f"row {row}: {where.path} is not there ({error.strerror}). `dinov2 manifest check` names all "
                        "that are missing."
                    ) from error
                size = found.st_size if where.num_bytes is None else where.num_bytes
                yield _Member(row, name, where, size, found.st_mtime, digests[place])


def _member_name(image_id: str | None, image: str, *, row: int) -> str:
    """The picture's id with the file's suffix, where that is a plain name of its own; else the row's number."""
    suffix = PurePosixPath(image).suffix.lower()
    stem = re.sub(SUFFIX, "", image_id or "").replace(".", "_")
    plain = GOOD_NAME.fullmatch(stem) and "//" not in stem and not stem.endswith("/")
    return f"{stem}{suffix}" if plain and len(stem) + len(suffix) <= NAME_LETTERS else f"row{row:09}{suffix}"


def _unique_ids(manifest: Manifest) -> NDArray[np.bool_]:
    """Whether a row's id is its own, also without its suffix and with dots replaced.  -> bool [N]"""
    ids = pc.replace_substring_regex(manifest.table.column("image_id"), pattern=SUFFIX, replacement="")
    ids = pc.replace_substring(ids, pattern=".", replacement="_")
    counts = pc.value_counts(ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    unique: NDArray[np.bool_] = ~np.asarray(pc.is_in(ids, value_set=repeated))
    return unique


def _header(member: _Member) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.size, info.mode = member.num_bytes, 0o644  # mtime, uid and gid are 0, names of user and group empty
    return info.tobuf(format=tarfile.USTAR_FORMAT)


def _is_complete(path: Path, members: list[_Member]) -> bool:
    """Whether the shard holds these members, none of which changed since it was written; only headers are read."""
    try:
        found = path.stat()
        if found.st_size != sum(member.size_in_tar for member in members) + len(END):
            return False
        if any(member.mtime > found.st_mtime for member in members):
            return False
        with path.open("rb", buffering=0) as stream:
            for member in members:
                if stream.read(BLOCK) != _header(member):
                    return False
                stream.seek(member.size_in_tar - BLOCK, 1)
    except OSError:
        return False
    return True


def _write_shard(path: Path, members: list[_Member]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            for member in members:
                _add(stream, member)
            stream.write(END)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _add(stream: IO[bytes], member: _Member) -> None:
    try:
        content = member.place.read()
    except OSError as error:
        raise ManifestError(f"row {member.row}: {member.place.path} cannot be read ({error}).") from error
    changed = member.sha256 and hashlib.sha256(content).hexdigest() != member.sha256
    if changed or len(content) != member.num_bytes:
        raise ManifestError(
            f"row {member.row}: {member.place.path} is not the file of the manifest. Run dinov2 preprocess again, or "
            "build the manifest anew."
        )
    stream.write(_header(member))
    stream.write(content)
    stream.write(bytes(-len(content) % BLOCK))
