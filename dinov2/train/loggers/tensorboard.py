"""The logger of TensorBoard: event files in RUN/logs/tensorboard, which `tensorboard --logdir RUN` shows.

In: numbers, words, pictures. Out: files; nothing leaves the machine. A run that continues tells the reader to forget
the points after the step from which it goes on, so every step is drawn once.

The summaries are made by torch, the records by tensorboard; they are written here and not by its writer, which has a
thread of its own and prints what goes wrong there, where nobody can hear it.
"""

import os
import time
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from dinov2.train.loggers.logger import Ending, Picture, Place

MODULE, EXTRA = "tensorboard", "tensorboard"
FOLDER = "tensorboard"
FORMAT = "brain.Event:2"  # what the first record of every file says


def stays_here(place: Place) -> bool:
    """Whether what it is given stays on this machine's disks."""
    del place
    return True


def runs_at(place: Place) -> str:
    """Which store of runs it is: the run's own folder, wherever that is moved to."""
    del place
    return ""


class TensorBoard:
    """See the module."""

    def __init__(self, place: Place, *, after_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from torch.utils.tensorboard import summary

        self._summary: Any = summary
        folder = place.folder / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        is_new = not any(folder.iterdir())
        # Readers take a folder's files in the order of their names.
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self._file = self._path.open("xb", buffering=0)
        first = {"file_version": FORMAT}
        forget = [] if is_new else [{"session_log": SessionLog(status=SessionLog.START)}]
        table = {"summary": self._summary.text("configuration", _table(place.settings))}
        self._write(first, *forget, table, step=after_step + 1)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._write(*({"summary": self._summary.scalar(name, value)} for name, value in values.items()), step=step)

    def words(self, step: int, text: str) -> None:
        self._write({"summary": self._summary.text("warnings", text)}, step=step)

    def picture(self, step: int, name: str, picture: Picture) -> None:
        self._write({"summary": self._summary.image(name, picture, dataformats="HWC")}, step=step)

    def close(self, ending: Ending) -> None:
        del ending  # a file has no state
        self._file.close()

    def _write(self, *contents: dict[str, Any], step: int) -> None:
        """Whole records or none: a half one would hide what a later process writes behind it.  Raises OSError."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = BytesIO()
        writer = RecordWriter(records)
        for content in contents:
            writer.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
        end, rest = self._file.tell(), memoryview(records.getbuffer())
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(end)
            self._file.close()
            if not end:
                self._path.unlink()
            raise


def _table(settings: Mapping[str, str]) -> str:
    """Markdown, as TensorBoard shows text."""
    rows = (f"| {key} | {value.replace('|', '&#124;')} |" for key, value in settings.items())
    return "\n".join(("| key | value |", "|---|---|", *rows))
