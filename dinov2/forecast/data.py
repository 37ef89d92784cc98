"""Whether the pictures of a run can be read, and what they are.

In: a configuration. Out: a `DataReport`: how many pictures, of which splits, views and datasets; a random sample really
decoded: sizes, formats, what cannot be read; copies and patients in several splits; how many pictures a core prepares
in a second.
"""

import io
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pyarrow.compute as pc
from PIL import Image

from dinov2.config.schema import Config
from dinov2.data.dataset import Pictures, Unreadable
from dinov2.data.loader import batch_maker
from dinov2.data.source import MANIFEST_NAMES, open_pictures, parse_dataset_string
from dinov2.data.stream import SampleStream
from dinov2.errors import DataError, ManifestError
from dinov2.manifest import Manifest, read
from dinov2.manifest.check import table_faults
from dinov2.manifest.duplicates import NO_ROW, same_pixels, words_of

MOST_GROUPS = 12  # splits, views or datasets that are listed
NUM_NAMED = 5
NUM_PREPARED = 12  # pictures that are prepared to the last crop, for the rate of a core
KINDS = {
    "1": "1-bit grey",
    "L": "8-bit grey",
    "LA": "8-bit grey with alpha",
    "P": "8-bit palette",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "I;16L": "16-bit grey",
    "I": "16-bit or 32-bit grey",
    "F": "32-bit float grey",
    "RGB": "8-bit colour",
    "RGBA": "8-bit colour with alpha",
    "CMYK": "8-bit colour",
    "YCbCr": "8-bit colour",
}
HASH_COLUMNS = ("image", "sha256", "perceptual_hash", "duplicate_of", "dataset", "patient", "split")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Short sides of the decoded sample, in pixels."""

    smallest: int
    median: int
    largest: int
    share_below_crop: float  # share of pictures whose short side is below the global crop's


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Rows that repeat an earlier one; None where the manifest does not tell."""

    same_file: int | None  # equal sha256
    same_look: int | None  # equal perceptual hash
    named: int | None  # `duplicate_of` is filled


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was found."""

    num_pictures: int
    groups: dict[str, dict[str, int]]  # split, view, dataset -> value -> pictures; "" where a row does not say
    num_sampled: int
    unreadable: dict[str, str]  # path -> reason, of the sample
    kinds: dict[str, int]  # bit depth and channels -> pictures of the sample
    sizes: Sizes | None
    copies: Copies | None  # None: the pictures are a folder, without a manifest
    split_patients: tuple[str, ...]  # patients in several splits of the whole manifest, in words
    num_split_patients: int
    pictures_per_core_second: float  # decoded, cropped and masked
    cores: int  # of this machine that this process may use


def look_at_data(config: Config, *, num_rows: int, progress: Callable[[int, int], None]) -> DataReport:
    """Opens the manifest and decodes `num_rows` random pictures; `progress` hears after each how many of how many.

    Raises ManifestError where there is no picture to train on.
    """
    path = config.train.dataset_path
    manifest = open_pictures(path, data=config.data, seed=config.train.seed)
    stream = SampleStream(len(manifest), seed=config.train.seed)
    rows = [stream.row(position) for position in range(min(num_rows, len(manifest)))]  # random, and the first to come
    unreadable, kinds, sides = _decode(manifest, rows, progress=progress)
    listed = manifest_file(path)
    whole = None if listed is None else read(listed, columns=HASH_COLUMNS)
    patients = () if whole is None else tuple(f.text for f in table_faults(_without_hashes(whole)) if f.kind == "split")
    return DataReport(
        num_pictures=len(manifest),
        groups={name: _counts(manifest, name) for name in ("split", "view", "dataset")},
        num_sampled=len(rows),
        unreadable=unreadable,
        kinds=dict(kinds.most_common()),
        sizes=_sizes(sides, crop=config.crops.global_crops_size),
        copies=None if whole is None else _copies(whole, chosen=manifest),
        split_patients=patients[:NUM_NAMED],
        num_split_patients=len(patients),
        pictures_per_core_second=_rate(config, manifest, first=len(rows)) if sides else 0.0,
        cores=len(os.sched_getaffinity(0)),
    )


def manifest_file(dataset_path: str) -> Path | None:
    """The manifest that `train.dataset_path` means; None for pictures in a folder without one."""
    place = Path(dataset_path).expanduser()
    if not place.exists():
        try:
            named = parse_dataset_string(dataset_path)
        except ManifestError:
            return None
        candidates = [_in(Path(text).expanduser()) for text in (named.extra, named.root) if text]
        return next((found for found in candidates if found is not None), None)
    return _in(place)


def _in(place: Path) -> Path | None:
    candidates = [place] if place.is_file() else [place / name for name in MANIFEST_NAMES]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _decode(
    manifest: Manifest, rows: list[int], *, progress: Callable[[int, int], None]
) -> tuple[dict[str, str], Counter[str], list[int]]:
    """Reasons by path, kinds, and short sides of the rows."""
    pictures = Pictures(manifest)
    unreadable: dict[str, str] = {}
    kinds: Counter[str] = Counter()
    sides: list[int] = []
    for number, row in enumerate(rows, start=1):
        try:
            sides.append(min(pictures.read(row).shape))
            kinds[_kind(manifest.place(row).read())] += 1
        except (Unreadable, ManifestError, OSError) as reason:
            unreadable[str(pictures.path(row))] = str(reason)
        progress(number, len(rows))
    return unreadable, kinds, sides


def _kind(content: bytes) -> str:
    """Bit depth and channels, from the header.  Raises OSError."""
    with Image.open(io.BytesIO(content)) as picture:
        kind = KINDS.get(picture.mode, picture.mode)
        return f"{kind}, {picture.format}"


def _sizes(sides: list[int], *, crop: int) -> Sizes | None:
    if not sides:
        return None
    return Sizes(
        smallest=min(sides),
        median=int(np.median(sides)),
        largest=max(sides),
        share_below_crop=sum(side < crop for side in sides) / len(sides),
    )


def _counts(manifest: Manifest, column: str) -> dict[str, int]:
    """Value -> pictures, the most frequent first; empty where no row says anything."""
    values = manifest.table.column(column)
    if values.null_count == len(values):
        return {}
    counted = pc.value_counts(pc.fill_null(values, "")).to_pylist()
    ordered = sorted(((entry["values"], entry["counts"]) for entry in counted), key=lambda pair: -pair[1])
    return dict(islice(ordered, MOST_GROUPS))


def _without_hashes(whole: Manifest) -> Manifest:
    """Only what tells splits apart: hashes are compared among the chosen rows."""
    return Manifest(whole.table.set_column(*_nulls(whole, "sha256")), whole.root)


def _nulls(manifest: Manifest, name: str) -> tuple[int, str, object]:
    import pyarrow as pa

    return manifest.table.column_names.index(name), name, pa.nulls(len(manifest), pa.string())


def _copies(whole: Manifest, *, chosen: Manifest) -> Copies:
    """Among the chosen rows of the whole manifest."""
    table = whole.table.filter(pc.is_in(whole.table.column("image"), value_set=chosen.table.column("image")))

    def repeated(name: str) -> int | None:
        if name not in table.column_names:
            return None
        words = words_of(table.column(name))
        return int((same_pixels(words) != NO_ROW).sum()) if words.any() else None

    named = None
    if "duplicate_of" in table.column_names:
        filled = pc.not_equal(pc.fill_null(table.column("duplicate_of").cast("string"), ""), "")
        named = int(pc.sum(filled).as_py() or 0)
    return Copies(same_file=repeated("sha256"), same_look=repeated("perceptual_hash"), named=named)


def _rate(config: Config, manifest: Manifest, *, first: int) -> float:
    """Pictures a second that one core decodes, crops and masks, as a data worker does."""
    maker = batch_maker(
        manifest,
        crops=config.crops,
        augmentation=config.augmentation,
        ibot=config.ibot,
        patch_size=config.student.patch_size,
        seed=config.train.seed,
    )
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        maker.make([first])  # what is made once: the order of the pictures, tables of grey levels
        started = time.perf_counter()
        for position in range(first + 1, first + 1 + NUM_PREPARED):
            maker.make([position])
        return NUM_PREPARED / (time.perf_counter() - started)
    except DataError:
        return 0.0
    finally:
        cv2.setNumThreads(threads)
