"""Pictures and patients of an evaluation set inside pretraining data.

In: two manifests; perceptual hashes. Out: `Pairs` of rows by kind, and a list of the rows to leave out.

Legend: N rows of the pretraining manifest, M of the evaluation manifest.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dinov2.manifest.duplicates import WORDS, Rows, Words, words_of
from dinov2.manifest.table import Manifest, base_and_stem

KINDS: Mapping[str, str] = {  # in the order in which they are told
    "sha256": "the same file (sha256)",
    "image_id": "the same image_id",
    "name": "the same name of the source file",
    "patient": "the same patient",
    "near": "nearly the same picture",
}
SHORTEST_NAME = 5  # letters; `1.png` of two folders is no evidence
# Of 256 bits: films that were only resized and compressed again differ in up to 13, films of two patients in 69 or more
# (243 films of 71 patients).
NEAR_BITS = 24
ROWS_AT_ONCE, OTHERS_AT_ONCE = 256, 1024  # 2 MB of words: they stay in the cache


@dataclass(frozen=True)
class Pairs:
    """Rows of the pretraining manifest, each with a row of the evaluation manifest that it repeats."""

    kind: str  # of KINDS
    rows: Rows
    others: Rows


def shared_by_table(manifest: Manifest, other: Manifest) -> list[Pairs]:
    """What the columns say: files, ids, names and patients that are in both.

    Ids and names count within one dataset, and where one of the manifests does not say which dataset a row is of. A
    name counts where it stands for one row in each manifest. Patients count within one dataset.
    """
    tables = manifest.table, other.table
    texts = [{name: _text(table, name) for name in ("image", "image_id", "dataset", "patient")} for table in tables]
    datasets = [one["dataset"] for one in texts]
    ids = [_unless_path(one["image_id"], one["image"]) for one in texts]
    names = [_names(table) for table in tables]
    found = {
        "sha256": _index(*(_known(_text(table, "sha256")) for table in tables)),
        "image_id": _of_one_dataset(ids[0], ids[1], datasets=datasets),
        "name": _of_one_dataset(names[0], names[1], datasets=datasets),
        "patient": _index(*(_within(_known(one["patient"]), one["dataset"]) for one in texts)),
    }
    return [_pairs(kind, places) for kind, places in found.items()]


def shared_by_hash(manifest: Manifest, other: Manifest, *, max_bits: int) -> Iterator[tuple[int, Pairs]]:
    """What the columns `perceptual_hash` say, part by part: rows looked at so far, and pairs among them."""
    ours, theirs = (words_of(_text(one.table, "perceptual_hash")) for one in (manifest, other))
    for done, rows, others, _ in near_pairs(ours, theirs, max_bits=max_bits):
        yield done, Pairs("near", rows, others)


def has_hashes(manifest: Manifest) -> bool:
    """Whether any row has a perceptual hash."""
    return bool(words_of(_text(manifest.table, "perceptual_hash")).any())


def near_pairs(ours: Words, theirs: Words, *, max_bits: int) -> Iterator[tuple[int, Rows, Rows, NDArray[np.int64]]]:
    """For each hash of `ours` the nearest of `theirs`, if it differs in at most `max_bits` of 256 bits.

    uint64 [N, 4], uint64 [M, 4] -> part by part: rows of N looked at so far, rows, their nearest others, bits. Hashes
    of zeros are unknown and near nothing. Every pair is compared: exact, and N x M words of time.
    """
    known = np.flatnonzero(theirs.any(axis=1))
    columns = np.ascontiguousarray(theirs[known].T)
    for start in range(0, len(ours), ROWS_AT_ONCE):
        part = np.ascontiguousarray(ours[start : start + ROWS_AT_ONCE].T)
        best = np.full(part.shape[1], 64 * WORDS + 1, dtype=np.int64)
        nearest = np.zeros(part.shape[1], dtype=np.int64)
        for first in range(0, len(known), OTHERS_AT_ONCE):
            _nearer(part, columns[:, first : first + OTHERS_AT_ONCE], first=first, best=best, nearest=nearest)
        hit = np.flatnonzero((best <= max_bits) & part.any(axis=0))
        yield start + part.shape[1], start + hit, known[nearest[hit]], best[hit]


def joined(parts: Iterable[Pairs]) -> dict[str, Pairs]:
    """The pairs of each kind that has any, each row once per kind, in the order of the rows."""
    by_kind: dict[str, list[Pairs]] = {}
    for pairs in parts:
        by_kind.setdefault(pairs.kind, []).append(pairs)
    result = {}
    for kind in KINDS:
        of_kind = by_kind.get(kind, [])
        if of_kind:
            rows, others = (np.concatenate([getattr(one, name) for one in of_kind]) for name in ("rows", "others"))
            rows, first = np.unique(rows, return_index=True)
            if len(rows):
                result[kind] = Pairs(kind, rows, others[first])
    return result


def leaking_rows(found: Mapping[str, Pairs]) -> Rows:
    """Every row of the pretraining manifest that leaks, once, in order."""
    return np.unique(np.concatenate([pairs.rows for pairs in found.values()])) if found else np.zeros(0, dtype=np.int64)


def write_leaks(path: Path, found: Mapping[str, Pairs], *, manifest: Manifest, other: Manifest) -> int:
    """The leaking rows as a CSV that `data.exclude` takes: their pictures, why, and the picture they repeat.  -> rows

    Raises OSError where it cannot be written; the file appears whole or not at all.
    """
    reasons: dict[int, list[str]] = {}
    repeated: dict[int, int] = {}
    for kind, pairs in found.items():
        for row, place in zip(pairs.rows.tolist(), pairs.others.tolist(), strict=True):
            reasons.setdefault(row, []).append(kind)
            repeated.setdefault(row, place)
    columns = ("image", "image_id", "dataset", "patient")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow([*columns, "shared", "evaluation_image"])
        for row in sorted(reasons):
            known = [manifest.table.column(name)[row].as_py() or "" for name in columns]
            table.writerow([*known, " ".join(reasons[row]), other.table.column("image")[repeated[row]].as_py()])
    partial.replace(path)
    return len(reasons)


def described(pairs: Pairs, *, manifest: Manifest, other: Manifest, limit: int) -> list[str]:
    """The first pairs in words: `a.png is b.png` by name, or the patient of both."""
    lines = []
    for row, place in zip(pairs.rows[:limit].tolist(), pairs.others[:limit].tolist(), strict=True):
        ours, theirs = (one.table.column("image")[at].as_py() for one, at in ((manifest, row), (other, place)))
        patient = f" (patient {manifest.table.column('patient')[row].as_py()})" if pairs.kind == "patient" else ""
        lines.append(f"{ours} and {theirs}{patient}")
    return lines


def _nearer(part: Words, block: Words, *, first: int, best: NDArray[np.int64], nearest: Rows) -> None:
    """Take over, in `best` and `nearest`, what is nearer in this block.  uint64 [4, n], [4, m]

    Equally near: the earlier one stays. `first`: the number of the block's first.
    """
    bits = np.zeros((part.shape[1], block.shape[1]), dtype=np.uint16)
    differing = np.empty(bits.shape, dtype=np.uint64)
    counts = np.empty(bits.shape, dtype=np.uint8)
    for word in range(WORDS):
        np.bitwise_xor(part[word, :, None], block[word, None, :], out=differing)
        bits += np.bitwise_count(differing, out=counts)
    closest = bits.argmin(axis=1)
    closest_bits = bits[np.arange(len(bits)), closest].astype(np.int64)
    nearer = closest_bits < best
    best[nearer] = closest_bits[nearer]
    nearest[nearer] = first + closest[nearer]


def _pairs(kind: str, places: Any) -> Pairs:
    rows = np.flatnonzero(np.asarray(pc.is_valid(places)))
    return Pairs(kind, rows, np.asarray(places.drop_null(), dtype=np.int64))


def _of_one_dataset(ours: Any, theirs: Any, *, datasets: Sequence[Any]) -> Any:
    """The first row of theirs with the value, of the same dataset, or where one of the two does not say."""
    silent = [pc.equal(one, "") for one in datasets]
    nothing = pa.scalar(None, pa.string())
    return pc.coalesce(
        _index(_within(ours, datasets[0]), _within(theirs, datasets[1])),
        _index(ours, pc.if_else(silent[1], theirs, nothing)),
        _index(pc.if_else(silent[0], ours, nothing), theirs),
    )


def _index(ours: Any, theirs: Any) -> Any:
    """The first row of theirs with the value, null where there is none or the value is null."""
    return pc.index_in(ours, value_set=theirs, skip_nulls=True)


def _within(values: Any, dataset: Any) -> Any:
    return pc.binary_join_element_wise(dataset, values, "\0")


def _names(table: pa.Table) -> Any:
    """File name of the source (else of the picture) without suffix; null where short, or where two rows have it."""
    stem = base_and_stem(pc.coalesce(_known(_text(table, "source")), _text(table, "image")))[1]
    counts = pc.value_counts(stem)
    once = counts.field("values").filter(pc.equal(counts.field("counts"), 1))
    telling = pc.and_(pc.is_in(stem, value_set=once), pc.greater_equal(pc.utf8_length(stem), SHORTEST_NAME))
    return pc.if_else(telling, stem, pa.scalar(None, pa.string()))


def _unless_path(ids: Any, images: Any) -> Any:
    """Ids; null where it is only the picture's path or says nothing."""
    return pc.if_else(pc.equal(ids, images), pa.scalar(None, pa.string()), _known(ids))


def _known(values: Any) -> Any:
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def _text(table: pa.Table, name: str) -> Any:
    """A column as text, empty where nothing is stated or there is no such column."""
    if name not in table.column_names:
        return pa.array(np.full(len(table), ""), type=pa.string())
    return pc.fill_null(table.column(name).cast(pa.string()), "").combine_chunks()
