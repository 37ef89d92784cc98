"""The formats a backbone can be written in, and the folder that is either whole or not there.

In: the name of a format. Out: its writer, imported when it is asked for, so that no format needs another's library.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from safetensors import SafetensorError

from dinov2.checkpoint.files import PARTIAL, share_files, sync_folder
from dinov2.errors import WeightsError
from dinov2.formats.source import Dtype, Source, Written


class Writer(Protocol):
    """Writes one format, and reads it back with the library it is for."""

    def __call__(
        self, source: Source, folder: Path, *, dtype: Dtype = "float32", licence: str = "", with_heads: bool = False
    ) -> Written:
        """`folder` is new; it gets its name once everything in it was read back and compared.

        Raises:
            WeightsError: the backbone does not fit the format, a library is absent, the folder cannot be written, or
                what was read back computes something else. Nothing is left behind.
        """


HOMES = MappingProxyType(
    {
        "dinov2": ("dinov2.formats.native", "write_dinov2"),
        "transformers": ("dinov2.formats.transformers_folder", "write_transformers"),
        "onnx": ("dinov2.formats.onnx_file", "write_onnx"),
        "timm": ("dinov2.formats.timm_folder", "write_timm"),
    }
)
"""Format -> module and name of its writer."""


class _Writers(Mapping[str, Writer]):
    """The writers by format, each imported at its first use."""

    def __getitem__(self, name: str) -> Writer:
        module, function = HOMES[name]
        writer: Writer = getattr(import_module(module), function)
        return writer

    def __contains__(self, name: object) -> bool:
        return name in HOMES  # without importing it

    def __iter__(self) -> Iterator[str]:
        return iter(HOMES)

    def __len__(self) -> int:
        return len(HOMES)


WRITERS: Mapping[str, Writer] = _Writers()


def check_new(folder: Path) -> None:
    """Raises WeightsError where `folder` exists and is not an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WeightsError(f"{folder}: exists and is not empty. Choose another folder, or empty it first.")


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A partial folder beside `folder`, which takes its name where the block ends without an error.

    Whatever error ends the block, Ctrl-C included, takes the partial folder away; one that a killed process left
    behind (`.partial-NAME`) is removed at the start.

    Raises:
        WeightsError: `folder` exists and is not empty, or cannot be written.
    """
    check_new(folder)
    final = folder.resolve()  # so that `.` and `exports/` have a name
    partial = final.with_name(f"{PARTIAL}{final.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        share_files(partial)
        for path in (*partial.rglob("*"), partial):
            sync_folder(path)  # as good for a file
        partial.rename(final)  # over an empty folder too
        sync_folder(final.parent)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{folder}: could not be written ({error}). Choose another folder or free some space."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
