"""What is said of a class in words: a file of prompts.

In: a YAML or JSON file, `class: [texts]` or `class: {positive: [texts], negative: [texts]}`. Out: `ClassPrompts` in the
order of a dataset's classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # JSON is YAML too

from dinov2.errors import ConfigError
from dinov2.eval.examples import Task


@dataclass(frozen=True, kw_only=True)
class ClassPrompts:
    """Texts of a picture that shows the class, and of one that does not."""

    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()


def read_prompts(path: Path) -> dict[str, ClassPrompts]:
    """Prompts by class, in the file's order.  Raises ConfigError where the file is absent or is none."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Give a YAML or JSON file of prompts.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: neither YAML nor JSON ({error}).") from error
    if not isinstance(values, dict) or not values:
        raise ConfigError(f"{path}: expected classes with their texts, such as\n  Effusion: [a pleural effusion]")
    return {str(name): _prompts(entry, where=f"{path}: {name}") for name, entry in values.items()}


def prompts_of_classes(
    classes: Sequence[str], prompts: Mapping[str, ClassPrompts], *, task: Task
) -> tuple[ClassPrompts, ...]:
    """One entry per class; capitals, `_` and spaces are the same in names.

    Raises:
        ConfigError: a class has no prompts, or some findings have negative prompts and others have none.
    """
    by_name = {_plain(name): entry for name, entry in prompts.items()}
    missing = [name for name in classes if _plain(name) not in by_name]
    if missing:
        raise ConfigError(
            f"--prompts: no texts for {', '.join(missing)}. The file has {', '.join(prompts)}. Add them to the file."
        )
    chosen = tuple(by_name[_plain(name)] for name in classes)
    without = [name for name, entry in zip(classes, chosen, strict=True) if not entry.negative]
    if task == "multilabel" and 0 < len(without) < len(classes):
        raise ConfigError(
            f"--prompts: {', '.join(without)} have no negative texts and the others have. Give them to all, or to "
            "none: their scores would not be of one kind."
        )
    return chosen


def _prompts(entry: Any, *, where: str) -> ClassPrompts:
    parts = entry if isinstance(entry, dict) else {"positive": entry}
    unknown = sorted(map(str, set(parts) - {"positive", "negative"}))
    if unknown or "positive" not in parts:
        raise ConfigError(
            f"{where}: expected a list of texts, or lists `positive` and `negative`; found {list(parts)}."
        )
    return ClassPrompts(**{name: _texts(texts, where=f"{where}, {name}") for name, texts in parts.items()})


def _texts(texts: Any, *, where: str) -> tuple[str, ...]:
    listed = [texts] if isinstance(texts, str) else texts
    if not isinstance(listed, list) or not listed or not all(isinstance(text, str) and text.strip() for text in listed):
        raise ConfigError(f"{where}: expected one text or more, none of them empty.")
    return tuple(listed)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())
