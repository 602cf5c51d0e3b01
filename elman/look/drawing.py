"""What is drawn of a step's graph, as plain data: marks for its values, lines for what is computed from what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from elman.compiler import unfold
from elman.compiler.graph import (
    ACROSS,
    COLUMNS,
    LEAVES,
    PRODUCTS,
    TOTALS,
    Loop,
    Node,
    Op,
    gradient,
    number,
    numbered,
)
from elman.module.explain import width
from elman.module.step_graph import StepGraph

KINDS: dict[str, set[Op]] = {
    "input": {Op.STEP, Op.FIXED},
    "state": {Op.STATE},
    "parameter": {Op.SHARED},
    "number": {Op.CONST},
    "product": PRODUCTS | {Op.OUTER},
    "sum": {Op.ROWSUM, *ACROSS},
    "columns": COLUMNS,
    "pointwise": set(Op) - LEAVES - PRODUCTS - TOTALS - ACROSS - COLUMNS,
}
BETWEEN = {Op.ADD: "+", Op.SUB: "\u2212", Op.MUL: "*", Op.DIV: "/", Op.LT: "<", Op.LE: "\u2264", Op.EQ: "="}
ALIKE = {Op.ADD, Op.MUL, Op.MAX, Op.MIN}  # in which the order of sources does not matter
TRANSPOSED = "\u1d40"
ONCE = "once"  # the part of what is the same at every step


@dataclass(frozen=True)
class Mark:
    """A value or an output as it is drawn.

    base: v3 as `elman.explain` names a computed value; step:x, state:h, fixed:context, shared:self.W, const0 for what
    is given; out:y, carried:h, summed:self.W for what goes out. part: before, during or after the loop, or once. step:
    which one of an unfolded graph, 0 where the mark stands for all.
    """

    base: str
    label: str
    note: str
    kind: str
    part: str
    step: int = 0

    @property
    def name(self) -> str:
        return f"{self.base}@{self.step}" if self.step else self.base


@dataclass(frozen=True)
class Line:
    """From one mark to another, by name: an edge of the graph, to an output, or from a carried one to its state."""

    source: str
    target: str
    kind: Literal["edge", "out", "loop"]


@dataclass(frozen=True)
class Drawing:
    """Marks, sources before their users, and lines. reverse: time runs back."""

    marks: tuple[Mark, ...]
    lines: tuple[Line, ...]
    reverse: bool


def folded(graph: StepGraph, loop: Loop) -> Drawing:
    """One of the loops of a graph, with its loop: a mark for each node, a line for each pair of source and user."""
    names, called = bases(loop), labels(graph, loop)
    part = {n: place(n, when) for n, when in unfold(loop).items()}
    marks = [Mark(names[n], label(n, called), note(n, graph, names), kind_of(n.op), part[n]) for n in loop.nodes()]
    lines = dict.fromkeys(Line(names[s], names[n], "edge") for n in loop.nodes() for s in n.src)
    outputs = {"out": loop.per_step, "carried": loop.carried, "summed": loop.summed}
    for group, name, node in ((g, name, node) for g, found in outputs.items() for name, node in found.items()):
        base, where = f"{group}:{name}", "during" if group == "carried" or part[node] == ONCE else part[node]
        marks.append(Mark(base, output(group, name, loop), "", "output", where))
        lines[Line(names[node], base, "out")] = None
        if group == "carried" and name in loop.leaves(Op.STATE):
            lines[Line(base, f"state:{name}", "loop")] = None
    return Drawing(tuple(marks), tuple(lines), loop.reverse)


def unfolded(drawing: Drawing, steps: int) -> Drawing:
    """The same over so many steps: what is during the loop once a step, all else once."""
    part = {mark.base: mark.part for mark in drawing.marks}
    marks: list[Mark] = []
    for mark in drawing.marks:
        each = range(1, steps + 1) if mark.part == "during" else [0]
        marks += [replace(mark, step=k, label=timed(mark.label, k, steps)) for k in each]
    lines: list[Line] = []
    for line in drawing.lines:
        ends = (line.source, line.target)
        inside = [part[end] == "during" for end in ends]
        if line.kind == "loop":
            lines += [Line(f"{ends[0]}@{k}", f"{ends[1]}@{k + 1}", "loop") for k in range(1, steps)]
        else:
            copies = [
                [f"{end}@{k}" if within else end for end, within in zip(ends, inside)] for k in range(1, steps + 1)
            ]
            lines += [Line(a, b, line.kind) for a, b in copies[: None if any(inside) else 1]]
    return Drawing(tuple(marks), tuple(lines), drawing.reverse)


def timed(label: str, k: int, steps: int) -> str:
    """A label with its time: that of step k, or of all steps where k is 0."""
    now, before = (f"({k})", f"({k - 1})") if k else (f"(1..{steps})", f"(0..{steps - 1})")
    return label.replace("(t-1)", before).replace("(t)", now)


def bases(loop: Loop) -> dict[Node, str]:
    """The name of every node in a drawing."""
    names, numbers = numbered(loop), 0
    for node in loop.nodes():
        if node.op is Op.CONST:
            names[node], numbers = f"const{numbers}", numbers + 1
        elif node.op in LEAVES:
            names[node] = f"{node.op.name.lower()}:{node.arg}"
    return names


def kind_of(op: Op) -> str:
    return next(kind for kind, ops in KINDS.items() if op in ops)


def place(node: Node, when: str) -> str:
    """The part in which a node is drawn: states are what the loop begins with, whoever reads them."""
    if node.op in (Op.SHARED, Op.FIXED, Op.CONST):
        return ONCE
    return "during" if node.op is Op.STATE else when


def note(node: Node, graph: StepGraph, names: dict[Node, str]) -> str:
    """What stands small below a label: the node's name, what the step calls it, its width."""
    if node.op is Op.CONST:
        return ""
    words = [] if node.op in LEAVES else [names[node], graph.names.get(node, "").replace("_", " ")]
    return " \u00b7 ".join([*filter(None, words), width(node)])


def labels(graph: StepGraph, loop: Loop) -> dict[Node, str]:
    """How each node is called in the labels of others."""
    called = dict(numbered(loop))
    for node in loop.nodes():
        if node.op is Op.CONST:
            called[node] = number(node.arg).replace("-", "\u2212")
        elif node.op is Op.SHARED:
            called[node] = parameter(node.arg, node.rows > 0)
        elif node.op is Op.STATE:
            called[node] = of_backward(node.arg, "(t)") if loop.reverse else f"{node.arg}(t-1)"
        elif node.op is Op.STEP:
            called[node] = f"{graph.names[node].replace('_', ' ')}(t)" if node in graph.names else given(node.arg)
        elif node.op is Op.FIXED:
            called[node] = node.arg
    return called


def parameter(name: str, matrix: bool) -> str:
    """A parameter's name without what every one has: U for self.U.weight."""
    return ".".join(part for part in name.removeprefix("self.").split(".") if not (matrix and part == "weight"))


def of_backward(name: str, when: str) -> str:
    """A state of the backward loop, a sum so far with its sign."""
    return "\u03a3 " * name.startswith("d:") + gradient(name, when)


def given(name: str) -> str:
    """What comes in at each step: an input, a state before or after the step, or a gradient to an output."""
    kind, _, rest = name.rpartition(":")
    return {"d": f"dL/d{rest}(t)", "prev": f"{rest}(t-1)"}.get(kind, f"{rest}(t)")


def output(group: str, name: str, loop: Loop) -> str:
    """The label of what goes out."""
    if group == "summed":
        return f"dL/d{parameter(name, loop.summed[name].rows > 0)}"
    if group == "carried":
        return of_backward(name, "(t-1)") if loop.reverse else f"{name}(t)"
    return given(name)


def label(node: Node, called: dict[Node, str]) -> str:
    """What a node is: its name where it is given, else its operation, with its sources where their order matters."""
    if node.op in LEAVES:
        return called[node]
    parts = [called[s] for s in node.src]
    special: dict[Op, Callable[[], str]] = {
        Op.MATMUL: lambda: product(node, *parts),
        Op.OUTER: lambda: f"\u03a3 {parts[0]} {parts[1]}{TRANSPOSED}",
        Op.ROWSUM: lambda: f"\u03a3 {parts[0]}",
        Op.NEG: lambda: f"\u2212 {parts[0]}",
        Op.SLICE: lambda: f"slice {node.arg[0]}:{node.arg[1]}",
        Op.CAT: lambda: " | ".join(parts),
        Op.WHERE: lambda: "{} ? {} : {}".format(*parts),
    }
    if node.op in special:
        return special[node.op]()
    if node.op in BETWEEN:
        plain = node.op in ALIKE and parts[0] != parts[1]
        return BETWEEN[node.op] if plain else f" {BETWEEN[node.op]} ".join(parts)
    return node.op.name.lower() if len(parts) == 1 or node.op in ALIKE else f"{node.op.name.lower()} {', '.join(parts)}"


def product(node: Node, value: str, matrix: str) -> str:
    """W x, as the field writes it for a column x, where the step takes x W.T."""
    return f"{matrix}{TRANSPOSED * (not node.arg)} {value}"
