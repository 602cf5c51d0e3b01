"""Memory that is used again: fresh pages cost as much as writing to them twice, and a training step asks for the same.

What a kernel works in, and what backward reads, comes from here; what the caller is given never does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNED = 16  # elements to which each piece is rounded up, so that rows begin with a cache line
KEPT = 8  # pieces of memory that wait for their next use


class Lease:
    """Memory in use. It goes back when the lease is gone, so whoever reads from it holds the lease."""

    def __init__(self, memory: Tensor) -> None:
        self._memory = memory

    def __del__(self) -> None:
        _free.append(self._memory)

    def tensors(self, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Tensors of these shapes, one after another in the memory."""
        found, start = [], 0
        for shape in shapes:
            size = torch.Size(shape).numel()
            found.append(self._memory[start : start + size].view(shape))
            start += rounded(size)
        return found


_free: deque[Tensor] = deque(maxlen=KEPT)  # its methods are atomic: no lock that a finaliser could find taken


def rounded(size: int) -> int:
    """Elements that a piece of this size takes."""
    return -(-size // ALIGNED) * ALIGNED


def lease(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> Lease:
    """Memory for tensors of these shapes: some that waits and is not much too large, else new."""
    size = sum(rounded(torch.Size(shape).numel()) for shape in shapes)
    for _ in range(len(_free)):
        try:
            memory = _free.popleft()
        except IndexError:  # another thread was faster
            break
        if memory.dtype == dtype and size <= memory.numel() <= 2 * size:
            return Lease(memory)
        _free.append(memory)
    return Lease(torch.empty(size, dtype=dtype))
