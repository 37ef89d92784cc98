"""The output folder: what lies where, whose it is, and that one command at a time writes to it.

In: the folder, the configuration, a key file. Out: an open `Shelf`. Layout: `images/`, `manifest.parquet`,
`rejected.csv`, `.id_key`, and `.preprocess/` with the journal, the settings and pictures that are not finished.
"""

import csv
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dinov2.config.preprocess import PreprocessConfig
from dinov2.errors import Dinov2Error, LaunchError
from dinov2.preprocess.work.identity import Identity, read_or_create

FORMAT = 1  # raised when the same configuration begins to give other pictures
NOT_OF_THE_PICTURES = ("privacy", "limits", "max_rejected_share")  # may change between two runs into one folder


@dataclass(frozen=True)
class Shelf:
    """An output folder that is ours until `open_shelf` is left."""

    root: Path
    identity: Identity

    @property
    def state(self) -> Path:
        """What only this room reads."""
        return self.root / ".preprocess"

    @property
    def partial(self) -> Path:
        """Pictures that no journal line speaks of yet."""
        return self.state / "partial"


@contextmanager
def open_shelf(root: Path, *, config: PreprocessConfig, key_file: Path | None) -> Iterator[Shelf]:
    """Make or reopen the folder, and hold it alone.

    Raises LaunchError where another command is writing there, or the folder was made with other settings or another
    key; Dinov2Error where it cannot be written.
    """
    with writing(root):
        (root / ".preprocess").mkdir(parents=True, exist_ok=True)
        lock = (root / ".preprocess" / "lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LaunchError(
                f"{root}: another `dinov2 preprocess` is writing there. Wait until it has ended, or give another "
                "--output."
            ) from error
        with writing(root):
            identity = read_or_create(key_file or root / ".id_key", create=key_file is None)
            shelf = Shelf(root, identity)
            _check_settings(shelf, config=config)
            shutil.rmtree(shelf.partial, ignore_errors=True)
            shelf.partial.mkdir()
        try:
            yield shelf
        finally:
            shutil.rmtree(shelf.partial, ignore_errors=True)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn what the disk refuses into one clear message."""
    try:
        yield
    except OSError as error:
        raise Dinov2Error(
            f"{error.filename or root}: cannot be written ({error.strerror or error}). Free some space or mend the "
            "permissions, then run the same "
            "command again: finished pictures are kept and not done twice."
        ) from error


def write_rejects(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """`rejected.csv`, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, fieldnames=("file", "reason", "message"), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _check_settings(shelf: Shelf, *, config: PreprocessConfig) -> None:
    """The folder's settings are ours, or it has none yet and takes ours."""
    ours = _settings(config, identity=shelf.identity)
    path = shelf.state / "settings.json"
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(ours, indent=1) + os.linesep, encoding="utf-8")
        partial.replace(path)
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in dict.fromkeys([*theirs, *ours]) if theirs.get(key) != ours.get(key)]
    if not changed:
        return
    if "key" in changed:
        raise LaunchError(
            f"{shelf.root}: its pictures are named under another key. Give the same --key-file as before, or "
            "another --output."
        )
    listed = "; ".join(f"{key} was {theirs.get(key)!r} and is now {ours.get(key)!r}" for key in changed)
    raise LaunchError(
        f"{shelf.root}: was made with other settings: {listed}. Give another --output, or remove this one to make "
        "it anew."
    )


def _settings(config: PreprocessConfig, *, identity: Identity) -> dict[str, Any]:
    """Flat, as JSON gives it back."""
    flat: dict[str, Any] = {"format": FORMAT, "key": identity.fingerprint}
    for section, values in asdict(config).items():
        if section not in NOT_OF_THE_PICTURES:
            flat |= {
                f"{section}.{key}": list(value) if isinstance(value, tuple) else value for key, value in values.items()
            }
    return flat
