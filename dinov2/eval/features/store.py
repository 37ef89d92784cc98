"""Features on disk: a folder per backbone, split and preparation, there whole or not at all.

In: what identifies a split's features, and batches of them. Out: `FOLDER/<key>-<blocks>/` with cls.npy, pooled.npy,
patches.npy and features.json; and the arrays again, memory-mapped.

Several processes write rows of the same files, each its own rows, by plain writes at an offset: over a network file
system these do not touch the rows of others, as pages of a memory map would.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.lib.format import open_memmap

from dinov2 import __version__
from dinov2.errors import ManifestError
from dinov2.eval.backbones.backbone import Traits
from dinov2.eval.examples import Examples
from dinov2.eval.features.features import Features, Floats, PatchRows
from dinov2.eval.features.forward import FeatureBatch, Form, patch_kind
from dinov2.eval.pictures import Preparation

CARD = "features.json"
FORMAT = 1
KEY_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which features; equal wishes have equal keys."""

    traits: Traits
    examples: Examples
    preparation: Preparation
    precision: str
    blocks: int
    patches: bool

    @cached_property
    def key(self) -> str:
        """Of everything that changes the numbers, apart from how many blocks and whether patches are kept."""
        digest = hashlib.sha256()
        how = {"format": FORMAT, "precision": self.precision, **asdict(self.preparation)}
        digest.update(json.dumps([self.traits.fingerprint, how], sort_keys=True).encode())
        for line in _identities(self.examples):
            digest.update(line.encode() + b"\0")
        return digest.hexdigest()[:KEY_DIGITS]

    @property
    def name(self) -> str:
        """Of the folder."""
        return f"{self.key}-{self.blocks}{'-patches' if self.patches else ''}"

    def find(self, folder: Path) -> Path | None:
        """A whole folder that holds these features, perhaps with more blocks or with patches as well."""
        for place in sorted(folder.glob(f"{self.key}-*")):
            card = _read_card(place)
            if card is None or card.get("num_rows") != len(self.examples) or card.get("key") != self.key:
                continue
            if card["blocks"] >= self.blocks and (card["patches"] or not self.patches):
                return place
        return None

    def card(self, form: Form) -> dict[str, Any]:
        """What `features.json` says."""
        return {
            "format": FORMAT,
            "key": self.key,
            "backbone": self.traits.name,
            "fingerprint": self.traits.fingerprint,
            "split": self.examples.name,
            **asdict(self.preparation),
            "precision": self.precision,
            "blocks": form.blocks,
            "width": form.width,
            "grid": form.grid,
            "patches": self.patches,
            "num_rows": len(self.examples),
            "version": __version__,
        }


def read_features(place: Path, *, blocks: int, patches: bool) -> Features:
    """Memory-mapped arrays of a whole folder, of the last `blocks` blocks.

    Raises ManifestError where it is damaged.
    """
    card = _read_card(place)
    try:
        if card is None:
            raise ValueError(f"no {CARD}")
        arrays = {file.stem: open_memmap(file, mode="r") for file in sorted(place.glob("*.npy"))}
        if any(len(array) != card["num_rows"] for array in arrays.values()):
            raise ValueError("its arrays have other lengths than it says")
        grid = card["grid"]
        return Features(
            cls=arrays["cls"],
            pooled=arrays.get("pooled"),
            patches=PatchRows.of(arrays["patches"]) if patches else None,
            grid=None if grid is None else (int(grid[0]), int(grid[1])),
        ).last(blocks)
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(
            f"{place}: these features are damaged ({error}). Remove the folder; they are made anew."
        ) from error


def make_files(place: Path, *, wanted: Wanted, form: Form) -> None:
    """The folder `place` with arrays whose rows are still to be written; by the main process."""
    place.mkdir()
    rows = len(wanted.examples)
    shapes: dict[str, tuple[int, ...]] = {"cls": (rows, form.blocks, form.width)}
    if form.grid is not None:
        shapes["pooled"] = shapes["cls"]
    if form.grid is not None and wanted.patches:
        shapes["patches"] = (rows, form.grid[0] * form.grid[1], form.width)
    for name, shape in shapes.items():
        kind = patch_kind(wanted.precision) if name == "patches" else np.float32
        open_memmap(place / f"{name}.npy", mode="w+", dtype=kind, shape=shape)


def give_name(place: Path, folder: Path, *, wanted: Wanted, form: Form) -> Path:
    """Moves arrays of which every row is written to where `Wanted.find` finds them; by the main process."""
    (place / CARD).write_text(json.dumps(wanted.card(form), indent=1) + "\n")
    final = folder / wanted.name
    try:
        place.replace(final)
    except OSError:
        # Another command was first with the same features, or what is there is not whole.
        if wanted.find(folder) is None:
            shutil.rmtree(final, ignore_errors=True)
            place.replace(final)
    return final


class RowWriter:
    """Writes rows of the arrays that `make_files` made; every process has its own.  A context manager."""

    def __init__(self, place: Path) -> None:
        self._files = {path.stem: _RowFile(path) for path in sorted(place.glob("*.npy"))}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def add(self, batch: FeatureBatch) -> None:
        """Rows that follow each other.  Raises OSError where the disk takes nothing more."""
        for name, file in self._files.items():
            file.write(getattr(batch, name), first=int(batch.rows[0]))

    def sync(self) -> None:
        """All that was added is on the disk."""
        for file in self._files.values():
            file.sync()


class _RowFile:
    """A .npy file whose rows are written at their place."""

    def __init__(self, path: Path) -> None:
        array = open_memmap(path, mode="r")
        self._offset, self._kind = int(array.offset), array.dtype
        self._row_bytes = array.nbytes // len(array)
        self._shape = array.shape[1:]
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def write(self, rows: Floats, *, first: int) -> None:
        if rows.shape[1:] != self._shape:
            raise AssertionError(f"rows of {rows.shape[1:]} in a file of {self._shape}")
        data = memoryview(np.ascontiguousarray(rows, dtype=self._kind).data).cast("B")
        position = self._offset + first * self._row_bytes
        while data:
            written = os.pwrite(self._descriptor, data, position)
            data, position = data[written:], position + written

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _read_card(place: Path) -> dict[str, Any] | None:
    try:
        card = json.loads((place / CARD).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return card if isinstance(card, dict) and card.get("format") == FORMAT else None


def _identities(examples: Examples) -> list[str]:
    """A line per picture: its id, and its hash where that is known, else its file with size and time."""
    table, root = examples.manifest.table, examples.manifest.root.absolute()
    names = [column for column in ("image_id", "image", "sha256", "offset") if column in table.column_names]
    columns = {name: table.column(name).to_pylist() for name in names}
    lines = []
    known: dict[str, str] = {}  # slices of one volume share a file
    for row in range(len(examples)):
        image = str(columns["image"][row])
        sha256 = columns["sha256"][row] if "sha256" in columns else None
        if not sha256 and image not in known:
            path = examples.manifest.place(row).path
            try:
                state = path.stat()
                known[image] = f"{root / image}|{state.st_size}|{state.st_mtime_ns}"
            except OSError:
                known[image] = str(root / image)
        offset = columns["offset"][row] if "offset" in columns else None
        lines.append(f"{columns['image_id'][row]}|{sha256 or known[image]}|{'' if sha256 else offset}")
    return lines
