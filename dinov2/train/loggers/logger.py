"""What every logger can do, and what is carried to it.

In: settings, numbers, words and pictures of a run. Out: calls of a `Logger`, made in a thread of that logger's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""[H, W, 3], red, green, blue"""
Ending = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a logger puts a run, and what the run is called there."""

    folder: Path  # RUN/logs
    project: str
    run_name: str
    tracking_uri: str  # of MLflow; empty: its environment variable, or a folder of the run
    settings: Mapping[str, str]  # the configuration, a line for every key
    told_before: int = -1  # step up to which an earlier process of this run told this logger


class Logger(Protocol):
    """One way to keep what a run says. Every method may raise anything; whoever calls it is prepared."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Curves: one point each."""

    def words(self, step: int, text: str) -> None:
        """A warning."""

    def picture(self, step: int, name: str, picture: Picture) -> None:
        """Something to look at."""

    def close(self, ending: Ending) -> None:
        """Nothing more comes; returns when all is where it belongs."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The curves' points of one step."""

    step: int
    values: Mapping[str, float]

    def give(self, logger: Logger) -> None:
        """To a logger."""
        logger.numbers(self.step, self.values)


@dataclass(frozen=True, kw_only=True)
class Words:
    """A warning."""

    step: int
    text: str

    def give(self, logger: Logger) -> None:
        """To a logger."""
        logger.words(self.step, self.text)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A picture, drawn where it is given: not by the training's thread."""

    step: int
    name: str
    draw: Callable[[], Picture | None]  # None: there is nothing to show

    def give(self, logger: Logger) -> None:
        """To a logger."""
        try:
            picture = self.draw()
        except Exception as error:  # a picture is no reason to lose the curves
            logger.words(self.step, f"the picture {self.name!r} could not be drawn: {error!r}")
            return
        if picture is not None:
            logger.picture(self.step, self.name, picture)


Item = Numbers | Words | Drawn
Open = Callable[[int], Logger]
"""Opens a logger for what comes after a step; in the logger's own thread."""
