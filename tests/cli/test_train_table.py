"""The table of a training on a terminal, and its lines elsewhere."""

import io
import math

import pytest
from rich.console import Console

from dinov2.cli import train_table
from dinov2.cli.train_table import duration, open_table, step_line
from dinov2.train.events import StepReport


def report(step: int = 40, **metrics: float) -> StepReport:
    return StepReport(
        step=step,
        total_steps=1000,
        metrics={
            "total_loss": 7.5, "dino_global_cross_entropy": 3.0, "dino_local_cross_entropy": 4.85,
            "ibot_cross_entropy": 4.1, "koleo_loss": 0.2, "teacher_entropy": 2.5, "lr": 1e-3, "skipped": 0.0,
        } | metrics,
        timing={
            "seconds_per_step": 0.5, "data_wait_seconds": 0.2, "pictures_per_second": 128.0, "seconds_left": 3700.0,
            "memory_gib": 3.2, "cpu_share": 0.4, "gpu_memory_gib": 60.1, "matrix_share": 0.43,
        },
        prototypes={"dino_global": 128, "dino_local": 128, "ibot": 128},
    )  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of 100 columns."""
    written = Terminal()
    monkeypatch.setattr(train_table, "stdout", Console(file=written, force_terminal=True, width=100, color_system=None))
    return written


def test_a_terminal_gets_losses_beside_their_uniform_value_and_what_the_machine_does(screen: io.StringIO):
    with open_table("auto", title="runs/first") as table:
        assert table is not None
        table.warn("step 20: the teacher is at ln K")
        table.show(report(**{"knn/val/macro_auroc": 0.7312, "monitor/rankme": 12.3}))
        table.show(report(step=50))
    shown = screen.getvalue()
    last = shown[shown.rindex("runs/first") :]
    for words in (
        "step 50 of 1,000", "1:01:40 left", f"of ln K {math.log(128):.3f}", "GiB at most", "raise train.num_workers?",
        "43%", "knn AUROC 0.7312 at step 40", "RankMe", "! step 20: the teacher is at ln K",
    ):  # fmt: skip
        assert words in " ".join(last.split()), words
    assert max(map(len, last.splitlines())) <= 100


def test_a_loss_at_its_uniform_value_says_so(screen: io.StringIO):
    rows = {name: beside for name, _, beside in train_table.losses(report())}
    assert rows["dino local"].endswith("uniform")
    assert not rows["dino global"].endswith("uniform")


def test_elsewhere_there_is_no_table_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_table, "stdout", Console(file=io.StringIO()))
    with open_table("auto", title="run") as nothing, open_table("lines", title="run") as lines:
        assert nothing is None
        assert lines is None
    with open_table("table", title="run") as asked:
        assert asked is not None


def test_colours_that_are_forced_into_a_file_do_not_make_it_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_table, "stdout", Console(file=io.StringIO(), force_terminal=True))
    with open_table("auto", title="run") as nothing:
        assert nothing is None


def test_a_line_holds_what_a_log_is_searched_for():
    line = step_line(report(skipped=1.0))
    assert "step 40/1000" in line
    assert "dino_global 3.000/4.852" in line
    assert "SKIPPED" in line
    assert line.endswith(f"left {duration(3700)}")
