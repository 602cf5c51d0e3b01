"""Native products of tensors, through the blocks that calls are made of."""

import torch

from elman.compiler.emit.jobs import Jobs, Spot
from elman.compiler.emit.linear import Term, linear
from elman.compiler.emit.outer import Side, numbers, outers_for
from elman.compiler.emit.target import Target, host


def product(a: torch.Tensor, w: torch.Tensor, dtype: str, target: Target | None = None) -> torch.Tensor:
    """a (rows, K) @ w (K, N), columns of a side by side, w of any strides."""
    return sum_of_products([(a, w)], dtype, target)


def sum_of_products(
    pairs: list[tuple[torch.Tensor, torch.Tensor]], dtype: str, target: Target | None = None
) -> torch.Tensor:
    """The sum of a @ w over pairs of such."""
    (rows, _), N, made = pairs[0][0].shape, pairs[0][1].shape[1], linear(dtype, target or host())
    out, jobs = pairs[0][0].new_empty(rows, made.sizes.columns(N)), Jobs(torch.get_num_threads())
    terms, tensors = [], [out]
    for a, w in pairs:
        held = [a, w, *(a.new_empty(size) for size in made.scratch(rows, a.shape[1], N))]
        left, right, *scratch = (Spot(2 + len(tensors) + i) for i in range(4))
        down, across = w.stride()
        terms.append(Term(left, a.stride(0), (right, down, across), a.shape[1], *scratch))
        tensors += held
    jobs.add(made.address, made.numbers(rows, N, terms, Spot(2), jobs.flags(), [rows]))
    jobs.finish()
    jobs.run([0, 0, *(t.data_ptr() for t in tensors)])
    return out[:, :N]


def outer(a: torch.Tensor, b: torch.Tensor, dtype: str, target: Target | None = None) -> torch.Tensor:
    """a (K, M)^T @ b (K, N), columns of each side by side."""
    return outer_with(a, [b], dtype, target)[0]


def outer_with(
    a: torch.Tensor, factors: list[torch.Tensor], dtype: str, target: Target | None = None, turned: bool = False
) -> list[torch.Tensor]:
    """The same for several b, done together; turned: each of them transposed."""
    (K, M), jobs = a.shape, Jobs(torch.get_num_threads())
    made = outers_for([(M, b.shape[1]) for b in factors], dtype, target)
    outs = [a.new_empty(*((b.shape[1], M) if turned else (M, b.shape[1]))) for b in factors]
    each = made.scratch(M, K)
    scratch = a.new_empty(each * jobs.count)
    left, *rights = (Side(Spot(3 + i), t.stride(0), t.shape[1]) for i, t in enumerate([a, *factors]))
    spots = [Spot(3 + 1 + len(factors) + i) for i in range(len(factors))]
    jobs.add(made.outer, numbers(K, left, [*zip(rights, spots)], (Spot(2), each), turned, added=False))
    jobs.finish()
    jobs.run([0, 0, scratch.data_ptr(), *(t.data_ptr() for t in (a, *factors, *outs))])
    return outs
