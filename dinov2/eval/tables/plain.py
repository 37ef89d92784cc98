"""Results <-> plain JSON: no NaN, no library's types.

In: a `Result`. Out: dicts and lists of text, numbers, true, false and null; and back.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from dinov2.eval.outcome import Outcome
from dinov2.eval.scores import Gap, Interval, Score, Scorecard
from dinov2.eval.scores.scorecard import GroupSize
from dinov2.eval.tables.result import Result

FIELDS = tuple(one.name for one in fields(Outcome) if one.name not in ("val", "test"))


def plain(value: Any) -> Any:
    """Anything of settings and scores -> JSON; NaN -> null, infinity -> text, what is unknown -> its text."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    return str(value) if isinstance(value, Path) or not hasattr(value, "tolist") else plain(value.tolist())


def to_plain(result: Result) -> dict[str, Any]:
    """Without predictions."""
    return {
        "outcome": {name: plain(getattr(result.outcome, name)) for name in FIELDS},
        "splits": {name: plain(asdict(card)) for name, card in result.cards.items()},
        "beside": [to_plain(other) for other in result.beside],
    }


def from_plain(record: Mapping[str, Any]) -> Result:
    """Its outcome has no predictions.  Raises KeyError, TypeError, ValueError, AttributeError."""
    told = record["outcome"]
    outcome = Outcome(
        **{name: told[name] for name in FIELDS if name != "trail"}, trail=tuple(told["trail"]), val=None, test=None
    )
    return Result(
        outcome=outcome,
        cards={name: _card(card) for name, card in record["splits"].items()},
        beside=tuple(from_plain(other) for other in record["beside"]),
    )


def _card(record: Mapping[str, Any]) -> Scorecard:
    lists: dict[str, Any] = {
        "scores": tuple(Score(**_numbers(one)) for one in record["scores"]),
        "groups": tuple(GroupSize(**one) for one in record["groups"]),
        "gaps": tuple(_gap(one) for one in record["gaps"]),
        "absent": tuple(record["absent"]),
        "remarks": tuple(record["remarks"]),
    }
    return Scorecard(**{**record, **lists})


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, **{name: _number(record[name]) for name in ("value", "low", "high")}}


def _gap(record: Mapping[str, Any]) -> Gap:
    lists = {name: tuple(record[name]) for name in ("classes", "left_out")}
    return Gap(**{**record, **lists, "value": Interval(*map(_number, record["value"]))})


def _number(value: float | None) -> float:
    return math.nan if value is None else value
