"""Splits of KnoBo (Yang et al., 2024): `class2images_train.p`, `_val.p` and `_test.p`, each class -> list of pictures.

In: the folder with these pickles, and that with the pictures. Out: a `Source`, multiclass. The pickles are read without
ever building an object: one that asks for a class is refused.
"""

import pickle
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dinov2.errors import ManifestError
from dinov2.eval.datasets.public.rows import to_manifest, unique_ids
from dinov2.eval.datasets.reading import Films
from dinov2.eval.datasets.source import Source

NAMES = {split: f"class2images_{split}.p" for split in ("train", "val", "test")}
# the part of a file's name that is the patient's: NIH 00017736_005, Open-i 1624_IM-0406-1001, CheXpert, Kermany
PATIENTS = re.compile(r"(patient\d+)|^(\d{8})_\d{3}$|^(\d+)_IM-\d|^(person\d+_[a-z]+|(?:NORMAL2?-)?IM-\d+)")


class _NoClasses(pickle.Unpickler):
    """Dictionaries, lists, texts and numbers; nothing that runs code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"asks for {module}.{name}; only dictionaries, lists and texts are read")


def find_pickles(*folders: Path | None) -> Path | None:
    """The first of the folders that holds the pickle of the training split, itself or one of its folders."""
    for folder in folders:
        if folder and folder.is_dir():
            for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
                if (place / NAMES["train"]).is_file():
                    return place
    return None


def pickled(name: str, folder: Path, *, root: Path) -> Source:
    """The splits that the pickles in `folder` say, of pictures below `root`.  Raises ManifestError."""
    listed = [
        (split, kind, path)
        for split, file in NAMES.items()
        if (folder / file).is_file()
        for kind, paths in read_pickle(folder / file).items()
        for path in paths
    ]
    if not listed:
        raise ManifestError(f"{name}: the pickles in {folder} list no picture.")
    dropped = _leading_parts(listed[0][2], root=root, name=name)
    images = [PurePosixPath(*_parts(path)[dropped:]).as_posix() for _, _, path in listed]
    rows = [
        {"image": image, "image_id": one, "patient": _patient(image), "split": split, "class": kind}
        for (split, kind, _), image, one in zip(listed, images, unique_ids(images), strict=True)
    ]
    manifest = to_manifest(rows, root=root, dataset=name.lower())
    missing = manifest.missing_files()
    if missing:
        raise ManifestError(
            f"{name}: {len(missing)} of the pictures looked for are not below {root}; the first is "
            f"{manifest.row(missing[0])['image']}."
        )
    return Source(name=name, manifest=manifest, pictures=Films(manifest), labels=("class",))


def read_pickle(path: Path) -> dict[str, list[str]]:
    """class -> pictures.  Raises ManifestError where the file holds anything else, or would run code."""
    try:
        with path.open("rb") as stream:
            value = _NoClasses(stream).load()
    except (pickle.UnpicklingError, EOFError, OSError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise ManifestError(f"{path}: not a pickled dictionary of lists ({error}). Download it again.") from error
    if not isinstance(value, dict) or not all(_is_list_of_texts(one) for one in value.values()):
        raise ManifestError(f"{path}: should hold a dictionary, class -> list of picture paths.")
    return {str(kind): list(paths) for kind, paths in value.items()}


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value)


def _leading_parts(path: str, *, root: Path, name: str) -> int:
    """How many parts at the start of the pickles' paths are left out to find the pictures below `root`."""
    parts = _parts(path)
    for dropped in range(len(parts)):
        if root.joinpath(*parts[dropped:]).is_file():
            return dropped
    raise ManifestError(f"{name}: {path} of the pickles is not below {root}. Give the folder of the pictures as root.")


def _patient(path: str) -> str | None:
    found = PATIENTS.search(PurePosixPath(path).stem) or re.search(r"(patient\d+)", path)
    return next(group for group in found.groups() if group) if found else None


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path.lstrip("/")).parts
