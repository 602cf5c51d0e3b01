"""Native functions run one after another in one launch, from one block of numbers in which only addresses change.

Python costs more than a small kernel: what does not change from call to call is written once, and a call copies it,
fills in its addresses and starts the threads a single time.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from elman.compiler.emit import threads
from elman.compiler.emit.llvm import FLAG_BYTES

BLOCK = 0  # the base that is the block itself
SLOT = 8  # bytes of a number


class Spot(NamedTuple):
    """An address that is known when a call is made: so many bytes behind the beginning of one of its memories."""

    base: int
    offset: int = 0


class Jobs:
    """Functions f(block, thread, threads) in order; all threads meet between two of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.numbers: list[int] = []
        self.patches: list[tuple[int, int, int]] = []  # slot, base, offset
        self.pairs: list[tuple[int, int]] = []  # function, slot of its block

    def flags(self) -> Spot:
        """Flags for a barrier of these threads, zero at the start of each call, with cache lines to themselves."""
        line = FLAG_BYTES // SLOT
        start = len(self.numbers) + line
        self.numbers += [0] * (self.count + 2) * line
        return Spot(BLOCK, start * SLOT)

    def add(self, function: int, numbers: Sequence[int | Spot]) -> None:
        """Call this function with a block of these numbers."""
        self.pairs.append((function, self._append(numbers)))

    def finish(self) -> None:
        """No more functions: the template is written."""
        if len(self.pairs) == 1:
            ((self.function, slot),) = self.pairs
        else:
            blocks = [number for function, slot in self.pairs for number in (function, Spot(BLOCK, slot * SLOT))]
            slot = self._append([len(self.pairs), self.flags(), *blocks])
            self.function = threads.chain()
        self.start = slot * SLOT
        self.template = array("q", self.numbers)

    def run(self, addresses: list[int]) -> None:
        """Run all of them, each of the memories beginning where `addresses` says; that of the block is filled in."""
        block = self.template[:]
        addresses[BLOCK], _ = block.buffer_info()
        for slot, base, offset in self.patches:
            block[slot] = addresses[base] + offset
        threads.parallel(self.function, addresses[BLOCK] + self.start, self.count)

    def _append(self, numbers: Sequence[int | Spot]) -> int:
        first = len(self.numbers)
        for slot, number in enumerate(numbers, first):
            if isinstance(number, Spot):
                self.patches.append((slot, *number))
        self.numbers += [0 if isinstance(number, Spot) else number for number in numbers]
        return first
