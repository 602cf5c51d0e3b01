"""Segments of time one after another in one launch: only addresses differ from one to the next, each by so many bytes.

Python costs a millisecond a segment, its own data having left the caches; so none runs between them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from elman.compiler.emit import threads
from elman.compiler.emit.call import Call, addresses
from elman.compiler.emit.jobs import Jobs, place
from elman.compiler.emit.places import one_row
from elman.compiler.emit.reference import Given, Result
from elman.compiler.graph import LEAVES

if TYPE_CHECKING:
    from elman.compiler.emit.cpu import Emitted

AT_ONCE = 16  # segments in one launch: between them Ctrl-C is heard
Segment = Callable[[int], Given]


class Turn:
    """A call bound to one segment, and how its memories move to the next segment; `moves` None: not evenly."""

    def __init__(self, call: Call, some: Any, now: Given, then: Given) -> None:
        self.call, self.some, self.now = call, some, now
        self.tensors, self.leases = call.memories(now, some)
        self.moves = self.moving(then) if suits(call, now) else None

    def moving(self, then: Given) -> list[int] | None:
        """Bytes by which each memory moves."""
        moves = [0] * len(self.tensors)
        groups = then.per_step, then.state, then.fixed, then.shared
        for base, group, name, adapt in self.call.inputs:
            if adapt is None:
                moves[base] = groups[group][name].data_ptr() - self.tensors[base].data_ptr()
            elif adapt is not one_row:  # a copy
                return None
        for own in self.call.own:
            room = then.out.get(own.name) if own.name else None
            if room is not None:
                moves[own.base] = self.call.placed(own, room).data_ptr() - self.tensors[own.base].data_ptr()
        for name, value in then.last.items():
            base = self.call.last[name]
            moves[base] = value.data_ptr() - self.tensors[base].data_ptr()
        return moves

    def result(self, given: Given) -> Result:
        """What the call gives, or will have given, of this segment."""
        return self.call.result(self.tensors, self.call.beside(given, self.some, self.tensors), self.leases[1])


def suits(call: Call, given: Given) -> bool:
    """No part of it is torch's, and all that leaves goes to the memory that was given for it."""
    if len(call.steps) != 1 or not isinstance(call.steps[0], Jobs):
        return False
    own = {own.name for own in call.own}
    there = all(name in own and room is not None for name, room in given.out.items())
    nodes = call.plan.loop.per_step
    return there and all(view is not None or nodes[name].op in LEAVES for name, view, _ in call.views)


def in_turn(emitted: Emitted, segment: Segment, count: int) -> Result | None:
    """Segments 0 to count - 1 of one loop; None where this one does not suit: nothing has been done then.

    Each gives memory for its outputs, which are not returned again, and for its last states, which the next one takes.
    """
    call, some = emitted.call(segment(0))
    turn = Turn(call, some, segment(0), segment(1))
    if turn.moves is None:
        return None
    (jobs,) = call.steps
    assert isinstance(jobs, Jobs)
    run([Launch(jobs, addresses(turn.tensors), turn.moves)], count)
    return turn.result(turn.now)._replace(per_step={})


class Launch(NamedTuple):
    """What runs some segments: where its memories are at the first one, and how many bytes each moves to the next."""

    jobs: Jobs
    where: list[int]
    moves: list[int]


def run(parts: Sequence[Launch], count: int) -> None:
    """All segments, some in each launch. Several parts: of the batch, on a thread each."""
    for first in range(0, count, AT_ONCE):
        blocks = [
            jobs.repeated(
                [start + first * move for start, move in zip(where, moves)], moves, min(AT_ONCE, count - first)
            )
            for jobs, where, moves in parts
        ]
        if len(parts) == 1:
            threads.parallel(threads.repeat(), place(blocks[0][0]), parts[0].jobs.count)
        else:
            every = array("q", [len(parts), threads.repeat(), *(place(block) for block, _ in blocks)])
            threads.parallel(threads.apart(), place(every), len(parts))


Two = tuple[Segment, Callable[[int, Result], Given]]  # segments of a loop, and of one that reads the first's result


def both_in_turn(again: Emitted, back: Emitted, parts: Sequence[Two], count: int) -> list[Result] | None:
    """The same of two loops, for each part of the batch."""
    part = len(parts) > 1
    launches, turns = [], []
    for replayed, given in parts:
        first = Turn(*again.call(replayed(0), part), replayed(0), replayed(1))
        if first.moves is None:
            return None
        segments = [given(i, first.result(replayed(i))) for i in range(2)]
        second = Turn(*back.call(segments[0], part), *segments)
        if second.moves is None:
            return None
        (ahead,), (behind,) = first.call.steps, second.call.steps
        assert isinstance(ahead, Jobs)
        assert isinstance(behind, Jobs)
        jobs, where = Jobs.joined(ahead, behind, len(first.tensors)), addresses([*first.tensors, *second.tensors])
        launches.append(Launch(jobs, where, first.moves + second.moves))
        turns.append((first, second))
    run(launches, count)
    return [second.result(second.now)._replace(per_step={}) for _, second in turns]
