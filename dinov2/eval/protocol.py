"""How settings are chosen: on validation; then fitted again on train + validation; then test, once.

In: a `Probe`, and whatever it takes as a split (features, pictures). Out: a `Verdict`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from dinov2.errors import ConfigError

Split = TypeVar("Split", contravariant=True)
Fitted = TypeVar("Fitted")
Said = TypeVar("Said", covariant=True)
Data = TypeVar("Data")
Settings = Mapping[str, Any]


class Probe(Protocol[Split, Fitted, Said]):
    """Fits candidates and says what each predicts."""

    def fit(self, candidates: Sequence[Settings], split: Split) -> Sequence[Fitted]:
        """One fit per candidate, each from the same start; all in one pass where that is cheaper."""

    def predict(self, fitted: Fitted, split: Split) -> Said:
        """Predictions for a split, in its order."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was chosen and what it says."""

    chosen: Settings
    trail: tuple[Mapping[str, Any], ...]  # candidates in their order, each with "validation"
    val: Any  # Said of the chosen candidate, fitted on train; None without validation
    test: Any  # Said of the final fit; None without test
    final: Any  # the final fit
    fitted_on: str


def select_refit_test(
    probe: Probe[Any, Any, Any],
    *,
    candidates: Sequence[Settings],
    train: Data,
    val: Data | None,
    test: Data | None,
    join: Callable[[Data, Data], Data],
    score: Callable[[Any], float],
    refit: bool = True,
) -> Verdict:
    """The protocol of every probe. `score` is of validation predictions, more is better; the first best wins.

    Test is predicted once, by the final fit; it is never scored here.

    Raises:
        ConfigError: several candidates and no validation split to choose by; no candidate has a score.
    """
    if val is None:
        if len(candidates) != 1:
            raise ConfigError(
                f"{len(candidates)} settings to choose from and no validation split. Give one (dinov2 manifest split), "
                "or one value for every setting. Test pictures never choose."
            )
        final = probe.fit(candidates, train)[0]
        said = None if test is None else probe.predict(final, test)
        return Verdict(
            chosen=candidates[0],
            trail=({**candidates[0], "validation": None},),
            val=None,
            test=said,
            final=final,
            fitted_on="train",
        )
    fits = probe.fit(candidates, train)
    said_of_val = [probe.predict(fitted, val) for fitted in fits]
    values = [score(said) for said in said_of_val]
    trail = tuple({**one, "validation": value} for one, value in zip(candidates, values, strict=True))
    if not any(math.isfinite(value) for value in values):
        raise ConfigError(
            "no setting has a validation score: no class of the validation split has both positives and negatives, "
            "or every fit diverged. Give a larger validation split or smaller learning rates."
        )
    best = max(
        range(len(values)), key=lambda i: (math.isfinite(values[i]), values[i] if math.isfinite(values[i]) else 0.0, -i)
    )
    final = probe.fit([candidates[best]], join(train, val))[0] if refit else fits[best]
    return Verdict(
        chosen=candidates[best],
        trail=trail,
        val=said_of_val[best],
        test=None if test is None else probe.predict(final, test),
        final=final,
        fitted_on="train + val" if refit else "train",
    )
