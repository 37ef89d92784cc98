"""The door between `preprocess` and `data`: one row per picture, as an Arrow table with its folder."""

from dinov2.manifest.table import (
    COLUMNS,
    IMAGE_SUFFIXES,
    SYNONYMS,
    Manifest,
    from_folder,
    from_rows,
    read,
    read_id_list,
)

__all__ = ["COLUMNS", "IMAGE_SUFFIXES", "SYNONYMS", "Manifest", "from_folder", "from_rows", "read", "read_id_list"]
