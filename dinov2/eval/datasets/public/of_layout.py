"""Datasets whose tables `dinov2.layouts` reads: CheXpert, NIH ChestX-ray14, PadChest, VinDr-CXR.

In: the dataset's folder, and that of its pictures where they lie elsewhere. Out: a `Source`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.errors import ManifestError
from dinov2.eval.datasets.public.request import Request
from dinov2.eval.datasets.public.rows import with_splits
from dinov2.eval.datasets.reading import Films
from dinov2.eval.datasets.source import Source
from dinov2.layouts import build
from dinov2.layouts.columns import label_name
from dinov2.layouts.layout import RASTER, TableFile
from dinov2.layouts.nih import FINDINGS as NIH_FINDINGS
from dinov2.layouts.tables import Tables
from dinov2.manifest import Manifest
from dinov2.manifest.edit import with_columns

# The five of the competition (Irvin et al., AAAI 2019), in the order of the paper's tables.
CHEXPERT_COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
# The findings on which radiograph encoders are compared (Perez-Garcia et al., 2024, RAD-DINO).
VINDR_FINDINGS = (
    "Lung Opacity",
    "Cardiomegaly",
    "Pleural thickening",
    "Aortic enlargement",
    "Pulmonary fibrosis",
    "Tuberculosis",
    "Pleural effusion",
)
PADCHEST_FINDINGS = (  # frequent ones; others by --labels
    "Cardiomegaly",
    "Pleural effusion",
    "Pneumonia",
    "Atelectasis",
    "Infiltrates",
    "Interstitial pattern",
    "Alveolar pattern",
    "Consolidation",
    "Nodule",
    "Pneumothorax",
    "Pulmonary edema",
    "Pulmonary fibrosis",
    "Emphysema",
    "Pleural thickening",
    "Hiatal hernia",
    "Scoliosis",
)
NIH_LISTED, NIH_VAL = 86_524, 10_002  # lines of train_val_list.txt, and those at its end that are validation
NIH_LISTS = {
    split: TableFile(names=(f"{split}_list.txt",), columns=(), ships="a split of its own", gives=split, optional=True)
    for split in ("train", "val")
}
NIH_TRAINING = TableFile(
    names=("train_val_list.txt", "train_val_list_NIH.txt"), columns=(), ships="NIH", gives="split", optional=True
)
FRONTAL = ("AP", "PA")

log = logging.getLogger(__name__)


def chexpert(asked: Request) -> Source:
    """CheXpert: 5 labels, -1 uncertain, an empty cell 0 (not mentioned: the paper's reading); frontal films."""
    manifest = _built("CheXpert", "chexpert", asked)
    if not asked.views:
        lateral = pc.match_substring(manifest.table.column("image"), "lateral", ignore_case=True)
        manifest = Manifest(manifest.table.filter(pc.invert(lateral)), manifest.root)
    return _source("CheXpert", manifest, CHEXPERT_COMPETITION, blank=0.0)


def nih(asked: Request) -> Source:
    """NIH ChestX-ray14: 14 findings in the order of the alphabet; val is the end of the list of training films."""
    manifest = _built("NIHChestXray", "nih", asked)
    manifest = with_columns(manifest, {"split": _nih_splits(manifest, asked.root)})
    log.info("NIHChestXray: 14 findings; 'No Finding' is a label too where --labels names it.")
    findings = sorted(name for name in NIH_FINDINGS if name != "No Finding")
    return _source("NIHChestXray", manifest, findings)


def padchest(asked: Request) -> Source:
    """PadChest: frequent findings of those that the table has; frontal films; no split of its own."""
    manifest = _built("PadChest", "padchest", asked)
    if not asked.views:
        frontal = pc.is_in(manifest.table.column("view"), value_set=pa.array(FRONTAL))
        manifest = Manifest(manifest.table.filter(frontal), manifest.root)
    manifest = with_splits(manifest, name="PadChest", val=0.1, test=0.2)
    present = [name for name in PADCHEST_FINDINGS if label_name(name) in manifest.table.column_names]
    return _source("PadChest", manifest, present)


def vindr(asked: Request) -> Source:
    """VinDr-CXR: what most radiologists of a film said; train and test, no val; patients are not known."""
    return _source("VinDrCXR", _built("VinDrCXR", "vindr-cxr", asked), VINDR_FINDINGS)


def _built(name: str, layout: str, asked: Request) -> Manifest:
    try:
        built = build(layout, asked.root, images=asked.extra, suffixes=RASTER)
    except ManifestError as error:
        text = str(error).replace("--root", "root=").replace("--images", "extra=")
        convert = " DICOM files are converted first: dinov2 preprocess." if "none of the" in text else ""
        raise ManifestError(f"{name}: {text}{convert}") from None
    for remark in built.remarks:
        log.warning("%s: %s", name, remark)
    if built.num_absent:
        log.warning("%s: %d rows of its tables have no picture on disk; left out.", name, built.num_absent)
    return built.manifest


def _source(name: str, manifest: Manifest, findings: Sequence[str], *, blank: float = float("nan")) -> Source:
    return Source(
        name=name,
        manifest=manifest,
        pictures=Films(manifest),
        labels=tuple(label_name(finding) for finding in findings),
        classes=tuple(findings),
        blank=blank,
    )


def _nih_splits(manifest: Manifest, root: Path) -> pa.Array:
    """The lists of a split in three where they are there; else the last of train_val_list.txt are validation."""
    images = pc.replace_substring_regex(manifest.table.column("image"), pattern="^.*/", replacement="")
    tables = Tables(root)
    three = {split: tables.lines(file) for split, file in NIH_LISTS.items()}
    stated = manifest.table.column("split")
    if three["val"] is not None:
        val = three["val"]
        train = three["train"]
        listed = pc.is_in(images, value_set=train) if train is not None else pc.equal(stated, "train_val")
        split = pc.if_else(listed, "train", stated)
        return pc.if_else(pc.is_in(images, value_set=val), "val", split).combine_chunks()
    lines = tables.lines(NIH_TRAINING)
    if lines is None:
        raise ManifestError(
            f"NIHChestXray: {root} has no train_val_list.txt and test_list.txt (nor train_list.txt and val_list.txt); "
            "they say which films are train and test, and ship with the dataset. Put them beside its table."
        )
    num_val = round(NIH_VAL / NIH_LISTED * len(lines))  # of the whole list: 10,002
    val = _whole_patients(lines, num_val=num_val)
    split = pc.if_else(pc.equal(stated, "train_val"), "train", stated)
    return pc.if_else(pc.is_in(images, value_set=val), "val", split).combine_chunks()


def _whole_patients(lines: pa.Array, *, num_val: int) -> pa.Array:
    """The last lines, less those of a patient who begins before them: the list is in the order of patients."""
    first = len(lines) - num_val
    if num_val == 0 or first == 0:
        return lines.slice(first)
    train = pc.unique(pc.utf8_slice_codeunits(lines.slice(0, first), 0, 8))  # 00000013_005.png: patient 00000013
    shared = pc.is_in(pc.utf8_slice_codeunits(lines.slice(first), 0, 8), value_set=train)
    count = pc.sum(shared).as_py() or 0
    if count:
        log.warning(
            "NIHChestXray: %d films at the end of the list are of patients before it; they stay in train.", count
        )
    return lines.slice(first).filter(pc.invert(shared))
