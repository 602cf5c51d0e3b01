"""The meaning of a Loop, in torch operations: what every other emitter is held to. Runs on any device, and twice over.

What needs no state is computed for all steps at once, ahead of the loop; what feeds none, behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from elman.compiler.graph import LEAVES, TOTALS, Loop, Node, Op
from elman.compiler.unfold import unfold

Tensors = Mapping[str, Tensor]
Spare = tuple[tuple[str, int], ...]  # names of sequences, and where each begins in the memory of all of them


class Result(NamedTuple):
    """What running a loop gives: outputs of each step (T, B, width), last states (B, width), sums.

    Outputs that `given.out` names are tensors; the others may be parts of a memory, for loops of the same emitter.
    """

    per_step: dict[str, Any]
    carried: dict[str, Tensor]
    summed: dict[str, Tensor]
    lease: object = None  # to be held as long as anything of the result is read, except what `given.out` names
    spare: Spare = ()  # outputs that have some of the lease's memory to themselves


class Given(NamedTuple):
    """What a loop runs on: inputs of steps (T, B, width), states and fixed inputs (B, width), shared tensors."""

    per_step: Mapping[str, Any]
    state: Tensors
    fixed: Tensors
    shared: Tensors
    size: tuple[int, int]  # T, B
    # outputs of steps that leave for good: they get memory of their own, or are written to the tensor given here by an
    # emitter that can; that tensor has room for a step more on both sides
    out: Mapping[str, Tensor | None] = {}
    # for an emitter that runs several segments in one go: memory for the last states, and whether sums go on
    last: Mapping[str, Tensor] = {}
    adding: bool = False
    spare: Spare = ()  # inputs of steps that nobody reads after this: they may be written over


def like(tensor: Tensor, mask: Tensor) -> Tensor:
    """A comparison's result as numbers."""
    return mask.to(tensor.dtype)


MEANING: dict[Op, Callable[..., Tensor]] = {
    Op.MATMUL: lambda n, a, b: a @ (b.t() if n.arg else b),
    Op.OUTER: lambda n, a, b: a.t() @ b,
    Op.DOTS: lambda n, a, m: torch.matmul(m.unflatten(-1, (n.width, -1)), a.unsqueeze(-1)).squeeze(-1),
    Op.MIX: lambda n, w, m: torch.matmul(w.unsqueeze(-2), m.unflatten(-1, (-1, n.width))).squeeze(-2),
    Op.SPREAD: lambda n, w, a: (w.unsqueeze(-1) * a.unsqueeze(-2)).flatten(-2),
    Op.ROWSUM: lambda n, a: a.sum(0),
    Op.ADD: lambda n, a, b: a + b,
    Op.SUB: lambda n, a, b: a - b,
    Op.MUL: lambda n, a, b: a * b,
    Op.DIV: lambda n, a, b: a / b,
    Op.NEG: lambda n, a: -a,
    Op.EXP: lambda n, a: a.exp(),
    Op.EXPM1: lambda n, a: a.expm1(),
    Op.LOG: lambda n, a: a.log(),
    Op.LOG1P: lambda n, a: a.log1p(),
    Op.SQRT: lambda n, a: a.sqrt(),
    Op.ABS: lambda n, a: a.abs(),
    Op.ERF: lambda n, a: a.erf(),
    Op.SIN: lambda n, a: a.sin(),
    Op.COS: lambda n, a: a.cos(),
    Op.SIGMOID: lambda n, a: a.sigmoid(),
    Op.TANH: lambda n, a: a.tanh(),
    Op.SOFTPLUS: lambda n, a: F.softplus(a, threshold=40),  # beyond it is x to the last bit, twice differentiable
    Op.MAX: lambda n, a, b: torch.maximum(a, b),
    Op.MIN: lambda n, a, b: torch.minimum(a, b),
    Op.LT: lambda n, a, b: like(a, a < b),
    Op.LE: lambda n, a, b: like(a, a <= b),
    Op.EQ: lambda n, a, b: like(a, a == b),
    Op.WHERE: lambda n, c, a, b: torch.where(c != 0, a, b),
    Op.DETACH: lambda n, a: a.detach(),
    Op.SLICE: lambda n, a: a[..., n.arg[0] : n.arg[1]],
    Op.CAT: lambda n, *src: torch.cat([widened(s, p.width, src) for s, p in zip(src, n.src)], -1),
    Op.SUM: lambda n, a: a.sum(-1, keepdim=True),
    Op.LARGEST: lambda n, a: a.amax(-1, keepdim=True),
}


class Rounding(torch.autograd.Function):
    """a (M, K) @ b (K, N) of operands rounded to bfloat16, summed in float32; so are the products of its backward."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a.bfloat16().to(a.dtype) @ b.bfloat16().to(b.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return Rounding.apply(g, b.t()), Rounding.apply(a.t(), g)


ROUNDED = {
    **MEANING,
    Op.MATMUL: lambda n, a, b: Rounding.apply(a, b.t() if n.arg else b),
    Op.OUTER: lambda n, a, b: Rounding.apply(a.t(), b),
}


def widened(value: Tensor, width: int, others: tuple[Tensor, ...]) -> Tensor:
    """A value with all its rows and columns, where a number or a shared vector stands for them."""
    rows = max((o for o in others), key=lambda o: o.dim()).shape[:-1]
    return value.expand(*rows, width)


def constant(node: Node, like: Tensor) -> Tensor:
    """The number of a CONST node, in all its columns."""
    return torch.full((node.width,), node.arg, dtype=like.dtype, device=like.device)


def emit(loop: Loop, operands: torch.dtype | None = None) -> Callable[[Given], Result]:
    """The loop as a function of tensors; `operands`: torch.bfloat16 where both sides of products are rounded to it."""
    meaning = MEANING if operands is None else ROUNDED
    part = unfold(loop)
    nodes = [n for n in loop.nodes() if n.op not in LEAVES]
    during = [n for n in nodes if part[n] == "during"]
    states = loop.leaves(Op.STATE)

    def compute(node: Node, values: Mapping[Node, Tensor]) -> Tensor:
        return meaning[node.op](node, *(values[s] for s in node.src))

    def run(given: Given) -> Result:
        T, B = given.size
        some = next(iter([*given.per_step.values(), *given.state.values()]))
        whole: dict[Node, Tensor] = {}  # of all steps at once, (T * B, width); shared ones as they are

        def rows(value: Tensor) -> Tensor:
            return value.expand(T, B, -1).reshape(T * B, -1)

        for node in loop.nodes():
            if node.op is Op.STEP:
                whole[node] = rows(given.per_step[node.arg])
            elif node.op is Op.FIXED:
                whole[node] = rows(given.fixed[node.arg])
            elif node.op is Op.SHARED:
                whole[node] = given.shared[node.arg]
            elif node.op is Op.CONST:
                whole[node] = constant(node, some)
            elif part[node] == "before" and node.op not in TOTALS and all(s in whole for s in node.src):
                whole[node] = compute(node, whole)
        flat = {n: n.op in (Op.SHARED, Op.CONST) or whole[n].shape[0] != T * B or whole[n].dim() < 2 for n in whole}
        split = {n: v if flat[n] else v.view(T, B, -1) for n, v in whole.items()}
        carry, steps = dict(given.state), []
        for t in reversed(range(T)) if loop.reverse else range(T):
            now = {node: carry[name] for name, node in states.items()}
            view = Here(now, split, flat, t)
            for node in during:
                now[node] = compute(node, view)
            carry = {name: view[node].expand(B, node.width) for name, node in loop.carried.items()}
            steps.append(now)
        steps = steps[::-1] if loop.reverse else steps
        for node in [*states.values(), *during]:
            whole[node] = torch.stack([step[node] for step in steps]).view(T * B, -1)
        for node in nodes:
            if node not in whole:
                whole[node] = compute(node, whole)
        return Result(
            {k: rows_of(whole[n], T, B, n.width) for k, n in loop.per_step.items()},
            carry,
            {k: whole[n] for k, n in loop.summed.items()},
        )

    return run


def rows_of(value: Tensor, T: int, B: int, width: int) -> Tensor:
    """An output of each step as (T, B, width)."""
    return value.view(T, B, -1) if value.shape[:1] == (T * B,) and value.dim() == 2 else value.expand(T, B, width)


class Here(dict[Node, Tensor]):
    """The values as they are at step t: this step's own, else a row of the whole."""

    def __init__(
        self, now: dict[Node, Tensor], split: Mapping[Node, Tensor], flat: Mapping[Node, bool], t: int
    ) -> None:
        super().__init__()
        self.now, self.split, self.flat, self.t = now, split, flat, t

    def __missing__(self, node: Node) -> Tensor:
        if node in self.now:
            return self.now[node]
        return self.split[node] if self.flat[node] else self.split[node][self.t]
