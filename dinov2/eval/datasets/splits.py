"""Which rows are train, val and test.

In: a manifest's column `split`, and what its values are called. Out: row numbers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.eval.examples import SPLITS
from dinov2.manifest import Manifest

Rows = NDArray[np.int64]
SYNONYMS: Mapping[str, frozenset[str]] = {
    "train": frozenset({"train", "training", "tr"}),
    "val": frozenset({"val", "valid", "validate", "validation", "va"}),
    "test": frozenset({"test", "testing", "ts"}),
}
MAX_LISTED = 12


def values_of(manifest: Manifest, column: str) -> NDArray[np.str_]:
    """[N] lower-case texts of a column, empty where nothing is stated."""
    values = (
        manifest.table.column(column).to_pylist() if column in manifest.table.column_names else [None] * len(manifest)
    )
    return np.asarray(["" if value is None else str(value).strip().lower() for value in values], dtype=np.str_)


def rows_of_split(manifest: Manifest, *, split: str, named: str) -> Rows:
    """Rows whose split is `named`; the role's own name (train, val, test) also finds its synonyms."""
    wanted = SYNONYMS[split] if named.lower() == split else {named.lower()}
    return np.flatnonzero(np.isin(values_of(manifest, "split"), sorted(wanted)))


def role_of(word: str) -> str | None:
    """train, val or test for a word that means one of them."""
    return next((split for split in SPLITS if word.lower() in SYNONYMS[split]), None)


def rows_of_views(manifest: Manifest, views: Sequence[str], *, name: str) -> NDArray[np.bool_]:
    """[N] whether the view is among these, in any letters.  Raises ManifestError where no row is left."""
    if not views:
        return np.ones(len(manifest), dtype=bool)
    present = values_of(manifest, "view")
    kept = np.isin(present, sorted({view.lower() for view in views}))
    if not kept.any():
        listed = ", ".join(sorted({str(value).upper() or "(none)" for value in present})[:MAX_LISTED])
        raise ManifestError(f"{name}: no picture has a view in {', '.join(views)}; present are {listed}.")
    return np.asarray(kept, dtype=bool)


def names_of_splits(manifest: Manifest) -> str:
    """The values of the column `split`, for messages."""
    present = sorted({str(value) for value in values_of(manifest, "split")} - {""})
    return ", ".join(present[:MAX_LISTED]) + (", ..." if len(present) > MAX_LISTED else "")
