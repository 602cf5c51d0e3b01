"""What an operation writes to in place, and which tensors were made while a step is traced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a nest of arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from tensors(v)


def written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that a core operation writes to."""
    arguments = func._schema.arguments
    given = [*zip(arguments, args), *((a, kwargs[a.name]) for a in arguments if a.name in kwargs)]
    return [t for a, value in given if a.alias_info is not None and a.alias_info.is_write for t in tensors(value)]


def anew(func: Any) -> Any:
    """The operation that makes a new value where this one writes to its first argument, if there is one."""
    name = func.overloadpacket.__name__
    return getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None


def memory(tensor: Tensor) -> int:
    """Whose memory a tensor lies in, as long as that lives."""
    return tensor.untyped_storage()._cdata


def made(func: Any, out: Any) -> set[int]:
    """The memories that an operation has made, as those of its results that are no views."""
    outs = out if isinstance(out, (tuple, list)) else (out,)
    own = func.overloadpacket is torch.ops.aten.lift_fresh  # a literal's tensor
    pairs = zip(func._schema.returns, outs)
    return {memory(t) for result, value in pairs if own or result.alias_info is None for t in tensors(value)}
