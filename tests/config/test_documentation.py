"""What docs/configuration.md shows is what happens."""

import re
from pathlib import Path

import pytest

from dinov2.config import load_config, shipped_configs
from dinov2.errors import ConfigError

DOCUMENT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


def test_the_documented_faults_are_the_real_ones(tmp_path):
    written = re.search(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    shown = re.search(r"my\.yaml --output-dir RUN (.*?)\ndinov2 train: (.*?)\n```", DOCUMENT, flags=re.DOTALL)
    assert written is not None
    assert shown is not None
    (tmp_path / "my.yaml").write_text(written[1])
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "my.yaml", overrides=shown[1].split())
    assert str(caught.value) == shown[2]


def test_every_shipped_recipe_is_in_the_table():
    names = [name.removeprefix("train/") for name in shipped_configs() if name.startswith("train/")]
    assert [name for name in names if f"| `{name}` |" not in DOCUMENT] == []
