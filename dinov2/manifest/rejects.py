"""`rejected.csv`: the inputs that did not become a picture.

In: files of several folders, and further rejects. Out: one file that appears whole or not at all, streamed.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dinov2.errors import ManifestError

REJECTED = "rejected.csv"


@dataclass(frozen=True)
class Reject:
    """An input and why it is no picture; `reason` is a code of `dinov2.preprocess.reasons`."""

    file: str
    reason: str
    message: str


def write_joined(paths: Sequence[Path], more: Iterable[Reject], *, output: Path) -> int:
    """Write the rejects of all `paths` in order, then `more`, to `output`.  -> their number

    Raises ManifestError where a file is no such table, OSError where the disk takes nothing more.
    """
    columns = list(dict.fromkeys([*Reject.__dataclass_fields__, *(name for path in paths for name in _header(path))]))
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    count = 0
    try:
        with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            table = csv.DictWriter(stream, fieldnames=columns, restval="", lineterminator="\n")
            table.writeheader()
            for path in paths:
                with path.open(newline="", encoding="utf-8", errors="surrogateescape") as source:
                    for row in csv.DictReader(source):
                        row.pop(None, None)  # cells beyond the header
                        table.writerow(row)
                        count += 1
            for reject in more:
                table.writerow(asdict(reject))
                count += 1
        partial.replace(output)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return count


def _header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        header = next(csv.reader(stream), [])
    if "reason" not in header:
        raise ManifestError(f"{path}: has no column 'reason', so it is no list of rejects. Move it elsewhere.")
    return header
