"""Proof of a trace: on random numbers the graph gives the step's own values and torch's own gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from elman.compiler.aten_ops import UntraceableError
from elman.compiler.emit.reference import Given
from elman.compiler.modes import Unhooked
from elman.compiler.run import Program
from elman.compiler.trace import Traced

TOLERANCE = {torch.float32: 2e-3, torch.float64: 1e-8}


def verify(
    traced: Traced,
    program: Program,
    step: Callable[..., Any],
    per_step: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
) -> None:
    """Compare one step, run plainly and through the graph's program; the other arguments as given to `trace`.

    Errors: UntraceableError where they differ, as they do when the step has a gradient of its own making or depends on
    more than it was given.
    """

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_(tensor.is_floating_point())

    with torch.enable_grad():
        groups = [{k: leaf(v) for k, v in group.items()} for group in (per_step, state, fixed)]
        read = [t for name in traced.reads if (t := shared[name]).is_floating_point() and t.requires_grad]
        leaves = [t for group in groups for t in group.values() if t.requires_grad] + read
        with Unhooked():
            outputs, new = step(*groups)
        want = [*outputs.values(), *new.values()]
        rows = len(want[0])
        kind = want[0].dtype
        steps, states, still = (
            {k: v.to(kind).reshape(*lead, -1) for k, v in group.items()}
            for group, lead in zip(groups, ((1, rows), (rows,), (rows,)))
        )
        params = {k: v.to(kind) for k, v in traced.shared(shared).items()}
        given = Given(steps, states, still, params, (1, rows))
        ys, last = program(given)
        got = [v[0].reshape(outputs[k].shape) for k, v in ys.items()] + [
            v.reshape(new[k].shape) for k, v in last.items()
        ]
        compare(got, want, "values")
        if leaves:
            compare(pulled(got, leaves), pulled(want, leaves), "gradients")


def pulled(outputs: list[Tensor], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of one number that every output enters with a weight of its own."""
    total = sum(
        (o * torch.linspace(0.5, 1.5, o.numel(), dtype=o.dtype, device=o.device).view(o.shape)).sum() for o in outputs
    )
    if not isinstance(total, Tensor) or not total.requires_grad:
        return tuple(torch.zeros_like(t) for t in leaves)
    return torch.autograd.grad(total, leaves, retain_graph=True, materialize_grads=True)


def compare(got: Any, want: Any, what: str) -> None:
    """Equal within rounding, or an UntraceableError."""
    for a, b in zip(got, want):
        scale = max(float(b.detach().abs().nan_to_num().max()) if b.numel() else 0.0, 1.0)
        bound = TOLERANCE[b.dtype] * scale
        if not torch.allclose(a, b, rtol=TOLERANCE[b.dtype], atol=bound, equal_nan=True):
            raise UntraceableError(
                f"the traced step does not give the step's own {what}; has it a gradient of its own making, or does "
                "it depend on what it was not given?"
            )
