"""What one step computes: nodes in single-assignment order, how time threads them, and nothing that runs.

Every value is a matrix (B, width): a row for each row of the batch. Shared values are a vector (width,), the same for
every row, or a matrix (rows, width) that stands on the right of a product.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import Any


class Op(Enum):
    """The closed set: what a node can be."""

    # leaves; arg is the name, or the number
    STEP = auto()  # (B, width), another at every step
    STATE = auto()  # (B, width), what the step before left
    FIXED = auto()  # (B, width), the same at every step
    SHARED = auto()  # (width,) or (rows, width), the same for every row and step
    CONST = auto()  # one number, in every row and column
    # products with shared matrices, and sums over all rows of all steps
    MATMUL = auto()  # a @ W; with arg True, a @ W.T
    OUTER = auto()  # a.T @ b, summed over rows and steps
    ROWSUM = auto()  # a.sum(rows), summed over steps
    # products of a row's own vector and matrix; the matrix lies row by row in one row of the value
    DOTS = auto()  # a (n), m (s*n) -> (s): m a
    MIX = auto()  # w (s), m (s*n) -> (n): w m
    SPREAD = auto()  # w (s), a (n) -> (s*n): w a^T
    # number by number; a source of width 1 serves every column
    ADD = auto()
    SUB = auto()
    MUL = auto()
    DIV = auto()
    NEG = auto()
    EXP = auto()
    EXPM1 = auto()
    LOG = auto()
    LOG1P = auto()
    SQRT = auto()
    ABS = auto()
    ERF = auto()
    SIN = auto()
    COS = auto()
    SIGMOID = auto()
    TANH = auto()
    SOFTPLUS = auto()  # log(1 + exp(a))
    MAX = auto()
    MIN = auto()
    LT = auto()  # comparisons give 1 and 0
    LE = auto()
    EQ = auto()
    WHERE = auto()  # second source where the first is not 0, else the third
    DETACH = auto()  # the value, with no gradient
    # columns
    SLICE = auto()  # columns arg[0] to arg[1]
    CAT = auto()  # sources side by side
    # across the width, giving width 1
    SUM = auto()
    LARGEST = auto()

    __hash__ = object.__hash__  # Enum's own is written in Python, and passes ask for it at every node


LEAVES = {Op.STEP, Op.STATE, Op.FIXED, Op.SHARED, Op.CONST}
TOTALS = {Op.OUTER, Op.ROWSUM}
ACROSS = {Op.SUM, Op.LARGEST}
COLUMNS = {Op.SLICE, Op.CAT}
OWN = {Op.DOTS, Op.MIX, Op.SPREAD}
PRODUCTS = {Op.MATMUL, *OWN}
POINTWISE = set(Op) - LEAVES - TOTALS - ACROSS - COLUMNS - PRODUCTS


@dataclass(eq=False, slots=True)
class Node:
    """One value. Two nodes are the same only if they are one object; `simplify` makes equal ones one.

    It never changes; not declared so, for frozen ones take three times as long to make, and passes make thousands.
    """

    op: Op
    src: tuple[Node, ...] = ()
    arg: Any = None
    width: int = 1
    rows: int = 0  # of a shared matrix or of OUTER; 0 for all else
    where: str = ""  # file:line of the step that asked for it

    def __repr__(self) -> str:
        return show_node(self)


@dataclass(frozen=True)
class Loop:
    """One step and how time threads it: what leaves it at each step, what it carries on, what it sums up.

    `reverse`: time runs from the last step to the first.
    """

    per_step: Mapping[str, Node]
    carried: Mapping[str, Node]
    summed: Mapping[str, Node] = field(default_factory=dict)
    reverse: bool = False

    @property
    def roots(self) -> list[Node]:
        return [*self.carried.values(), *self.per_step.values(), *self.summed.values()]

    def nodes(self) -> list[Node]:
        """Every node, sources before their users."""
        return self._nodes

    @cached_property
    def _nodes(self) -> list[Node]:
        return order(self.roots)

    def leaves(self, op: Op) -> dict[str, Node]:
        """The leaves of one kind, by name."""
        return {node.arg: node for node in self.nodes() if node.op is op}

    def rebuilt(self, new: Callable[[Node], Node]) -> Loop:
        """The same loop with every output replaced."""

        def each(outputs: Mapping[str, Node]) -> dict[str, Node]:
            return {name: new(node) for name, node in outputs.items()}

        return Loop(each(self.per_step), each(self.carried), each(self.summed), self.reverse)


def order(roots: Iterable[Node], stop: Callable[[Node], bool] | None = None) -> list[Node]:
    """All that the roots are computed from, sources first, in the order of first use; not beyond where `stop` says."""
    return list(walk(roots, stop))


def walk(roots: Iterable[Node], stop: Callable[[Node], bool] | None = None) -> Iterator[Node]:
    """The same one by one, so that `stop`, which is asked when a node is met, may depend on what was done before.

    In place of functions that call themselves, whose depth Python bounds.
    """
    seen: set[Node] = set()
    stack: list[Node | None] = list(roots)
    stack.reverse()
    while stack:
        node = stack.pop()
        if node is None:  # the sources of the node below it are there
            yield stack.pop()  # type: ignore[misc]
        elif node not in seen:
            seen.add(node)
            if node.src and not (stop and stop(node)):
                stack += (node, None)
                stack += [s for s in node.src[::-1] if s not in seen]
            else:
                yield node


def terms(node: Node, inner: Callable[[Node], bool]) -> list[Node]:
    """What a sum adds up, in order: its sources, in place of those that are `inner` sums their own terms."""
    found, stack = [], [*node.src[::-1]]
    while stack:
        term = stack.pop()
        if inner(term):
            stack += term.src[::-1]
        else:
            found.append(term)
    return found


def seen(node: Node) -> Node:
    """Whose memory a value may lie in."""
    while node.op in (Op.SLICE, Op.DETACH):
        node = node.src[0]
    return node


def const(value: float, width: int = 1) -> Node:
    """A number."""
    return Node(Op.CONST, (), float(value), width)


def pointwise(op: Op, *src: Node, where: str = "") -> Node:
    """A node computed number by number; its width is that of its widest source."""
    return Node(op, src, None, max(s.width for s in src), 0, where)


def matmul(a: Node, weight: Node, transposed: bool = False, where: str = "") -> Node:
    """a @ W, or a @ W.T: a (B, K), W (K, N) or (N, K)."""
    return Node(Op.MATMUL, (a, weight), transposed, weight.rows if transposed else weight.width, 0, where)


def columns(a: Node, low: int, high: int, where: str = "") -> Node:
    """Columns low to high of a."""
    return a if (low, high) == (0, a.width) else Node(Op.SLICE, (a,), (low, high), high - low, 0, where)


def cat(*src: Node, where: str = "") -> Node:
    """Values side by side."""
    return src[0] if len(src) == 1 else Node(Op.CAT, src, None, sum(s.width for s in src), 0, where)


def across(op: Op, a: Node, where: str = "") -> Node:
    """A row's sum or largest number."""
    return Node(op, (a,), None, 1, 0, where)


def dots(a: Node, m: Node, where: str = "") -> Node:
    """The product of each row's matrix m (s, n), laid out in a row, with its vector a (n): s numbers."""
    count = m.width // a.width
    if 1 in (count, a.width):
        product = pointwise(Op.MUL, m, a, where=where)
        return across(Op.SUM, product, where) if count == 1 != a.width else product
    return Node(Op.DOTS, (a, m), None, count, 0, where)


def mix(w: Node, m: Node, where: str = "") -> Node:
    """The rows of each row's matrix m (s, n), weighted by w (s) and summed: n numbers."""
    width = m.width // w.width
    if 1 in (w.width, width):
        product = pointwise(Op.MUL, m, w, where=where)
        return across(Op.SUM, product, where) if width == 1 != w.width else product
    return Node(Op.MIX, (w, m), None, width, 0, where)


def spread(w: Node, a: Node, where: str = "") -> Node:
    """The outer product of each row's vectors w (s) and a (n): s * n numbers."""
    if 1 in (w.width, a.width):
        return pointwise(Op.MUL, w, a, where=where)
    return Node(Op.SPREAD, (w, a), None, w.width * a.width, 0, where)


@dataclass(frozen=True)
class Costs:
    """What running a loop over (T, B) takes."""

    flops: int  # of products; the rest is small beside them
    outputs: int  # numbers written for every step
    inside: int  # nodes that wait for the step before
    products: int  # products among them


def costs(loop: Loop, T: int, B: int, during: Collection[Node]) -> Costs:
    """Count flops and numbers; `during`: the nodes inside the loop."""
    flops = 0
    for node in loop.nodes():
        if node.op is Op.MATMUL:
            flops += 2 * T * B * node.src[0].width * node.width
        elif node.op is Op.OUTER:
            flops += 2 * T * B * node.rows * node.width
        elif node.op in OWN:
            flops += 2 * T * B * max(node.width, *(s.width for s in node.src))
    outputs = T * B * sum(node.width for node in dict.fromkeys(loop.per_step.values()))
    inside = [node for node in during if node.op not in LEAVES]
    return Costs(flops, outputs, len(inside), sum(node.op in PRODUCTS for node in inside))


def check(loop: Loop) -> Loop:
    """The loop, or an AssertionError that names the node which breaks the rules above. For tests."""
    states = loop.leaves(Op.STATE)
    for name, node in states.items():
        assert name in loop.carried, f"state {name} is read but never carried on"
        assert node.width == loop.carried[name].width, f"state {name} changes its width"
    for node in loop.nodes():
        assert node.width >= 1, show_node(node)
        if node.op in LEAVES:
            assert not node.src, show_node(node)
        elif node.op is Op.MATMUL:
            a, weight = node.src
            assert weight.op is Op.SHARED, show_node(node)
            assert weight.rows, show_node(node)
            inner, outer = (weight.width, weight.rows) if node.arg else (weight.rows, weight.width)
            assert (a.width, node.width) == (inner, outer), show_node(node)
        elif node.op is Op.OUTER:
            assert (node.rows, node.width) == (node.src[0].width, node.src[1].width), show_node(node)
        elif node.op is Op.SLICE:
            assert 0 <= node.arg[0] < node.arg[1] <= node.src[0].width, show_node(node)
            assert node.width == node.arg[1] - node.arg[0], show_node(node)
        elif node.op is Op.CAT:
            assert node.width == sum(s.width for s in node.src), show_node(node)
        elif node.op in OWN:
            small, *large = sorted([node.width, *(s.width for s in node.src)])
            assert small * large[0] == large[1], show_node(node)
        elif node.op in POINTWISE:
            assert {s.width for s in node.src} <= {1, node.width}, show_node(node)
        assert node.op in {*TOTALS, Op.ADD} or not any(s.op in TOTALS for s in node.src), show_node(node)
    return loop


def show_node(node: Node, name: Callable[[Node], str] = lambda node: node.op.name.lower()) -> str:
    """One node as text, its sources by their names."""
    parts = [name(s) for s in node.src]
    if node.arg not in (None, False):
        parts.append(number(node.arg) if isinstance(node.arg, float) else str(node.arg).replace("True", "transposed"))
    return f"{node.op.name.lower()}({', '.join(parts)})"


def number(value: float) -> str:
    """A number in full: kernels are kept under the text of their loop."""
    return repr(value).removesuffix(".0")


def state(name: str, after: bool) -> str:
    """How a state is called where a step reads it, and where it leaves it."""
    return f"{name}(t)" if after else f"{name}(t-1)"


def gradient(name: str, when: str) -> str:
    """How a state of the backward loop is called: a gradient, or the sum of one to what is the same at every step."""
    return f"dL/d{name.removeprefix('d:')}" if name.startswith("d:") else f"dL/d{name}{when}"


def numbered(loop: Loop) -> dict[Node, str]:
    """The computed nodes and the names by which they are shown, v0, v1, ..."""
    return {n: f"v{i}" for i, n in enumerate(n for n in loop.nodes() if n.op not in LEAVES)}


def show(
    loop: Loop,
    part: Mapping[Node, str] | None = None,
    places: bool = False,
    state: Callable[[str, bool], str] = state,
) -> str:
    """The loop as text, a line a node; with `part`, under the headings before, during and after.

    places: with the line of the user's code that each node comes from. state: how a state is called, by its name and
    whether it is meant after the step.
    """
    names = numbered(loop)

    def name(node: Node) -> str:
        if node in names:
            return names[node]
        if node.op is Op.CONST:
            return number(node.arg)
        if node.op is Op.STATE:
            return state(node.arg, False)
        return f"{node.arg}(t)" if node.op is Op.STEP else node.arg

    def line(node: Node) -> str:
        text = f"{names[node]} = {show_node(node, name)}"
        size = f"{node.rows} x {node.width}" if node.rows else str(node.width)
        return f"  {text:<44} # {size}" + (f"  {node.where}" if places and node.where else "")

    lines = []
    for heading in ("before", "during", "after") if part else ("",):
        inside = [n for n in names if part is None or part[n] == heading]
        lines += [f"{heading}:"] * bool(heading and inside) + [line(n) for n in inside]
    outputs = [f"{k} = {name(n)}" for k, n in loop.per_step.items()]
    carries = [f"{state(k, True)} = {name(n)}" for k, n in loop.carried.items()]
    totals = [f"{k} = {name(n)}" for k, n in loop.summed.items()]
    for label, items in (("each step", outputs), ("carried", carries), ("summed", totals)):
        lines += [f"{label}: {', '.join(items)}"] * bool(items)
    return "\n".join(lines)
