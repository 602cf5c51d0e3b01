"""How a layer runs, in words: the parts of its step, the backend and why, buffers and flops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from elman.cell.base import Cell
from elman.compiler import Costs, costs, pairs_by, segment_length, show, unfold
from elman.compiler.graph import LEAVES, Loop, Node, Op, gradient
from elman.errors import InputError
from elman.module.backends import Call, recorded
from elman.module.layer import Layer
from elman.module.owner import describe_owner, where_defined

TIMES = {Op.STEP: "_t", Op.STATE: "_t-1"}


@dataclass(frozen=True)
class Explanation:
    """What `explain` found: `backends`, one a recurrent layer, and the whole `text`, which is what prints."""

    backends: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def explain(layer: nn.Module, *inputs: Any, **options: Any) -> Explanation:
    """How `layer(*inputs, **options)` runs, found out by running it once.

        print(elman.explain(layer, x))

    For every recurrent layer inside: the step as a graph, under before (all steps at once, ahead of the loop), during
    (step by step) and after (all steps at once, behind it); its backward likewise; the backend, and why no faster one;
    the operation that could not be compiled with its file and line; bytes saved for backward and worked in; flops.
    Errors: InputError where no recurrent layer ran; what the call itself raises.
    """
    if isinstance(layer, Layer) and not inputs and "x" not in options:
        raise InputError("explain takes a layer and what it is called with, as elman.explain(layer, x)")
    calls = calls_of(layer, inputs, options)
    return Explanation(tuple(c.plan.backend for c in calls), "\n\n".join(described(c) for c in calls))


def ways(layer: nn.Module, *inputs: Any) -> str:
    """The backends of a model's recurrent layers in a few words."""
    words = {"fused": "fused: one kernel a sequence", "reference": "reference", "plain": "plain: a Python loop"}
    plans: dict[str, None] = {}  # in order, each once
    for call in calls_of(layer, inputs, {}):
        reason = f" ({call.plan.reason})" if call.plan.reason else ""
        plans[words[call.plan.backend] + (", products in bf16" if rounds(call) else "") + reason] = None
    return "; ".join(plans)


def calls_of(layer: nn.Module, inputs: Sequence[Any], options: dict[str, Any]) -> list[Call]:
    if isinstance(layer, Cell):
        raise InputError(f"explain takes a layer: wrap the cell, as elman.Recurrent({type(layer).__name__}(...))")
    calls = calls_in(lambda: layer(*inputs, **options))
    if not calls:
        raise InputError(f"explain: {type(layer).__name__} ran no recurrent layer of elman's")
    return calls


def calls_in(run: Callable[[], object]) -> list[Call]:
    """The calls of recurrent layers that `run()` makes."""
    with recorded() as calls, torch.no_grad(), torch.random.fork_rng(devices=[]):  # dropout draws, and leaves no trace
        run()
    return calls


def rounds(call: Call) -> bool:
    """Whether products of this call have operands in bfloat16."""
    return call.plan.program is not None and call.plan.program.operands is torch.bfloat16


def precision_of(call: Call) -> str:
    """Of products, and of all else."""
    if rounds(call):
        by = f"; multiplied by {pairs_by()}" if call.plan.backend == "fused" else ""
        return f"bf16 -- operands of products; sums, states, gradients and weights in float32{by}"
    return str(call.x.dtype).removeprefix("torch.")


def described(call: Call) -> str:
    """One recurrent layer."""
    T, B, width = call.x.shape
    plan = call.plan
    kind = f"{str(call.x.dtype).removeprefix('torch.')}, {call.x.device}"
    lines = [
        f"{describe_owner(call.what.owner)}: x (T={T}, B={B}, I={width}), {kind}",
        f"step at {where_defined(call.what.step)}",
        f"backend: {plan.backend}" + (f" -- {plan.reason}" if plan.reason else ""),
        f"precision: {precision_of(call)}",
    ]
    if plan.program is None:
        return "\n".join(lines)
    if call.x.stride(-1) != 1 and width > 1:
        lines.append("x is copied once a call: its columns are not side by side in memory")
    loop = plan.program.loop
    pair = plan.program.training(trained(call))
    lines += ["", *in_words(pair.forward, pair.back)]
    size = call.x.element_size()
    for name, part in (("inference", loop), ("training, forward", pair.forward), ("training, backward", pair.back)):
        lines.append(money(name, costs(part, T, B, [n for n, when in unfold(part).items() if when == "during"]), size))
    if steps := segment_length(call.what.checkpoint, T):
        states = sum(n.width for n in loop.carried.values())
        saved = sum(pair.forward.per_step[name].width for name in pair.saved)
        lines.append(segments(T, steps, B * size * states, B * size * saved))
    return "\n".join(lines)


def segments(T: int, steps: int, states: int, saved: int) -> str:
    """What `checkpoint` makes of T steps, from the bytes of the states and of what is saved, of one step."""
    begins, now, whole = -(-T // steps) * states, steps * saved, T * saved
    return (
        f"checkpoint: segments of {steps} steps, computed again in backward: {begins:,} bytes of states and {now:,} of "
        f"what is saved of one segment, in place of {whole:,} of what is saved of all steps"
    )


def in_words(forward: Loop, back: Loop) -> list[str]:
    """A step and its backward, under before, during and after; the lines of the user's code beside the step."""
    before = "(t+1)" if forward.reverse else "(t-1)"

    def value(name: str, after: bool) -> str:
        return name + ("(t)" if after else before)

    def back_value(name: str, after: bool) -> str:
        return gradient(name, before if after else "(t)")

    lines = ["forward", indented(show(forward, unfold(forward), places=True, state=value))]
    return [*lines, "", "backward", indented(show(back, unfold(back), state=back_value))]


class Part(NamedTuple):
    """A node of a step's graph, for those who draw it; `/` in its name stands between a group and what is in it."""

    name: str
    op: str
    sources: tuple[str, ...]
    size: str
    where: str


def parts_of(call: Call) -> list[Part]:
    """The graph of a layer's step: what comes in, its nodes under before, during and after the loop, what goes out.

    A state is there twice, as the step finds it (h_t-1) and as it leaves it (h_t). None where no step was traced.
    """
    if call.plan.program is None:
        return []
    loop = call.plan.program.loop
    when, names, parts = unfold(loop), dict[Node, str](), list[Part]()
    for i, node in enumerate(loop.nodes()):
        op = node.op.name.lower()
        leaf = node.op in LEAVES and node.op is not Op.CONST
        names[node] = f"{node.arg}{TIMES.get(node.op, '')}" if leaf else f"{when[node]}/{op}_{i}"
        parts.append(Part(names[node], op, tuple(names[s] for s in node.src), width(node), node.where))
    outputs = {**loop.per_step, **loop.carried}
    return parts + [Part(f"{name}_t", "output", (names[node],), width(node), "") for name, node in outputs.items()]


def width(node: Node) -> str:
    """The size of a value, without its rows of the batch."""
    return f"{node.rows} x {node.width}" if node.rows else str(node.width)


def trained(call: Call) -> frozenset[str]:
    """Inputs that a training step would want gradients to: x, states, and everything shared."""
    loop = call.plan.program.loop  # type: ignore[union-attr]
    names = [n.arg for n in loop.nodes() if n.op.name == "SHARED"]
    return frozenset(["x", *loop.carried, *names])


def money(name: str, spent: Costs, size: int) -> str:
    """One line of what a run costs."""
    return (
        f"{name:>18}: {spent.flops / 1e9:8.3f} GFLOP, {spent.outputs * size:>12,} bytes of sequences written, "
        f"{spent.inside} nodes at each step, {spent.products} products in it"
    )


def indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
