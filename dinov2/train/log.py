"""Numbers of a run on disk: one JSON object per line, continued exactly after an interruption.

In: a step and its numbers. Out: lines. A resumed run first drops the lines after its checkpoint, so that every step
stands once.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO


class JsonLines:
    """An append-only file of JSON objects with a `step` each."""

    def __init__(self, path: Path, *, keep_until_step: int) -> None:
        """Opens `path`, keeping the lines of steps up to `keep_until_step`; a half-written last line is dropped."""
        kept = [line for line in read_lines(path) if line["step"] <= keep_until_step]
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text("".join(_line(numbers) for numbers in kept))
        partial.replace(path)
        self._stream: TextIO = path.open("a")

    def write(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Appends one object; it is on its way to disk when this returns.  Raises OSError that names the file."""
        try:
            self._stream.write(_line({"step": step} | dict(numbers)))
            self._stream.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._stream.name) from error

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, without a last line that was cut short; nothing where there is no file."""
    if not path.is_file():
        return []
    objects = []
    for line in path.read_text().splitlines():
        try:
            objects.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return objects


def _line(numbers: Mapping[str, Any]) -> str:
    """Strict JSON: a number that is not finite becomes null."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}
    return json.dumps(finite, allow_nan=False) + "\n"
