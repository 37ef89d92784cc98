import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinov2.errors import ConfigError
from dinov2.launch.sweep import Variant, name_of, product_of, read_sweep, split_values, write_sweep


def test_a_sweep_is_every_combination_with_the_last_setting_changing_fastest():
    variants = product_of(["optim.base_lr=1e-4,2e-4", "train.seed=0,1"])
    assert [variant.overrides for variant in variants] == [
        ["optim.base_lr=1e-4", "train.seed=0"],
        ["optim.base_lr=1e-4", "train.seed=1"],
        ["optim.base_lr=2e-4", "train.seed=0"],
        ["optim.base_lr=2e-4", "train.seed=1"],
    ]
    assert [variant.name for variant in variants][:2] == ["base_lr=1e-4,seed=0", "base_lr=1e-4,seed=1"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[0.3,1],[0.5,1]", ["[0.3,1]", "[0.5,1]"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ('"it\'s, so",d', ['"it\'s, so"', "d"]),
        ("{a: [1, 2], b: 3}, x", ["{a: [1, 2], b: 3}", "x"]),
        ("alone", ["alone"]),
        ("'[',']'", ["'['", "']'"]),
    ],
)
def test_a_comma_inside_brackets_and_quotes_does_not_split(text, values):
    assert split_values(text) == values


@given(st.lists(st.text("abc019.-+_/ ", min_size=1).map(str.strip).filter(bool), min_size=1))
def test_values_that_were_put_together_come_apart_again(values):
    assert split_values(",".join(values)) == values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.base_lr"], "optim.base_lr=1e-4,2e-4"),
        (["--cluster=local"], "a setting and its values"),
        (["train.seed=1,2", "train.seed=3"], "given twice"),
        (["train.seed=1,1"], "1 is given twice"),
        (["train.seed=1,,2"], "a value is empty"),
        (["data.splits=[train"], r"\] is missing"),
        (["data.splits='train"], "' is missing"),
    ],
)
def test_a_mistake_in_a_sweep_says_what_to_write(words, message):
    with pytest.raises(ConfigError, match=message):
        product_of(words)


SIGNS = st.text(min_size=1, max_size=300)


@given(SIGNS, SIGNS)
def test_names_are_safe_for_every_file_system_and_differ_where_the_values_do(one, other):
    names = [name_of([("key", value)]) for value in (one, other)]
    for name in names:
        assert len(name.encode()) < 255
        assert not set(name) & set("/\\%:*?\"<>| \n\0'$&;()[]{}")
        assert not name.startswith((".", "-"))
    assert (names[0] == names[1]) == (one == other)


def test_two_settings_of_one_name_are_told_apart_by_their_whole_keys():
    assert (
        product_of(["dino.loss_weight=0,1", "ibot.loss_weight=1,2"])[0].name == "dino.loss_weight=0,ibot.loss_weight=1"
    )


def test_a_sweep_that_grows_keeps_what_it_had(tmp_path):
    write_sweep(tmp_path, product_of(["train.seed=0,1"]))
    write_sweep(tmp_path, product_of(["train.seed=1,2"]))
    assert read_sweep(tmp_path) == [
        {"name": f"seed={seed}", "settings": {"train.seed": str(seed)}} for seed in (0, 1, 2)
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def test_a_damaged_list_is_named(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": [{"name": "a"}]}))
    with pytest.raises(ConfigError, match=r"sweep\.json"):
        read_sweep(tmp_path)
    assert read_sweep(tmp_path / "elsewhere") == []


def test_the_only_variant_of_no_sweep_has_no_words():
    assert Variant(".", ()).overrides == []
