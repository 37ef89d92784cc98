"""Several manifests -> one: shares of one conversion, or several datasets.

In: manifest files, and the `rejected.csv` beside each. Out: one manifest with its `rejected.csv`, written part by part.
A film that two inputs hold under one id stays once, and what repeats what is found anew over all rows. Pictures are
neither moved nor removed.

Memory: of every row its picture's path, its id and 64 bytes of hashes; the other columns pass through.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.manifest.duplicates import NO_ROW, Words, near, same_pixels, words_of
from dinov2.manifest.edit import rebase, with_columns
from dinov2.manifest.reading import read_parts
from dinov2.manifest.rejects import REJECTED, Reject, write_joined
from dinov2.manifest.table import Manifest
from dinov2.manifest.writer import TableWriter

SAME, NEAR = "duplicate_pixels", "near_duplicate"  # flags, and codes of rejected.csv
FLAG_OF = np.array(["", SAME, NEAR], dtype=object)
SUSPECT = "polarity_suspect"
NEEDED = ("image", "image_id", "dataset", "sha256", "flags", "perceptual_hash")
ADDED: Mapping[str, pa.DataType] = {"flags": pa.string(), "duplicate_of": pa.string()}


@dataclass
class Merged:
    """What became of the rows."""

    num_pictures: int = 0
    num_rejected: int = 0  # rejects of the inputs and of this merge together
    turned_away: Counter[str] = field(default_factory=Counter)  # by this merge, by reason
    flags: Counter[str] = field(default_factory=Counter)  # duplicate flags of the rows that stay


@dataclass(frozen=True)
class _Plan:
    """What happens to every row [N], all inputs one after the other."""

    ids: Any  # Arrow strings
    kept_as: NDArray[np.int64]  # the row that stays in the place of one whose id is repeated, else -1
    repeats: NDArray[np.int64]  # the earliest row that this one repeats, or -1
    kind: NDArray[np.int8]  # 1 the same bytes, 2 nearly the same; -1: not known, its flags stay as they are
    away: NDArray[np.bool_]  # turned away, for one or the other

    def id(self, row: int) -> str:
        return str(self.ids[row])


def merge(
    paths: Sequence[Path], *, output: Path, near_duplicate_bits: int, reject_flags: Collection[str] = ()
) -> Merged:
    """Write all rows to `output`, one manifest after the other; columns that one lacks are null there.

    Rows of one dataset with one `image_id` are one film: the first stays, unless it is flagged polarity_suspect and
    another is not; the others go to the `rejected.csv` beside `output` as duplicate_uid, with the rejects of the
    inputs. `reject_flags`: duplicate_pixels, near_duplicate or both: such rows go there too. Raises ManifestError where
    a column has types that do not go together, one picture file is in two rows, or the output would overwrite an
    input's rejects; OSError where the disk takes nothing more.
    """
    unknown = sorted(set(reject_flags) - {SAME, NEAR})
    if unknown:
        raise ManifestError(f"{', '.join(unknown)}: only {SAME} and {NEAR} can be turned away by a merge.")
    _check_output(paths, output=output)
    plan = _plan(paths, root=output.parent, bits=near_duplicate_bits, reject_flags=frozenset(reject_flags))
    schema = _schema(paths, added=ADDED if (plan.kind > 0).any() else {})
    merged, rejects = Merged(), list[Reject]()
    first = 0
    with TableWriter(output, schema) as writer:
        for path in paths:
            for part in read_parts(path):
                rows = np.arange(first, first + part.num_rows)
                first += part.num_rows
                moved = rebase(Manifest(part, path.parent), output.parent)
                rejects += _rejects(moved.table, plan, rows=rows)
                writer.add_table(_kept(moved, plan, rows=rows, schema=schema))
        merged.turned_away.update(reject.reason for reject in rejects)
        beside = [path.parent / REJECTED for path in paths if (path.parent / REJECTED).is_file()]
        if beside or rejects:  # before the manifest gets its name: a row is in one of the two files, never in none
            merged.num_rejected = write_joined(beside, rejects, output=output.parent / REJECTED)
    merged.num_pictures = writer.num_rows
    names, counts = np.unique(plan.kind[~plan.away & (plan.kind > 0)], return_counts=True)
    merged.flags.update({str(FLAG_OF[name]): int(count) for name, count in zip(names, counts, strict=True)})
    return merged


def _check_output(paths: Sequence[Path], *, output: Path) -> None:
    taken = (output.parent / REJECTED).resolve()
    for path in paths:
        if path.resolve() == output.resolve():
            raise ManifestError(f"{output}: is one of the manifests to be merged. Give another --output.")
        if (path.parent / REJECTED).resolve() == taken and taken.is_file():
            raise ManifestError(
                f"{taken}: belongs to {path} and would be overwritten by the rejects of all. Give an --output in "
                "another folder."
            )


def _schema(paths: Sequence[Path], *, added: Mapping[str, pa.DataType]) -> pa.Schema:
    """Every column of every input, and `added` where no input has them."""
    schemas = []
    for path in paths:
        with closing(read_parts(path)) as parts:
            schemas.append(next(parts).schema)
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise ManifestError(
            f"{' and '.join(str(path) for path in paths)}: a column holds different things ({error}). "
            "Rename it in one of them."
        ) from error
    for name, kind in ADDED.items():
        place = schema.get_field_index(name)
        if place >= 0:
            schema = schema.set(place, pa.field(name, kind))  # in a CSV that is empty there it was of no type
        elif name in added:
            schema = schema.append(pa.field(name, kind))
    return schema


def _plan(paths: Sequence[Path], *, root: Path, bits: int, reject_flags: frozenset[str]) -> _Plan:
    columns, digests, hashes = _light_columns(paths, root=root)
    image, ids, dataset = (columns.column(name) for name in ("image", "image_id", "dataset"))
    twice = len(columns) - pc.count_distinct(image).as_py()
    if twice:
        raise ManifestError(f"{twice} pictures are in more than one of the manifests. Merge each of them once.")
    suspect = np.asarray(columns.column("suspect"))
    kept_as = _same_film(ids, dataset, np.asarray(columns.column("is_path")), suspect=suspect)
    stays = np.flatnonzero(kept_as == NO_ROW)
    repeats, kind = np.full(len(columns), NO_ROW), np.zeros(len(columns), dtype=np.int8)
    digests, hashes = digests[stays], hashes[stays]
    same = same_pixels(digests)
    alike = np.where(same == NO_ROW, near(hashes, bits), NO_ROW)
    found = np.where(same != NO_ROW, same, alike)
    repeats[stays] = np.where(found != NO_ROW, stays[found], NO_ROW)
    kind[stays] = np.where(same != NO_ROW, 1, np.where(alike != NO_ROW, 2, 0))
    kind[stays[~digests.any(axis=1) & ~hashes.any(axis=1)]] = -1
    turned_away = np.isin(kind, [number for number in (1, 2) if FLAG_OF[number] in reject_flags])
    return _Plan(ids, kept_as, repeats, kind, turned_away | (kept_as != NO_ROW))


def _light_columns(paths: Sequence[Path], *, root: Path) -> tuple[pa.Table, Words, Words]:
    """What the plan needs of every row, with its digest and perceptual hash, each uint64 [N, 4]."""
    parts, digests, hashes = [], [], []
    num_rows = 0
    for path in paths:
        for part in read_parts(path, columns=NEEDED):
            table = rebase(Manifest(part, path.parent), root).table
            num_rows += part.num_rows
            flags = _text(part, "flags")
            columns = {name: table.column(name) for name in ("image", "image_id", "dataset")}
            columns["is_path"] = pc.fill_null(pc.equal(part.column("image"), part.column("image_id")), True)
            digests.append(words_of(part.column("sha256")))
            hashes.append(words_of(_text(part, "perceptual_hash")))
            columns["suspect"] = pc.fill_null(pc.match_substring(flags, SUSPECT), False)
            parts.append(pa.table(columns))
    if not num_rows:
        raise ManifestError(
            f"none of the {len(paths)} manifests has a row. The rejected.csv beside each has the reason of every file."
        )
    return pa.concat_tables(parts), np.concatenate(digests), np.concatenate(hashes)


def _same_film(ids: Any, dataset: Any, is_path: NDArray[np.bool_], *, suspect: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The row that stays in the place of one with its dataset and id, or -1.  -> int64 [N]

    An id that is only the picture's own path says nothing of the film.
    """
    keys = pc.binary_join_element_wise(pc.fill_null(dataset, ""), ids, "\0").combine_chunks()
    codes = np.asarray(keys.dictionary_encode().indices)
    codes = np.where(is_path, -1 - np.arange(len(codes)), codes)
    order = np.lexsort((np.arange(len(codes)), suspect, codes))
    starts = np.concatenate([[True], codes[order][1:] != codes[order][:-1]])
    kept = np.empty(len(codes), dtype=np.int64)
    kept[order] = order[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
    kept[kept == np.arange(len(codes))] = NO_ROW
    return kept


def _kept(part: Manifest, plan: _Plan, *, rows: NDArray[np.int64], schema: pa.Schema) -> pa.Table:
    """The rows that stay, with the columns of the output."""
    part = with_columns(part, _remarks(part.table, plan, rows=rows))
    table = part.table.filter(pa.array(~plan.away[rows]))
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _remarks(table: pa.Table, plan: _Plan, *, rows: NDArray[np.int64]) -> dict[str, Any]:
    """`flags` and `duplicate_of` as they are after the merge; only rows where they change become Python objects."""
    columns = {name: _text(table, name) for name in ADDED}
    before = pc.fill_null(pc.match_substring_regex(columns["flags"], f"{SAME}|{NEAR}"), False)
    marked = np.asarray(pc.or_(before, pc.is_valid(columns["duplicate_of"])))
    changed = (plan.kind[rows] > 0) | ((plan.kind[rows] == 0) & marked)
    if not changed.any():
        return {name: column for name, column in columns.items() if name in table.column_names}
    flags, of = [], []
    for row, text in zip(rows[changed], columns["flags"].filter(pa.array(changed)).to_pylist(), strict=True):
        kind = plan.kind[row]
        others = [flag for flag in (text or "").split(",") if flag not in ("", SAME, NEAR)]
        flags.append(",".join([*others, str(FLAG_OF[kind])] if kind else others))
        of.append(plan.id(plan.repeats[row]) if kind else None)
    mask = pa.array(changed)
    return {
        name: pc.replace_with_mask(columns[name], mask, pa.array(values, type=pa.string()))
        for name, values in (("flags", flags), ("duplicate_of", of))
    }


def _rejects(table: pa.Table, plan: _Plan, *, rows: NDArray[np.int64]) -> Iterator[Reject]:
    """Rows that do not stay, for rejected.csv."""
    away = np.flatnonzero(plan.away[rows])
    if not len(away):
        return
    files = pc.coalesce(table.column("source"), table.column("image_id")).take(pa.array(away)).to_pylist()
    for place, file in zip(away, files, strict=True):
        row = rows[place]
        if plan.kept_as[row] != NO_ROW:
            kept = plan.id(plan.kept_as[row])
            message = f"(0008,0018) SOP Instance UID is that of the film kept as {kept}, in another share or manifest."
            yield Reject(file, "duplicate_uid", message)
        else:
            flag, earlier = str(FLAG_OF[plan.kind[row]]), plan.id(plan.repeats[row])
            likeness = "equals" if flag == SAME else "is nearly"
            yield Reject(file, flag, f"the picture {likeness} {earlier}, which comes earlier (--reject-flags).")


def _text(table: pa.Table, name: str) -> Any:
    if name not in table.column_names:
        return pa.nulls(len(table), pa.string())
    return table.column(name).cast(pa.string()).combine_chunks()
