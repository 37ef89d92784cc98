"""The output folder: whose it is, with which settings it was made, and that one command at a time writes to it.

In: places, the configuration, the key. Out: an open `Shelf`.
"""

import errno
import fcntl
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from dinov2 import __version__
from dinov2.config.preprocess import PreprocessConfig
from dinov2.errors import Dinov2Error, LaunchError
from dinov2.preprocess.work.identity import Identity, read_or_create
from dinov2.preprocess.work.places import Places

FORMAT = 2  # raised when the same configuration begins to give other pictures
MAY_CHANGE = ("limits.", "privacy.source_names", "max_rejected_share")  # between two runs into one folder
NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)
OTHERS = 0o077  # permissions of anybody but the owner
LIBRARIES = (  # whose versions a picture may depend on
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
    "python-gdcm",
    "pillow",
    "opencv-python-headless",
    "numpy",
    "scipy",
    "SimpleITK",
)


@dataclass(frozen=True)
class Shelf:
    """An output folder that is ours until `open_shelf` is left."""

    places: Places
    identity: Identity
    partial: Path  # a folder of this run alone: a worker that outlived an earlier one does not meet it
    remarks: tuple[str, ...]


@contextmanager
def open_shelf(places: Places, *, config: PreprocessConfig, create_key: bool) -> Iterator[Shelf]:
    """Make or reopen the folders, and hold them alone.

    Raises LaunchError where another command is writing there, or the folder was made with other settings or another
    key; Dinov2Error where it cannot be written.
    """
    with writing(places.root):
        places.root.mkdir(parents=True, exist_ok=True)
        remarks = [*_make_private(places.private), *_make_private(places.key.parent, exists=not create_key)]
        lock = places.lock.open("w")
    with lock:
        remarks += _take(lock, root=places.root)
        with writing(places.root):
            identity = read_or_create(places.key, create=create_key)
            remarks += _check_record(places, config=config, identity=identity)
            _remove_leftovers(places)
            partial = places.partial / secrets.token_hex(4)
            partial.mkdir(parents=True)
        try:
            yield Shelf(places, identity, partial, tuple(dict.fromkeys(remarks)))
        finally:
            _remove_leftovers(places)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn what the disk refuses into one clear message."""
    try:
        yield
    except OSError as error:
        raise Dinov2Error(
            f"{error.filename or root}: cannot be written ({error.strerror or type(error).__name__}). Free some space "
            "or mend the permissions, then run the same command again: finished pictures are kept and not done twice."
        ) from error


def _remove_leftovers(places: Places) -> None:
    shutil.rmtree(places.partial, ignore_errors=True)
    shutil.rmtree(places.spool, ignore_errors=True)


def _make_private(folder: Path, *, exists: bool = False) -> list[str]:
    """A folder for its owner alone; one that was there before is left as it is, with a remark."""
    if exists:
        return []
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)  # of the parents too: none of them was there for anybody else
    if folder.stat().st_mode & OTHERS:
        return [f"{folder}: others may look into this folder, which holds the key and what ids stand for: chmod 700 it"]
    return []


def _take(lock: IO[str], *, root: Path) -> list[str]:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LaunchError(
            f"{root}: another `dinov2 preprocess` is writing there. Wait until it has ended, or give another --output."
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return [f"{root}: its file system knows no locks; take care that no second command writes there"]
    return []


def _check_record(places: Places, *, config: PreprocessConfig, identity: Identity) -> list[str]:
    """The folder's settings are ours, or it has none yet and takes ours."""
    ours = {
        "format": FORMAT,
        "key": identity.fingerprint,  # of the key, by which it is recognised; not the key
        "settings": flat_settings(config),
        "dinov2": __version__,
        "libraries": _versions(),
    }
    if not places.record.exists():
        _write_record(places.record, ours)
        return []
    try:
        theirs = json.loads(places.record.read_text(encoding="utf-8"))
        before = {"format": theirs["format"]} | theirs["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise LaunchError(
            f"{places.record}: is no record of a conversion. Give another --output, or remove this one to make it anew."
        ) from error
    if theirs.get("key") != ours["key"]:
        raise LaunchError(
            f"{places.root}: its pictures are named under another key. Give the same --key-file (or --private) as "
            "before, or another --output."
        )
    now: dict[str, Any] = {"format": FORMAT} | flat_settings(config)
    changed = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(f"{key} was {before.get(key)!r} and is now {now.get(key)!r}" for key in changed)
        raise LaunchError(
            f"{places.root}: was made with other settings: {listed}. Give another --output, or remove this one to "
            "make it anew."
        )
    return _other_versions(theirs, ours)


def _other_versions(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    before, now = ({"dinov2": of.get("dinov2"), **of.get("libraries", {})} for of in (theirs, ours))
    changed = [f"{name} {before.get(name)} (now {now.get(name)})" for name in now if before.get(name) != now.get(name)]
    return [f"the output was begun with {', '.join(changed)}; pictures may differ in a level"] if changed else []


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def flat_settings(config: PreprocessConfig) -> dict[str, Any]:
    """The settings that decide about pictures and tables, as JSON gives them back."""
    flat: dict[str, Any] = {}
    for section, values in asdict(config).items():
        items = values.items() if isinstance(values, dict) else [("", values)]
        for key, value in items:
            name = f"{section}.{key}" if key else section
            if not name.startswith(MAY_CHANGE):
                flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


def _versions() -> dict[str, str | None]:
    def of(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {name: of(name) for name in LIBRARIES}
