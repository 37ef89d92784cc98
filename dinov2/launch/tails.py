"""The end of a file, without reading the rest.

In: a file of any length. Out: its last lines, or the last value that each number of a metrics file had.
"""

import json
import os
from pathlib import Path
from typing import Any

TAIL_BYTES = 1 << 16


def last_lines(path: Path, *, num_bytes: int = TAIL_BYTES) -> list[str]:
    """Whole lines among the last `num_bytes`, oldest first; none where there is no such file.

    A last line that was cut short is left out, as is a first one that began earlier.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            begin = max(0, size - num_bytes)
            stream.seek(begin)
            data = stream.read()
    except OSError:
        return []
    lines = data.decode("utf-8", errors="replace").split("\n")[:-1]
    return lines[1:] if begin else lines


def last_numbers(path: Path) -> dict[str, float]:
    """The newest value of every number in the last lines; one that is seldom logged may be older than the others."""
    newest: dict[str, float] = {}
    for line in reversed(last_lines(path)):
        for name, value in _object(line).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                newest.setdefault(name, value)
    return newest


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
