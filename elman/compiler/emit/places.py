"""Where everything that a call reads and writes lies: memories by number, and rows within them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.compiler.emit.jobs import Spot
from elman.compiler.emit.over import Over, lying_over
from elman.compiler.emit.plan import Plan
from elman.compiler.emit.pool import Pieces
from elman.compiler.emit.reference import Given
from elman.compiler.graph import LEAVES, Node, Op

WORK, KEPT = 1, 2  # memories beside the block: of this call alone; held by the result as long as backward may read it
GROUPS = ("per_step", "state", "fixed", "shared")  # as a call finds them
Adapt = Callable[[Tensor], Tensor]


class Rows(NamedTuple):
    """Where a value lies, with T * B rows, or B where steps do not differ: elements from a memory's beginning."""

    base: int
    offset: int
    number: int
    stride: int


class Own(NamedTuple):
    """Memory that leaves with the result: new, or the caller's for the output of this name."""

    base: int
    shape: tuple[int, ...]
    name: str | None
    path: bool = False


class Copied(NamedTuple):
    """Rows of an output, or of a state's path, and the memory to which they are brought at the end: any rows apart."""

    rows: Rows
    base: int
    strides: tuple[int, ...]


class Places:
    """The memories of one call, found out as they are asked for; `given` is a sample of what calls are given."""

    def __init__(
        self, plan: Plan, states: Mapping[str, Node], lone: set[Node], over: Over, given: Given, dtype: torch.dtype
    ) -> None:
        self.plan, self.states, self.over, self.given, self.dtype = plan, states, over, given, dtype
        self.T, self.B = given.size
        self.leaving = {node: name for name, node in plan.loop.per_step.items() if name in given.out}
        self.lone = lone  # values that are the same for all rows
        self.short: set[Node] = set(plan.loop.leaves(Op.FIXED).values())  # values with B rows
        self.numbers: dict[Any, int] = {"block": 0, "work": WORK, "kept": KEPT}
        self.inputs: list[tuple[int, int, str, Adapt | None]] = []  # memory, group, name, what to do with it first
        self.own: list[Own] = []
        self.new: list[tuple[int, tuple[int, ...], bool]] = []  # memory, shape, whether it begins as zeros
        self.rows: dict[Node, Rows] = {}  # of values that functions of our own give
        self.work = 0  # elements of memory of this call alone
        self.copied: dict[Node, Copied] = {}
        self.store()

    # ---- memories

    def base(self, key: Any) -> int:
        """The number of a memory, the next one for a new key."""
        return self.numbers.setdefault(key, len(self.numbers))

    def take(self, elements: int) -> Spot:
        """Memory of this call alone."""
        start = self.work
        self.work += Pieces([(elements,)]).size
        return Spot(WORK, start * self.dtype.itemsize)

    def spot(self, rows: Rows) -> Spot:
        return Spot(rows.base, rows.offset * self.dtype.itemsize)

    def input(self, group: str, name: str, adapt: Adapt | None = None) -> int:
        """The memory of a given tensor."""
        key = GROUPS.index(group), name, adapt
        if key not in self.numbers:
            self.inputs.append((self.base(key), *key))
        return self.numbers[key]

    def store(self) -> None:
        """Memory for what the kernel writes at each step: paths by the state's name, stored values by their node."""
        made, away, T, B = self.plan, set(self.leaving), self.T, self.B
        paths = [name for name in made.loop.carried if name in made.paths]
        steps: dict[str | Node, int] = {**dict.fromkeys(paths, T + 1), **dict.fromkeys(made.stored, T)}
        self.stored: dict[str | Node, Rows] = {}
        self.under: dict[Node, Rows] = {}  # products ahead, where stored values will take their place
        kept = [key for key in steps if not leaves(made, key, away)]
        for node, (name, stride) in lying_over(self.over.inputs, self.given.per_step, self.given.spare).items():
            if node in kept and node not in made.loop.per_step.values():
                kept.remove(node)
                self.stored[node] = Rows(self.input("per_step", name), 0, T * B, stride)
        groups = beside_each_other(kept, made.wide)
        pieces = Pieces([(steps[group[0]] * B, sum(value_of(made, key).width for key in group)) for group in groups])
        self.kept = pieces.size
        for group, start, (_, (stride, _), _) in zip(groups, pieces.offsets, pieces.views):
            for i, key in enumerate(group):
                at = start + i * value_of(made, key).width
                self.stored[key] = Rows(KEPT, at, steps[key] * B, stride)
            for product, values in self.over.products.items():
                if product.width == stride and not stride % made.panel and all(key in values for key in group):
                    self.under[product] = Rows(KEPT, start, T * B, stride)
                    break
        for key, count in steps.items():
            if key not in self.stored:
                node = value_of(made, key)
                output, taken = self.leaving.get(node), [own.name for own in self.own]
                output = None if output in taken else output  # of two states that become the same, one leaves
                self.own.append(Own(self.base(("own", key)), (count, B, node.width), output, isinstance(key, str)))
                self.stored[key] = self.landing(node, Rows(self.numbers["own", key], 0, count * B, node.width), output)

    def landing(self, node: Node, rows: Rows, output: str | None) -> Rows:
        """Where an output is written at first: to its memory, these rows, if the caller's rows lie as evenly."""
        there = self.given.out.get(output) if output else None
        if there is None or even(there.stride(), self.B):
            return rows
        spot = self.take(rows.number * rows.stride)
        first = rows._replace(base=WORK, offset=spot.offset // self.dtype.itemsize)
        self.copied[node] = Copied(first, rows.base, there.stride())
        return first

    def settle(self) -> None:
        """What the kernel has written can be read from now on."""
        after, before = (0, 1) if self.plan.loop.reverse else (1, 0)
        for key, (base, offset, _, stride) in self.stored.items():
            node = value_of(self.plan, key)
            step, count = self.B * node.width, self.T * self.B
            at = offset + after * step if isinstance(key, str) else offset
            if node not in self.rows and node not in self.numbers and node.op not in LEAVES - {Op.STATE}:
                self.rows[node] = Rows(base, at, count, stride)
            if isinstance(key, str) and self.states.get(key, node) is not node:  # one that stays as it is: either
                self.rows[self.states[key]] = Rows(base, offset + before * step, count, stride)

    # ---- what functions of our own read

    def side(self, node: Node) -> Rows:
        """The rows of one side of a product, columns side by side."""
        B, all_rows = self.B, self.T * self.B
        if node in self.rows:
            return self.rows[node]
        if node.op is Op.STEP:
            per_step, per_row, _ = self.given.per_step[node.arg].stride()
            if self.evenly(node):
                return Rows(self.input("per_step", node.arg), 0, all_rows, per_row if B > 1 else per_step)
            return Rows(self.input("per_step", node.arg, Tensor.contiguous), 0, all_rows, node.width)
        if node.op is Op.FIXED:
            per_row, column = self.given.fixed[node.arg].stride()
            close = column == 1 or node.width == 1
            base = self.input("fixed", node.arg, None if close else Tensor.contiguous)
            return Rows(base, 0, B, per_row if close else node.width)
        return Rows(self.numbers[node], 0, B if node in self.short else all_rows, node.width)  # by torch

    def close(self, node: Node) -> bool:
        """The columns of a step's input lie side by side."""
        return bool(node.width == 1 or self.given.per_step[node.arg].stride()[2] == 1)

    def evenly(self, node: Node) -> bool:
        """The rows of a step's input lie one distance apart, and their columns side by side."""
        return self.close(node) and (self.T == 1 or even(self.given.per_step[node.arg].stride(), self.B))

    def stream(self, node: Node) -> tuple[Spot, int, int]:
        """A sequence as the kernel reads it, and elements from step to step and from row to row: any."""
        if node.op is Op.STEP:
            strides = self.given.per_step[node.arg].stride()
            if strides[-1] == 1 or node.width == 1:
                return Spot(self.input("per_step", node.arg)), strides[0], strides[1]
            if not any(strides):
                return Spot(self.input("per_step", node.arg, one_row)), 0, 0
            return Spot(self.input("per_step", node.arg, Tensor.contiguous)), self.B * node.width, node.width
        if node in self.lone:
            return Spot(self.numbers[node]), 0, 0
        rows = self.side(node)
        return self.spot(rows), 0 if node in self.short else self.B * rows.stride, rows.stride

    def weight(self, node: Node) -> tuple[Spot, int, int]:
        """A matrix, and elements from row to row and from column to column."""
        per_row, per_column = self.given.shared[node.arg].stride()
        return Spot(self.input("shared", node.arg)), per_row, per_column

    def vector(self, node: Node) -> Spot:
        close = self.given.shared[node.arg].is_contiguous()
        return Spot(self.input("shared", node.arg, None if close else Tensor.contiguous))


def even(strides: tuple[int, ...], B: int) -> bool:
    """All rows of a sequence, step after step, are as far from each other."""
    return B == 1 or strides[0] == B * strides[1]


def one_row(value: Tensor) -> Tensor:
    """Of a sequence whose numbers are all in the same place."""
    return value[:1, :1].contiguous()


def leaves(made: Plan, key: str | Node, away: set[Node]) -> bool:
    """The caller is given this stored value, or this path: its states after each step, or before."""
    if isinstance(key, str):
        return made.loop.carried[key] in away or any(n.op is Op.STATE and n.arg == key for n in away)
    return key in away


def value_of(made: Plan, key: str | Node) -> Node:
    """What a path, or a stored value, is made of."""
    return made.loop.carried[key] if isinstance(key, str) else key


def beside_each_other(kept: Sequence[str | Node], wide: bool) -> list[list[str | Node]]:
    """Paths one by one; of a wide plan, stored values of the same width in the same rows, column after column."""
    groups: dict[object, list[str | Node]] = {}
    for key in kept:
        groups.setdefault(key if isinstance(key, str) or not wide else key.width, []).append(key)
    return list(groups.values())
