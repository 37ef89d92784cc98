"""What a file's name says before it is opened: never a picture, an archive, or worth a look.

In: names. Out: a kind of archive, or why a file is left out. DICOM files often carry no suffix, or one that is the end
of a UID, so everything is looked at except hidden files and names that are never a picture.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Literal

ArchiveKind = Literal["zip", "tar", "stream"]
NEVER_PICTURES = frozenset(
    {".csv", ".db", ".feather", ".json", ".jsonl", ".npy", ".npz", ".parquet", ".pkl", ".sql", ".sqlite", ".tsv"}
    | {".doc", ".docx", ".htm", ".html", ".md", ".pdf", ".rtf", ".txt", ".xls", ".xlsx", ".xml"}
    | {".cfg", ".ini", ".log", ".ps1", ".py", ".sh", ".toml", ".yaml", ".yml"}
    | {".7z", ".bz2", ".gz", ".nii", ".rar", ".xz", ".zst"}
)
NEVER_NAMES = frozenset({"dicomdir", "thumbs.db", "license", "readme"})
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
LISTS = (".csv", ".csv.gz", ".parquet")


class Why(StrEnum):
    """Why something below the input is no `Source`; each code is a sentence's end."""

    NAME = "files were left out by their suffix or name, unread"
    HIDDEN = "hidden files and folders were left out, unread"
    SPECIAL = "links, devices and the like were left out"
    NESTED = "archives inside archives were left out; unpack the outer ones to have them looked into"
    LINK = "links to folders were left out: those folders are listed in their own place"
    AGAIN = "rows of the list name a file that an earlier row names"
    NAMELESS = "rows of the list name no file"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is not looked at; only counted, unless a user asks for names."""

    relative: str
    why: Why


def archive_kind(name: str) -> ArchiveKind | None:
    """What kind of archive a file is by its suffix; a compressed tar is a stream without random access."""
    lower = name.lower()
    if lower.endswith(".zip"):
        return "zip"
    if lower.endswith(".tar"):
        return "tar"
    return "stream" if lower.endswith(COMPRESSED_TARS) else None


def is_list(name: str) -> bool:
    """Whether an input of this name is a list of files rather than a file."""
    return name.lower().endswith(LISTS)


def why_left_out(name: str) -> Why | None:
    """Why a file of this name (its last part alone) is not looked at; None where it is."""
    if name.startswith("."):
        return Why.HIDDEN
    lower = name.lower()
    return Why.NAME if lower in NEVER_NAMES or PurePosixPath(lower).suffix in NEVER_PICTURES else None


def why_member_left_out(name: str) -> Why | None:
    """The same for a member's whole name; archives of a Mac carry a shadow of every file in __MACOSX."""
    *folders, last = name.split("/")
    if any(folder == "__MACOSX" or (folder.startswith(".") and folder not in (".", "..")) for folder in folders):
        return Why.HIDDEN
    return Why.NESTED if archive_kind(last) else why_left_out(last)
