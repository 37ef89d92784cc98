"""Volumes: SARS-CoV-2 CT, BTCV, AMOS, and heart, hippocampus and spleen of the Medical Segmentation Decathlon.

In: the dataset's folder, as it ships (NIfTI) or as the public evaluation code has it (a folder per split, slices as
PNG or .npy). Out: a `Source` with a row per slice; its column `volume` says which slices are one case.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dinov2.errors import ManifestError
from dinov2.eval.datasets.public.request import Request
from dinov2.eval.datasets.public.rows import pictures_below, split_in, to_manifest, with_drawn_splits, with_splits
from dinov2.eval.datasets.reading import Films
from dinov2.eval.datasets.source import Source
from dinov2.eval.datasets.volumes.arrays import ArrayMasks, ArraySlices
from dinov2.eval.datasets.volumes.nifti import NiftiMasks, NiftiSlices, num_slices
from dinov2.eval.datasets.volumes.windows import Fixed, Percentiles, Window

LAST_POSITIVE_SCAN = 79  # of SARS-CoV-2 CT: scans up to this number are of patients with COVID-19
NIFTI, ARRAY = (".nii.gz", ".nii"), (".npy",)
DECATHLON = re.compile(r"^(?:images|labels)(tr|va|ts)$")
KIND = re.compile(r"^(?:img|image|label)[_-]?(?=\d)", re.IGNORECASE)  # img0001 and label0001 are one case
SLICE = re.compile(r"^(.*\d)[_-]\D*\d+$")  # CASE_SLICE: what comes before is the case


@dataclass(frozen=True)
class Scans:
    """What a dataset of volumes is."""

    name: str
    classes: tuple[str, ...]
    window: Window
    last_case: int | None = None  # AMOS: cases above are MRI, which the window does not fit


ABDOMEN = Fixed(-1024, 600)  # Hounsfield units, as the public evaluation code clips
SCANNER = Percentiles(5, 95)
BTCV = Scans(
    "BTCV",
    (
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "esophagus",
        "liver",
        "stomach",
        "aorta",
        "inferior vena cava",
        "portal and splenic veins",
        "pancreas",
        "right adrenal gland",
        "left adrenal gland",
    ),
    ABDOMEN,
)
AMOS = Scans(
    "AMOS",
    (
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "esophagus",
        "liver",
        "stomach",
        "aorta",
        "postcava",
        "pancreas",
        "right adrenal gland",
        "left adrenal gland",
        "duodenum",
        "bladder",
        "prostate or uterus",
    ),
    ABDOMEN,
    last_case=500,
)
MSD_HEART = Scans("MSDHeart", ("left atrium",), SCANNER)
MSD_HIPPOCAMPUS = Scans("MSDHipp", ("anterior", "posterior"), SCANNER)
MSD_SPLEEN = Scans("MSDSpleen", ("spleen",), SCANNER)


def sars_cov_2_ct(asked: Request) -> Source:
    """SARSCoV2CT: [SPLIT/]SCAN/SLICE.png; the scan's number tells the label."""
    folder = asked.pictures
    rows = []
    for path in sorted(pictures_below(folder, name="SARSCoV2CT"), key=_in_counting_order):
        scan = re.search(r"\d+", PurePosixPath(path).parent.name)
        if scan:
            case = PurePosixPath(path).parent.name
            rows.append(
                {
                    "image": path,
                    "image_id": f"{case}/{PurePosixPath(path).stem}",
                    "patient": case,
                    "volume": case,
                    "split": split_in(path),
                    "covid_19": float(int(scan[0]) <= LAST_POSITIVE_SCAN),
                }
            )
    if not rows:
        raise ManifestError(
            f"SARSCoV2CT: no folder below {folder} has the number of a scan; expected SPLIT/SCAN/SLICE.png."
        )
    manifest = to_manifest(rows, root=folder, dataset="sars-cov-2-ct")
    manifest = with_splits(manifest, name="SARSCoV2CT", val=50 / 210, test=70 / 210)
    return Source(
        name="SARSCoV2CT",
        manifest=manifest,
        pictures=Films(manifest),
        labels=("covid_19",),
        classes=("COVID-19",),
        volumes="volume",
    )


def segmented(scans: Scans, asked: Request) -> Source:
    """Every labelled slice.  Volumes without a mask (a challenge's test set) are left out.

    Where the masks are all of one folder, patients are drawn to val and test.
    """
    folder = asked.pictures
    suffixes, files = _files(folder, name=scans.name)
    labels = {_key(path, with_split=split): path for path in files if _is_label(path) for split in (True, False)}
    pairs = []
    for path in files:
        label = None if _is_label(path) else labels.get(_key(path, with_split=True)) or labels.get(_key(path))
        if label and not (scans.last_case and _number(path) > scans.last_case):
            pairs.append((path, label))
    if not pairs:
        raise ManifestError(
            f"{scans.name}: no volume below {folder} has a mask. Expected imagesTr with labelsTr, img with label, or "
            "train, val and test with labels; the same names in both."
        )
    stated = len({_split(path) for path, _ in pairs} - {""}) > 1
    rows, images, masks = [], [], []
    for path, label in pairs:
        for row in _rows(path, folder=folder, suffixes=suffixes):
            rows.append({**row, "split": _split(path) if stated else ""})
            images.append(folder / path)
            masks.append(folder / label)
    manifest = to_manifest(rows, root=folder, dataset=scans.name.lower())
    if not stated:
        manifest = with_drawn_splits(manifest, name=scans.name, val=0.15, test=0.25)
    slices = [row["slice"] for row in rows]
    is_array = suffixes == ARRAY
    return Source(
        name=scans.name,
        manifest=manifest,
        pictures=ArraySlices(images, window=scans.window)
        if is_array
        else NiftiSlices(images, slices, window=scans.window),
        masks=ArrayMasks(masks) if is_array else NiftiMasks(masks, slices),
        mask_classes=scans.classes,
        volumes="volume",
    )


def _files(folder: Path, *, name: str) -> tuple[tuple[str, ...], list[str]]:
    """Volumes, or slices where there are no volumes, relative to the folder, cases and slices in counting order."""
    found: dict[tuple[str, ...], list[str]] = {NIFTI: [], ARRAY: []}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [one for one in folders if not one.startswith(".")]
        for one in names:
            for suffixes, listed in found.items():
                if one.lower().endswith(suffixes) and not one.startswith("."):
                    listed.append(Path(parent, one).relative_to(folder).as_posix())
    for suffixes, listed in found.items():
        if listed:
            return suffixes, sorted(listed, key=_in_counting_order)
    raise ManifestError(f"{name}: no .nii.gz, .nii or .npy below {folder}.")


def _rows(path: str, *, folder: Path, suffixes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for every slice of a volume, or for the slice that the file is."""
    stem = _stem(path)
    if suffixes == ARRAY:
        case = SLICE.match(stem)
        volume = case[1] if case else stem
        return [{"image": path, "image_id": stem, "patient": volume, "volume": volume, "slice": 0}]
    return [
        {"image": path, "image_id": f"{stem}_{number:04}", "patient": stem, "volume": stem, "slice": number}
        for number in range(num_slices(folder / path))
    ]


def _is_label(path: str) -> bool:
    return any(part.lower().startswith("label") for part in PurePosixPath(path).parts)


def _split(path: str) -> str:
    """Of a folder called as a split, or of imagesTr, imagesVa, imagesTs."""
    for part in PurePosixPath(path).parts[:-1]:
        found = DECATHLON.match(part.lower())
        if found:
            return {"tr": "train", "va": "val", "ts": "test"}[found[1]]
    return split_in(path)


def _key(path: str, *, with_split: bool = False) -> str:
    """What a volume and its mask have in common."""
    return f"{_split(path) if with_split else ''}/{KIND.sub('', _stem(path))}"


def _stem(path: str) -> str:
    return re.sub(r"(\.nii(\.gz)?|\.npy)$", "", PurePosixPath(path).name, flags=re.IGNORECASE)


def _number(path: str) -> int:
    found = re.search(r"\d+", _stem(path))
    return int(found[0]) if found else 0


def _in_counting_order(path: str) -> list[tuple[int, str]]:
    """Slice 2 before slice 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]
