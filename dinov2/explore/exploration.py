"""All that a page shows, gathered.

In: a features file, a manifest, a method, a column. Out: `Exploration`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dinov2.explore.columns import Colouring, choose, colourings
from dinov2.explore.features import FeatureTable, read_features
from dinov2.explore.films import Films, join_films
from dinov2.explore.maps import TITLES, Placed, choose_method, place_films
from dinov2.explore.neighbours import Neighbours


@dataclass(frozen=True)
class Exploration:
    """N films: their features, what is known of them, where they lie and what colours them."""

    features: FeatureTable
    films: Films
    placed: Placed
    why: str  # this method; empty where it was asked for
    colourings: tuple[Colouring, ...]
    colour: str  # the first one shown; empty where there is none
    neighbours: Neighbours

    @property
    def title(self) -> str:
        """Of the method."""
        return TITLES[self.placed.method]


def explore(
    features: Path,
    *,
    manifest: str | None = None,
    method: str = "auto",
    color_by: str | None = None,
    vector: str = "cls",
    before_map: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Exploration:
    """Reads features and manifest and makes the map, or reads it where it was made before.

    `before_map` is called when all is read and found right: what it raises saves minutes.

    Raises:
        ManifestError: a file that is not there, is damaged or does not fit.
        ConfigError: a column or a method that cannot be had.
    """
    tell("reading")
    read = read_features(features, column=vector)
    films = join_films(read, manifest=manifest)
    found, refused = colourings(films.table)
    colour = choose(found, refused, asked=color_by)
    chosen, why = choose_method(method, num_films=len(read))
    before_map()
    placed = place_films(read, method=chosen, tell=tell)
    return Exploration(read, films, placed, why, found, colour, Neighbours(read.vectors))
