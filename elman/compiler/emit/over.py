"""Sequences that a kernel writes over others which it reads for the last time: gradients of gates over the gates.

Training then keeps less, and memory that is touched for the first time costs more than the work of a small cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elman.compiler.emit.columns import base
from elman.compiler.emit.plan import Plan, Sweep, needs
from elman.compiler.emit.reference import Spare
from elman.compiler.graph import Node, Op

Over = Mapping[Node, list[Node]]


def overwritable(made: Plan) -> Over:
    """Of each stored value the inputs of steps over which it may lie, should nobody read these after the call.

    It is written by one sweep, which is the last to read them, and they are as wide as its pieces: a column is read
    before any is written where it lies. Where threads compute alike, one would write what another still reads.
    """
    if not made.wide:
        return {}
    sweeps = [sweep for phase in made.phases for sweep in phase.sweeps]
    last = {node: sweep.moment for sweep in sweeps for node in needs(made, sweep)[0] if node.op is Op.STEP}
    for node in read_elsewhere(made):
        last.pop(node, None)
    found: dict[Node, list[Node]] = {}
    for node in made.stored:
        when = {sweep.moment for sweep in sweeps if node in stores(sweep)}
        if len(when) == 1:
            (moment,) = when
            found[node] = [n for n, read in last.items() if n.width == moment[2] and read <= moment]
    return {node: streams for node, streams in found.items() if streams}


def stores(sweep: Sweep) -> set[Node]:
    """The stored values of which a sweep writes a piece."""
    return {place.key for _, place in sweep.writes if place.kind == "stored" and isinstance(place.key, Node)}


def read_elsewhere(made: Plan) -> set[Node]:
    """What products and torch read, and what is handed on as it is."""
    loop, products = made.loop, [n for phase in made.phases for n in phase.products]
    read = [s for n in [*made.ahead, *made.behind, *products] for s in n.src]
    return {base(s) for s in [*read, *loop.per_step.values(), *loop.summed.values()]}


def lying_over(over: Over, given: Mapping[str, Any], spare: Spare) -> dict[Node, tuple[str, int]]:
    """Of each value that finds such inputs side by side: the first one's name, and the elements from row to row."""
    found: dict[Node, tuple[str, int]] = {}
    free = {name: (given[name].stride(), offset) for name, offset in spare if name in given}
    for node, streams in over.items():
        at = {free[n.arg]: n.arg for n in streams if n.arg in free}
        if run := side_by_side(at, node.width, streams[0].width):
            found[node] = run[0], free[run[0]][0][1]
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
