"""What the operands of products are rounded to: one setting for all layers, as `backend` is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from elman.compiler import lacks_pairs
from elman.errors import OptionError

PRECISIONS = ("float32", "bf16")
_rounded: ContextVar[bool] = ContextVar("rounded", default=False)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Run float32 layers inside the block with products of "bf16" operands, or of "float32" ones, as without it.

        with elman.precision("bf16"):
            y, state = layer(x)
            loss(y).backward()           # backward is as its forward was, wherever it runs

    In bf16 both sides of a product with a matrix of weights are rounded, to nearest, in forward and in backward; sums,
    states, gates, gradients and the weights themselves are float32. Layers of float64, and steps that run plainly, are
    as without it. Errors: OptionError for another name, and where the processor has no instruction for it.
    """
    if name not in PRECISIONS:
        raise OptionError(f"precision must be one of {', '.join(PRECISIONS)}; got {name!r}")
    if name == "bf16" and (reason := lacks_pairs()):
        raise OptionError(f"precision bf16 cannot run here: {reason}; use float32")
    token = _rounded.set(name == "bf16")
    try:
        yield
    finally:
        _rounded.reset(token)


def operands(dtype: torch.dtype) -> torch.dtype | None:
    """What operands of products are rounded to in a layer of this type; None: to nothing."""
    return torch.bfloat16 if _rounded.get() and dtype == torch.float32 else None
