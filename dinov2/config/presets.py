"""The configuration files that come with the package.

In: the name of a file, with or without its suffix or folder. Out: its path. In a checkout they lie in `configs/`, in an
installed package in `dinov2/_configs/`.
"""

import difflib
from functools import cache
from pathlib import Path

from dinov2.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent.parent
SUFFIXES = (".yaml", ".yml")


@cache
def configs_dir() -> Path:
    """The folder of the shipped files.  Raises ConfigError where an installation lacks it."""
    for folder in (PACKAGE.parent / "configs", PACKAGE / "_configs"):
        if (folder / "ssl_default_config.yaml").is_file():
            return folder
    raise ConfigError(
        f"{PACKAGE / '_configs'}: the shipped configuration files are missing. Install the package again."
    )


def shipped_configs() -> tuple[str, ...]:
    """Names that `find_config` takes, e.g. `ssl_default_config`, `train/vitb14_cxr`."""
    folder = configs_dir()
    return tuple(sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml")))


def find_config(name: str, *, kind: str = "train") -> Path:
    """The file that `name` means: a path that exists, else a shipped file of this kind (the folder below `configs/`).

    `cpu_smoke`, `cpu_smoke.yaml`, `train/cpu_smoke` and `configs/train/cpu_smoke.yaml` all find the same file.
    Raises ConfigError that lists the shipped names.
    """
    if (path := Path(name).expanduser()).is_file():
        return path
    shipped = shipped_configs()
    plain = name.removesuffix(".yaml").removesuffix(".yml").removeprefix("configs/")
    for candidate in (f"{kind}/{plain}", plain):
        if candidate in shipped:
            return configs_dir() / f"{candidate}.yaml"
    ours = [n for n in shipped if n.startswith(f"{kind}/") or "/" not in n]
    close = difflib.get_close_matches(plain.rpartition("/")[2], [n.rpartition("/")[2] for n in ours], n=1)
    nearest = f" Perhaps {close[0]}?" if close else ""
    raise ConfigError(
        f"{name}: neither a file nor a shipped configuration.{nearest} "
        f"Give a path, or one of: {', '.join(n.removeprefix(f'{kind}/') for n in ours)}."
    )
