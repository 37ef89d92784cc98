"""Which files of the input folder are looked at.

In: a folder or one file. Out: `Source`s in the order of their relative paths. DICOM files often carry no suffix, so
everything is looked at except hidden files and suffixes that are never a picture.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from dinov2.errors import ManifestError
from dinov2.preprocess.intake.source import Source

NEVER_PICTURES = frozenset(
    [
        ".bz2",
        ".cfg",
        ".csv",
        ".db",
        ".doc",
        ".docx",
        ".gz",
        ".htm",
        ".html",
        ".ini",
        ".json",
        ".jsonl",
        ".log",
        ".md",
        ".nii",
        ".npy",
        ".npz",
        ".parquet",
        ".pdf",
        ".pkl",
        ".ps1",
        ".py",
        ".rar",
        ".rtf",
        ".sh",
        ".sql",
        ".tar",
        ".tgz",
        ".toml",
        ".tsv",
        ".txt",
        ".xls",
        ".xlsx",
        ".xml",
        ".xz",
        ".yaml",
        ".yml",
        ".zip",
        ".7z",
    ]
)
NEVER_NAMES = frozenset({"dicomdir", "thumbs.db", "license", "readme"})


@dataclass(frozen=True)
class Listing:
    """What a folder holds."""

    root: Path
    sources: tuple[Source, ...]
    num_skipped: int  # by their suffix or name


def list_sources(root: Path, *, output: Path) -> Listing:
    """Every candidate below `root`, ordered by relative path; the output folder is left out where it lies inside.

    Raises ManifestError where `root` is absent, unreadable, or holds no candidate.
    """
    if root.is_file():
        return Listing(root.parent, (_source(root, root=root.parent),), 0)
    if not root.is_dir():
        raise ManifestError(
            f"{root}: no such folder or file. Give the folder that holds the DICOM or picture files as --input."
        )
    found, num_skipped = [], 0
    excluded = output.resolve()
    for parent, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = [f for f in folders if not f.startswith(".") and Path(parent, f).resolve() != excluded]
        for name in names:
            path = Path(parent, name)
            if name.startswith(".") or path.suffix.lower() in NEVER_PICTURES or name.lower() in NEVER_NAMES:
                num_skipped += 1
            elif path.is_file():
                found.append(_source(path, root=root))
    if not found:
        skipped = (
            f"; {num_skipped} files were left out by their suffix (archives are to be unpacked first)"
            if num_skipped
            else ""
        )
        raise ManifestError(
            f"{root}: no DICOM, PNG, JPEG or TIFF file in this folder, subfolders included{skipped}. Check the path."
        )
    return Listing(root, tuple(sorted(found, key=lambda source: source.relative)), num_skipped)


def _source(path: Path, *, root: Path) -> Source:
    state = path.stat()
    return Source(path=path, relative=path.relative_to(root).as_posix(), size=state.st_size, mtime_ns=state.st_mtime_ns)


def _refuse(error: OSError) -> None:
    raise ManifestError(
        f"{error.filename}: the folder cannot be read ({error.strerror}). Correct its permissions, or leave it out."
    ) from error
