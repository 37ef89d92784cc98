"""What a dataset's text means: a manifest, a folder with one, or a public dataset.

In: the text. Out: its `Source`, and the split that the text names.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc

from dinov2.data.source import MANIFEST_NAMES, DatasetString, parse_dataset_string
from dinov2.errors import ManifestError
from dinov2.eval.datasets.masks import LabelPictures
from dinov2.eval.datasets.public import PUBLIC, Request
from dinov2.eval.datasets.reading import Films
from dinov2.eval.datasets.source import Source
from dinov2.eval.datasets.splits import role_of
from dinov2.eval.datasets.suggest import mask_like
from dinov2.manifest import read
from dinov2.manifest.edit import with_columns

MASK_COLUMNS = ("mask", "masks", "mask_path")
VOLUME = "volume"  # column of a manifest whose rows are slices
FORMS = "a manifest (.parquet or .csv), or Name:root=FOLDER[:split=...][:extra=...] with Name one of "


@dataclass(frozen=True)
class Opened:
    """A dataset, and what its text asks for."""

    source: Source
    split: str = ""  # train, val, test, or empty
    views: tuple[str, ...] = ()


def open_source(text: str, *, views: Sequence[str], masks: str | None, segmentation: bool) -> Opened:
    """The dataset of a text.  Raises ManifestError where nothing is there, naming what was expected."""
    path = _manifest_at(Path(text).expanduser())
    if path is not None:
        opened = Opened(_of_manifest(path))
    elif re.fullmatch(r"\w[\w.-]*(:.*)?", text):
        opened = _of_string(text, views=views, segmentation=segmentation)
    else:
        raise ManifestError(f"{text}: no such manifest. Expected {FORMS}{', '.join(PUBLIC)}.")
    source = opened.source
    if segmentation and (masks or source.masks is None):
        source = _with_masks(source, masks)
    return replace(opened, source=source)


def _manifest_at(path: Path) -> Path | None:
    if path.suffix.lower() in (".parquet", ".csv"):
        return path
    return next((path / name for name in MANIFEST_NAMES if (path / name).is_file()), None)


def _of_manifest(path: Path) -> Source:
    manifest = read(path)
    ids, images = (manifest.table.column(name) for name in ("image_id", "image"))
    named = pc.fill_null(pc.not_equal(ids, ""), False)
    manifest = with_columns(manifest, {"image_id": pc.if_else(named, ids, images)})
    volumes = VOLUME if VOLUME in manifest.table.column_names else ""
    return Source(name=path.name, manifest=manifest, pictures=Films(manifest), volumes=volumes)


def _of_string(text: str, *, views: Sequence[str], segmentation: bool) -> Opened:
    try:
        asked = parse_dataset_string(text)
    except ManifestError as error:
        raise ManifestError(str(error).replace("train.dataset_path=", "")) from None
    split = role_of(asked.split)
    if asked.split and split is None:
        raise ManifestError(f"{text}: split={asked.split} is none of train, val and test.")
    known = {name.lower(): name for name in PUBLIC}
    name = known.get(asked.name.lower())
    if not asked.root:
        raise ManifestError(f"{text}: no such file, and it gives no root to look in. {_expected(asked.name)}")
    named = (asked.view,) if asked.view else tuple(views)
    root = Path(asked.root).expanduser()
    if name is None:
        source = _of_named_manifest(asked, root)
    else:
        if not root.is_dir():
            raise ManifestError(f"{text}: {root} is no folder. Give the folder that holds the dataset as root.")
        extra = Path(asked.extra).expanduser() if asked.extra else None
        source = PUBLIC[name](Request(root=root, extra=extra, views=named, segmentation=segmentation))
    return Opened(source, split or "", (asked.view,) if asked.view else ())


def _of_named_manifest(asked: DatasetString, root: Path) -> Source:
    """`Name:root=R` of a dataset that is not public: the manifest at R, the rows of that dataset where it says so."""
    path = _manifest_at(root)
    if path is None or not path.is_file():
        raise ManifestError(
            f"{asked.name}: not a dataset known here, and {root} holds no manifest. {_expected(asked.name)}"
        )
    source = _of_manifest(path)
    names = {str(value).lower() for value in source.manifest.table.column("dataset").unique().to_pylist()}
    if asked.name.lower() not in names:
        return replace(source, name=f"{asked.name} ({path})")
    manifest = source.manifest.filter(datasets=[asked.name])
    return replace(source, name=asked.name, manifest=manifest, pictures=Films(manifest))


def _with_masks(source: Source, column: str | None) -> Source:
    names = source.manifest.table.column_names
    found = column if column in names else next((name for name in MASK_COLUMNS if name in names and not column), None)
    if found is None:
        absent = f"no column {column}" if column else "no masks were named"
        raise ManifestError(f"{source.name}: {absent}. {mask_like(source.manifest.table)}")
    paths = source.manifest.table.column(found).to_pylist()
    return replace(source, masks=LabelPictures(paths, root=source.manifest.root), mask_classes=())


def _expected(name: str) -> str:
    near = difflib.get_close_matches(name, PUBLIC, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}? " if near else ""
    return f"{hint}Expected {FORMS}{', '.join(PUBLIC)}."
