"""What must outlive a process so that its successor continues the same run: its name there, and the last step told.

In: RUN/logs, and where the logger keeps runs. Out: RUN/logs/<logger>.json, whole or not there.
"""

import json
from pathlib import Path
from typing import Any


class Kept:
    """The memory of one logger; what was told elsewhere is forgotten."""

    def __init__(self, folder: Path, name: str, *, where: str) -> None:
        self._path = folder / f"{name}.json"
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            found = {}
        known = isinstance(found, dict) and found.get("where") == where
        self._facts: dict[str, Any] = found if known else {"where": where}

    @property
    def run_id(self) -> str:
        """Of the run there; empty where there is none yet."""
        return str(self._facts.get("run_id", ""))

    @property
    def step(self) -> int:
        """The last whose numbers were told; -1 where there is none yet."""
        return int(self._facts.get("step", -1))

    def remember(self, **facts: str | int) -> None:
        """Writes it down.  Raises OSError."""
        self._facts |= facts
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f".{self._path.name}.partial")
        partial.write_text(json.dumps(self._facts) + "\n")
        partial.replace(self._path)
