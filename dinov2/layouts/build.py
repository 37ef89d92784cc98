"""A dataset's folder becomes a manifest.

In: the name of a layout and the folder of the dataset. Out: a `Manifest` whose rows are the table's rows with a picture
on disk, in the table's order, and what there is to say about it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.errors import ManifestError
from dinov2.layouts import brax, chexpert, mimic, nih, padchest, vindr
from dinov2.layouts.columns import constant
from dinov2.layouts.layout import Layout
from dinov2.layouts.pictures import KNOWN, list_pictures, locate
from dinov2.layouts.tables import Tables
from dinov2.manifest import COLUMNS, Manifest

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        mimic.DICOM_FILES,
        mimic.JPG_FILES,
        chexpert.LAYOUT,
        nih.LAYOUT,
        padchest.LAYOUT,
        brax.DICOM_FILES,
        brax.PNG_FILES,
        vindr.ADULTS,
        vindr.CHILDREN,
    )
}


@dataclass(frozen=True, kw_only=True)
class Built:
    """A manifest and how it came about."""

    manifest: Manifest  # its root is the folder of the pictures
    num_absent: int  # rows of the table without a picture; they are not in the manifest unless asked for
    num_unnamed: int  # pictures that no row names
    remarks: tuple[str, ...]  # optional tables that are not there, rows left out


def build(
    name: str,
    root: Path,
    *,
    images: Path | None = None,
    keep_absent: bool = False,
    suffixes: Collection[str] | None = None,
) -> Built:
    """The manifest of a public dataset.

    `root` holds its tables, and its pictures unless they are in `images`, where copies with other suffixes are found
    too. With `keep_absent` rows without a picture stay, with the path that the dataset gives it. `suffixes`: only
    pictures with these, wherever they are.

    Raises ManifestError where the layout is unknown, a table or column is missing, or no picture is found.
    """
    if name not in LAYOUTS:
        raise ManifestError(f"no layout is called {name}; there are {', '.join(LAYOUTS)}.")
    layout, folder = LAYOUTS[name], images or root
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder. Give the folder that holds the tables of {name} as --root.")
    tables = Tables(root)
    rows = layout.read(tables)
    looked_for = suffixes or ((*KNOWN, "") if images else layout.suffixes)
    pictures = list_pictures(folder, suffixes=looked_for)
    found, num_unnamed = locate(rows.column("image"), pictures=pictures, depth=layout.key_depth)
    if found.null_count == len(rows):
        anything = images and not suffixes
        wanted = "any kind" if anything else " or ".join(suffix or "no suffix" for suffix in looked_for)
        raise ManifestError(
            f"{folder}: none of the {len(rows):,} pictures of {name} is there (looked for {wanted}, subfolders "
            "too; archives are to be unpacked first). Give their folder as --images."
        )
    if keep_absent:
        image = pc.coalesce(found, rows.column("image"))
    else:
        present = pc.is_valid(found)
        image, rows = found.filter(present), rows.filter(present)
    return Built(
        manifest=Manifest(_standard(rows, image=image, dataset=layout.dataset), folder),
        num_absent=found.null_count,
        num_unnamed=num_unnamed,
        remarks=tuple(tables.remarks),
    )


def _standard(rows: pa.Table, *, image: pa.ChunkedArray, dataset: str) -> pa.Table:
    """All columns of a manifest, then those that the dataset has beyond them."""
    known = {name: rows.column(name) for name in rows.column_names}
    known |= {"image": image, "source": image, "dataset": constant(dataset, num_rows=len(rows))}
    columns = {
        name: pc.cast(known.pop(name), kind) if name in known else pa.nulls(len(rows), kind)
        for name, kind in COLUMNS.items()
    }
    return pa.table({**columns, **known})
