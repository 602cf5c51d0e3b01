"""A compiled loop as a function that torch differentiates: forward saves, backward runs the derived loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.compiler.derive import derive
from elman.compiler.emit import reference
from elman.compiler.emit.reference import Given, Result
from elman.compiler.graph import LEAVES, Loop
from elman.compiler.simplify import simplify

Runner = Callable[[Given], Result]
GROUPS = ("per_step", "state", "fixed", "shared")


class Pair(NamedTuple):
    """The forward loop that saves and the backward loop, with the functions that run them."""

    forward: Loop
    back: Loop
    run: Runner
    run_back: Runner


@dataclass
class Program:
    """A loop and how it is run; what has been compiled so far is kept.

    `emit` turns a loop into a function: `reference.emit`, or the emitter of a device.
    """

    loop: Loop
    emit: Callable[[Loop], Runner]
    pairs: dict[frozenset[str], Pair] = field(default_factory=dict)
    runner: Runner | None = None

    def inference(self) -> Runner:
        """Outputs and last states only."""
        if self.runner is None:
            self.runner = self.emit(self.loop)
        return self.runner

    def training(self, wanted: frozenset[str]) -> Pair:
        """Forward and backward for gradients to these inputs."""
        if wanted not in self.pairs:
            forward, back = map(simplify, derive(self.loop, list(self.loop.per_step), wanted))
            self.pairs[wanted] = Pair(forward, back, self.emit(forward), self.emit(back))
        return self.pairs[wanted]

    def __call__(self, given: Given, segment: int | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Outputs (T, B, width) and last states (B, width) by name; `segment`: steps kept at a time for backward."""
        names = tuple((group, name) for group in GROUPS for name in getattr(given, group))
        tensors = [getattr(given, group)[name] for group, name in names]
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            result = run_segments(
                self.inference(), given._replace(out=frozenset(self.loop.per_step)), segment, self.loop
            )
            return apart(self.loop, result), result.carried
        call = Call(self, names, given.size, segment)
        outputs = Unfolded.apply(call, *tensors)
        count = len(self.loop.per_step)
        return dict(zip(self.loop.per_step, outputs[:count])), dict(zip(self.loop.carried, outputs[count:]))


@dataclass(frozen=True)
class Call:
    """One use of a program: the names of its tensors, in order."""

    program: Program
    names: tuple[tuple[str, str], ...]
    size: tuple[int, int]
    segment: int | None

    def given(self, tensors: tuple[Tensor, ...]) -> Given:
        groups: dict[str, dict[str, Tensor]] = {group: {} for group in GROUPS}
        for (group, name), tensor in zip(self.names, tensors):
            groups[group][name] = tensor
        return Given(groups["per_step"], groups["state"], groups["fixed"], groups["shared"], self.size)


class Unfolded(torch.autograd.Function):
    """The whole sequence as one operation. Twice differentiable, by way of the reference."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        loop = call.program.loop
        given = call.given(tensors)._replace(out=frozenset(loop.per_step))
        wanted = frozenset(n for (_, n), needs in zip(call.names, ctx.needs_input_grad[1:]) if needs)
        ctx.call, ctx.pair, ctx.kept = call, call.program.training(wanted), []
        if call.segment is None:
            result = ctx.pair.run(given)
            ctx.kept = [name for name in ctx.pair.forward.per_step if name not in loop.per_step]
            kept = [result.per_step[name] for name in ctx.kept]
            ctx.lease = result.lease
        else:
            states: list[dict[str, Tensor]] = []
            result = run_segments(call.program.inference(), given, call.segment, loop, states)
            kept = [torch.stack([s[name] for s in states]) for name in given.state]
        ctx.set_materialize_grads(False)
        outputs = apart(loop, result)
        # saved as well, so that a change in place of what is kept is found out
        ctx.save_for_backward(*tensors, *kept, *outputs.values())
        return (*outputs.values(), *(result.carried[k] for k in loop.carried))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        count, outputs = len(call.names), len(call.program.loop.per_step)
        tensors, kept = ctx.saved_tensors[:count], ctx.saved_tensors[count:-outputs]
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return None, *again(call, tensors, grads, ctx.needs_input_grad[1:])
        given = call.given(tensors)
        found = gradients(ctx.pair, call, given, dict(zip(ctx.kept, kept)) if call.segment is None else kept, grads)
        return None, *(
            found.get((group, name)) if needs else None
            for (group, name), needs in zip(call.names, ctx.needs_input_grad[1:])
        )


def apart(loop: Loop, result: Result) -> dict[str, Tensor]:
    """The outputs of each step, none of them a view, or the same memory as an input or as another output."""
    found: dict[str, Tensor] = {}
    for name, node in loop.per_step.items():
        value = result.per_step[name]
        first = node.op not in LEAVES and all(loop.per_step[other] is not node for other in found)
        found[name] = unviewed(value) if first else value.clone()
    return found


def unviewed(value: Tensor) -> Tensor:
    """The same memory as a tensor of its own: torch refuses to change a view that a function gave."""
    if value._base is None:
        return value
    with torch.no_grad():
        whole = value.new_empty(0)
        return whole.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())


def again(
    call: Call, tensors: tuple[Tensor, ...], grads: tuple[Tensor | None, ...], needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """Gradients that can be differentiated once more: torch's own, through the reference."""
    with torch.enable_grad():
        result = reference.emit(call.program.loop)(call.given(tensors))
        outputs = [*result.per_step.values(), *(result.carried[k] for k in call.program.loop.carried)]
        pairs = [(o, g) for o, g in zip(outputs, grads) if g is not None and o.requires_grad]
        leaves = [t for t, need in zip(tensors, needs) if need]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs], leaves, [g for _, g in pairs], create_graph=True, allow_unused=True
            )
        )
    return [next(found) if need else None for need in needs]


def gradients(
    pair: Pair, call: Call, given: Given, kept: Any, grads: tuple[Tensor | None, ...]
) -> dict[tuple[str, str], Tensor]:
    """Run the backward loop, a segment at a time where forward kept only the states between them."""
    loop, back, (T, B) = call.program.loop, pair.back, call.size
    some = next(iter([*given.per_step.values(), *given.state.values()]))
    zero = some.new_zeros(())
    outer = dict(zip([*((k, "step") for k in loop.per_step), *((k, "state") for k in loop.carried)], grads))

    def incoming(name: str, kind: str, *size: int) -> Tensor:
        grad = outer.get((name, kind))
        return zero.expand(*size) if grad is None else grad

    dy = {f"d:{name}": incoming(name, "step", T, B, node.width) for name, node in loop.per_step.items()}
    state = {name: incoming(name, "state", B, node.width) for name, node in back.carried.items()}
    found: dict[tuple[str, str], Tensor] = {}
    cuts = pieces(T, call.segment, loop.reverse)
    for i, (low, high) in reversed(list(enumerate(cuts))):
        part = slice_of(given, low, high)
        held = None
        if isinstance(kept, dict):
            saved: Mapping[str, Tensor] = kept
        else:
            start = {name: k[i] for name, k in zip(given.state, kept)}
            forward = pair.run(part._replace(state=start))
            saved, held = forward.per_step, forward.lease
        steps = {**part.per_step, **saved, **(dy if high - low == T else {k: v[low:high] for k, v in dy.items()})}
        leaving = frozenset(back.per_step)
        result = pair.run_back(Given(steps, state, given.fixed, given.shared, part.size, leaving))
        del held
        state = result.carried
        gather(found, result, T, low, high)
    for name, value in state.items():
        group = "fixed" if name.startswith("d:") else "state"
        found[group, name.removeprefix("d:")] = value
    return found


def gather(found: dict[tuple[str, str], Tensor], result: Result, T: int, low: int, high: int) -> None:
    """Put one segment's gradients with those of the segments before."""
    for name, value in result.per_step.items():
        key = ("per_step", name.removeprefix("d:"))
        if (low, high) == (0, T):
            found[key] = value
        else:
            found.setdefault(key, value.new_empty(T, *value.shape[1:]))[low:high] = value
    for name, value in result.summed.items():
        key = ("shared", name)
        found[key] = found[key] + value if key in found else value


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
    run: Runner, given: Given, segment: int | None, loop: Loop, states: list[dict[str, Tensor]] | None = None
) -> Result:
    """Run in segments, so that what a run needs beside its outputs is small; note the state before each."""
    T, _ = given.size
    if segment is None or segment >= T:
        if states is not None:
            states.append(dict(given.state))
        return run(given)
    out: dict[str, Tensor] = {}
    for low, high in pieces(T, segment, loop.reverse):
        if states is not None:
            states.append(dict(given.state))
        result = run(slice_of(given, low, high))
        for name, value in result.per_step.items():
            out.setdefault(name, value.new_empty(T, *value.shape[1:]))[low:high] = value
        given = given._replace(state=result.carried)
    return Result(out, result.carried, {})


def segment_length(checkpoint: int | str | None, T: int) -> int | None:
    """Steps a segment: the number given, or for "sqrt" the root of T, where kept states and one segment weigh alike."""
    if checkpoint is None or T == 1:
        return None
    length = math.isqrt(T - 1) + 1 if checkpoint == "sqrt" else int(checkpoint)
    return None if length >= T else length
