import multiprocessing
import os
import time
from pathlib import Path

from dinov2.data.board import WorkerBoard
from dinov2.data.loader import load_batches
from tests.data.test_loader import load


def _read_for_long(board: WorkerBoard) -> None:
    board.slot(1).reads(81, "/x/y.png")
    time.sleep(60)


def test_what_another_process_reads_can_be_told() -> None:
    board = WorkerBoard(3)
    board.slot(0).waits()
    assert board.words() == "1 waiting to be asked; 2 not started"
    process = multiprocessing.get_context("fork").Process(target=_read_for_long, args=(board,), daemon=True)
    process.start()
    deadline = time.monotonic() + 30
    while "reads" not in board.words() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert board.words() == (
        f"worker 1 (process {process.pid}) reads /x/y.png (position 81) for 0 s; 1 waiting to be asked; 1 not started"
    )
    process.kill()
    process.join()


def test_who_takes_longest_comes_first_and_the_rest_are_counted() -> None:
    board = WorkerBoard(6)
    for worker in (3, 0, 1, 2, 5, 4):
        board.slot(worker).reads(worker, f"{worker}.png")
    board.slot(1).crops()  # of these it is the one that changed last
    words = board.words()
    assert [words.find(f"worker {worker} ") for worker in (3, 0, 2, 5)] == sorted(
        words.find(f"worker {worker} ") for worker in (3, 0, 2, 5)
    )
    assert words.startswith(f"worker 3 (process {os.getpid()}) reads 3.png")
    assert words.endswith("; 2 more at work")


def test_a_path_that_is_too_long_keeps_its_end() -> None:
    board = WorkerBoard(0)
    board.slot(0).reads(5, f"{'x' * 5000}/end.png")
    assert board.words().startswith("the main process reads xxx")
    assert "xxx/end.png (position 5) for 0 s" in board.words()


def test_a_loader_leaves_every_worker_waiting_when_all_is_made(manifest) -> None:
    for num_workers in (0, 2):
        board = WorkerBoard(num_workers)
        batches = load(manifest, num_workers=num_workers, board=board)
        made = [batch.made for batch in batches]
        assert board.words() == f"{max(1, num_workers)} waiting to be asked"
        assert {one.worker for one in made} == set(range(max(1, num_workers)))
        names = {Path(manifest.path(row)).name for row in range(len(manifest))}
        for one in made:
            assert Path(one.slowest_path).name in names
            assert 0 < one.slowest_seconds < one.seconds
            assert (one.process == os.getpid()) == (num_workers == 0)


def test_the_board_changes_no_batch(manifest) -> None:
    import torch

    pairs = zip(load(manifest), load(manifest, board=WorkerBoard(0)), strict=True)
    assert all(torch.equal(one.global_crops, other.global_crops) for one, other in pairs)
    assert load_batches.__kwdefaults__["board"] is None
