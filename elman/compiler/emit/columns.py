"""Which columns of a narrow plan each thread computes, where nothing but products reads columns of another thread.

Then a step's work on gates and states is shared as its products are, and threads meet only before a product: all that
one thread reads of another is the left side, not the gates too.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable

from elman.compiler.graph import ACROSS, LEAVES, OWN, POINTWISE, Node, Op


def period(inside: Iterable[Node], written: Iterable[Node], panel: int) -> int:
    """A column of any value belongs to whose its number modulo this is; 0 where columns cannot be told apart so.

    inside: what the kernel computes. written: what it writes to memory, states as well. panel: columns of a product's
    tile, which one thread has.
    """
    wide = [n for n in inside if not single(n)]
    widths = {n.width for n in [*wide, *written]}
    least = min(widths, default=0)
    if least == 0 or least % panel or any(width % least for width in widths):
        return 0
    return least if all(apart(n, least) for n in wide) else 0


def single(node: Node) -> bool:
    """One number a row, from others such or from what is given: every thread has it in a register."""
    if node.op is Op.SLICE:
        return node.width == 1 and node.src[0].op in LEAVES - {Op.STATE}
    return node.width == 1 and node.op in POINTWISE and all(s.width == 1 for s in node.src)


def apart(node: Node, period: int) -> bool:
    """The node's columns of one thread are computed from columns of the same thread, but for a product's left side."""
    if node.op in ACROSS or node.op in OWN:
        return False
    if node.op is Op.SLICE:
        return node.arg[0] % period == 0
    if node.op is Op.CAT:
        return all(s.width % period == 0 for s in node.src)
    return True


def worthwhile(inside: Collection[Node]) -> bool:
    """Threads read at most half as much of each other before products as they do after them if all compute the rest.

    Measured with two threads: with a quarter or a third loops are 4-10 % quicker, with as much 5 % slower.
    """
    products = [n for n in inside if n.op is Op.MATMUL]
    sides = dict.fromkeys(n.src[0] for n in products if exchanged(n, inside))
    return 2 * sum(side.width for side in sides) <= sum(n.width for n in products)


def base(node: Node) -> Node:
    """The value that a slice is part of."""
    while node.op is Op.SLICE:
        node = node.src[0]
    return node


def exchanged(node: Node, inside: Container[Node]) -> bool:
    """A product's left side has columns that other threads have computed in this loop."""
    side = base(node.src[0])
    return side.op is Op.STATE or side in inside
