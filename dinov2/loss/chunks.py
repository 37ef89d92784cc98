"""Long tables of logits, a few rows at a time.

In: how many rows and columns. Out: slices of rows, so few that one of them in float32 stays below a number of bytes;
and a function called on such a slice, compiled where that is wanted.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

CHUNK_BYTES = 128 * 2**20  # of one chunk in float32; about four of that size are alive at a time
LONGEST_CHUNK = 512  # rows: with as many, adding up the prototypes' gradient is cheap beside the products
FLOAT32_BYTES = 4

Result = TypeVar("Result")


def longest_chunk(num_columns: int, *, chunk_bytes: int) -> int:
    """How many rows in float32 take at most `chunk_bytes`, up to `LONGEST_CHUNK`; one at least."""
    return min(LONGEST_CHUNK, max(1, chunk_bytes // (FLOAT32_BYTES * num_columns)))


def row_chunks(num_rows: int, num_columns: int, *, chunk_bytes: int) -> Iterator[slice]:
    """Slices that cover all rows in order, alike in length to one row; none where there are no rows."""
    num_chunks = -(-num_rows // longest_chunk(num_columns, chunk_bytes=chunk_bytes))
    for i in range(num_chunks):
        yield slice(i * num_rows // num_chunks, (i + 1) * num_rows // num_chunks)


def on_rows(function: Callable[..., Result], rows: Sequence[Tensor], *others: Any, compiled: bool) -> Result:
    """`function(*rows, *others)`; compiled, it is one form for any number of rows, so that no batch compiles it anew.

    A single row stays eager, for the compiler would make a form of its own for it.
    """
    if not compiled or rows[0].shape[0] < 2:
        return function(*rows, *others)
    for tensor in rows:
        torch._dynamo.mark_dynamic(tensor, 0)
    result: Result = _compiled(function)(*rows, *others)
    return result


@cache
def _compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    return torch.compile(function, fullgraph=True)
