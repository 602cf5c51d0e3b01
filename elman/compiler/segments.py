"""Time in segments: of each forward keeps the first state only, and backward runs its loop once more."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from elman.compiler.collection import collection_paused
from elman.compiler.emit.part import Sequences
from elman.compiler.emit.pool import room
from elman.compiler.emit.reference import Given, Result, Spare
from elman.compiler.graph import Loop, seen
from elman.compiler.replay import Replay, replay

Runner = Callable[[Given], Result]
Tensors = Mapping[str, Tensor]


@dataclass(eq=False)
class Pair:
    """The forward loop that saves and the backward loop, with the functions that run them."""

    forward: Loop
    back: Loop
    emit: Callable[[Loop], Runner]
    saved: tuple[str, ...]  # sequences that forward keeps for backward

    def __post_init__(self) -> None:
        self.run, self.run_back = self.emit(self.forward), self.emit(self.back)
        if hasattr(self.run, "follower"):
            self.run.follower = self.run_back

    @cached_property
    def read(self) -> tuple[str, ...]:
        """Outputs whose memory backward reads, or a replay: those of a state, or of what is saved."""
        per_step, states = self.forward.per_step, set(self.forward.carried.values())
        roots = {seen(node) for node in [*states, *(per_step[name] for name in self.saved)]}
        outputs = {name: node for name, node in per_step.items() if name not in self.saved}
        return tuple(name for name, node in outputs.items() if node in states or seen(node) in roots)

    @cached_property
    def replayed(self) -> Replay:
        """Which states need not be run through to get what forward keeps once more."""
        with collection_paused():
            return replay(self.forward, self.saved)

    @cached_property
    def run_again(self) -> Runner:
        return self.emit(self.replayed.loop)


class Kept(NamedTuple):
    """What forward keeps for backward."""

    starts: Tensors  # states before each segment, (segments, B, width)
    saved: Sequences  # where there are no segments: what backward reads
    outputs: Tensors
    spare: Spare  # of what is saved: what may be written over, since this is the last time that it is read


@dataclass
class Segments:
    """The backward loop by segments, each after a replay of its forward loop."""

    pair: Pair
    given: Given
    kept: Kept
    dy: Tensors
    cuts: list[tuple[int, int]]  # in the order of forward
    whole: Rooms

    def part(self, i: int) -> Given:
        """What forward had in this segment, and room for what goes out."""
        low, high = self.cuts[i]
        return slice_of(self.given, low, high)._replace(out=parts(self.whole, low, high))

    def back(self, i: int, replayed: Result, state: Tensors) -> Given:
        """What backward has."""
        (low, high), part = self.cuts[i], self.part(i)
        dy = {name: value[low:high] for name, value in self.dy.items()}
        return part._replace(per_step={**part.per_step, **dy, **replayed.per_step}, state=state, spare=replayed.spare)

    def replay(self, i: int) -> Given:
        """What a replay has: the states that outputs tell are inputs."""
        (low, high), (loop, known) = self.cuts[i], self.pair.replayed
        start = {name: value[i] for name, value in self.kept.starts.items()}
        before = {
            leaf: before_each(self.kept.outputs[output], start[name], low, high - low, loop.reverse)
            for name, (leaf, output) in known.items()
        }
        part = self.part(i)
        state = {name: value for name, value in start.items() if name in loop.carried}
        return part._replace(per_step={**part.per_step, **before}, state=state, out={})

    def run(self, state: Tensors) -> tuple[Tensors, Tensors]:
        """Through all of them, from the last to the first: states and sums at the end."""
        state, summed = self.one(len(self.cuts) - 1, state)[1:3]
        if (middle := self.in_turn(state)) is not None:
            state, summed = middle.carried, added(summed, middle.summed)
        for i in range(len(self.cuts) - 2 if middle is None else 0, -1, -1):
            result = self.one(i, state)
            state, summed = result.carried, added(summed, result.summed)
        return state, summed

    def one(self, i: int, state: Tensors) -> Result:
        """One segment; what its replay saves is gone when this returns, so that the next uses its memory."""
        replayed = self.pair.run_again(self.replay(i))  # which holds the memory
        result = self.pair.run_back(self.back(i, replayed, state))
        settle(self.whole, result.per_step, *self.cuts[i])
        return result

    def in_turn(self, state: Tensors) -> Result | None:
        """All but the last and the first, if the emitter can run several at a time; None if not, or if they are few."""
        count, back = len(self.cuts) - 2, cast(Any, self.pair.run_back)
        if not hasattr(back, "both_in_turn") or count < 2:
            return None
        state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
        shares = back.shares(self.given.size[1], some_of(self.given).dtype)
        parts = [self.rows(*share).turns(rows_of(state, 0, *share)) for share in shares]
        results = back.both_in_turn(self.pair.run_again, parts, count)
        if results is None:
            return None
        return Result({}, state, functools.reduce(added, (result.summed for result in results)))

    def turns(self, state: Tensors) -> tuple[Callable[[int], Given], Callable[[int, Result], Given]]:
        """Replays of all but the last segment and the first, and what backward has; states go where they come from."""
        first = len(self.cuts) - 2

        def given(i: int, replayed: Result) -> Given:
            return self.back(first - i, replayed, state)._replace(last=state, adding=True)

        return lambda i: self.replay(first - i), given

    def rows(self, low: int, high: int) -> Segments:
        """The same of a part of the batch."""
        given, kept, share = self.given, self.kept, (low, high)
        steps, fixed = rows_of(given.per_step, 1, *share), rows_of(given.fixed, 0, *share)
        return replace(
            self,
            given=given._replace(per_step=steps, fixed=fixed, size=(given.size[0], high - low)),
            kept=kept._replace(starts=rows_of(kept.starts, 1, *share), outputs=rows_of(kept.outputs, 1, *share)),
            dy=rows_of(self.dy, 1, *share),
            whole=rows_of(self.whole, 1, *share),
        )


def rows_of(tensors: Tensors, axis: int, low: int, high: int) -> dict[str, Tensor]:
    """A part of the batch, which is this axis of all of them."""
    return {name: value.narrow(axis, low, high - low) for name, value in tensors.items()}


def before_each(after: Tensor, first: Tensor, low: int, count: int, reverse: bool) -> Tensor:
    """A state before each of `count` steps from `low` on, of which `after` says what it was after every step."""
    if reverse:
        later = after[low + 1 : low + count + 1]
        return later if len(later) == count else torch.cat([later, first[None]])
    return after[low - 1 : low - 1 + count] if low else torch.cat([first[None], after[: count - 1]])


Rooms = dict[str, Tensor]  # memory for the outputs of all segments


def rooms(loop: Loop, some: Tensor, size: tuple[int, int]) -> Rooms:
    """Memory for outputs (T, B, width) of which segments write a part each, with a step to spare on both sides."""
    T, B = size
    shapes = {name: (T + 2, B, node.width) for name, node in loop.per_step.items()}
    if some.device.type == "cpu":
        return {name: room(shape, some.dtype)[1:-1] for name, shape in shapes.items()}
    return {name: some.new_empty(shape)[1:-1] for name, shape in shapes.items()}


def parts(whole: Rooms, low: int, high: int) -> Rooms:
    """One segment's part of them."""
    return {name: room[low:high] for name, room in whole.items()}


def settle(whole: Rooms, outputs: Mapping[str, Tensor], low: int, high: int) -> None:
    """See that one segment's outputs are where they belong."""
    for name, value in outputs.items():
        part = whole[name][low:high]
        if part.data_ptr() != value.data_ptr():
            part.copy_(value)


def pieces(T: int, segment: int | None, reverse: bool) -> list[tuple[int, int]]:
    """Segments of time in the order in which they run, all but the last of the same length."""
    size = T if segment is None else segment
    cuts = [(low, min(low + size, T)) for low in range(0, T, size)]
    return [(T - high, T - low) for low, high in cuts] if reverse else cuts


def slice_of(given: Given, low: int, high: int) -> Given:
    """The same with a part of its steps."""
    if (low, high) == (0, given.size[0]):
        return given
    steps = {name: value[low:high] for name, value in given.per_step.items()}
    return given._replace(per_step=steps, size=(high - low, given.size[1]))


def run_segments(run: Runner, given: Given, segment: int | None, loop: Loop) -> tuple[Result, dict[str, Tensor]]:
    """Run in segments, so that what a run needs beside its outputs is small; with the states before each of them."""
    if segment is None:
        return run(given._replace(out=dict.fromkeys(loop.per_step))), {}
    cuts = pieces(given.size[0], segment, loop.reverse)
    whole = rooms(loop, some_of(given), given.size)
    starts = {name: value.new_empty(len(cuts), *value.shape) for name, value in given.state.items()}

    def part(i: int) -> Given:
        state = {name: start[i] for name, start in starts.items()}
        return slice_of(given, *cuts[i])._replace(state=state, out=parts(whole, *cuts[i]))

    def following(i: int) -> Given:
        return part(i)._replace(last={name: start[i + 1] for name, start in starts.items()})

    for name, start in starts.items():
        start[0] = given.state[name]
    turns = getattr(run, "in_turn", None)
    if turns is None or len(cuts) < 3 or turns(following, len(cuts) - 1) is None:
        for i, (low, high) in enumerate(cuts[:-1]):
            result = run(part(i))
            settle(whole, {name: result.per_step[name] for name in whole}, low, high)
            for name, start in starts.items():
                start[i + 1] = result.carried[name]
    result = run(part(len(cuts) - 1))
    settle(whole, {name: result.per_step[name] for name in whole}, *cuts[-1])
    return Result(whole, result.carried, {}), starts


def some_of(given: Given) -> Tensor:
    """Any of its tensors that is there at all, for its type and device."""
    return next(iter([*given.per_step.values(), *given.state.values()]))


def added(sums: Tensors, more: Tensors) -> dict[str, Tensor]:
    return {name: value + more[name] for name, value in sums.items()}


def segment_length(checkpoint: int | str | None, T: int) -> int | None:
    """Steps a segment: the number given, or for "sqrt" the root of T."""
    if checkpoint is None or T == 1:
        return None
    length = math.isqrt(T - 1) + 1 if checkpoint == "sqrt" else int(checkpoint)
    return None if length >= T else length
