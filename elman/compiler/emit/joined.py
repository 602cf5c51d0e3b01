"""Sums of products, as of an input's and a state's: the second adds to what the first wrote, in registers.

A product with a third source is that value plus the product; nothing else reads the value then.
"""

from __future__ import annotations

from collections.abc import Callable

from elman.compiler.graph import Loop, Node, Op, terms
from elman.compiler.simplify import fed, summed


def joined(loop: Loop, place: Callable[[Node], str]) -> Loop:
    """The loop with products that are only added joined, where both are computed in the same `place`; "": nowhere."""
    uses: dict[Node, int] = dict.fromkeys(loop.roots, 2)
    for node in loop.nodes():
        for s in node.src:
            uses[s] = uses.get(s, 0) + 1
    inner = {s for n in loop.nodes() if sums(n) for s in n.src if sums(s) and uses[s] == 1 and s.width == n.width}
    new: dict[Node, Node] = {}

    def made(node: Node) -> Node:
        changed = fed(node, tuple([new[s] for s in node.src]))
        if not sums(node) or node in inner:
            return changed
        every = terms(node, inner.__contains__)
        chains: dict[str, list[Node]] = {}
        for t in every:
            if t.op is Op.MATMUL and uses[t] == 1 and t.width == node.width and place(t):
                chains.setdefault(place(t), []).append(t)
        chains = {where: chain for where, chain in chains.items() if len(chain) > 1}
        if not chains:
            return changed
        rest = [new[t] for t in every if not any(t in chain for chain in chains.values())]
        for chain in chains.values():
            total = new[chain[0]]
            for t in chain[1:]:
                total = Node(Op.MATMUL, (*new[t].src, total), t.arg, t.width, 0, t.where)
            rest.append(total)
        return summed(rest, node)

    for node in loop.nodes():
        new[node] = made(node)
    return loop.rebuilt(new.__getitem__)


def sums(node: Node) -> bool:
    """The node is a sum, and not of what is summed over all rows."""
    return node.op is Op.ADD and not node.rows and not any(s.op in (Op.OUTER, Op.ROWSUM) for s in node.src)


def onto(node: Node) -> Node | None:
    """What a product is added to."""
    return node.src[2] if node.op is Op.MATMUL and len(node.src) > 2 else None


def chain(node: Node) -> list[Node]:
    """A product and those it is added to, first to last."""
    found = [node]
    while (before := onto(found[-1])) is not None:
        found.append(before)
    return found[::-1]
