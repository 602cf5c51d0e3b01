"""Products of a step with operands rounded to bfloat16, in plain torch: what --precision bf16 means."""

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

MATMULS = (torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.__matmul__)


class Product(torch.autograd.Function):
    """a (M, K) @ w (N, K) transposed: forward and backward round both sides of each product, and sum in float32."""

    @staticmethod
    def forward(ctx, a, w):
        ctx.save_for_backward(a, w)
        return nearest(a) @ nearest(w).t()

    @staticmethod
    def backward(ctx, g):
        a, w = ctx.saved_tensors
        return Product.apply(g, w.t()), Product.apply(g.t(), a.t())


def nearest(value):
    """The nearest numbers that bfloat16 has."""
    return value.bfloat16().to(value.dtype)


class RoundedProducts(TorchFunctionMode):
    """Inside, products of matrices are rounded ones."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is functional.linear and args[0].dim() == 2:
            a, w, bias = (*args, None)[:3]
            return Product.apply(a, w) if bias is None else Product.apply(a, w) + bias
        if func in MATMULS and args[0].dim() == args[1].dim() == 2:
            return Product.apply(args[0], args[1].t())
        return func(*args, **(kwargs or {}))
