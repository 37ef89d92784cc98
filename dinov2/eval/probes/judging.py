"""A probe and its splits -> `Outcome`: the protocol, a metric that chooses, and what must be said of the run.

In: a probe of `protocol.Probe` whose predictions are `Predictions`. Out: `Outcome`, and the final fit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from dinov2.errors import ConfigError
from dinov2.eval.examples import Examples
from dinov2.eval.outcome import Outcome, Predictions
from dinov2.eval.protocol import Settings, Verdict, select_refit_test
from dinov2.eval.scores import METRICS


class Split(Protocol):
    """A split with its examples, such as `dinov2.eval.features.Labelled`."""

    @property
    def examples(self) -> Examples: ...

    def __len__(self) -> int: ...


Data = TypeVar("Data", bound=Split)


@dataclass(frozen=True, kw_only=True)
class About:
    """What an outcome says of itself."""

    probe: str
    backbone: str
    settings: Mapping[str, Any]
    metric: str = "macro_auroc"


def judge(
    probe: Any,
    *,
    about: About,
    candidates: Sequence[Settings],
    splits: tuple[Data, Data | None, Data | None],
    join: Callable[[Data, Data], Data],
    refit: bool = True,
    remarks: Callable[[Any], Mapping[str, Any]] = lambda _: {},
) -> tuple[Outcome, Any]:
    """Choose on validation, fit again, test once; `remarks` of the final fit join the settings.

    A candidate whose predictions are not numbers has diverged: it cannot be chosen, and the settings name it.

    Raises:
        ConfigError: no such metric; nothing to choose by; the final fit diverged.
    """
    score = metric_of(about.metric)
    train, val, test = splits
    diverged: list[str] = []
    asked = iter(candidates)  # predictions of validation are scored in the order of the candidates

    def checked(said: Predictions) -> float:
        candidate = next(asked)
        if np.isfinite(said.scores).all():
            return score(said)
        diverged.append(told(candidate))
        return float("nan")

    verdict = select_refit_test(
        probe, candidates=candidates, train=train, val=val, test=test, join=join, score=checked, refit=refit
    )
    refuse_diverged(verdict)
    settings = {**about.settings, "labels that are uncertain": "not counted in any score", **remarks(verdict.final)}
    if train.examples.task != "multilabel":
        del settings["labels that are uncertain"]
    if diverged:
        settings["diverged, so never chosen"] = diverged
    counts = {name: len(split) for name, split in zip(("train", "val", "test"), splits, strict=True) if split}
    about = replace(about, settings=settings)
    return outcome_of(verdict, about=about, dataset=train.examples.name, counts=counts), verdict.final


def outcome_of(verdict: Verdict, *, about: About, dataset: str, counts: Mapping[str, int]) -> Outcome:
    """What the protocol found, and what it was found with."""
    return Outcome(
        probe=about.probe,
        backbone=about.backbone,
        dataset=dataset,
        settings=about.settings,
        metric=about.metric,
        chosen=verdict.chosen,
        trail=verdict.trail,
        fitted_on=verdict.fitted_on,
        counts=counts,
        val=verdict.val,
        test=verdict.test,
    )


def refuse_diverged(verdict: Verdict) -> None:
    """Raises ConfigError where the final fit predicts no numbers for test."""
    if verdict.test is not None and not np.isfinite(verdict.test.scores).all():
        raise ConfigError(f"the fit with {told(verdict.chosen)} diverged. Give smaller learning rates.")


def metric_of(name: str) -> Callable[[Predictions], float]:
    """The score by that name, more is better.  Raises ConfigError, naming those that are."""
    if name not in METRICS:
        raise ConfigError(f"--metric {name}: there is no such score. Choose one of {', '.join(METRICS)}.")
    return METRICS[name]


def told(settings: Settings) -> str:
    """Settings in words: `learning_rate=0.1, blocks=4`."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())
