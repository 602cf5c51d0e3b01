"""Rules of operations that work number by number: arithmetic, comparisons, choices."""

from __future__ import annotations

import math
from typing import Any

from elman.compiler.aten_ops.value import RULES, Rule, Site, UntraceableError, Value, aten, rule, together
from elman.compiler.graph import Op


def number(op: Op) -> Rule:
    """The rule of an operation that is one pointwise node."""
    return lambda site, *values: together(site, op, *values)


for _op in "NEG EXP EXPM1 LOG LOG1P SQRT ABS ERF SIN COS SIGMOID TANH".split():
    rule(_op.lower())(number(Op[_op]))
for _name, _op in dict(div="DIV", true_divide="DIV", mul="MUL", maximum="MAX", minimum="MIN", lt="LT", le="LE").items():
    rule(_name)(number(Op[_op]))
rule("eq")(number(Op.EQ))
rule("gt")(lambda site, a, b: together(site, Op.LT, b, a))
rule("ge")(lambda site, a, b: together(site, Op.LE, b, a))
rule("ne")(lambda site, a, b: together(site, Op.SUB, 1.0, together(site, Op.EQ, a, b)))
rule("logical_not", "bitwise_not")(lambda site, a: together(site, Op.EQ, a, 0.0))
rule("logical_and", "bitwise_and")(lambda site, a, b: together(site, Op.MUL, truth(site, a), truth(site, b)))
rule("logical_or", "bitwise_or")(lambda site, a, b: together(site, Op.MAX, truth(site, a), truth(site, b)))
rule("logical_xor", "bitwise_xor")(
    lambda site, a, b: together(site, Op.SUB, 1.0, together(site, Op.EQ, truth(site, a), truth(site, b)))
)
rule("isnan")(lambda site, a: together(site, Op.SUB, 1.0, together(site, Op.EQ, a, a)))
rule("isinf")(lambda site, a: together(site, Op.EQ, together(site, Op.ABS, a), math.inf))
rule("where")(number(Op.WHERE))


def truth(site: Site, a: Any) -> Value:
    """1 where a is not 0 (a NaN is not), else 0."""
    return together(site, Op.SUB, 1.0, together(site, Op.EQ, a, 0.0))


@rule("add")
def add(site: Site, a: Any, b: Any, alpha: float = 1) -> Value:
    return together(site, Op.ADD, a, b if alpha == 1 else together(site, Op.MUL, b, alpha))


@rule("sub")
def sub(site: Site, a: Any, b: Any, alpha: float = 1) -> Value:
    return together(site, Op.SUB, a, b if alpha == 1 else together(site, Op.MUL, b, alpha))


@rule("rsub")
def rsub(site: Site, a: Any, b: Any, alpha: float = 1) -> Value:
    return sub(site, b, a, alpha)


rule("square")(lambda site, a: together(site, Op.MUL, a, a))
rule("reciprocal")(lambda site, a: together(site, Op.DIV, 1.0, a))
rule("rsqrt")(lambda site, a: together(site, Op.DIV, 1.0, together(site, Op.SQRT, a)))
rule("log2")(lambda site, a: together(site, Op.MUL, together(site, Op.LOG, a), 1 / math.log(2)))
rule("log10")(lambda site, a: together(site, Op.MUL, together(site, Op.LOG, a), 1 / math.log(10)))
rule("exp2")(lambda site, a: together(site, Op.EXP, together(site, Op.MUL, a, math.log(2))))
rule("masked_fill")(lambda site, a, mask, value: together(site, Op.WHERE, mask, value, a))


@rule("sign", "sgn")
def sign(site: Site, a: Any) -> Value:
    """-1, 0 or 1, without a gradient."""
    return together(site, Op.SUB, together(site, Op.LT, 0.0, a), together(site, Op.LT, a, 0.0))


@rule("pow")
def power(site: Site, a: Any, exponent: Any) -> Value:
    """Powers that are products, roots or quotients; a positive number to any power."""
    if isinstance(a, (int, float)) and a > 0:
        return together(site, Op.EXP, together(site, Op.MUL, exponent, math.log(a)))
    if not isinstance(exponent, (int, float)) or not isinstance(a, Value):
        raise UntraceableError("only a number can be the exponent")
    roots = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
    if exponent in roots:
        return RULES[getattr(aten, roots[exponent])](site, a)
    if abs(exponent) not in (1, 2, 3, 4):
        raise UntraceableError(f"power {exponent}; use 0.5, -0.5 or a whole number from -4 to 4")
    out = a
    for _ in range(int(abs(exponent)) - 1):
        out = together(site, Op.MUL, out, a)
    return out if exponent > 0 else together(site, Op.DIV, 1.0, out)


@rule("addcmul")
def addcmul(site: Site, a: Any, b: Any, c: Any, value: float = 1) -> Value:
    return add(site, a, together(site, Op.MUL, b, c), value)


@rule("addcdiv")
def addcdiv(site: Site, a: Any, b: Any, c: Any, value: float = 1) -> Value:
    return add(site, a, together(site, Op.DIV, b, c), value)


@rule("lerp")
def lerp(site: Site, a: Any, b: Any, weight: Any) -> Value:
    return add(site, a, together(site, Op.MUL, weight, together(site, Op.SUB, b, a)))


@rule("nan_to_num")
def nan_to_num(site: Site, a: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Value:
    if posinf is None or neginf is None:
        raise UntraceableError("the largest number depends on the type; give posinf and neginf")
    out = together(site, Op.WHERE, together(site, Op.EQ, a, a), a, nan or 0.0)
    for infinite, instead in ((math.inf, posinf), (-math.inf, neginf)):
        out = together(site, Op.WHERE, together(site, Op.EQ, a, infinite), instead, out)
    return out
