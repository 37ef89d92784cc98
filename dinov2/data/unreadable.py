"""Counts pictures that cannot be read, and stops the run when there are too many.

In: the `replaced` of each batch. Out: a warning the first time a file is seen, and DataError above the stated share.
"""

import logging
from collections.abc import Iterable, Mapping

from dinov2.batch import Replaced
from dinov2.errors import DataError

NUM_NAMED = 5

log = logging.getLogger(__name__)


class UnreadableCounter:
    """Distinct unreadable files against the pictures of the manifest."""

    def __init__(self, num_pictures: int, *, max_share: float, warns: bool = True) -> None:
        self.warns = warns  # one process of several is enough
        self.num_pictures = num_pictures
        self.max_share = max_share
        self.files: dict[str, str] = {}  # path -> reason

    @property
    def share(self) -> float:
        """Distinct unreadable files / pictures of the manifest."""
        return len(self.files) / self.num_pictures

    def add(self, replaced: Iterable[Replaced]) -> None:
        """Count; warn of files not seen before.  Raises DataError where the share is above `max_share`."""
        self.merge({bad.path: bad.reason for bad in replaced})

    def merge(self, files: Mapping[str, str]) -> None:
        """Count files (path -> reason) that were seen here or by another process, and warn and raise as `add`."""
        before = len(self.files)
        for path, reason in files.items():
            if path not in self.files:
                self.files[path] = reason
                if self.warns:
                    log.warning("%s cannot be read (%s); its neighbour in the stream takes its place.", path, reason)
        if len(self.files) > before and self.share > self.max_share:
            named = "; ".join(f"{path}: {reason}" for path, reason in list(self.files.items())[:NUM_NAMED])
            more = len(self.files) - NUM_NAMED
            raise DataError(
                f"{len(self.files)} of {self.num_pictures} pictures cannot be read ({self.share:.2%}), more than "
                f"data.max_unreadable_share={self.max_share:g} allows: {named}{f'; and {more} more' * (more > 0)}. "
                "Repair or exclude them (data.exclude=FILES.csv), or raise data.max_unreadable_share."
            )
