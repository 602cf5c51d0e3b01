"""Rules of operations across the width of a row: sums, means, norms, softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from elman.compiler.aten_ops.columns import last
from elman.compiler.aten_ops.numbers import add
from elman.compiler.aten_ops.value import Site, UntraceableError, Value, rule, together, whole
from elman.compiler.graph import Op, across, const, dots, mix


def along(a: Value, dim: Any, keep: bool) -> tuple[int, ...]:
    """The shape after reducing the width."""
    dims = [dim] if isinstance(dim, int) else list(dim or [])
    if not dims or dims == list(range(len(a.shape) + 1)):
        raise UntraceableError("over the whole batch, while a row depends on nothing but itself; give dim=-1")
    last(a, dims[0] if len(dims) == 1 else 0, "a sum or mean")
    return (1,) if keep else ()


@rule("sum")
def total(site: Site, a: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    if len(a.shape) == 2 and dim is not None and len(dims := [dim] if isinstance(dim, int) else list(dim)) == 1:
        return inner_total(site, a, dims[0] % 3, keepdim)
    shape = along(a, dim, keepdim)
    return Value(across(Op.SUM, whole(a), site.where), shape)


def inner_total(site: Site, a: Value, dim: int, keep: bool) -> Value:
    """A sum over one of two inner dimensions, of (B, S, N)."""
    s, n = a.shape
    if dim == 0:
        raise UntraceableError("a sum over the batch, while a row depends on nothing but itself")
    if dim == 1:
        return Value(mix(const(1.0, s), whole(a), site.where), (1, n) if keep else (n,))
    return Value(dots(const(1.0, n), whole(a), site.where), (s, 1) if keep else (s,))


@rule("mean")
def mean(site: Site, a: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    out = total(site, a, dim, keepdim)
    return together(site, Op.MUL, out, math.prod(out.shape) / math.prod(a.shape))


@rule("amax")
def amax(site: Site, a: Value, dim: Any = None, keepdim: bool = False) -> Value:
    shape = along(a, dim, keepdim)
    return Value(across(Op.LARGEST, whole(a), site.where), shape)


@rule("amin")
def amin(site: Site, a: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return together(site, Op.NEG, amax(site, together(site, Op.NEG, a), dim, keepdim))


@rule("linalg_vector_norm")
def norm(site: Site, a: Value, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    """The sum of absolute values, the Euclidean norm or the largest absolute value."""
    if ord == 2:
        return root(site, total(site, together(site, Op.MUL, a, a), dim, keepdim))
    if ord not in (1, math.inf):
        raise UntraceableError(f"norm of order {ord}; use 1, 2 or inf")
    return (total if ord == 1 else amax)(site, together(site, Op.ABS, a), dim, keepdim)


def root(site: Site, square: Value) -> Value:
    """The square root; where it is 0, so is its gradient, as torch has it for norms and deviations."""
    zero = together(site, Op.EQ, square, 0.0)
    safe = together(site, Op.SQRT, together(site, Op.WHERE, zero, 1.0, square))
    return together(site, Op.WHERE, zero, 0.0, safe)


@rule("var")
def var(site: Site, a: Value, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Value:
    centred = together(site, Op.SUB, a, mean(site, a, dim, True))
    square = together(site, Op.MUL, centred, centred)
    correction = 1 if correction is None else correction
    return together(site, Op.DIV, total(site, square, dim, keepdim), float(a.shape[0] - correction))


@rule("std")
def std(site: Site, a: Value, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Value:
    return root(site, var(site, a, dim, correction, keepdim))


@rule("var_mean")
def var_mean(site: Site, a: Value, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> tuple[Value, Value]:
    return var(site, a, dim, correction, keepdim), mean(site, a, dim, keepdim)


@rule("std_mean")
def std_mean(site: Site, a: Value, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> tuple[Value, Value]:
    return std(site, a, dim, correction, keepdim), mean(site, a, dim, keepdim)


@rule("logsumexp")
def logsumexp(site: Site, a: Value, dim: Any, keepdim: bool = False) -> Value:
    """The logarithm of a sum of exponentials; a largest number that is infinite is not taken off first."""
    largest = together(site, Op.DETACH, amax(site, a, dim, True))
    infinite = together(site, Op.EQ, together(site, Op.ABS, largest), math.inf)
    largest = together(site, Op.WHERE, infinite, 0.0, largest)
    e = together(site, Op.EXP, together(site, Op.SUB, a, largest))
    out = add(site, together(site, Op.LOG, total(site, e, dim, True)), largest)
    return Value(out.node, along(a, dim, keepdim))


def centred_exp(site: Site, a: Value, dim: int) -> tuple[Value, Value]:
    largest = together(site, Op.DETACH, amax(site, a, dim, True))
    centred = together(site, Op.SUB, a, largest)
    return centred, together(site, Op.EXP, centred)


@rule("_softmax")
def softmax(site: Site, a: Value, dim: int, half_to_float: bool = False) -> Value:
    _, e = centred_exp(site, a, dim)
    return together(site, Op.DIV, e, total(site, e, dim, True))


@rule("_log_softmax")
def log_softmax(site: Site, a: Value, dim: int, half_to_float: bool = False) -> Value:
    centred, e = centred_exp(site, a, dim)
    return together(site, Op.SUB, centred, together(site, Op.LOG, total(site, e, dim, True)))


def scaled(site: Site, a: Value, weight: Any, bias: Any = None) -> Value:
    out = a if weight is None else together(site, Op.MUL, a, weight)
    return out if bias is None else add(site, out, bias)


@rule("native_layer_norm")
def layer_norm(site: Site, a: Value, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> tuple[Any, ...]:
    if len(shape) != 1:
        raise UntraceableError("layer_norm over the width only")
    centre = together(site, Op.SUB, a, mean(site, a, 1, True))
    spread = mean(site, together(site, Op.MUL, centre, centre), 1, True)
    inverse = together(site, Op.DIV, 1.0, together(site, Op.SQRT, add(site, spread, eps)))
    return scaled(site, together(site, Op.MUL, centre, inverse), weight, bias), None, None


@rule("_fused_rms_norm")
def rms_norm(site: Site, a: Value, shape: Sequence[int], weight: Any, eps: float | None) -> tuple[Any, ...]:
    if len(shape) != 1:
        raise UntraceableError("rms_norm over the width only")
    square = mean(site, together(site, Op.MUL, a, a), 1, True)
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    inverse = together(site, Op.DIV, 1.0, together(site, Op.SQRT, add(site, square, eps)))
    return scaled(site, together(site, Op.MUL, a, inverse), weight), None
