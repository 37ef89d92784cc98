"""A folder of films -> a folder of pictures with their manifest.

In: a `Request`. Out: an outcome per file while it runs, then `images/`, `manifest.parquet` (and `.csv`), `rejected.csv`
and a `Summary`. It never stops on one file; what is finished is not done again; the order of the rows is that of the
input paths, whatever finished first.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dinov2.config.preprocess import PreprocessConfig
from dinov2.errors import DataError, LaunchError, ManifestError
from dinov2.manifest import from_rows
from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.intake.sources import Listing, list_sources
from dinov2.preprocess.intake.table import TAKEN, FilmTable, read_table
from dinov2.preprocess.reasons import Flag, Reason
from dinov2.preprocess.work.journal import Journal
from dinov2.preprocess.work.pool import run_ordered
from dinov2.preprocess.work.shelf import Shelf, open_shelf, write_rejects, writing
from dinov2.preprocess.work.task import Outcome, Task, convert_file, image_path, partial_path

TRIED_AGAIN = frozenset({Reason.UNREADABLE, Reason.WORKER_DIED})  # may be the machine's fault, not the file's


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one command asks for."""

    input: Path
    output: Path
    config: PreprocessConfig
    dataset: str = ""
    table: Path | None = None
    key_file: Path | None = None
    csv: bool = False
    num_workers: int = 1  # 0: in this process


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of a finished conversion, earlier runs into the same folder included."""

    num_pictures: int
    reasons: Mapping[Reason, int]
    flags: Mapping[Flag, int]
    num_skipped: int  # left out by suffix, never looked at
    num_absent: int  # pictures of earlier runs whose input file is gone
    num_unmatched: int  # pictures without a row in the table
    manifest: Path
    rejected: Path

    @property
    def num_faults(self) -> int:
        """Rejects that no filter and no duplicate accounts for."""
        return sum(count for reason, count in self.reasons.items() if reason.kind == "fault")

    def check(self, *, max_rejected_share: float) -> None:
        """Raise DataError where no picture was made, or the share of faults is above the one allowed."""
        if not self.num_pictures:
            raise DataError(f"no file became a picture. {self.rejected} has the reason of each.")
        share = self.num_faults / (self.num_faults + self.num_pictures)
        if share > max_rejected_share:
            raise DataError(
                f"{self.num_faults} files ({share:.1%} of those that no filter excluded) could not be used; allowed is "
                f"{max_rejected_share:.1%}. Everything is written; {self.rejected} has the reason of each. "
                "Mend the files, or raise max_rejected_share."
            )

    def remarks(self) -> tuple[str, ...]:
        """What the counts by reason do not say."""
        lines = (
            (self.num_skipped, "files were left out by their suffix or name, unread"),
            (self.num_absent, "pictures of earlier runs are in images/ but not in the manifest: their input is gone"),
            (self.num_unmatched, "pictures have no row in the table"),
        )
        return tuple(f"{count} {text}" for count, text in lines if count)


class Conversion:
    """One conversion: `run` does the files that are not done, `finish` writes the tables."""

    def __init__(self, request: Request, *, shelf: Shelf, listing: Listing, table: FilmTable | None) -> None:
        """Find out what is done; see `open_conversion`."""
        self.request, self.shelf, self.listing, self.table = request, shelf, listing, table
        self.journal = Journal(shelf.state / "journal.jsonl")
        self.names = {source.relative: shelf.identity.name("path", source.relative) for source in listing.sources}
        known = set(self.names.values())
        self.num_absent = sum(
            entry.outcome.row is not None for name, entry in self.journal.entries.items() if name not in known
        )
        if self.journal.entries and known.isdisjoint(self.journal.entries):
            raise LaunchError(
                f"{shelf.root}: was made from other files than those in {request.input}. Give each input its own "
                "--output; `dinov2 manifest merge` joins them."
            )
        self.kept: dict[str, Source] = {}  # image id -> the input whose picture it is
        self.todo = self._unfinished()
        self.num_files = len(listing.sources)
        self.num_done = self.num_files - len(self.todo)

    def run(self) -> Generator[Outcome, None, None]:
        """An outcome per unfinished file, committed before it is yielded.

        Raises Dinov2Error where the output takes nothing more. Leaving early (Ctrl-C too) keeps all that was yielded.
        """
        by_relative = {source.relative: source for source in self.todo}
        tasks = (
            Task(
                source.path,
                source.relative,
                partial=self.shelf.partial,
                config=self.request.config,
                identity=self.shelf.identity,
            )
            for source in self.todo
        )
        with writing(self.shelf.root):
            for task, answer in run_ordered(convert_file, tasks, num_workers=self.request.num_workers):
                lost = Outcome(
                    self.names[task.relative],
                    reason=Reason.WORKER_DIED,
                    message="the converting process died at this file (out of memory, or a fault in a decoder). Run "
                    "again to retry it.",
                )
                outcome = self._commit(by_relative[task.relative], answer or lost)
                self.num_done += 1
                yield outcome

    def finish(self) -> Summary:
        """Write manifest and rejects for every input file, in the order of the paths.  Raises Dinov2Error where they
        cannot be written.
        """
        rows, rejects, num_unmatched = self._tables()
        root = self.shelf.root
        manifest = from_rows(rows, root=root)
        with writing(root):
            write_rejects(root / "rejected.csv", rejects)
            for name in ("manifest.parquet", *(["manifest.csv"] if self.request.csv else [])):
                try:
                    manifest.write(root / name)
                except OSError:
                    (root / f".{name}.partial").unlink(missing_ok=True)
                    raise
        return Summary(
            num_pictures=len(rows),
            reasons=Counter(Reason(reject["reason"]) for reject in rejects),
            flags=Counter(Flag(flag) for row in rows for flag in row["flags"].split(",") if flag),
            num_skipped=self.listing.num_skipped,
            num_absent=self.num_absent,
            num_unmatched=num_unmatched,
            manifest=root / "manifest.parquet",
            rejected=root / "rejected.csv",
        )

    def _unfinished(self) -> tuple[Source, ...]:
        """Inputs that are new, changed, whose picture is gone, or whose better duplicate is."""
        duplicates, todo = [], []
        for source in self.listing.sources:
            entry = self.journal.entries.get(self.names[source.relative])
            outcome = entry.outcome if entry and entry.is_of(source) else None
            if outcome is None or outcome.reason in TRIED_AGAIN:
                todo.append(source)
            elif outcome.reason == Reason.DUPLICATE_UID:
                duplicates.append((source, outcome))
            elif outcome.row is not None and (outcome.image_id in self.kept or not self._picture(outcome).is_file()):
                todo.append(source)
            elif outcome.row is not None:
                self.kept[outcome.image_id] = source
        todo += [source for source, outcome in duplicates if outcome.image_id not in self.kept]
        return tuple(sorted(todo, key=lambda source: source.relative))

    def _commit(self, source: Source, outcome: Outcome) -> Outcome:
        """Move the picture to its place and note the outcome; of two films with one UID the better one stays."""
        self._remove_former_picture(source, outcome=outcome)
        if outcome.row is not None:
            keeper = self.kept.get(outcome.image_id)
            partial = partial_path(self.shelf.partial, name=outcome.name)
            if keeper is not None and keeper != source and self._rank(keeper) < self._rank(source, outcome=outcome):
                partial.unlink()
                outcome = _duplicate(outcome)
            else:
                picture = self._picture(outcome)
                picture.parent.mkdir(parents=True, exist_ok=True)
                partial.replace(picture)
                self.kept[outcome.image_id] = source
                if keeper is not None and keeper != source:
                    self.journal.add(keeper, _duplicate(self.journal.entries[self.names[keeper.relative]].outcome))
        self.journal.add(source, outcome)
        return outcome

    def _rank(self, source: Source, *, outcome: Outcome | None = None) -> tuple[bool, str]:
        """Lower is better: a film of the right polarity before a suspect one, then the order of the paths."""
        outcome = outcome or self.journal.entries[self.names[source.relative]].outcome
        flags = (outcome.row or {}).get("flags", "")
        return Flag.POLARITY_SUSPECT in flags.split(","), source.relative

    def _remove_former_picture(self, source: Source, *, outcome: Outcome) -> None:
        """A changed file may have another identity now; what it left under the old one goes, unless another file owns
        it.
        """
        entry = self.journal.entries.get(outcome.name)
        if entry is None or entry.outcome.row is None or entry.outcome.image_id == outcome.image_id:
            return
        if self.kept.get(entry.outcome.image_id) in (None, source):
            self._picture(entry.outcome).unlink(missing_ok=True)

    def _picture(self, outcome: Outcome) -> Path:
        return self.shelf.root / "images" / image_path(outcome.image_id)

    def _tables(self) -> tuple[list[dict[str, Any]], list[dict[str, str]], int]:
        rows: list[dict[str, Any]] = []
        rejects: list[dict[str, str]] = []
        seen: set[str] = set()
        num_unmatched = 0
        for source in self.listing.sources:
            name = self.names[source.relative]
            outcome = self.journal.entries[name].outcome
            shown = name if self.request.config.privacy.source_names == "hmac" else source.shown
            if outcome.row is None:
                rejects.append({"file": shown, "reason": outcome.reason, "message": outcome.message})
                continue
            values = self.table.find(source.relative) if self.table else None
            num_unmatched += self.table is not None and values is None
            row = dict(outcome.row) | {"dataset": self.request.dataset or None, "source": shown}
            if row["sha256"] in seen:
                row["flags"] = ",".join(filter(None, (row["flags"], Flag.DUPLICATE_PIXELS)))
            seen.add(row["sha256"])
            rows.append(self._joined(row, values=values))
        return rows, rejects, num_unmatched

    def _joined(self, row: dict[str, Any], *, values: Mapping[str, Any] | None) -> dict[str, Any]:
        """The row with what the table knows; patients and studies of the table get names like those of the headers."""
        if self.table is None:
            return row
        found = values or {}
        taken = {key: str(found[key]).strip() for key in TAKEN if found.get(key) not in (None, "")}
        taken |= {key: self.shelf.identity.name(key, taken[key]) for key in ("patient", "study") if key in taken}
        return row | taken | {key: found.get(key) for key in self.table.columns if key not in TAKEN}


@contextmanager
def open_conversion(request: Request) -> Iterator[Conversion]:
    """Check the whole request before the first file is touched, and hold the output folder until the block is left.

    Raises ManifestError (nothing to convert, a table that fits no file), LaunchError (the output belongs to something
    else), Dinov2Error (it cannot be written, no key).
    """
    listing = list_sources(request.input, output=request.output)
    table = read_table(request.table) if request.table else None
    if table is not None and not any(table.find(source.relative) is not None for source in listing.sources):
        raise ManifestError(
            f"{table.path}: none of its {table.num_rows} rows names a file of {request.input} (the first there is "
            f"{listing.sources[0].relative}). Write the paths relative to --input."
        )
    with open_shelf(request.output, config=request.config, key_file=request.key_file) as shelf:
        conversion = Conversion(request, shelf=shelf, listing=listing, table=table)
        try:
            yield conversion
        finally:
            conversion.journal.close()


def _duplicate(outcome: Outcome) -> Outcome:
    return replace(
        outcome,
        row=None,
        reason=Reason.DUPLICATE_UID,
        message=f"(0008,0018) SOP Instance UID is that of the film kept as {outcome.image_id}. Remove one of them "
        "if they differ.",
    )
