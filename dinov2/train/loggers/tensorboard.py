"""The logger of TensorBoard: event files in RUN/logs/tensorboard, which `tensorboard --logdir RUN` shows.

In: numbers, words, pictures. Out: files; nothing leaves the machine. A run that continues tells the reader to forget
the points after the step from which it goes on, so every step is drawn once.
"""

from collections.abc import Mapping
from typing import Any

from dinov2.train.loggers.logger import Ending, Picture, Place

MODULE, EXTRA = "tensorboard", "tensorboard"
FOLDER = "tensorboard"


def stays_here(place: Place) -> bool:
    """Whether what it is given stays on this machine's disks."""
    del place
    return True


class TensorBoard:
    """See the module."""

    def __init__(self, place: Place, *, after_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = place.folder / FOLDER
        is_new = not folder.is_dir() or not any(folder.iterdir())
        # The writer makes its folder in a thread, where a fault would be lost.
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = SummaryWriter(log_dir=str(folder), purge_step=None if is_new else after_step + 1)
        self._writer.add_text("configuration", _table(place.settings), global_step=after_step + 1)
        self._writer.flush()

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step=step)
        self._writer.flush()  # where a disk is full it is told here

    def words(self, step: int, text: str) -> None:
        self._writer.add_text("warnings", text, global_step=step)
        self._writer.flush()

    def picture(self, step: int, name: str, picture: Picture) -> None:
        self._writer.add_image(name, picture, global_step=step, dataformats="HWC")
        self._writer.flush()

    def close(self, ending: Ending) -> None:
        del ending  # a file has no state
        self._writer.close()


def _table(settings: Mapping[str, str]) -> str:
    """Markdown, as TensorBoard shows text."""
    rows = (f"| {key} | {value.replace('|', '&#124;')} |" for key, value in settings.items())
    return "\n".join(("| key | value |", "|---|---|", *rows))
