"""The Cell contract: one step of a recurrence, and what its signature says of its state."""

from __future__ import annotations

import inspect
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from elman.errors import CellError

State = tuple[Tensor, ...]


class Cell(nn.Module):
    """One step of a recurrence, in plain torch.

    A subclass defines ``step(self, x, <states>, *, <context>) -> y, (<states>)``. The arguments after ``x`` are the
    state, by name; keyword-only arguments are context, the same at every step. A cell knows nothing of time, batches
    of sequences, masks or devices: `elman.Recurrent` unfolds it.

        class Accumulate(elman.Cell):
            def step(self, x, total):
                total = total + x
                return total, (total,)

    Shapes: x (B, I), each state (B, its width), y (B, any width). State widths default to `hidden_size`; a cell whose
    states differ sets ``self.state_sizes = {"h": 5, "c": 7}`` after ``super().__init__``. Context is any value; a
    tensor with B rows is cut by rows, another is the same for all. `each_step` names context with a slice of its own
    at each step: the layer is given (T, B, width) and the step gets (B, width). `whole` names context tensors that
    every step gets as they are, whatever their shape. `draw` gives what is random. `private` names context that `draw`
    or `prepare` fills in, which a second cell beside this one must not meet. A cell whose y is not of width
    `hidden_size` may say so in `output_size`, for parts that read y.
    Errors: CellError when `step` is missing, takes ``*args``, or gives a state a name that begins with an underscore.
    """

    state_sizes: dict[str, int]
    each_step: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    private: tuple[str, ...] = ()

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        for what, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise CellError(f"{type(self).__name__}: {what} must be a whole number of at least 1, got {size!r}")
        self.input_size = input_size
        self.hidden_size = self.output_size = hidden_size
        self.state_sizes = dict.fromkeys(self.signature.state, hidden_size)

    def step(self, *args: Any, **kwargs: Any) -> tuple[Tensor, State]:
        """y(t), state(t) from x(t), state(t-1). Every cell writes its own."""
        raise CellError(f"{type(self).__name__} has no step: define step(self, x, <states>) -> y, (<states>)")

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """Context by name that is random, drawn anew for each call of a layer with x (T, B, I), before the first step.

        (T, B, width) for names in `each_step`, else (B, width), or any shape for names in `whole`. What the caller
        gives under the same name takes its place. Nothing unless a cell says otherwise.
        """
        return {}

    def prepare(self, context: dict[str, Any]) -> dict[str, Any]:
        """The context as the steps take it, where something of it can be computed once a call; as it is, by default."""
        return context

    def example(self, x: Tensor) -> dict[str, Any]:
        """Context by name that a layer with x (T, B, I) could be given, of any numbers: all that `step` requires.

        For those who run the cell only to look at it, as a picture of its graph does. Nothing unless a cell says so.
        """
        return {}

    @property
    def signature(self) -> Signature:
        """The names of the states and of the context, read off `step`."""
        if type(self).step is Cell.step:
            self.step()
        return method_signature(type(self).step)

    def initial(self, batch_size: int) -> State:
        """The state before the first step: (B, width) each, zeros unless `learn_initial` was called."""
        like = first_parameter(self)
        states = []
        for name, size in self.state_sizes.items():
            own = f"initial_{name}"
            learned = getattr(self, own, None) if may_have(self, own) else None
            if isinstance(learned, Tensor):
                states.append(learned.expand(batch_size, -1))
            else:
                states.append(like.new_zeros(batch_size, size))
        return self.signature.State(*states)

    def begin(self, batch_size: int, context: Mapping[str, Any]) -> State:
        """The state before the first step of a call with this context: `initial`, unless the context says more."""
        return self.initial(batch_size)

    def learn_initial(self) -> Self:
        """Make the first state a parameter (zeros to begin with), one vector for all rows; returns the cell."""
        like = next(iter(self.parameters()), torch.empty(0))
        for name, size in self.state_sizes.items():
            self.register_parameter(f"initial_{name}", nn.Parameter(like.new_zeros(size)))
        return self

    def watch(self, name: str, value: Tensor) -> None:
        """Name a value for those who look inside. It costs nothing unless a caller asks for it by that name."""
        watch(name, value)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}"


def may_have(module: nn.Module, name: str) -> bool:
    """Whether looking for an attribute is worth it: torch's own way takes ten times as long where there is none."""
    kind = type(module)
    if name in module._parameters or name in module._buffers or name in module.__dict__ or hasattr(kind, name):
        return True
    return kind.__getattr__ is not nn.Module.__getattr__


def first_parameter(module: nn.Module) -> Tensor:
    """Any parameter, for its type and device; the quick way, since every call of a layer asks."""
    for part in (module, *module._modules.values()):
        for parameter in part._parameters.values() if part is not None else ():
            if parameter is not None:
                return parameter
    return next(module.parameters(), torch.empty(0))


@dataclass(frozen=True)
class Signature:
    """What the arguments of a step say: states in order, context names, and which context has no default."""

    state: tuple[str, ...]
    context: frozenset[str]
    required: frozenset[str]

    @property
    def State(self) -> Callable[..., Any]:
        """The named tuple that carries these states."""
        return state_type(self.state)


@cache
def state_type(names: tuple[str, ...]) -> Any:
    """A named tuple with one field a state."""
    kind = namedtuple("State", names)  # type: ignore[misc]
    kind.__reduce__ = lambda self: (make_state, (names, *tuple(self)))  # type: ignore
    return kind


def make_state(names: tuple[str, ...], *values: Tensor) -> State:
    """The state of these names: what a saved or copied state is rebuilt by."""
    return state_type(names)(*values)


@cache
def method_signature(step: Callable[..., Any]) -> Signature:
    """The signature of a class's own ``step(self, ...)``, read once."""
    return step_signature(step, skip=1)


def step_signature(step: Callable[..., Any], skip: int = 0) -> Signature:
    """Read the names of state and context off ``step(x, <states>, *, <context>)``, after `skip` arguments."""
    parameters = list(inspect.signature(step).parameters.values())[skip:]
    name = getattr(step, "__qualname__", repr(step))
    if any(p.kind is p.VAR_POSITIONAL or p.kind is p.VAR_KEYWORD for p in parameters):
        raise CellError(
            f"{name}: a step names its states one by one, as in step(x, h, c); it cannot take *args or **kwargs"
        )
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    if not positional:
        raise CellError(f"{name}: a step takes x and then its states, as in step(x, h); got no argument")
    for hidden in (p for p in positional[1:] if p.startswith("_")):
        raise CellError(f"{name}: a state's name cannot begin with an underscore; rename {hidden!r}")
    context = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return Signature(
        state=tuple(positional[1:]),
        context=frozenset(p.name for p in context),
        required=frozenset(p.name for p in context if p.default is p.empty),
    )


_watching = threading.local()


def watch(name: str, value: Tensor) -> None:
    """Name a value inside a step; see `Cell.watch`. For a bare function given to `elman.scan`."""
    seen: dict[str, Tensor] | None = getattr(_watching, "seen", None)
    if seen is None:
        return
    if name in seen:
        raise CellError(f"watch({name!r}) was called twice in one step; give each watched value its own name")
    seen[name] = value


@contextmanager
def watched() -> Iterator[dict[str, Tensor]]:
    """Collect what one step watches: a dictionary that fills while the block runs."""
    before = getattr(_watching, "seen", None)
    _watching.seen = {}
    try:
        yield _watching.seen
    finally:
        _watching.seen = before
