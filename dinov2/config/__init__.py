"""Configuration: frozen types (`schema`), filled from YAML and `a.b=c` words (`load`), checked together (`rules`).

The types need no library; what reads YAML is imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dinov2.config.presets import configs_dir, find_config, shipped_configs
from dinov2.config.schema import Config

if TYPE_CHECKING:
    from dinov2.config.load import LoadedConfig, load_config, load_typed, to_yaml

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


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("dinov2.config.load"), name)
    raise AttributeError(f"module 'dinov2.config' has no attribute {name!r}")
