"""Tensors on their way to disk: every process writes its part and knows what it wrote.

In: the plan that torch.distributed.checkpoint made, over all processes or for one. Out: files in one folder, a
`FileRecord` of each, and one call of `commit` on the main process when the files of all processes are on disk. A commit
that fails fails the save on every process.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import AsyncStager
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from dinov2.checkpoint.files import clear_folder

# One process without a process group is meant; the filter is permanent because a save in the background cannot set it.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")


@dataclass(frozen=True)
class FileRecord:
    """One file of a checkpoint as it was written, whatever the disk makes of it later."""

    name: str
    num_bytes: int
    sha256: str


class DurableWriter(FileSystemWriter):  # type: ignore[misc]
    """Writes one checkpoint into `folder`, which becomes what `commit` makes of it."""

    def __init__(
        self,
        folder: Path,
        *,
        commit: Callable[[list[FileRecord]], None],
        fault: Callable[[], BaseException | None] = lambda: None,
    ) -> None:
        """`fault` tells of something that went wrong on this process before writing began."""
        super().__init__(folder)
        self._folder, self._commit, self._fault = folder, commit, fault
        self.fs = self._files = _HashingFiles()

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Called on every process, which may fail here: all processes then learn of it."""
        if (fault := self._fault()) is not None:
            raise fault
        return super().prepare_local_plan(plan)

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Called on the main process before any process writes."""
        clear_folder(self._folder)
        return list(super().prepare_global_plan(plans))

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[list[WriteResult]]":
        """This process's part; the records travel to the main process beside torch's own results."""
        try:
            results = list(super().write_data(plan, planner).wait())
        except RuntimeError as error:
            if self._files.fault is not None:  # torch's serializer says less than the operating system did
                raise self._files.fault from error
            raise
        records = [
            WriteResult(index=MetadataIndex(record.name), size_in_bytes=record.num_bytes, storage_data=record)
            for record in self._files.written.values()
        ]
        future: Future[list[WriteResult]] = Future()
        future.set_result(results + records)
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Called on the main process when every process has written."""
        records = [one.storage_data for part in results for one in part if isinstance(one.storage_data, FileRecord)]
        tensors = [[one for one in part if not isinstance(one.storage_data, FileRecord)] for part in results]
        already = set(self._files.written)
        super().finish(metadata, tensors)
        self._commit(records + [one for name, one in self._files.written.items() if name not in already])


class Stager(AsyncStager):  # type: ignore[misc]
    """Copies of tensors in this process's memory, which training does not touch; the memory is used again every time.

    The stager of torch 2.11 can be used only once, so there is one of our own. A copy that fails is remembered in
    `fault` and told to all processes by the writer: raised here, it would leave them waiting for this one.
    """

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self.fault: BaseException | None = None

    def stage(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """The copies, complete when this returns."""
        self.fault = None
        try:
            for name, tensor in state_dict.items():
                self._copy(name, tensor.detach())
            if any(tensor.device.type == "cuda" for tensor in state_dict.values()):
                torch.cuda.synchronize()  # copies from a GPU only begin above
        except (RuntimeError, MemoryError) as error:
            self.fault = error
            return {}
        return {name: self._copies[name] for name in state_dict}

    def synchronize_staging(self) -> None:
        """Nothing is left to wait for."""

    def close(self) -> None:
        """Lets go of the memory."""
        self._copies.clear()

    def _copy(self, name: str, tensor: Tensor) -> None:
        on_gpu = tensor.device.type == "cuda"
        copy = self._copies.get(name)
        if copy is None or (copy.shape, copy.dtype, type(copy)) != (tensor.shape, tensor.dtype, type(tensor)):
            # Memory that the GPU writes to directly; a shard of a sharded tensor stays one.
            copy = self._copies[name] = torch.empty_like(tensor, device="cpu", pin_memory=on_gpu)
        local_part(copy).copy_(local_part(tensor), non_blocking=on_gpu)


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


class _HashingFiles(FileSystem):  # type: ignore[misc]
    """Files that are hashed while they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[str, FileRecord] = {}
        self.fault: OSError | None = None

    @contextmanager
    def create_stream(self, path: str | Path, mode: str) -> Iterator[Any]:
        """A stream; one for writing leaves a record when it is closed."""
        with super().create_stream(path, mode) as stream:
            if mode != "wb":
                yield stream
                return
            hashed = _HashedStream(stream, complain=self._complain)
            yield hashed
        name = Path(path).name
        self.written[name] = FileRecord(name, hashed.num_bytes, hashed.digest.hexdigest())

    def rename(self, path: str | Path, new_path: str | Path) -> None:
        """A file that changes its name keeps its record."""
        super().rename(path, new_path)
        record = self.written.pop(Path(path).name)
        name = Path(new_path).name
        self.written[name] = FileRecord(name, record.num_bytes, record.sha256)

    def _complain(self, error: OSError) -> None:
        self.fault = self.fault or error


class _HashedStream:
    """What torch writes to: in one go from beginning to end."""

    def __init__(self, stream: BinaryIO, *, complain: Callable[[OSError], None]) -> None:
        self._stream, self._complain = stream, complain
        self.digest = hashlib.sha256()
        self.num_bytes = 0

    def write(self, data: Any) -> int:
        try:
            count = self._stream.write(data)
        except OSError as error:
            self._complain(error)
            raise
        self.digest.update(data)
        self.num_bytes += count
        return count

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def close(self) -> None:
        self._stream.close()
