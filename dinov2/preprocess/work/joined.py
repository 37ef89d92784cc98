"""What the user's tables add to the rows of the manifest.

In: the list that was the input, and the table given beside it. Out: values per input file, ready for a manifest:
patients and studies under names like those of the headers, personal columns left out.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinov2.errors import ManifestError
from dinov2.preprocess.intake.names import is_list
from dinov2.preprocess.intake.table import TAKEN, FilmTable, read_table
from dinov2.preprocess.work.identity import Identity

NAMED = ("patient", "study")  # values that become HMACs
NUM_NAMED = 20  # columns that are written out


@dataclass(frozen=True)
class Found:
    """What the tables know of one file."""

    values: Mapping[str, Any]  # columns of the manifest
    patient: str = field(default="", repr=False)  # as the table says; for the crosswalk alone
    study: str = field(default="", repr=False)


@dataclass(frozen=True)
class Tables:
    """The tables of one conversion; of two that speak of a file, the later one counts."""

    tables: tuple[FilmTable, ...]

    @property
    def extra(self) -> dict[str, pa.DataType]:
        """Columns that the manifest gets from them."""
        return {name: kind for table in self.tables for name, kind in table.types.items() if name not in TAKEN}

    def find(
        self, relatives: Sequence[str], *, identity: Identity, shown: Callable[[str], str] | None
    ) -> list[Found | None]:
        """What is known of each of many files; None where no table has a row.

        Raises ManifestError where two rows of a table fit a file equally.
        """
        found: list[Found | None] = [None] * len(relatives)
        for table in self.tables:
            for place, values in enumerate(table.find_many(relatives, shown=shown)):
                if values is not None:
                    found[place] = _merged(found[place], values, identity=identity)
        return found

    def match(self, relatives: Sequence[str], *, shown: Callable[[str], str] | None) -> list[bool]:
        """Whether each table has a row for any of these files.  Raises as `find`."""
        return [bool((table.rows_of(relatives, shown=shown) >= 0).any()) for table in self.tables]

    def refuse_strangers(self, matched: Sequence[bool]) -> None:
        """Raise ManifestError for a table of which no row named an input file."""
        for table, fits in zip(self.tables, matched, strict=True):
            if not fits:
                raise ManifestError(
                    f"{table.path}: none of its {table.num_rows} rows names a file of the input. Write the paths "
                    "relative to --input."
                )

    def remarks(self) -> list[str]:
        """Which columns come along, and which were left out."""
        lines = []
        for table in self.tables:
            if table.columns_kept:
                more = len(table.columns_kept) - NUM_NAMED
                named = ", ".join(table.columns_kept[:NUM_NAMED])
                lines.append(f"{table.path}: columns taken along: {named}{f' and {more} more' if more > 0 else ''}")
            if table.columns_left_out:
                lines.append(
                    f"{table.path}: columns left out because they look like names, ids or dates: "
                    f"{', '.join(table.columns_left_out)}. privacy.keep_columns=[NAME] takes one along."
                )
        return lines


def read_tables(given: Path, *, table: Path | None, keep_columns: Sequence[str]) -> Tables:
    """The tables of an input: itself where it is a list, and the one beside it.

    Raises ManifestError where one is no table, or none has a column that is to be kept.
    """
    paths = [path for path in (given if given.is_file() and is_list(given.name) else None, table) if path is not None]
    tables = tuple(read_table(path, keep_columns=keep_columns) for path in paths)
    present = [name for each in tables for name in each.names]
    absent = [name for name in keep_columns if name.lower() not in {column.lower() for column in present}]
    if absent:
        near = difflib.get_close_matches(absent[0], present, n=1)
        hint = (
            f"Perhaps {near[0]}?" if near else f"Columns present: {', '.join(present) or 'none, as no table is given'}."
        )
        raise ManifestError(f"privacy.keep_columns: no table has a column {absent[0]!r}. {hint}")
    return Tables(tables)


def _merged(before: Found | None, values: Mapping[str, Any], *, identity: Identity) -> Found:
    said = {key: value for key, value in values.items() if key not in TAKEN}
    taken = {key: text for key in TAKEN if (text := str(values[key] if values.get(key) is not None else "").strip())}
    originals = {key: taken[key] for key in NAMED if key in taken}
    taken |= {key: identity.name(key, text) for key, text in originals.items()}
    earlier = before or Found({})
    return Found(
        {**earlier.values, **said, **taken},
        patient=originals.get("patient", earlier.patient),
        study=originals.get("study", earlier.study),
    )
