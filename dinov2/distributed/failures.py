"""Which errors tell of other processes, rather than of the one that raises them.

In: an exception. Out: whether an exchange failed, and the error in one line.
"""

import torch.distributed as dist

EXCHANGE_WORDS = ("gloo", "nccl", "c10d", "connection closed by peer", "connection reset", "broken pipe")


def is_of_an_exchange(error: BaseException) -> bool:
    """Whether an error tells of other processes rather than of this one, by itself or by what caused it."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, dist.DistError):
            return True
        if isinstance(link, RuntimeError) and any(word in str(link).lower() for word in EXCHANGE_WORDS):
            return True  # gloo raises plain RuntimeErrors
        link = link.__cause__ or link.__context__
    return False


def one_line(error: BaseException) -> str:
    """Type and message, for a message to another process."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
