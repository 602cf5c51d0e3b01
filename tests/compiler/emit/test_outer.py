"""The sum of outer products, against wider numpy."""

import ctypes
import math

import numpy as np
import pytest
import torch

pytest.importorskip("llvmlite")

from native_products import outer, outer_with
from widths import TYPES, both

from elman.compiler.emit import threads
from elman.compiler.emit.outer import DEPTH, FACTOR, SLOTS, better_turned, outers, outers_for
from elman.compiler.emit.target import Target

SIZES = (1, 2, 3, 5, 7, 13, 64, 65, 100, 130)
MARGIN = 5


def framed(values: np.ndarray) -> np.ndarray:
    """Return the same values as a view into a wider array with NaN all around."""
    held = np.full((values.shape[0] + 2, values.shape[1] + 2 * MARGIN), math.nan, values.dtype)
    view = held[1:-1, MARGIN:-MARGIN]
    view[:] = values
    return view


def run(target: Target, dtype: str, a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """Return a^T b, computed by so many threads; checks that nothing around the result was written to."""
    (K, M), N = a.shape, b.shape[1]
    made = outers_for([(M, N)], dtype, target)
    held = np.full((M + 2, N + 2 * MARGIN), 3.0, a.dtype)
    out = held[1:-1, MARGIN:-MARGIN]
    turned = better_turned(made.sizes, M, N)
    if turned:
        a, b = b, a
    size = made.scratch(a.shape[1], K) * count
    scratch = np.full(size + 16, math.nan, a.dtype)
    strides = [x.strides[0] // x.itemsize for x in (a, b, out)]
    across = (1, strides[2]) if turned else (strides[2], 1)
    parts = [a.ctypes.data, strides[0], K, a.shape[1], scratch.ctypes.data, size // count, 0, 1]
    parts += [b.ctypes.data, strides[1], b.shape[1], out.ctypes.data, *across]
    block = (ctypes.c_int64 * (len(SLOTS) + len(FACTOR)))(*parts)
    threads.parallel(made.outer, ctypes.addressof(block), count)
    result = out.copy()
    out[:] = 3.0
    assert (held == 3.0).all()
    assert np.isnan(scratch[size:]).all()
    return result


def assert_outer(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Out is a^T b, but for the rounding of sums of that size."""
    wide = np.longdouble if a.dtype == np.float64 and a.shape[0] * out.size < 1e6 else np.float64
    exact = a.astype(wide).T @ b.astype(wide)
    size = np.abs(a).T @ np.abs(b)
    assert (np.abs(out - exact) <= 8 * np.finfo(a.dtype).eps * size).all()


def pair(K: int, M: int, N: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(K * 1000003 + M * 1009 + N)
    a, b = (framed(random.standard_normal((K, n)).astype(TYPES[dtype])) for n in (M, N))
    return a, b


@both
@pytest.mark.parametrize("M", SIZES)
def test_odd_sizes(target: Target, dtype: str, M: int) -> None:
    """Every N, with K going round; views with NaN around them; one thread and two give the same bits, twice."""
    for n, N in enumerate(SIZES):
        for K in (SIZES[(n + M) % 10], SIZES[(3 * n + 1) % 10]):
            a, b = pair(K, M, N, dtype)
            alone = run(target, dtype, a, b, 1)
            assert_outer(alone, a, b)
            for _ in range(2):
                np.testing.assert_array_equal(run(target, dtype, a, b, 2), alone)


@both
@pytest.mark.parametrize("K", [DEPTH, DEPTH + 1, 2 * DEPTH + 3])
def test_more_rows_than_one_visit(target: Target, dtype: str, K: int) -> None:
    """Later blocks of K are added, at the edges, too."""
    for M, N in ((13, 70), (6, 64), (19, 1), (1, 129), (64, 128), (192, 64)):
        a, b = pair(K, M, N, dtype)
        out = run(target, dtype, a, b, 1)
        assert_outer(out, a, b)
        np.testing.assert_array_equal(run(target, dtype, a, b, 2), out)


@both
def test_more_columns_than_are_copied_at_once(target: Target, dtype: str) -> None:
    """M beyond one chunk, and three or four threads in every grid."""
    made = outers(dtype, target)
    for M, N in ((made.strips * made.strip + 7, 70), (20, 5 * made.sizes.panel + 1), (190, 190)):
        a, b = pair(DEPTH + 9, M, N, dtype)
        out = run(target, dtype, a, b, 1)
        assert_outer(out, a, b)
        for count in (3, 4):
            np.testing.assert_array_equal(run(target, dtype, a, b, count), out)


@both
def test_no_rows_give_zeros(target: Target, dtype: str) -> None:
    """The sum of nothing is 0; nothing to write is nothing written."""
    for count in (1, 2):
        a, b = pair(0, 13, 70, dtype)
        assert (run(target, dtype, a, b, count) == 0).all()
        for M, N in ((0, 3), (3, 0)):
            run(target, dtype, *pair(4, M, N, dtype), count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(3, 5, 7), (100, 130, 33), (700, 130, 65), (0, 3, 3)])
def test_tensors(dtype: torch.dtype, sizes: tuple[int, int, int]) -> None:
    """Tensors, with views and widths of 1, from small to large and back."""
    K, M, N = sizes
    torch.manual_seed(0)
    held = torch.randn(K, M + N + 3, dtype=dtype)
    for a, b in ((held[:, :M], held[:, M : M + N]), (held[:, :1], held[:, M : M + N]), (held[:, :M], held[:, -1:])):
        out = outer(a, b, {torch.float32: "f32", torch.float64: "f64"}[dtype])
        torch.testing.assert_close(out, (a.double().T @ b.double()).to(dtype), rtol=1e-5, atol=1e-4)


@both
@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_factors_with_one_on_the_left(monkeypatch, target: Target, dtype: str, count: int) -> None:
    """The same bits as one by one, on any number of threads; turned ones are their transposes."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    K, kind = DEPTH + 9, {"f32": torch.float32, "f64": torch.float64}[dtype]
    a = torch.randn(K, 130, dtype=kind)
    factors = [torch.randn(K, N, dtype=kind) for N in (28, 128, 1, 65)]
    found = outer_with(a, factors, dtype, target)
    for b, out, turned in zip(factors, found, outer_with(a, factors, dtype, target, turned=True)):
        torch.testing.assert_close(out, (a.double().T @ b.double()).to(kind), rtol=1e-5, atol=1e-4)
        assert torch.equal(out, outer_with(a, [b], dtype, target)[0])
        assert torch.equal(out, turned.T)
