"""A compiled loop as a function that torch differentiates: forward saves, backward runs the derived loop."""

from __future__ import annotations

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
from elman.compiler.emit.part import packed, trimmed, unpacked
from elman.compiler.emit.reference import Given, Result
from elman.compiler.graph import LEAVES, Loop, seen
from elman.compiler.segments import Kept, Pair, Runner, Segments, Tensors, pieces, rooms, run_segments, some_of
from elman.compiler.simplify import simplify
from elman.compiler.spare import Saved

Emit = Callable[[Loop, "torch.dtype | None"], Runner]
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
        tensors = [t for group in given[:4] for t in group.values()] if torch.is_grad_enabled() else []
        if not any(t.requires_grad for t in tensors):
            run = self.inference()
            result, _ = run_segments(run, given, segment, self.loop)
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
        run, saved = (ctx.pair.run, ctx.pair.saved) if call.segment is None else (program.inference(), ())
        result, starts = run_segments(run, given, call.segment, program.loop)
        ctx.starts, kept = [*starts], [*starts.values()]
        ctx.packing, memories = packed({name: result.per_step[name] for name in saved})
        if torch._C._autograd._top_saved_tensors_default_hooks(True):
            # what others keep in our place, as checkpointing does, they hold as long as they need it, and look at it
            ctx.lease, ctx.saved, memories = None, Saved(()), trimmed(ctx.packing, memories)
        else:
            # tensors of their own: whoever holds one is then a user of that memory when the graph is gone
            ctx.lease, ctx.saved, memories = result.lease, Saved(result.spare), [m.detach() for m in memories]
        ctx.set_materialize_grads(False)
        outputs = program.apart(result)
        # saved as well, so that a change in place of what is kept is found out
        ctx.save_for_backward(*tensors, *kept, *memories, *[outputs[name] for name in ctx.pair.read])
        return (*outputs.values(), *[result.carried[k] for k in program.loop.carried])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        needs = ctx.needs_input_grad[2:]
        every = ctx.saved_tensors  # read once: where it is made anew, it can be asked for once
        count = len(every) - len(ctx.pair.read)
        tensors, kept, outputs = every[: len(needs)], every[len(needs) : count], every[count:]
        if (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)) or batched(grads):
            return None, None, *again(call, tensors, grads, needs)
        starts, saved = dict(zip(ctx.starts, kept)), unpacked(ctx.packing, kept[len(ctx.starts) :])
        known = dict(zip(ctx.pair.read, outputs))
        with ctx.saved.reading() as spare:
            found = gradients(ctx.pair, call, call.given(tensors), Kept(starts, saved, known, spare), grads)
        named = [(group, name) for group, names in zip(found, call.names) for name in names]
        return None, None, *[group.get(name) if need else None for (group, name), need in zip(named, needs)]


def unviewed(value: Tensor) -> Tensor:
    """The same memory as a tensor of its own: torch refuses to change a view that a function gave."""
    return value if value._base is None else value.data


def batched(grads: tuple[Tensor | None, ...]) -> bool:
    """The gradients of several backwards come at once, from torch.vmap or is_grads_batched: no memory holds them."""
    kinds = torch._C._functorch.is_legacy_batchedtensor, torch._C._functorch.is_functorch_wrapped_tensor
    return any(is_kind(g) for g in grads if g is not None for is_kind in kinds)


def again(
    call: Call, tensors: tuple[Tensor, ...], grads: tuple[Tensor | None, ...], needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """Torch's own gradients, through the reference; where gradients are wanted of them, with a graph."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # each seen anew: of two inputs one may have been computed from the other, which is no way through the steps
        inputs = [t.view_as(t) if t.requires_grad else t for t in tensors]
        result = reference.emit(call.program.loop, call.program.operands)(call.given(inputs))
        outputs = [*result.per_step.values(), *(result.carried[k] for k in call.program.loop.carried)]
        pairs = [(o, g) for o, g in zip(outputs, grads) if g is not None and o.requires_grad]
        leaves = [t for t, need in zip(inputs, needs) if need]
        ends, given = [o for o, _ in pairs], [g for _, g in pairs]
        found = iter(torch.autograd.grad(ends, leaves, given, create_graph=create_graph, allow_unused=True))
    return [next(found) if need else None for need in needs]


Found = tuple[Mapping[str, "Tensor | None"], Tensors, Tensors, Tensors]  # gradients by group, as in `Given`


def gradients(pair: Pair, call: Call, given: Given, kept: Kept, grads: tuple[Tensor | None, ...]) -> Found:
    """Run the backward loop: on what forward saved, or a segment at a time after a replay of each."""
    loop, back, (T, B), some = call.program.loop, pair.back, call.size, some_of(given)
    outer = zip([*loop.per_step.items(), *loop.carried.items()], grads)
    count = len(loop.per_step)
    whole_of = [some.new_zeros(()).expand(T, B, n.width) if g is None else g for (_, n), g in islice(outer, count)]
    dy = {f"d:{name}": g for name, g in zip(loop.per_step, whole_of)}
    last = {name: g for (name, _), g in outer if g is not None}
    state = {k: last[k] if k in last else some.new_zeros(B, node.width) for k, node in back.carried.items()}
    if call.segment is None:
        steps = {**given.per_step, **dy, **kept.saved}
        out: dict[str, Tensor | None] = dict.fromkeys(back.per_step)
        result = pair.run_back(given._replace(per_step=steps, state=state, out=out, spare=kept.spare))
        return by_group(result.per_step, result.carried, result.summed)
    segments = Segments(pair, given, kept, dy, pieces(T, call.segment, loop.reverse), rooms(back, some, call.size))
    ends, summed = segments.run(state)
    return by_group(segments.whole, ends, summed)


def by_group(per_step: Mapping[str, Tensor | None], state: Tensors, summed: Tensors) -> Found:
    """Gradients under the names of what they are gradients to; what is the same at every step is summed in a state."""
    steps = {name.removeprefix("d:"): value for name, value in per_step.items()}
    fixed = {name.removeprefix("d:"): value for name, value in state.items() if name.startswith("d:")}
    return steps, state, fixed, summed
