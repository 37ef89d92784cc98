"""Where the pictures come from: what `train.dataset_path` may say.

In: a manifest file, a folder, or the public string form `Name:key=value:...`, and the `data` section. Out: a `Manifest`
of the pictures that pass every filter, all of them on disk.
"""

import difflib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dinov2.config.schema import Data
from dinov2.errors import ManifestError
from dinov2.manifest import PLACES, Manifest, from_folder, read, read_id_list

KEYS = ("root", "extra", "split", "view")
COLUMNS_READ = ("image", "image_id", "dataset", "view", "split", "patient", "width", "height", "source", *PLACES)
MAX_LOOKED_FOR = 20_000  # files, spread evenly; looking for millions would hold up the start
MANIFEST_NAMES = ("manifest.parquet", "manifest.csv")
FORMS = (
    "a manifest (.parquet or .csv), a folder of pictures, or Name:root=FOLDER[:split=...][:view=...][:extra=MANIFEST]"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DatasetString:
    """`Name:key=value:...` taken apart."""

    name: str
    root: str = ""
    extra: str = ""
    split: str = ""
    view: str = ""


def open_pictures(dataset_path: str, *, data: Data, seed: int) -> Manifest:
    """The pictures that a run trains on.

    Raises ManifestError where nothing is found, a filter leaves no row, or files that the manifest names are not on
    disk.
    """
    manifest = _narrow(_locate(dataset_path), data=data, dataset_path=dataset_path)
    if not 0 < data.fraction <= 1:
        raise ManifestError(f"data.fraction={data.fraction} is a share of the pictures; give more than 0, at most 1.")
    manifest = manifest.sample(data.fraction, seed=seed)
    _check_files(manifest, dataset_path=dataset_path)
    return manifest


def parse_dataset_string(text: str) -> DatasetString:
    """`Name:key=value:...` by its parts.  A path may hold ':' and '='; it ends where a key of ours follows.

    Raises ManifestError for a part that is no key=value and for a key that is not known.
    """
    name, *parts = text.split(":")
    values: dict[str, str] = {}
    last = ""
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and key in KEYS:
            values[key] = value
            last = key
        elif last in ("root", "extra"):
            values[last] += f":{part}"  # a path with a colon in it
        else:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ManifestError(
                f"train.dataset_path={text}: {part!r} is none of {'=, '.join(KEYS)}=.{hint} Expected {FORMS}."
            )
    return DatasetString(name=name, **values)


def _locate(dataset_path: str) -> Manifest:
    path = Path(dataset_path).expanduser()
    if path.is_dir():
        return _open_folder(path)
    if path.is_file() or path.suffix.lower() in (".parquet", ".csv"):
        return _read(path)
    if re.fullmatch(r"\w[\w.-]*(:.*)?", dataset_path):
        return _open_named(parse_dataset_string(dataset_path), text=dataset_path)
    raise ManifestError(f"train.dataset_path={dataset_path}: no such file or folder. Expected {FORMS}.")


def _open_folder(folder: Path) -> Manifest:
    listed = _manifest_in(folder)
    return _read(listed) if listed else from_folder(folder)


def _open_named(source: DatasetString, *, text: str) -> Manifest:
    """The pictures below `root`; those of one dataset where the manifest tells datasets apart and knows this one."""
    if not source.root:
        raise ManifestError(
            f"train.dataset_path={text}: no file or folder of this name, and it gives no root to look in. "
            f"Expected {FORMS}."
        )
    manifest, is_split = _open_root(source)
    names = {str(value).lower() for value in manifest.table.column("dataset").unique().to_pylist()}
    if source.name.lower() in names:
        manifest = manifest.filter(datasets=[source.name])
    if source.split and not is_split:
        manifest = manifest.filter(splits=[source.split])
    return manifest.filter(views=[source.view]) if source.view else manifest


def _open_root(source: DatasetString) -> tuple[Manifest, bool]:
    """What lies at `root`, and whether that is the wanted split already."""
    root = Path(source.root).expanduser()
    if source.extra:
        extra = Path(source.extra).expanduser()
        listed = _manifest_in(extra)
        if listed:
            return Manifest(_read(listed).table, root), False
        log.warning("extra=%s holds no manifest and is not used; the pictures are those below root=%s.", extra, root)
    if root.is_file():
        return _read(root), False
    if source.split and not _manifest_in(root):
        for folder in (root / source.split, root / source.split.lower()):  # the public layout: a folder a split
            if folder.is_dir():
                return from_folder(folder), True
    return _open_folder(root), False


def _read(path: Path) -> Manifest:
    """What filters and the loader look at; every rank of a node holds it, so labels and hashes stay on disk."""
    return read(path, columns=COLUMNS_READ)


def _manifest_in(place: Path) -> Path | None:
    candidates = [place] if place.is_file() else [place / name for name in MANIFEST_NAMES]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _narrow(manifest: Manifest, *, data: Data, dataset_path: str) -> Manifest:
    """Every filter of the `data` section, one after another, so that the one that leaves nothing can be named."""
    steps: tuple[tuple[str, str | tuple[str, ...], Callable[[Manifest], Manifest]], ...] = (
        ("data.splits", data.splits, lambda m: m.filter(splits=data.splits)),
        ("data.views", data.views, lambda m: m.filter(views=data.views)),
        ("data.datasets", data.datasets, lambda m: m.filter(datasets=data.datasets)),
        ("data.include", data.include, lambda m: m.filter(include=read_id_list(Path(data.include).expanduser()))),
        ("data.exclude", data.exclude, lambda m: m.filter(exclude=read_id_list(Path(data.exclude).expanduser()))),
    )
    for key, value, narrow in steps:
        if not value:
            continue
        before, manifest = len(manifest), narrow(manifest)
        shown = value if isinstance(value, str) else list(value)
        log.info("%s=%s keeps %d of %d pictures.", key, shown, len(manifest), before)
        if len(manifest) == 0:
            raise ManifestError(
                f"{dataset_path}: {key}={shown} leaves none of {before} pictures. Correct it, or leave it empty."
            )
    return manifest


def _check_files(manifest: Manifest, *, dataset_path: str) -> None:
    missing = manifest.missing_files(limit=MAX_LOOKED_FOR)
    if not missing:
        return
    row = missing[0]
    raise ManifestError(
        f"{dataset_path}: {len(missing)} of {min(len(manifest), MAX_LOOKED_FOR)} pictures looked for are not on disk; "
        f"the first is {manifest.path(row)}, row {row} of those chosen. Relative paths start from {manifest.root}. "
        "Put the pictures back, or leave them out with data.exclude=FILES.csv."
    )
