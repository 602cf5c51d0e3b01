"""Rules of operations across the width of a row: sums, means, norms, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from elman.compiler.aten_ops.columns import last
from elman.compiler.aten_ops.numbers import add
from elman.compiler.aten_ops.value import Site, UntraceableError, Value, rule, together
from elman.compiler.graph import Op, across


def along(a: Value, dim: Any, keep: bool) -> tuple[int, ...]:
    """The shape after reducing the width."""
    dims = [dim] if isinstance(dim, int) else list(dim or [])
    last(a, dims[0] if len(dims) == 1 else 0, "a sum or mean")
    return (1,) if keep else ()


@rule("sum")
def total(site: Site, a: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    shape = along(a, dim, keepdim)
    return Value(across(Op.SUM, a.node, site.where), shape)


@rule("mean")
def mean(site: Site, a: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return together(site, Op.MUL, total(site, a, dim, keepdim), 1 / a.node.width)


@rule("amax")
def amax(site: Site, a: Value, dim: Any = None, keepdim: bool = False) -> Value:
    shape = along(a, dim, keepdim)
    return Value(across(Op.LARGEST, a.node, site.where), shape)


@rule("amin")
def amin(site: Site, a: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return together(site, Op.NEG, amax(site, together(site, Op.NEG, a), dim, keepdim))


@rule("linalg_vector_norm")
def norm(site: Site, a: Value, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    """The Euclidean norm; where it is 0, so is its gradient, as in torch."""
    if ord != 2:
        raise UntraceableError(f"norm of order {ord}; use 2")
    square = total(site, together(site, Op.MUL, a, a), dim, keepdim)
    zero = together(site, Op.EQ, square, 0.0)
    root = together(site, Op.SQRT, together(site, Op.WHERE, zero, 1.0, square))
    return together(site, Op.WHERE, zero, 0.0, root)


@rule("var")
def var(site: Site, a: Value, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Value:
    centred = together(site, Op.SUB, a, mean(site, a, dim, True))
    square = together(site, Op.MUL, centred, centred)
    correction = 1 if correction is None else correction
    return together(site, Op.DIV, total(site, square, dim, keepdim), float(a.node.width - correction))


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
