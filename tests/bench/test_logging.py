"""What `dinov2 bench logging` measures: real loggers, fed with a real report."""

from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dinov2.bench import logging as bench
from dinov2.train.events import StepReport
from dinov2.train.log import read_lines
from dinov2.train.loggers.logger import Place

REPORT = StepReport(
    step=9, total_steps=9, metrics={"total_loss": 1.0, "lr": 0.1}, timing={"seconds_per_step": 0.5}, prototypes={}
)


def test_every_timed_step_really_reaches_the_logger(tmp_path: Path):
    place = Place(folder=tmp_path, project="p", run_name="r", tracking_uri="", settings={})
    costs = bench.cost_of("tensorboard", place=place, report=REPORT, count=400)
    assert costs["processor_seconds"] > 0
    assert costs["hand_over_seconds"] > 0
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    assert [point.step for point in shown.Scalars("train/total_loss")] == list(range(1, 402))


def test_the_files_of_every_run_are_written_with_the_figures_of_the_machine(tmp_path: Path):
    costs = bench.cost_of_files(tmp_path, report=REPORT, count=5)
    assert costs["hand_over_seconds"] > 0
    lines = read_lines(tmp_path / "timing.json")
    assert [line["step"] for line in lines] == list(range(5))
    assert {"memory_gib", "cpu_share", "seconds_per_step"} <= lines[-1].keys()


def test_the_share_counts_the_processor_time_as_if_the_training_had_waited_for_it():
    row = bench._row("mlflow", {"processor_seconds": 0.03, "hand_over_seconds": 0.01}, each=8.0, seconds=0.5)
    assert row["share"] == pytest.approx(0.005)
    machine = {"device": "a CPU", "cores": 2}
    settings = {"every_steps": 10, "step_seconds": 0.8, "steps": 3}
    result = {
        "rows": [row], "machine": machine, "settings": settings, "num_points": 3, "plain_seconds_per_step": 0.4,
    }  # fmt: skip
    with (console := Console(width=120)).capture() as captured:
        console.print(bench.table(result))
    assert "0.500%" in captured.get()
    assert "400.0 ms without a logger" in captured.get()
