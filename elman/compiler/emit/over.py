"""Sequences that a kernel writes over others which it reads for the last time.

Gradients of gates lie over the gates, and gates over the products that were made ahead of the loop: training keeps
less, and memory that is touched for the first time costs more than the work of a small cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elman.compiler.emit.columns import base
from elman.compiler.emit.plan import Moment, Plan, Sweep, needs, without_steps
from elman.compiler.emit.reference import Spare
from elman.compiler.graph import Node, Op


@dataclass
class Over:
    """What of a wide plan may lie over what, column by column.

    Where threads compute alike (a narrow plan) one would write what another still reads.
    """

    inputs: dict[Node, list[Node]]  # stored value -> inputs that may lie under it, if nobody reads them after the call
    products: dict[Node, list[Node]]  # product ahead of the loop -> stored values that may take its place
    early: dict[Moment, list[tuple[Node, int]]]  # by sweep: what it reads before it writes, and from which column on


def over(made: Plan) -> Over:
    """A stored value may lie over what no later sweep reads, if a column is read before any is written where it lies.

    So what the sweep that writes it reads there begins at columns that are multiples of the sweep's width, and all such
    columns are read first.
    """
    found = Over({}, {}, {})
    if not made.wide:
        return found
    sweeps = {sweep.moment: sweep for phase in made.phases for sweep in phase.sweeps}
    pulled = {moment: columns_read(made, sweep) for moment, sweep in sweeps.items()}
    elsewhere = read_elsewhere(made)
    when = {n: [moment for moment, sweep in sweeps.items() if n in needs(made, sweep)[0]] for n in made.streams}
    when = {node: moments for node, moments in when.items() if moments and node not in elsewhere}
    written = {n: [moment for moment, sweep in sweeps.items() if n in stores(sweep)] for n in made.stored}
    once = {node: moments[0] for node, moments in written.items() if len(moments) == 1}
    for node, moment in once.items():
        under = [n for n, at in when.items() if n.op is Op.STEP and n.width == moment[2] and max(at) <= moment]
        if under:
            found.inputs[node] = under
    for node, (moment, *more) in when.items():
        width = moment[2]
        if node.op is Op.MATMUL and not more and not any(low % width for low in pulled[moment].get(node, [])):
            found.products[node] = [n for n, at in once.items() if at == moment and n.width == width]
    for moment, columns in pulled.items():
        under = [*found.products, *(n for value in stores(sweeps[moment]) for n in found.inputs.get(value, []))]
        found.early[moment] = [(node, low) for node, lows in columns.items() for low in lows if node in under]
    return found


def columns_read(made: Plan, sweep: Sweep) -> dict[Node, list[int]]:
    """What a sweep reads column by column, and from which columns on; what is one number a row is read before that."""
    loads, found, seen = set(needs(made, sweep)[0]), dict[Node, list[int]](), set[tuple[Node, int]]()

    def visit(node: Node, low: int) -> None:
        if node.width == 1 or node.op is Op.CONST or (node, low) in seen:
            return
        seen.add((node, low))
        if node in loads:
            found.setdefault(node, []).append(low)
        elif node.op is Op.SLICE:
            visit(node.src[0], low + node.arg[0])
        else:
            for source in node.src:
                visit(source, low)

    for node in [*(node for node, _ in sweep.writes), *(n.src[0] for n in [*sweep.sums, *sweep.totals])]:
        visit(node, 0)
    return found


def stores(sweep: Sweep) -> set[Node]:
    """The stored values of which a sweep writes a piece."""
    return {place.key for _, place in sweep.writes if place.kind == "stored" and isinstance(place.key, Node)}


def read_elsewhere(made: Plan) -> set[Node]:
    """What products and torch read, what is handed on as it is, and what is the same at every step."""
    loop, products = made.loop, [n for phase in made.phases for n in phase.products]
    read = [s for n in [*made.ahead, *made.behind, *products] for s in n.src]
    return {base(s) for s in [*read, *loop.per_step.values(), *loop.summed.values()]} | without_steps(loop)


def lying_over(
    inputs: Mapping[Node, list[Node]], given: Mapping[str, Any], spare: Spare
) -> dict[Node, tuple[str, int]]:
    """Of each value that finds such inputs side by side: the first one's name, and the elements from row to row."""
    found: dict[Node, tuple[str, int]] = {}
    free = {name: (given[name].stride(), offset) for name, offset in spare if name in given}
    for node, streams in inputs.items():
        at = {free[n.arg]: n.arg for n in streams if n.arg in free}
        if run := side_by_side(at, node.width, streams[0].width):
            strides, _ = free[run[0]]
            found[node] = run[0], strides[1]
            free = {name: lying for name, lying in free.items() if name not in run}
    return found


def side_by_side(at: Mapping[tuple[tuple[int, ...], int], str], width: int, each: int) -> list[str]:
    """Names of sequences in columns next to each other that make up this width; none if there are none.

    at: strides, and where they begin -> name
    """
    for strides, offset in at:
        keys = [(strides, offset + low) for low in range(0, width, each)]
        if strides[1] >= width and all(key in at for key in keys):
            return [at[key] for key in keys]
    return []
