"""What libraries say on the terminal while they work: kept from it, and listened to.

In: a block of code. Out: the complaints of damage that were made in it, or the warnings. pydicom's warnings and log
lines hold element values, so none is shown. Several decoders name the damage they meet on
file descriptor 2, fill up what is missing and report success. libjpeg is the chief of them; its texts are those of its
`jerror.h`. What else is written meanwhile is no complaint and is dropped.
"""

import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

STANDARD_ERROR = 2
MOST_BYTES = 1 << 16  # of what is read back; a damaged stream may cause thousands of lines
DAMAGE = re.compile(
    r"Corrupt JPEG data|Premature end of JPEG|Inconsistent progression sequence|Invalid JPEG file structure|"
    r"Invalid SOS parameters|Unsupported marker type|Bogus |Application transferred too many|"
    r"Tile part length size inconsistent|Not enough data|Read error at|Decoding error at"
)


@dataclass
class Overheard:
    """Filled when the block has ended."""

    is_damage: bool = False


@contextmanager
def overhearing() -> Iterator[Overheard]:
    """Catch what the block writes to file descriptor 2, by whatever library.

    `is_damage` is True afterwards where a complaint of damage was among it. Not for use by several threads at once.
    """
    heard = Overheard()
    with suppress(AttributeError, ValueError, OSError):  # no standard error at all, as under some launchers
        sys.stderr.flush()
    with _catcher() as catcher:
        saved = _duplicate(STANDARD_ERROR)
        os.dup2(catcher.fileno(), STANDARD_ERROR)
        try:
            yield heard
        finally:
            if saved is None:
                os.close(STANDARD_ERROR)
            else:
                os.dup2(saved, STANDARD_ERROR)
                os.close(saved)
            catcher.seek(0)
            heard.is_damage = DAMAGE.search(catcher.read(MOST_BYTES).decode("latin-1")) is not None


def _catcher() -> IO[bytes]:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("complaints"), "w+b")
    return tempfile.TemporaryFile()


@contextmanager
def unspoken() -> Iterator[list[warnings.WarningMessage]]:
    """Keep Python warnings, and pydicom's log with them, from being shown; the list holds the warnings."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            yield remarks
    finally:
        log.setLevel(level)


def _duplicate(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:  # closed
        return None
