"""Whether what is nearest is relevant.

In: for each query whether each neighbour is relevant, the nearest first. Out: shares.

Legend: Q queries, M neighbours.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import ConfigError

Relevance = NDArray[np.bool_]


def found_at_k(relevant: Relevance, *, k: int, findable: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """[Q] 1 where one of the nearest k of [Q, M] is relevant, else 0; NaN where nothing relevant could be found.

    `findable` [Q] says whether the gallery holds anything relevant, where M neighbours are not all of it.
    Raises ConfigError where there are fewer than k neighbours.
    """
    return _where_findable(np.any(_nearest(relevant, k), axis=1), relevant, findable)


def precise_at_k(relevant: Relevance, *, k: int, findable: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """[Q] share of the nearest k that are relevant; NaN and arguments as of `found_at_k`."""
    return _where_findable(np.mean(_nearest(relevant, k), axis=1), relevant, findable)


def recall_at_k(relevant: Relevance, *, k: int, findable: NDArray[np.bool_] | None = None) -> float:
    """R@k (Jegou et al. 2011; metric learning): share of queries that find something relevant among the nearest k.

    Queries that have nothing to find are left out; NaN where all are.
    """
    return _mean(found_at_k(relevant, k=k, findable=findable))


def precision_at_k(relevant: Relevance, *, k: int, findable: NDArray[np.bool_] | None = None) -> float:
    """P@k: mean share of relevant ones among the nearest k, over the queries that have something to find."""
    return _mean(precise_at_k(relevant, k=k, findable=findable))


def _nearest(relevant: Relevance, k: int) -> Relevance:
    if not 1 <= k <= relevant.shape[1]:
        raise ConfigError(f"k is {k} and there are {relevant.shape[1]} neighbours. Give k from 1 to their number.")
    return relevant[:, :k]


def _where_findable(
    values: NDArray[Any], relevant: Relevance, findable: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    there = relevant.any(axis=1) if findable is None else findable
    return np.where(there, values.astype(np.float64), np.nan)


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else float("nan")
