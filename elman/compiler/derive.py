"""Back-propagation through time: Loop -> (the Loop that also saves, the Loop that runs back). One rule per op."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace

from elman.compiler.graph import (
    LEAVES,
    POINTWISE,
    Loop,
    Node,
    Op,
    across,
    cat,
    columns,
    const,
    dots,
    matmul,
    mix,
    order,
    pointwise,
    spread,
    walk,
)

Grads = tuple[Node | None, ...]


def mul(a: Node, b: Node) -> Node:
    return pointwise(Op.MUL, a, b)


def sub(a: Node, b: Node) -> Node:
    return pointwise(Op.SUB, a, b)


def add(a: Node, b: Node) -> Node:
    return pointwise(Op.ADD, a, b)


def div(a: Node, b: Node) -> Node:
    return pointwise(Op.DIV, a, b)


def one(op: Op, a: Node) -> Node:
    return pointwise(op, a)


def where(mask: Node, a: Node, b: Node) -> Node:
    return pointwise(Op.WHERE, mask, a, b)


def less(a: Node, b: Node) -> Node:
    return pointwise(Op.LT, a, b)


def larger(n: Node, g: Node, first: Op) -> Grads:
    """max and min: the gradient goes to the one chosen, by halves where equal, to both at a NaN, as in torch."""
    a, b = n.src
    equal, half, whole = pointwise(Op.EQ, a, b), const(0.5), const(1.0)
    smaller, greater = sub(whole, less(a, b)), sub(whole, less(b, a))
    chosen, other = (smaller, greater) if first is Op.MAX else (greater, smaller)
    return mul(g, where(equal, half, chosen)), mul(g, where(equal, half, other))


def largest(n: Node, g: Node) -> Grads:
    """The largest of a row: evenly among those that are it, as in torch.

    It is looked for once more, since what backward computes again may differ from what was saved in its last bit.
    """
    mask = pointwise(Op.EQ, n.src[0], across(Op.LARGEST, n.src[0]))
    return (mul(mask, div(g, across(Op.SUM, mask))),)


def piece(n: Node, g: Node) -> Grads:
    low, high = n.arg
    width = n.src[0].width
    sides = [const(0.0, low)] * (low > 0), [g], [const(0.0, width - high)] * (high < width)
    return (cat(*(s for side in sides for s in side)),)


def pieces(n: Node, g: Node) -> Grads:
    ends = [sum(s.width for s in n.src[: i + 1]) for i in range(len(n.src))]
    return tuple(columns(g, end - s.width, end) for s, end in zip(n.src, ends))


def product(n: Node, g: Node) -> Grads:
    a, weight = n.src
    left, right = (g, a) if n.arg else (a, g)
    return matmul(g, weight, not n.arg), Node(Op.OUTER, (left, right), None, right.width, left.width, n.where)


# (node, gradient of the loss to it) -> gradient to each source; None where there is none
RULES: dict[Op, Callable[[Node, Node], Grads]] = {
    Op.MATMUL: product,
    Op.DOTS: lambda n, g: (mix(g, n.src[1]), spread(g, n.src[0])),
    Op.MIX: lambda n, g: (dots(g, n.src[1]), spread(n.src[0], g)),
    Op.SPREAD: lambda n, g: (dots(n.src[1], g), mix(n.src[0], g)),
    Op.ADD: lambda n, g: (g, g),
    Op.SUB: lambda n, g: (g, one(Op.NEG, g)),
    Op.MUL: lambda n, g: (mul(g, n.src[1]), mul(g, n.src[0])),
    Op.DIV: lambda n, g: (div(g, n.src[1]), one(Op.NEG, div(mul(g, n), n.src[1]))),
    Op.NEG: lambda n, g: (one(Op.NEG, g),),
    Op.EXP: lambda n, g: (mul(g, n),),
    Op.EXPM1: lambda n, g: (mul(g, add(n, const(1.0))),),
    Op.LOG: lambda n, g: (div(g, n.src[0]),),
    Op.LOG1P: lambda n, g: (div(g, add(n.src[0], const(1.0))),),
    Op.SQRT: lambda n, g: (div(mul(g, const(0.5)), n),),
    Op.ABS: lambda n, g: (mul(g, sub(less(const(0.0), n.src[0]), less(n.src[0], const(0.0)))),),
    Op.ERF: lambda n, g: (
        mul(g, mul(one(Op.EXP, one(Op.NEG, mul(n.src[0], n.src[0]))), const(2 / math.sqrt(math.pi)))),
    ),
    Op.SIN: lambda n, g: (mul(g, one(Op.COS, n.src[0])),),
    Op.COS: lambda n, g: (one(Op.NEG, mul(g, one(Op.SIN, n.src[0]))),),
    Op.SIGMOID: lambda n, g: (mul(g, mul(n, sub(const(1.0), n))),),
    Op.TANH: lambda n, g: (mul(g, sub(const(1.0), mul(n, n))),),
    Op.SOFTPLUS: lambda n, g: (mul(g, one(Op.SIGMOID, n.src[0])),),
    Op.MAX: lambda n, g: larger(n, g, Op.MAX),
    Op.MIN: lambda n, g: larger(n, g, Op.MIN),
    Op.LT: lambda n, g: (None, None),
    Op.LE: lambda n, g: (None, None),
    Op.EQ: lambda n, g: (None, None),
    Op.WHERE: lambda n, g: (None, where(n.src[0], g, const(0.0)), where(n.src[0], const(0.0), g)),
    Op.DETACH: lambda n, g: (None,),
    Op.SLICE: piece,
    Op.CAT: pieces,
    Op.SUM: lambda n, g: (add(g, const(0.0, n.src[0].width)),),
    Op.LARGEST: largest,
}


def derive(loop: Loop, given: Collection[str], wanted: Collection[str]) -> tuple[Loop, Loop]:
    """The forward loop with what must be saved as further outputs, and the loop of gradients.

    given: the outputs of each step whose gradient comes in, as the step input "d:NAME"; gradients of the last states
    come in as states. wanted: names of leaves whose gradient goes out: "d:NAME" at each step for inputs of steps, a
    state for states, a state "d:NAME" for fixed ones, a sum "NAME" for shared ones.
    """
    grad = gradients(loop, given, set(wanted))
    back = collect(loop, grad, set(wanted))
    savings = Savings(loop, back)
    back = back.rebuilt(savings.cut)  # which saves more
    return replace(loop, per_step={**loop.per_step, **savings.saved}), back


def active(loop: Loop, wanted: set[str]) -> set[Node]:
    """The nodes that a wanted leaf reaches, through the states as well."""
    names = set(wanted)
    while True:
        reached: set[Node] = set()
        for node in loop.nodes():
            if node.arg in names if node.op in LEAVES - {Op.CONST} else any(s in reached for s in node.src):
                reached.add(node)
        found = {name for name, node in loop.carried.items() if node in reached} - names
        if not found:
            return reached
        names |= found


def gradients(loop: Loop, given: Collection[str], wanted: set[str]) -> dict[Node, Node]:
    """The gradient to every node that needs one, as nodes over the forward ones."""
    grad: dict[Node, Node] = {}
    reached = active(loop, wanted)

    def give(node: Node, g: Node) -> None:
        if node in reached:
            if node.width == 1 != g.width and not g.rows:
                g = across(Op.SUM, g)
            grad[node] = g if node not in grad else Node(Op.ADD, (grad[node], g), None, g.width, g.rows)

    for name in given:
        node = loop.per_step[name]
        give(node, Node(Op.STEP, (), f"d:{name}", node.width))
    for name, node in loop.carried.items():
        give(node, Node(Op.STATE, (), name, node.width))
    for node in reversed(loop.nodes()):
        if node in grad and node.src:
            for source, g in zip(node.src, RULES[node.op](node, grad[node])):
                if g is not None:
                    give(source, g)
    return grad


def collect(loop: Loop, grad: dict[Node, Node], wanted: set[str]) -> Loop:
    """The gradients of leaves as the outputs of a loop the other way round."""
    per_step, carried, summed = {}, {}, {}
    for node in loop.nodes():
        g = grad.get(node)
        if node.op is Op.STATE and node.arg in active_states(loop, wanted):
            carried[node.arg] = const(0.0, node.width) if g is None else g
        elif g is None or node.arg not in wanted:
            continue
        elif node.op is Op.STEP:
            per_step[f"d:{node.arg}"] = g
        elif node.op is Op.FIXED:
            carried[f"d:{node.arg}"] = add(Node(Op.STATE, (), f"d:{node.arg}", node.width), g)
        elif node.op is Op.SHARED:
            summed[node.arg] = g if node.rows else Node(Op.ROWSUM, (g,), None, node.width)
    for name in loop.carried:
        if name not in carried and name in active_states(loop, wanted):
            width = loop.carried[name].width
            carried[name] = const(0.0, width)  # the step never reads this state
    return Loop(per_step, carried, summed, not loop.reverse)


def active_states(loop: Loop, wanted: set[str]) -> set[str]:
    """States through which a gradient flows."""
    reached = active(loop, wanted)
    return {name for name, node in loop.carried.items() if node in reached or name in wanted}


RECOMPUTED = POINTWISE | {Op.CAT, Op.SLICE, Op.SPREAD}


class Savings:
    """What the forward loop saves, and how a gradient reads forward values.

    States are there anyway, before and after each step. Of the rest, what can be computed again from inputs, states
    and saved values number by number is; sums, most products and what needs them are saved.
    """

    def __init__(self, loop: Loop, back: Loop) -> None:
        self.inside = set(loop.nodes())
        self.saved: dict[str, Node] = {}
        self.made: dict[Node, Node] = {}  # what stands for a node in the backward loop
        self.known: dict[Node, bool] = {}  # what is free, while `made` is as it is
        self.next_of = {n: name for name, n in reversed(list(loop.carried.items())) if n.op not in LEAVES}
        for node in needed(back, self.inside):
            if not self.free(node):
                self.read(node)

    def make(self, node: Node, new: Node) -> None:
        self.known.clear()
        self.made[node] = new

    def save(self, node: Node, name: str) -> None:
        self.saved[name] = node
        self.make(node, Node(Op.STEP, (), name, node.width))

    def there(self, node: Node) -> bool:
        return node in self.made or node.op in LEAVES or node in self.next_of

    def free(self, node: Node) -> bool:
        """It can be had without saving more."""
        for n in walk([node], lambda n: n in self.known or self.there(n) or n.op not in RECOMPUTED):
            if n not in self.known:
                self.known[n] = self.there(n) or (n.op in RECOMPUTED and all(self.known[s] for s in n.src))
        return self.known[node]

    def again(self, node: Node) -> bool:
        """It is computed once more: what it lacks is narrow, such as a row's mean."""
        return node.op in RECOMPUTED and all(self.free(s) or s.width < node.width for s in node.src)

    def read(self, node: Node) -> None:
        """Let the backward loop have a forward value."""
        inner: set[Node] = set()  # computed once more, from their sources

        def stop(n: Node) -> bool:
            if self.there(n) or not (n.op is Op.CAT or self.again(n)):
                return True
            inner.add(n)
            return False

        for n in walk([node], stop):
            if n in self.made:
                continue
            if n in inner:
                self.make(n, self.fed(n))
            elif n.op is Op.STATE:
                self.save(n, f"prev:{n.arg}")
            elif n.op in LEAVES:
                self.make(n, n)
            elif n in self.next_of:
                self.save(n, f"next:{self.next_of[n]}")
            else:
                self.save(n, f"saved:{sum(k.startswith('saved:') for k in self.saved)}")

    def cut(self, node: Node) -> Node:
        """A node of the backward loop as it is computed from what is there and what is saved."""
        for n in walk([node], lambda n: n in self.inside or n in self.made):
            if n in self.inside:
                self.read(n)
            elif n not in self.made:
                self.made[n] = self.fed(n) if n.src else n
        return self.made[node]

    def fed(self, node: Node) -> Node:
        return replace(node, src=tuple([self.made[s] for s in node.src]))


def needed(back: Loop, inside: set[Node]) -> list[Node]:
    """Forward nodes that a gradient reads directly, sources first."""
    read = {s for n in back.nodes() if n not in inside for s in n.src if s in inside}
    read |= {n for n in back.roots if n in inside}
    return [n for n in order(back.roots) if n in read]
