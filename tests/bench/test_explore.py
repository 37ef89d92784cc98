"""The measurement opens the real command and sees what a browser would."""

import argparse
import re

import pytest

from dinov2.bench import explore
from dinov2.errors import ConfigError


def words(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    explore.add_arguments(parser)
    return parser.parse_args(given)


def test_the_page_and_the_first_films_are_fetched_from_a_real_explorer() -> None:
    result = explore.run(words("--films", "40", "--width", "8"))
    assert result["page_bytes"] < result["page_unpacked_bytes"]
    assert result["films_bytes"] > 13 * 1000  # the chosen film and its twelve neighbours
    assert result["seconds_to_address"] > 0
    titles = [str(title) for title in explore.table(result).columns[0].cells]
    assert titles[-2:] == ["page opens", "a film's row and neighbours"]


def test_counts_that_make_no_map_are_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("--films 3 --width 768: give at least 13 and 2.")):
        explore.run(words("--films", "3"))
