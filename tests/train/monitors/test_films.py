"""Which films are shown, and what of them is hidden: a matter of the seed alone."""

import numpy as np
import pytest
import torch

from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.distributed import World
from dinov2.train.monitors.films import (
    choose_beside,
    choose_films,
    draw_masks,
    draw_patches,
    gather_films,
    labels_in_words,
    thumbnail,
)
from dinov2.train.monitors.pictures import Monitored
from tests.train.monitors.tables import examples_of

TINY = ("student={arch: vit_custom, patch_size: 8}", "crops={global_crops_size: 64}")
ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))


def config_of(*words: str) -> Config:
    return load_config(None, overrides=[*TINY, *words]).config


@pytest.mark.parametrize(("count", "of_val"), [(4, 4), (6, 6), (9, 6), (100, 6)])
def test_films_of_validation_come_first(count: int, of_val: int) -> None:
    monitored = Monitored(train=examples_of(20), val=examples_of(6))
    rows = choose_films(monitored, count=count, seed=3)
    assert len(rows) == min(count, 26)
    assert (rows >= 20).sum() == of_val
    assert (np.diff(rows) > 0).all()


def test_films_are_those_of_the_seed() -> None:
    monitored = Monitored(train=examples_of(100), val=None)
    one, same, other = (choose_films(monitored, count=12, seed=seed) for seed in (-1, -1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_masks_hide_from_the_smallest_share_to_the_largest_and_are_those_of_the_seed() -> None:
    config = config_of("ibot.mask_ratio_min_max=[0.1, 0.5]")
    masks = draw_masks(config, size=64, count=12)
    assert masks.shape == (12, 8, 8)
    shares = np.sort(masks.mean(axis=(1, 2)))
    assert 0 < shares[0] < 0.16
    assert 0.4 < shares[-1] <= 0.5
    assert np.array_equal(masks, draw_masks(config, size=64, count=12))
    assert not np.array_equal(masks, draw_masks(config_of("train.seed=7"), size=64, count=12))


def test_sinkhorn_is_lent_patches_of_three_other_pictures_a_film() -> None:
    monitored, films = Monitored(train=examples_of(100), val=None), np.array([3, 50], dtype=np.int32)
    rows = choose_beside(config_of("train.centering=sinkhorn_knopp"), monitored=monitored, films=films)
    assert len(set(rows) - {3, 50}) == 6
    few = Monitored(train=examples_of(4), val=None)
    assert choose_beside(config_of("train.centering=sinkhorn_knopp"), monitored=few, films=films).tolist() == [0, 1, 2]
    for words in (("train.centering=centering",), ("train.centering=sinkhorn_knopp", "ibot.loss_weight=0")):
        assert not len(choose_beside(config_of(*words), monitored=monitored, films=films)), "nothing asks for them"


@pytest.mark.parametrize(("grid", "count"), [(1369, 64), (16, 16)])
def test_the_patches_that_a_picture_lends_are_different_ones_of_the_seed(grid: int, count: int) -> None:
    patches = draw_patches(5, of=grid, seed=-1)
    assert patches.shape == (5, count)
    assert all(len(set(some.tolist())) == count for some in patches)
    assert patches.max() < grid
    assert torch.equal(patches, draw_patches(5, of=grid, seed=-1))
    assert draw_patches(0, of=grid, seed=0).shape[0] == 0


def test_a_run_without_ibot_hides_nothing() -> None:
    assert not draw_masks(config_of("ibot.loss_weight=0"), size=64, count=3).any()


def test_a_thumbnail_is_smaller_never_larger() -> None:
    rng = np.random.default_rng(0)
    small, large = (rng.integers(0, 256, (side, side), dtype=np.uint8) for side in (32, 518))
    assert thumbnail(small, longest_px=224) is small
    assert thumbnail(large, longest_px=224).shape == (224, 224)
    assert abs(float(thumbnail(large, longest_px=224).mean()) - float(large.mean())) < 1


def test_labels_are_told_in_words_and_only_those_that_are_stated() -> None:
    several = examples_of(4, classes=("Effusion", "Nodule"), labels=[[1, 1], [0, 1], [-1, np.nan], [0, 0]])
    assert labels_in_words(several) == ["Effusion, Nodule", "Nodule", "", ""]
    one = examples_of(2, classes=("AP", "PA"), labels=[1, 0], task="multiclass")
    assert labels_in_words(one) == ["PA", "AP"]
    assert labels_in_words(examples_of(2)) == ["", ""]


def test_films_carry_the_names_and_labels_of_all_monitored_pictures() -> None:
    train = examples_of(5, classes=("Effusion",), labels=[[1], [0], [0], [1], [0]])
    monitored = Monitored(train=train, val=examples_of(3, classes=("Effusion",), labels=[[0], [1], [0]]))
    share = torch.arange(8, dtype=torch.uint8).view(8, 1, 1).expand(8, 64, 64) * 10
    shown = gather_films(config_of("monitors.films=4"), monitored=monitored, share=share, world=ALONE)
    films = shown.films
    assert len(films.monitored_ids) == len(films.monitored_labels) == 8
    assert films.monitored_labels[0] == films.monitored_labels[6] == "Effusion"
    assert films.image_ids == tuple(films.monitored_ids[row] for row in films.rows)
    assert films.thumbnails[:, 0, 0].tolist() == [10 * row for row in films.rows]
    assert shown.pixels[:, 0, 0].tolist() == films.thumbnails[:, 0, 0].tolist()
