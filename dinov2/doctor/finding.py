"""One thing that was looked at on this machine, and what came of it.

In: words. Out: `Finding`s, which `dinov2 doctor` prints as they are.
"""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "note", "absent", "broken"]
"""good; worth knowing; a part that only some commands need is not there; a training cannot run like this."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`value` is what was found, `why` what follows from it, `mend` the command or setting that changes it."""

    topic: str
    name: str
    value: str
    verdict: Verdict = "good"
    why: str = ""
    mend: str = ""


def first_line(error: BaseException) -> str:
    """What an error says, in one line without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
