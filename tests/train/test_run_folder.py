from pathlib import Path

import pytest

from dinov2.errors import LaunchError
from dinov2.train.run_folder import open_run_folder


def test_a_second_run_in_the_same_folder_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with (
        open_run_folder(tmp_path / "run", is_main=True),
        pytest.raises(LaunchError, match=r"another run is writing to this folder \(process \d+ on "),
        open_run_folder(tmp_path / "run", is_main=True),
    ):
        pass


def test_the_lock_is_free_after_the_run(tmp_path: Path) -> None:
    for _ in range(2):
        with open_run_folder(tmp_path / "run", is_main=True) as folder:
            assert folder.log_file.parent.is_dir()


def test_other_ranks_do_not_lock(tmp_path: Path) -> None:
    with open_run_folder(tmp_path / "run", is_main=True), open_run_folder(tmp_path / "run", is_main=False) as folder:
        assert folder.path == tmp_path / "run"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(LaunchError, match="cannot write the run folder"),
        open_run_folder(tmp_path / "file" / "run", is_main=True),
    ):
        pass


def test_an_earlier_run_is_set_aside_whole(tmp_path: Path) -> None:
    with open_run_folder(tmp_path, is_main=True) as folder:
        assert folder.set_aside() is None, "an empty folder for logs is nothing"
        for round_ in (1, 2):
            folder.metrics_file.write_text(str(round_))
            assert folder.set_aside() == tmp_path / "superseded" / str(round_)
            assert (tmp_path / "superseded" / str(round_) / "training_metrics.json").read_text() == str(round_)
            assert folder.log_file.parent.is_dir(), "the next run writes there"
        assert folder.set_aside() is None
