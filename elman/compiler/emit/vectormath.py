"""exp, tanh and their kin on vectors: `f(build, vector) -> vector`.

Each result is within 5e-7 of the true value in single precision, relatively, and 3e-15 in double; also next to zero.
NaN goes through, infinities give the limits. Results too small for a normal number may be 0.
"""

import math
from collections.abc import Sequence

from elman.compiler.emit import ir
from elman.compiler.emit.llvm import Build, Value, i32

LOG2E = 1 / math.log(2)
LN2 = {  # ln 2 as a number of the element type and what that leaves
    "f32": (0.693147182464599609375, -1.904654299957768e-09),
    "f64": (0.6931471805599453, 2.3190468138462996e-17),
}
MANTISSA = {"f32": 23, "f64": 52}  # bits behind the point
BIAS = {"f32": 127, "f64": 1023}  # of the exponent
LARGEST = {"f32": 128, "f64": 1024}  # 2^this is too large

# exp(r) for |r| <= ln(2)/2: 1 + r + ..., a minimax fit within 1.05e-7; in double Taylor's series does
EXP = {
    "f32": [1.0, 1.0, 0.499992311000824, 0.16667115688323975, 0.041890330612659454, 0.008312501013278961],
    "f64": [1 / math.factorial(k) for k in range(14)],
}
# (exp(2r) - 1) / r for |r| <= ln(2)/4: a minimax fit within 1.4e-8, and Taylor's series
EXPM1 = {
    "f32": [2.0, 1.9999998807907104, 1.3333234786987305, 0.6666752099990845, 0.2677295207977295, 0.08884810656309128],
    "f64": [2 ** (k + 1) / math.factorial(k + 1) for k in range(14)],
}
ATANH = {"f32": 5, "f64": 11}  # terms of atanh's series that log needs behind the first
# N. Juffa's erf in single precision: below 0.93 as x + x*P(x*x), above as 1 - exp(Q(|x|))
ERF_NEAR = [1.28379166e-1, -3.76125336e-1, 1.12819925e-1, -2.67681349e-2, 4.99119423e-3, -5.96761703e-4]
ERF_FAR = [-1.28717512e-1, -6.34846687e-1, -1.06777877e-1, 2.42546219e-2, -3.88396438e-3, 3.83197126e-4, -1.72853470e-5]


def exp(build: Build, x: Value) -> Value:
    """e to the x."""
    if _wide(build):
        inside = build.maximum(build.k(-104.0), build.minimum(build.k(89.0), x))
        value, n, _ = _exp(build, inside)
        return _scaled(build, value, n)
    top = LARGEST[build.dtype] * math.log(2)
    value, _, shift = _exp(build, x)
    value = build.as_floats(build.b.add(build.as_ints(value), shift))
    value = build.where(build.lt(x, build.k(top)), value, build.add(x, build.k(math.inf)))  # inf, or NaN
    return build.where(build.lt(x, build.k(_smallest(build))), build.k(0.0), value)


def sigmoid(build: Build, x: Value) -> Value:
    """1 / (1 + exp(-x)), as e / (1 + e), which stays exact at both ends."""
    top = build.k(18.0 if build.dtype == "f32" else 38.0)  # from here on it is 1
    if _wide(build):
        value, n, _ = _exp(build, build.maximum(build.k(-104.0), build.minimum(top, x)))
        e = _scaled(build, value, n)
        return _quotient(build, e, build.add(build.k(1.0), e))
    low = build.k(_smallest(build))
    value, _, shift = _exp(build, build.maximum(low, build.minimum(top, x)))
    e = build.as_floats(build.b.add(build.as_ints(value), shift))
    e = build.where(build.lt(x, low), build.k(0.0), build.where(build.eq(x, x), e, x))
    return _quotient(build, e, build.add(build.k(1.0), e))


def tanh(build: Build, x: Value) -> Value:
    """(exp(2x) - 1) / (exp(2x) + 1), through exp(2x) - 1, which is exact near 0."""
    top = 9.2 if build.dtype == "f32" else 20.0  # from here on it is 1
    inside = build.maximum(build.k(-top), build.minimum(build.k(top), x))
    n, magic = _rounded(build, inside, 2 * LOG2E)
    r = build.fma(n, build.k(-LN2[build.dtype][0] / 2), inside)
    part = build.mul(r, polynomial(build, r, EXPM1[build.dtype]))  # exp(2r) - 1
    one = build.as_ints(build.k(1.0))
    power = build.as_floats(build.b.add(one, build.b.shl(magic, build.ints(MANTISSA[build.dtype]))))  # 2^n
    e = build.fma(power, part, build.sub(power, build.k(1.0)))
    return _quotient(build, e, build.add(e, build.k(2.0)))


def log(build: Build, x: Value) -> Value:
    """The natural logarithm: x = 2^n * m, and log m = 2 atanh((m - 1) / (m + 1))."""
    high, low = LN2[build.dtype]
    mantissa = build.ints(MANTISSA[build.dtype])
    tiny = build.lt(x, build.k(2.0 ** (2 - BIAS[build.dtype])))
    lift = MANTISSA[build.dtype] + 2
    normal = build.where(tiny, build.mul(x, build.k(2.0**lift)), x)
    bits = build.as_ints(normal)
    exponent = build.b.ashr(build.b.sub(bits, build.as_ints(build.k(math.sqrt(0.5)))), mantissa)
    m = build.as_floats(build.b.sub(bits, build.b.shl(exponent, mantissa)))  # sqrt(1/2) <= m < sqrt(2)
    n = build.add(build.b.sitofp(exponent, build.vector), build.where(tiny, build.k(-lift), build.k(0.0)))
    f = build.sub(m, build.k(1.0))
    s = build.div(f, build.add(f, build.k(2.0)))
    z = build.mul(s, s)
    series = polynomial(build, z, [2 / (2 * k + 3) for k in range(ATANH[build.dtype])])
    small = build.fma(build.mul(s, z), series, build.add(s, s))
    value = build.fma(n, build.k(high), build.fma(n, build.k(low), small))
    zero = build.where(build.eq(x, build.k(0.0)), build.k(-math.inf), build.k(math.nan))
    value = build.where(build.lt(x, build.k(math.inf)), value, x)  # inf and NaN stay
    return build.where(build.le(x, build.k(0.0)), zero, value)


def erf(build: Build, x: Value) -> Value:
    """The error function."""
    if build.dtype == "f64":
        return _each(build, "erf", x)
    square, size = build.mul(x, x), build.abs(x)
    near = build.fma(polynomial(build, square, ERF_NEAR), x, x)
    t = build.minimum(build.k(4.5), size)  # from there on it is 1
    power = build.fma(polynomial(build, t, ERF_FAR), t, build.neg(t))
    far = build.copysign(build.sub(build.k(1.0), exp(build, power)), x)
    return build.where(build.gt(size, build.k(0.927734375)), far, near)


def log1p(build: Build, x: Value) -> Value:
    """log(1 + x), by the C library, lane by lane."""
    return _each(build, "log1p", x)


def expm1(build: Build, x: Value) -> Value:
    """exp(x) - 1, by the C library, lane by lane."""
    return _each(build, "expm1", x)


def sin(build: Build, x: Value) -> Value:
    """The sine, by the C library, lane by lane."""
    return _each(build, "sin", x)


def cos(build: Build, x: Value) -> Value:
    """The cosine, by the C library, lane by lane."""
    return _each(build, "cos", x)


def polynomial(build: Build, x: Value, coefficients: Sequence[float]) -> Value:
    """c[0] + c[1] x + c[2] x^2 + ..., by Horner's rule."""
    value = build.k(coefficients[-1])
    for c in coefficients[-2::-1]:
        value = build.fma(value, x, build.k(c))
    return value


def _rounded(build: Build, x: Value, scale: float) -> tuple[Value, Value]:
    """The whole number next to x * scale: as elements, and as bits whose low end holds it."""
    magic = build.k(1.5 * 2.0 ** MANTISSA[build.dtype])  # adding it shifts the fraction out
    shifted = build.fma(x, build.k(scale), magic)
    return build.sub(shifted, magic), build.as_ints(shifted)


def _exp(build: Build, x: Value) -> tuple[Value, Value, Value]:
    """exp(x) = value * 2^n: the value, n, and what to add to the value's bits to multiply it by 2^n."""
    high, low = LN2[build.dtype]
    n, magic = _rounded(build, x, LOG2E)
    r = build.fma(n, build.k(-low), build.fma(n, build.k(-high), x))
    return polynomial(build, r, EXP[build.dtype]), n, build.b.shl(magic, build.ints(MANTISSA[build.dtype]))


def _smallest(build: Build) -> float:
    """The logarithm of the smallest normal number."""
    return (2 - LARGEST[build.dtype]) * math.log(2)


def _each(build: Build, name: str, x: Value) -> Value:
    double = ir.f64
    result = x
    for n in range(build.lanes):
        value = build.lane(x, n)
        if build.dtype == "f64":
            value = build.call_c(name, double, value)
        else:
            value = build.b.fptrunc(build.call_c(name, double, build.b.fpext(value, double)), build.element)
        result = build.b.insert_element(result, value, ir.constant(i32, n))
    return result


# ---- AVX-512 in single precision has instructions for two of the steps


def _wide(build: Build) -> bool:
    return build.dtype == "f32" and build.target.bits == 512


def _scaled(build: Build, value: Value, n: Value) -> Value:
    """value * 2^n, with overflow and underflow as they should be."""
    every, rounding = ir.constant(ir.i16, -1), ir.constant(i32, 4)
    return build.call("llvm.x86.avx512.mask.scalef.ps.512", build.vector, value, n, build.k(0.0), every, rounding)


def _quotient(build: Build, a: Value, b: Value) -> Value:
    """A / b for b >= 1; by an estimate of 1/b and one correction where that is faster than dividing."""
    if not _wide(build) or build.target.divides_quickly:
        return build.div(a, b)
    every = ir.constant(ir.i16, -1)
    inverse = build.call("llvm.x86.avx512.rcp14.ps.512", build.vector, b, build.k(0.0), every)
    quotient = build.mul(a, inverse)
    return build.fma(build.fma(build.neg(b), quotient, a), inverse, quotient)
