"""A sharded checkpoint as plain files, one a part, that any safetensors reader opens.

In: a checkpoint and which sides of it are wanted. Out: a folder of safetensors under public flat names
(`backbone.safetensors`, `dino_head.safetensors`, ...), `consolidated.json` and `config.yaml`. One part is in memory at
a time; no process group is needed. Every file is read back and compared before the folder gets its name.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dinov2.checkpoint.contents import CENTERS, OTHER, PartSize, place_of, sizes_by_part
from dinov2.checkpoint.faults import DISK_FULL
from dinov2.checkpoint.files import PARTIAL, write_durably
from dinov2.checkpoint.reading import read_facts, read_tensors, tensor_metadata
from dinov2.checkpoint.self_test import same_bits
from dinov2.config.load import from_plain, to_yaml
from dinov2.config.schema import Config
from dinov2.errors import CheckpointError

What = Literal["teacher", "student", "all"]
INDEX = "consolidated.json"


def sizes_to_write(checkpoint: Path, *, what: What) -> dict[tuple[str, str], PartSize]:
    """(side, part) -> size of every file that `consolidate` will write, the order in which it does."""
    sizes = sizes_by_part(tensor_metadata(checkpoint))
    wanted = {place: size for place, size in sizes.items() if what in (place[0], "all")}
    if not wanted:
        raise CheckpointError(f"{checkpoint}: holds no {what}, only {', '.join(sorted({side for side, _ in sizes}))}.")
    return wanted


def consolidate(checkpoint: Path, *, folder: Path, what: What, advance: Callable[[int], None]) -> list[Path]:
    """Writes the parts; `advance` is told the bytes of each file that is done.  Returns the files.

    Raises CheckpointError where the checkpoint cannot be read, the folder is not empty or cannot be written, or a file
    reads back differently.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder}: exists and is not empty. Choose another --output-dir, or empty it first.")
    facts, sizes = read_facts(checkpoint), sizes_to_write(checkpoint, what=what)
    partial = folder.with_name(f"{PARTIAL}{folder.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _check_room(partial, sizes)
        names = []
        for place, size in sizes.items():
            names.append(_write_part(checkpoint, place, folder=partial, what=what))
            advance(size.num_bytes)
        _write_index(partial, facts, what=what, sizes=sizes, names=names)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno in DISK_FULL
        advice = "The disk is full: free some space" if full else "Choose another --output-dir"
        raise CheckpointError(f"{folder}: the files could not be written ({error}). {advice}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [folder / name for name in names]


def _write_part(checkpoint: Path, place: tuple[str, str], *, folder: Path, what: What) -> str:
    """One file; only its tensors are in memory, and only until it is read back."""
    tensors: dict[str, Tensor] = {}
    stored_names: dict[str, Tensor] = {}
    for stored_name, one in tensor_metadata(checkpoint).items():
        where = place_of(stored_name)
        if (where.side, where.part) == place:
            tensor = torch.empty(one.size, dtype=one.properties.dtype)
            tensors[where.name] = stored_names[stored_name] = tensor
    read_tensors(checkpoint, into=stored_names, alone=True)
    name = _file_name(place, what=what)
    (folder / name).parent.mkdir(exist_ok=True)
    save_file(tensors, folder / name, metadata={"format": "pt"})
    with safe_open(folder / name, framework="pt") as back:
        if set(back.keys()) != set(tensors):
            raise CheckpointError(f"{folder / name}: holds other tensors than were written. The disk is at fault.")
        for key, tensor in tensors.items():
            if not same_bits(tensor, back.get_tensor(key)):
                raise CheckpointError(f"{folder / name}: {key} reads back differently. The disk is at fault.")
    return name


def _file_name(place: tuple[str, str], *, what: What) -> str:
    """Of one side alone the parts lie in the folder itself, which then loads as weights."""
    side, part = place
    return f"{part}.safetensors" if what != "all" or side in (CENTERS, OTHER) else f"{side}/{part}.safetensors"


def _write_index(
    folder: Path,
    facts: Mapping[str, Any],
    *,
    what: What,
    sizes: Mapping[tuple[str, str], PartSize],
    names: list[str],
) -> None:
    listed = {
        name: {"side": place[0], "part": place[1], "tensors": size.num_tensors, "values": size.num_values}
        for name, (place, size) in zip(names, sizes.items(), strict=True)
    }
    said = {key: facts[key] for key in ("step", "position", "score", "time", "environment") if key in facts}
    write_durably(folder / INDEX, json.dumps({"what": what, "checkpoint": said, "files": listed}, indent=1) + "\n")
    if "config" in facts:
        write_durably(folder / "config.yaml", to_yaml(from_plain(Config, facts["config"])))


def _check_room(folder: Path, sizes: Mapping[tuple[str, str], PartSize]) -> None:
    needed, free = sum(size.num_bytes for size in sizes.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(
            f"{folder.parent}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free. "
            "Free some space, or choose another --output-dir."
        )
