"""What a run keeps for people to see is read back as it was written, and never half of it."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2.looks import (
    Films,
    Look,
    drop_looks,
    neighbour_picture,
    newest_look,
    read_films,
    read_look,
    read_looks,
    set_looks_aside,
    write_films,
    write_look,
)


def films(count: int = 3) -> Films:
    rng = np.random.default_rng(0)
    return Films(
        thumbnails=rng.integers(0, 256, (count, 16, 16), dtype=np.uint8),
        image_ids=tuple(f"film {i}" for i in range(count)),
        rows=np.arange(count, dtype=np.int32),
        monitored_ids=tuple(f"film {i}" for i in range(5)),
        monitored_labels=("Effusion, Nodule", "", "Ergussß", "", ""),
    )


def look(step: int, *, count: int = 3) -> Look:
    rng = np.random.default_rng(step)
    return Look(
        step=step,
        grid=(4, 5),
        colours=rng.integers(0, 256, (count, 4, 5, 3), dtype=np.uint8),
        attention=rng.integers(0, 256, (count, 4, 5), dtype=np.uint8),
        masks=rng.random((count, 4, 5)) < 0.5,
        agreement=rng.integers(0, 256, (count, 4, 5), dtype=np.uint8),
        neighbours=rng.integers(0, 5, (count, 2)).astype(np.int32),
        similarity=rng.random((count, 2)).astype(np.float32),
    )


def assert_equal(one: object, other: object) -> None:
    assert type(one) is type(other)
    for field in fields(one):  # type: ignore[arg-type]
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
        assert type(ours) is type(theirs), field.name
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype, field.name


def test_looks_and_films_are_read_as_they_were_written_in_the_order_of_their_steps(tmp_path: Path) -> None:
    write_films(tmp_path, films())
    for step in (1000, 20, 300):
        write_look(tmp_path, look(step))
    assert_equal(read_films(tmp_path), films())
    read = read_looks(tmp_path)
    assert [one.step for one in read] == [20, 300, 1000]
    for one in read:
        assert_equal(one, look(one.step))


def test_one_look_is_read_by_its_step_and_the_newest_is_the_last_that_can_be_read(tmp_path: Path) -> None:
    for step in (4, 8, 12):
        write_look(tmp_path, look(step))
    assert_equal(read_look(tmp_path, step=8), look(8))
    assert_equal(newest_look(tmp_path), look(12))
    (tmp_path / "looks" / "12.npz").write_bytes(b"half")
    assert read_look(tmp_path, step=12) is None
    assert_equal(newest_look(tmp_path), look(8))


def test_what_is_written_of_a_look_is_told_in_bytes(tmp_path: Path) -> None:
    picture = np.full((8, 8), 100, dtype=np.uint8)
    written = [write_look(tmp_path, look(step), pictures={3: picture}) for step in (4, 8)]
    sizes = [(tmp_path / "looks" / name).stat().st_size for name in ("4.npz", "8.npz", "neighbours/3.png")]
    assert written == [sizes[0] + sizes[2], sizes[1]], "the picture is written once"


def test_a_run_without_looks_gives_none(tmp_path: Path) -> None:
    assert read_looks(tmp_path) == []
    assert newest_look(tmp_path) is None
    assert len(read_films(tmp_path)) == 0
    assert read_films(tmp_path).thumbnails.shape == (0, 0, 0)
    assert drop_looks(tmp_path, after_step=0) == 0


@pytest.mark.parametrize("kept_share", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_short_is_passed_over(tmp_path: Path, kept_share: float) -> None:
    write_films(tmp_path, films())
    for step in (4, 8):
        write_look(tmp_path, look(step))
    for name in ("8.npz", "films.npz"):
        path = tmp_path / "looks" / name
        path.write_bytes(path.read_bytes()[: int(kept_share * path.stat().st_size)])
    assert [one.step for one in read_looks(tmp_path)] == [4]
    assert len(read_films(tmp_path)) == 0


def test_bytes_that_rotted_are_passed_over(tmp_path: Path) -> None:
    write_look(tmp_path, look(8))
    path = tmp_path / "looks" / "8.npz"
    whole = bytearray(path.read_bytes())
    for at in range(100, len(whole) - 100, 50):
        rotten = whole.copy()
        rotten[at] ^= 0xFF
        path.write_bytes(rotten)
        assert len(read_looks(tmp_path)) in (0, 1), "no error"
    rotten = whole.copy()
    rotten[150:250] = bytes(100)
    path.write_bytes(rotten)
    assert read_looks(tmp_path) == []


def test_other_files_in_the_folder_are_no_looks(tmp_path: Path) -> None:
    write_look(tmp_path, look(8))
    (tmp_path / "looks" / "notes.npz").write_bytes(b"mine")
    np.savez(tmp_path / "looks" / "12.npz", step=12, grid=(1, 1))  # of another version
    assert [one.step for one in read_looks(tmp_path)] == [8]


def test_a_neighbours_picture_is_written_once(tmp_path: Path) -> None:
    first, second = (np.full((8, 8), level, dtype=np.uint8) for level in (10, 200))
    write_look(tmp_path, look(4), pictures={3: first})
    write_look(tmp_path, look(8), pictures={3: second, 4: second})
    levels = [int(np.asarray(Image.open(neighbour_picture(tmp_path, row))).mean()) for row in (3, 4)]
    assert levels == [10, 200]


def test_later_looks_and_leftovers_of_a_killed_run_are_dropped(tmp_path: Path) -> None:
    for step in (4, 8, 12):
        write_look(tmp_path, look(step))
    left = tmp_path / "looks" / ".16.npz.partial"
    left.write_bytes(b"half")
    assert drop_looks(tmp_path, after_step=4) == 2
    assert [one.step for one in read_looks(tmp_path)] == [4]
    assert not left.exists()


def test_looks_that_are_set_aside_are_there_to_be_read(tmp_path: Path) -> None:
    places = []
    for step in (4, 8):
        write_look(tmp_path, look(step))
        places.append(set_looks_aside(tmp_path))
    assert read_looks(tmp_path) == []
    assert len(set(places)) == 2
    assert sorted(int(file.stem) for place in places for file in place.glob("*.npz")) == [4, 8]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "looks").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="looks"):
        write_look(tmp_path, look(4))
