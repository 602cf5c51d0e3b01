"""Memory that is used again: fresh pages cost as much as writing to them twice, and a training step asks for the same.

What a kernel works in, and what backward reads, waits here for its next use. What the caller is given is used again
only if it is large, as soon as the caller and all that was made of it have let it go. Large pieces wait as long as all
that do are not much more than was in use at once, lately: of lengths that do not come again, no memory stays.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from operator import is_
from typing import Any

import torch
from torch import Tensor

ALIGNED = 16  # elements to which each piece is rounded up, so that rows begin with a cache line
LARGE = 1 << 22  # bytes from which memory is asked for in large pages
PAGE = 1 << 21  # bytes of such a page
MADV_HUGEPAGE = 14
KEPT = 8  # pieces of memory that wait for their next use


class Most:
    """The most bytes that were in use at once; it fades, by half in some hundred uses."""

    SLACK, FADE = 1.5, 0.998

    def __init__(self) -> None:
        self.bytes = 0.0

    def saw(self, used: int) -> None:
        self.bytes = max(used, self.FADE * self.bytes)

    def exceeded(self, waiting: int) -> bool:
        """Too much waits."""
        return waiting > self.SLACK * self.bytes


class Lease:
    """Memory in use. It goes back when the lease is gone, so whoever reads from it holds the lease."""

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        if size := large(memory):
            leased[id(self)] = size
            most_leased.saw(sum(list(leased.values())))

    def __del__(self) -> None:
        size = leased.pop(id(self), 0)
        if self.memory.numel():
            waiting.append(self.memory)
        while size and most_leased.exceeded(sum(map(large, list(waiting)))):
            with suppress(IndexError):  # another thread may be as far
                waiting.popleft()


# their methods are atomic, and so are those of `leased`: no lock that a finaliser could find taken
waiting: deque[Tensor] = deque(maxlen=KEPT)
leased: dict[int, int] = {}  # bytes of large leases
most_leased = Most()


def large(memory: Tensor) -> int:
    """The bytes of a large piece; 0 for others."""
    size = memory.numel() * memory.element_size()
    return size if size >= LARGE else 0


def lease(size: int, dtype: torch.dtype) -> Lease:
    """So many elements: some memory that waits and is not much too large, else new."""
    if size == 0:
        return Lease(_nothing(dtype))
    found = taken(waiting, size, lambda m: size <= m.numel() <= 2 * size and m.dtype is dtype)
    if found is not None:
        return Lease(found)
    with torch.inference_mode(False):  # it may be used again where gradients are wanted
        return Lease(fresh((size,), dtype))


def taken(pieces: deque[Tensor], size: int, fits: Callable[[Tensor], bool]) -> Tensor | None:
    """The smallest piece that fits and that nobody else holds, now no longer there; the others stay in their order.

    size: that of a piece than which none can be better.
    """
    found, others = None, list[Tensor]()
    while found is None or found.numel() != size:
        try:
            memory = pieces.popleft()
        except IndexError:
            break
        others.append(memory)
        if fits(memory) and users(memory) == _alone() and (found is None or memory.numel() < found.numel()):
            found = memory
    pieces.extendleft(memory for memory in reversed(others) if memory is not found)  # as they have waited longest
    return found


handed: deque[Tensor] = deque(maxlen=KEPT)  # what callers were given last, and may have let go
most_handed = Most()


def room(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for what the caller is given: the whole of it and no more, since saving a tensor writes all its memory."""
    size = torch.Size(shape).numel()
    if size * dtype.itemsize < LARGE:
        return torch.empty(shape, dtype=dtype, device="cpu")
    memory = taken(handed, size, lambda m: m.numel() == size and m.dtype is dtype and untouched(m))
    if memory is None:
        with torch.inference_mode(False):
            memory = fresh((size,), dtype)
    tensor: Tensor = torch.empty(0, dtype=dtype, device="cpu").set_(memory.untyped_storage(), 0, shape)  # type: ignore[call-overload]
    handed.append(memory)  # now that somebody else holds it: another thread may look
    free = deque(m for m in list(handed) if users(m) == _alone())
    left = sum(map(large, free))
    most_handed.saw(sum(map(large, list(handed))) - left)
    while free and most_handed.exceeded(left):
        gone = free.popleft()
        taken(handed, gone.numel(), partial(is_, gone))
        left -= large(gone)
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
