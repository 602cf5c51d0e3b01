"""Traced values, their shapes, and the table of rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from elman.compiler.graph import Node, Op, cat, columns, const, pointwise, spread
from elman.errors import ElmanError

aten = torch.ops.aten
Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
MANY = 4  # copies side by side, beyond which they are a product with ones


class UntraceableError(ElmanError):
    """The step does something that has no place in a graph; it still runs on the plain loop.

    It is no TypeError, as what a step does wrong is: torch's operators take those for an operand they do not know.
    """


@dataclass(frozen=True)
class Value:
    """A traced tensor: its node, and its shape without the batch; a shared one has no batch."""

    node: Node
    shape: tuple[int, ...]

    @property
    def batched(self) -> bool:
        return self.node.op not in (Op.SHARED, Op.CONST)


class Site(Protocol):
    """Where a rule is applied: the user's line, and the way to make one shared value of another."""

    @property
    def where(self) -> str: ...

    def shared(self, value: Value, func: Any, *args: Any) -> Value: ...

    def untransposed(self, value: Value) -> Value: ...


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule for these operations; one that this torch does not have is passed over."""

    def enter(function: Rule) -> Rule:
        RULES.update({getattr(aten, name): function for name in names if hasattr(aten, name)})
        return function

    return enter


def lift(value: Any) -> Value:
    """A traced value, or a Python number as one."""
    if isinstance(value, Value):
        return value
    if isinstance(value, (int, float)):
        return Value(const(float(value)), ())
    raise UntraceableError(f"{type(value).__name__} is neither a tensor nor a number")


def flat(site: Site, value: Value) -> Value:
    """A shared matrix (1, width) as the vector that it is, a shared number as a vector of one."""
    if value.node.op is Op.SHARED and value.node.rows:
        if value.node.rows != 1:
            raise UntraceableError(f"a shared matrix of shape {value.shape} is not the same for every row")
        return site.shared(value, aten.reshape.default, [value.node.width])
    if value.node.op is Op.SHARED and not value.shape:
        return Value(site.shared(value, aten.reshape.default, [1]).node, ())
    return value


def widen(node: Node, have: Sequence[int], want: Sequence[int]) -> Node:
    """A value of trailing shape `have` repeated to `want`; width 1 needs no repeating."""
    if math.prod(have) == math.prod(want) or node.width == 1:
        return node
    if len(have) < len(want):
        return widen(node, [1] * (len(want) - len(have)) + list(have), want)
    if len(want) == 2 and have[0] == 1 and want[0] > MANY:
        return spread(const(1.0, want[0]), node)
    if len(want) == 2 and have[1] == 1 and want[1] > MANY:
        return spread(node, const(1.0, want[1]))
    inner, steps = math.prod(want[1:]), math.prod(have[1:])
    pieces = []
    for i in range(want[0]):
        at = 0 if have[0] == 1 else i * steps
        piece = widen(columns(node, at, at + steps), have[1:], want[1:])
        pieces.append(piece if piece.width == inner else cat(*[piece] * inner))
    return cat(*pieces)


def together(site: Site, op: Op, *given: Any) -> Value:
    """One pointwise operation with torch's broadcasting."""
    values = [flat(site, lift(v)) for v in given]
    batched = [v.shape for v in values if v.batched]
    if len({len(s) for s in batched}) > 1:
        raise UntraceableError(f"values of shapes {', '.join(f'(B, {s})' for s in batched)} do not line up by rows")
    if batched and any(len(v.shape) > len(batched[0]) for v in values if v.node.op is Op.SHARED):
        raise UntraceableError("a shared tensor has more dimensions than the value that it meets")
    shape = tuple(np.broadcast_shapes(*(v.shape for v in values)))  # torch's own imports sympy
    nodes = [widen(v.node, v.shape, shape) for v in values]
    if max(n.width for n in nodes) < math.prod(shape):  # only numbers, such as zeros_like's, have more columns
        nodes = [const(n.arg, math.prod(shape)) if n.op is Op.CONST else n for n in nodes]
    return Value(pointwise(op, *nodes, where=site.where), shape)


def whole(value: Value) -> Node:
    """The value with all its columns; a number stands for all of them elsewhere."""
    return const(value.node.arg, math.prod(value.shape)) if value.node.op is Op.CONST else value.node
