import pytest
import torch

from dinov2.loss.chunks import LONGEST_CHUNK, longest_chunk, on_rows, row_chunks


@pytest.mark.parametrize(("num_rows", "longest"), [(0, 4), (1, 4), (4, 4), (5, 4), (37, 4), (3, 1), (1000, 400)])
def test_chunks_cover_every_row_once_in_order_and_are_alike_in_length(num_rows: int, longest: int) -> None:
    chunks = list(row_chunks(num_rows, 6, chunk_bytes=longest * 6 * 4))
    assert [row for chunk in chunks for row in range(num_rows)[chunk]] == list(range(num_rows))
    lengths = [chunk.stop - chunk.start for chunk in chunks]
    assert all(0 < length <= longest for length in lengths)
    assert not lengths or max(lengths) - min(lengths) <= 1


def test_a_chunk_stays_below_its_bytes_and_is_never_empty() -> None:
    assert longest_chunk(65_536, chunk_bytes=64 * 2**20) == 256
    assert longest_chunk(65_536, chunk_bytes=1) == 1
    assert longest_chunk(2, chunk_bytes=64 * 2**20) == LONGEST_CHUNK


def test_what_is_not_compiled_is_called_as_it_is() -> None:
    seen: list[torch.Tensor] = []
    rows = torch.zeros(2, 3)
    on_rows(lambda one, other: seen.extend([one, other]), [rows], torch.ones(1), compiled=False)
    assert seen[0] is rows
