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


class Turn(NamedTuple):
    """A number that says how many times a launch has run the functions before: what lasts is done the first time."""


Number = int | Spot | Turn


class Jobs:
    """Functions f(block, thread, threads) in order; all threads meet between two of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.numbers: list[int] = []
        self.patches: list[tuple[int, int, int]] = []  # slot, base, offset
        self.turns: list[int] = []  # slots
        self.pairs: list[tuple[int, int]] = []  # function, slot of its block
        self.zeros: list[int] = []  # slots of flags

    def flags(self) -> Spot:
        """Flags for a barrier of these threads, zero at the start of each call, with cache lines to themselves."""
        line = FLAG_BYTES // SLOT
        start = len(self.numbers) + line
        self.numbers += [0] * (self.count + 2) * line
        self.zeros += [start + thread * line for thread in range(self.count)]
        return Spot(BLOCK, start * SLOT)

    def add(self, function: int, numbers: Sequence[Number]) -> None:
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
        block = self.filled(addresses)
        threads.parallel(self.function, place(block) + self.start, self.count)

    def filled(self, addresses: list[int]) -> array[int]:
        """The block, which must live as long as it is read."""
        block = self.template[:]
        addresses[BLOCK] = place(block)
        for slot, base, offset in self.patches:
            block[slot] = addresses[base] + offset
        return block

    def repeated(self, addresses: list[int], moves: Sequence[int], times: int) -> tuple[array[int], array[int]]:
        """Two blocks, the first for `threads.repeat`: all so often; each memory moves by so many bytes after each."""
        block = self.filled(addresses)
        start = place(block)
        moved = [(slot, moves[base]) for slot, base, _ in self.patches if moves[base]]
        moved += [(slot, 1) for slot in self.turns]
        line = FLAG_BYTES // SLOT
        numbers = [self.function, start + self.start, times, 0, len(self.zeros), len(moved)]
        numbers += [start + slot * SLOT for slot in self.zeros]
        numbers += [number for slot, by in moved for number in (start + slot * SLOT, by)]
        flags = len(numbers) + line
        more = array("q", numbers + [0] * (self.count + 3) * line)
        more[3] = place(more) + flags * SLOT
        return more, block

    @staticmethod
    def joined(first: Jobs, second: Jobs, bases: int) -> Jobs:
        """Both in one launch, one after the other; the memories of the second are numbered from `bases` on."""
        made, shift = Jobs(first.count), len(first.numbers)
        made.numbers = first.numbers + second.numbers
        made.zeros = first.zeros + [slot + shift for slot in second.zeros]
        made.patches = first.patches + [
            (slot + shift, base, offset + shift * SLOT) if base == BLOCK else (slot + shift, base + bases, offset)
            for slot, base, offset in second.patches
        ]
        made.turns = first.turns + [slot + shift for slot in second.turns]
        made.pairs = first.pairs + [(function, slot + shift) for function, slot in second.pairs]
        made.finish()
        return made

    def _append(self, numbers: Sequence[Number]) -> int:
        first = len(self.numbers)
        for slot, number in enumerate(numbers, first):
            if isinstance(number, Spot):
                self.patches.append((slot, *number))
            elif isinstance(number, Turn):
                self.turns.append(slot)
        self.numbers += [number if isinstance(number, int) else 0 for number in numbers]
        return first


def place(block: array[int]) -> int:
    """The address of a block's first number."""
    return block.buffer_info()[0]
