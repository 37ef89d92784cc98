"""What a finished conversion says of itself.

In: counts. Out: a `Summary` with the sentences that the command shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dinov2.errors import DataError
from dinov2.preprocess.intake.names import Why
from dinov2.preprocess.reasons import Flag, Reason


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of a finished conversion, earlier runs into the same folder included."""

    num_files: int
    num_pictures: int
    reasons: Mapping[Reason, int]
    flags: Mapping[Flag, int]
    skipped: Mapping[Why, int]  # never looked at
    num_gone: int  # pictures of earlier runs whose input file is gone
    num_unmatched: int  # pictures without a row in a table that was given
    num_unlike: int  # duplicates by UID whose picture is another than the kept one's
    manifest: Path
    rejected: Path
    crosswalk: Path | None
    key: Path

    @property
    def num_faults(self) -> int:
        """Rejects that no filter and no duplicate accounts for."""
        return sum(count for reason, count in self.reasons.items() if reason.kind == "fault")

    def check(self, *, max_rejected_share: float) -> None:
        """Raise DataError where no picture was made, or the share of faults is above the one allowed."""
        if not self.num_files:
            return  # a share of a small archive may be empty
        if not self.num_pictures:
            raise DataError(f"no file became a picture. {self.rejected} has the reason of each.")
        share = self.num_faults / (self.num_faults + self.num_pictures)
        if share > max_rejected_share:
            raise DataError(
                f"{self.num_faults} files ({share:.1%} of those that no filter excluded) could not be used; allowed is "
                f"{max_rejected_share:.1%}. Everything is written; {self.rejected} has the reason of each. "
                "Mend the files, or raise max_rejected_share."
            )

    def remarks(self) -> tuple[str, ...]:
        """What the counts by reason do not say."""
        lines = (
            *((count, str(why)) for why, count in self.skipped.items()),
            (self.num_gone, "pictures of earlier runs are in images/ but not in the manifest: their input is gone"),
            (self.num_unmatched, "pictures have no row in the table"),
            (self.num_unlike, "duplicates by UID show another picture than the one kept; look at both"),
        )
        return tuple(f"{count} {text}" for count, text in lines if count)
