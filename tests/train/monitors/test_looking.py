"""Whole runs that keep pictures of their looks: nothing they compute changes, and what they keep fits what they are."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.looks import read_films, read_looks, write_look
from dinov2.train.events import Message, StepReport
from tests.integration.in_process import events_of, finished
from tests.integration.runs import write_pictures, write_tiny_config

STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looking")
    write_pictures(folder / "pictures", count=12)
    write_tiny_config(folder)
    return folder


def tiny(folder: Path, *, films: int) -> Config:
    words = (f"train.dataset_path={folder / 'pictures'}", "train.num_workers=0", f"optim.total_steps={STEPS}")
    quick = ("checkpoint={self_test: false, every_steps: 2}", f"monitors={{every_steps: 1, films: {films}}}")
    return load_config(folder / "tiny.yaml", overrides=[*words, *quick]).config


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A run with films that nothing interrupted."""
    finished(tiny(folder, films=3), folder / "whole")
    return folder / "whole"


def looks_of(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run / "looks").glob("*.npz")}


def test_a_run_without_films_keeps_no_picture_and_ends_in_the_same_bytes(folder: Path, whole: Path) -> None:
    run = folder / "without"
    said, reports = finished(tiny(folder, films=0), run)
    assert not (run / "looks").exists()
    assert "pictures of films" not in said
    assert all("film_seconds" not in report.timing for report in reports)
    assert [look.step for look in read_looks(whole)] == [1, 2, 3, 4]
    for file in (
        "training_metrics.json",
        *(f"exports/{STEPS}/{part}.safetensors" for part in ("backbone", "dino_head")),
    ):
        assert (run / file).read_bytes() == (whole / file).read_bytes(), file


def test_what_the_pictures_of_a_look_cost_is_told(folder: Path, tmp_path: Path) -> None:
    said, reports = finished(tiny(folder, films=3), tmp_path / "run", stop_after=1)
    (first, *_) = reports
    assert 0 < first.timing["film_seconds"] < first.timing["monitor_seconds"]
    (told,) = [line for line in said.splitlines() if line.startswith("step 1: ")]
    kept = sum(file.stat().st_size for file in (tmp_path / "run" / "looks").rglob("*") if file.is_file())
    kept -= (tmp_path / "run" / "looks" / "films.npz").stat().st_size
    assert f" and {kept / 1000:.0f} kB for the pictures of films)" in told


def test_a_run_that_was_begun_without_looks_goes_on_with_them(folder: Path, tmp_path: Path) -> None:
    """As a run of an older version."""
    run = tmp_path / "run"
    finished(tiny(folder, films=0), run, stop_after=2)
    assert not (run / "looks").exists()
    said, _ = finished(tiny(folder, films=3), run)
    assert "continuing from" in said
    assert [look.step for look in read_looks(run)] == [3, 4]
    assert len(read_films(run)) == 3


def test_looks_after_the_checkpoint_do_not_colour_those_of_the_run_that_goes_on(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finished(tiny(folder, films=3), run, stop_after=2)
    last = read_looks(run)[-1]
    for step in (3, 99):
        write_look(run, replace(last, step=step, colours=last.colours[..., ::-1].copy()))
    finished(tiny(folder, films=3), run)
    assert looks_of(run) == looks_of(whole)


def test_a_full_disk_costs_the_look_and_not_the_run(folder: Path, whole: Path, tmp_path: Path) -> None:
    run, warnings = tmp_path / "run", []
    with closing(events_of(tiny(folder, films=3), run)) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, StepReport) and event.step == 2:
                (run / "looks" / ".3.npz.partial").symlink_to("/dev/full")  # every write to it: no space left
            if isinstance(event, Message) and event.warning and "this look" in event.text:
                warnings.append(event.text)
    (warning,) = warnings
    assert warning.startswith("step 3: this look was not kept: ")
    assert "No space left on device" in warning
    assert "3.npz" in warning
    assert [look.step for look in read_looks(run)] == [1, 2, 4]
    assert not list((run / "looks").rglob(".*"))
    assert (run / "training_metrics.json").read_bytes() == (whole / "training_metrics.json").read_bytes()
