"""Logistic regression on features, by scikit-learn; its strength chosen on validation.

In: features [N, F] and labels. Out: a `LogregFit` per strength; probabilities [N, C].

Multi-label: one model per class on the pictures for which it is stated. Multiclass: one multinomial model. The sweep of
C is that of the public evaluations of DINOv2 (Oquab et al. 2023): 45 values, 10^-6 to 10^5, evenly in the exponent.

Legend: N pictures, F features, C classes.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import Normalizer, StandardScaler

from dinov2.errors import ConfigError
from dinov2.eval.examples import Task
from dinov2.eval.features import Labelled
from dinov2.eval.outcome import Predictions
from dinov2.eval.probes.classification_loss import Balance
from dinov2.eval.probes.linear_inputs import InputChoice, input_of
from dinov2.eval.probes.predictions import predictions_of
from dinov2.eval.probes.uncertainty import Policy, apply_policy
from dinov2.eval.protocol import Settings

Scaling = Literal["standard", "l2", "none"]
EXPONENTS = (-6.0, 5.0)  # of C, the public sweep's ends
PUBLIC_NUM_C = 45
NUM_C = 12  # one per decade: the same ends, a quarter of the time
MAX_ITERATIONS = 1000
UNREGULARISED = 1e5
Array = NDArray[np.float64]


def strengths(num: int = NUM_C) -> tuple[float, ...]:
    """Values of C, rising; 1 where there is one.  Raises ConfigError below 1."""
    if num < 1:
        raise ConfigError(f"--num-c {num}: give 1 or more.")
    return (1.0,) if num == 1 else tuple(float(10**exponent) for exponent in np.linspace(*EXPONENTS, num))


@dataclass(frozen=True, kw_only=True)
class LogregSettings:
    """What is the same for every strength."""

    task: Task
    num_classes: int
    scaling: Scaling = "standard"
    policy: Policy = "ignore"
    balance: Balance = "none"
    max_iterations: int = MAX_ITERATIONS
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class LogregFit:
    """One model per class (multi-label) or one for all; a class with one value in training says that value."""

    settings: LogregSettings
    scaler: Any  # of scikit-learn; None
    models: tuple[Any, ...]  # LogisticRegression, or a float where there is nothing to learn
    unconverged: tuple[int, ...]  # models that reached the limit of iterations

    @property
    def constant(self) -> tuple[int, ...]:
        """Classes whose training labels have one value, or none."""
        if self.settings.task == "multiclass":
            seen = set() if isinstance(self.models[0], float) else set(self.models[0].classes_.astype(int).tolist())
            return tuple(one for one in range(self.settings.num_classes) if one not in seen)
        return tuple(one for one, model in enumerate(self.models) if isinstance(model, float))

    def probabilities(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """[N, F] -> [N, C]."""
        scaled = inputs if self.scaler is None else self.scaler.transform(inputs.astype(np.float64))
        said = np.zeros((len(inputs), self.settings.num_classes))
        if self.settings.task == "multiclass":
            model = self.models[0]
            if isinstance(model, float):
                said[:, int(model)] = 1.0
            else:
                said[:, model.classes_.astype(int)] = model.predict_proba(scaled)
        else:
            for one, model in enumerate(self.models):
                said[:, one] = model if isinstance(model, float) else _present_against_absent(model, scaled)
        return said.astype(np.float32)


def fit_logreg(
    inputs: NDArray[Any],
    labels: NDArray[np.float32],
    *,
    settings: LogregSettings,
    candidates: Sequence[float],
    advance: Callable[[int], None] | None = None,
) -> tuple[LogregFit, ...]:
    """One fit per strength C, each from nothing. `advance` is told after every model, with 1.

    A fractional target t (smoothing) is the picture twice: present with weight t and absent with 1 - t, which is the
    cross-entropy with that target. Balanced weights are scikit-learn's: N / (values x entries of the value).

    Raises:
        ConfigError: the data has no classes to learn.
    """
    if settings.task == "segmentation":
        raise ConfigError("this probe classifies pictures, and the data has masks. Give --labels, or use: segment.")
    wide = np.asarray(inputs, dtype=np.float64)
    scaler = {"standard": StandardScaler, "l2": Normalizer, "none": None}[settings.scaling]
    fitted = None if scaler is None else scaler().fit(wide)
    scaled = wide if fitted is None else fitted.transform(wide)
    columns = (
        [labels.astype(np.float64)]
        if settings.task == "multiclass"
        else list(apply_policy(labels, settings.policy, seed=settings.seed).T.astype(np.float64))
    )
    fits = []
    for strength in candidates:
        models, unconverged = [], []
        for place, column in enumerate(columns):
            model, converged = _fit_one(scaled, column, strength=strength, settings=settings)
            models.append(model)
            unconverged += [] if converged else [place]
            if advance is not None:
                advance(1)
        fits.append(LogregFit(settings=settings, scaler=fitted, models=tuple(models), unconverged=tuple(unconverged)))
    return tuple(fits)


def _fit_one(inputs: Array, column: Array, *, strength: float, settings: LogregSettings) -> tuple[Any, bool]:
    rows, values, weights = _entries(column, balance=settings.balance)
    if len(np.unique(values)) < 2:
        return (float(values[0]) if len(values) else 0.0), True
    model = LogisticRegression(C=strength, max_iter=settings.max_iterations, solver="lbfgs")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(inputs[rows], values, sample_weight=weights)
    return model, not any(issubclass(one.category, ConvergenceWarning) for one in said)


def _entries(column: Array, *, balance: Balance) -> tuple[NDArray[np.int64], Array, Array]:
    """Rows, their whole-number values and weights, of the entries that are stated."""
    rows = np.flatnonzero(~np.isnan(column))
    values, weights = column[rows], np.ones(len(rows))
    broken = np.flatnonzero(values != np.round(values))
    if len(broken):
        parts = values[broken]
        rows = np.concatenate([rows, rows[broken]])
        weights = np.concatenate([np.where(values == np.round(values), 1.0, values), 1 - parts])
        values = np.concatenate([np.ceil(values), np.zeros(len(parts))])
    if balance == "balanced" and len(values):
        present, places = np.unique(values, return_inverse=True)
        sums = np.bincount(places, weights=weights)
        weights = weights * (weights.sum() / (len(present) * sums))[places]
    return rows, values, weights


def _present_against_absent(model: Any, inputs: Array) -> Array:
    """Probability of 1 among 0 and 1; of three states (own class), uncertain is left aside."""
    said = dict(zip(model.classes_.astype(int).tolist(), model.predict_proba(inputs).T, strict=True))
    nothing = np.zeros(len(inputs))
    present, absent = said.get(1, nothing), said.get(0, nothing)
    whole = present + absent
    return np.where(whole > 0, present / np.where(whole > 0, whole, 1), 0.5)


class LogregProbe:
    """Fits and predicts by the protocol; a candidate is {"C": strength}."""

    def __init__(
        self,
        *,
        settings: LogregSettings,
        choice: InputChoice,
        groups: Sequence[str] = (),
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self._settings, self._choice, self._groups, self._advance = settings, choice, tuple(groups), advance

    def fit(self, candidates: Sequence[Settings], split: Labelled) -> Sequence[LogregFit]:
        """One fit per candidate."""
        return fit_logreg(
            input_of(split.features, self._choice),
            split.examples.labels,
            settings=self._settings,
            candidates=[float(one["C"]) for one in candidates],
            advance=self._advance,
        )

    def predict(self, fitted: LogregFit, split: Labelled) -> Predictions:
        """Probabilities of a split."""
        said = fitted.probabilities(input_of(split.features, self._choice))
        return predictions_of(split.examples, said, groups=self._groups)


def remarks(fitted: LogregFit, *, classes: Sequence[str]) -> Mapping[str, Any]:
    """What a reader of the result should know of its final fit: classes that are constant, models cut short."""
    named: dict[str, Any] = {}
    if fitted.constant:
        named["constant, for want of two values in training"] = [classes[one] for one in fitted.constant]
    if fitted.unconverged:
        whole = fitted.settings.task == "multiclass"
        named[f"not converged in {fitted.settings.max_iterations} iterations"] = (
            ["all classes"] if whole else [classes[one] for one in fitted.unconverged]
        )
    return named
