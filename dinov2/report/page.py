"""Records -> one HTML page that needs nothing else: its pictures, style and small script are inside, light and dark.

In: folders of runs. Out: a file, replaced in one moment, so that a page that is open can be loaded again at any time.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from dinov2 import __version__
from dinov2.errors import ConfigError
from dinov2.pages import environment, source_hash, write_page
from dinov2.report.about import (
    Bar,
    Card,
    Skipped,
    bad_files_of,
    cards_of,
    facts_of,
    groups_of,
    recent,
    skipped_of,
    words_of,
)
from dinov2.report.catalogue import Chapter, chapters_of, numbers_of
from dinov2.report.charts import NUM_COLOURS, Chart, chart_of, constants_of
from dinov2.report.findings import Finding, findings_of
from dinov2.report.folder import Record, read_records
from dinov2.report.pictures import Gallery, gallery_of
from dinov2.report.scale import figure
from dinov2.report.series import Series
from dinov2.report.settings import Against, Setting, against_preset, differing

FOLDER = Path(__file__).parent
FILMS_OF_ONE, FILMS_OF_SEVERAL = 12, 4
REFRESH = re.compile(r'<meta http-equiv="refresh"[^>]*>\n?')
BREAKS = re.compile(r"[._/,](?=\w)")
MOST_RUNS = 24  # eight colours, each whole, dashed and dotted
SIDE_BY_SIDE = (
    "knn/val/macro_auroc",
    "ibot_cross_entropy",
    "dino_global_cross_entropy",
    "monitor/rankme",
    "total_loss",
)
MOST_SIDE_BY_SIDE = 4
FOLDABLE = ("gradients", "schedules")  # where a number that never changes is told in words

OnProgress = Callable[[int, int, str], None]  # done, total, what


@dataclass(frozen=True)
class Written:
    """What the page holds."""

    path: Path
    num_runs: int
    num_looks: int
    num_warnings: int
    num_bytes: int
    is_over: bool  # no run is running or waiting, so the page stays as it is


@dataclass(frozen=True)
class RunView:
    """A run as the template shows it."""

    number: int
    colour: int
    dash: int
    record: Record
    words: tuple[str, ...]
    cards: list[Card]
    findings: tuple[Finding, ...]
    against: Against | None
    groups: list[tuple[str, tuple[Bar, ...], int]]
    facts: list[tuple[str, str]]
    bad_files: list[tuple[str, str]]
    skipped: list[Skipped]
    gallery: Gallery | None
    first_look: int | None  # a step to come
    newest: dict[str, str]


@dataclass(frozen=True)
class ChapterView:
    """A chapter with its charts."""

    chapter: Chapter
    charts: tuple[Chart, ...]
    constants: tuple[str, ...]


def write_report(
    runs: Sequence[Path],
    *,
    output: Path,
    films: int | None = None,
    refresh_seconds: float | None = None,
    on_progress: OnProgress | None = None,
) -> Written:
    """Reads the runs, or all runs of the folders, and writes the page.

    `films`: at most so many of each run's fixed films are shown (None: 12 of one run, 4 of each of several; 0: none).
    `refresh_seconds`: while a run goes on, the open page loads itself again so often.
    Raises LaunchError where there is no run; ConfigError where there are too many, or the page cannot be written.
    """
    tell = on_progress or _silent
    tell(0, 1, "reading")
    records = read_records(runs)
    if len(records) > MOST_RUNS:
        raise ConfigError(
            f"{len(records)} runs: a page compares at most {MOST_RUNS}. Name fewer folders; `dinov2 runs` lists them."
        )
    most_films = films if films is not None else FILMS_OF_ONE if len(records) == 1 else FILMS_OF_SEVERAL
    numbers = [numbers_of(record) for record in records]
    views = []
    for number, record in enumerate(records):
        tell(number, len(records) + 1, record.name)
        views.append(_view(number, record, numbers=numbers[number], most_films=most_films))
    tell(len(records), len(records) + 1, "drawing")
    is_over = not any(record.state in ("running", "waiting") for record in records)
    text = _text(views, numbers=numbers, refresh_seconds=None if is_over else refresh_seconds)
    tell(len(records) + 1, len(records) + 1, "written")
    return Written(
        path=output,
        num_runs=len(records),
        num_looks=max((len(record.looks) for record in records), default=0),
        num_warnings=sum(one.grade in ("bad", "warn") for view in views for one in view.findings),
        num_bytes=write_page(output, text),
        is_over=is_over,
    )


def _silent(*_: object) -> None:
    """Progress that nobody watches."""


def _view(number: int, record: Record, *, numbers: dict[str, Series], most_films: int) -> RunView:
    newest = {name: figure(one.last) for name, one in numbers.items()}
    if (speed := recent(numbers, "pictures_per_second")) is not None:
        newest["pictures_per_second"] = figure(speed)
    return RunView(
        number=number,
        colour=number % NUM_COLOURS,
        dash=number // NUM_COLOURS,
        record=record,
        words=words_of(record),
        cards=cards_of(record, numbers=numbers),
        findings=findings_of(record, numbers=numbers),
        against=against_preset(record),
        groups=groups_of(record),
        facts=facts_of(record),
        bad_files=bad_files_of(record),
        skipped=skipped_of(numbers),
        gallery=gallery_of(record, most_films=most_films),
        first_look=_first_look(record),
        newest=newest,
    )


def _first_look(record: Record) -> int | None:
    """The step of the first look at the films, where it is still to come."""
    every, films = (record.setting(f"monitors.{key}", 0) for key in ("every_steps", "films"))
    is_to_come = record.state in ("running", "waiting") and not record.looks and films and every
    return int(every) if is_to_come and record.step < every <= (record.total_steps or every) else None


def _text(views: Sequence[RunView], *, numbers: Sequence[dict[str, Series]], refresh_seconds: float | None) -> str:
    records = [view.record for view in views]
    last_step = max((int(one.steps[-1]) for run in numbers for one in run.values() if len(one)), default=0)
    chapters = [_chapter(chapter, records, numbers=numbers, last_step=last_step) for chapter in chapters_of(numbers)]
    charts = {chart.key: chart for chapter in chapters for chart in chapter.charts}
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    values: dict[str, Any] = {
        "title": records[0].name if len(records) == 1 else f"{len(records)} runs",
        "views": views,
        "chapters": [one for one in chapters if one.charts or one.constants],
        "ids": {key: number for number, key in enumerate(charts)},
        "places": places_of,
        "has_best": any(record.best is not None for record in records),
        "side_by_side": [charts[key] for key in SIDE_BY_SIDE if key in charts][:MOST_SIDE_BY_SIDE],
        "differing": _limited(differing(records)) if len(records) > 1 else (),
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
        "version": __version__,
        "refresh": None if refresh_seconds is None else math.ceil(refresh_seconds),
        "script": Markup(script),
        "script_hash": source_hash(script),
        "style": Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
    }
    return environment(FOLDER, breakable=breakable).get_template("page.html").render(**values)


def breakable(text: str) -> Markup:
    """A key, a path or a list, that may go on in the next line after a dot, slash, underscore or comma."""
    return Markup(BREAKS.sub(r"\g<0><wbr>", str(escape(text))))


def places_of(gallery: Gallery) -> list[str]:
    """`background-position` of every look; the same in all sprites of a run."""
    sprite = gallery.films[0].sprites["colours"]
    return [sprite.place(tile) for tile in range(len(gallery.steps))]


def _limited(rows: tuple[Setting, ...]) -> tuple[Setting, ...]:
    return rows[:100]


def _chapter(
    chapter: Chapter, records: Sequence[Record], *, numbers: Sequence[dict[str, Series]], last_step: int
) -> ChapterView:
    constants = constants_of(chapter.plans, numbers=numbers) if chapter.anchor in FOLDABLE else {}
    charts = tuple(
        chart_of(plan, records, numbers=numbers, last_step=last_step)
        for plan in chapter.plans
        if plan.key not in constants
    )
    return ChapterView(chapter, charts, tuple(constants.values()))


def settle(output: Path) -> None:
    """A page that is not written again: it stays as it is, and no longer loads itself."""
    if output.is_file():
        write_page(output, REFRESH.sub("", output.read_text(encoding="utf-8"), count=1))
