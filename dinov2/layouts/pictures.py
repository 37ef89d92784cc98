"""Which pictures of a dataset are on disk.

In: a folder, and paths as a table has them. Out: the path of each picture below the folder, null where it is absent.
The folder is listed once; nothing is looked at picture by picture. Two paths are one picture where their last parts
agree, so a copy in another place or with another suffix (converted, resized) is found as well.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.errors import ManifestError

KNOWN = (".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
SUFFIX = re.compile(r"\.(dcm|dicom|png|jpe?g|tiff?)$", re.IGNORECASE)


def list_pictures(folder: Path, *, suffixes: Collection[str]) -> pa.Array:
    """Every file with one of these suffixes ("" for none at all), relative to the folder, sorted; hidden ones not."""
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder. Give the folder that holds the dataset's pictures.")
    found: list[str] = []
    start = len(os.path.join(folder, ""))  # noqa: PTH118
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [f"{parent}/{name}"[start:] for name in names if _suffix(name) in suffixes and name[0] != "."]
    return pa.array(sorted(found), pa.string())


def locate(shipped: pa.ChunkedArray, *, pictures: pa.Array, depth: int) -> tuple[pa.ChunkedArray, int]:
    """The picture of each shipped path, and how many pictures no path names; of two with one key the first is taken."""
    places = pc.index_in(keys(shipped, depth=depth), value_set=keys(pictures, depth=depth))
    num_named = pc.count_distinct(places, mode="only_valid").as_py()
    return pictures.take(places), len(pictures) - num_named


def keys(paths: pa.ChunkedArray, *, depth: int) -> pa.ChunkedArray:
    """The last `depth` parts of each path, without a picture's suffix."""
    stems = pc.replace_substring_regex(paths, pattern=f"(?i){SUFFIX.pattern}", replacement="")
    pattern = rf"^.*/([^/]+{'/[^/]+' * (depth - 1)})$"
    return pc.replace_substring_regex(stems, pattern=pattern, replacement=r"\1")


def _suffix(name: str) -> str:
    """A known suffix in lower case, "" where there is no dot at all, else something that is in no list."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in KNOWN or "." not in name else "other"
