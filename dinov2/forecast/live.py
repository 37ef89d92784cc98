"""Which bytes are alive while tensors are computed.

In: tensor operations, of tensors with or without memory behind them. Out: after each operation the bytes of all
storages that it and its predecessors made and that something still holds, by label.

Counted are storages, not tensors: a view costs nothing, and a storage costs until the last view of it is gone. Not seen
is what a kernel takes and gives back within one operation, nor a weight in the blocks of oneDNN, which is no storage
(one layer's weights at a time, on a CPU).
"""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


class Label(IntEnum):
    """What a storage was made for."""

    INPUTS = 0
    TEACHER = 1
    BACKBONE = 2
    HEADS = 3
    LOGITS = 4  # of student and teacher, and all of their size: assignments, log-probabilities
    LOSSES = 5
    WEIGHT_COPIES = 6  # of weights, in the format in which they are used
    GRADIENTS = 7  # of weights
    BACKWARD = 8  # gradients of everything else


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of torch's
    """Follows every storage from the operation that makes it to the moment nothing holds it.

    `num_masked` answers the one question that tensors without memory cannot: how many entries of a mask are true.
    """

    def __init__(
        self,
        *,
        num_masked: int | None = None,
        prototypes: frozenset[int] = frozenset(),
        weights: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.label = Label.INPUTS
        self.marks: list[tuple[int, str, int]] = []  # (place in the timeline, what happened, to which unit)
        self._num_masked, self._prototypes, self._weights = num_masked, prototypes, weights
        self._now = [0] * len(Label)
        self._timeline: list[tuple[int, ...]] = [tuple(self._now)]
        self._known: dict[int, tuple[Any, Label, int]] = {}  # storage -> its weak reference, label and bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = None if self._num_masked is None else _counted(func, args, num_true=self._num_masked)
        out = func(*args, **(kwargs or {})) if out is None else out
        is_copy = func is aten._to_copy.default and _storage_of(args[0]) in self._weights
        self._see(out, label=Label.WEIGHT_COPIES if is_copy else self.label)
        return out

    def timeline(self) -> NDArray[np.int64]:
        """Bytes alive after every operation that made a storage.  -> [operations, labels]"""
        return np.array(self._timeline, dtype=np.int64)

    def now(self) -> dict[Label, int]:
        """Bytes alive now, weights in use left out."""
        return {label: self._now[label] for label in Label if label not in (Label.INPUTS, Label.WEIGHT_COPIES)}

    @contextmanager
    def labelled(self, label: Label) -> Iterator[None]:
        """What is made inside is made for this."""
        before, self.label = self.label, label
        try:
            yield
        finally:
            self.label = before

    def mark(self, what: str, unit: int) -> None:
        """Notes that something happens now."""
        self.marks.append((len(self._timeline) - 1, what, unit))

    def relabel(self, tensor: Tensor, label: Label) -> None:
        """What this tensor's storage was made for is known only now."""
        key = _storage_of(tensor)
        if key not in self._known:
            return
        reference, before, size = self._known[key]
        self._known[key] = reference, label, size
        self._now[before] -= size
        self._now[label] += size
        self._timeline.append(tuple(self._now))

    def _see(self, out: Any, *, label: Label) -> None:
        changed = False
        for tensor in tree_leaves(out):
            if not isinstance(tensor, Tensor) or tensor.is_mkldnn:
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._known or key in self._weights:
                continue
            made_for = label
            if label in (Label.TEACHER, Label.HEADS, Label.LOSSES) and tensor.ndim > 1:
                made_for = Label.LOGITS if tensor.shape[-1] in self._prototypes else label
            size = storage.nbytes()
            self._known[key] = weakref.ref(storage, partial(self._gone, key)), made_for, size
            self._now[made_for] += size
            changed = True
        if changed:
            self._timeline.append(tuple(self._now))

    def _gone(self, key: int, _: Any) -> None:
        if key in self._known:
            _, label, size = self._known.pop(key)
            self._now[label] -= size


def storages(tensors: Iterator[Tensor]) -> frozenset[int]:
    """The storages behind tensors, as `LiveBytes` knows them."""
    return frozenset(_storage_of(tensor) for tensor in tensors)


def _counted(func: Any, args: tuple[Any, ...], *, num_true: int) -> Tensor | None:
    """The result of an operation whose size depends on how many entries of a mask are true; None for any other."""
    if func is aten.nonzero.default:
        return torch.empty((num_true, args[0].ndim), dtype=torch.int64, device=args[0].device)
    if func is aten.index.Tensor and any(index is not None and index.dtype == torch.bool for index in args[1]):
        indexed: Tensor = args[0].new_empty(num_true)
        return indexed
    return None


def _storage_of(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata) if isinstance(tensor, Tensor) else 0
