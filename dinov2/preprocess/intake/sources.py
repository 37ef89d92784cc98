"""Which files of the input are looked at: a folder's, an archive's, a list's, or one file.

In: the input. Out: a stream of `Source`s in a fixed order, and of what was `Skipped`. The order of a folder is that of
the relative paths; members of an archive and rows of a list come in their own order. One folder's names are in memory
at a time, so an archive may have any number of files.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from dinov2.errors import ManifestError
from dinov2.preprocess.intake.archives import list_archive
from dinov2.preprocess.intake.lists import iter_listed
from dinov2.preprocess.intake.names import (
    COMPRESSED_TARS,
    ArchiveKind,
    Skipped,
    Why,
    archive_kind,
    is_list,
    why_left_out,
)
from dinov2.preprocess.intake.source import Source

STREAM = re.compile(rf"^.*?({'|'.join(map(re.escape, COMPRESSED_TARS))})(?=!/)", re.IGNORECASE | re.DOTALL)
Share = tuple[int, int]  # number, from 1, and how many there are


def iter_sources(
    root: Path, *, leave_out: Sequence[Path] = (), list_root: Path | None = None, share: Share | None = None
) -> Iterator[Source | Skipped]:
    """Every candidate of the input, each with its own `relative`.

    `leave_out` are folders that are no input even where they lie inside (the output, the private folder). `list_root`
    is where a list's relative names start (else the list's own folder). With `share` only that share is listed;
    compressed tars of other shares are not even opened.

    Raises ManifestError: at once where `root` is absent or is to be left out; while listing where a folder cannot be
    read or a list is no table; at the end where nothing was found at all.
    """
    if not root.exists():
        raise ManifestError(
            f"{root}: no such folder or file. Give the folder that holds the DICOM or picture files as --input."
        )
    if root.is_dir() and any(root.samefile(folder) for folder in leave_out if folder.exists()):
        raise ManifestError(
            f"{root}: is input and output at once. Give the pictures a folder of their own as --output."
        )
    return _Listing(root, leave_out=leave_out, list_root=list_root, share=share).run()


def in_share(source: Source | Skipped, *, number: int, count: int) -> bool:
    """Whether a source belongs to share `number` (from 1) of `count`.

    It depends on the relative path alone, so files that are added later move no other; all members of a compressed tar
    are in the share of their archive, which is then read once.
    """
    return _share_number(source.relative, count=count) == number


def _share_number(relative: str, *, count: int) -> int:
    archive = STREAM.match(relative)
    digest = hashlib.sha256((archive[0] if archive else relative).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


class _Listing:
    """One pass over the input."""

    def __init__(self, root: Path, *, leave_out: Sequence[Path], list_root: Path | None, share: Share | None) -> None:
        self.root, self.list_root, self.share = root, list_root or root.parent, share
        self.left_out = [folder.resolve() for folder in leave_out]
        self.left_out_inodes = {folder.stat().st_ino for folder in self.left_out if folder.exists()}
        self.linked: list[Path] = []  # folders outside the input that a link led to
        self.num_usable = self.num_listed = self.num_skipped = 0

    def run(self) -> Iterator[Source | Skipped]:
        """Everything of this share; raises ManifestError at the end where the whole input has nothing."""
        for found in self._all():
            if isinstance(found, Skipped):
                self.num_skipped += 1
            else:
                self.num_listed += 1
                self.num_usable += found.kind != "fault"
            if self.share is None or in_share(found, number=self.share[0], count=self.share[1]):
                yield found
        self._check()

    def _all(self) -> Iterator[Source | Skipped]:
        if self.root.is_dir():
            return self._walk()
        name = self.root.name
        if kind := archive_kind(name):
            return list_archive(self.root, relative=name, kind=kind)
        if is_list(name):
            return iter_listed(self.root, root=self.list_root, opens=self._opens)
        return iter([_source(os.fspath(self.root), relative=name)])

    def _walk(self) -> Iterator[Source | Skipped]:
        """Depth first; the folders on the way are kept as a stack, since there may be more than Python's own holds."""
        start = len(os.path.join(self.root, ""))  # noqa: PTH118
        stack = [self._entries(os.fspath(self.root), relative="")]
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
                continue
            relative = entry.path[start:]
            if _is_dir(entry):
                why = self._why_not_entered(entry)
                if why:
                    yield Skipped(relative, why)
                elif why is None:
                    stack.append(self._entries(entry.path, relative=relative))
            elif kind := _archive_of(entry):
                if self._opens(relative, kind):
                    yield from list_archive(Path(entry.path), relative=relative, kind=kind)
            elif why := why_left_out(entry.name):
                yield Skipped(relative, why)
            else:
                yield _source(entry.path, relative=relative) if _is_regular(entry) else Skipped(relative, Why.SPECIAL)

    def _entries(self, folder: str, *, relative: str) -> Iterator[os.DirEntry[str]]:
        """Sorted so that the whole listing is in the order of the relative paths."""
        try:
            with os.scandir(folder) as entries:
                return iter(sorted(entries, key=_sorting_name))
        except OSError as error:
            depth = relative.count("/") + bool(relative)
            where = f"a folder {depth} levels below {self.root}" if depth else str(self.root)
            raise ManifestError(
                f"{where} cannot be read ({error.strerror}). `find -L {self.root} -type d ! -readable` names "
                "such folders; correct their permissions, or move them away."
            ) from None

    def _why_not_entered(self, entry: os.DirEntry[str]) -> Why | Literal[""] | None:
        """None: it is entered.  Empty: it is none of the input."""
        if entry.name.startswith("."):
            return Why.HIDDEN
        if not entry.is_symlink():
            ours = entry.inode() in self.left_out_inodes and Path(entry.path).resolve() in self.left_out
            return "" if ours else None
        target = Path(entry.path).resolve()
        if any(target == folder or folder in target.parents for folder in self.left_out):
            return ""
        inside = (self.root.resolve(), *self.linked)
        if any(target == folder or folder in target.parents or target in folder.parents for folder in inside):
            return Why.LINK
        self.linked.append(target)
        return None

    def _opens(self, relative: str, kind: ArchiveKind) -> bool:
        """Whether an archive is looked into: not where it is compressed and belongs to another share."""
        if self.share is None or kind != "stream" or _share_number(relative, count=self.share[1]) == self.share[0]:
            return True
        self.num_usable += 1
        return False

    def _check(self) -> None:
        listed = self.root.is_file() and is_list(self.root.name)
        if self.num_usable or (self.num_listed and not listed):
            return
        if listed:
            raise ManifestError(
                f"{self.root}: none of the {self.num_listed} files that it names can be used. Relative names start "
                f"from {self.list_root}; give another folder as --root, or absolute names."
            )
        also = f"; {self.num_skipped} files were left out by their suffix or name" if self.num_skipped else ""
        raise ManifestError(
            f"{self.root}: no DICOM, PNG, JPEG or TIFF file there, subfolders and archives included{also}. Check the "
            "path."
        )


def _source(path: str, *, relative: str) -> Source:
    """A file; where it cannot even be looked at, reading it will say why."""
    try:
        state = os.stat(path)  # noqa: PTH116
    except OSError:
        return Source(relative=relative, path=Path(path), size=0, mtime_ns=0)
    return Source(relative=relative, path=Path(path), size=state.st_size, mtime_ns=state.st_mtime_ns)


def _sorting_name(entry: os.DirEntry[str]) -> str:
    if _is_dir(entry):
        return f"{entry.name}/"
    return f"{entry.name}!/" if _archive_of(entry) else entry.name


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """Files, and links that may be meant as such; the rest would hang its reader or has no content."""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return True  # a link to nowhere is not passed over in silence
    return stat.S_ISREG(mode)


def _archive_of(entry: os.DirEntry[str]) -> ArchiveKind | None:
    return None if entry.name.startswith(".") else archive_kind(entry.name)
