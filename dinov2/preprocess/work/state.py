"""What is known of every input and what became of it: a database in the private folder.

In: sources in the order of the listing, outcomes in any order. Out: what is to be done, and rows for the tables. Memory
does not grow with the archive: everything is asked for page by page, or streamed.

SQLite's own locks are left out (they fail on many network file systems); the lock of the output folder keeps other
writers away. Changes become durable together, at most a second later: a kill costs that second's work, which is done
again.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dinov2.errors import Dinov2Error
from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.reasons import Reason
from dinov2.preprocess.work.outcome import Outcome

SECONDS_PER_COMMIT = 1.0
ROWS_PER_PAGE = 512
FORGIVEN = (Reason.UNREADABLE, Reason.WORKER_DIED, Reason.TIME_LIMIT)  # may be the machine's fault, not the file's
NOTHING, VERIFY, CONVERT = 0, 1, 2  # of the column `todo`
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS results (
    name TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, content BLOB, film TEXT, suspect INTEGER, pixels BLOB,
    reason TEXT, message TEXT, patient TEXT, study TEXT, image_uid TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (
    name TEXT, frame INTEGER, image_id TEXT, sha256 BLOB, perceptual TEXT, refused TEXT, row TEXT,
    PRIMARY KEY (name, frame)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS results_by_film ON results (film);
CREATE INDEX IF NOT EXISTS results_by_reason ON results (reason);
CREATE INDEX IF NOT EXISTS pictures_by_image ON pictures (image_id);
"""
LISTING = """
DROP TABLE IF EXISTS listing;
CREATE TABLE listing (
    place INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER, mtime_ns INTEGER, todo INTEGER, source TEXT
);
"""


@dataclass(frozen=True)
class Job:
    """An input that is to be looked at."""

    place: int  # in the listing
    name: str
    source: Source
    known: bytes | None  # SHA-256 of the content that was converted; None: convert in any case


@dataclass(frozen=True)
class Kept:
    """The input whose picture stands for a film."""

    name: str
    place: int | None  # None: the input is gone
    suspect: bool


class State:
    """The open database of one conversion."""

    def __init__(self, path: Path) -> None:
        """Open or make it.  Raises Dinov2Error where it is damaged, OSError where it cannot be written."""
        if not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        self.path = path
        self._next_commit = time.monotonic() + SECONDS_PER_COMMIT
        with self._answers():
            self._base = sqlite3.connect(f"file:{quote(str(path.absolute()))}?nolock=1", uri=True, isolation_level=None)
            self._base.execute("PRAGMA journal_mode = TRUNCATE")
            self._base.execute("PRAGMA cache_size = -65536")  # 64 MB
            self._base.execute("PRAGMA temp_store = MEMORY")
            self._base.executescript(SCHEMA)
            self._base.execute("BEGIN")

    def close(self) -> None:
        """Keep everything, and close; a full disk was reported where it was met first."""
        with suppress(OSError):
            self._commit()
        self._base.close()

    def commit(self, *, now: bool = False) -> None:
        """Make what was recorded durable, if a second has passed or `now`."""
        if now or time.monotonic() >= self._next_commit:
            self._commit()
            self._run("BEGIN")
            self._next_commit = time.monotonic() + SECONDS_PER_COMMIT

    def _commit(self) -> None:
        if self._base.in_transaction:  # SQLite ends one itself where the disk is full
            self._run("COMMIT")

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """All that is changed inside, or nothing, also where Ctrl-C falls into it."""
        self._run("SAVEPOINT step")
        try:
            yield
        except BaseException:
            if self._base.in_transaction:  # SQLite took everything back itself where the disk is full
                self._run("ROLLBACK TO step")
                self._run("RELEASE step")
            raise
        self._run("RELEASE step")

    # --- the listing -------------------------------------------------------------------------------------------

    def list_anew(self, sources: Iterable[tuple[str, Source]]) -> tuple[int, int]:
        """Replace the listing by these (name, source) in their order.  -> number of files, and of repeated ones."""
        self._commit()
        with self._answers():
            self._base.executescript(LISTING)
        self._run("BEGIN")
        num_given = 0
        with self._answers():
            for place, (name, source) in enumerate(sources):
                num_given += 1
                self._base.execute(
                    "INSERT OR IGNORE INTO listing VALUES (?, ?, ?, ?, ?, ?)",
                    (place, name, source.size, source.mtime_ns, NOTHING, source.to_text()),
                )
        num_files = int(self.value("SELECT count(*) FROM listing"))
        return num_files, num_given - num_files

    def knows_any(self) -> bool | None:
        """Whether an input of the listing was seen in an earlier run; None where there was no earlier run."""
        if not self.value("SELECT EXISTS (SELECT 1 FROM results)"):
            return None
        return bool(self.value("SELECT EXISTS (SELECT 1 FROM listing JOIN results USING (name))"))

    def find_unfinished(self, *, verify: bool, limits_changed: bool) -> int:
        """Mark what is new, changed, or worth another try.  -> how many"""
        forgiven = (*FORGIVEN, Reason.TOO_LARGE) if limits_changed else FORGIVEN
        marks = ", ".join("?" * len(forgiven))
        self._run(
            f"""UPDATE listing SET todo = coalesce((
                SELECT CASE WHEN r.reason IN ({marks}) THEN {CONVERT}
                            WHEN ? OR r.size != listing.size OR r.mtime_ns != listing.mtime_ns
                            THEN CASE WHEN r.content IS NULL THEN {CONVERT} ELSE {VERIFY} END
                            ELSE {NOTHING} END
                FROM results r WHERE r.name = listing.name), {CONVERT})""",
            *map(str, forgiven),
            verify,
        )
        self._run("CREATE INDEX IF NOT EXISTS listing_todo ON listing (place) WHERE todo > 0")
        return self.num_todo()

    def find_wrong_duplicates(self) -> int:
        """Mark films that were turned away for another of the same UID which is gone or no better.  -> how many

        Better is a film of the right polarity before a suspect one, then the earlier one in the listing.
        """
        changed = self._run(
            f"""UPDATE listing SET todo = {CONVERT} WHERE todo = 0 AND name IN (
                SELECT d.name FROM results d JOIN listing l USING (name) WHERE d.reason = ? AND NOT EXISTS (
                    SELECT 1 FROM results k JOIN listing m ON m.name = k.name
                    WHERE k.film = d.film AND k.reason IS NULL AND (k.suspect, m.place) < (d.suspect, l.place)))""",
            str(Reason.DUPLICATE_UID),
        )
        return changed.rowcount

    def convert_again(self, names: Iterable[str]) -> None:
        """Mark inputs whatever became of them before."""
        with self._answers():
            self._base.executemany(f"UPDATE listing SET todo = {CONVERT} WHERE name = ?", ((name,) for name in names))

    def num_todo(self) -> int:
        """Inputs that are marked."""
        return int(self.value("SELECT count(*) FROM listing WHERE todo > 0"))

    def jobs(self) -> Iterator[Job]:
        """The marked inputs in the order of the listing; safe against outcomes that are recorded meanwhile."""
        last = -1
        while True:
            page = self._run(
                """SELECT place, name, source, CASE todo WHEN ? THEN content END FROM listing LEFT JOIN results
                   USING (name) WHERE todo > 0 AND place > ? ORDER BY place LIMIT ?""",
                VERIFY,
                last,
                ROWS_PER_PAGE,
            ).fetchall()
            if not page:
                return
            yield from (Job(place, name, Source.from_text(text), known) for place, name, text, known in page)
            last = page[-1][0]

    # --- what became of them -----------------------------------------------------------------------------------

    def record(self, job: Job, outcome: Outcome) -> None:
        """Note an outcome in the place of an earlier one of the same input."""
        with self.atomic():
            self._run("DELETE FROM pictures WHERE name = ?", job.name)
            self._run(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                job.name,
                job.source.size,
                job.source.mtime_ns,
                outcome.content,
                outcome.film,
                outcome.suspect,
                outcome.pixels,
                outcome.reason or None,
                outcome.message,
                outcome.patient or None,
                outcome.study or None,
                outcome.image_uid or None,
            )
            for picture in outcome.pictures:
                self._run(
                    "INSERT INTO pictures VALUES (?, ?, ?, ?, ?, NULL, ?)",
                    job.name,
                    picture.frame,
                    picture.image_id,
                    picture.sha256,
                    picture.perceptual,
                    picture.row,
                )
            self._run("UPDATE listing SET todo = 0 WHERE place = ?", job.place)

    def record_unchanged(self, job: Job) -> None:
        """Note that the content is the one that was converted, under a new time of change perhaps."""
        source = job.source
        with self.atomic():
            self._run(
                "UPDATE results SET size = ?, mtime_ns = ? WHERE name = ?", source.size, source.mtime_ns, job.name
            )
            self._run("UPDATE listing SET todo = 0 WHERE place = ?", job.place)

    def record_duplicate(self, name: str) -> None:
        """Note that a film that was kept gives way to another of the same UID."""
        with self.atomic():
            self._run("DELETE FROM pictures WHERE name = ?", name)
            self._run("UPDATE results SET reason = ?, message = '' WHERE name = ?", str(Reason.DUPLICATE_UID), name)

    def forget(self, name: str) -> None:
        """Remove an input that is gone, so that it is converted if it comes back."""
        with self.atomic():
            self._run("DELETE FROM pictures WHERE name = ?", name)
            self._run("DELETE FROM results WHERE name = ?", name)

    def kept(self, film: str, *, other_than: str) -> Kept | None:
        """The input whose picture stands for a film, if another one does."""
        row = self._run(
            """SELECT r.name, l.place, r.suspect FROM results r LEFT JOIN listing l USING (name)
               WHERE r.film = ? AND r.reason IS NULL AND r.name != ?""",
            film,
            other_than,
        ).fetchone()
        return Kept(row[0], row[1], bool(row[2])) if row else None

    def images_of(self, name: str) -> list[str]:
        """The ids of an input's pictures."""
        return [image_id for (image_id,) in self._run("SELECT image_id FROM pictures WHERE name = ?", name)]

    def refuse(self, reasons: Iterable[tuple[str | None, str, int]]) -> None:
        """Set or lift the reason for which pictures (reason, name, frame) are turned away."""
        with self._answers():
            self._base.executemany("UPDATE pictures SET refused = ? WHERE name = ? AND frame = ?", reasons)

    # --- streams for the tables --------------------------------------------------------------------------------

    def pictures_in(self, folder: str) -> set[str]:
        """Ids of pictures that begin with two hexadecimal digits and should be on disk."""
        rows = self._run(
            "SELECT image_id FROM pictures WHERE image_id >= ? AND image_id < ? AND refused IS NULL",
            folder,
            f"{folder}g",
        )
        return {image_id for (image_id,) in rows}

    def names_of_images(self, image_ids: Iterable[str]) -> Iterator[str]:
        """The inputs of pictures."""
        for image_id in image_ids:
            yield from (name for (name,) in self._run("SELECT name FROM pictures WHERE image_id = ?", image_id))

    def fingerprints(self) -> Iterator[tuple[str, int, str, bytes, str, str | None]]:
        """name, frame, image id, SHA-256, perceptual hash, refusal of every picture of the listing, in its order."""
        yield from self._run(
            """SELECT name, p.frame, p.image_id, p.sha256, p.perceptual, p.refused FROM listing
               JOIN results r USING (name) JOIN pictures p USING (name) WHERE r.reason IS NULL
               ORDER BY listing.place, p.frame"""
        )

    def everything(self) -> Iterator[sqlite3.Row]:
        """A row per picture, and per input without one, in the order of the listing."""
        cursor = self._run(
            """SELECT l.name, l.source, r.film, r.reason, r.message, r.patient, r.study,
                      r.image_uid, p.frame, p.image_id, p.refused, p.row, p.sha256, p.perceptual, r.pixels,
                      CASE WHEN r.reason = 'duplicate_uid' THEN
                          (SELECT k.pixels FROM results k WHERE k.film = r.film AND k.reason IS NULL) END AS kept_pixels
               FROM listing l LEFT JOIN results r USING (name) LEFT JOIN pictures p USING (name)
               ORDER BY l.place, p.frame"""
        )
        cursor.row_factory = sqlite3.Row
        yield from cursor

    def num_gone(self) -> int:
        """Pictures of earlier runs whose input is not in the listing."""
        return int(
            self.value("SELECT count(*) FROM pictures WHERE refused IS NULL AND name NOT IN (SELECT name FROM listing)")
        )

    def fact(self, name: str) -> str | None:
        """What was remembered under a name."""
        row = self._run("SELECT value FROM facts WHERE name = ?", name).fetchone()
        return str(row[0]) if row else None

    def remember(self, name: str, value: str) -> None:
        """Keep a text."""
        self._run("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, value)

    def value(self, question: str, *values: Any) -> Any:
        """The first value of the first row."""
        return self._run(question, *values).fetchone()[0]

    def _run(self, question: str, *values: Any) -> sqlite3.Cursor:
        with self._answers():
            return self._base.execute(question, values)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # a full disk, mostly
            raise OSError(None, f"the database of inputs: {error}", str(self.path)) from error
        except sqlite3.DatabaseError as error:
            raise Dinov2Error(
                f"{self.path}: is damaged or no database of ours ({error}). Remove it: the same command then looks at "
                "every input again."
            ) from error
