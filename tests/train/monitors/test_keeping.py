"""A run that goes on keeps looking at the same films, or says that it does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dinov2.looks import Films, read_films, read_looks, write_look
from dinov2.train.monitors.films import Shown
from dinov2.train.monitors.keeping import FilmKeeper, nearest
from tests.test_looks import films, look


def keeper_of(some: Films) -> FilmKeeper:
    return FilmKeeper(
        Shown(
            rows=some.rows,
            pixels=torch.zeros(len(some), 16, 16),
            masks=np.zeros((len(some), 4, 5), bool),
            beside=torch.zeros(0, 16, 16),
            patches_beside=torch.zeros(0, 0, dtype=torch.int64),
            films=some,
        )
    )


def test_the_same_films_go_on_from_the_looks_that_are_there(tmp_path: Path) -> None:
    list(keeper_of(films()).begin(tmp_path))
    write_look(tmp_path, look(4))
    assert list(keeper_of(films()).begin(tmp_path)) == []
    assert [one.step for one in read_looks(tmp_path)] == [4]


@pytest.mark.parametrize(
    "other",
    [
        films(2),
        replace(films(), monitored_ids=("a", "b", "c", "d", "e")),
        replace(films(), thumbnails=films().thumbnails + 1),
    ],
)
def test_looks_at_other_films_are_set_aside_and_said_to_be(tmp_path: Path, other: Films) -> None:
    list(keeper_of(films()).begin(tmp_path))
    write_look(tmp_path, look(4))
    (message,) = keeper_of(other).begin(tmp_path)
    assert str(tmp_path / "superseded" / "looks_1") in message.text
    assert (tmp_path / "superseded" / "looks_1" / "4.npz").is_file()
    assert read_looks(tmp_path) == []
    assert read_films(tmp_path).image_ids == other.image_ids


def test_a_folder_that_cannot_be_written_is_a_warning_and_no_end(tmp_path: Path) -> None:
    (tmp_path / "looks").write_text("a file where the folder should be")
    (message,) = keeper_of(films()).begin(tmp_path)
    assert message.warning
    assert "looks" in message.text


def test_neighbours_are_the_nearest_by_cosine_and_never_the_film_itself() -> None:
    angles = torch.tensor([0.0, 0.1, 0.5, 3.0, 0.12, 0.09, 2.0])
    cls = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.arange(1, 8).unsqueeze(1)
    rows, similarity = nearest(cls, np.array([1, 3], dtype=np.int32))
    assert rows[0].tolist() == [5, 4, 0, 2, 6]
    assert rows[1, 0] == 6
    assert similarity[0, 0] == pytest.approx(np.cos(0.01), abs=1e-6)
    assert rows.dtype == np.int32


def test_a_single_picture_has_no_neighbour() -> None:
    rows, similarity = nearest(torch.ones(1, 4), np.array([0], dtype=np.int32))
    assert rows.shape == similarity.shape == (1, 0)
