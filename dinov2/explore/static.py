"""The page as a folder to pass on: `index.html` and a small picture a film.

In: an `Exploration`. Out: a folder that opens from a disk, without a server and without a network. It shows the columns
that colour the map, not the others of the manifest.
"""

from collections.abc import Callable
from dataclasses import dataclass
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

    Raises ConfigError where the folder holds anything, OSError where it cannot be written.
    """
    check_folder(folder)
    with making(folder.absolute().parent, name=folder.name) as place:
        made = place / folder.name
        made.mkdir()
        thumbnails, absent, num_bytes = Thumbnails(shown.films), {}, 0
        if shown.films.pictures is not None:
            (made / PICTURES).mkdir()
            for row in range(len(shown.films)):
                try:
                    num_bytes += (made / PICTURES / f"{row}.jpg").write_bytes(thumbnails.jpeg(row, size="small"))
                except ManifestError as error:
                    absent[row] = str(error)
                advance(1)
        neighbours, similarity = shown.neighbours.of_all()
        page = static_page(shown, neighbours=neighbours, similarity=similarity, absent=absent)
        num_bytes += (made / PAGE).write_bytes(page.encode())
        if folder.exists():
            folder.rmdir()  # empty, as looked at above
        made.rename(folder)
    num_pictures = len(shown.films) - len(absent) if shown.films.pictures is not None else 0
    return Written(folder / PAGE, num_pictures, len(absent), num_bytes)
