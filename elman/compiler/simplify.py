"""Loop -> the same Loop in fewer nodes: equal nodes made one, constants folded, columns joined, sums regrouped."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import pairwise

from elman.compiler.graph import OWN, POINTWISE, Loop, Node, Op, cat, columns, const, dots, mix, pointwise, terms

FOLD: dict[Op, Callable[..., float]] = {
    Op.ADD: operator.add,
    Op.SUB: operator.sub,
    Op.MUL: operator.mul,
    Op.NEG: operator.neg,
}


def simplify(loop: Loop) -> Loop:
    """Rewrite until nothing changes; each round goes from the sources to the outputs."""
    for _ in range(20):
        count = len(loop.nodes())
        loop = once(regroup(loop))
        if len(loop.nodes()) == count:
            return loop
    return loop


def once(loop: Loop) -> Loop:
    """One round: every node with simplified sources, rewritten by its rule, equal ones shared."""
    new: dict[Node, Node] = {}
    known: dict[tuple[object, ...], Node] = {}

    def unique(node: Node) -> Node:
        if node in new:
            return new[node]
        src = tuple([unique(s) for s in node.src])
        key = (node.op, src, node.arg, node.width, node.rows)
        if key not in known:
            known[key] = fed(node, src)
        return known[key]

    for node in loop.nodes():
        new[node] = unique(rewrite(fed(node, tuple([new[s] for s in node.src]))))
        new.setdefault(new[node], new[node])
    return loop.rebuilt(new.__getitem__)


def fed(node: Node, src: tuple[Node, ...]) -> Node:
    """The node with these sources: itself, where it has them."""
    return node if src == node.src else Node(node.op, src, node.arg, node.width, node.rows, node.where)


def is_const(node: Node, value: float) -> bool:
    """The node is that number."""
    return node.op is Op.CONST and node.arg == value


def rewrite(node: Node) -> Node:
    """The node by a simpler one, or itself."""
    if node.op in FOLD and all(s.op is Op.CONST for s in node.src):
        return const(FOLD[node.op](*(s.arg for s in node.src)), node.width)
    rule = RULES.get(node.op)
    return node if rule is None else rule(node)


def same_width(node: Node, source: Node) -> Node:
    """The source in the node's place, if that keeps the width."""
    return source if source.width == node.width else node


def rewrite_add(node: Node) -> Node:
    a, b = node.src
    if is_const(a, 0.0):
        return same_width(node, b)
    if is_const(b, 0.0):
        return same_width(node, a)
    if b.op is Op.NEG:
        return pointwise(Op.SUB, a, b.src[0], where=node.where)
    if a.op is Op.NEG:
        return pointwise(Op.SUB, b, a.src[0], where=node.where)
    if a.op is b.op is Op.CAT and any(is_const(s, 0.0) for s in (*a.src, *b.src)):
        return cat(*(pointwise(Op.ADD, x, y, where=node.where) for x, y in aligned(a, b)))
    return node


def aligned(a: Node, b: Node) -> list[tuple[Node, Node]]:
    """Two values cut at the union of their seams."""
    seams = {0}
    for value in (a, b):
        at = 0
        for piece in value.src:
            at += piece.width
            seams.add(at)
    return [(columns(a, low, high), columns(b, low, high)) for low, high in pairwise(sorted(seams))]


def rewrite_sub(node: Node) -> Node:
    a, b = node.src
    if is_const(b, 0.0):
        return same_width(node, a)
    if b.op is Op.NEG:
        return pointwise(Op.ADD, a, b.src[0], where=node.where)
    return Node(Op.NEG, (b,), None, b.width, 0, node.where) if is_const(a, 0.0) and b.width == node.width else node


def rewrite_mul(node: Node) -> Node:
    for a, b in (node.src, node.src[::-1]):
        if is_const(b, 1.0):
            return same_width(node, a)
        if is_const(b, -1.0) and a.width == node.width:
            return Node(Op.NEG, (a,), None, a.width, 0, node.where)
    return node


def rewrite_neg(node: Node) -> Node:
    (a,) = node.src
    if a.op is Op.NEG:
        return a.src[0]
    return pointwise(Op.SUB, a.src[1], a.src[0], where=node.where) if a.op is Op.SUB else node


def rewrite_where(node: Node) -> Node:
    return same_width(node, node.src[1]) if node.src[1] is node.src[2] else node


def rewrite_slice(node: Node) -> Node:
    (a,), (low, high) = node.src, node.arg
    if (low, high) == (0, a.width):
        return a
    if a.op is Op.CONST:
        return const(a.arg, node.width)
    if a.op is Op.SLICE:
        return columns(a.src[0], a.arg[0] + low, a.arg[0] + high, node.where)
    if a.op is Op.CAT:
        pieces, at = [], 0
        for piece in a.src:
            first, end = max(low - at, 0), min(high - at, piece.width)
            if first < end:
                pieces.append(columns(piece, first, end, node.where))
            at += piece.width
        return cat(*pieces, where=node.where)
    return node


def rewrite_cat(node: Node) -> Node:
    pieces: list[Node] = []
    for piece in node.src:
        for part in piece.src if piece.op is Op.CAT else (piece,):
            joined = join(pieces[-1], part) if pieces else None
            pieces[-1:] = [joined] if joined else [*pieces[-1:], part]
    return node if tuple(pieces) == node.src else cat(*pieces, where=node.where)


def join(a: Node, b: Node) -> Node | None:
    """Two neighbours as one, where they are zeros or neighbours in the same source."""
    if a.op is b.op is Op.CONST and a.arg == b.arg:
        return const(a.arg, a.width + b.width)
    if a.op is b.op is Op.SLICE and a.src == b.src and a.arg[1] == b.arg[0]:
        return columns(a.src[0], a.arg[0], b.arg[1], a.where)
    return None


def repeated(node: Node, side: int) -> tuple[Node, Node] | None:
    """(m, v) of m * v, where v is repeated along rows (side 1) or along columns (side 0) by a product with ones."""
    if node.op is not Op.MUL:
        return None
    for m, v in (node.src, node.src[::-1]):
        if v.op is Op.SPREAD and is_const(v.src[1 - side], 1.0) and m.width == node.width:
            return m, v.src[side]
    return None


def rewrite_dots(node: Node) -> Node:
    """The sum over columns of m * v, v the same in each row, is m v."""
    ones, m = node.src
    found = repeated(m, 1) if is_const(ones, 1.0) else None
    return dots(found[1], found[0], node.where) if found and found[1].width == ones.width else node


def rewrite_mix(node: Node) -> Node:
    """The sum over rows of m * w, w the same in each column, is w m."""
    ones, m = node.src
    found = repeated(m, 0) if is_const(ones, 1.0) else None
    return mix(found[1], found[0], node.where) if found and found[1].width == ones.width else node


RULES: dict[Op, Callable[[Node], Node]] = {
    Op.ADD: rewrite_add,
    Op.SUB: rewrite_sub,
    Op.MUL: rewrite_mul,
    Op.NEG: rewrite_neg,
    Op.WHERE: rewrite_where,
    Op.SLICE: rewrite_slice,
    Op.CAT: rewrite_cat,
    Op.DOTS: rewrite_dots,
    Op.MIX: rewrite_mix,
}
assert set(RULES) <= POINTWISE | OWN | {Op.SLICE, Op.CAT}


def regroup(loop: Loop) -> Loop:
    """Sums with the terms that need no state first, so that they are added once, ahead of the loop."""
    nodes = loop.nodes()
    waits: dict[Node, bool] = {}
    uses: dict[Node, int] = dict.fromkeys(loop.roots, 2)
    for node in nodes:
        waits[node] = node.op is Op.STATE or any(waits[s] for s in node.src)
        for s in node.src:
            uses[s] = uses.get(s, 0) + 1
    new: dict[Node, Node] = {}

    def inner(node: Node) -> bool:
        return node.op is Op.ADD and uses[node] == 1 and waits[node]

    for node in nodes:
        made = fed(node, tuple([new[s] for s in node.src]))
        if node.op is Op.ADD and waits[node] and not node.rows:
            parts = terms(node, inner)
            free = [new[t] for t in parts if not waits[t]]
            if len(free) > 1 or (free and len(parts) > 2):
                made = summed([summed(free, node), *(new[t] for t in parts if waits[t])], node)
        new[node] = node if made.src == node.src and made.op is node.op else made
    return loop.rebuilt(new.__getitem__)


def summed(terms: list[Node], like: Node) -> Node:
    """One sum, added from the left."""
    total = terms[0]
    for term in terms[1:]:
        total = pointwise(Op.ADD, total, term, where=like.where)
    return total
