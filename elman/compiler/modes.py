"""What torch's functions do while a step is traced or proved: some in a plainer way, some not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from elman.compiler.aten_ops import UntraceableError
from elman.compiler.frames import line_of_user


@contextmanager
def balanced() -> Iterator[None]:
    """Modes that were entered inside are left, even where an interrupt came while one was entered or left."""
    functions, dispatches = torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()
    try:
        yield
    finally:
        while torch._C._len_torch_dispatch_stack() > dispatches:
            torch._C._pop_torch_dispatch_stack(None)
        while torch._C._len_torch_function_stack() > functions:
            torch._C._pop_torch_function_stack()


TO_PYTHON = (Tensor.tolist, Tensor.numpy, Tensor.__array__)
HOOKS = (Tensor.register_hook, Tensor.register_post_accumulate_grad_hook, Tensor.retain_grad)


class Plainly(TorchFunctionMode):
    """What torch does in a roundabout way, in a plain one: einsum of matrices, rms_norm."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.einsum and len(args) == 3 and isinstance(args[0], str):
            product = as_product(*args)
            if product is not None:
                return product
        if func in TO_PYTHON:
            raise UntraceableError(f"{line_of_user()}: the step turns a tensor into Python numbers ({func.__name__})")
        if func is torch.rms_norm or func is F.rms_norm:
            return rms_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Unhooked(TorchFunctionMode):
    """No step may look at its gradients, or change them: a graph has no place for that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in HOOKS:
            raise UntraceableError(f"{line_of_user()}: the step asks for its gradients ({func.__name__})")
        return func(*args, **(kwargs or {}))


def as_product(equation: str, a: Tensor, b: Tensor) -> Tensor | None:
    """einsum over one index of two matrices, by matmul; None where it is something else."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    one, comma, two = left.partition(",")
    summed = set(one) & set(two)
    if not (arrow and comma and len(one) == len(two) == len(out) == 2 and len(summed) == 1 and summed.isdisjoint(out)):
        return None
    if out[0] in two:
        return as_product(f"{two},{one}->{out}", b, a)
    k = summed.pop()
    a = a if one[1] == k else a.t()
    b = b if two[0] == k else b.t()
    return a @ b


def rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """torch's, without writing in place."""
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scaled = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return scaled if weight is None else scaled * weight
