"""What can be told without a backbone: from a thumbnail's pixels, or from what is known of the patient and the film.

In: `EvalData`. Out: an `Outcome` each, to stand beside that of a backbone.

A backbone that does not clearly beat its pixels has learnt nothing for the task; one that is no better than view, sex,
age and site may be reading them. Both floors are logistic regressions and follow the protocol of every probe.

Legend: N pictures, F columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import OneHotEncoder

from dinov2.errors import ConfigError
from dinov2.eval.examples import EvalData, Examples
from dinov2.eval.features import Features, by_volume, join_examples
from dinov2.eval.outcome import Outcome, Predictions
from dinov2.eval.pictures import Preparation, batches
from dinov2.eval.probes.judging import About, judge
from dinov2.eval.probes.logreg import LogregFit, LogregSettings, fit_logreg, remarks
from dinov2.eval.probes.predictions import predictions_of
from dinov2.eval.probes.uncertainty import Policy
from dinov2.eval.protocol import Settings

SIDE = 32  # pixels
COMPONENTS = 50
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
UNCHOSEN = 0.1  # the strength where there is no validation
METADATA = ("view", "sex", "age", "site")
NUM_BANDS = 10  # of a column of numbers
MISSING = ""
PICTURES_AT_ONCE = 256


@dataclass(frozen=True)
class Columns:
    """A split as numbers or words per picture: pixels [N, S * S], or metadata as text [N, F]."""

    values: NDArray[Any]
    examples: Examples

    def __len__(self) -> int:
        return len(self.examples)

    def joined(self, other: "Columns") -> "Columns":
        """These rows, then the other's."""
        return Columns(np.concatenate([self.values, other.values]), join_examples(self.examples, other.examples))


def pixel_floor(
    data: EvalData,
    *,
    metric: str = "macro_auroc",
    groups: Sequence[str] = (),
    policy: Policy = "ignore",
    seed: int = 0,
    side: int = SIDE,
    components: int = COMPONENTS,
    workers: int = 0,
    refit: bool = True,
    advance: Callable[[int], None] | None = None,
) -> Outcome:
    """Pictures shrunk to 32 x 32 grey, 50 principal components, logistic regression; C chosen on validation.

    Components are of the pictures that are fitted on, never of those that are predicted, and keep their own scale: made
    equal, the last of them would count as much as the first. `advance` is told of pictures read.

    Raises:
        ManifestError: a picture cannot be read.
    """
    splits = _each(data, lambda examples: _pixels(examples, side=side, workers=workers, advance=advance))
    return _judged(
        _Floor(
            lambda seen: _Components(seen, limit=components, seed=seed), data, policy=policy, groups=groups, seed=seed
        ),
        splits,
        about=About(
            probe="floor",
            backbone=f"pixels at {side} x {side}",
            settings={"components": components, "side_px": side, "uncertain": policy, "seed": seed},
            metric=metric,
        ),
        refit=refit,
    )


def metadata_control(
    data: EvalData,
    *,
    columns: Sequence[str] = METADATA,
    metric: str = "macro_auroc",
    groups: Sequence[str] = (),
    policy: Policy = "ignore",
    seed: int = 0,
    refit: bool = True,
) -> Outcome:
    """Logistic regression on columns of the manifest alone: one value, one indicator, and one for not known.

    A column of many numbers (age) becomes ten bands of equal counts. Columns that are absent, empty, or hold the very
    classes that are to be told are left out.

    Raises:
        ConfigError: none of the columns says anything.
    """
    used = [column for column in columns if _says_something(data, column)]
    if not used:
        raise ConfigError(
            f"metadata control: none of the columns {', '.join(columns)} says anything in {data.train.name}. Name "
            "others with --metadata, or leave `metadata` out of --beside."
        )
    splits = _each(data, lambda examples: _metadata(examples, columns=used))
    return _judged(
        _Floor(_Indicators, data, policy=policy, groups=groups, seed=seed),
        splits,
        about=About(
            probe="floor",
            backbone=f"metadata: {', '.join(used)}",
            settings={"columns": used, "uncertain": policy, "seed": seed},
            metric=metric,
        ),
        refit=refit,
    )


class _Components:
    """Principal components of what it was made from."""

    def __init__(self, seen: NDArray[Any], *, limit: int, seed: int) -> None:
        # N pictures have N - 1 components; one more would be rounding, which is nothing here and noise elsewhere.
        number = max(1, min(limit, len(seen) - 1, seen.shape[1]))
        self._components = PCA(number, svd_solver="covariance_eigh", random_state=seed).fit(seen.astype(np.float64))

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        said: NDArray[Any] = self._components.transform(values.astype(np.float64))
        return said


class _Indicators:
    """One column per value that it was made from; a value that it never saw is none of them."""

    def __init__(self, seen: NDArray[np.str_]) -> None:
        self._edges = [_band_edges(column) for column in seen.T]
        self._encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(self._banded(seen))

    def __call__(self, values: NDArray[np.str_]) -> NDArray[Any]:
        said: NDArray[Any] = self._encoder.transform(self._banded(values))
        return said

    def _banded(self, values: NDArray[np.str_]) -> NDArray[np.str_]:
        columns = [_in_bands(column, edges) for column, edges in zip(values.T, self._edges, strict=True)]
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class _FloorFit:
    prepare: Callable[[NDArray[Any]], NDArray[Any]]
    model: LogregFit


class _Floor:
    """What is learnt of the values of a split (components, indicators), then logistic regression on it."""

    def __init__(
        self,
        learn: Callable[[NDArray[Any]], Callable[[NDArray[Any]], NDArray[Any]]],
        data: EvalData,
        *,
        policy: Policy,
        groups: Sequence[str],
        seed: int,
    ) -> None:
        self._learn, self._groups = learn, tuple(groups)
        self._settings = LogregSettings(
            task=data.train.task, num_classes=len(data.train.classes), scaling="none", policy=policy, seed=seed
        )

    def fit(self, candidates: Sequence[Settings], split: Columns) -> Sequence[_FloorFit]:
        prepare = self._learn(split.values)
        models = fit_logreg(
            prepare(split.values),
            split.examples.labels,
            settings=self._settings,
            candidates=[float(one["C"]) for one in candidates],
        )
        return [_FloorFit(prepare, model) for model in models]

    def predict(self, fitted: _FloorFit, split: Columns) -> Predictions:
        said = fitted.model.probabilities(fitted.prepare(split.values))
        return predictions_of(split.examples, said, groups=self._groups)


def _judged(
    probe: _Floor, splits: tuple[Columns, Columns | None, Columns | None], *, about: About, refit: bool
) -> Outcome:
    strengths = STRENGTHS if splits[1] is not None else (UNCHOSEN,)
    outcome, _ = judge(
        probe,
        about=about,
        candidates=[{"C": strength} for strength in strengths],
        splits=splits,
        join=Columns.joined,
        refit=refit,
        remarks=lambda fitted: remarks(fitted.model, classes=splits[0].examples.classes),
    )
    return outcome


def _each(data: EvalData, columns: Callable[[Examples], Columns]) -> tuple[Columns, Columns | None, Columns | None]:
    val, test = (None if one is None else columns(one) for one in (data.val, data.test))
    return columns(data.train), val, test


def _metadata(examples: Examples, *, columns: Sequence[str]) -> Columns:
    cases = examples
    if examples.volumes is not None:
        nothing = np.zeros((len(examples), 1, 1), dtype=np.float32)
        cases = by_volume(Features(cls=nothing, pooled=None), examples).examples
    return Columns(np.stack([cases.group(column) for column in columns], axis=1), cases)


def _pixels(examples: Examples, *, side: int, workers: int, advance: Callable[[int], None] | None) -> Columns:
    """[N, side * side] grey levels in 0..1 of the whole picture, squashed; of slices the mean over their volume."""
    preparation = Preparation(size=side, fit="squash", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    rows = np.empty((len(examples), side * side), dtype=np.float32)
    read = batches(examples, preparation=preparation, batch_size=PICTURES_AT_ONCE, workers=workers)
    for batch in read:
        rows[batch.rows] = batch.normalised("cpu").mean(dim=1).flatten(1).numpy()
        if advance is not None:
            advance(len(batch))
    if examples.volumes is None:
        return Columns(rows, examples)
    cases = by_volume(Features(cls=rows[:, None], pooled=None), examples)
    return Columns(cases.features.cls[:, 0], cases.examples)


def _says_something(data: EvalData, column: str) -> bool:
    values = set(data.train.group(column).tolist())
    return len(values) > 1 and values - {MISSING} != set(data.train.classes)


def _band_edges(column: NDArray[np.str_]) -> NDArray[np.float64] | None:
    """Inner edges of bands of equal counts, or None where the column is not one of many numbers."""
    numbers = [_number(value) for value in column.tolist() if value != MISSING]
    found = [number for number in numbers if number is not None]
    if len(found) < len(numbers) or len(set(found)) <= NUM_BANDS:
        return None
    return np.unique(np.quantile(found, np.linspace(0, 1, NUM_BANDS + 1)[1:-1]))


def _in_bands(column: NDArray[np.str_], edges: NDArray[np.float64] | None) -> NDArray[np.str_]:
    if edges is None:
        return column
    numbers = [_number(value) for value in column.tolist()]
    bands = ["" if number is None else str(np.searchsorted(edges, number, side="right")) for number in numbers]
    return np.asarray(bands, dtype=np.str_)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
