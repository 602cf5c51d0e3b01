"""Rules of products, of taking and joining columns, and of views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import torch

from elman.compiler.aten_ops.numbers import add, truth
from elman.compiler.aten_ops.value import Site, UntraceableError, Value, aten, rule, together, whole, widen
from elman.compiler.graph import Node, Op, across, cat, columns, const, dots, matmul, mix, order, pointwise, spread


def waits(node: Node) -> bool:
    """It is computed from a state."""
    return any(n.op is Op.STATE for n in order([node]))


@rule("mm", "matmul")
def mm(site: Site, a: Value, weight: Value) -> Value:
    """a @ W, or a @ W.T as a Linear has it. Columns of a that need no state get a product of their own."""
    number = a.node.op is Op.CONST
    if weight.node.op is not Op.SHARED or len(weight.shape) != 2 or not (a.batched or number) or len(a.shape) != 1:
        raise UntraceableError("in a product the left side must be (B, K), the right a parameter (K, N)")
    groups: list[list[Node]] = []
    for piece in a.node.src if a.node.op is Op.CAT else (whole(a),):
        if groups and waits(groups[-1][0]) == waits(piece):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    stored = site.untransposed(weight)
    turned = stored is not weight
    total: Node | None = None
    low = 0
    for group in groups:
        left = cat(*group, where=site.where)
        span = int(turned), low, low + left.width
        part = stored if len(groups) == 1 else site.shared(stored, aten.slice.Tensor, *span)
        low += left.width
        if all(piece.op is Op.CONST for piece in group):
            product = of_numbers(site, group, part, turned)
        else:
            product = matmul(left, part.node, turned, site.where)
        total = product if total is None else pointwise(Op.ADD, total, product, where=site.where)
    assert total is not None
    return Value(total, (total.width,))


def of_numbers(site: Site, pieces: list[Node], part: Value, turned: bool) -> Node:
    """The product of columns that hold one number each: rows of the matrix, summed."""
    low, terms = 0, list[Value]()
    for piece in pieces:
        own = site.shared(part, aten.slice.Tensor, int(turned), low, low + piece.width)
        low += piece.width
        terms.append(together(site, Op.MUL, site.shared(own, aten.sum.dim_IntList, [int(turned)]), piece.arg))
    return reduce(partial(together, site, Op.ADD), terms).node


@rule("addmm")
def addmm(site: Site, bias: Any, a: Value, weight: Value, beta: float = 1, alpha: float = 1) -> Value:
    product = mm(site, a, weight)
    product = product if alpha == 1 else together(site, Op.MUL, product, alpha)
    return add(site, product, bias, beta)


@rule("linear")
def linear(site: Site, a: Value, weight: Value, bias: Any = None) -> Value:
    product = mm(site, a, site.shared(weight, aten.t.default))
    return product if bias is None else add(site, product, bias)


@rule("mv")
def mv(site: Site, a: Value, vector: Value) -> Value:
    """a @ v, a number for each row."""
    if vector.node.op is not Op.SHARED or not a.batched:
        raise UntraceableError("in a product the left side must be (B, K), the right a parameter (K,)")
    return Value(across(Op.SUM, together(site, Op.MUL, a, vector).node, site.where), ())


@rule("bmm")
def bmm(site: Site, a: Value, b: Value) -> Value:
    """A product of each row's own vector and matrix: attention's scores, and its weighted sum."""
    (s, k), n = a.shape, b.shape[1]
    if s == 1:
        return Value(mix(a.node, b.node, site.where), (1, n))
    if n == 1:
        return Value(dots(b.node, a.node, site.where), (s, 1))
    if k == 1:
        return Value(spread(a.node, b.node, site.where), (s, n))
    raise UntraceableError("a product of two matrices of each row; one of them must be a vector")


def last(value: Value, dim: int, what: str) -> None:
    """The dimension must be the width."""
    if len(value.shape) != 1 or dim not in (1, -1):
        raise UntraceableError(f"{what} works along the width, dimension 1 of (B, width)")


def part(site: Site, value: Value, low: int, high: int, shape: tuple[int, ...]) -> Value:
    return Value(columns(whole(value), low, high, site.where), shape)


@rule("split", "unsafe_split")
def split(site: Site, a: Value, size: int, dim: int = 0) -> list[Value]:
    last(a, dim, "split")
    width = a.shape[0]
    return [part(site, a, i, min(i + size, width), (min(i + size, width) - i,)) for i in range(0, width, size)]


@rule("split_with_sizes", "unsafe_split_with_sizes")
def split_with_sizes(site: Site, a: Value, sizes: Sequence[int], dim: int = 0) -> list[Value]:
    last(a, dim, "split")
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return [part(site, a, end - size, end, (size,)) for size, end in zip(sizes, ends)]


@rule("slice")
def slice_(site: Site, a: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    size = a.shape[0] if a.shape else 1
    low, high, step = slice(start, end, step).indices(size)
    if dim == 0 and (start or 0) == 0 and (end is None or end >= 2**31):
        return a
    if dim not in (1, 1 - len(a.shape) - 1) or step != 1 or high <= low:
        raise UntraceableError("a slice takes neighbouring columns, a[:, low:high]")
    inner = math.prod(a.shape[1:])
    return part(site, a, low * inner, high * inner, (high - low, *a.shape[1:]))


@rule("select")
def select(site: Site, a: Value, dim: int, index: int) -> Value:
    place = dim % (len(a.shape) + 1) - 1
    if place > 0 and a.shape[place] == 1:
        return Value(a.node, (*a.shape[:place], *a.shape[place + 1 :]))
    if place != 0:
        raise UntraceableError("a single index takes one entry of dimension 1")
    inner = math.prod(a.shape[1:])
    index %= a.shape[0]
    return part(site, a, index * inner, (index + 1) * inner, a.shape[1:])


@rule("unbind")
def unbind(site: Site, a: Value, dim: int = 0) -> list[Value]:
    return [select(site, a, dim, i) for i in range(a.shape[0] if a.shape else 0)]


@rule("cat")
def concatenate(site: Site, given: Sequence[Value], dim: int = 0) -> Value:
    values = [v for v in given if v.shape != (0,)]
    if any(v.node.op is Op.SHARED for v in values):
        raise UntraceableError("cat of a parameter with a traced value; add it to torch.zeros(B, width) first")
    ranks = {len(v.shape) for v in values}
    if (ranks == {1} and dim in (1, -1)) or (len(ranks) == 1 and dim == 1):
        size = sum(v.shape[0] for v in values)
        return Value(cat(*map(whole, values), where=site.where), (size, *values[0].shape[1:]))
    raise UntraceableError("cat works along the width, dimension 1 of (B, width)")


@rule("stack")
def stack(site: Site, values: Sequence[Value], dim: int = 0) -> Value:
    if dim != 1 and dim != -1 - len(values[0].shape):
        raise UntraceableError("stack puts values side by side along dimension 1, giving (B, n, width)")
    return concatenate(site, [Value(v.node, (1, *v.shape)) for v in values], 1)


@rule("glu")
def glu(site: Site, a: Value, dim: int = -1) -> Value:
    left, right = split(site, a, a.shape[0] // 2, dim)
    return together(site, Op.MUL, left, together(site, Op.SIGMOID, right))


@rule("roll")
def roll(site: Site, a: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    if len(shifts) != 1 or len(dims) != 1:
        raise UntraceableError("roll takes one dimension, the width")
    last(a, dims[0], "roll")
    cut = -shifts[0] % a.shape[0]
    return concatenate(site, split_with_sizes(site, a, [cut, a.shape[0] - cut], 1)[::-1], 1) if cut else a


@rule("view", "reshape", "_unsafe_view", "_reshape_alias")
def view(site: Site, a: Value, shape: Sequence[int], stride: Any = None) -> Value:
    sizes = list(shape)
    width = math.prod(a.shape)
    if a.node.op is not Op.SHARED and sizes and sizes[0] in (3, -1):
        rest = sizes[1:]
        if -1 in rest:
            known = math.prod(s for s in rest if s != -1)
            rest[rest.index(-1)] = width // max(known, 1)
        if math.prod(rest) == width:
            return Value(a.node, tuple(rest))
    raise UntraceableError("a view keeps the batch in front, (B, ...)")


@rule("unsqueeze")
def unsqueeze(site: Site, a: Value, dim: int) -> Value:
    dim = dim if dim >= 0 else dim + len(a.shape) + 2
    if dim == 0:
        raise UntraceableError("unsqueeze(0) would put something before the batch")
    return Value(a.node, (*a.shape[: dim - 1], 1, *a.shape[dim - 1 :]))


@rule("squeeze")
def squeeze(site: Site, a: Value, dim: Any = None) -> Value:
    dims = [dim] if isinstance(dim, int) else dim
    if dims is None or any(d % (len(a.shape) + 1) == 0 for d in dims):
        raise UntraceableError("squeeze needs the dimension, other than the batch")
    gone = {d % (len(a.shape) + 1) - 1 for d in dims}
    return Value(a.node, tuple(s for i, s in enumerate(a.shape) if i not in gone or s != 1))


@rule("expand")
def expand(site: Site, a: Value, shape: Sequence[int], implicit: bool = False) -> Value:
    if a.node.op is Op.SHARED or len(shape) != len(a.shape) + 1:
        raise UntraceableError("expand repeats columns of (B, 1)")
    want = tuple(s if w == -1 else w for w, s in zip(shape[1:], a.shape))
    node = widen(a.node, a.shape, want)
    if node.width == 1 != math.prod(want) and a.batched:
        node = pointwise(Op.ADD, node, const(0.0, math.prod(want)), where=site.where)
    return Value(node, want)


rule("alias", "clone", "positive", "contiguous", "lift_fresh")(lambda site, a, **_: a)


@rule("detach")
def detach(site: Site, a: Value) -> Value:
    return together(site, Op.DETACH, a)


@rule("_to_copy")
def to_copy(site: Site, a: Value, dtype: Any = None, **_: Any) -> Value:
    if dtype is not None and not dtype.is_floating_point and dtype is not torch.bool:
        raise UntraceableError(f"the step turns values into {dtype}")
    return truth(site, a) if dtype is torch.bool else a


@rule("zeros_like")
def zeros_like(site: Site, a: Value, **_: Any) -> Value:
    return Value(const(0.0), a.shape)


@rule("ones_like")
def ones_like(site: Site, a: Value, **_: Any) -> Value:
    return Value(const(1.0), a.shape)


@rule("full_like")
def full_like(site: Site, a: Value, fill: float, **_: Any) -> Value:
    return Value(const(float(fill)), a.shape)


@rule("new_full")
def new_full(site: Site, a: Value, size: Sequence[int], fill: float, **_: Any) -> Value:
    return Value(const(float(fill)), tuple(size[1:]))


@rule("new_zeros")
def new_zeros(site: Site, a: Value, size: Sequence[int], **_: Any) -> Value:
    return Value(const(0.0), tuple(size[1:]))


@rule("new_ones")
def new_ones(site: Site, a: Value, size: Sequence[int], **_: Any) -> Value:
    return Value(const(1.0), tuple(size[1:]))
