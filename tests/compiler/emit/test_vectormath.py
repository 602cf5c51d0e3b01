"""The functions on vectors, against float64, in both element types and at every width that this machine has."""

import ctypes
import functools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("llvmlite")

from elman.compiler.emit import native, vectormath
from elman.compiler.emit.llvm import Build, i64, pointer
from elman.compiler.emit.target import WIDTHS, NoTarget, Target, host, narrowed

TYPES = {"f32": np.float32, "f64": np.float64}
TOLERANCE = {"f32": 5e-7, "f64": 8 * 4e-16}
NAMES = ("exp", "log", "sigmoid", "tanh", "erf", "log1p", "expm1", "sin", "cos")
SOURCE = Path(__file__).read_text()  # part of the keys: an edited test is compiled again
INF, NAN = math.inf, math.nan


def targets() -> list[Target]:
    """This machine at each of its widths, and what both makers' processors do with its widest vectors."""
    try:
        own = [narrowed(host(), bits) for bits in WIDTHS if bits <= host().bits]
    except NoTarget:
        return []
    other = replace(own[0], features=own[0].features.replace("+sse4a", "-sse4a"))
    return own if other == own[0] else [*own, other]


def label(target: Target) -> str:
    return f"{target.bits}{'div' if target.divides_quickly else ''}"


@functools.cache
def compiled(target: Target, dtype: str):
    """All functions in one module, each as f(x, y, n)."""

    def module():
        build = Build(target, dtype)
        for name in NAMES:
            apply = getattr(vectormath, name)
            with build.function(f"test_{name}", [pointer, pointer, i64]) as (x, y, n):
                build.loop(
                    n,
                    lambda i, _, x=x, y=y, apply=apply: build.store(
                        apply(build, build.load(build.at(x, i))), build.at(y, i)
                    ),
                    step=build.lanes,
                )
        return build.module

    return native.load("test_vectormath", dtype + SOURCE, module, target)


def run(name: str, target: Target, x: np.ndarray) -> np.ndarray:
    """Apply a function to a flat array."""
    padded = np.concatenate([x, np.zeros(-len(x) % 16, x.dtype)])
    y = np.empty_like(padded)
    dtype = "f32" if x.dtype == np.float32 else "f64"
    address = compiled(target, dtype).address(f"test_{name}")
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
    function(padded.ctypes.data, y.ctypes.data, len(padded))
    return y[: len(x)]


def true(name: str, x: np.ndarray) -> np.ndarray:
    """The function in float64, and for float64 itself in the widest type there is."""
    if name == "erf":
        return torch.erf(torch.from_numpy(x).double()).numpy()
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    with np.errstate(all="ignore"):
        return 1 / (1 + np.exp(-wide)) if name == "sigmoid" else getattr(np, name)(wide)


def arguments(name: str, dtype: str) -> np.ndarray:
    """A grid over the whole range, and random numbers of every size."""
    random = np.random.default_rng(0)
    size = random.standard_normal(50_000) * 10.0 ** random.uniform(-30, 2, 50_000)
    x = np.concatenate([np.linspace(-104, 104, 100_001), np.linspace(-9.5, 9.5, 50_001), size]).astype(TYPES[dtype])
    if name == "log":
        return np.abs(np.concatenate([x, 1 + np.linspace(-0.5, 1, 50_001, dtype=x.dtype), np.exp(x[:100_001] / 1.2)]))
    return np.abs(x) if name == "log1p" else x


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("target", targets(), ids=label)
@pytest.mark.parametrize("name", NAMES)
def test_accuracy(name: str, target: Target, dtype: str) -> None:
    x = arguments(name, dtype)
    if name == "log":
        x = x[x > 0]
    expected, found = true(name, x), run(name, target, x)
    limits = np.finfo(x.dtype)
    with np.errstate(all="ignore"):
        normal = (np.abs(expected) >= limits.tiny) & (np.abs(expected) <= limits.max)
        error = np.abs(found - expected) / np.abs(expected)
    assert normal.sum() > 50_000
    assert error[normal].max() <= TOLERANCE[dtype]
    large = np.abs(expected) > limits.max
    assert (found[large] == np.sign(expected[large]) * INF).all()
    assert (np.abs(found[np.abs(expected) < limits.tiny]) <= 2 * limits.tiny).all()


SPECIAL = {
    "exp": {INF: INF, -INF: 0.0, NAN: NAN, 1e30: INF, -1e30: 0.0, 0.0: 1.0},
    "log": {INF: INF, -0.0: -INF, -1.0: NAN, -INF: NAN, NAN: NAN, 1.0: 0.0},
    "sigmoid": {INF: 1.0, -INF: 0.0, NAN: NAN, 1e30: 1.0, -1e30: 0.0, 0.0: 0.5},
    "tanh": {INF: 1.0, -INF: -1.0, NAN: NAN, 1e30: 1.0, -1e30: -1.0, 0.0: 0.0},
    "erf": {INF: 1.0, -INF: -1.0, NAN: NAN, 1e30: 1.0, -1e30: -1.0, 0.0: 0.0},
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("target", targets(), ids=label)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name: str, target: Target, dtype: str) -> None:
    x = np.array(list(SPECIAL[name]), dtype=TYPES[dtype])
    np.testing.assert_array_equal(run(name, target, x), np.array(list(SPECIAL[name].values()), dtype=x.dtype))


@pytest.mark.parametrize("target", targets(), ids=label)
def test_exp_overflows_from_the_first_number_on_that_is_too_large(target: Target) -> None:
    x = np.array([88.72283172607422, 88.72283935546875], np.float32)  # neighbours
    last, beyond = run("exp", target, x)
    assert 3.402e38 < last < INF
    assert beyond == INF


@pytest.mark.parametrize("target", targets(), ids=label)
@pytest.mark.parametrize("name", SPECIAL)
def test_every_nan_goes_through(name: str, target: Target) -> None:
    x = np.array([0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(run(name, target, x)).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("target", targets(), ids=label)
def test_build_arithmetic(target: Target, dtype: str) -> None:
    """Maximum, comparisons, masks and the folds over the lanes, through one module."""
    build = Build(target, dtype)
    with build.function("check", [pointer, pointer, pointer]) as (p, q, out):
        a, b = build.load(p), build.load(q)
        values = [
            build.maximum(a, b),
            build.minimum(a, b),
            build.lt(a, b),
            build.ne(a, b),
            build.where(a, b, build.k(7.0)),
            build.where(build.ge(a, b), a, b),
            build.load(p, mask=1),
            build.splat(build.max_lanes(a)),
            build.splat(build.sum_lanes(b)),
        ]
        for n, value in enumerate(values):
            build.store(value, build.at(out, n * build.lanes))
        build.store(build.k(5.0), out, mask=1)
    a = np.random.default_rng(1).integers(-2, 3, build.lanes).astype(TYPES[dtype])
    b = np.roll(a, 1) + 1
    a[-1] = b[0] = NAN
    out = np.empty((len(values), build.lanes), a.dtype)
    code = native.load("test_build", dtype + SOURCE, lambda: build.module, target)
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(code.address("check"))(a.ctypes.data, b.ctypes.data, out.ctypes.data)
    expected = [
        np.maximum(a, b),
        np.minimum(a, b),
        (a < b).astype(a.dtype),
        (a != b).astype(a.dtype),
        np.where(a != 0, b, 7),
        np.where(a >= b, a, b),
        np.where(np.arange(len(a)) < 1, a, 0),
        np.full_like(a, NAN),
        np.full_like(a, NAN),
    ]
    expected[0][0] = 5
    np.testing.assert_array_equal(out, np.stack(expected))


def test_a_width_beyond_the_machine_is_refused() -> None:
    target = narrowed(host(), 128)
    with pytest.raises(NoTarget, match="this machine's vectors have 128 bits; choose 128"):
        narrowed(target, 256)


def test_the_forced_width_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELMAN_VECTOR", "128")
    assert host().bits == 128
    monkeypatch.setenv("ELMAN_VECTOR", "wide")
    with pytest.raises(NoTarget, match="'wide' is not a width in bits"):
        host()


def test_kernels_for_arm_compile() -> None:
    """Nothing runs here, but the code for NEON is made."""
    import llvmlite.binding as llvm

    from elman.compiler.emit.pack import emit_pack
    from elman.compiler.emit.product import emit_product

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    arm = Target("arm", "aarch64-unknown-linux-gnu", "generic", "+neon", 128)
    build = Build(arm, "f32")
    emit_product(build, (1, arm.tile_rows))
    emit_pack(build)
    with build.function("rest", [pointer, i64, i64]) as (p, thread, threads):
        back = build.flush_denormals()
        build.barrier(p, thread, threads, 1)
        build.store(vectormath.tanh(build, vectormath.exp(build, build.load(p))), p)
        back()
    assert native.compiled(build.module, arm)[:4] == b"\x7fELF"
