"""Native products of tensors, through the blocks that calls are made of."""

import torch

from elman.compiler.emit.jobs import Jobs, Spot
from elman.compiler.emit.linear import linear
from elman.compiler.emit.outer import numbers, outers_for
from elman.compiler.emit.target import Target, host

A, B, OUT, SCRATCH, MORE = range(1, 6)


def product(a: torch.Tensor, w: torch.Tensor, dtype: str, target: Target | None = None) -> torch.Tensor:
    """a (rows, K) @ w (K, N), columns of a side by side, w of any strides."""
    (rows, K), N, made = a.shape, w.shape[1], linear(dtype, target or host())
    out, jobs = a.new_empty(rows, made.sizes.columns(N)), Jobs(torch.get_num_threads())
    scratch = [a.new_empty(size) for size in made.scratch(rows, K, N)]
    sizes = a.stride(0), rows, K, N
    spots = Spot(SCRATCH), Spot(MORE)
    numbers_of = made.numbers(sizes, Spot(A), (Spot(B), *w.stride()), Spot(OUT), spots, jobs.flags(), [rows])
    jobs.add(made.address, numbers_of)
    jobs.finish()
    jobs.run([0, *(t.data_ptr() for t in (a, w, out, *scratch))])
    return out[:, :N]


def outer(a: torch.Tensor, b: torch.Tensor, dtype: str, target: Target | None = None) -> torch.Tensor:
    """a (K, M)^T @ b (K, N), columns of each side by side."""
    (K, M), N, jobs = a.shape, b.shape[1], Jobs(torch.get_num_threads())
    made, out = outers_for(M, N, dtype, target), a.new_empty(M, N)
    each = made.scratch(M, N, K)
    scratch = a.new_empty(each * jobs.count)
    sizes = a.stride(0), b.stride(0), K, M, N
    jobs.add(made.outer, numbers(sizes, Spot(A), Spot(B), Spot(OUT), Spot(SCRATCH), each))
    jobs.finish()
    jobs.run([0, *(t.data_ptr() for t in (a, b, out, scratch))])
    return out
