"""Columns of a table as colours of a map.

In: an Arrow table of N rows. Out: `Category` (a code a row) and `Number` (a value a row), missing ones marked; columns
that cannot colour anything, with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dinov2.errors import ConfigError

MISSING = 65_535  # code of a film whose cell is empty
MOST_NAMES = 5_000  # values of a category that the page can name
FEW_NUMBERS = 12  # numbers with no more values than this are categories
MOST_SHARE = 0.5  # a text with more values than this share of the films names films rather than groups
ALWAYS_NAMED = 64  # ... but in a small table
TAILS = (2.0, 98.0)  # percentiles between which the colours of numbers spread
FIRST_CHOICES = ("view", "split", "dataset", "sex")
LONGEST_NAME = 120


@dataclass(frozen=True)
class Category:
    """A column of few values."""

    name: str
    values: tuple[str, ...]  # by their number of films, or in order where they are numbers
    codes: NDArray[np.uint16]  # [N] index of `values`, or MISSING


@dataclass(frozen=True)
class Number:
    """A column of measurements."""

    name: str
    values: NDArray[np.float32]  # [N], NaN where missing
    low: float  # where colours begin ...
    high: float  # ... and end


Colouring = Category | Number


def colourings(table: pa.Table) -> tuple[tuple[Colouring, ...], dict[str, str]]:
    """Every column that can colour a map, and why the others cannot, by name."""
    found: list[Colouring] = []
    refused: dict[str, str] = {}
    for name in table.column_names:
        made = _colouring(name, table.column(name))
        if isinstance(made, str):
            refused[name] = made
        else:
            found.append(made)
    return tuple(found), refused


def choose(found: Sequence[Colouring], refused: dict[str, str], *, asked: str | None) -> str:
    """The column that colours the map first; empty where there is none.  Raises ConfigError for one that cannot."""
    names = [one.name for one in found]
    if asked is None:
        return next((name for name in FIRST_CHOICES if name in names), names[0] if names else "")
    if asked in names:
        return asked
    reason = f"column {asked} {refused[asked]}" if asked in refused else f"no column {asked}"
    offer = f"Choose one of {', '.join(names)}." if names else "Columns come with --manifest."
    raise ConfigError(f"--color-by {asked}: {reason}. {offer}")


def _colouring(name: str, column: pa.ChunkedArray) -> Colouring | str:
    """A colouring, or why there is none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "holds no single value a film"
    if column.null_count == len(column):
        return "is empty"
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if is_number:
        given = np.asarray(column.cast(pa.float64(), safe=False), dtype=np.float64)
        values = np.where(np.isfinite(given), given, np.nan)
        present = np.unique(values[~np.isnan(values)])
        if not len(present):
            return "is empty"
        if len(present) > FEW_NUMBERS:
            return _number(name, values)
        return _few_numbers(name, values, present)
    return _category(name, column.cast(pa.string()))


def _number(name: str, values: NDArray[np.float64]) -> Number:
    low, high = (float(value) for value in np.nanpercentile(values, TAILS))
    if low == high:  # nearly all films share one value
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return Number(name, values.astype(np.float32), low, high)


def _few_numbers(name: str, values: NDArray[np.float64], present: NDArray[np.float64]) -> Category:
    codes = np.where(np.isnan(values), MISSING, np.searchsorted(present, values)).astype(np.uint16)
    return Category(name, tuple(f"{value:g}" for value in present), codes)


def _category(name: str, column: pa.ChunkedArray) -> Category | str:
    column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    counted = pc.value_counts(column.drop_null())
    if not len(counted):
        return "is empty"
    if len(counted) > min(MOST_NAMES, max(ALWAYS_NAMED, MOST_SHARE * len(column))):
        return f"has {len(counted):,} values for {len(column):,} films: it names films, not groups"
    pairs = sorted(zip(counted.field("counts").to_pylist(), counted.field("values").to_pylist(), strict=True))
    ordered = [value for _, value in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))]
    codes = pc.fill_null(pc.index_in(column, value_set=pa.array(ordered, pa.string())), MISSING)
    return Category(
        name, tuple(value[:LONGEST_NAME] for value in ordered), np.asarray(codes.combine_chunks(), dtype=np.uint16)
    )
