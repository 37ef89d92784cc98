"""What a schema's keys are called, which one somebody meant, and which ones are only there so that old files run.

In: a tree of frozen dataclasses. Out: dotted keys with their types, the key a misspelt one means, words for a type.
"""

import difflib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# Keys of the public code's files that this package does not have; accepted while they are off.
FOREIGN: Mapping[str, str] = {
    "train.cell_augmentation": "augmentation for microscopy is not part of this package",
    "train.channel_adaptive": "one network per channel is not part of this package",
}


@dataclass(frozen=True)
class Fault:
    """Something that must be mended before a run can start, and the keys it is about."""

    text: str
    keys: tuple[str, ...] = ()


def leaves(schema: type[Any]) -> dict[str, Any]:
    """Dotted key -> type of every value below `schema`, in order."""
    found: dict[str, Any] = {}
    hints = get_type_hints(schema)
    for field in fields(schema):
        kind = hints[field.name]
        if is_dataclass(kind):
            found |= {f"{field.name}.{key}": hint for key, hint in leaves(kind).items()}  # type: ignore[arg-type]
        else:
            found[field.name] = kind
    return found


def sections(schema: type[Any]) -> tuple[str, ...]:
    """Dotted key of every section below `schema`."""
    parents = (key.split(".")[:-1] for key in leaves(schema))
    return tuple(dict.fromkeys(".".join(parts[:n]) for parts in parents for n in range(1, len(parts) + 1)))


def value_of(config: Any, key: str) -> Any:
    """The value at a dotted key."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


def nearest(key: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `key` was meant to be: the same name in another section, else the closest spelling."""
    known = list(candidates)
    key = key.lstrip("-")
    name = key.rpartition(".")[2]
    twins = [k for k in known if k.rpartition(".")[2] == name]
    if twins:
        return difflib.get_close_matches(key, twins, n=1, cutoff=0.0)[0]
    whole = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    names = difflib.get_close_matches(name, {k.rpartition(".")[2]: None for k in known}, n=1, cutoff=0.7)
    if whole or not names:
        return whole[0] if whole else next(iter(difflib.get_close_matches(key, known, n=1, cutoff=0.6)), None)
    return difflib.get_close_matches(key, [k for k in known if k.rpartition(".")[2] == names[0]], n=1, cutoff=0.0)[0]


def describe(hint: Any, *, value: Any = None) -> str:
    """Words for a type: what may stand where `value` stood."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(a for a in arguments if a is not type(None))
        return f"{describe(inner, value=value)}, or null"
    if origin is Literal:
        close = difflib.get_close_matches(str(value), [str(a) for a in arguments], n=1)
        return f"one of {', '.join(map(str, arguments))}" + (f"; perhaps {close[0]}" if close else "")
    if origin is tuple:
        names = {float: "numbers", int: "whole numbers", str: "texts"}
        count = "a list of" if arguments[-1] is Ellipsis else f"{len(arguments)}"
        return f"{count} {names.get(arguments[0], 'values')}, as in [{_example(arguments)}]"
    if hint is int and isinstance(value, float) and value.is_integer():
        return f"a whole number: write {int(value)}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(
        hint, "another type of value"
    )


def _example(arguments: tuple[Any, ...]) -> str:
    one = {float: ("0.1", "0.5"), int: ("1", "2")}.get(arguments[0], ("a", "b"))
    return ", ".join(one)
