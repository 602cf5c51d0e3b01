"""A compiled loop as a function that torch differentiates: forward saves, backward runs the derived loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, compress, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.compiler.collection import collection_paused
from elman.compiler.derive import derive
from elman.compiler.emit import reference
from elman.compiler.emit.part import Sequences, packed, unpacked
from elman.compiler.emit.reference import Given, Result
from elman.compiler.graph import LEAVES, Loop, Node, Op
from elman.compiler.replay import Replay, replay
from elman.compiler.simplify import simplify

Runner = Callable[[Given], Result]
Emit = Callable[[Loop, "torch.dtype | None"], Runner]
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

    @cached_property
    def replayed(self) -> Replay:
        """Which states need not be run through to get what forward keeps once more."""
        with collection_paused():
            return replay(self.forward, self.saved)

    @cached_property
    def run_again(self) -> Runner:
        return self.emit(self.replayed.loop)


Names = tuple[tuple[str, ...], ...]  # of the tensors of a call, by group


@dataclass
class Program:
    """A loop and how it is run; what has been compiled so far is kept.

    `emit` turns a loop into a function: `reference.emit`, or the emitter of a device. `operands`: what both sides of
    products are rounded to; None: to nothing.
    """

    loop: Loop
    emit: Emit
    operands: torch.dtype | None = None
    pairs: dict[frozenset[str], Pair] = field(default_factory=dict)
    quick: dict[tuple[Names, tuple[bool, ...]], Pair] = field(default_factory=dict)  # the same by what a call knows
    runner: Runner | None = None

    def inference(self) -> Runner:
        """Outputs and last states only."""
        if self.runner is None:
            self.runner = self.emitted(self.loop)
        return self.runner

    def emitted(self, loop: Loop) -> Runner:
        return self.emit(loop, self.operands)

    def training(self, wanted: frozenset[str]) -> Pair:
        """Forward and backward for gradients to these inputs."""
        if wanted not in self.pairs:
            with collection_paused():
                forward, back = map(simplify, derive(self.loop, list(self.loop.per_step), wanted))
                saved = tuple(name for name in forward.per_step if name not in self.loop.per_step)
                self.pairs[wanted] = Pair(forward, back, self.emitted, saved)
        return self.pairs[wanted]

    def pair(self, names: Names, needs: tuple[bool, ...]) -> Pair:
        """The same for those of the named inputs that need them."""
        key = names, needs
        if key not in self.quick:
            self.quick[key] = self.training(frozenset(compress(chain.from_iterable(names), needs)))
        return self.quick[key]

    @cached_property
    def shared_memory(self) -> frozenset[str]:
        """Outputs that lie where an input or an earlier output does."""
        roots = [seen(node) for node in self.loop.per_step.values()]
        places = zip(self.loop.per_step, roots)
        return frozenset(k for i, (k, root) in enumerate(places) if root.op in LEAVES or root in roots[:i])

    def __call__(self, given: Given, segment: int | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Outputs (T, B, width) and last states (B, width) by name; `segment`: steps kept at a time for backward."""
        tensors = [tensor for group in given[:4] for tensor in group.values()]
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            run = self.inference()
            result = run_segments(run, given, segment, self.loop, run, [])
            return self.apart(result), result.carried
        call = Call(self, tuple(map(tuple, given[:4])), given.size, segment)
        outputs = Unfolded.apply(call, given, *tensors)
        count = len(self.loop.per_step)
        return dict(zip(self.loop.per_step, outputs[:count])), dict(zip(self.loop.carried, outputs[count:]))

    def apart(self, result: Result) -> dict[str, Tensor]:
        """The outputs of each step, none of them a view, or the same memory as an input or as another output."""
        return {
            name: value.clone() if name in self.shared_memory else unviewed(value)
            for name, value in result.per_step.items()
            if name in self.loop.per_step
        }


class Call(NamedTuple):
    """One use of a program: the names of its tensors, in order."""

    program: Program
    names: Names
    size: tuple[int, int]
    segment: int | None

    def given(self, tensors: Sequence[Tensor]) -> Given:
        rest = iter(tensors)
        per_step, state, fixed, shared = ({name: next(rest) for name in names} for names in self.names)
        return Given(per_step, state, fixed, shared, self.size)


class Unfolded(torch.autograd.Function):
    """The whole sequence as one operation. Twice differentiable, by way of the reference."""

    @staticmethod
    def forward(ctx: Any, call: Call, given: Given, *tensors: Tensor) -> tuple[Tensor, ...]:
        program = call.program
        ctx.call, ctx.pair = call, program.pair(call.names, ctx.needs_input_grad[2:])
        states: list[dict[str, Tensor]] = []
        result = run_segments(program.inference(), given, call.segment, program.loop, ctx.pair.run, states)
        ctx.starts = [name for name in given.state if len(states) > 1]
        kept = [torch.stack([s[name] for s in states[:-1]]) for name in ctx.starts]
        ctx.packing, memories = packed({name: result.per_step[name] for name in ctx.pair.saved})
        if torch._C._autograd._top_saved_tensors_default_hooks(True):
            # what others keep in our place, as checkpointing does, they hold as long as they need it, as other tensors
            ctx.lease, memories = None, [memory.detach() for memory in memories]
        else:
            ctx.lease = result.lease
        ctx.set_materialize_grads(False)
        outputs = program.apart(result).values()
        # saved as well, so that a change in place of what is kept is found out
        ctx.save_for_backward(*tensors, *kept, *memories, *outputs)
        return (*outputs, *[result.carried[k] for k in program.loop.carried])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        needs = ctx.needs_input_grad[2:]
        every = ctx.saved_tensors  # read once: where it is made anew, it can be asked for once
        count = len(call.program.loop.per_step)
        tensors, kept, outputs = every[: len(needs)], every[len(needs) : -count], every[-count:]
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return None, None, *again(call, tensors, grads, needs)
        starts, saved = dict(zip(ctx.starts, kept)), unpacked(ctx.packing, kept[len(ctx.starts) :])
        known = dict(zip(call.program.loop.per_step, outputs))
        found = gradients(ctx.pair, call, call.given(tensors), Kept(starts, saved, known), grads)
        named = [(group, name) for group, names in zip(found, call.names) for name in names]
        return None, None, *[group.get(name) if need else None for (group, name), need in zip(named, needs)]


def seen(node: Node) -> Node:
    """Whose memory a value may lie in."""
    while node.op in (Op.SLICE, Op.DETACH):
        node = node.src[0]
    return node


def unviewed(value: Tensor) -> Tensor:
    """The same memory as a tensor of its own: torch refuses to change a view that a function gave."""
    return value if value._base is None else value.data


def again(
    call: Call, tensors: tuple[Tensor, ...], grads: tuple[Tensor | None, ...], needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """Gradients that can be differentiated once more: torch's own, through the reference."""
    with torch.enable_grad():
        result = reference.emit(call.program.loop, call.program.operands)(call.given(tensors))
        outputs = [*result.per_step.values(), *(result.carried[k] for k in call.program.loop.carried)]
        pairs = [(o, g) for o, g in zip(outputs, grads) if g is not None and o.requires_grad]
        leaves = [t for t, need in zip(tensors, needs) if need]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs], leaves, [g for _, g in pairs], create_graph=True, allow_unused=True
            )
        )
    return [next(found) if need else None for need in needs]


Found = tuple[Mapping[str, "Tensor | None"], Tensors, Tensors, Tensors]  # gradients by group, as in `Given`


class Kept(NamedTuple):
    """What forward keeps for backward."""

    starts: Tensors  # states before each segment but the last, (segments - 1, B, width)
    saved: Sequences  # what the last segment, or the only one, saved
    outputs: Tensors


def gradients(pair: Pair, call: Call, given: Given, kept: Kept, grads: tuple[Tensor | None, ...]) -> Found:
    """Run the backward loop, a segment at a time: the last as forward saved it, the others after a replay."""
    loop, back, (T, B), some = call.program.loop, pair.back, call.size, some_of(given)
    outer = zip([*loop.per_step.items(), *loop.carried.items()], grads)
    count = len(loop.per_step)
    whole_of = [some.new_zeros(()).expand(T, B, n.width) if g is None else g for (_, n), g in islice(outer, count)]
    dy = {f"d:{name}": g for name, g in zip(loop.per_step, whole_of)}
    last = {name: g for (name, _), g in outer if g is not None}
    state = {k: last[k] if k in last else some.new_zeros(B, node.width) for k, node in back.carried.items()}
    if call.segment is None:
        steps = {**given.per_step, **dy, **kept.saved}
        result = pair.run_back(given._replace(per_step=steps, state=state, out=dict.fromkeys(back.per_step)))
        return by_group(result.per_step, result.carried, result.summed)
    summed: dict[str, Tensor] = {}
    cuts = pieces(T, call.segment, loop.reverse)
    whole = rooms(back, some, call.size, len(cuts))
    for i, (low, high) in reversed(list(enumerate(cuts))):
        part = slice_of(given, low, high)._replace(out=parts(whole, low, high))
        steps = {**part.per_step, **{k: v[low:high] for k, v in dy.items()}}
        if i == len(cuts) - 1:
            result = pair.run_back(part._replace(per_step={**steps, **kept.saved}, state=state))
        else:
            result = again_and_back(pair, part, i, low, kept, steps, state)
        state = result.carried
        settle(whole, result.per_step, low, high)
        for name, value in result.summed.items():
            summed[name] = summed[name] + value if i < len(cuts) - 1 else value
    return by_group(whole, state, summed)


def by_group(per_step: Mapping[str, Tensor | None], state: Tensors, summed: Tensors) -> Found:
    """Gradients under the names of what they are gradients to; what is the same at every step is summed in a state."""
    steps = {name.removeprefix("d:"): value for name, value in per_step.items()}
    fixed = {name.removeprefix("d:"): value for name, value in state.items() if name.startswith("d:")}
    return steps, state, fixed, summed


def again_and_back(pair: Pair, part: Given, i: int, low: int, kept: Kept, steps: Tensors, state: Tensors) -> Result:
    """The backward loop over segment i, from step `low` on, after the forward loop's replay.

    What that saves is gone when this returns, so that the next segment uses its memory.
    """
    start = {name: value[i] for name, value in kept.starts.items()}
    loop, known = pair.replayed
    before = {
        leaf: before_each(kept.outputs[output], start[name], low, part.size[0], loop.reverse)
        for name, (leaf, output) in known.items()
    }
    first = {name: value for name, value in start.items() if name in loop.carried}
    forward = pair.run_again(part._replace(per_step={**part.per_step, **before}, state=first, out={}))
    return pair.run_back(part._replace(per_step={**steps, **forward.per_step}, state=state))


def before_each(after: Tensor, first: Tensor, low: int, count: int, reverse: bool) -> Tensor:
    """A state before each of `count` steps from `low` on, of which `after` says what it was after every step."""
    if reverse:
        later = after[low + 1 : low + count + 1]
        return later if len(later) == count else torch.cat([later, first[None]])
    return after[low - 1 : low - 1 + count] if low else torch.cat([first[None], after[: count - 1]])


Rooms = dict[str, "Tensor | None"]  # memory for the outputs of all segments; None: one segment brings its own


def rooms(loop: Loop, some: Tensor, size: tuple[int, int], segments: int) -> Rooms:
    """Memory for outputs (T, B, width) of which segments write a part each, with a step to spare on both sides."""
    if segments == 1:
        return dict.fromkeys(loop.per_step)
    T, B = size
    return {name: some.new_empty(T + 2, B, node.width)[1:-1] for name, node in loop.per_step.items()}


def parts(whole: Rooms, low: int, high: int) -> Rooms:
    """One segment's part of them."""
    return {name: None if room is None else room[low:high] for name, room in whole.items()}


def settle(whole: Rooms, outputs: Mapping[str, Tensor], low: int, high: int) -> None:
    """See that one segment's outputs are where they belong."""
    for name, value in outputs.items():
        room = whole[name]
        if room is None:
            whole[name] = value
        elif room[low:high].data_ptr() != value.data_ptr():
            room[low:high] = value


def pieces(T: int, segment: int | None, reverse: bool) -> list[tuple[int, int]]:
    """Segments of time in the order in which they run."""
    size = T if segment is None else segment
    cuts = [(low, min(low + size, T)) for low in range(0, T, size)]
    return cuts[::-1] if reverse else cuts


def slice_of(given: Given, low: int, high: int) -> Given:
    """The same with a part of its steps."""
    if (low, high) == (0, given.size[0]):
        return given
    steps = {name: value[low:high] for name, value in given.per_step.items()}
    return given._replace(per_step=steps, size=(high - low, given.size[1]))


def run_segments(
    run: Runner, given: Given, segment: int | None, loop: Loop, run_last: Runner, states: list[dict[str, Tensor]]
) -> Result:
    """Run in segments, so that what a run needs beside its outputs is small; note the state before each in `states`.

    Whatever the last one saves is in the result, too, as are its lease and the last states.
    """
    if segment is None:
        return run_last(given._replace(out=dict.fromkeys(loop.per_step)))
    cuts = pieces(given.size[0], segment, loop.reverse)
    whole = rooms(loop, some_of(given), given.size, len(cuts))
    for i, (low, high) in enumerate(cuts):
        states.append(dict(given.state))
        part = slice_of(given, low, high)._replace(out=parts(whole, low, high))
        result = (run_last if i == len(cuts) - 1 else run)(part)
        settle(whole, {name: result.per_step[name] for name in whole}, low, high)
        given = given._replace(state=result.carried)
    return result._replace(per_step={**result.per_step, **{k: v for k, v in whole.items() if v is not None}})


def some_of(given: Given) -> Tensor:
    """Any of its tensors that is there at all, for its type and device."""
    return next(iter([*given.per_step.values(), *given.state.values()]))


def segment_length(checkpoint: int | str | None, T: int) -> int | None:
    """Steps a segment: the number given, or for "sqrt" twice the root of T.

    Half of that would take the least memory, a sixth less; but each segment costs Python about a millisecond.
    """
    if checkpoint is None or T == 1:
        return None
    length = 2 * (math.isqrt(T - 1) + 1) if checkpoint == "sqrt" else int(checkpoint)
    return None if length >= T else length
