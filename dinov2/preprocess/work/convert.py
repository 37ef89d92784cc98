"""An archive of films -> a folder of pictures with their manifest.

In: a `Request`. Out: an outcome per file while it runs, then `images/`, `manifest.parquet` (and `.csv`),
`rejected.csv`, the crosswalk and a `Summary`. It never stops on one file; what is finished is not done again; the order
of the rows is that of the listing, whatever finished first and in whichever run.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from dinov2.config.preprocess import PreprocessConfig
from dinov2.errors import LaunchError
from dinov2.preprocess.intake.archives import spool
from dinov2.preprocess.intake.names import Skipped, Why
from dinov2.preprocess.intake.source import Source, as_text
from dinov2.preprocess.intake.sources import iter_sources
from dinov2.preprocess.reasons import Reason
from dinov2.preprocess.work.commit import commit
from dinov2.preprocess.work.joined import Tables, read_tables
from dinov2.preprocess.work.outcome import Outcome
from dinov2.preprocess.work.places import find_places, private_folder
from dinov2.preprocess.work.pool import Allowance, Lost, run_tasks
from dinov2.preprocess.work.repeats import Repeats, find_repeats, turn_away_repeats
from dinov2.preprocess.work.shelf import Shelf, open_shelf, writing
from dinov2.preprocess.work.state import Job, State
from dinov2.preprocess.work.summary import Summary
from dinov2.preprocess.work.tables import Wanted, write_tables
from dinov2.preprocess.work.task import Task, Workshop, convert_file

FILES_PER_PAGE = 4096
OUR_PICTURE = re.compile(r"[0-9a-f]{16}\.png")
Found = tuple[Job, Outcome | Lost]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one command asks for."""

    input: Path
    output: Path
    config: PreprocessConfig
    dataset: str = ""
    table: Path | None = None
    list_root: Path | None = None  # where the relative names of a list start
    key_file: Path | None = None
    private: Path | None = None
    share: tuple[int, int] | None = None  # number, from 1, of how many
    csv: bool = False
    verify_inputs: bool = False  # read every file again, whatever its time of change says
    num_workers: int = 1  # 0: in this process


class Conversion:
    """One conversion: `run` does the files that are not done, `finish` writes the tables."""

    def __init__(self, request: Request, *, shelf: Shelf, state: State, tables: Tables) -> None:
        """See `open_conversion`."""
        self.request, self.shelf, self.state, self.tables = request, shelf, state, tables
        self.skipped: Counter[Why] = Counter()
        self.num_files = self.num_done = 0
        self.remarks = [*shelf.remarks, *tables.remarks()]
        self._repeats: Repeats | None = None

    def list_inputs(self, found: Iterator[Source | Skipped]) -> None:
        """Take the listing in and find out what is done.

        Raises ManifestError (nothing there, a table that does not fit), LaunchError (the output is of another input).
        """
        self.num_files, num_repeated = self.state.list_anew(self._named(found))
        if num_repeated:
            self.remarks.append(f"{num_repeated} files were listed twice and are looked at once")
        if self.state.knows_any() is False and self.num_files:
            raise LaunchError(
                f"{self.shelf.places.root}: was made from other files than those in {self.request.input}. Give each "
                "input its own --output; `dinov2 manifest merge` joins them."
            )
        limits = json.dumps(asdict(self.request.config.limits))
        self.state.find_unfinished(
            verify=self.request.verify_inputs, limits_changed=self.state.fact("limits") != limits
        )
        for _, wanted, present in self._folders():
            self.state.convert_again(self.state.names_of_images(sorted(wanted - present)))
        self.state.find_wrong_duplicates()
        self.num_done = self.num_finished()
        self.state.commit(now=True)

    def run(self) -> Generator[Outcome, None, None]:
        """An outcome per unfinished file, noted before it is yielded.

        Raises Dinov2Error where the output takes nothing more. Leaving early (Ctrl-C too) keeps all that was yielded.
        """
        config = self.request.config
        with writing(self.shelf.places.root):
            try:
                while True:
                    with closing(self._pass()) as outcomes:
                        for outcome in outcomes:
                            self.num_done = min(self.num_done + 1, self.num_files)
                            yield outcome
                    if self.state.find_wrong_duplicates():
                        continue  # a film gave way to one that turned out to be another, or worse
                    self._repeats = find_repeats(self.state, near_duplicate_bits=config.quality.near_duplicate_bits)
                    if not turn_away_repeats(self.state, self._repeats, shelf=self.shelf, config=config):
                        break
            finally:
                self.state.commit(now=True)

    def finish(self) -> Summary:
        """Write the tables for every input, after `run` came to its end.  Raises Dinov2Error where they cannot be
        written.
        """
        if self._repeats is None:
            raise AssertionError("finish comes after the end of run")
        places, privacy = self.shelf.places, self.request.config.privacy
        wanted = Wanted(
            dataset=self.request.dataset,
            csv=self.request.csv,
            names_shown=privacy.source_names == "path",
            crosswalk=privacy.crosswalk,
        )
        with writing(places.root):
            self._sweep()
            counts = write_tables(
                self.state, shelf=self.shelf, tables=self.tables, repeats=self._repeats, wanted=wanted
            )
            self.state.remember("limits", json.dumps(asdict(self.request.config.limits)))
            self.state.commit(now=True)
        return Summary(
            num_files=self.num_files,
            num_pictures=counts.num_pictures,
            reasons=counts.reasons,
            flags=counts.flags,
            skipped=self.skipped,
            num_gone=self.state.num_gone(),
            num_unmatched=counts.num_unmatched,
            num_unlike=counts.num_unlike,
            manifest=places.manifest,
            rejected=places.rejected,
            crosswalk=places.crosswalk if privacy.crosswalk else None,
            key=places.key,
        )

    def num_finished(self) -> int:
        """Inputs that need not be looked at again."""
        return self.num_files - self.state.num_todo()

    def _named(self, found: Iterator[Source | Skipped]) -> Iterator[tuple[str, Source]]:
        """The sources with their names, counted and compared with the tables page by page."""
        matched = [False] * len(self.tables.tables)
        page: list[str] = []
        identity = self.shelf.identity
        for one in found:
            if isinstance(one, Skipped):
                self.skipped[one.why] += 1
                continue
            yield identity.name("path", one.relative), one
            if self.tables.tables:
                page.append(one.relative)
                if len(page) == FILES_PER_PAGE:
                    matched = self._match(page, matched)
                    page.clear()
        matched = self._match(page, matched)
        if self.request.share is None:  # a share may well hold no file of a table
            self.tables.refuse_strangers(matched)

    def _match(self, page: list[str], matched: list[bool]) -> list[bool]:
        shown = as_text if self.request.config.privacy.source_names == "path" else None
        return [a or b for a, b in zip(matched, self.tables.match(page, shown=shown), strict=True)]

    def _pass(self) -> Generator[Outcome, None, None]:
        """Every file that is marked, once."""
        config, limits = self.request.config, self.request.config.limits
        workshop = Workshop(config, self.shelf.identity, self.shelf.partial)
        jobs: dict[str, Job] = {}  # those in flight

        def sources() -> Iterator[Source]:
            for job in self.state.jobs():
                jobs[job.name] = job
                yield job.source

        def tasks() -> Iterator[Task]:
            spooled = spool(sources(), folder=self.shelf.places.spool, max_bytes=limits.max_file_bytes)
            for source in spooled:
                name = self.shelf.identity.name("path", source.relative)
                yield Task(name, source, workshop, jobs[name].known)

        allowance = Allowance(seconds=limits.seconds_per_file, memory_mb=limits.memory_mb)
        answers = run_tasks(convert_file, tasks(), num_workers=self.request.num_workers, allowance=allowance)
        with closing(answers):
            for task, answer in answers:
                job = jobs.pop(task.name)
                outcome = self._lost(answer) if isinstance(answer, Lost) else answer
                yield commit(job, outcome, state=self.state, shelf=self.shelf)

    def _lost(self, how: Lost) -> Outcome:
        if how is Lost.TIMED_OUT:
            limit = f"{self.request.config.limits.seconds_per_file:g}"
            return Outcome(
                reason=Reason.TIME_LIMIT,
                message=f"took longer than {limit} s (limits.seconds_per_file). Run again to retry it, or exclude it.",
            )
        return Outcome(
            reason=Reason.WORKER_DIED,
            message="the converting process died at this file (out of memory, or a fault in a decoder). Run again to "
            "retry it.",
        )

    def _folders(self) -> Iterator[tuple[Path, set[str], set[str]]]:
        """Each folder of pictures, the ids that should be there, and those that are."""
        for number in range(256):
            folder = self.shelf.places.images / f"{number:02x}"
            try:
                with os.scandir(folder) as entries:
                    present = {entry.name[:-4] for entry in entries if OUR_PICTURE.fullmatch(entry.name)}
            except FileNotFoundError:
                present = set()
            yield folder, self.state.pictures_in(folder.name), present

    def _sweep(self) -> None:
        """Remove pictures that no input accounts for: a kill fell between their move and its note, and their file has
        gone or changed since.
        """
        for folder, wanted, present in self._folders():
            for image_id in present - wanted:
                (folder / f"{image_id}.png").unlink()
            if wanted - present:
                raise LaunchError(
                    f"{folder}: {len(wanted - present)} pictures have vanished while this ran. Run the same command "
                    "again: it makes them anew."
                )


@contextmanager
def open_conversion(request: Request) -> Iterator[Conversion]:
    """Check the whole request before the first file is converted, and hold the output until the block is left.

    Raises ManifestError (nothing to convert, a table that fits no file), LaunchError (the output belongs to something
    else), Dinov2Error (it cannot be written, no key).
    """
    tables = read_tables(request.input, table=request.table, keep_columns=request.config.privacy.keep_columns)
    home = private_folder(request.output, private=request.private)
    found = iter_sources(
        request.input, leave_out=[request.output, home], list_root=request.list_root, share=request.share
    )
    places = find_places(request.output, private=request.private, key_file=request.key_file, share=request.share)
    with open_shelf(places, config=request.config, create_key=request.key_file is None) as shelf:
        with writing(places.root):
            state = State(places.state)
        with closing(state):
            conversion = Conversion(request, shelf=shelf, state=state, tables=tables)
            with writing(places.root):
                conversion.list_inputs(found)
            yield conversion
