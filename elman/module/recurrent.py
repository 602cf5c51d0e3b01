"""A cell unfolded over time, and a bare step function likewise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from elman.cell.base import Cell, Signature, State, step_signature
from elman.errors import CellError, InputError, OptionError
from elman.module.backends import Recurrence, owner_of, unfold
from elman.module.layer import Layer, Names
from elman.module.plain import Inputs, Rows, describe


class Recurrent(Layer):
    """A cell unfolded over time.

        layer = elman.Recurrent(elman.cell.LSTM(28, 128))
        y, state = layer(x)              # x (T, B, 28) -> y (T, B, 128), state.h and state.c (B, 128)
        y, state = layer(more, state)    # goes on where it stopped

    With `reverse`, time runs from each row's last step to its first, and the returned state is that after step 0.
    With `batch_first`, x and y are (B, T, width). With `strict`, a step that cannot be compiled is an error; else it
    runs as a Python loop and says so. `checkpoint`: for backward keep only the state before every so many steps
    ("sqrt": the root of T) and compute the rest again: far less memory, somewhat more time. See `Layer.forward`
    for lengths, reset, watch and context.
    Errors: CellError where the cell is none or its step breaks the contract; InputError where tensors do not fit.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        reverse: bool = False,
        batch_first: bool = False,
        strict: bool = False,
        checkpoint: int | Literal["sqrt"] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(cell, Cell):
            raise CellError(f"Recurrent takes an elman.Cell, got {describe(cell)}; a bare function goes to elman.scan")
        if not hasattr(cell, "state_sizes"):
            name = type(cell).__name__
            raise CellError(
                f"{name} has no sizes: call super().__init__(input_size, hidden_size) first in its __init__"
            )
        self.cell = cell
        self.reverse = reverse
        self.batch_first = batch_first
        self.strict = strict
        self.checkpoint = checked_checkpoint(checkpoint)

    @property
    def _cell(self) -> Cell:
        """The cell by the short way: torch's own look-up is slow, and each call asks several times."""
        return self._modules["cell"]  # type: ignore[return-value]

    def initial(self, batch_size: int) -> State:
        return self._cell.initial(batch_size)

    def begin(self, batch_size: int, context: Mapping[str, Any]) -> State:
        return self._cell.begin(batch_size, context)

    def check_state(self, state: Any, x: Tensor) -> State:
        cell = self._cell
        return check_state(state, cell.signature, cell.state_sizes, x)

    def context_names(self) -> Names:
        cell = self._cell
        signature = cell.signature
        return Names(signature.context, signature.required, cell.each_step)

    def run(
        self, x: Tensor, state: State, rows: Rows, watch: Sequence[str], context: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        cell = self._cell
        if x.shape[-1] != cell.input_size:
            raise InputError(
                f"{type(cell).__name__} takes inputs of width {cell.input_size}; got x of width {x.shape[-1]}"
            )
        first = None
        if rows.reset is not None:
            first = self.check_state(self.begin(x.shape[1], context), x)
        own = cell.draw(x)
        own.update({name: value for name, value in context.items() if name in cell.signature.context})
        own = cell.prepare(own)
        each = apart(own, cell.each_step)
        try:
            return unfold(self.recurrence(), Inputs(x, state, first, rows, watch, own, each))
        except RuntimeError as error:
            if "dtype" in str(error) and (problem := mistyped(cell, x, state)):
                raise InputError(problem) from error
            raise

    def recurrence(self) -> Recurrence:
        """What is unfolded, and how."""
        cell = self._cell
        return Recurrence(cell, cell.step, cell.signature, self.reverse, self.strict, self.checkpoint, cell.whole)

    def extra_repr(self) -> str:
        flags = [f"{flag}=True" for flag in ("reverse", "batch_first", "strict") if getattr(self, flag)]
        return ", ".join([*flags, *([f"checkpoint={self.checkpoint!r}"] if self.checkpoint else [])])


def checked_checkpoint(given: Any) -> int | Literal["sqrt"] | None:
    """The option as it is, or an OptionError."""
    whole = isinstance(given, int) and not isinstance(given, bool) and given >= 1
    if given is None or given == "sqrt" or whole:
        return given
    raise OptionError(f'checkpoint must be a number of steps of at least 1, "sqrt" or None; got {given!r}')


class _Function(Layer):
    """A bare step as a layer, for the length of one call; its first state is the one it is given."""

    def __init__(self, step: Callable[..., Any], state: State) -> None:
        super().__init__()
        self.step = step
        self.first = state
        cell = getattr(step, "__self__", None)  # a cell's own step is known better than its arguments say
        self.known = cell if isinstance(cell, Cell) else None
        self.signature: Signature = self.known.signature if self.known else step_signature(step)

    def initial(self, batch_size: int) -> State:
        return self.first

    def begin(self, batch_size: int, context: Mapping[str, Any]) -> State:
        return self.first

    def check_state(self, state: Any, x: Tensor) -> State:
        sizes = dict.fromkeys(self.signature.state)
        return check_state(state, self.signature, sizes, x)

    def context_names(self) -> Names:
        each = self.known.each_step if self.known else ()
        return Names(self.signature.context, self.signature.required, each)

    def run(
        self, x: Tensor, state: State, rows: Rows, watch: Sequence[str], context: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        given, each = dict(context), {}
        whole: Collection[str] = ()
        if self.known:
            given, whole = self.known.prepare(given), self.known.whole
            each = apart(given, self.known.each_step)
        what = Recurrence(owner_of(self.step), self.step, self.signature, whole=whole)
        return unfold(what, Inputs(x, state, state, rows, watch, given, each))


def apart(context: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What has a slice a step, taken out of the context."""
    return {name: context.pop(name) for name in names if context.get(name) is not None}


def scan(step: Callable[..., Any], x: Tensor, state: Any, **options: Any) -> tuple[Any, ...]:
    """Unfold a bare function over time: ``y, state = elman.scan(step, x, state)``.

        def step(x, total):
            total = total + x
            return total, (total,)
        y, (total,) = elman.scan(step, torch.ones(5, 2, 3), (torch.zeros(2, 3),))

    Shapes: x (T, B, I), each state (B, width). A reset brings back the state that was given.
    `options` are those of `Layer.forward`: lengths, reset, watch, and the step's own context.
    Errors: CellError where the step breaks the contract; InputError where tensors do not fit.
    """
    state = (state,) if isinstance(state, Tensor) else state
    return _Function(step, state)(x, **options)


def check_state(state: Any, signature: Signature, sizes: Mapping[str, int | None], x: Tensor) -> State:
    """The state as the step's own named tuple, on x's device and of its type where that is real; None: any width."""
    if isinstance(state, Tensor) or not isinstance(state, Sequence) or len(state) != len(signature.state):
        names = ", ".join(signature.state)
        names = f"{names}," if len(signature.state) == 1 else names
        raise InputError(f"state must be a tuple ({names}); got {describe_state(state)}")
    B, dtype, device = x.shape[1], x.dtype, x.device
    for value, (name, size) in zip(state, sizes.items()):
        shape = tuple(value.shape) if isinstance(value, Tensor) else ()
        if len(shape) < 2 or shape[0] != B or (size is not None and shape[1:] != (size,)):
            wide = "width" if size is None else size
            raise InputError(f"state '{name}' must be a tensor (B={B}, {wide}); got {describe(value)}")
    kind = signature.State
    if all(value.dtype is dtype and value.device == device for value in state):
        return state if isinstance(state, tuple) and type(state) is kind else kind(*state)
    real = x.is_floating_point()
    return kind(*(value.to(x if real and value.is_floating_point() else x.device) for value in state))


def mistyped(cell: Cell, x: Tensor, state: State) -> str:
    """What of x and the states is of another type than the cell's weights, where a step has failed for that."""
    kinds = {p.dtype for p in cell.parameters() if p.is_floating_point()}
    if len(kinds) != 1:
        return ""
    (kind,) = kinds
    states = {f"state '{name}'": value for name, value in zip(cell.signature.state, state)}
    for name, value in {"x": x, **states}.items():
        if value.dtype is not kind:
            layer = f", or turn the layer with .to({value.dtype})" if value.is_floating_point() else ""
            return f"{name} is of {value.dtype}, {type(cell).__name__}'s weights are of {kind}: give it {kind}{layer}"
    return ""


def describe_state(state: Any) -> str:
    """A state that is no tuple of the right length, in a few words."""
    if isinstance(state, Sequence) and not isinstance(state, (str, Tensor)):
        return f"{len(state)} of them"
    return describe(state)
