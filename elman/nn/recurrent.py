"""torch.nn's RNN, LSTM and GRU in all but the computing, which elman's backends do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.weak import WeakIdKeyDictionary

from elman.module.backends import Recurrence, unfold
from elman.module.outside import uncompiled, warn
from elman.module.plain import Inputs, Rows
from elman.nn import steps
from elman.nn.packed import Packing, packing
from elman.nn.steps import Step

PLAIN = (Tensor, torch.nn.Parameter)
COMPILED = (torch.float32, torch.float64)
# kept outside of the modules, so that no copy, pickle or replica of one carries them along
_steps: WeakIdKeyDictionary = WeakIdKeyDictionary()  # of a module, by identity: list[Step]


@uncompiled
def computed(module: Unfolded, input: Tensor | PackedSequence, hx: Any) -> tuple[Any, Any]:
    """`computed` of a module, its subclass's own included."""
    return module.computed(input, hx)


class Unfolded(torch.nn.RNNBase):
    """What the three share: torch's module, whose layers and directions are unfolded one by one."""

    states = 1

    def new_step(self, input_size: int) -> Step:
        """A step for a layer that reads this width."""
        raise NotImplementedError

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """output, last state: arguments, shapes and errors as in torch.

        torch's own code takes what is wrong, empty, on the meta device, of a tensor subclass, of half precision, under
        autocast, on CUDA, where cuDNN computes just this, or watched by a tracer, an exporter or a dispatch mode, which
        has to see torch's operators.
        """
        if torch.compiler.is_exporting():
            return super().forward(input, hx)
        return computed(self, input, hx)

    def computed(self, input: Tensor | PackedSequence, hx: Any) -> tuple[Any, Any]:
        """`forward` but for exports."""
        self._update_flat_weights()
        if not self.ours(input, hx):
            return super().forward(input, hx)
        x, pack = self.sequence(input)
        given = self.given(input, hx, x)
        rows = Rows(None if pack is None else pack.active)
        last: list[tuple[Tensor, ...]] = []
        held = self.held()
        sides = len(held) // self.num_layers
        for layer in range(self.num_layers):
            ys = []
            for side, step in enumerate(held[sides * layer :][:sides]):
                what = Recurrence(step, step.step, step.signature, reverse=side == 1)
                y, state, _ = unfold(what, Inputs(x, tuple(s[len(last)] for s in given), None, rows))
                ys.append(y)
                last.append(state)
            x = ys[0] if sides == 1 else torch.cat(ys, -1)
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = self.dropped(x, pack)
        return self.output(input, x, pack), self.hidden(input, last)

    def ours(self, input: Any, hx: Any) -> bool:
        """Whether elman computes this call; of all others torch says what is wrong, or computes them itself."""
        x = input.data if isinstance(input, PackedSequence) else input
        if not isinstance(x, Tensor) or x.numel() == 0 or x.is_meta or x.is_cuda:
            return False
        if torch._C._get_tracing_state() is not None or torch._C._len_torch_dispatch_stack():
            return False  # of this thread: what torch.utils says of all threads can stay behind
        if x.dim() not in ((2,) if x is not input else (2, 3)) or x.shape[-1] != self.input_size:
            return False
        states = () if hx is None else hx if self.states > 1 else (hx,)
        if hx is not None and not self.fits(input, states):
            return False
        if torch.is_autocast_enabled(x.device.type):
            say_torchs(type(self).__name__, "autocast chooses its types")
            return False
        if x.dtype not in COMPILED:
            if x.is_floating_point():
                say_torchs(type(self).__name__, f"{x.dtype} is not compiled yet")
            return False
        tensors: list[Any] = [x, *states, *self._flat_weights]
        return all(type(t) in PLAIN and t.dtype == x.dtype and t.device == x.device for t in tensors)

    def fits(self, input: Tensor | PackedSequence, states: Any) -> bool:
        """The given states have the shapes that they must."""
        if not isinstance(states, Sequence) or len(states) != self.states:
            return False
        batch: tuple[int, ...] = ()
        if isinstance(input, PackedSequence):
            batch = (int(input.batch_sizes[0]),)
        elif input.dim() == 3:
            batch = (input.shape[0 if self.batch_first else 1],)
        count = self.num_layers * (2 if self.bidirectional else 1)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)
        return all(isinstance(s, Tensor) and s.shape == (count, *batch, w) for s, w in zip(states, widths))

    def held(self) -> list[Step]:
        """The steps of all layers and directions, holding the module's weights of now."""
        sides = 2 if self.bidirectional else 1
        count = self.num_layers * sides
        found = _steps.get(self)
        if found is None:
            inner = sides * (self.proj_size or self.hidden_size)
            found = [self.new_step(self.input_size if i < sides else inner) for i in range(count)]
            _steps[self] = found
        each = len(self._flat_weights) // count
        for i, step in enumerate(found):
            step.hold(self._flat_weights[i * each : (i + 1) * each], self.bias)
        return found

    def sequence(self, input: Tensor | PackedSequence) -> tuple[Tensor, Packing | None]:
        """x (T, B, I), and how it was packed."""
        if isinstance(input, PackedSequence):
            pack = packing(input.batch_sizes, input.data.device)
            return pack.padded(input.data), pack
        if input.dim() == 2:
            return input.unsqueeze(1), None
        return input.transpose(0, 1) if self.batch_first else input, None

    def given(self, input: Tensor | PackedSequence, hx: Any, x: Tensor) -> tuple[Tensor, ...]:
        """The first states, (layers * directions, B, width) each, rows in the order of x."""
        if hx is None:
            count = self.num_layers * (2 if self.bidirectional else 1)
            widths = (self.proj_size or self.hidden_size, self.hidden_size)[: self.states]
            return tuple(x.new_zeros(count, x.shape[1], width) for width in widths)
        states = tuple(hx) if self.states > 1 else (hx,)
        if not isinstance(input, PackedSequence):
            return tuple(s.unsqueeze(1) for s in states) if input.dim() == 2 else states
        order = input.sorted_indices
        return states if order is None else tuple(s.index_select(1, order) for s in states)

    def dropped(self, x: Tensor, pack: Packing | None) -> Tensor:
        """x (T, B, width) after dropout; a packed sequence draws for its own steps only, as in torch."""
        if pack is None:
            return torch.nn.functional.dropout(x.contiguous(), self.dropout)
        return pack.padded(torch.nn.functional.dropout(pack.packed(x), self.dropout))

    def output(self, input: Tensor | PackedSequence, y: Tensor, pack: Packing | None) -> Tensor | PackedSequence:
        """y (T, B, width) in the form in which the input came."""
        if isinstance(input, PackedSequence) and pack is not None:
            return PackedSequence(pack.packed(y), input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        if isinstance(input, Tensor) and input.dim() == 2:
            return y.squeeze(1)
        return y.transpose(0, 1) if self.batch_first else y

    def hidden(self, input: Tensor | PackedSequence, last: list[tuple[Tensor, ...]]) -> Any:
        """The last states in torch's form: stacked over layers and directions, rows in the order of the input."""
        states = tuple(torch.stack(values) for values in zip(*last))
        if isinstance(input, PackedSequence) and input.unsorted_indices is not None:
            order = input.unsorted_indices
            states = tuple(s.index_select(1, order) for s in states)
        elif isinstance(input, Tensor) and input.dim() == 2:
            states = tuple(s.squeeze(1) for s in states)
        return states if self.states > 1 else states[0]


def say_torchs(name: str, why: str) -> None:
    """Say once that a module runs torch's own code, and why."""
    warn(f"{name} runs torch's own code: {why}")


class RNN(Unfolded, torch.nn.RNN):
    """torch.nn.RNN, unfolded by elman: arguments, parameters, state dict, inputs and outputs as there.

        rnn = elman.nn.RNN(10, 20, num_layers=2, nonlinearity="relu")
        y, h = rnn(x)                    # x (T, B, 10) -> y (T, B, 20), h (2, B, 20)

    Errors: torch's own.
    """

    def new_step(self, input_size: int) -> Step:
        return steps.RNN(input_size, self.hidden_size, self.nonlinearity)


class LSTM(Unfolded, torch.nn.LSTM):
    """torch.nn.LSTM, unfolded by elman: arguments, parameters, state dict, inputs and outputs as there.

        lstm = elman.nn.LSTM(10, 20, bidirectional=True)
        y, (h, c) = lstm(x)              # x (T, B, 10) -> y (T, B, 40), h and c (2, B, 20)

    Errors: torch's own.
    """

    states = 2

    def new_step(self, input_size: int) -> Step:
        return steps.LSTM(input_size, self.hidden_size, self.proj_size)


class GRU(Unfolded, torch.nn.GRU):
    """torch.nn.GRU, unfolded by elman: arguments, parameters, state dict, inputs and outputs as there.

        gru = elman.nn.GRU(10, 20, batch_first=True)
        y, h = gru(x)                    # x (B, T, 10) -> y (B, T, 20), h (1, B, 20)

    Errors: torch's own.
    """

    def new_step(self, input_size: int) -> Step:
        return steps.GRU(input_size, self.hidden_size)
