"""Where the inputs are that became no picture, for whoever wants to look at them.

In: the private folder of a conversion, or of one in shares. Out: a few sources per reason. Nothing is changed, and a
conversion may be running.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.reasons import Reason
from dinov2.preprocess.work.places import SHARES, STATE

QUESTION = """
SELECT l.name, l.source, coalesce(p.frame, 1)
FROM listing l JOIN results r USING (name) LEFT JOIN pictures p USING (name)
WHERE r.reason = :reason OR p.refused = :reason ORDER BY l.name LIMIT :limit
"""


@dataclass(frozen=True)
class Rejected:
    """An input without a picture."""

    name: str  # source id, as in rejected.csv and crosswalk.csv
    source: Source
    frame: int  # from 1


def rejected_sources(private: Path, *, per_reason: int) -> Mapping[Reason, tuple[Rejected, ...]]:
    """At most so many inputs per reason, drawn as evenly as their ids are; the same ones each time.

    Empty where the private folder is absent or its database cannot be read now.
    """
    found: dict[Reason, tuple[Rejected, ...]] = {}
    states = [path for path in (private / STATE, *sorted((private / SHARES).glob(f"*/{STATE}"))) if path.is_file()]
    for reason in Reason:
        drawn = [one for path in states for one in _ask(path, reason, limit=per_reason)]
        if drawn:
            found[reason] = tuple(sorted(drawn, key=lambda one: one.name)[:per_reason])
    return found


def _ask(path: Path, reason: Reason, *, limit: int) -> Iterator[Rejected]:
    try:
        base = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro&nolock=1", uri=True)
        try:
            for name, source, frame in base.execute(QUESTION, {"reason": str(reason), "limit": limit}):
                yield Rejected(name, Source.from_text(source), frame)
        finally:
            base.close()
    except sqlite3.Error:
        return  # damaged, or in the middle of being written
