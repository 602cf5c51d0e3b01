"""Where a step stands still: the fixed points of a recurrence, and whether they draw states in or drive them away."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from elman.cell import Cell
from elman.errors import InputError
from elman.module.plain import describe

ITERATIONS = 100
STILL = 1e-8  # |F(s) - s| / (1 + |s|) at which a state counts as fixed
APART = 1e-3  # distance, relative to 1 + |s|, below which two are one
FIRST_DAMPING, LEAST_DAMPING, WORSE, BETTER = 1e-2, 1e-12, 4.0, 1 / 3


@dataclass(frozen=True)
class FixedPoints:
    """States s with F(s, x) = s, all that the cell carries side by side: points (N, S), as many as were found.

    eigenvalues (N, S), complex: of dF/ds there, the largest first.
    """

    points: Tensor
    eigenvalues: Tensor

    @property
    def stable(self) -> Tensor:
        """Whether states nearby come nearer at each step, (N,) of bool: no eigenvalue reaches the unit circle."""
        return self.eigenvalues[:, 0].abs() < 1


def fixed_points(cell: Cell, x: Tensor, starts: Tensor) -> FixedPoints:
    """The states that a cell's step maps onto themselves while the same input comes again and again.

        found = elman.fixed_points(cell, x, states)      # found.points, found.stable, found.eigenvalues

    The search goes from each start to where |F(s, x) - s| is smallest (Levenberg and Marquardt, in float64), and keeps
    what stands still there, each point once, those nearest to the starts first. It finds unstable points as well as
    stable ones; that there are no others it cannot say. For small networks: it takes all of dF/ds, (S, S), at a time.
    Shapes: x (I,), starts (N, S): every state of the cell side by side, as h and c of an LSTM.
    Errors: InputError for shapes that do not fit, and cells that need context.
    Source: Sussillo, Barak, "Opening the black box: low-dimensional dynamics in high-dimensional recurrent neural
    networks" (2013); there by gradient descent.
    """
    sizes, needed = list(cell.state_sizes.values()), sorted(cell.signature.required)
    if needed:
        raise InputError(f"fixed_points: {type(cell).__name__} needs context ({', '.join(needed)}) beside its input")
    if x.shape != (cell.input_size,):
        raise InputError(f"fixed_points: x must be one step's input, (I={cell.input_size},); got {describe(x)}")
    if starts.dim() != 2 or starts.shape[1] != sum(sizes):
        raise InputError(f"fixed_points: starts must be (N, S={sum(sizes)}); got {describe(starts)}")
    cell, x, states = copy.deepcopy(cell).double().eval().requires_grad_(False), x.double(), starts.detach().double()

    def step(state: Tensor) -> Tensor:
        row = x[None]
        context = cell.prepare(cell.draw(row[None]))
        _, after = cell.step(row, *state[None].split(sizes, -1), **context)
        return torch.cat(after, -1)[0]

    states = stillest(step, states)
    jacobian, moved = jacobians(step, states)
    far = (states - starts.double()).norm(dim=1)
    still = moved.norm(dim=1) < STILL * (1 + states.norm(dim=1))
    kept: list[int] = []
    for k in far.argsort().tolist():
        near = (states[kept] - states[k]).norm(dim=1) < APART * (1 + states[k].norm())
        if still[k] and not near.any():
            kept.append(k)
    values = torch.linalg.eigvals(jacobian[kept])
    return FixedPoints(states[kept], values.gather(1, values.abs().argsort(1, descending=True)))


def jacobians(step: Callable[[Tensor], Tensor], states: Tensor) -> tuple[Tensor, Tensor]:
    """dF/ds (N, S, S) and how far the step moves each state, F(s) - s, (N, S)."""

    def both(state: Tensor) -> tuple[Tensor, Tensor]:
        after = step(state)
        return after, after

    found, after = vmap(jacrev(both, has_aux=True))(states)
    return found, after - states


def stillest(step: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    """From each state (N, S) to a minimum of |F(s) - s|, each with a damping of its own."""
    damping = torch.full((len(states), 1, 1), FIRST_DAMPING, dtype=states.dtype)
    one = torch.eye(states.shape[1], dtype=states.dtype)
    for _ in range(ITERATIONS):
        jacobian, moved = jacobians(step, states)
        A = jacobian - one
        normal, down = A.mT @ A, A.mT @ moved[..., None]
        tried = states - torch.linalg.solve(normal + damping * one, down)[..., 0]
        better = (vmap(step)(tried) - tried).norm(dim=1) < moved.norm(dim=1)
        if not better.any() and (damping > 1e6).all():
            break
        states = torch.where(better[:, None], tried, states)
        damping = torch.where(better[:, None, None], damping * BETTER, damping * WORSE).clamp(min=LEAST_DAMPING)
    return states
