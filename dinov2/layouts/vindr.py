"""VinDr-CXR and VinDr-PCXR 1.0.0 (PhysioNet; Nguyen et al., Scientific Data 2022; Pham et al., 2022).

In: a table per split, with a row per film and radiologist. Out: a row per film; the labels are what most of its
radiologists said (two of three in VinDr-CXR's training films, the consensus of five in its test films, one in
VinDr-PCXR). The releases do not say which films are of one patient.
"""

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.layouts.columns import constant, label_name
from dinov2.layouts.layout import DICOM, Layout, TableFile, Tables

READERS = ("rad_id", "rad_ID")


def _tables(ships: str) -> tuple[TableFile, TableFile]:
    train, test = (
        TableFile(
            names=(f"image_labels_{split}.csv",),
            columns=("image_id",),
            ships=f"{ships}, in annotations/ or beside the pictures",
            gives=f"picture of the split {split}",
            optional=split == "test",
        )
        for split in ("train", "test")
    )
    return train, test


def _read(tables: Tables, *, files: tuple[TableFile, TableFile]) -> pa.Table:
    parts = []
    for file, split in zip(files, ("train", "test"), strict=True):
        votes = tables.read_wide(file, texts=("image_id", *READERS))
        if votes is not None:
            parts.append(_films(votes, split=split))
    return pa.concat_tables(parts, promote_options="default")


def _films(votes: pa.Table, *, split: str) -> pa.Table:
    findings = [name for name in votes.column_names if name not in ("image_id", *READERS)]
    means = votes.group_by("image_id", use_threads=False).aggregate([(finding, "mean") for finding in findings])
    name = means.column("image_id")
    labels = {
        # the two splits of VinDr-CXR spell this one differently
        label_name("Other disease" if finding == "Other diseases" else finding): pc.cast(
            pc.greater(means.column(f"{finding}_mean"), 0.5), pa.float32()
        )
        for finding in findings
    }
    image = pc.binary_join_element_wise(f"{split}/", name, ".dicom", "")
    return pa.table({"image": image, "image_id": name, "split": constant(split, num_rows=len(name)), **labels})


def _layout(name: str, *, ships: str, summary: str) -> Layout:
    files = _tables(ships)
    return Layout(
        name=name,
        dataset=name,
        summary=summary,
        tables=files,
        suffixes=DICOM,
        key_depth=1,
        labels="1 said by more than half of the film's radiologists, 0 not; never -1 or null",
        read=lambda tables: _read(tables, files=files),
    )


ADULTS = _layout(
    "vindr-cxr", ships="VinDr-CXR", summary="VinDr-CXR: 18,000 frontal DICOM files (PhysioNet, credentialed access)"
)
CHILDREN = _layout(
    "vindr-pcxr",
    ships="VinDr-PCXR",
    summary="VinDr-PCXR: 9,125 DICOM files of children (PhysioNet, credentialed access)",
)
