"""The state of a finished conversion -> manifest, rejects and crosswalk, in the order of the listing.

In: the state, what repeats what, the user's tables. Out: files that appear whole or not at all, and the counts. Rows
are streamed: a page of them is in memory. Every input is in the manifest or in the rejects; where one is in neither,
nothing is written.
"""

import csv
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from dinov2.manifest.writer import ManifestWriter
from dinov2.preprocess.intake.source import Source, as_text
from dinov2.preprocess.reasons import Flag, Reason
from dinov2.preprocess.work.joined import Found, Tables
from dinov2.preprocess.work.repeats import Repeats
from dinov2.preprocess.work.shelf import Shelf
from dinov2.preprocess.work.state import State

ROWS_PER_PAGE = 4096
EXTRA: Mapping[str, pa.DataType] = {
    "modality": pa.string(),
    "manufacturer": pa.string(),
    "flags": pa.string(),
    "spacing_mm": pa.string(),
    "bits": pa.int32(),
    "film_height": pa.int32(),
    "film_width": pa.int32(),
    "transfer_syntax": pa.string(),
    "frame": pa.int32(),
    "perceptual_hash": pa.string(),
    "duplicate_of": pa.string(),
}
REJECT_COLUMNS = ("file", "reason", "message")
CROSSWALK_COLUMNS = ("source", "input", "image_id", "patient", "patient_id", "study", "study_uid", "image_uid")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command asked for."""

    dataset: str
    csv: bool
    names_shown: bool  # input paths in manifest and rejects
    crosswalk: bool


@dataclass
class Counts:
    """What was written."""

    num_pictures: int = 0
    num_unmatched: int = 0
    num_unlike: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)
    flags: Counter[Flag] = field(default_factory=Counter)


def write_tables(state: State, *, shelf: Shelf, tables: Tables, repeats: Repeats, wanted: Wanted) -> Counts:
    """Write manifest.parquet (and .csv), rejected.csv and crosswalk.csv.  Raises OSError, ManifestError."""
    places = shelf.places
    extra = {**EXTRA, **tables.extra}
    with ExitStack() as stack:
        manifests = [stack.enter_context(ManifestWriter(places.manifest, extra=extra))]
        if wanted.csv:
            manifests.append(stack.enter_context(ManifestWriter(places.manifest.with_suffix(".csv"), extra=extra)))
        rejects = stack.enter_context(_csv_file(places.rejected, columns=REJECT_COLUMNS, mode=0o666))
        crosswalk = None
        if wanted.crosswalk:
            crosswalk = stack.enter_context(_csv_file(places.crosswalk, columns=CROSSWALK_COLUMNS, mode=0o600))
        sorter = _Sorter(shelf, tables=tables, repeats=repeats, wanted=wanted)
        stream = state.everything()
        while page := list(islice(stream, ROWS_PER_PAGE)):
            rows, refused, known = sorter.sort(page)
            for manifest in manifests:
                manifest.add(rows)
            rejects.writerows(refused)
            if crosswalk is not None:
                crosswalk.writerows(known)
    return sorter.counts


class _Sorter:
    """Decides row by row where it belongs."""

    def __init__(self, shelf: Shelf, *, tables: Tables, repeats: Repeats, wanted: Wanted) -> None:
        self.identity, self.tables, self.repeats, self.wanted = shelf.identity, tables, repeats, wanted
        self.counts = Counts()
        self._number = 0  # of the next picture

    def sort(self, page: list[sqlite3.Row]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of the manifest, of the rejects, and of the crosswalk."""
        sources = [Source.from_text(line["source"]) for line in page]
        found = self.tables.find(
            [source.relative for source in sources],
            identity=self.identity,
            shown=as_text if self.wanted.names_shown else None,
        )
        rows, rejects, crosswalk = [], [], []
        for line, source, told in zip(page, sources, found, strict=True):
            shown = source.shown if self.wanted.names_shown else line["name"]
            if line["reason"] is not None:
                rejects.append(self._reject(line, shown=shown))
            elif line["image_id"] is None:
                raise AssertionError(f"the input with source id {line['name']} is neither converted nor rejected")
            else:
                repeat = self.repeats.of(self._number)
                self._number += 1
                if line["refused"] is not None and repeat is not None:
                    several = f"#{line['frame']}" if json.loads(line["row"])["frame"] else ""
                    rejects.append(self._repeat(repeat, shown=shown + several))
                else:
                    rows.append(self._row(line, told, shown=shown, repeat=repeat))
            crosswalk.append(self._known(line, source, told))
        return rows, rejects, crosswalk

    def _row(
        self, line: sqlite3.Row, told: Found | None, *, shown: str, repeat: tuple[Flag, str] | None
    ) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(line["row"]) | {
            "dataset": self.wanted.dataset or None,
            "source": shown,
            "sha256": line["sha256"].hex(),
            "perceptual_hash": line["perceptual"],
        }
        if repeat is not None:
            row |= {"flags": ",".join(filter(None, (row["flags"], str(repeat[0])))), "duplicate_of": repeat[1]}
        self.counts.num_pictures += 1
        self.counts.num_unmatched += bool(self.tables.tables) and told is None
        self.counts.flags.update(Flag(flag) for flag in row["flags"].split(",") if flag)
        return row | dict(told.values if told else {})

    def _reject(self, line: sqlite3.Row, *, shown: str) -> dict[str, str]:
        message = line["message"]
        if line["reason"] == Reason.DUPLICATE_UID:
            is_same = line["pixels"] == line["kept_pixels"]
            self.counts.num_unlike += not is_same
            message = f"(0008,0018) SOP Instance UID is that of the film kept as {line['film']}, " + (
                "with the same picture." if is_same else "but the picture is another one. Look at both."
            )
        self.counts.reasons[Reason(line["reason"])] += 1
        return {"file": shown, "reason": line["reason"], "message": message}

    def _repeat(self, repeat: tuple[Flag, str], *, shown: str) -> dict[str, str]:
        flag, earlier = repeat
        self.counts.reasons[Reason(flag)] += 1
        likeness = "equals" if flag == Flag.DUPLICATE_PIXELS else "is nearly"
        message = f"the picture {likeness} {earlier}, which comes earlier. Take {flag} out of filters.flags to keep it."
        return {"file": shown, "reason": str(flag), "message": message}

    def _known(self, line: sqlite3.Row, source: Source, told: Found | None) -> dict[str, str]:
        patient = (told.patient if told else "") or line["patient"] or ""
        study = (told.study if told else "") or line["study"] or ""
        return {
            "source": line["name"],
            "input": source.relative,
            "image_id": line["image_id"] or "",
            "patient": self.identity.name("patient", patient) if patient else "",
            "patient_id": patient,
            "study": self.identity.name("study", study) if study else "",
            "study_uid": study,
            "image_uid": line["image_uid"] or "",
        }


@contextmanager
def _csv_file(path: Path, *, columns: tuple[str, ...], mode: int) -> Iterator["csv.DictWriter[str]"]:
    """A CSV that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with _create(partial, mode=mode) as stream:
            table = csv.DictWriter(stream, fieldnames=columns, lineterminator="\n")
            table.writeheader()
            yield table
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _create(path: Path, *, mode: int) -> IO[str]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    # File names that are no text are written as the bytes that they are.
    return os.fdopen(descriptor, "w", newline="", encoding="utf-8", errors="surrogateescape")
