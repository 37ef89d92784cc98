"""The files in configs/: complete, commented, loadable, found by their names."""

import math
import re
import subprocess
import sys

import pytest

from dinov2.config import Config, configs_dir, find_config, load_config, shipped_configs
from dinov2.config.keys import leaves
from dinov2.errors import ConfigError

NAMES_OF_THE_NETWORK = {
    "student.arch",
    "student.embed_dim",
    "student.num_heads",
}  # said even where they are the default
TRAIN = [name for name in shipped_configs() if name.startswith("train/")]


def test_the_default_file_holds_every_key_with_the_default_of_the_schema():
    loaded = load_config(configs_dir() / "ssl_default_config.yaml")
    assert loaded.config == Config()
    assert loaded.given == set(leaves(Config))


def test_every_key_of_the_default_file_has_a_comment():
    lines = (configs_dir() / "ssl_default_config.yaml").read_text().splitlines()
    values = [line for line in lines if re.match(r"\s*\w+: \S", line) and not re.match(r"\s*\w+:\s+#", line)]
    assert len(values) == len(leaves(Config))
    assert [line for line in values if not re.search(r"  # \w.{3,}", line)] == []


def test_the_keys_of_the_default_file_stand_in_the_schemas_order():
    lines = (configs_dir() / "ssl_default_config.yaml").read_text().splitlines()
    names = [
        line.split(":")[0].strip()
        for line in lines
        if re.match(r"\s*\w+: \S", line) and not re.match(r"\s*\w+:\s+#", line)
    ]
    assert names == [key.rpartition(".")[2] for key in leaves(Config)]


@pytest.mark.parametrize("name", TRAIN)
def test_every_recipe_loads_without_a_message_and_says_only_what_differs(name):
    loaded = load_config(find_config(name))
    assert loaded.messages == ()
    default, config = Config(), loaded.config
    for key in loaded.given - NAMES_OF_THE_NETWORK:
        section, leaf = key.split(".")
        assert getattr(getattr(config, section), leaf) != getattr(getattr(default, section), leaf), key


@pytest.mark.parametrize("name", TRAIN)
def test_every_recipe_says_what_it_reproduces_costs_how_to_run_it_and_its_status(name):
    text = find_config(name).read_text()
    for heading in ("# Reproduces  ", "# Cost        ", "# Run         ", "# Status      "):
        assert heading in text
    assert "dinov2 train --config-file" in text


def test_the_expected_recipes_are_shipped():
    expected = {"cpu_smoke", "vitb14_cxr", "vitb14_cxr_maira2", "vits14", "vitb14", "vitl14", "vitg14"}
    assert expected <= {name.removeprefix("train/") for name in TRAIN}


def test_rad_dinos_recipe_has_its_peak_learning_rate_and_batch():
    config = load_config(find_config("vitb14_cxr")).config
    batch = config.train.batch_size_per_gpu * 64
    assert batch == 2560
    assert config.optim.base_lr * math.sqrt(batch / 1024) == pytest.approx(1.581e-3, rel=1e-3)
    assert "reconstructed, unverified" in find_config("vitb14_cxr").read_text()


@pytest.mark.parametrize("name", ["cpu_smoke", "cpu_smoke.yaml", "train/cpu_smoke", "configs/train/cpu_smoke.yaml"])
def test_a_shipped_file_is_found_by_any_of_its_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == configs_dir() / "train" / "cpu_smoke.yaml"


def test_a_file_of_ones_own_wins_over_a_shipped_one_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cpu_smoke.yaml").write_text("")
    assert find_config("cpu_smoke.yaml").resolve() == tmp_path / "cpu_smoke.yaml"


def test_an_unknown_name_lists_the_shipped_ones_and_the_nearest():
    with pytest.raises(ConfigError, match=r"cpu_smok: neither a file nor .* Perhaps cpu_smoke\?.* vitb14_cxr, "):
        find_config("cpu_smok")


def test_loading_a_configuration_does_not_import_torch():
    code = (
        "import sys; from dinov2.config import *; load_config(find_config('cpu_smoke')); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
