"""Every value of a configuration with the place it comes from.

In: a schema, a YAML file, override words. Out: `Traced`: the configuration, and for each key that somebody set the file
with its line, or the word "override". A key that is not named there has the schema's default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.config import keys, load
from dinov2.config.preprocess import PreprocessConfig
from dinov2.config.schema import Config


@dataclass(frozen=True)
class Traced:
    """A configuration of a training or a conversion."""

    config: Any
    origins: Mapping[str, str]  # dotted key -> "vitb14_cxr.yaml:41" or "override"

    def values(self) -> dict[str, Any]:
        """Dotted key -> value, of every key in the schema's order."""
        return {key: keys.value_of(self.config, key) for key in keys.leaves(type(self.config))}


def schema_of(file: Path) -> type[Any] | None:
    """What a file configures, by the sections it names: a conversion, a training, or nothing that is known here.

    A file without any section that only one of the two has is a training's, as one that cannot be read is: reading it
    tells what is wrong with it.
    """
    try:
        named = {line.split(":")[0] for line in file.read_text(encoding="utf-8-sig").splitlines() if _is_heading(line)}
    except (OSError, UnicodeDecodeError):
        return Config
    of_training = set(keys.sections(Config))
    of_conversion = {*keys.sections(PreprocessConfig), *keys.leaves(PreprocessConfig)}
    if named & of_training:
        return Config
    if named & of_conversion:
        return PreprocessConfig
    return None if named else Config


def trace(file: Path | None, *, overrides: Sequence[str] = (), schema: type[Any] = Config) -> Traced:
    """The configuration, checked as the command that takes it would.  Raises ConfigError with every fault."""
    if schema is Config:
        config: Any = load.load_config(file, overrides=overrides).config
    else:
        config = load.load_typed(schema, file=file, overrides=overrides)
    # Read once more for the places alone: everything that could be wrong with it has been told by now.
    reading = load._read(schema, file=file, overrides=overrides, leftovers=keys.FOREIGN)
    return Traced(config, {setting.key: setting.origin for setting in reading.settings})


def _is_heading(line: str) -> bool:
    return bool(line) and not line[0].isspace() and line[0] not in "#-" and ":" in line
