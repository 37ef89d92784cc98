"""What is asked of a public dataset.

In: nothing. Out: the type.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Request:
    """A dataset's folder, and what its reader may have to know beyond it."""

    root: Path
    extra: Path | None = None  # where the pictures are, if not below root; or the pickles of a split
    views: tuple[str, ...] = ()  # that were named; a dataset that is usually frontal films only then gives all
    segmentation: bool = False

    @property
    def pictures(self) -> Path:
        """The folder of the pictures."""
        return self.extra or self.root
