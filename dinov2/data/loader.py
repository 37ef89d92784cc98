"""Batches, made ahead of time by worker processes.

In: a `Manifest`, the sections that say what a crop is, and which batches of the run this rank wants. Out: an iterator
of `dinov2.batch.Batch`. A batch depends on (seed, its positions) alone: not on the number of workers, nor on where the
run starts, nor on how positions are shared among ranks.
"""

import math
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from dinov2.batch import Batch
from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data.augmentation import resolve
from dinov2.data.board import WorkerBoard
from dinov2.data.collate import BatchMaker
from dinov2.data.dataset import Pictures
from dinov2.data.film_cache import FilmCache
from dinov2.data.masking import mask_recipe
from dinov2.data.stream import SampleStream, batch_positions
from dinov2.data.trays import Arrays, InTray, Numbered, Trays
from dinov2.errors import DataError, Dinov2Error
from dinov2.manifest import Manifest

SPARE_TRAYS = 3  # besides those under way: the batch in use, the one on its way to it, and one more

Item = Arrays | InTray | Dinov2Error  # what a worker sends


class _Batches(Dataset[Item]):
    """One item a batch: a worker fills it where the main process reads it, and sends word."""

    def __init__(
        self,
        maker: BatchMaker,
        *,
        batch_size: int,
        rank: int,
        num_ranks: int,
        board: WorkerBoard | None,
        trays: Trays | None,
    ) -> None:
        self.maker, self.board, self.trays = maker, board, trays
        self.batch_size, self.rank, self.num_ranks = batch_size, rank, num_ranks

    def __getitem__(self, index: tuple[int, int | None]) -> Item:
        batch, tray = index
        positions = batch_positions(batch, batch_size=self.batch_size, rank=self.rank, num_ranks=self.num_ranks)
        info = get_worker_info()
        worker = 0 if info is None else info.id
        slot = self.board.slot(worker) if self.board else None
        try:
            if self.trays is None or tray is None:  # torch copies it into shared memory
                return self.maker.make(positions, worker=worker, slot=slot)
            made = self.maker.make(positions, worker=worker, slot=slot, into=self.trays.fill(tray))
            return InTray(self.trays, tray, tuple(positions), made["replaced"], made["made"])
        except Dinov2Error as error:
            return error  # raised in a worker it would arrive with a traceback as its message


def batch_maker(
    manifest: Manifest,
    *,
    crops: Crops,
    augmentation: Augmentation,
    ibot: Ibot,
    patch_size: int,
    seed: int,
    cache: FilmCache | None = None,
) -> BatchMaker:
    """Everything that a batch is made with.  Raises ConfigError where the augmentation section is at fault."""
    return BatchMaker(
        pictures=Pictures(manifest, cache=cache),
        stream=SampleStream(len(manifest), seed=seed),
        crops=crops,
        recipe=resolve(augmentation),
        masks=mask_recipe(ibot, crop_size=crops.global_crops_size, patch_size=patch_size, seed=seed),
        seed=seed,
    )


def load_batches(
    manifest: Manifest,
    *,
    crops: Crops,
    augmentation: Augmentation,
    ibot: Ibot,
    patch_size: int,
    seed: int,
    batch_size: int,
    rank: int,
    num_ranks: int,
    first_batch: int,
    num_batches: int,
    num_workers: int,
    prefetch_batches: int,
    pin_memory: bool,
    board: WorkerBoard | None = None,
    cache: FilmCache | None = None,
) -> Generator[Batch, None, None]:
    """This rank's part of batches `first_batch` .. `first_batch + num_batches - 1`, in order.

    `batch_size` is per rank. `num_workers` 0 makes batches in this process, as they are asked for; otherwise about
    `prefetch_batches` are kept ready, at least one a worker. The iterator starts at once at any batch. Closing it ends
    the workers. On `board` every worker notes what it reads; films that `cache` holds are not decoded again. Raises
    ConfigError at once; DataError from the iterator where a worker dies or nothing can be read.

    A batch of a forked worker lies in memory shared with it, which is used again once none of the batch's tensors is
    left; batches may be kept for as long as is wanted.
    """
    maker = batch_maker(
        manifest, crops=crops, augmentation=augmentation, ibot=ibot, patch_size=patch_size, seed=seed, cache=cache
    )
    # Forked workers share the manifest's memory. They never touch the accelerator, so a parent that uses one is no
    # harm.
    forks = num_workers > 0 and sys.platform == "linux"
    batches_a_worker = math.ceil(max(1, prefetch_batches) / num_workers) if num_workers else None
    trays = Trays(maker.shape(batch_size), count=num_workers * (batches_a_worker or 0) + SPARE_TRAYS) if forks else None
    loader = DataLoader(
        _Batches(maker, batch_size=batch_size, rank=rank, num_ranks=num_ranks, board=board, trays=trays),
        batch_size=None,
        collate_fn=_as_it_is,
        sampler=Numbered(range(first_batch, first_batch + num_batches), trays),
        num_workers=num_workers,
        prefetch_factor=batches_a_worker,
        multiprocessing_context="fork" if forks else None,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        # Without a generator of its own it advances torch's, and dropout would depend on how often a loader was
        # started.
        generator=torch.Generator(),
    )
    return _checked(loader)


def _checked(loader: "DataLoader[Item]") -> Generator[Batch, None, None]:
    with _child_signals_as_before():
        batches = iter(loader)
    try:
        while True:
            try:
                item = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if loader.num_workers == 0 or not _tells_of_a_dead_worker(error):
                    raise
                first_line = (str(error) or type(error).__name__).splitlines()[0]
                raise DataError(
                    f"a data worker died ({first_line}). Most often the machine is out of memory or of shared memory "
                    "(/dev/shm): lower train.num_workers or data.prefetch_batches, or give the job more."
                ) from error
            if isinstance(item, Dinov2Error):
                raise item
            yield _batch(item)
            del item  # or the tray of a batch that is done with would not be free yet
    finally:
        del batches  # ends the workers now, not when the garbage collector comes by


def _batch(item: Arrays | InTray) -> Batch:
    arrays = item.arrays() if isinstance(item, InTray) else item
    return Batch(**(arrays | {"replaced": tuple(arrays["replaced"])}))  # pinning turns tuples into lists


@contextmanager
def _child_signals_as_before() -> Iterator[None]:
    """Puts SIGCHLD back to what it was before torch started its workers.

    torch's own handler raises wherever the main program stands when a worker dies. Without it the loss is noticed where
    the next batch is asked for, within seconds, and told there.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)


def _tells_of_a_dead_worker(error: Exception) -> bool:
    """Whether the main process lost a worker; what a live worker passes on says "Caught", and is a fault of ours."""
    if "Caught" in str(error):
        return False
    return "DataLoader worker" in str(error) or isinstance(error, OSError | EOFError)


def _as_it_is(item: Any) -> Any:
    """Batches come whole from `BatchMaker`; nothing is left to put together."""
    return item


def _start_worker(_worker: int) -> None:
    sys.excepthook = _hang_up_quietly
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # are the main process's to handle; it ends the workers
    _end_only_when_told_by_the_main_process()
    cv2.setNumThreads(0)  # a worker a core; threads of their own would only take cores from each other


def _end_only_when_told_by_the_main_process() -> None:
    """scancel and torchrun send SIGTERM to every process of a run, but a run that is asked to stop still wants batches.

    Waits in a thread, because only so a process learns who sent a signal, and because it ends a worker that hangs too.
    """
    parent, asked = os.getppid(), {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)

    def wait() -> None:
        while signal.sigwaitinfo(asked).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, name="end", daemon=True).start()


def _hang_up_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A main process that ends takes its end of a worker's connection with it; that is no news worth a traceback."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
