"""Configuration: frozen types (`schema`), filled from YAML and `a.b=c` words (`load`), checked together (`rules`)."""

from dinov2.config.load import LoadedConfig, load_config, load_typed, to_yaml
from dinov2.config.presets import configs_dir, find_config, shipped_configs
from dinov2.config.schema import Config

__all__ = [
    "Config",
    "LoadedConfig",
    "configs_dir",
    "find_config",
    "load_config",
    "load_typed",
    "shipped_configs",
    "to_yaml",
]
