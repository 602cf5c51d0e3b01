"""Rules of activations. Which side of a kink a tie or a NaN falls on is torch's choice, for the gradient as well."""

from __future__ import annotations

import math
from typing import Any

from elman.compiler.aten_ops.numbers import add, power
from elman.compiler.aten_ops.value import Site, Value, rule, together
from elman.compiler.graph import Op


def choose(site: Site, mask: Value, a: Any, b: Any) -> Value:
    """Where the mask is true a, else b."""
    return together(site, Op.WHERE, mask, a, b)


def positive(site: Site, a: Any) -> Value:
    return together(site, Op.LT, 0.0, a)


rule("silu")(lambda site, a: together(site, Op.MUL, a, together(site, Op.SIGMOID, a)))


@rule("relu")
def relu(site: Site, a: Any) -> Value:
    return threshold(site, a, 0.0, 0.0)


@rule("threshold")
def threshold(site: Site, a: Any, low: float, value: float) -> Value:
    return choose(site, together(site, Op.LE, a, low), value, a)


@rule("leaky_relu")
def leaky_relu(site: Site, a: Any, slope: float = 0.01) -> Value:
    return choose(site, positive(site, a), a, together(site, Op.MUL, a, slope))


@rule("_prelu_kernel")
def prelu(site: Site, a: Any, weight: Any) -> Value:
    up = positive(site, a)
    return choose(site, up, a, together(site, Op.MUL, weight, choose(site, up, 0.0, a)))


@rule("elu")
def elu(site: Site, a: Any, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value:
    low = together(site, Op.LE, a, 0.0)
    inner = choose(site, low, together(site, Op.MUL, a, input_scale), 0.0)  # exp stays finite where it is not used
    curve = together(site, Op.MUL, together(site, Op.EXPM1, inner), alpha * scale)
    return choose(site, low, curve, together(site, Op.MUL, a, scale))


@rule("celu")
def celu(site: Site, a: Any, alpha: float = 1) -> Value:
    return elu(site, a, alpha, 1, 1 / alpha)


@rule("softplus")
def softplus(site: Site, a: Any, beta: float = 1, threshold: float = 20) -> Value:
    scaled = together(site, Op.MUL, a, beta)
    soft = together(site, Op.DIV, together(site, Op.SOFTPLUS, scaled), beta)
    return choose(site, together(site, Op.LT, threshold, scaled), a, soft)


@rule("log_sigmoid_forward")
def log_sigmoid(site: Site, a: Any) -> tuple[Value, None]:
    return together(site, Op.NEG, together(site, Op.SOFTPLUS, together(site, Op.NEG, a))), None


@rule("mish")
def mish(site: Site, a: Any) -> Value:
    return together(site, Op.MUL, a, together(site, Op.TANH, together(site, Op.SOFTPLUS, a)))


@rule("gelu")
def gelu(site: Site, a: Any, approximate: str = "none") -> Value:
    if approximate == "none":
        inner = together(site, Op.ERF, together(site, Op.MUL, a, math.sqrt(0.5)))
    else:
        cube = together(site, Op.MUL, power(site, a, 3), 0.044715)
        inner = together(site, Op.TANH, together(site, Op.MUL, add(site, a, cube), math.sqrt(2 / math.pi)))
    return together(site, Op.MUL, together(site, Op.MUL, a, 0.5), add(site, inner, 1.0))


@rule("clamp")
def clamp(site: Site, a: Any, low: Any = None, high: Any = None, min: Any = None, max: Any = None) -> Value:
    """Between two bounds; a itself, with its gradient, on a bound too, but a NaN has no gradient."""
    low, high = min if low is None else low, max if high is None else high
    out = a
    for op, bound in ((Op.MAX, low), (Op.MIN, high)):
        if bound is not None:
            inside = together(site, Op.LE, *((bound, out) if op is Op.MAX else (out, bound)))
            out = choose(site, inside, out, together(site, op, together(site, Op.DETACH, out), bound))
    return out


rule("clamp_min")(lambda site, a, low=None, min=None: clamp(site, a, min if low is None else low))
rule("clamp_max")(lambda site, a, high=None, max=None: clamp(site, a, None, max if high is None else high))


@rule("hardtanh")
def hardtanh(site: Site, a: Any, low: float = -1.0, high: float = 1.0) -> Value:
    """As clamp, but on a bound the gradient is 0 and a NaN has one."""
    below = choose(site, together(site, Op.LE, a, low), low, a)
    return choose(site, together(site, Op.LE, high, a), high, below)


SIXTH = 0.1666666716337204  # in single precision: torch's derivative of hardsigmoid, in double precision too


@rule("hardsigmoid")
def hardsigmoid(site: Site, a: Any) -> Value:
    still = together(site, Op.DETACH, a)
    raised = together(site, Op.MIN, together(site, Op.MAX, add(site, still, 3.0), 0.0), 6.0)
    flat = together(site, Op.DIV, raised, 6.0)
    none = together(site, Op.SUB, a, still)  # 0, with a gradient
    inside = together(site, Op.LT, together(site, Op.ABS, a), 3.0)
    return choose(site, inside, add(site, flat, none, SIXTH), flat)


@rule("hardswish")
def hardswish(site: Site, a: Any) -> Value:
    inside = together(site, Op.LT, together(site, Op.ABS, a), 3.0)
    inner = choose(site, inside, a, 0.0)
    curve = together(site, Op.MUL, inner, add(site, together(site, Op.DIV, inner, 6.0), 0.5))
    none = together(site, Op.MUL, together(site, Op.DETACH, a), 0.0)
    return choose(site, inside, curve, choose(site, together(site, Op.LE, a, -3.0), none, a))
