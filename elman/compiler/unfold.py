"""Which nodes must wait for the step before: Loop -> {node: before | during | after}."""

from __future__ import annotations

from elman.compiler.graph import Loop, Node, Op, order


def unfold(loop: Loop) -> dict[Node, str]:
    """The part of the unfolded computation that each node belongs to.

    before: free of the state, so all steps at once, ahead of the loop. during: from state to state, step by step.
    after: reads the state but feeds none, so again all steps at once, behind the loop.
    """
    waits: dict[Node, bool] = {}
    for node in loop.nodes():
        waits[node] = node.op is Op.STATE or any(waits[s] for s in node.src)
    feeds = set(order(loop.carried.values()))
    return {n: "before" if not waits[n] else "during" if n in feeds else "after" for n in waits}
