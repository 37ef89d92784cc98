"""What is done already: a line per input file, so that an interrupted conversion continues where it stopped.

In: the state folder of an output. Out: a `Journal` that knows finished inputs by (name, size, time of change). The
settings are checked once for the whole folder by `shelf`. The last line of a name counts; a last line that was cut is
ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.work.task import Outcome


@dataclass(frozen=True)
class Entry:
    """What is known of one input file."""

    size: int
    mtime_ns: int
    outcome: Outcome

    def is_of(self, source: Source) -> bool:
        """Whether the file is still the one that this entry is about."""
        return (self.size, self.mtime_ns) == (source.size, source.mtime_ns)


class Journal:
    """Entries by name, kept in memory and appended to a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        """Read what is there; nothing is written until `add`."""
        self.path = path
        self.entries: dict[str, Entry] = {}
        self._stream: IO[str] | None = None
        if path.is_file():
            self._read()

    def add(self, source: Source, outcome: Outcome) -> None:
        """Note an outcome; it is in the file when this returns."""
        self.entries[outcome.name] = Entry(source.size, source.mtime_ns, outcome)
        if self._stream is None:
            self._mend_last_line()
            self._stream = self.path.open("a", encoding="utf-8")
        line = {"size": source.size, "mtime_ns": source.mtime_ns, **asdict(outcome)}
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()

    def drop(self, name: str) -> None:
        """Forget an entry, so that its file is converted again."""
        del self.entries[name]

    def close(self) -> None:
        """Close the file; `add` would open it again."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()

    def _read(self) -> None:
        with self.path.open(encoding="utf-8") as stream:
            for line in stream:
                try:
                    values: Mapping[str, Any] = json.loads(line)
                    size, mtime_ns = values["size"], values["mtime_ns"]
                    outcome = Outcome(
                        **{key: value for key, value in values.items() if key not in ("size", "mtime_ns")}
                    )
                except (ValueError, KeyError, TypeError):
                    continue  # cut by a full disk or a kill: that file is converted again
                self.entries[outcome.name] = Entry(size, mtime_ns, outcome)

    def _mend_last_line(self) -> None:
        """End a line that was cut, so that the next one stands alone."""
        if self.path.is_file() and self.path.stat().st_size:
            with self.path.open("rb+") as stream:
                stream.seek(-1, 2)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")
