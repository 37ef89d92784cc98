"""The loggers of a run.

In: a `Run`, the events of its training. Out: the same events, with a message where a logger does not work; and in every
logger of `logging.loggers` the numbers of each logged step, warnings, the crops of the first batch, and the maps of
every look. Only the main process has any.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from dinov2.config.keys import leaves, value_of
from dinov2.config.schema import Config
from dinov2.errors import ConfigError
from dinov2.train.events import Ended, Event, Message, StepReport
from dinov2.train.loggers import mlflow, tensorboard, weights_and_biases
from dinov2.train.loggers.courier import CLOSING_SECONDS, Courier
from dinov2.train.loggers.drawings import crops_and_masks, latest_look
from dinov2.train.loggers.kept import Kept
from dinov2.train.loggers.logger import Drawn, Ending, Item, Numbers, Place, Words
from dinov2.train.run import Run

LOGGERS: dict[str, tuple[Any, Any]] = {
    "tensorboard": (tensorboard, tensorboard.TensorBoard),
    "wandb": (weights_and_biases, weights_and_biases.WeightsAndBiases),
    "mlflow": (mlflow, mlflow.MLflow),
}


class Loggers:
    """All of them; with none nothing is done."""

    def __init__(self, this: Run) -> None:
        self._this = this
        self._step = this.step
        self._couriers: list[Courier] = []
        self._with_pictures: list[Courier] = []
        self._ending: Ending = "failed"
        if this.world.is_main:
            self._open(place_of(this))

    def hear(self, events: Iterator[Event]) -> Iterator[Event]:
        """Passes the events on; the loggers get each before whoever listens, and their last words come at the end."""
        with closing(self):  # also where the training fails, or nobody listens any more
            for event in events:
                match event:
                    case StepReport(step=step):
                        self._step = step
                        self._show_look(event)  # first, for the numbers conclude a step
                        self._put(Numbers(step=step, values=points(event)))
                    case Message(text=text, warning=True):
                        self._put(Words(step=self._step, text=text))
                    case Ended(stopped_by=stopped_by):
                        self._ending = "stopped" if stopped_by else "finished"
                yield event
                yield from self._news()
        yield from self._news()

    def begin(self) -> None:
        """The training has made a step: if it is the very first its crops are shown, and from now on all is carried.

        Not before, because data workers are forked as the first batch is asked for, and a process should have few
        threads then.
        """
        if self._this.step == 1 and self._this.batches:
            batch = self._this.batches[0]
            self._put_picture(Drawn(step=1, name="crops", draw=partial(crops_and_masks, batch)))
        for courier in self._couriers:
            courier.start()

    def close(self) -> None:
        """Waits, not long, for what is on its way."""
        until = time.monotonic() + CLOSING_SECONDS
        for courier in self._couriers:
            courier.end(self._ending)
        for courier in self._couriers:
            courier.join(until=until)

    def _open(self, place: Place) -> None:
        asked = self._this.config.logging
        for name in asked.loggers:
            module, kind = LOGGERS[name]
            told = replace(place, told_before=Kept(place.folder, name, where=module.runs_at(place)).step)
            courier = Courier(name, partial(_opened, kind, told), after_step=self._this.step)
            self._couriers.append(courier)
            if asked.pictures == "everywhere" or (asked.pictures == "local" and module.stays_here(place)):
                self._with_pictures.append(courier)

    def _show_look(self, report: StepReport) -> None:
        if any("/" in name for name in report.metrics) and self._with_pictures:
            draw = partial(latest_look, self._this.folder.path, step=report.step)
            self._put_picture(Drawn(step=report.step, name="look", draw=draw))

    def _put(self, item: Item) -> None:
        for courier in self._couriers:
            courier.put(item)

    def _put_picture(self, item: Drawn) -> None:
        for courier in self._with_pictures:
            courier.put(item)

    def _news(self) -> Iterator[Message]:
        for courier in self._couriers:
            for news in courier.news():
                yield Message(text=news.text, warning=news.warning)


def check_installed(config: Config) -> None:
    """That the configured loggers' packages are there.  Raises ConfigError, on every process alike."""
    asked = config.logging.loggers
    if not (absent := [name for name in asked if find_spec(LOGGERS[name][0].MODULE) is None]):
        return
    packages = " and ".join(LOGGERS[name][0].MODULE for name in absent)
    extras = ",".join(LOGGERS[name][0].EXTRA for name in absent)
    error = ConfigError(
        f"logging.loggers = {list(asked)}: {packages} {'is' if len(absent) == 1 else 'are'} not installed. Run "
        f"pip install 'dinov2[{extras}]', or leave {' and '.join(absent)} out."
    )
    error.everywhere = True
    raise error


def place_of(this: Run) -> Place:
    """Where a run goes, and what it is called."""
    asked = this.config.logging
    return Place(
        folder=this.folder.timing_file.parent,
        project=asked.project,
        run_name=asked.run_name or this.folder.path.resolve().name,
        tracking_uri=asked.tracking_uri,
        settings={key: str(value_of(this.config, key)) for key in leaves(Config)},
    )


def points(report: StepReport) -> dict[str, float]:
    """The names under which curves are shown: train/..., system/..., and the monitors' own (knn/..., monitor/...)."""
    trained = {name if "/" in name else f"train/{name}": value for name, value in report.metrics.items()}
    return trained | {f"system/{name}": value for name, value in report.timing.items()}


def _opened(kind: Any, place: Place, after_step: int) -> Any:
    return kind(place, after_step=after_step)
