"""Which pictures are looked at: a fixed draw, dealt out over the processes, read as the training reads them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.distributed import World
from dinov2.errors import Dinov2Error, ManifestError
from dinov2.manifest import from_folder
from dinov2.train.monitors.pictures import choose_pictures, read_share

SHORT = ("optim.total_steps=50", "optim.warmup_steps=5", "optim.freeze_last_layer_steps=0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((40, 40), 20 * i, dtype=np.uint8))
    rows = [f"{i}.png,p{i},{'train' if i < 7 else 'dev'},{i % 2}" for i in range(10)]
    (tmp_path / "films.csv").write_text("image,patient,split,odd\n" + "\n".join(rows) + "\n")
    return tmp_path


def config_of(*words: str) -> Config:
    return load_config(None, overrides=[*SHORT, *words]).config


def world(rank: int, size: int) -> World:
    return World(rank=rank, size=size, local_rank=rank, device=torch.device("cpu"))


def levels(pictures: torch.Tensor) -> list[int]:
    return [int(picture[0, 0]) for picture in pictures]


def test_every_picture_of_the_training_is_looked_at_where_there_are_few(folder: Path) -> None:
    monitored = choose_pictures(config_of(), pictures=from_folder(folder))
    assert len(monitored) == 10
    read = read_share(monitored, size=16, world=world(0, 1), workers=0)
    assert read.shape == (10, 16, 16)
    assert levels(read) == [20 * i for i in range(10)]


def test_of_many_a_fixed_draw_is_looked_at(folder: Path) -> None:
    drawn = [
        choose_pictures(config_of("monitors.max_pictures=4", f"train.seed={seed}"), pictures=from_folder(folder))
        for seed in (0, 0, 1)
    ]
    ids = [list(one.train.ids) for one in drawn]
    assert len(ids[0]) == 4
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] == sorted(ids[0]), "in their order"


def test_where_a_picture_cannot_be_read_its_neighbour_takes_its_place_as_in_training(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"no picture")
    monitored = choose_pictures(config_of(), pictures=from_folder(folder))
    assert levels(read_share(monitored, size=16, world=world(0, 1), workers=0))[2:5] == [40, 80, 80]


def test_the_pictures_of_both_splits_are_dealt_out_so_that_all_are_there_once_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinov2.train.monitors.pictures.gather_values", lambda value, **_: [value])
    words = (f"monitors.dataset={folder}/films.csv", "monitors.labels=[odd]", "monitors.val_split=dev")
    monitored = choose_pictures(config_of(*words), pictures=from_folder(folder))
    assert [len(part) for part in monitored.parts] == [7, 3]
    for size in (2, 3, 4):
        shares = [levels(read_share(monitored, size=16, world=world(rank, size), workers=0)) for rank in range(size)]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert [shares[i % size][i // size] for i in range(10)] == [20 * i for i in range(10)]


def test_colour_becomes_the_grey_that_training_reads(folder: Path) -> None:
    colour = np.zeros((40, 40, 3), dtype=np.uint8)
    colour[:] = (200, 100, 50)  # blue, green, red
    cv2.imwrite(str(folder / "0.png"), colour)
    words = (f"monitors.dataset={folder}/films.csv", "monitors.labels=[odd]", "monitors.val_split=dev")
    of_labels = choose_pictures(config_of(*words), pictures=from_folder(folder))
    of_training = choose_pictures(config_of(), pictures=from_folder(folder))
    first = [levels(read_share(one, size=16, world=world(0, 1), workers=0))[0] for one in (of_labels, of_training)]
    assert abs(first[0] - first[1]) <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["monitors.dataset=/nowhere/films.csv"], "/nowhere/films.csv"),
        (["monitors.dataset={folder}/films.csv", "monitors.labels=[odd]"], "no picture of the split 'val'"),
        (["monitors.dataset={folder}/films.csv", "monitors.labels=[even]", "monitors.val_split=dev"], "even"),
    ],
    ids=["no such manifest", "no such split", "no such label"],
)
def test_labels_that_cannot_be_had_are_refused_by_the_name_of_the_setting(
    folder: Path, words: list[str], message: str
) -> None:
    config = config_of(*(word.format(folder=folder) for word in words))
    with pytest.raises(Dinov2Error, match=r"monitors\.dataset") as caught:
        choose_pictures(config, pictures=from_folder(folder))
    assert message in str(caught.value)
    assert caught.value.everywhere, "one process tells it"


def test_a_labelled_picture_that_cannot_be_read_stops_the_run_by_its_name(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"no picture")
    words = (f"monitors.dataset={folder}/films.csv", "monitors.labels=[odd]", "monitors.val_split=dev")
    monitored = choose_pictures(config_of(*words), pictures=from_folder(folder))
    with pytest.raises(ManifestError, match=r"monitors: .*3\.png") as caught:
        read_share(monitored, size=16, world=world(0, 1), workers=0)
    assert caught.value.everywhere
