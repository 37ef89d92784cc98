from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dinov2.config.schema import Config
from dinov2.errors import CheckpointError
from dinov2.train.resume import SHAPES_TENSORS, compare_configs, flatten

HERE = Path("run/checkpoints/4")


def facts(config: Config) -> dict[str, object]:
    return {"config": asdict(config)}


def test_the_same_configuration_says_nothing() -> None:
    assert list(compare_configs(facts(Config()), Config(), checkpoint=HERE)) == []


def test_a_key_that_the_checkpoints_version_did_not_know_is_no_change_where_it_is_as_by_default() -> None:
    old = asdict(Config())
    del old["init_from"]["freeze_backbone_steps"]
    assert list(compare_configs({"config": old}, Config(), checkpoint=HERE)) == []
    now = replace(Config(), init_from=replace(Config().init_from, freeze_backbone_steps=7))
    (message,) = compare_configs({"config": old}, now, checkpoint=HERE)
    assert "init_from.freeze_backbone_steps: 0 in the checkpoint, 7 now" in message.text


def test_a_changed_setting_is_named_with_both_values() -> None:
    now = replace(Config(), optim=replace(Config().optim, base_lr=0.001))
    (message,) = compare_configs(facts(Config()), now, checkpoint=HERE)
    assert "optim.base_lr: 0.004 in the checkpoint, 0.001 now" in message.text
    assert message.warning


@pytest.mark.parametrize("key", ["student.arch", "student.patch_size", "dino.head_n_prototypes"])
def test_a_changed_architecture_is_refused(key: str) -> None:
    section, name = key.split(".")
    value = {"arch": "vit_small", "patch_size": 14, "head_n_prototypes": 10}[name]
    now = replace(Config(), **{section: replace(getattr(Config(), section), **{name: value})})
    with pytest.raises(CheckpointError, match=f"{key}.*in the checkpoint"):
        list(compare_configs(facts(Config()), now, checkpoint=HERE))


def test_every_key_that_shapes_tensors_exists() -> None:
    assert set(SHAPES_TENSORS) <= set(flatten(asdict(Config())))
