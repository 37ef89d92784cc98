"""What is left to do when every share of a conversion is there: one manifest of them all.

In: the output folder, the key and the configuration that the shares were made with. Out: the command that merges them,
or the merge itself with the judgement over all shares.
"""

import csv
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dinov2.config.preprocess import PreprocessConfig
    from dinov2.preprocess.work.summary import Summary

DUPLICATES = ("duplicate_pixels", "near_duplicate")  # flags that are known only when all shares are


@dataclass(frozen=True)
class Ending:
    """What is left to do when every share is converted: one manifest of them all."""

    output: Path
    key: Path
    config: "PreprocessConfig"

    @property
    def _manifest(self) -> Path:
        return self.output / "manifest.parquet"

    @property
    def _options(self) -> list[str]:
        """Of the settings those that concern duplicates, which are known only over all shares."""
        from dinov2.config.preprocess import Quality

        flags = [flag for flag in self.config.filters.flags if flag in DUPLICATES]
        bits = self.config.quality.near_duplicate_bits
        return [
            *("--output", str(self._manifest)),
            *(("--reject-flags", ",".join(flags)) if flags else ()),
            *(("--near-duplicate-bits", str(bits)) if bits != Quality().near_duplicate_bits else ()),
        ]

    def line(self) -> str:
        """The command for a shell, short where there are many shares."""
        shares = f"{shlex.quote(str(self.output / 'shares'))}/*/manifest.parquet"
        return f"dinov2 manifest merge {shares} {shlex.join(self._options)}"

    def merge(self) -> int:
        """Merges; raises DataError where the share of faults over all is above the one allowed."""
        from dinov2.cli import main

        shares = sorted((self.output / "shares").glob("*/manifest.parquet"))
        code = main(["manifest", "merge", *map(str, shares), *self._options])
        if code == 0:
            self._summary().check(max_rejected_share=self.config.max_rejected_share)
        return code

    def _summary(self) -> "Summary":
        """Of all shares together."""
        from dinov2 import manifest
        from dinov2.preprocess.reasons import Reason
        from dinov2.preprocess.work.summary import Summary

        rejected = self.output / "rejected.csv"
        with rejected.open(newline="", encoding="utf-8") as stream:
            reasons = Counter(Reason(row["reason"]) for row in csv.DictReader(stream))
        num_pictures = len(manifest.read(self._manifest, columns=("image",)))
        return Summary(
            num_files=num_pictures + reasons.total(),
            num_pictures=num_pictures,
            reasons=reasons,
            flags={},
            skipped={},
            num_gone=0,
            num_unmatched=0,
            num_unlike=0,
            manifest=self._manifest,
            rejected=rejected,
            crosswalk=None,
            key=self.key,
        )
