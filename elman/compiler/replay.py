"""A forward loop once more, when its outputs are known: a state that an output tells is read, not run through."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from elman.compiler.graph import LEAVES, Loop, Node, Op
from elman.compiler.simplify import fed, simplify


class Replay(NamedTuple):
    """The loop, and which of its step inputs are states before each step: state -> (input, the output that tells)."""

    loop: Loop
    known: Mapping[str, tuple[str, str]]


def replay(loop: Loop, wanted: Collection[str]) -> Replay:
    """A loop with the wanted outputs of this one. Its products with states that are known need no step before them.

    Where a step's output is its state, the product with the recurrent weight is made for all steps at once.
    """
    told = {node: output for output, node in loop.per_step.items() if node.op not in LEAVES and output not in wanted}
    known = {name: (f"before:{name}", told[node]) for name, node in loop.carried.items() if node in told}
    new: dict[Node, Node] = {}
    for node in loop.nodes():
        if node.op is Op.STATE and node.arg in known:
            new[node] = Node(Op.STEP, (), known[node.arg][0], node.width)
        else:
            new[node] = fed(node, tuple([new[s] for s in node.src]))
    made = loop.rebuilt(new.__getitem__)
    per_step = {name: node for name, node in made.per_step.items() if name in wanted}
    carried = {name: node for name, node in made.carried.items() if name not in known}
    return Replay(simplify(Loop(per_step, carried, {}, loop.reverse)), known)
