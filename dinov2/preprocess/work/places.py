"""What lies where in an output: what may be handed on, and what stays at home.

In: the output folder of the command. Out: `Places`. Everything that may name a person, or undo a pseudonym, lies in
the private folder beside the output, so that the output can be handed on whole.
"""

from dataclasses import dataclass
from pathlib import Path

from dinov2.errors import LaunchError

PRIVATE_SUFFIX = ".private"
SHARES = "shares"
STATE = "state.sqlite"


@dataclass(frozen=True)
class Places:
    """The files of one conversion, or of one share of it."""

    root: Path
    private: Path
    key: Path  # common to all shares

    @property
    def images(self) -> Path:
        """256 folders of pictures."""
        return self.root / "images"

    @property
    def partial(self) -> Path:
        """Pictures that are not in their place yet; on the file system of the others, so that a rename moves them."""
        return self.root / ".partial"

    @property
    def lock(self) -> Path:
        """Held while a command writes here."""
        return self.root / ".lock"

    @property
    def record(self) -> Path:
        """Settings and versions that made the pictures."""
        return self.root / "preprocess.json"

    @property
    def manifest(self) -> Path:
        """A row per picture."""
        return self.root / "manifest.parquet"

    @property
    def rejected(self) -> Path:
        """A row per file without a picture."""
        return self.root / "rejected.csv"

    @property
    def state(self) -> Path:
        """The database of inputs and what became of them."""
        return self.private / STATE

    @property
    def crosswalk(self) -> Path:
        """What the ids stand for."""
        return self.private / "crosswalk.csv"

    @property
    def spool(self) -> Path:
        """Members of compressed archives on their way to a worker."""
        return self.private / "spool"

    def picture(self, image_id: str) -> Path:
        """Where a finished picture lies."""
        return self.images / image_path(image_id)


def image_path(image_id: str) -> str:
    """Where a picture lies below the images folder: 256 folders, so that none holds a million files."""
    return f"{image_id[:2]}/{image_id}.png"


def private_folder(output: Path, *, private: Path | None = None) -> Path:
    """The folder of what stays at home: the one asked for, or OUTPUT.private beside the output."""
    if private is not None:
        return private
    whole = output.resolve() if output.name in ("", "..") else output
    return whole.with_name(whole.name + PRIVATE_SUFFIX)


def share_folder(root: Path, *, number: int, count: int) -> Path:
    """Where share `number` of `count` (1 .. count) lies below an output, or below its private folder."""
    return root / SHARES / f"{number:0{len(str(count))}d}-of-{count}"


def find_places(
    output: Path, *, private: Path | None = None, key_file: Path | None = None, share: tuple[int, int] | None = None
) -> Places:
    """The places of an output, or of a share (number, count) of it.

    Raises LaunchError where the output was begun with another number of shares, or whole where a share is asked for.
    """
    home = private_folder(output, private=private)
    key = key_file or home / "id_key"
    _check_shares(output, home=home, share=share)
    if share is None:
        return Places(output, home, key)
    number, count = share
    return Places(share_folder(output, number=number, count=count), share_folder(home, number=number, count=count), key)


def _check_shares(output: Path, *, home: Path, share: tuple[int, int] | None) -> None:
    counts = {path.name.rpartition("-of-")[2] for path in (output / SHARES).glob("*-of-*")}
    if share is None:
        if counts:
            raise LaunchError(
                f"{output}: is being converted in {' or '.join(sorted(counts))} shares. Go on with --share K/N, or "
                "give another --output."
            )
        return
    if (home / STATE).exists():
        raise LaunchError(f"{output}: was begun without --share. Go on without it, or give another --output.")
    others = counts - {str(share[1])}
    if others:
        raise LaunchError(
            f"{output}: was begun in {' or '.join(sorted(others))} shares, not {share[1]}. Keep to that number, or "
            "give another --output."
        )
