"""Heads from a few patients per class, over several draws: a learning curve.

In: `Labelled` splits. Out: a `Curve` of test scores, and the `Outcome` of a typical draw.

n patients per class come with all their pictures; a multi-label task draws n patients without any of the classes too,
so that a class has negatives. A larger n of the same draw holds the smaller one's patients. Settings are fixed, or
chosen on n patients per class of validation; validation never joins the pictures that are fitted on, so that n means
n.

Legend: N pictures, C classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import ConfigError
from dinov2.eval.examples import Examples
from dinov2.eval.features import Labelled
from dinov2.eval.outcome import Outcome, Predictions
from dinov2.eval.probes.judging import About, judge, metric_of
from dinov2.eval.protocol import Settings

SHOTS = (1, 2, 4, 8, 16)
DRAWS = 5
Choose = Literal["fixed", "few"]
ProbeOf = Callable[[int], Any]  # number of training pictures -> a probe of `protocol.Probe`


@dataclass(frozen=True, kw_only=True)
class Point:
    """One draw."""

    shots: int  # patients per class that were asked for
    draw: int
    num_patients: int
    num_pictures: int
    score: float  # of test


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Scores over draws."""

    metric: str
    points: tuple[Point, ...]

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Patients per class with the scores of their draws, NaN left out."""
        for shots in sorted({point.shots for point in self.points}):
            scores = np.asarray([point.score for point in self.points if point.shots == shots])
            yield shots, scores[np.isfinite(scores)]

    def told(self) -> list[str]:
        """A line per number of patients: mean and standard deviation over the draws."""
        return [f"{shots} patients per class: {_spread(scores)}" for shots, scores in self]


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """What came of it."""

    curve: Curve
    typical: Outcome  # with most patients, the draw whose score is the median's (the lower of two)


def few_shot(
    probe_of: ProbeOf,
    *,
    about: About,
    candidates: Sequence[Settings],
    splits: tuple[Labelled, Labelled | None, Labelled | None],
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
    choose: Choose = "fixed",
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> FewShot:
    """Fits and tests `draws` times for every number of patients. `advance` is told after every draw, with 1.

    Raises:
        ConfigError: no test split; several candidates with fixed settings, or no validation to choose by; numbers
            below 1; no draw has a score.
    """
    train, val, test = splits
    _refuse(candidates, val=val, test=test, shots=shots, draws=draws, choose=choose)
    assert test is not None
    score = metric_of(about.metric)
    points, outcomes = [], []
    for number in sorted(set(shots)):
        for draw in range(draws):
            few = train.take(draw_rows(train.examples, shots=number, seed=seed + draw))
            few_val = None
            if choose == "few" and val is not None:
                few_val = val.take(draw_rows(val.examples, shots=number, seed=seed + draw))
            outcome, _ = judge(
                probe_of(len(few)),
                about=about,
                candidates=candidates,
                splits=(few, few_val, test),
                join=Labelled.joined,
                refit=False,
            )
            assert isinstance(outcome.test, Predictions)
            points.append(
                Point(
                    shots=number,
                    draw=draw,
                    num_patients=len(set(few.examples.patients.tolist())),
                    num_pictures=len(few),
                    score=score(outcome.test),
                )
            )
            outcomes.append(outcome)
            if advance is not None:
                advance(1)
    curve = Curve(metric=about.metric, points=tuple(points))
    typical, point = _typical(outcomes, points)
    settings = {
        **typical.settings,
        "settings were": "fixed" if choose == "fixed" else "chosen on as many patients of validation",
        "few-shot curve on test": curve.told(),
        "patients per class": point.shots,
        "shown": f"draw {point.draw}, whose score is the median's of {draws}",
    }
    return FewShot(curve=curve, typical=replace(typical, probe="fewshot", settings=settings))


def draw_rows(examples: Examples, *, shots: int, seed: int) -> NDArray[np.int64]:
    """Rows [N'] of `shots` patients per class, all pictures of each; all patients where there are fewer."""
    patients = np.asarray(
        [f"{one}\0{other}" for one, other in zip(examples.group("dataset"), examples.patients, strict=True)]
    )
    chosen: set[str] = set()
    for place, members in enumerate(_members(examples)):
        names = np.unique(patients[members])  # sorted, so that the draw does not depend on the rows' order
        drawn = np.random.default_rng([seed, place]).permutation(len(names))[:shots]
        chosen |= set(names[drawn].tolist())
    return np.flatnonzero(np.isin(patients, sorted(chosen)))


def _members(examples: Examples) -> Iterator[NDArray[np.bool_]]:
    """[N] per class: pictures that show it; of a multi-label task also those of patients who show none."""
    if examples.task == "multiclass":
        yield from (examples.labels == place for place in range(len(examples.classes)))
        return
    shows = examples.labels == 1  # [N, C]
    yield from shows.T
    with_any = np.unique(examples.patients[shows.any(axis=1)])
    yield ~np.isin(examples.patients, with_any) & (examples.labels == 0).any(axis=1)


def _typical(outcomes: Sequence[Outcome], points: Sequence[Point]) -> tuple[Outcome, Point]:
    most = max(point.shots for point in points)
    last = [
        (point.score, place) for place, point in enumerate(points) if point.shots == most and np.isfinite(point.score)
    ]
    if not last:
        raise ConfigError(
            "no draw has a test score: no class has both positives and negatives among the test pictures."
        )
    _, place = sorted(last)[(len(last) - 1) // 2]
    return outcomes[place], points[place]


def _spread(scores: NDArray[np.float64]) -> str:
    if not len(scores):
        return "no score"
    deviation = scores.std(ddof=1) if len(scores) > 1 else float("nan")
    return f"{scores.mean():.3f} ± {deviation:.3f} over {len(scores)} draw{'s' * (len(scores) > 1)}"


def _refuse(
    candidates: Sequence[Settings],
    *,
    val: Labelled | None,
    test: Labelled | None,
    shots: Sequence[int],
    draws: int,
    choose: Choose,
) -> None:
    if test is None:
        raise ConfigError("few-shot: there is no test split to score. Give --test-dataset, or a manifest with one.")
    if choose == "fixed" and len(candidates) != 1:
        raise ConfigError(f"few-shot: {len(candidates)} settings and none to choose by. Give one, or --choose few.")
    if choose == "few" and val is None:
        raise ConfigError("few-shot: --choose few draws patients of validation, and there is no such split.")
    if draws < 1 or not shots or min(shots) < 1:
        raise ConfigError("few-shot: give --shots of 1 or more patients and --num-draws of 1 or more.")
