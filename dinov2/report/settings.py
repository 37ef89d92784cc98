"""What a run was set to: where it differs from its preset, and where runs differ from each other.

In: records. Out: rows of a table, values as text. Settings that this version does not know are kept and said to be so.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dinov2.config import Config, find_config, shipped_configs
from dinov2.config.load import load_config
from dinov2.errors import Dinov2Error
from dinov2.formats.model_card_training import shown_name
from dinov2.report.folder import Record

PLACES = ("train.output_dir",)  # differs from run to run and says nothing
DEFAULTS = "the defaults"
NOT_THERE = "(not a setting of that version)"


@dataclass(frozen=True)
class Setting:
    """A row: values of the runs, or of the run and its preset."""

    key: str
    values: tuple[str, ...]
    is_known: bool = True  # to this version


@dataclass(frozen=True)
class Against:
    """How a run differs from what it started from."""

    preset: str  # a shipped configuration, or "the defaults"
    rows: tuple[Setting, ...]  # values: the run's, the preset's
    num_same: int


def against_preset(record: Record) -> Against | None:
    """Only what differs, in the schema's order; None for a run without a configuration."""
    if not record.settings:
        return None
    preset = preset_of(record.facts)
    values = _values_of(preset)
    if values is None:
        preset, values = None, flat(asdict(Config()))
    here = record.settings
    keys = [key for key in here if key not in PLACES]
    differing = [key for key in keys if key not in values or not _equal(here[key], values[key])]
    order = {key: place for place, key in enumerate(values)}
    rows = [
        Setting(key, (shown(here[key]), shown(values[key]) if key in values else ""), is_known=key in values)
        for key in sorted(differing, key=lambda key: order.get(key, math.inf))
    ]
    return Against(preset or DEFAULTS, tuple(rows), len(keys) - len(differing))


def differing(records: Sequence[Record]) -> tuple[Setting, ...]:
    """Settings that are not the same in every run that has any; `values` in the order of the records."""
    begun = [record.settings for record in records if record.settings]
    keys = dict.fromkeys(key for settings in begun for key in settings if key not in PLACES)
    rows = []
    for key in keys:
        # a run of another version may not have it; that is no choice that somebody made
        values = [settings[key] for settings in begun if key in settings]
        if any(not _equal(value, values[0]) for value in values):
            texts = tuple(shown(record.settings.get(key, NOT_THERE)) if record.settings else "" for record in records)
            rows.append(Setting(key, texts))
    return tuple(rows)


def preset_of(facts: Mapping[str, Any]) -> str | None:
    """The shipped configuration that the run's command named; None where it named a file, or nothing is known."""
    environment = facts.get("environment") or {}
    try:
        words = shlex.split(str(environment.get("command") or ""))
    except ValueError:
        return None
    named = ""
    for i, word in enumerate(words):
        if word == "--config-file" and i + 1 < len(words):
            named = words[i + 1]
        elif word.startswith("--config-file="):
            named = word.partition("=")[2]
    plain = named.removesuffix(".yaml").removesuffix(".yml").removeprefix("configs/")
    return next((one for one in (f"train/{plain}", plain) if one in shipped_configs()), None)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested values."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def shown(value: Any) -> str:
    """A value as one would write it; of a path its last parts, for a report is handed on."""
    if isinstance(value, str):
        return shown_name(value) if value.startswith("/") else (value or "''")
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(one) for one in value)}]"
    return str(value)


def _values_of(preset: str | None) -> dict[str, Any] | None:
    if preset is None:
        return None
    try:
        return flat(asdict(load_config(find_config(preset)).config))
    except Dinov2Error:
        return None


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, float(other), rel_tol=1e-12)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
