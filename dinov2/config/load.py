"""From YAML and `a.b=c` words to a frozen, typed configuration. The only home of OmegaConf.

In: a schema (a tree of frozen dataclasses), a YAML file, override words. Out: an instance of the schema; or one
ConfigError that lists every fault found, each with its full key, where it was written and what to do.
Precedence: the schema's defaults, then the file, then the overrides in their order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml  # type: ignore[import-untyped]  # OmegaConf reads YAML with it; here it also says the line of a key
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dinov2.config import keys
from dinov2.config.keys import Fault
from dinov2.config.notes import notes
from dinov2.config.rules import check, fill
from dinov2.config.schema import Config
from dinov2.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration that passed every rule, and what should be said about it once."""

    config: Config
    messages: tuple[str, ...]
    given: frozenset[str]  # dotted keys that the file or an override set


@dataclass(frozen=True)
class Setting:
    """One value as somebody wrote it."""

    key: str
    value: Any
    origin: str  # "run.yaml:12" or "override"

    def __str__(self) -> str:
        return f"{self.key} = {_shown(self.value)} ({self.origin})"


@dataclass
class _Reading:
    """What has been gathered from file and overrides so far."""

    schema: type[Any]
    leftovers: Mapping[str, str]
    settings: list[Setting]
    faults: list[Fault]
    accepted: dict[str, str]  # leftover key -> why nothing here needs it


def load_typed(schema: type[T], *, file: Path | None, overrides: Sequence[str] = ()) -> T:
    """An instance of `schema` from its defaults, then `file`, then `overrides`.

    Raises ConfigError that lists every unknown key, wrong type and unreadable word together. Rules between keys are the
    caller's.
    """
    reading = _read(schema, file=file, overrides=overrides, leftovers={})
    value = _fill_schema(reading)
    _raise(reading.faults)
    return cast(T, value)


def load_config(file: Path | None, *, overrides: Sequence[str] = ()) -> LoadedConfig:
    """The configuration of a training, checked by every rule of `dinov2.config.rules`.

    `data.mean` and `data.std` of one entry are repeated for every input channel.
    Raises ConfigError with all faults together.
    """
    reading = _read(Config, file=file, overrides=overrides, leftovers=keys.FOREIGN)
    value = _fill_schema(reading)
    given = frozenset(setting.key for setting in reading.settings)
    suspect = {key for fault in reading.faults for key in fault.keys}
    faults = check(value)
    # A rule that looks at a value which is already known to be wrong would only repeat the news, or mislead.
    origins = {setting.key: setting.origin for setting in reading.settings}
    _raise([*reading.faults, *(_placed(fault, origins) for fault in faults if suspect.isdisjoint(fault.keys))])
    messages = notes(value, given=given, accepted=reading.accepted)
    return LoadedConfig(config=fill(value), messages=messages, given=given)


def to_yaml(config: Any) -> str:
    """Every key with its resolved value, in the schema's order; reading it back gives an equal configuration."""
    return str(OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True))


def _raise(faults: Sequence[Fault]) -> None:
    if faults:
        listed = tuple(dict.fromkeys(fault.text for fault in faults))
        count = "1 fault" if len(listed) == 1 else f"{len(listed)} faults"
        raise ConfigError(
            f"{count} in the configuration:\n" + "\n".join(f"  - {text}" for text in listed), faults=listed
        )


def _placed(fault: Fault, origins: Mapping[str, str]) -> Fault:
    """The fault of a rule with the places where its keys were set."""
    set_keys = [key for key in fault.keys if key in origins]
    places = ", ".join(origins[key] if key == fault.keys[0] else f"{key}: {origins[key]}" for key in set_keys)
    return replace(fault, text=f"{fault.text} ({places})") if places else fault


def _read(schema: type[Any], *, file: Path | None, overrides: Sequence[str], leftovers: Mapping[str, str]) -> _Reading:
    reading = _Reading(schema, leftovers, settings=[], faults=[], accepted={})
    if file is not None:
        _read_file(reading, file)
    for word in overrides:
        _read_override(reading, word)
    return reading


def _read_file(reading: _Reading, file: Path) -> None:
    try:
        text = file.read_text(encoding="utf-8-sig")
        tree = OmegaConf.to_container(OmegaConf.create(text), resolve=False) if text.strip() else {}
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        reading.faults.append(Fault(f"{file}: not a text file in UTF-8. Give a YAML file."))
    except OSError as error:
        reading.faults.append(Fault(f"{file}: cannot be read ({error.strerror}). Give the path of a YAML file."))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        reading.faults.append(Fault(f"{file}: does not parse as YAML: {_one_line(error)}. Mend the file."))
    else:
        if root is None or isinstance(root, yaml.MappingNode):
            lines = dict(_lines(root, prefix=""))

            def place(key: str) -> str:
                return f"{file.name}:{lines[key]}" if key in lines else file.name

            _walk(reading, cast(dict[str, Any], tree), prefix="", place=place)
        else:
            reading.faults.append(
                Fault(f"{file}: holds no `section:` with `key: value` below it, so it is no configuration.")
            )


def _read_override(reading: _Reading, word: str) -> None:
    key, equals, text = (part.strip() for part in word.partition("="))
    if key.startswith("-"):
        reading.faults.append(
            Fault(f"{word!r} (override): write {word.lstrip('-')} without dashes.", keys=(key.lstrip("-"),))
        )
        return
    if not equals or not key or " " in key:
        reading.faults.append(Fault(f"{word!r} (override): expected KEY=VALUE, as in train.seed=1.", keys=(key,)))
        return
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        problem = getattr(error, "problem", None) or _one_line(error)
        reading.faults.append(
            Fault(f"{word!r} (override): the value does not parse: {problem}. Mend or quote it.", keys=(key,))
        )
        return
    value = cast(dict[str, Any], value)["value"]
    if value is None and not text:
        value = ""  # `train.output_dir=` means the empty text; null is written null
    tree: Any = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    _walk(reading, tree, prefix="", place=lambda _: "override")


def _walk(reading: _Reading, tree: Mapping[str, Any], *, prefix: str, place: Callable[[str], str]) -> None:
    """Sort every value of `tree` into settings, accepted leftovers and faults."""
    known = keys.leaves(reading.schema)
    sections = keys.sections(reading.schema)
    for name, value in tree.items():
        key = f"{prefix}{name}"
        setting = Setting(key, value, place(key))
        if key in sections:
            if isinstance(value, Mapping):
                _walk(reading, value, prefix=f"{key}.", place=place)
            elif value is not None:  # a heading with everything below it commented out is fine
                names = ", ".join(k.removeprefix(f"{key}.") for k in known if k.startswith(f"{key}."))
                reading.faults.append(
                    Fault(f"{setting}: {key} is a section, not a value; its keys are {names}.", keys=(key,))
                )
        elif key in known:
            reading.settings = [s for s in reading.settings if s.key != key] + [setting]
        elif key in reading.leftovers and not value:
            reading.accepted[key] = reading.leftovers[key]
        else:
            reading.faults.append(_unknown(reading, setting))


def _unknown(reading: _Reading, setting: Setting) -> Fault:
    if setting.key in reading.leftovers:
        return Fault(f"{setting}: {reading.leftovers[setting.key]}; only `false` is accepted.", keys=(setting.key,))
    candidates = [*keys.leaves(reading.schema), *keys.sections(reading.schema)]
    nearest = keys.nearest(setting.key, candidates)
    names = ", ".join(name for name in keys.sections(reading.schema) if "." not in name)
    advice = f"The nearest key is {nearest}." if nearest else f"Remove it; the sections are {names}."
    where = f"{setting.key} ({setting.origin})" if isinstance(setting.value, Mapping) else str(setting)
    return Fault(f"{where}: no such key. {advice}", keys=(setting.key, *([nearest] if nearest else [])))


def _fill_schema(reading: _Reading) -> Any:
    """The schema with every good setting in place; the bad ones become faults."""
    base = OmegaConf.structured(reading.schema)
    try:
        return OmegaConf.to_object(OmegaConf.merge(base, _tree(reading.settings)))
    except (OmegaConfBaseException, ValueError, TypeError):
        plain = [s for s in reading.settings if "${" not in str(s.value) and _fits(reading, s, base)]
        references = [s for s in reading.settings if "${" in str(s.value)]
        merged = OmegaConf.merge(base, _tree([*plain, *references]))
        good = [*plain, *(s for s in references if _resolves(reading, s, merged))]
        return OmegaConf.to_object(OmegaConf.merge(base, _tree(good)))


def _fits(reading: _Reading, setting: Setting, base: Any) -> bool:
    """Whether one plain setting fits its type; a fault is noted where it does not."""
    try:
        OmegaConf.merge(base, _tree([setting]))
    except (OmegaConfBaseException, ValueError, TypeError):
        wanted = keys.describe(keys.leaves(reading.schema)[setting.key], value=setting.value)
        reading.faults.append(Fault(f"{setting}: expected {wanted}.", keys=(setting.key,)))
        return False
    return True


def _resolves(reading: _Reading, setting: Setting, merged: Any) -> bool:
    """Whether a setting that points at others (`${train.seed}`) comes to a value of its type."""
    try:
        value = OmegaConf.select(merged, setting.key)
        _ = list(value) if isinstance(value, Sequence) else value
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        reading.faults.append(Fault(f"{setting}: {_one_line(error)}.", keys=(setting.key,)))
        return False
    return True


def _tree(settings: Iterable[Setting]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for setting in settings:
        *parents, last = setting.key.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = setting.value
    return tree


def _lines(node: Any, *, prefix: str) -> Iterable[tuple[str, int]]:
    """(dotted key, line counted from 1) of every mapping key below a composed YAML node."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            key = f"{prefix}{name.value}"
            yield key, name.start_mark.line + 1
            yield from _lines(value, prefix=f"{key}.")


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}, {error.problem}"
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def from_plain(schema: type[T], values: Mapping[str, Any]) -> T:
    """An instance of `schema` from plain nested values, as `dataclasses.asdict` gives them; absent keys take defaults.

    Raises ConfigError where the values are of another schema, as those of another version may be.
    """
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values)))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(f"not a configuration of this version: {_one_line(error)}.") from error
