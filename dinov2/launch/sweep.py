"""A sweep: every combination of some settings' values, a run folder each.

In: words such as `optim.base_lr=1e-4,2e-4`. Out: `Variant`s with a folder name and overrides; and `sweep.json`, which
says in the sweep's folder which runs belong to it. What the settings mean is not known here.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.errors import ConfigError

FILE = "sweep.json"
UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+", re.ASCII)
LONGEST_VALUE = 40
LONGEST_NAME = 180  # below the 255 that file systems take, with room for suffixes
OPENING = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True)
class Variant:
    """One run of a sweep; `settings` are keys and values as they were written."""

    name: str
    settings: tuple[tuple[str, str], ...]

    @property
    def overrides(self) -> list[str]:
        """The words that make the run what it is."""
        return [f"{key}={value}" for key, value in self.settings]


def product_of(words: Sequence[str]) -> list[Variant]:
    """Every combination, the last setting changing fastest.

    A comma inside brackets or quotes belongs to the value: `crops.global_crops_scale=[0.3,1],[0.5,1]` are two.
    Raises ConfigError for what is no setting with values, a setting or a value given twice, an open bracket or quote.
    """
    choices: dict[str, list[str]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key or key.startswith("-"):
            raise ConfigError(f"--sweep {word}: give a setting and its values, as in optim.base_lr=1e-4,2e-4.")
        if key in choices:
            raise ConfigError(f"--sweep {word}: {key} is given twice; write all its values behind one `{key}=`.")
        values = split_values(text)
        if not all(values):
            raise ConfigError(f"--sweep {word}: a value is empty; write '' for the empty text.")
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ConfigError(f"--sweep {word}: {', '.join(twice)} is given twice.")
        choices[key] = values
    short = _short_names(list(choices))
    return [
        Variant(name_of([(short[key], value) for key, value in settings]), settings)
        for settings in (tuple(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))
    ]


def split_values(text: str) -> list[str]:
    """At commas outside brackets and quotes.  Raises ConfigError where one of these stays open."""
    values, begin, awaited = [], 0, ""
    for place, sign in enumerate(text):
        if awaited and sign == awaited[-1]:
            awaited = awaited[:-1]
        elif awaited and awaited[-1] in "'\"":
            continue
        elif sign in OPENING or sign in "'\"":
            awaited += OPENING.get(sign, sign)
        elif sign == "," and not awaited:
            values.append(text[begin:place].strip())
            begin = place + 1
    if awaited:
        raise ConfigError(f"--sweep ...={text}: {awaited[-1]} is missing. Quote the whole word for your shell.")
    return [*values, text[begin:].strip()]


def name_of(settings: Sequence[tuple[str, str]]) -> str:
    """A file name that says the settings. A value that had to be changed for it carries a mark, so that two differ."""
    parts = []
    for key, value in settings:
        safe = UNSAFE.sub("-", value).strip("-.")[:LONGEST_VALUE]
        parts.append(f"{key}={safe if safe == value else f'{safe}~{_mark(value)}'}")
    name = ",".join(parts)
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}~{_mark(name)}"


def write_sweep(folder: Path, variants: Sequence[Variant]) -> None:
    """Notes the runs in the folder's `sweep.json`, besides those that are there from an earlier sweep."""
    known = {entry["name"]: entry for entry in read_sweep(folder)}
    known |= {variant.name: {"name": variant.name, "settings": dict(variant.settings)} for variant in variants}
    partial = folder / f".{FILE}.partial"
    partial.write_text(json.dumps({"runs": list(known.values())}, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / FILE)


def read_sweep(folder: Path) -> list[dict[str, Any]]:
    """The runs that `sweep.json` lists: `name` and `settings`; none where there is no such file.

    Raises ConfigError where it is no such list.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
        return [{"name": str(run["name"]), "settings": dict(run["settings"])} for run in runs]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: is not the list of a sweep's runs ({error}). Remove or mend it.") from None


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each key where that is enough to tell them apart."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
