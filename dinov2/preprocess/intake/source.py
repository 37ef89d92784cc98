"""One input file: where its bytes are, and how it is told apart from others.

In: a path, perhaps with a place inside an archive. Out: a `Source`, which a worker process can read by itself.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input file; size and time of change tell whether it is still the one that was converted."""

    relative: str  # below the input, with forward slashes; a member of an archive follows it after "!/"
    path: Path  # of the file, or of the archive
    size: int  # bytes
    mtime_ns: int  # of the file, or of the archive

    @property
    def shown(self) -> str:
        """The relative path as text: bytes of a name that are no UTF-8 become the replacement character."""
        return self.relative.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def read(self, *, max_bytes: int) -> bytes:
        """The content.  Raises OSError where it cannot be opened."""
        del max_bytes
        return self.path.read_bytes()
