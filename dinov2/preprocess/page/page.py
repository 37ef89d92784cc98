"""A conversion's folder -> one HTML file that needs nothing else: no script, no other host.

In: a `Request`. Out: the file, whole or not at all, and its size. Memory does not grow with the pictures that are not
shown; of the manifest the columns in `counts.NEEDED` are read.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dinov2.errors import Dinov2Error
from dinov2.manifest import Manifest
from dinov2.pages import environment
from dinov2.pages import write_page as write_text
from dinov2.preprocess.page.charts import Band, BarChart, Histogram, bar_chart, histogram, intensity_band, level_shares
from dinov2.preprocess.page.counts import (
    count_rejects,
    count_values,
    films_per_patient,
    numbers,
    read_pictures,
    rows_by_flag,
)
from dinov2.preprocess.page.sheets import Drawer, Plan, Sheet, plan_rejects, plan_sheets
from dinov2.preprocess.page.thumbnails import read_levels
from dinov2.preprocess.reasons import FLAG_MEANINGS, REASON_MEANINGS, Flag, Reason
from dinov2.preprocess.work.places import private_folder

MOST_BARS = 10
MEASURED_PICTURES = 400  # whose grey levels are looked at
CHAPTERS: Mapping[str, tuple[str, str]] = {
    "sample": ("A random sample", "Pictures as a network will see them, drawn evenly from all of them."),
    "reason": (
        "Rejected films, by reason",
        "Decoded for this page with every filter off; chosen by their ids, which is as good as by lot.",
    ),
    "flag": ("Pictures, by flag", "A flag is a remark, not a verdict: look whether it is right."),
    "pairs": ("Pictures that repeat another one", "The later picture first, the one it repeats beside it."),
    "view": ("Pictures, by view", "As the header or the table says; look for films in the wrong sheet."),
    "manufacturer": ("Pictures, by maker", "Look for makers whose films look unlike the others'."),
}

OnProgress = Callable[[int, int], None]  # films looked at, films to look at


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be drawn."""

    pictures: Path  # a conversion's folder, or a manifest
    output: Path
    private: Path | None = None  # default: beside the folder
    per_sheet: int = 12
    seed: int = 0
    show_burned_in: bool = False


@dataclass(frozen=True)
class Line:
    """A row of a table of codes; `anchor` where a sheet shows its films."""

    code: str
    kind: str
    count: int
    share: float  # in percent
    meaning: str
    anchor: str


@dataclass(frozen=True)
class Written:
    """What became of a request."""

    num_pictures: int
    num_rejected: int
    num_shown: int
    num_bytes: int
    has_inputs: bool  # whether rejected films could be looked for


def write_page(request: Request, *, on_progress: OnProgress) -> Written:
    """Count, draw, write.

    Raises ManifestError where there is no manifest, Dinov2Error where the page cannot be written.
    """
    manifest = read_pictures(request.pictures)
    rejects = count_rejects(manifest.root / "rejected.csv")
    private = private_folder(manifest.root, private=request.private)
    plans = [*plan_sheets(manifest, per_sheet=request.per_sheet, seed=request.seed)]
    rejected = plan_rejects(private, rejects, per_sheet=request.per_sheet) if rejects else ()
    measured = _spread(len(manifest), MEASURED_PICTURES)
    total = sum(plan.num_tiles for plan in (*plans, *rejected)) + len(measured)
    drawer = Drawer(manifest, show_burned_in=request.show_burned_in)
    sheets = list(_drawn((*plans, *rejected), drawer, tick=lambda: on_progress(drawer.num_drawn, total)))
    band = _intensities(manifest, measured, tick=lambda i: on_progress(drawer.num_drawn + i, total))
    text = (
        environment(Path(__file__).parent, percent=_percent)
        .get_template("page.html")
        .render(
            cards=_cards(manifest, rejects),
            reasons=_reasons(rejects, num_pictures=len(manifest), sheets=sheets),
            flags=_flags(manifest, sheets=sheets),
            chapters=[
                (kind, *texts, [sheet for sheet in sheets if sheet.kind == kind]) for kind, texts in CHAPTERS.items()
            ],
            bars=_bars(manifest),
            histograms=_histograms(manifest),
            band=band,
            settings=_settings(manifest.root / "preprocess.json"),
            has_inputs=bool(rejected),
            per_sheet=request.per_sheet,
            seed=request.seed,
        )
    )
    return Written(
        num_pictures=len(manifest),
        num_rejected=rejects.total(),
        num_shown=drawer.num_drawn,
        num_bytes=write_text(request.output, text),
        has_inputs=bool(rejected),
    )


def _percent(value: float) -> str:
    """Digits enough to tell a small share from none."""
    if 0 < value < 0.01:
        return "< 0.01 %"
    return f"{value:.2f} %" if value < 1 else f"{value:.1f} %"


def _drawn(plans: Sequence[Plan], drawer: Drawer, *, tick: Callable[[], None]) -> Iterator[Sheet]:
    for plan in plans:
        tiles = []
        for tile in drawer.draw(plan):
            tiles.append(tile)
            tick()
        yield Sheet(plan.kind, plan.name, plan.count, tuple(tiles))


def _intensities(manifest: Manifest, rows: Sequence[int], *, tick: Callable[[int], None]) -> Band | None:
    """Grey levels of some pictures; None where none of them can be read."""
    shares = []
    for done, row in enumerate(rows, start=1):
        with suppress(OSError, Dinov2Error):  # the sample sheet shows that pictures are missing
            shares.append(level_shares(read_levels(manifest.place(row))))
        tick(done)
    if not shares:
        return None
    note = f"mean of {len(shares):,}; the band holds 9 in 10"
    return intensity_band("Grey levels of the pictures", shares, note=note)


def _spread(count: int, most: int) -> list[int]:
    return [int(row) for row in np.unique(np.linspace(0, max(0, count - 1), min(count, most)).astype(np.int64))]


def _cards(manifest: Manifest, rejects: Counter[str]) -> list[tuple[str, int, float | None, str]]:
    """Headline counts: label, count, share of the files in percent, colour."""
    kinds = Counter[str]()
    for code, count in rejects.items():
        kinds[Reason(code).kind if code in set(Reason) else "fault"] += count
    sources = pc.count_distinct(manifest.table.column("source")).as_py()
    with_source = sources or len(manifest)
    num_files = with_source + rejects.total()
    patients = pc.count_distinct(manifest.table.column("patient")).as_py()
    cards: list[tuple[str, int, float | None, str]] = [
        ("files", num_files, None, ""),
        ("pictures", len(manifest), None, "good"),
        ("left out by a filter", kinds["filter"], _share(kinds["filter"], num_files), "plain"),
        ("duplicates", kinds["duplicate"], _share(kinds["duplicate"], num_files), "plain"),
        ("faults", kinds["fault"], _share(kinds["fault"], num_files), "bad" if kinds["fault"] else "plain"),
    ]
    return cards + ([("patients", patients, None, "")] if patients else [])


def _share(count: int, total: int) -> float:
    return 100 * count / total if total else 0.0


def _reasons(rejects: Counter[str], *, num_pictures: int, sheets: Sequence[Sheet]) -> list[Line]:
    anchors = {sheet.name: sheet.anchor for sheet in sheets if sheet.kind == "reason"}
    total = rejects.total() + num_pictures
    known = set(Reason)
    return [
        Line(
            code,
            Reason(code).kind if code in known else "",
            count,
            _share(count, total),
            REASON_MEANINGS[Reason(code)] if code in known else "a code that this version does not know",
            anchors.get(code, ""),
        )
        for code, count in rejects.most_common()
    ]


def _flags(manifest: Manifest, *, sheets: Sequence[Sheet]) -> list[Line]:
    anchors = {sheet.name: sheet.anchor for sheet in sheets if sheet.kind == "flag"}
    known = set(Flag)
    return [
        Line(
            name if name in known else "other",
            "",
            len(rows),
            _share(len(rows), len(manifest)),
            FLAG_MEANINGS[Flag(name)] if name in known else "a flag that this version does not know",
            anchors.get(name, ""),
        )
        for name, rows in rows_by_flag(manifest.table.column("flags")).items()
    ]


def _bars(manifest: Manifest) -> list[BarChart]:
    table = manifest.table
    columns = (
        ("View", "view"),
        ("Maker", "manufacturer"),
        ("Modality", "modality"),
        ("Encoding", "transfer_syntax"),
        ("Bits stored", "bits"),
        ("Data set", "dataset"),
        ("Split", "split"),
    )
    charts = [
        bar_chart(title, count_values(table.column(name), most=MOST_BARS))
        for title, name in columns
        if table.column(name).null_count < len(table)
    ]
    patients = films_per_patient(table.column("patient"))
    if patients:
        charts.append(bar_chart("Patients by number of pictures", patients, note="a row a number of pictures"))
    return charts


def _histograms(manifest: Manifest) -> list[Histogram]:
    table = manifest.table
    charts = []
    for of, high, wide in (("films", "film_height", "film_width"), ("pictures", "height", "width")):
        sized = table.select([high, wide]).drop_null() if len(table) else table
        heights, widths = numbers(sized.column(high)), numbers(sized.column(wide))
        if not heights.size:
            continue
        if of == "films":
            charts.append(histogram("Short side of the films", np.minimum(heights, widths), unit=" px", note="pixels"))
        charts.append(histogram("Long side of the " + of, np.maximum(heights, widths), unit=" px", note="pixels"))
        if of == "films" or not charts[:-1]:
            aspect = heights / np.maximum(widths, 1)
            charts.append(histogram("Height over width", aspect, note="above 1: portrait", digits=2))
    return charts


def _settings(path: Path) -> list[tuple[str, str]]:
    """What the pictures were made with; empty where the folder does not say."""
    try:
        record: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        listed = [("dinov2", str(record["dinov2"]))]
        listed += [(str(key), json.dumps(value)) for key, value in record["settings"].items()]
        return listed + [(str(name), str(version)) for name, version in record["libraries"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
