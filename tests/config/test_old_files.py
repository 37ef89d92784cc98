"""A file written for the public code runs unchanged, and one message names what is not used."""

from pathlib import Path

import pytest

from dinov2.config import load_config
from dinov2.errors import ConfigError

OLD = Path(__file__).parent / "old.yaml"


def test_an_old_file_loads_unchanged_and_its_values_arrive():
    config = load_config(OLD).config
    assert config.student.arch == "vit_base"
    assert config.ibot.mask_ratio_min_max == (0.15, 0.45)
    assert config.compute_precision.teacher.backbone.mixed_precision.param_dtype == "bf16"
    assert config.teacher.momentum_teacher == 0.994
    assert config.student.block_chunks == 4


def test_keys_that_nothing_needs_are_named_in_one_message():
    (message,) = load_config(OLD).messages
    assert message.startswith("accepted from older files and not used: MODEL.WEIGHTS (student.pretrained_weights ")
    for key in (
        "train.output_dir",
        "train.saveckp_freq",
        "train.cache_dataset",
        "student.block_chunks",
        "train.cell_augmentation",
    ):
        assert f"{key} (" in message
    assert "compute_precision" not in message, "all of it is read"
    assert "optim.lr = 0 (" in message


def test_an_evaluation_key_that_is_not_of_a_training_is_an_error():
    with pytest.raises(ConfigError, match=r"nb_knn = \[10, 20\] \(override\): no such key"):
        load_config(OLD, overrides=["nb_knn=[10, 20]"])
