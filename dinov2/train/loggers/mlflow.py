"""The logger of MLflow: a run on a tracking server, or in a folder of the run that `mlflow server` shows.

In: numbers, words, pictures. Out: what MLflow keeps at `logging.tracking_uri`, else where MLFLOW_TRACKING_URI says,
else in RUN/logs/mlflow. MLflow's own reports of use are switched off.

A run that continues keeps its id. Points are never written twice: those up to the last one that the store has are the
same numbers again.
"""

import math
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlparse

from dinov2.train.loggers.kept import Kept
from dinov2.train.loggers.logger import Ending, Picture, Place

MODULE, EXTRA = "mlflow", "mlflow"
FOLDER = "mlflow"
STEP = "step"  # a curve of its own, by which the last step is found
PARAMS_AT_ONCE, METRICS_AT_ONCE, LONGEST_PARAM = 100, 1000, 500  # that every server takes
STATUS: dict[Ending, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a database file is not safe on the network disks that runs lie on
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the courier tries again, and waits longer
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def stays_here(place: Place) -> bool:
    """Whether what it is given stays on this machine's disks."""
    return urlparse(address_of(place)).scheme in ("", "file", "sqlite")


def runs_at(place: Place) -> str:
    """Which store of runs it is; empty: the run's own folder, wherever that is moved to."""
    return place.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")


def address_of(place: Place) -> str:
    """Where the runs are kept."""
    return runs_at(place) or (place.folder / FOLDER).resolve().as_uri()


def prepare() -> None:
    """Before mlflow is imported, which reads these; what the user has set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class MLflow:
    """See the module."""

    def __init__(self, place: Place, *, after_step: int) -> None:
        prepare()
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client: Any = MlflowClient(tracking_uri=address_of(place))
        self._kept = Kept(place.folder, MODULE, where=runs_at(place))
        self._run_id = self._kept.run_id or self._begun(place)
        self._client.update_run(self._run_id, status="RUNNING")
        self._tell_settings(place)
        history = self._client.get_metric_history(self._run_id, STEP)
        self._told = max((point.step for point in history), default=-1)
        self._told_before = place.told_before
        del after_step  # what was told counts, not where the run goes on

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        if step <= self._told:
            return
        now = time.time_ns() // 1_000_000
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        points = [self._metric(name, value, now, step) for name, value in (finite | {STEP: float(step)}).items()]
        for first in range(0, len(points), METRICS_AT_ONCE):
            self._client.log_batch(self._run_id, metrics=points[first : first + METRICS_AT_ONCE])
        self._told = step
        self._kept.remember(step=step)

    def words(self, step: int, text: str) -> None:
        if step > self._told_before:
            number = len(self._client.list_artifacts(self._run_id, "warnings"))
            self._client.log_text(self._run_id, text + "\n", f"warnings/{number:04d}_step_{step}.txt")

    def picture(self, step: int, name: str, picture: Picture) -> None:
        if step > self._told_before:
            self._client.log_image(self._run_id, picture, key=name, step=step)

    def close(self, ending: Ending) -> None:
        self._client.set_terminated(self._run_id, status=STATUS[ending])

    def _begun(self, place: Place) -> str:
        """A new run, remembered at once: what fails after this goes on with the same."""
        found = self._client.get_experiment_by_name(place.project)
        experiment = found.experiment_id if found else self._client.create_experiment(place.project)
        run_id = str(self._client.create_run(experiment, run_name=place.run_name).info.run_id)
        self._kept.remember(run_id=run_id)
        return run_id

    def _tell_settings(self, place: Place) -> None:
        """Those that the run has not; one that it has cannot be changed there."""
        from mlflow.entities import Param

        there = self._client.get_run(self._run_id).data.params
        params = [Param(key, value[:LONGEST_PARAM]) for key, value in place.settings.items() if key not in there]
        for first in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=params[first : first + PARAMS_AT_ONCE])
