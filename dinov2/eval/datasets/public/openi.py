"""Open-i, the Indiana University chest films (Demner-Fushman et al., JAMIA 2016), as reports in XML or as two tables.

In: the folder with ecgen-radiology/*.xml, or with indiana_reports.csv and indiana_projections.csv; pictures below it
or in `extra`. Out: a `Source` with the usual findings, 1 where the report's headings name one. Only the tables tell
frontal from lateral films. A report is a patient.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dinov2.errors import ManifestError
from dinov2.eval.datasets.public.request import Request
from dinov2.eval.datasets.public.rows import find_pictures, split_in, to_manifest, with_splits
from dinov2.eval.datasets.reading import Films
from dinov2.eval.datasets.source import Source
from dinov2.layouts.columns import label_name
from dinov2.layouts.tables import TableFile, Tables

FINDINGS = (
    "Atelectasis",
    "Calcified Granuloma",
    "Cardiomegaly",
    "Cicatrix",
    "Consolidation",
    "Emphysema",
    "Infiltrate",
    "Nodule",
    "Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
    "Pulmonary Edema",
    "Thickening",
    "normal",
)
REPORTS = TableFile(
    names=("indiana_reports.csv",),
    columns=("uid", "Problems"),
    ships="Open-i as two tables",
    gives="label",
    optional=True,
)
PROJECTIONS = TableFile(
    names=("indiana_projections.csv",),
    columns=("uid", "filename", "projection"),
    ships="Open-i as two tables",
    gives="picture",
)
VIEWS = {"frontal": "FRONTAL", "lateral": "LATERAL"}


@dataclass(frozen=True)
class _Film:
    picture: str
    report: str
    view: str | None
    headings: frozenset[str]


def openi(asked: Request) -> Source:
    """OpenI: what the headings of a film's report say; frontal films where the tables tell them."""
    films = list(_of_tables(asked.root) or _of_reports(asked.root))
    if not asked.views:
        films = [film for film in films if film.view != "LATERAL"]
    folder = asked.pictures
    paths = find_pictures([film.picture for film in films], folder=folder, name="OpenI")
    rows = [
        {
            "image": path,
            "image_id": re.sub(r"(\.dcm)?(\.png|\.jpe?g)?$", "", film.picture),
            "patient": film.report,
            "view": film.view,
            "split": split_in(path),
            **{label_name(finding): float(finding.lower() in film.headings) for finding in FINDINGS},
        }
        for film, path in zip(films, paths, strict=True)
        if path
    ]
    manifest = with_splits(to_manifest(rows, root=folder, dataset="openi"), name="OpenI", val=0.1, test=0.2)
    labels = tuple(label_name(finding) for finding in FINDINGS)
    return Source(name="OpenI", manifest=manifest, pictures=Films(manifest), labels=labels, classes=FINDINGS)


def _of_tables(root: Path) -> list[_Film]:
    tables = Tables(root)
    reports = tables.read(REPORTS)
    if reports is None:
        return []
    projections = tables.read(PROJECTIONS)
    assert projections is not None, "a table that is not optional is there or is an error"
    headings = {
        uid: frozenset(word.strip().lower() for word in (problems or "").split(";"))
        for uid, problems in zip(reports.column("uid").to_pylist(), reports.column("Problems").to_pylist(), strict=True)
    }
    return [
        _Film(row["filename"], row["uid"], VIEWS.get((row["projection"] or "").lower()), headings[row["uid"]])
        for row in projections.to_pylist()
        if row["uid"] in headings
    ]


def _of_reports(root: Path) -> Iterator[_Film]:
    """A film for every `parentImage` of every report; `major` and `automatic` are its headings."""
    reports = sorted(root.rglob("*.xml"), key=lambda path: (len(path.stem), path.stem))
    if not reports:
        raise ManifestError(
            f"OpenI: {root} has neither indiana_reports.csv with indiana_projections.csv nor ecgen-radiology/*.xml."
        )
    for path in reports:
        try:
            report = ET.parse(path).getroot()
        except ET.ParseError as error:
            raise ManifestError(f"OpenI: {path}: not a readable report ({error}). Download it again.") from error
        said = [one.text or "" for tag in ("major", "automatic") for one in report.iter(tag)]
        headings = frozenset(part.strip().lower() for text in said for part in text.split("/")[:1])
        for image in report.iter("parentImage"):
            yield _Film(str(image.get("id")), path.stem, None, headings)
