"""Whether what is nearest is relevant."""

import numpy as np
import pytest

from dinov2.errors import ConfigError
from dinov2.eval.scores import found_at_k, precise_at_k, precision_at_k, recall_at_k

RELEVANT = np.asarray([[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)


def test_recall_is_the_share_of_queries_that_find_something_and_precision_the_share_of_what_is_found() -> None:
    assert recall_at_k(RELEVANT, k=1) == pytest.approx(1 / 2)
    assert recall_at_k(RELEVANT, k=2) == 1.0
    assert precision_at_k(RELEVANT, k=2) == pytest.approx(1 / 2)
    assert precision_at_k(RELEVANT, k=4) == pytest.approx(1 / 2)


def test_queries_with_nothing_to_find_are_left_out_unless_the_gallery_is_larger_than_what_is_shown() -> None:
    assert np.isnan(found_at_k(RELEVANT, k=1)[2])
    assert np.isnan(precise_at_k(RELEVANT, k=1)[2])
    findable = np.asarray([True, True, True])
    assert recall_at_k(RELEVANT, k=4, findable=findable) == pytest.approx(2 / 3)
    assert np.isnan(recall_at_k(RELEVANT[2:], k=1))


def test_more_neighbours_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is 5 and there are 4"):
        recall_at_k(RELEVANT, k=5)
