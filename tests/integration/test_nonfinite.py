"""A run whose losses are not finite stops by itself and leaves the step to look at."""

import json
from pathlib import Path

import pytest

from dinov2.checkpoint.reading import steps_in

from .runs import (
    command,
    finish,
    finish_together,
    metrics,
    train_words,
    write_pictures,
    write_tiny_config,
)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run on two processes whose learning rate is absurd, and what it said at its end."""
    folder = tmp_path_factory.mktemp("stopped")
    config, pictures = write_tiny_config(folder), write_pictures(folder / "pictures")
    words = train_words(config, pictures, folder / "run", "optim.lr=1e25", "runtime.max_nonfinite_steps=3")
    ranks = finish_together(2, command(*words), code=2)
    return folder / "run", "".join(done.stderr for done in ranks)


def test_it_names_terms_ranks_step_and_pictures_once_and_says_how_to_look(stopped: tuple[Path, str]) -> None:
    run, told = stopped
    (line,) = [line for line in told.splitlines() if line.startswith("dinov2 train:")]
    assert "step 5: not finite: rank 0: the loss term" in line
    assert "rank 1: the loss term" in line
    assert "ibot_loss=nan" in line
    assert line.count("film_") == 8, "every picture of both processes"
    assert f"torchrun --nproc-per-node 2 -m dinov2 replay {run}/nonfinite/5" in line


def test_the_skipped_steps_are_counted_and_no_checkpoint_is_written_meanwhile(stopped: tuple[Path, str]) -> None:
    run, _ = stopped
    assert [line["nonfinite_steps"] for line in metrics(run)] == [0, 0, 1, 2]
    assert [line["skipped"] for line in metrics(run)] == [0, 0, 1, 1]
    assert steps_in(run / "checkpoints") == [], "step 4 would have been due"


@pytest.mark.parametrize("size", [1, 2])
def test_the_dump_makes_the_step_again_and_says_where_it_breaks(stopped: tuple[Path, str], size: int) -> None:
    run, _ = stopped
    words = ["replay", str(run / "nonfinite" / "5")]
    ranks = finish_together(size, command(*words, *(["--rank", "1"] if size == 1 else [])))
    said = "".join(done.stdout for done in ranks)
    assert "first output that is not finite: " in said
    assert "rank " in said
    assert "the step fails again." in said
    found = json.loads((run / "nonfinite" / "5" / "findings.json").read_text())
    assert {finding["rank"] for finding in found["findings"]} == {0, 1}


def test_a_folder_that_is_no_dump_is_refused(stopped: tuple[Path, str]) -> None:
    run, _ = stopped
    done = finish(command("replay", str(run)), code=2)
    assert "no dump of a step" in done.stderr
    assert "Traceback" not in done.stderr
