"""How far back a gradient reaches: the norm of a loss's gradient to the state so many steps before."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from elman.errors import InputError
from elman.module.layer import Layer
from elman.module.plain import describe
from elman.module.recurrent import Recurrent
from elman.module.tracker import tensors


def gradient_by_lag(
    layer: Layer, x: Tensor, loss: Callable[[Tensor], Tensor], state: Any = None, **context: Any
) -> dict[int, float]:
    """|dL(t) / dh(t-k)| for k = 1, 2, 4, 8, ..., t the last step of x: where it falls fast, gradients vanish.

        norms = elman.gradient_by_lag(layer, x, lambda y: y.square().sum(-1))      # {1: 0.31, 2: 0.24, 4: 0.15, ...}

    h is the whole state, of all layers and all that each carries; the norm is taken row by row and averaged over the
    batch. `loss` gives each row's loss from the last step's output. The layer runs in pieces between those lags, which
    does not change what it computes, so this costs little more than one pass forward and one back.
    Shapes: x (T, B, I), or (B, T, I) with batch_first, T at least 2; loss: (B, K) -> (B,). Context is the same at every
    step. Errors: InputError where a part of the layer runs from the last step to the first, or shapes do not fit.
    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks" (2013).
    """
    if any(isinstance(part, Recurrent) and part.reverse for part in layer.modules()):
        raise InputError("gradient_by_lag: a part of the layer runs backwards in time, so its last step has no past")
    time = 1 if layer.batch_first else 0
    T, B = x.shape[time], x.shape[1 - time]
    lags = [2**k for k in range(T.bit_length()) if 2**k < T]
    if not lags:
        raise InputError(f"gradient_by_lag: x must have at least 2 steps; got {T}")
    states: list[list[Tensor]] = []
    with torch.enable_grad():
        for start, end in pairwise([0, *(T - lag for lag in reversed(lags)), T]):
            y, state = layer(x.narrow(time, start, end - start), state, **context)
            state = apart(state)
            states.append(tensors(state))
        losses = loss(y.select(time, -1))
    if losses.shape != (B,):
        raise InputError(f"gradient_by_lag: the loss must be one number a row, (B={B},); got {describe(losses)}")
    *before, _ = states  # the last is that after the last step
    wanted = [value for values in before for value in values]
    found = iter(torch.autograd.grad(losses.sum(), wanted, allow_unused=True, materialize_grads=True))
    norms = []
    for values in before:
        rows = torch.cat([next(found).flatten(1) for _ in values], 1)  # (B, all of the state)
        norms.append(rows.norm(dim=1).mean().item())
    return dict(zip(lags, reversed(norms)))


def apart(state: Any) -> Any:
    """The state in tensors of their own, to which a gradient can be asked.

    One that a step made of another, as an LSTM's h is made of c, would else count in both.
    """
    if isinstance(state, Tensor):
        return state.clone() if state.requires_grad else state.clone().requires_grad_()
    parts = [apart(part) for part in state]
    return state._make(parts) if hasattr(state, "_make") else tuple(parts)
