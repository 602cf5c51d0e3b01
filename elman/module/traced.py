"""A recurrence's step as a graph, traced and proved on samples, and a call's tensors by the names that it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from elman.cell.base import State
from elman.compiler import (
    Given,
    Program,
    Traced,
    UntraceableError,
    collection_paused,
    reference,
    simplify,
    trace,
    verify,
)
from elman.compiler.frames import line_of_error
from elman.compiler.modes import balanced
from elman.compiler.trace import ROWS
from elman.errors import CellError
from elman.module.outside import ELMAN
from elman.module.owner import Snapshot, Untouched, offered
from elman.module.plain import Inputs, choose, column, one_step

if TYPE_CHECKING:
    from elman.module.backends import Recurrence

MASKS = ("mask:reset", "mask:active")
FAILED = "tracing the step failed"


@collection_paused()
def traced(what: Recurrence, inputs: Inputs) -> Traced | str:
    """The step as a graph, proved on random numbers against torch's own gradients; or why there is none."""
    shared = offered(what.owner)
    still: dict[str, Any] = {}  # context that no row has for itself
    for name, value in inputs.context.items():
        if not what.by_row(name, value, inputs.x.shape[1]):
            still[name] = value
            if isinstance(value, Tensor):  # an object of its own, should it come under other names as well
                still[name] = shared[f"context.{name}"] = value.detach().requires_grad_(value.requires_grad)

    def step(steps: Mapping[str, Tensor], before: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Any:
        return masked_step(what, inputs, steps, before, kept, still)

    before, device = Untouched(what.owner), inputs.x.device
    try:
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            unseen(),
            balanced(),
            torch.random.fork_rng([device] if device.type == "cuda" else []),  # should the step draw numbers
        ):
            found = trace(step, *sample(what, inputs, still, ROWS, 0.0), shared)
            found = replace(found, loop=replace(simplify(found.loop), reverse=what.reverse))
            program = Program(found.loop, reference.emit)
            for rows, low in ((ROWS, 0.0), (ROWS + 2, -1.0)):  # another batch, and both signs
                verify(found, program, step, *sample(what, inputs, still, rows, low), shared)
        problem = ""
    except UntraceableError as error:
        problem = str(error)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, CellError, AssertionError) as error:
        problem = f"{FAILED}: {line_of_error(error, ELMAN)}{type(error).__name__}: {error}"
    if changed := before.changed():
        problem = f"the step changes what is not its state ({', '.join(changed)})"
    return problem or found


def unseen() -> AbstractContextManager[Any]:
    """Inside, the caller's hooks on saved tensors see none: torch's checkpoints count them, and proof is given once."""
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is None:
        return nullcontext()
    return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


Samples = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]


def sample(what: Recurrence, inputs: Inputs, still: Mapping[str, Any], rows: int, low: float) -> Samples:
    """Random inputs of a step, states (from `low` to 1) and what is fixed; from random numbers of its own."""
    x = inputs.x
    draw = torch.Generator(x.device).manual_seed(rows)

    def numbers(shape: Sequence[int], low: float = low, dtype: torch.dtype = x.dtype) -> Tensor:
        drawn = torch.rand(rows, *shape, generator=draw, dtype=x.dtype, device=x.device)
        drawn = low + (0.9 - low) * drawn + 0.05
        return drawn > 0.5 if dtype == torch.bool else drawn

    per_step = {"x": numbers(x.shape[2:], -1.0)}
    for name, mask in zip(MASKS, (inputs.rows.reset, inputs.rows.active)):
        if mask is not None:
            per_step[name] = torch.arange(rows, device=x.device) % 2 == 0
    per_step.update({name: numbers(value.shape[2:], dtype=value.dtype) for name, value in inputs.each.items()})
    states = {name: numbers(value.shape[1:]) for name, value in zip(what.signature.state, inputs.state)}
    fixed = {}
    if inputs.rows.reset is not None:
        fixed = {f"first:{name}": numbers(value.shape[1:]) for name, value in states.items()}
    by_rows = {name: value for name, value in inputs.context.items() if name not in still}
    fixed.update({name: numbers(value.shape[1:], dtype=value.dtype) for name, value in by_rows.items()})
    return per_step, states, fixed


def masked_step(
    what: Recurrence,
    inputs: Inputs,
    per_step: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    still: Mapping[str, Any],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One step with its resets and lengths, as `plain.unroll` does it: what the graph is traced from."""
    names, watch = what.signature.state, inputs.watch
    before: State = tuple(state[name] for name in names)
    reset, active = (per_step.get(name) for name in MASKS)
    if reset is not None:
        before = choose(reset, tuple(fixed[f"first:{name}"] for name in names), before)
    own = {name: value for name, value in fixed.items() if not name.startswith("first:")}
    own.update({name: per_step[name] for name in inputs.each})
    y, new, values = one_step(what.step, what.signature, per_step["x"], before, watch, {**still, **own})
    if active is not None:
        new = choose(active, new, before)
    outputs = {"y": y}
    for name in watch:
        outputs[f"watch:{name}"] = values[name] if name in values else new[names.index(name)]
    if active is not None:
        outputs = {k: v.masked_fill(~column(active, v), 0) for k, v in outputs.items()}
    return outputs, dict(zip(names, new))


def tensors(what: Recurrence, inputs: Inputs, found: Traced, snapshot: Snapshot) -> Given:
    """The tensors of one call under the names that the graph knows them by."""
    x, state, first, rows, _, context, each = inputs.padded()
    names, (T, B, _), dtype = what.signature.state, x.shape, x.dtype
    per_step = {"x": x}
    for name, mask in zip(MASKS, (rows.before(what.reverse), rows.active)):
        if mask is not None:
            per_step[name] = mask.to(dtype).unsqueeze(-1)
    per_step.update({name: value.to(dtype).reshape(T, B, -1) for name, value in each.items()})
    fixed = {f"first:{name}": value for name, value in zip(names, first)} if first else {}
    shared = snapshot.read(found.reads) if snapshot.stable else offered(what.owner, found.reads)
    if context:
        fixed.update({k: v for k, v in context.items() if what.by_row(k, v, B)})
        shared.update({f"context.{k}": v for k, v in context.items() if f"context.{k}" in found.reads})
    return Given(
        per_step,
        {name: value if value.dim() == 2 else value.reshape(B, -1) for name, value in zip(names, state)},
        {name: value.to(dtype).reshape(B, -1) for name, value in fixed.items()},
        {name: v if v.dtype is dtype else v.to(dtype) for name, v in found.shared(shared).items()},
        (T, B),
    )
