"""What every layer shares: checking what was given, time-major order, lengths, resets, packed sequences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from elman.errors import InputError
from elman.module.outside import uncompiled
from elman.module.plain import Rows, describe


class Names(NamedTuple):
    """Names of context."""

    known: frozenset[str]
    required: frozenset[str]  # those without a default
    each: Collection[str] = ()  # those with a slice of their own at each step


class Layer(nn.Module, ABC):
    """A recurrence over whole sequences: ``y, state = layer(x, state)``.

    Subclasses give `run`, `initial` and `check_state`; the call itself is written once, here.
    """

    batch_first = False

    @abstractmethod
    def run(
        self, x: Tensor, state: Any, rows: Rows, watch: Sequence[str], context: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        """y (T, B, K), last state, watched values, from x (T, B, I) and a checked state."""

    @abstractmethod
    def initial(self, batch_size: int) -> Any:
        """The state before the first step, for `batch_size` rows."""

    @abstractmethod
    def begin(self, batch_size: int, context: Mapping[str, Any]) -> Any:
        """The same for a call with this context, which may decide it."""

    @abstractmethod
    def check_state(self, state: Any, x: Tensor) -> Any:
        """The given state in the layer's own form, or an InputError; x is (T, B, I)."""

    @abstractmethod
    def context_names(self) -> Names:
        """Names of the context that the steps take."""

    @uncompiled
    def forward(
        self,
        x: Tensor | PackedSequence,
        state: Any = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        reset: Tensor | None = None,
        watch: Sequence[str] = (),
        **context: Any,
    ) -> tuple[Any, ...]:
        """Unfold over x: ``y, state``, or ``y, state, watched`` where `watch` names values.

        Shapes: x (T, B, I), or (B, T, I) with batch_first, or a PackedSequence; y alike with the step's output width.
        state: as returned, None for the initial one. lengths (B,): each row's own number of steps; y beyond is zero.
        reset (T, B), or (B, T) with batch_first, of bool: true at the first step of a new sequence, in the order of x
        with `reverse`, too. Then a mark at x[0] does not change the returned state, which is that after x[0] was read:
        who goes on with it into what lies before puts the initial state in those rows.
        watch: names of states or of values that the step watches; they come back as a dictionary of (T, B, width).
        Errors: InputError for shapes, types and names that do not fit.
        """
        if isinstance(x, PackedSequence):
            return self._packed(x, state, lengths, reset, watch, context)
        x = self._input(x)
        rows = Rows(self._active(lengths, x), self._reset(reset, x))
        given = self.check_context(context, x)
        watch = (watch,) if isinstance(watch, str) else tuple(dict.fromkeys(watch))
        state = self.check_state(self.begin(x.shape[1], given) if state is None else state, x)
        y, state, seen = self.run(x, state, rows, watch, given)
        if self.batch_first:
            y, seen = y.transpose(0, 1), transposed(seen)
        return (y, state, seen) if watch else (y, state)

    def _input(self, x: Tensor) -> Tensor:
        axes = "(B, T, I)" if self.batch_first else "(T, B, I)"
        if not isinstance(x, Tensor) or x.dim() != 3:
            given = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise InputError(f"x must be a tensor of shape {axes}; got {given}")
        if 0 in x.shape[:2]:
            raise InputError(f"x must hold at least one step and one row; got shape {tuple(x.shape)}, read as {axes}")
        return x.transpose(0, 1) if self.batch_first else x

    def _active(self, lengths: Tensor | Sequence[int] | None, x: Tensor) -> Tensor | None:
        if lengths is None:
            return None
        T, B = x.shape[:2]
        count = torch.as_tensor(lengths, device=x.device)
        if count.shape != (B,) or count.dtype.is_floating_point or count.dtype == torch.bool:
            raise InputError(f"lengths must be {B} whole numbers, one a row; got {tuple(count.shape)} of {count.dtype}")
        least, most = count.aminmax()
        if least < 0 or most > T:
            raise InputError(f"lengths must lie in 0..{T}, the number of steps; got {least}..{most}")
        if least == T:
            return None  # no row ends before the others
        return torch.arange(T, device=x.device)[:, None] < count

    def _reset(self, reset: Tensor | None, x: Tensor) -> Tensor | None:
        if reset is None:
            return None
        want = (x.shape[1], x.shape[0]) if self.batch_first else tuple(x.shape[:2])
        if not isinstance(reset, Tensor) or tuple(reset.shape) != want or reset.dtype != torch.bool:
            given = f"{tuple(reset.shape)} of {reset.dtype}" if isinstance(reset, Tensor) else type(reset).__name__
            raise InputError(f"reset must be a bool tensor of shape {want}, true where a sequence begins; got {given}")
        return (reset.transpose(0, 1) if self.batch_first else reset).to(x.device)

    def check_context(self, context: Mapping[str, Any], x: Tensor) -> Mapping[str, Any]:
        """The context, checked, with time first where it has a slice a step."""
        known, required, each = self.context_names()
        if not (context or required):
            return context
        for name in context:
            if name not in known:
                has = f"context is {', '.join(sorted(known))}" if known else "no step here takes any context"
                raise InputError(f"unknown argument {name!r}: {has}")
        for name in sorted(required - set(context)):
            raise InputError(f"the step needs the context {name!r}: pass {name}=... to the layer")
        turned = {name: self._each(name, context[name], x) for name in each if context.get(name) is not None}
        return {**context, **turned}

    def _each(self, name: str, value: Any, x: Tensor) -> Tensor:
        axes, want = "(B, T, width)" if self.batch_first else "(T, B, width)", tuple(x.shape[:2])
        want = want[::-1] if self.batch_first else want
        if not isinstance(value, Tensor) or value.dim() < 3 or tuple(value.shape[:2]) != want:
            raise InputError(
                f"context {name!r} has a slice of its own at each step: it must be a tensor {axes} that begins with "
                f"{want}; got {describe(value)}"
            )
        return value.transpose(0, 1) if self.batch_first else value

    def _packed(
        self, x: PackedSequence, state: Any, lengths: Any, reset: Any, watch: Sequence[str], context: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        if lengths is not None or reset is not None:
            raise InputError("a PackedSequence carries its own lengths: give lengths and reset with a padded x instead")
        padded, count = pad_packed_sequence(x, batch_first=self.batch_first)
        y, *rest = self(padded, state, lengths=count, watch=watch, **context)
        sort = slice(None) if x.sorted_indices is None else x.sorted_indices
        y = y[sort] if self.batch_first else y[:, sort]
        data = pack_padded_sequence(y, count[sort].cpu(), batch_first=self.batch_first).data
        return PackedSequence(data, x.batch_sizes, x.sorted_indices, x.unsorted_indices), *rest


def transposed(seen: Any) -> Any:
    """Watched values, of one layer or of several, with batch before time."""
    if isinstance(seen, dict):
        return {name: value.transpose(0, 1) for name, value in seen.items()}
    return tuple(map(transposed, seen))
