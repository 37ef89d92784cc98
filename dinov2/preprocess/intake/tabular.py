"""CSV and Parquet files from elsewhere: their columns, one column in batches, or all of them.

In: a path. Out: names, texts, Arrow tables. Comma, semicolon and tab are told apart by the header. What Arrow says of a
faulty line quotes it, so only the line's number is passed on.
"""

import gzip
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dinov2.errors import ManifestError

DELIMITERS = ",;\t"
BLOCK_BYTES = 4 << 20
BATCH_ROWS = 65_536


def column_names(path: Path) -> list[str]:
    """The header.  Raises ManifestError where the file is absent, no table, or has two columns of one name."""
    if not path.is_file():
        raise ManifestError(f"{path}: no such table. Give a CSV or Parquet file.")
    with _reading(path):
        if _is_parquet(path):
            names = list(pq.read_schema(path).names)
        else:
            with _open_csv(path, types={}) as reader:
                names = list(reader.schema.names)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ManifestError(f"{path}: several columns are called {', '.join(twice)}. Rename all but one of each.")
    return names


def iter_texts(path: Path, column: str) -> Iterator[list[str | None]]:
    """One column as text, batch by batch; memory does not grow with the file."""
    with _reading(path):
        if _is_parquet(path):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[column]):
                    yield batch.column(0).cast(pa.string()).to_pylist()
        else:
            with _open_csv(path, types={column: pa.string()}, only=column) as reader:
                for batch in reader:
                    yield batch.column(0).to_pylist()


def read_columns(path: Path, *, texts: frozenset[str]) -> pa.Table:
    """All columns; `texts` stay text, so that patient 007 is not patient 7."""
    with _reading(path):
        if not _is_parquet(path):
            options = pa_csv.ConvertOptions(
                column_types=dict.fromkeys(sorted(texts), pa.string()), strings_can_be_null=True
            )
            return pa_csv.read_csv(path, _read_options(), _parse_options(path), options)
        table = pq.read_table(path)
        for place, name in enumerate(table.column_names):
            if name in texts:
                table = table.set_column(place, name, table.column(name).cast(pa.string()))
        return table


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _open_csv(path: Path, *, types: Mapping[str, pa.DataType], only: str = "") -> pa_csv.CSVStreamingReader:
    options = pa_csv.ConvertOptions(
        column_types=dict(types), include_columns=[only] if only else [], strings_can_be_null=True
    )
    return pa_csv.open_csv(path, _read_options(), _parse_options(path), options)


def _read_options() -> pa_csv.ReadOptions:
    return pa_csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False)  # one thread: it counts the lines


def _parse_options(path: Path) -> pa_csv.ParseOptions:
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as stream:
        header = stream.readline(1 << 20).decode("utf-8", "replace")
    delimiter = max(DELIMITERS, key=header.count)
    return pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        kind = "Parquet" if _is_parquet(path) else "CSV"
        raise ManifestError(f"{path}: not a readable {kind} file ({_cause(error)}). Write it again.") from None


def _cause(error: BaseException) -> str:
    """What is wrong, in words that hold no cell of the file."""
    text = str(error)
    if line := re.search(r"Row #\d+: Expected \d+ columns, got \d+", text):
        return line[0]
    if "UTF8" in text:
        return "it is not UTF-8 text"
    return "it is empty" if "Empty CSV file" in text else type(error).__name__
