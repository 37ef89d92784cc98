"""Reading configurations: precedence, references, faults together, keys of older files."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dinov2.config import Config, load_config, load_typed, to_yaml
from dinov2.errors import ConfigError

SHORT = ("optim.total_steps=50", "optim.warmup_steps=5", "optim.freeze_last_layer_steps=0")


@pytest.fixture
def write(tmp_path):
    def _write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return _write


def faults_of(file: Path | None, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides=overrides)
    assert caught.value.exit_code == 2
    return caught.value.faults


def test_without_file_and_overrides_the_defaults_hold():
    loaded = load_config(None)
    assert loaded.config == Config()
    assert loaded.given == frozenset()
    assert loaded.messages == ()


def test_the_file_wins_over_defaults_and_overrides_win_over_the_file_the_last_one_first(write):
    file = write("train:\n  seed: 1\n  num_workers: 3\n")
    loaded = load_config(file, overrides=["train.seed=2", "train.seed=4"])
    assert (loaded.config.train.seed, loaded.config.train.num_workers) == (4, 3)
    assert loaded.config.train.batch_size_per_gpu == Config().train.batch_size_per_gpu
    assert loaded.given == {"train.seed", "train.num_workers"}


def test_a_resolved_configuration_reads_back_equal(write):
    overrides = ["data.splits=[train, val]", "augmentation.gamma=[0.8, 1.2]", "train.dataset_path=a=b:c.csv", *SHORT]
    config = load_config(None, overrides=[*overrides, "optim.min_lr=${optim.weight_decay}"]).config
    assert config.optim.min_lr == config.optim.weight_decay
    assert config.train.dataset_path == "a=b:c.csv"
    assert load_config(write(to_yaml(config))).config == config


def test_values_may_refer_to_other_keys(write):
    file = write("optim:\n  weight_decay_end: ${optim.weight_decay}\n  weight_decay: 0.07\n")
    assert load_config(file).config.optim.weight_decay_end == 0.07


def test_an_override_may_hold_a_section_an_empty_text_or_null():
    overrides = ["dino={loss_weight: 0, head_nlayers: 2}", "train.output_dir=", "optim.total_steps=null"]
    config = load_config(None, overrides=overrides).config
    assert (config.dino.loss_weight, config.dino.head_nlayers) == (0, 2)
    assert config.train.output_dir == ""
    assert config.optim.total_steps is None


def test_a_heading_without_keys_and_an_empty_file_change_nothing(write):
    assert load_config(write("dino:\n  # loss_weight: 0\n")).config == Config()
    assert load_config(write("")).config == Config()


def test_one_mean_stands_for_every_channel():
    config = load_config(None, overrides=["data.mean=[0.53]", "data.std=[0.25]"]).config
    assert config.data.mean == (0.53,) * 3
    assert config.data.std == (0.25,) * 3


def test_all_faults_come_together_each_with_key_place_value_and_advice(write):
    file = write("student:\n  arch: vit_bse\noptim:\n  layerwise_deca: 0.9\n  total_steps: 1e3\n")
    faults = faults_of(file, "train.koleo_loss_weight=0.2", "data.fraction=2", "nonsense", "crops.local_crops_size=97")
    assert [fault.split(":")[0] for fault in sorted(faults)] == sorted(
        [
            "'nonsense' (override)",
            "crops.local_crops_size = 97",
            "data.fraction = 2.0",
            "optim.layerwise_deca = 0.9 (run.yaml",
            "optim.total_steps = 1000.0 (run.yaml",
            "student.arch = 'vit_bse' (run.yaml",
            "train.koleo_loss_weight = 0.2 (override)",
        ]
    )
    text = "\n".join(faults)
    assert "(run.yaml:4): no such key. The nearest key is optim.layerwise_decay." in text
    assert "(run.yaml:5): expected a whole number: write 1000, or null." in text
    assert (
        "(run.yaml:2): expected one of vit_small, vit_base, vit_large, vit_giant2, vit_custom; perhaps vit_base."
        in text
    )
    assert "The nearest key is dino.koleo_loss_weight." in text
    assert "data.fraction = 2.0: must be more than 0 and at most 1. (override)" in text
    assert "not a multiple of student.patch_size = 16. Take 96 or 112." in text


def test_the_message_counts_and_lists_the_faults():
    with pytest.raises(ConfigError, match=r"2 faults in the configuration:\n  - train.sed = 1 .*\n  - data.mean = 3 "):
        load_config(None, overrides=["train.sed=1", "data.mean=3"])


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("studnet.arch=vit_base", "no such key. The nearest key is student"),
        ("augmentation.solarize_p=0", "The nearest key is augmentation."),
        ("total_steps=3", "The nearest key is optim.total_steps."),
        ("zzz.qqq=1", "no such key. Remove it; the sections are MODEL, compute_precision, dino, "),
        ("train=5", "train is a section, not a value; its keys are batch_size_per_gpu"),
        ("train.seed", "expected KEY=VALUE, as in train.seed=1"),
        ("--train.seed=1", "write train.seed=1 without dashes"),
        ("data.splits=[a", "the value does not parse"),
        ("train.num_workers=two", "expected a whole number."),
        ("train.num_workers=1.5", "expected a whole number."),
        ("train.seed=true", "expected a whole number."),
        ("train.seed=null", "train.seed = None (override): expected a whole number."),
        ("optim.base_lr=fast", "expected a number."),
        ("student.qkv_bias=perhaps", "expected true or false."),
        ("crops.global_crops_scale=[0.1, 0.2, 0.3]", "expected 2 numbers, as in [0.1, 0.5]."),
        ("crops.global_crops_scale=[a, b]", "expected 2 numbers"),
        ("data.splits=train", "expected a list of texts, as in [a, b]."),
        ("train.centering=sinkhorn", "one of centering, sinkhorn_knopp; perhaps sinkhorn_knopp."),
        ("optim.lr=${optim.nothing}", "Interpolation key 'optim.nothing' not found."),
        ("optim.total_steps=${train.dataset_path}", "optim.total_steps = '${train.dataset_path}' (override):"),
        ("train.cell_augmentation=true", "only `false` is accepted"),
    ],
)
def test_a_mistake_in_an_override_is_named(override, part):
    (fault,) = faults_of(None, override)
    assert part in fault


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("train:\n  seed: [1\n", "does not parse as YAML: line"),
        ("train:\n  seed: 1\n  seed: 2\n", "duplicate key"),
        ("- a\n- b\n", "holds no `section:`"),
        ("just words", "holds no `section:`"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(write, text, part):
    (fault,) = faults_of(write(text))
    assert part in fault
    assert "run.yaml" in fault


def test_a_file_that_is_absent_or_no_text_is_named(tmp_path):
    (absent,) = faults_of(tmp_path / "no.yaml")
    assert "no.yaml: cannot be read (No such file or directory)" in absent
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    (binary,) = faults_of(tmp_path / "picture.yaml")
    assert "not a text file in UTF-8" in binary


def test_keys_that_an_anchor_brought_are_placed_in_the_file(write):
    (fault,) = faults_of(write("crops: &c {local_crops_number: 4}\ntrain:\n  <<: *c\n"))
    assert fault.startswith("train.local_crops_number = 4 (run.yaml): no such key.")


def test_a_bad_reference_does_not_hide_good_settings(write):
    file = write("optim:\n  min_lr: ${optim.lr}\n  base_lr: ${optim.lx}\n  lr: -1\n")
    faults = faults_of(file)
    assert len(faults) == 3
    assert "optim.min_lr = -1.0: must be 0 or more. (run.yaml:2)" in faults


def test_a_rule_is_silent_about_a_key_that_is_already_known_to_be_wrong():
    (fault,) = faults_of(None, "student.patch_size=fourteen", "crops.local_crops_size=98")
    assert fault.startswith("student.patch_size = 'fourteen'") or fault.startswith("crops")
    (fault,) = faults_of(None, "crops.local_crop_size=98", "student.patch_size=14")
    assert "The nearest key is crops.local_crops_size" in fault


@dataclass(frozen=True)
class Inner:
    sides: tuple[int, ...] = (1, 2)
    name: str | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    share: float = 0.5


def test_any_tree_of_frozen_dataclasses_can_be_filled(write):
    value = load_typed(Outer, file=write("inner:\n  sides: [3]\n"), overrides=["share=0.25", "inner.name=a b"])
    assert value == Outer(Inner(sides=(3,), name="a b"), share=0.25)
    with pytest.raises(ConfigError) as caught:
        load_typed(Outer, file=None, overrides=["inner.side=[1]", "share=much"])
    assert len(caught.value.faults) == 2
    assert "The nearest key is inner.sides." in caught.value.faults[0]
