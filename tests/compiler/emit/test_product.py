"""The shared matrix product and the packing of its weights, against numpy."""

import ctypes
import math
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from widths import TYPES, both

from elman.compiler.emit import product as module
from elman.compiler.emit.product import products
from elman.compiler.emit.target import Target

INT, PTR = ctypes.c_int64, ctypes.c_void_p


def pack(target: Target, dtype: str, w: np.ndarray, parts: int = 1) -> np.ndarray:
    """Return (K, N) weights of any strides as (panels, K, P)."""
    made = products(dtype, target)
    K, N = w.shape
    panels = -(-N // made.panel)
    out = np.full((panels, K, made.panel), math.nan, w.dtype)
    function = ctypes.CFUNCTYPE(None, PTR, INT, INT, INT, INT, PTR, INT, INT)(made.pack)
    bounds = np.linspace(0, panels, parts + 1).astype(int)
    for first, last in pairwise(bounds):
        strides = (w.strides[0] // w.itemsize, w.strides[1] // w.itemsize)
        function(w.ctypes.data, *strides, K, N, out.ctypes.data, first, last)
    return out


def product(
    target: Target, dtype: str, a: np.ndarray, w: np.ndarray, out: np.ndarray, N: int, accumulate: int = 0
) -> None:
    """Out (rows, panels*P) = a (rows, K) @ packed w, of which N count; tiles for these rows or all, alike."""
    (rows, K), held, width = a.shape, [out, out.copy()], a.itemsize
    ways = products(dtype, target, [N]), products(dtype, target, [N], [rows])
    for made, there in zip(ways, held):
        function = ctypes.CFUNCTYPE(None, PTR, INT, PTR, PTR, *[INT] * 7)(made.product)
        lda, ldo = a.strides[0] // width, there.strides[0] // width
        function(a.ctypes.data, lda, w.ctypes.data, there.ctypes.data, ldo, rows, K, N, 0, len(w), accumulate)
    np.testing.assert_array_equal(*held)


def assert_product(out: np.ndarray, a: np.ndarray, w: np.ndarray, before: np.ndarray | float = 0.0) -> None:
    """Out is before + a @ w, but for the rounding of sums of that size."""
    wide = np.longdouble
    size = np.abs(a) @ np.abs(w) + np.abs(before)
    error = np.abs(out.astype(wide) - before - a.astype(wide) @ w.astype(wide))
    assert (error <= 2 * np.finfo(a.dtype).eps * size).all()


def panelled(w: np.ndarray, panel: int) -> np.ndarray:
    """What pack should return."""
    K, N = w.shape
    padded = np.pad(w, ((0, 0), (0, -N % panel)))
    return padded.reshape(K, -1, panel).transpose(1, 0, 2)


@both
@pytest.mark.parametrize("N", [1, 63, 64, 129, 200])
@pytest.mark.parametrize("K", [1, 5, 16, 37])
@pytest.mark.parametrize("layout", ["straight", "turned", "neither"])
def test_pack(target: Target, dtype: str, layout: str, K: int, N: int) -> None:
    values = np.random.default_rng(0).standard_normal((K + 3, N + 2)).astype(TYPES[dtype])
    w = {
        "straight": values[:K, :N],
        "turned": np.ascontiguousarray(values.T).T[:K, :N],
        "neither": np.repeat(values, 2, axis=1)[:K, : 2 * N : 2],
    }[layout]
    panel = products(dtype, target).panel
    np.testing.assert_array_equal(pack(target, dtype, w, parts=2), panelled(w, panel))


@both
@pytest.mark.parametrize("rows", range(1, 14))
def test_product_of_every_height(target: Target, dtype: str, rows: int) -> None:
    """Row strides beyond K with NaN there, and nothing else written than the rows."""
    random = np.random.default_rng(rows)
    for K, N in ((1, 64), (3, 1), (37, 130), (64, 100)):
        held = random.standard_normal((rows, K + 3)).astype(TYPES[dtype])
        held[:, K:] = math.nan
        w = random.standard_normal((K, N)).astype(TYPES[dtype])
        packed = pack(target, dtype, w)
        width = packed.shape[0] * packed.shape[2]
        out = np.full((rows + 1, width + 5), 3.0, TYPES[dtype])
        for accumulate in (0, 1):
            before = out[:rows, :N].copy()
            product(target, dtype, held[:, :K], packed, out[:rows], N, accumulate)
            assert_product(out[:rows, :N], held[:, :K], w, accumulate * before)
        assert np.isin(out[:rows, N:width], (0, 3)).all()  # padding, or not touched
        assert (out[rows:] == 3).all()
        assert (out[:, width:] == 3).all()


@both
def test_product_of_deep_weights(target: Target, dtype: str) -> None:
    """K beyond the block that is taken at once."""
    random = np.random.default_rng(0)
    a, w = (random.standard_normal(shape).astype(TYPES[dtype]) for shape in ((9, 2501), (2501, 70)))
    packed = pack(target, dtype, w)
    out = np.full((9, packed.shape[0] * packed.shape[2]), 2.0, TYPES[dtype])
    product(target, dtype, a, packed, out, 70, accumulate=1)
    assert_product(out[:, :70], a, w, 2.0)


@both
def test_no_rows_and_no_panels(target: Target, dtype: str) -> None:
    """Nothing to do is done."""
    made = products(dtype, target)
    out = np.ones(made.panel, TYPES[dtype])
    function = ctypes.CFUNCTYPE(None, PTR, INT, PTR, PTR, *[INT] * 7)(made.product)
    function(None, 4, None, out.ctypes.data, made.panel, 0, 4, 64, 0, 1, 0)
    function(None, 4, None, out.ctypes.data, made.panel, 3, 4, 64, 2, 2, 0)
    assert (out == 1).all()


@both
def test_code_for_more_heights_serves_fewer(target, dtype, monkeypatch):
    monkeypatch.setattr(module, "_spans", {})
    few = products(dtype, target, rows=[1]).product
    assert products(dtype, target, rows=[12]).product != few
    both = products(dtype, target, rows=[1, 12]).product
    monkeypatch.setattr(module, "_spans", {(dtype, target, False): [(1, target.tile_rows)]})
    assert products(dtype, target, rows=[1]).product == products(dtype, target, rows=[12]).product == both
