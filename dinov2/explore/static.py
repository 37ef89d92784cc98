"""The page as a folder to pass on: `index.html` and a small picture a film.

In: an `Exploration`. Out: a folder that opens from a disk, without a server and without a network. It shows the columns
that colour the map, not the others of the manifest.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dinov2.errors import ConfigError, ManifestError
from dinov2.eval.making import making
from dinov2.explore.exploration import Exploration
from dinov2.explore.page import static_page
from dinov2.explore.thumbnails import Thumbnails

PAGE = "index.html"
PICTURES = "films"


@dataclass(frozen=True)
class Written:
    """What lies in the folder."""

    page: Path
    num_pictures: int
    num_absent: int
    num_bytes: int


def check_folder(folder: Path) -> None:
    """Raises ConfigError where the folder holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--output-dir {folder}: is there already and not empty. Give another, or remove it.")


def write_folder(shown: Exploration, folder: Path, *, advance: Callable[[int], None] = lambda _: None) -> Written:
    """Writes the folder, which appears whole or not at all.  `advance` counts films.

    Raises ConfigError where the folder holds anything or cannot be written.
    """
    check_folder(folder)
    try:
        with making(folder.absolute().parent, name=folder.name) as place:
            made = place / folder.name
            made.mkdir()
            written = _fill(made, shown, advance=advance)
            if folder.exists():
                folder.rmdir()  # empty, as looked at above
            made.rename(folder)
    except OSError as error:
        raise ConfigError(
            f"--output-dir {folder}: cannot be written ({error.strerror or error}). Give a place that you may write to."
        ) from error
    return replace(written, page=folder / PAGE)


def _fill(made: Path, shown: Exploration, *, advance: Callable[[int], None]) -> Written:
    """Pictures, then the page."""
    thumbnails, num_pictures, num_bytes = Thumbnails(shown.films), 0, 0
    absent: list[int] = []
    if shown.films.pictures is not None:
        (made / PICTURES).mkdir()
        for row in range(len(shown.films)):
            try:
                jpeg = thumbnails.jpeg(row, size="small")
            except ManifestError:
                absent.append(row)
            else:
                num_bytes += (made / PICTURES / f"{row}.jpg").write_bytes(jpeg)
                num_pictures += 1
            advance(1)
    neighbours, similarity = shown.neighbours.of_all()
    page = static_page(shown, neighbours=neighbours, similarity=similarity, absent=absent)
    num_bytes += (made / PAGE).write_bytes(page.encode())
    return Written(made / PAGE, num_pictures, len(absent), num_bytes)
