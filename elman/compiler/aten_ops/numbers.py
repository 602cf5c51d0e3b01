"""Rules of operations that work number by number: arithmetic, comparisons, activations."""

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
rule("logical_and", "bitwise_and")(number(Op.MUL))
rule("logical_or", "bitwise_or")(number(Op.MAX))
rule("where")(number(Op.WHERE))


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
rule("silu")(lambda site, a: together(site, Op.MUL, a, together(site, Op.SIGMOID, a)))
rule("masked_fill")(lambda site, a, mask, value: together(site, Op.WHERE, mask, value, a))


@rule("pow")
def power(site: Site, a: Any, exponent: Any) -> Value:
    """Powers that are products, roots or quotients."""
    if not isinstance(exponent, (int, float)) or not isinstance(a, Value):
        raise UntraceableError("only a number can be the exponent")
    roots = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
    if exponent in roots:
        return RULES[getattr(aten, roots[exponent])](site, a)
    if exponent not in (1, 2, 3, 4):
        raise UntraceableError(f"power {exponent}; use 1, 2, 3, 4, 0.5, -0.5 or -1")
    out = a
    for _ in range(int(exponent) - 1):
        out = together(site, Op.MUL, out, a)
    return out


@rule("addcmul")
def addcmul(site: Site, a: Any, b: Any, c: Any, value: float = 1) -> Value:
    return add(site, a, together(site, Op.MUL, b, c), value)


@rule("lerp")
def lerp(site: Site, a: Any, b: Any, weight: Any) -> Value:
    return add(site, a, together(site, Op.MUL, weight, together(site, Op.SUB, b, a)))


def unless(site: Site, low: Value, other: Any, a: Any) -> Value:
    """`other` where the mask is true, else a; a NaN in a passes."""
    return together(site, Op.WHERE, low, other, a)


@rule("relu")
def relu(site: Site, a: Any) -> Value:
    return unless(site, together(site, Op.LE, a, 0.0), 0.0, a)


@rule("leaky_relu")
def leaky_relu(site: Site, a: Any, slope: float = 0.01) -> Value:
    return unless(site, together(site, Op.LE, a, 0.0), together(site, Op.MUL, a, slope), a)


@rule("elu")
def elu(site: Site, a: Any, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value:
    low = together(site, Op.LE, a, 0.0)
    inner = unless(site, together(site, Op.LT, 0.0, a), 0.0, together(site, Op.MUL, a, input_scale))
    curve = together(site, Op.MUL, together(site, Op.EXPM1, inner), alpha * scale)
    return unless(site, low, curve, together(site, Op.MUL, a, scale))


@rule("softplus")
def softplus(site: Site, a: Any, beta: float = 1, threshold: float = 20) -> Value:
    scaled = together(site, Op.MUL, a, beta)
    soft = together(site, Op.DIV, together(site, Op.SOFTPLUS, scaled), beta)
    return unless(site, together(site, Op.LT, threshold, scaled), a, soft)


@rule("log_sigmoid_forward")
def log_sigmoid(site: Site, a: Any) -> tuple[Value, None]:
    return together(site, Op.NEG, together(site, Op.SOFTPLUS, together(site, Op.NEG, a))), None


@rule("gelu")
def gelu(site: Site, a: Any, approximate: str = "none") -> Value:
    if approximate == "none":
        inner = together(site, Op.ERF, together(site, Op.MUL, a, math.sqrt(0.5)))
    else:
        cube = together(site, Op.MUL, power(site, a, 3), 0.044715)
        inner = together(site, Op.TANH, together(site, Op.MUL, add(site, a, cube), math.sqrt(2 / math.pi)))
    return together(site, Op.MUL, together(site, Op.MUL, a, 0.5), add(site, inner, 1.0))


@rule("clamp", "hardtanh", "clamp_min", "clamp_max")
def clamp(site: Site, a: Any, low: Any = None, high: Any = None, min: Any = None, max: Any = None) -> Value:
    low, high = min if low is None else low, max if high is None else high
    if low is not None:
        a = unless(site, together(site, Op.LT, a, low), low, a)
    return a if high is None else unless(site, together(site, Op.LT, high, a), high, a)


RULES[aten.hardtanh] = lambda site, a, low=-1.0, high=1.0: clamp(site, a, low, high)
RULES[aten.clamp_max] = lambda site, a, high: clamp(site, a, None, high)


@rule("hardsigmoid")
def hardsigmoid(site: Site, a: Any) -> Value:
    return together(site, Op.DIV, clamp(site, add(site, a, 3.0), 0.0, 6.0), 6.0)


@rule("hardswish")
def hardswish(site: Site, a: Any) -> Value:
    return together(site, Op.MUL, a, hardsigmoid(site, a))
