"""Event files, read back with TensorBoard's own reader."""

import logging
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dinov2.train.loggers.logger import Place
from dinov2.train.loggers.tensorboard import TensorBoard


def place(folder: Path) -> Place:
    return Place(folder=folder, project="p", run_name="r", tracking_uri="", settings={"a.b": "1|2"})


def shown(folder: Path) -> EventAccumulator:
    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return reader


def test_points_after_the_step_from_which_a_run_goes_on_are_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.CRITICAL)  # the reader tells what it forgets
    for after_step, steps, value in ((0, (1, 2, 3), 1.0), (2, (3, 4), 2.0)):
        logger = TensorBoard(place(tmp_path), after_step=after_step)
        for step in steps:
            logger.numbers(step, {"loss": value})
        logger.close("finished")
    assert [(point.step, point.value) for point in shown(tmp_path).Scalars("loss")] == [(1, 1), (2, 1), (3, 2), (4, 2)]


def test_a_disk_that_is_full_leaves_whole_records_and_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    logger = TensorBoard(place(tmp_path), after_step=0)
    logger.numbers(1, {"loss": 1.0})
    full = Full(logger._file)
    monkeypatch.setattr(logger, "_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        logger.numbers(2, {"loss": 2.0})
    again = TensorBoard(place(tmp_path), after_step=1)
    again.numbers(2, {"loss": 2.0})
    again.close("finished")
    assert [point.step for point in shown(tmp_path).Scalars("loss")] == [1, 2]


class Full:
    """A file on a disk that has room for ten more bytes."""

    def __init__(self, file):
        self._file, self._room = file, 10

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, content):
        if not self._room:
            raise OSError(28, "No space left on device")
        written = self._file.write(bytes(content[: self._room]))
        self._room = 0
        return written
