"""The door between `preprocess` and `data`: one row per picture, as an Arrow table with its folder."""

from dinov2.manifest.columns import COLUMNS, PLACES, SYNONYMS
from dinov2.manifest.place import Place
from dinov2.manifest.reading import IMAGE_SUFFIXES, from_folder, read, read_id_list
from dinov2.manifest.table import Manifest, from_rows
from dinov2.manifest.writer import ManifestWriter

__all__ = [
    "COLUMNS",
    "IMAGE_SUFFIXES",
    "PLACES",
    "SYNONYMS",
    "Manifest",
    "ManifestWriter",
    "Place",
    "from_folder",
    "from_rows",
    "read",
    "read_id_list",
]
