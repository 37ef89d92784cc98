"""From the words of a dataset to those of a manifest: sex, age, view, label names.

In: Arrow columns. Out: Arrow columns.
"""

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

MAX_AGE = 120  # years; above it a typing error, of which NIH's table has some
# The 14 observations of the CheXpert labeller, which MIMIC-CXR and BRAX use too (Irvin et al., AAAI 2019).
CHEXPERT_FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
CHEXPERT_LABELS = "1 positive, 0 negative, -1 uncertain, null not mentioned in the report (machine-read)"


def label_name(finding: str, *, prefix: str = "label") -> str:
    """`Pleural Effusion` -> `label_pleural_effusion`."""
    return f"{prefix}_{re.sub(r'[^a-z0-9]+', '_', finding.strip().lower()).strip('_')}"


def labels_of(table: pa.Table, findings: Iterable[str], *, prefix: str = "label") -> dict[str, pa.ChunkedArray]:
    """The columns of these findings under their label names."""
    return {label_name(finding, prefix=prefix): table.column(finding) for finding in findings}


def sex(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """F, M or O; null for anything else."""
    letter = pc.utf8_upper(pc.utf8_slice_codeunits(column, 0, 1))
    return pc.if_else(pc.is_in(letter, value_set=pa.array(["F", "M", "O"])), letter, pa.scalar(None, pa.string()))


def age(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Years, int16, from the digits that a text starts with: 58, 058Y, 58.0, `89 or more`."""
    digits = pc.struct_field(pc.extract_regex(column, r"^\s*0*(?P<years>\d{1,4})"), "years")
    return plausible_age(pc.cast(digits, pa.int16()))


def plausible_age(years: pa.ChunkedArray) -> pa.ChunkedArray:
    """Null where it is below 0 or above `MAX_AGE`."""
    fits = pc.and_(pc.greater_equal(years, 0), pc.less_equal(years, MAX_AGE))
    return pc.if_else(fits, years, pa.scalar(None, years.type))


def view(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Upper case; L and LATERAL are LATERAL, AP_HORIZONTAL is AP, an empty cell is null."""
    upper = pc.utf8_upper(pc.utf8_trim_whitespace(column))
    for pattern, replacement in ((r"^L$", "LATERAL"), (r"^AP_HORIZONTAL$", "AP")):
        upper = pc.replace_substring_regex(upper, pattern=pattern, replacement=replacement)
    return pc.if_else(pc.equal(upper, ""), pa.scalar(None, pa.string()), upper)


def constant(value: str, *, num_rows: int) -> pa.Array:
    """One text in every row."""
    return pa.repeat(pa.scalar(value, pa.string()), num_rows)
