"""The graph of a cell's step and of its gradient, and what the values in it are called: for those who draw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elman.cell import Around, Deep
from elman.cell.base import Cell, first_parameter, watched
from elman.compiler.graph import Loop, Node, Op, numbered
from elman.errors import CellError, InputError
from elman.module.backends import Call, backend, recorded
from elman.module.explain import in_words, trained
from elman.module.owner import where_defined
from elman.module.recurrent import Recurrent

WATCH, SAVED = "watch:", "saved:"


@dataclass(frozen=True)
class StepGraph:
    """One step of a cell: the loop as it was traced, that which also saves, and that of its gradients, back in time.

    names: what the step watches nodes as; of what backward reads of forward, what it is there. context: the sizes, of a
    row and a step, of what the cell's `example` gave.
    """

    name: str
    where: str
    forward: Loop
    saving: Loop
    backward: Loop
    names: Mapping[Node, str]
    context: Mapping[str, tuple[int, ...]]

    @property
    def text(self) -> str:
        """Both as `elman.explain` shows them."""
        return "\n".join(in_words(self.saving, self.backward))


def step_graph(cell: Cell) -> StepGraph:
    """The step of a cell, in the widths of the cell, with the context that its `example` gives.

    Errors: CellError where the step cannot be traced, with the operation and the user's line; InputError where it
    requires context of which `example` says nothing.
    """
    seen = recorded_call(cell, watch_names(cell))
    call = recorded_call(cell, ())
    program, watching = call.plan.program, seen.plan.program
    assert program is not None
    assert watching is not None
    pair = program.training(trained(call))
    names = names_of(watching.loop, program.loop, pair.forward, pair.back)
    skip = dict.fromkeys(cell.each_step, 2) | dict.fromkeys(cell.whole, 0)  # T and B
    given = {name: value for name, value in cell.example(call.x).items() if isinstance(value, Tensor)}
    sizes = {name: tuple(value.shape[skip.get(name, 1) :]) for name, value in given.items()}
    return StepGraph(called(cell), where_defined(cell.step), program.loop, pair.forward, pair.back, names, sizes)


def called(cell: Cell) -> str:
    """A cell by its class, with what it goes around."""
    inside = [cell.cell] if isinstance(cell, Around) else cell.layers() if isinstance(cell, Deep) else []
    return type(cell).__name__ + (f"({', '.join(map(called, inside))})" if inside else "")


def recorded_call(cell: Cell, watch: Sequence[str]) -> Call:
    """Two steps of two rows, on the traced graph."""
    x = first_parameter(cell).new_zeros(2, 2, cell.input_size)
    context = cell.example(x)
    name = type(cell).__name__
    if missing := sorted(cell.signature.required - set(context)):
        raise InputError(
            f"{name} requires the context {', '.join(missing)}: let {name}.example(x) say what it could be, as "
            f'{{"{missing[0]}": x.new_zeros(x.shape[1], width)}}'
        )
    with backend("reference"), recorded() as calls, torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            Recurrent(cell)(x, watch=watch, **context)
        except CellError:
            if not calls:
                raise
            raise CellError(f"{name} has no graph: {' '.join(calls[0].plan.reason.split())}") from None
    return calls[0]


def watch_names(cell: Cell) -> list[str]:
    """What the step watches beside its states."""
    x = first_parameter(cell).new_zeros(1, 2, cell.input_size)
    if cell.signature.required - set(cell.example(x)):
        return []
    with backend("plain"), watched() as seen, torch.no_grad(), torch.random.fork_rng(devices=[]):
        Recurrent(cell)(x, **cell.example(x))
    return [name for name in seen if name not in cell.signature.state]


def names_of(watching: Loop, loop: Loop, forward: Loop, back: Loop) -> dict[Node, str]:
    """Nodes of `loop` and of `back` by what they are in `watching` and in `forward`, which has the saved values too."""
    numbers: dict[tuple[object, ...], int] = {}
    alike: dict[Node, int] = {}  # the same for nodes that compute the same
    for node in (n for each in (watching, loop, forward, back) for n in each.nodes()):
        key = (node.op, node.arg, node.width, node.rows, *(alike[s] for s in node.src))
        alike[node] = numbers.setdefault(key, len(numbers))
    called = {alike[n]: name.removeprefix(WATCH) for name, n in watching.per_step.items() if name.startswith(WATCH)}
    names = {n: called[alike[n]] for each in (loop, back) for n in each.nodes() if alike[n] in called and n.src}
    shown = {alike[n]: f"forward {name}" for n, name in numbered(forward).items()} | called
    for name, leaf in back.leaves(Op.STEP).items():
        if name.startswith(SAVED):
            names[leaf] = shown.get(alike[forward.per_step[name]], name)
    return names
