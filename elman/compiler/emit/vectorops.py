"""What each pointwise op is on vectors: one line an op, in one table."""

from __future__ import annotations

from collections.abc import Callable

from elman.compiler.emit import vectormath
from elman.compiler.emit.llvm import Build, Value
from elman.compiler.graph import Node, Op


def apply(build: Build, node: Node, *src: Value) -> Value:
    """One pointwise op on vectors."""
    return VECTOR[node.op](build, *src)


def softplus(build: Build, a: Value) -> Value:
    """log(1 + exp(a)) without overflow."""
    far = vectormath.log1p(build, vectormath.exp(build, build.neg(build.abs(a))))
    return build.add(build.maximum(a, build.k(0.0)), far)


VECTOR: dict[Op, Callable[..., Value]] = {
    Op.ADD: lambda b, x, y: b.add(x, y),
    Op.SUB: lambda b, x, y: b.sub(x, y),
    Op.MUL: lambda b, x, y: b.mul(x, y),
    Op.DIV: lambda b, x, y: b.div(x, y),
    Op.NEG: lambda b, x: b.neg(x),
    Op.EXP: vectormath.exp,
    Op.EXPM1: vectormath.expm1,
    Op.LOG: vectormath.log,
    Op.LOG1P: vectormath.log1p,
    Op.SQRT: lambda b, x: b.sqrt(x),
    Op.ABS: lambda b, x: b.abs(x),
    Op.ERF: vectormath.erf,
    Op.SIN: vectormath.sin,
    Op.COS: vectormath.cos,
    Op.SIGMOID: vectormath.sigmoid,
    Op.TANH: vectormath.tanh,
    Op.SOFTPLUS: softplus,
    Op.MAX: lambda b, x, y: b.maximum(x, y),
    Op.MIN: lambda b, x, y: b.minimum(x, y),
    Op.LT: lambda b, x, y: b.lt(x, y),
    Op.LE: lambda b, x, y: b.le(x, y),
    Op.EQ: lambda b, x, y: b.eq(x, y),
    Op.WHERE: lambda b, c, x, y: b.where(c, x, y),
    Op.DETACH: lambda b, x: x,
}
