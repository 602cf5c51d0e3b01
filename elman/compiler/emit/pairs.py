"""Operands of products in bfloat16: an element of 32 bits holds two steps of K, the first one in its low half.

Only what enters a product is rounded, to nearest, ties to even (a NaN stays one); sums are float32. Processors with
AVX512-BF16 multiply and add a vector of pairs in one instruction; for others the same is written in shifts, so that it
can be tested anywhere. AMX takes the same pairs, by tiles (tiles.py).
"""

from collections.abc import Callable
from typing import Any

from elman.compiler.emit import ir
from elman.compiler.emit.llvm import Build, Value, i32, i64, pointer

HIGH = 0xFFFF0000  # the half of a float that is its bfloat16


def multiply_add(build: Build, a: Value, b: Value, total: Value) -> Value:
    """Total + a * b; of pairs, total + the products of both halves."""
    if not build.paired:
        return build.fma(a, b, total)
    if build.target.multiplies_pairs:
        first, second = (build.b.bitcast(value, _halves(build, 2)) for value in (a, b))
        return build.call("llvm.x86.avx512bf16.dpbf16ps.512", build.vector, total, first, second)
    for half in (_high, _low):
        total = build.fma(half(build, a), half(build, b), total)
    return total


def pair(build: Build, low: Value, high: Value) -> Value:
    """Two vectors, or two scalars, rounded and put together lane by lane."""
    if low.type == build.vector and build.target.multiplies_pairs:
        low, high = (build.b.fptrunc(value, _halves(build, 1)) for value in (low, high))
        order = [lane // 2 + lane % 2 * build.lanes for lane in range(2 * build.lanes)]
        return build.b.bitcast(build.b.shuffle_vector(low, high, _order(order)), build.vector)
    first, second = (_rounded(build, value) for value in (low, high))
    both = build.b.or_(build.b.lshr(first, _like(first, 16)), second)
    return build.b.bitcast(both, low.type)


def neighbours(build: Build, first: Value, second: Value) -> Value:
    """The numbers of two vectors in a row, rounded, in pairs of neighbours."""
    lanes = 2 * build.lanes
    if build.target.multiplies_pairs:
        row = build.b.shuffle_vector(first, second, _order(list(range(lanes))))
        return build.b.bitcast(build.b.fptrunc(row, _halves(build, 2)), build.vector)
    even, odd = (build.shuffle(first, second, list(range(start, lanes, 2))) for start in (0, 1))
    return pair(build, even, odd)


def element(build: Build, read: Callable[[Value], Value], k: Value, K: Value) -> Value:
    """Element k of what `read` gives for each step: that of step k, or the pair of 2k and 2k + 1, 0 from step K on."""
    if not build.paired:
        return read(k)
    low = build.mul_int(k, 2)
    inside = build.compare("<", build.add_int(low, 1), K)
    first, second = read(low), read(build.b.select(inside, build.add_int(low, 1), low))
    zero = build.k(0.0) if second.type == build.vector else build.scalar(0.0)
    return pair(build, first, build.b.select(inside, second, zero))


def emit_round(build: Build) -> None:
    """Write `round(a, lda, out, ldo, rows, K)` into the module: rows of a product's left side as pairs.

    out[r, k] = a[r, 2k] and a[r, 2k + 1], or 0 beyond K. a is (rows, K) with row stride lda; out has the row stride ldo
    and is written by whole vectors, `build.paired_width(K)` elements of each row.
    """
    step = 2 * build.lanes
    with build.function("round", [pointer, i64, pointer, i64, i64, i64]) as (a, lda, out, ldo, rows, K):

        def row(r: Value, _: list[Value]) -> None:
            source, target = build.at(a, build.mul_int(r, lda)), build.at(out, build.mul_int(r, ldo))

            def some(k: Value, _: list[Value]) -> None:
                here = [build.at(source, build.add_int(k, more)) for more in (0, build.lanes)]
                build.store(neighbours(build, *map(build.load, here)), build.at(target, build.div_int(k, 2)))

            def rest(k: Value, _: list[Value]) -> None:
                lefts = [build.sub_int(build.sub_int(K, k), more) for more in (0, build.lanes)]
                places = [build.at(source, build.add_int(k, more)) for more in (0, build.lanes)]
                values = [build.load_first(place, left) for place, left in zip(places, lefts)]
                build.store(neighbours(build, *values), build.at(target, build.div_int(k, 2)))

            whole = build.mul_int(build.div_int(K, step), step)
            build.loop(whole, some, step=step)
            build.loop(K, rest, start=whole, step=step)

        build.loop(rows, row)


def _halves(build: Build, count: int) -> Any:
    """The type of `count` vectors' numbers in bfloat16."""
    return ir.vector(ir.bf16, count * build.lanes)


def _order(lanes: list[int]) -> Value:
    return ir.constant(ir.vector(i32, len(lanes)), lanes)


def _like(bits: Value, value: int) -> Value:
    """The constant in each lane, or as one number."""
    return ir.constant(bits.type, value)


def _rounded(build: Build, value: Value) -> Value:
    """The bits of a float whose low half is zero, that of its bfloat16."""
    scalar = value.type == build.element
    bits = build.b.bitcast(value, build.integer if scalar else build.integers)
    odd = build.b.and_(build.b.lshr(bits, _like(bits, 16)), _like(bits, 1))
    nearest = build.b.add(bits, build.b.add(odd, _like(bits, 0x7FFF)))
    quiet = build.b.or_(bits, _like(bits, 0x00400000))
    chosen = build.b.select(build.b.fcmp_unordered("uno", value, value), quiet, nearest)
    return build.b.and_(chosen, _like(bits, HIGH))


def _low(build: Build, pairs: Value) -> Value:
    return build.as_floats(build.b.shl(build.as_ints(pairs), build.ints(16)))


def _high(build: Build, pairs: Value) -> Value:
    return build.as_floats(build.b.and_(build.as_ints(pairs), build.ints(HIGH)))
