"""What a dataset's layout is: the tables that it ships, where its pictures are, and how the two become rows.

In: nothing. Out: the types. Each dataset has a file of its own beside this one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from dinov2.layouts.tables import TableFile, Tables

__all__ = ["DICOM", "RASTER", "Layout", "TableFile", "Tables"]
DICOM = (".dcm", ".dicom", "")
RASTER = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One public dataset, as one of its releases lies on disk."""

    name: str
    dataset: str  # in the manifest; two layouts of one dataset share it, and so their patients
    summary: str  # one line
    tables: tuple[TableFile, ...]
    suffixes: tuple[str, ...]  # of the pictures
    key_depth: int  # parts at the end of a picture's path, suffix left out, that no two pictures share
    labels: str  # what 1, 0, -1 and null of its label columns mean
    read: Callable[[Tables], pa.Table]  # a row per picture: image (as shipped), image_id and whatever is known
