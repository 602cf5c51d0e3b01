"""Memory that is used again: fresh pages cost as much as writing to them twice, and a training step asks for the same.

What a kernel works in, and what backward reads, waits here for its next use. What the caller is given is used again
only if it is large, as soon as the caller and all that was made of it have let it go.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

ALIGNED = 16  # elements to which each piece is rounded up, so that rows begin with a cache line
LARGE = 1 << 22  # bytes from which memory is asked for in large pages
PAGE = 1 << 21  # bytes of such a page
MADV_HUGEPAGE = 14
KEPT = 8  # pieces of memory that wait for their next use


class Lease:
    """Memory in use. It goes back when the lease is gone, so whoever reads from it holds the lease."""

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory

    def __del__(self) -> None:
        if self.memory.numel():
            waiting.append(self.memory)


waiting: deque[Tensor] = deque(maxlen=KEPT)  # its methods are atomic: no lock that a finaliser could find taken


def lease(size: int, dtype: torch.dtype) -> Lease:
    """So many elements: some memory that waits and is not much too large, else new."""
    if size == 0:
        return Lease(_nothing(dtype))
    found = taken(waiting, lambda m: size <= m.numel() <= 2 * size and m.dtype is dtype)
    if found is not None:
        return Lease(found)
    with torch.inference_mode(False):  # it may be used again where gradients are wanted
        return Lease(fresh((size,), dtype))


def taken(pieces: deque[Tensor], fits: Callable[[Tensor], bool]) -> Tensor | None:
    """The first piece that fits and that nobody else holds, now no longer there; the others stay in their order."""
    found, others = None, []
    while found is None:
        try:
            memory = pieces.popleft()
        except IndexError:
            break
        if fits(memory) and users(memory) == _alone():
            found = memory
        else:
            others.append(memory)
    pieces.extendleft(reversed(others))  # they have been there longest, and make way first
    return found


handed: deque[Tensor] = deque(maxlen=KEPT)  # what callers were given last, and may have let go


def room(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for what the caller is given: the whole of it and no more, since saving a tensor writes all its memory."""
    size = torch.Size(shape).numel()
    if size * dtype.itemsize < LARGE:
        return torch.empty(shape, dtype=dtype, device="cpu")
    memory = taken(handed, lambda m: m.numel() == size and m.dtype is dtype and untouched(m))
    if memory is None:
        with torch.inference_mode(False):
            memory = fresh((size,), dtype)
    tensor: Tensor = torch.empty(0, dtype=dtype, device="cpu").set_(memory.untyped_storage(), 0, shape)  # type: ignore[call-overload]
    handed.append(memory)  # now that somebody else holds it: another thread may look
    return tensor


def untouched(memory: Tensor) -> bool:
    """The caller has neither put it where other processes read it nor changed its size."""
    storage = memory.untyped_storage()
    return not storage.is_shared() and storage.nbytes() == memory.numel() * memory.element_size()


def users(memory: Tensor) -> int:
    """How many hold a tensor's memory: what was saved for backward may live longer than its lease."""
    storage = memory.untyped_storage()
    return torch._C._storage_Use_Count(storage._cdata) + sys.getrefcount(storage)


@cache
def _nothing(dtype: torch.dtype) -> Tensor:
    return torch.empty(0, dtype=dtype, device="cpu")


@cache
def _alone() -> int:
    return users(torch.empty(1, device="cpu"))


def fresh(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """New memory on the CPU, in large pages where the system has them: touching it first then costs half as much."""
    tensor = torch.empty(shape, dtype=dtype, device="cpu")
    advise, size = _madvise(), tensor.numel() * tensor.element_size()
    if advise is not None and size >= LARGE:
        start = -(-tensor.data_ptr() // PAGE) * PAGE
        advise(start, (tensor.data_ptr() + size - start) // PAGE * PAGE, MADV_HUGEPAGE)  # advice: it may be refused
    return tensor


@cache
def _madvise() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise


class Pieces:
    """How tensors of given shapes lie one after another in a lease; worked out once and used at every call."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.views: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
        self.offsets: list[int] = []
        self.size = 0
        for shape in shapes:
            strides = tuple(torch.Size(shape[i + 1 :]).numel() for i in range(len(shape)))
            self.views.append((shape, strides, self.size))
            self.offsets.append(self.size)
            self.size += -(-torch.Size(shape).numel() // ALIGNED) * ALIGNED

    def tensors(self, lease: Lease) -> list[Tensor]:
        """The tensors themselves."""
        return [lease.memory.as_strided(*view) for view in self.views]

    def addresses(self, lease: Lease) -> list[int]:
        """Where they begin."""
        start, size = lease.memory.data_ptr(), lease.memory.element_size()
        return [start + offset * size for offset in self.offsets]
