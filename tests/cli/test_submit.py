from pathlib import Path

import pytest

from dinov2.cli import main


@pytest.fixture
def films(tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    return tmp_path / "films"


def submit(films: Path, *, options: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> int:
    given = ["--input", str(films), "--output", str(films.parent / "pictures"), *words]
    return main(["submit", "preprocess", "--tasks", "2", *options, "--", *given])


def test_a_fault_in_the_words_is_told_once_and_here_before_anything_is_made(films, capsys):
    assert submit(films, words=("resample.short_sid=518",)) == 2
    assert "resample.short_side" in capsys.readouterr().err
    assert submit(films, words=("filters.min_side_px=1",)) == 2
    assert "at least 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        submit(films, words=("--tabel", "films.csv"))
    assert "--tabel" in capsys.readouterr().err
    assert list(films.parent.iterdir()) == [films]


@pytest.mark.parametrize(("word", "value"), [("--share", "1/2"), ("--workers", "3")])
def test_words_that_each_task_is_given_by_the_submission_are_refused(films, capsys, word, value):
    assert submit(films, words=(word, value)) == 2
    assert word in capsys.readouterr().err


def test_an_input_that_is_not_there_is_refused_without_saying_its_name(films, capsys):
    films.rmdir()
    assert submit(films) == 2
    said = capsys.readouterr().err
    assert "--input does not exist" in said
    assert str(films) not in said


def test_what_processes_of_this_machine_cannot_be_given_is_refused_by_name(films, capsys):
    options = ("--cluster", "local", "--partition", "cpu", "--slurm", "exclusive")
    assert submit(films, options=options) == 2
    assert "--partition, --slurm" in capsys.readouterr().err


def test_an_output_that_was_begun_with_other_tasks_is_refused(films, capsys):
    (films.parent / "pictures" / "shares" / "1-of-3").mkdir(parents=True)
    assert submit(films) == 2
    assert "3 shares, not 2" in capsys.readouterr().err


def test_a_dry_run_shows_a_task_and_its_resources_and_makes_nothing(films, capsys):
    options = ("--dry-run", "--time", "1-0", "--mem", "16G", "--parallel", "1", "--slurm", "constraint=ib", "nice=5")
    assert submit(films, options=options, words=("--dataset", "OURS", "resample.short_side=96")) == 0
    said = capsys.readouterr().out
    assert "1 at a time, each 4 processes, 16G of memory, 24 h" in said
    assert "dinov2 preprocess --share 1/2 --workers 4 --input" in said
    assert said.rstrip().endswith("nothing was submitted")
    assert list(films.parent.iterdir()) == [films]


@pytest.mark.parametrize("tasks", ["0", "-1", "many"])
def test_a_number_of_tasks_is_a_whole_number_above_0(tasks, capsys):
    with pytest.raises(SystemExit):
        main(["submit", "preprocess", "--tasks", tasks, "--", "--input", "a", "--output", "b"])
    assert "1 or more" in capsys.readouterr().err
