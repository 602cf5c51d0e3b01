"""Proof of a user's own cell: the contracts of a layer on random numbers, and its time beside a Python loop."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from elman.cell.base import Cell
from elman.errors import CellError
from elman.module.backends import BACKENDS, backend
from elman.module.explain import calls_of
from elman.module.recurrent import Recurrent

TOLERANCE = 1e-8  # of values and gradients in float64, relative to the largest number
T, B = 7, 5
TIMED = (50, 32)  # T, B
ROUNDS = 5


@dataclass
class Report:
    """What `check` found: a line a contract, and `ok` when all hold."""

    name: str
    backend: str
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.failures

    def add(self, what: str, error: float) -> None:
        """One contract and by how much it is missed."""
        good = error <= TOLERANCE
        self.lines.append(f"{'ok' if good else 'FAILED':>8}  {what} ({error:.0e})")
        if not good:
            self.failures.append(what)

    def __str__(self) -> str:
        return "\n".join([f"{self.name}, {self.backend}", *self.lines])

    __repr__ = __str__


def check(cell: Cell) -> Report:
    """Prove the contracts for a cell, against a Python loop with torch's autograd, in float64, and time it.

        print(elman.check(MyCell(28, 128)))

    Values, last state and gradients to x, states and parameters; a sequence is its chunks is its steps; resets and
    lengths; both directions; a row depends on no other; second derivatives; the same bits twice. What the cell draws is
    drawn once and given to all, so that a cell is proved as it is, in training or in evaluation. The cell itself and
    the caller's random numbers are left as they are. Errors: CellError where the step breaks the contract of `Cell`.
    """
    if not isinstance(cell, Cell):
        given = f"the class {cell.__name__}" if isinstance(cell, type) else f"a {type(cell).__name__}"
        raise CellError(f"check takes a cell, as elman.check(elman.cell.LSTM(28, 128)); got {given}")
    exact = copy.deepcopy(cell).double()
    layer = Recurrent(exact)
    x, state = sample(exact)
    plan = calls_of(layer, (x, state), {})[0].plan
    report = Report(type(cell).__name__, plan.backend + (f": {plan.reason}" if plan.reason else ""))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = exact.draw(x.detach())
        if not any(o.requires_grad for o in plainly(partial(whole_run, layer, x, state, drawn))):
            raise CellError(f"nothing that {report.name}.step returns depends on x, a state or a parameter")
        for what, error in contracts(exact, x, state, drawn):
            report.add(what, error)
        report.lines.append(timing(cell))
    return report


def sample(cell: Cell) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Random input and states that want gradients; the caller's random numbers are not touched."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(T, B, cell.input_size, generator=draw, dtype=torch.float64, requires_grad=True)
    state = (torch.rand(B, w, generator=draw, dtype=torch.float64) for w in cell.state_sizes.values())
    return x, tuple(s.requires_grad_() for s in state)


def part_of(cell: Cell, drawn: dict[str, Tensor], steps: slice, rows: slice) -> dict[str, Tensor]:
    """What of the drawn context belongs to these steps and rows."""

    def part(name: str, value: Tensor) -> Tensor:
        if name in cell.whole:
            return value
        return value[steps, rows] if name in cell.each_step else value[rows]

    return {name: part(name, value) for name, value in drawn.items()}


def contracts(
    cell: Cell, x: Tensor, state: tuple[Tensor, ...], drawn: dict[str, Tensor]
) -> Iterator[tuple[str, float]]:
    """Each contract in turn, with the relative error found."""
    lengths = torch.tensor([T, 1, 0, T - 2, T])
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[2, 0] = reset[0, 1] = reset[4, 3] = True
    leaves = [x, *state, *learning(cell)]
    options: list[dict[str, Any]] = [{}, {"lengths": lengths, "reset": reset}]
    for reverse in (False, True):
        layer = Recurrent(cell, reverse=reverse)
        for how in options:
            named = f"{'reverse' if reverse else 'forward'}{', lengths and resets' if how else ''}"
            run = partial(whole_run, layer, x, state, {**how, **drawn})
            found, want = run(), plainly(run)
            yield f"values, {named}", distance(found, want)
            yield f"gradients, {named}", distance(gradients(found, leaves), gradients(want, leaves))
    layer, every = Recurrent(cell), slice(None)
    whole = outputs(*layer(x, state, **drawn))
    for size in (1, 3):
        ys, carried = [], state
        for start in range(0, T, size):
            steps = slice(start, start + size)
            y, carried = layer(x[steps], carried, **part_of(cell, drawn, steps, every))
            ys.append(y)
        yield f"chunks of {size}", distance([torch.cat(ys), *carried], whole)
    row = slice(1, 2)
    alone = layer(x[:, row], tuple(s[row] for s in state), **part_of(cell, drawn, every, row))[0]
    yield "a row alone and in its batch", distance([alone], [whole[0][:, 1:2]])
    twice = partial(second, layer, x, state, drawn)
    yield "second derivatives", distance(twice(), plainly(twice))
    again = outputs(*layer(x, state, **drawn))
    yield "the same bits twice", 0.0 if all(map(torch.equal, whole, again)) else 1.0


def whole_run(layer: nn.Module, x: Tensor, state: tuple[Tensor, ...], how: dict[str, Any]) -> list[Tensor]:
    return outputs(*layer(x, state, **how))


def outputs(y: Tensor, state: tuple[Tensor, ...]) -> list[Tensor]:
    return [y, *state]


def plainly(run: Callable[[], list[Tensor]]) -> list[Tensor]:
    with backend("plain"):
        return run()


def gradients(found: list[Tensor], leaves: list[Tensor], graph: bool = False) -> list[Tensor]:
    """Gradients of a number that every output enters with weights of its own."""
    total = torch.stack([(o * torch.linspace(0.5, 1.5, o.numel()).to(o).view_as(o)).sum() for o in found]).sum()
    return list(torch.autograd.grad(total, leaves, create_graph=graph, materialize_grads=True))


def second(layer: nn.Module, x: Tensor, state: tuple[Tensor, ...], drawn: dict[str, Tensor]) -> list[Tensor]:
    leaves = [x, *state, *learning(layer)]
    first = gradients(outputs(*layer(x, state, **drawn)), leaves, graph=True)
    norm = torch.stack([g.square().sum() for g in first]).sum()
    if not norm.requires_grad:
        return [norm]
    return list(torch.autograd.grad(norm, leaves, materialize_grads=True))


def learning(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def distance(found: list[Tensor], want: list[Tensor]) -> float:
    """The largest difference, relative to the largest number (at least 1)."""
    worst = 0.0
    for a, b in zip(found, want):
        scale = max(float(b.detach().abs().max()) if b.numel() else 0.0, 1.0)
        error = float((a - b).detach().abs().max()) / scale if b.numel() else 0.0
        worst = max(worst, error if error == error else float("inf"))  # NaN is never right
    return worst


def timing(cell: Cell) -> str:
    """Training steps of this cell, of its Python loop and of nn.GRU, in turn: medians."""
    steps, rows = TIMED
    x = torch.randn(steps, rows, cell.input_size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    own, gru = copy.deepcopy(cell).float(), nn.GRU(cell.input_size, cell.hidden_size)

    def once(module: nn.Module, way: str | None) -> float:
        start = time.perf_counter()
        if way:
            with backend(way):
                module(x)[0].sum().backward()
        else:
            module(x)[0].sum().backward()
        return time.perf_counter() - start

    layer = Recurrent(own)
    rivals: dict[str, Callable[[], float]] = {
        "elman": lambda: once(layer, None),
        "a Python loop": lambda: once(layer, BACKENDS[-1]),
        "nn.GRU": lambda: once(gru, None),
    }
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(ROUNDS + 1):
        for name, run in rivals.items():
            spent = run()
            if turn:  # the first compiles
                times[name].append(spent)
    middle = {name: statistics.median(spent) * 1e3 for name, spent in times.items()}
    return f"          T={steps}, B={rows}, training: " + ", ".join(f"{k} {v:.2f} ms" for k, v in middle.items())
