"""Products of each row's own vector and matrix, as attention has them: no weights to pack, nothing to share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elman.compiler.emit.llvm import Value
from elman.compiler.graph import Node, Op

if TYPE_CHECKING:
    from elman.compiler.emit.kernel import Kernel


class Operand:
    """One source of such a product, at one row: numbers in memory, or one number throughout."""

    def __init__(self, kernel: Kernel, node: Node, r: Value) -> None:
        self.build, self.node = kernel.build, node
        if node.op is Op.SHARED:
            self.start = kernel.pointer(node)
        elif node.op is not Op.CONST:
            rows = kernel.side(node)
            self.start = kernel.build.at(rows.start, kernel.build.mul_int(r, rows.stride))

    def vector(self, column: Value, mask: int | None) -> Value:
        """The columns from this one on."""
        if self.node.op is Op.CONST:
            return self.build.k(self.node.arg)
        return self.build.load(self.build.at(self.start, column), mask)

    def number(self, column: Value) -> Value:
        """The number in this column, in every lane."""
        if self.node.op is Op.CONST:
            return self.build.k(self.node.arg)
        return self.build.splat(self.build.load_scalar(self.build.at(self.start, column)))


def own_product(kernel: Kernel, node: Node) -> None:
    """Write DOTS, MIX or SPREAD over all rows of this part; every thread of a narrow plan does all rows."""
    build, out = kernel.build, kernel.at[kernel.plan.home[node]]

    def row(r: Value, _: object) -> None:
        a, b = (Operand(kernel, source, r) for source in node.src)
        WRITE[node.op](kernel, node, a, b, build.at(out.start, build.mul_int(r, out.stride)))

    build.loop(kernel.count, row)


def write_dots(kernel: Kernel, node: Node, a: Operand, m: Operand, out: Value) -> None:
    """out[s] = sum over j of a[j] m[s, j]."""
    build, n = kernel.build, node.src[0].width

    def one(s: Value, _: object) -> None:
        start = build.mul_int(s, n)

        def add(j: Value, mask: int | None, total: list[Value]) -> list[Value]:
            return [build.fma(a.vector(j, mask), m.vector(build.add_int(start, j), mask), total[0])]

        (total,) = kernel.columns(n, add, [build.k(0.0)])
        build.store_scalar(build.sum_lanes(total), build.at(out, s))

    build.loop(build.c(node.width), one)


def write_mix(kernel: Kernel, node: Node, w: Operand, m: Operand, out: Value) -> None:
    """out[j] = sum over s of w[s] m[s, j]."""
    build, n = kernel.build, node.width

    def some(j: Value, mask: int | None, _: list[Value]) -> None:
        def add(s: Value, total: list[Value]) -> list[Value]:
            return [build.fma(w.number(s), m.vector(build.add_int(build.mul_int(s, n), j), mask), total[0])]

        (total,) = build.loop(build.c(node.src[0].width), add, [build.k(0.0)])
        build.store(total, build.at(out, j), mask)

    kernel.columns(n, some)


def write_spread(kernel: Kernel, node: Node, w: Operand, a: Operand, out: Value) -> None:
    """out[s, j] = w[s] a[j]."""
    build, n = kernel.build, node.src[1].width

    def one(s: Value, _: object) -> None:
        number, target = w.number(s), build.at(out, build.mul_int(s, n))
        kernel.columns(
            n, lambda j, mask, _: build.store(build.mul(number, a.vector(j, mask)), build.at(target, j), mask)
        )

    build.loop(build.c(node.src[0].width), one)


WRITE = {Op.DOTS: write_dots, Op.MIX: write_mix, Op.SPREAD: write_spread}
