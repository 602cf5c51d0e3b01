"""The plain backend: a Python loop over the step, differentiated by torch's autograd.

It runs any step and says what every other backend must compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from elman.cell.base import Signature, State, watched
from elman.errors import CellError, ElmanError, InputError

Step = Callable[..., tuple[Tensor, State]]


class Rows(NamedTuple):
    """Which rows do what at each step, both (T, B) of bool, or None where no row is special."""

    active: Tensor | None = None  # the row still runs at this step
    reset: Tensor | None = None  # this step begins a new sequence

    def before(self, reverse: bool) -> Tensor | None:
        """(T, B): where the state is replaced by the initial one before a step, in the order the loop runs.

        A reverse loop meets the end of the earlier sequence first, so there the mark belongs one step earlier.
        """
        if self.reset is None:
            return None
        reset = self.reset if self.active is None else self.reset & self.active
        return torch.cat([reset[1:], torch.zeros_like(reset[:1])]) if reverse else reset


class Inputs(NamedTuple):
    """What one call of a layer unfolds over."""

    x: Tensor  # (T, B, I)
    state: State  # (B, width) each
    first: State | None = None  # what a reset brings back; given whenever there are resets
    rows: Rows = Rows()
    watch: Sequence[str] = ()  # names of values that the caller wants to see
    context: Mapping[str, Any] = {}  # the same at every step
    each: Mapping[str, Tensor] = {}  # context with a slice of its own at every step, (T, B, ...)

    def padded(self) -> Inputs:
        """The same where nothing that lies in the padding can reach a result or a gradient."""
        active = self.rows.active
        if active is None:
            return self
        each = {name: without_padding(value, active) for name, value in self.each.items()}
        return self._replace(x=without_padding(self.x, active), each=each)


def unroll(
    step: Step, signature: Signature, inputs: Inputs, reverse: bool = False
) -> tuple[Tensor, State, dict[str, Tensor]]:
    """Run `step` over every row of time: y (T, B, K), the last state, and the watched values (T, B, width) by name."""
    x, state, first, rows, watch, context, each = inputs.padded()
    resets, active = rows.before(reverse), rows.active
    xs = x.unbind()  # indexing would fill a whole gradient at every step
    slices = {name: value.unbind() for name, value in each.items()}
    ys: list[Tensor] = []
    seen: dict[str, list[Tensor]] = {name: [] for name in watch}
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        if resets is not None and first is not None:
            state = choose(resets[t], first, state)
        own = {**context, **{name: values[t] for name, values in slices.items()}} if slices else context
        y, new, values = one_step(step, signature, xs[t], state, watch, own)
        if active is not None:
            new = choose(active[t], new, state)
            y = y.masked_fill(~column(active[t], y), 0)
        state = new
        ys.append(y)
        for name in watch:
            value = values[name] if name in values else state[signature.state.index(name)]
            seen[name].append(value if active is None else value.masked_fill(~column(active[t], value), 0))
    order = slice(None, None, -1 if reverse else 1)
    return (
        torch.stack(ys[order]),
        signature.State(*state),
        {name: torch.stack(values[order]) for name, values in seen.items()},
    )


def one_step(
    step: Step, signature: Signature, x: Tensor, state: State, watch: Sequence[str], context: Mapping[str, Any]
) -> tuple[Tensor, State, dict[str, Tensor]]:
    """y, the new state and what was watched, checked against the contract."""
    values: dict[str, Tensor] = {}
    before = versions(x, *state)
    if watch:
        with watched() as values:
            result = called(step, signature, x, state, context)
        check_watch(watch, values, signature)
    else:
        result = called(step, signature, x, state, context)
    if versions(x, *state) != before:
        name = getattr(step, "__qualname__", "step")
        raise CellError(f"{name} changes its input or its state in place; write h = h + x in place of h += x")
    return *checked(result, step, signature, x, state), values


def called(step: Step, signature: Signature, x: Tensor, state: State, context: Mapping[str, Any]) -> Any:
    """What the step returns; an error of its own with a note of what it was given, where Python has notes (3.11)."""
    try:
        return step(x, *state, **context)
    except Exception as error:
        if hasattr(error, "add_note") and not isinstance(error, ElmanError):
            values = {"x": x, **dict(zip(signature.state, state)), **context}
            given = ", ".join(f"{name}: {describe(value)}" for name, value in values.items())
            rows = f"; a context tensor of {len(x)} rows goes by rows, any other is the same for all" if context else ""
            error.add_note(f"{getattr(step, '__qualname__', 'step')} was given {given}{rows}")
        raise


def versions(*values: Tensor) -> list[int]:
    """How often each tensor was written to; inference tensors do not count it."""
    return [0 if value.is_inference() else value._version for value in values]


def checked(result: Any, step: Step, signature: Signature, x: Tensor, state: State) -> tuple[Tensor, State]:
    """What a step returned, or a CellError that says how it breaks the contract."""
    name, names = getattr(step, "__qualname__", "step"), ", ".join(signature.state)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], tuple)):
        parts = result if isinstance(result, tuple) else (result,)
        given = ", ".join(map(describe, parts))
        raise CellError(f"{name} must return y, ({names},) -- a tensor and a tuple of new states; got {given}")
    y, new = result
    if len(new) != len(state):
        raise CellError(
            f"{name} takes {len(state)} states ({names}) but returned {len(new)}; return them all, in that order"
        )
    for field, old, value in zip(signature.state, state, new):
        if not isinstance(value, Tensor) or value.shape != old.shape:
            raise CellError(
                f"{name}: state '{field}' goes in as {describe(old)} and comes out as {describe(value)}; "
                "a state keeps its shape -- set state_sizes if its width is not hidden_size"
            )
    if not isinstance(y, Tensor) or y.shape[:1] != x.shape[:1]:
        raise CellError(f"{name} must return a tensor y of shape (B={len(x)}, width); got {describe(y)}")
    return y, signature.State(*new)


def check_watch(watch: Sequence[str], values: Mapping[str, Tensor], signature: Signature) -> None:
    """Every watched name must be a state or a value that the step named."""
    known = [*signature.state, *values]
    for name in watch:
        if name not in known:
            raise InputError(f"watch: the step names no {name!r}; it has {', '.join(known)}")


def without_padding(x: Tensor, active: Tensor) -> Tensor:
    """x with each row's padding replaced by its own first input, in a row without any by that of another.

    What lies in the padding must not reach a gradient, not even as 0 * NaN; an input cannot do it harm.
    """
    if not x.numel():
        return x
    there, first = active[:1], x[:1].detach()
    other = first[:, there[0].to(torch.uint8).argmax()][:, None].masked_fill(~there.any(), 0)
    return torch.where(column(active, x), x, torch.where(column(there, x), first, other))


def column(mask: Tensor, value: Tensor) -> Tensor:
    """A mask over the leading dimensions, shaped to broadcast over the rest of value."""
    return mask.reshape(mask.shape + (1,) * (value.dim() - mask.dim()))


def choose(mask: Tensor, yes: State, no: State) -> State:
    """Row by row: `yes` where the mask (B,) is true, else `no`."""
    return tuple(torch.where(column(mask, a), a, b) for a, b in zip(yes, no))


def describe(value: Any) -> str:
    """A value in a few words: a tensor by its shape, all else by its type."""
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
