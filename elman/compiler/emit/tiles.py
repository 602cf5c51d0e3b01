"""Products of bfloat16 by AMX: a register holds a tile, 16 rows of 64 bytes, and one instruction multiplies two of them.

A tile of a left side is 16 rows of 16 pairs of steps of K; one of a right side is 16 pairs of steps by 16 columns; 16
rows of 16 sums come out. So K is counted in whole tiles here, of which what is beyond K is 0. A panel of weights lies as
its tiles are read: (half, K / 32, 2, 16, 16), which is two tiles of columns side by side for each half of its columns.
Source of the instructions: Intel's Architecture Instruction Set Extensions, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.ir as ir

from elman.compiler.emit.llvm import Build, Value, i8, i64, pointer, void
from elman.compiler.emit.pairs import neighbours, pair

SIDE = 16  # rows of a tile, and elements in each
SQUARE = SIDE * SIDE
STEPS = 2 * SIDE  # steps of K in a tile
HALF = 2 * SIDE  # columns of half a panel
LEFT, RIGHT = (4, 5), (6, 7)  # registers of sides; 0 to 3 are sums
BYTES = 64  # of a row


def tile(build: Build, name: str, *operands: Value | int) -> None:
    """One AMX instruction: registers are whole numbers, all else values."""
    values = [ir.Constant(i8, o) if isinstance(o, int) else o for o in operands]
    build.call(f"llvm.x86.{name}", void, *values)


def configure(build: Build, rows: list[Value | int]) -> None:
    """Set the rows of all eight registers, 1 to 16 each; their rows are whole. What they held is gone."""
    space = build.local(1)
    build.store(build.k(0.0), space)
    for place, value in [(0, 1), *((16 + 2 * n, BYTES) for n in range(8))]:
        build.b.store(ir.Constant(i8, value), build.at(space, place, 1))
    for n, value in enumerate(rows):
        byte = ir.Constant(i8, value) if isinstance(value, int) else build.b.trunc(value, i8)
        build.b.store(byte, build.at(space, 48 + n, 1))
    tile(build, "ldtilecfg", space)


def release(build: Build) -> None:
    """Done with tiles: from here on the system need not keep them when threads change."""
    tile(build, "tilerelease")


# ---- packing: squares of 32 steps by 16 columns


def emit_squares(build: Build) -> None:
    """Write `weave`, `mirror` and `turn`(source, stride, out): 512 numbers into a tile of pairs.

    weave: out[p, c] = source[2p, c], source[2p + 1, c] -- rows of the source are steps, `stride` elements apart.
    mirror: out[c, p] = the same -- the tile of the transpose, as a left side.
    turn: out[p, c] = source[c, 2p], source[c, 2p + 1] -- rows of the source are columns.
    """
    from elman.compiler.emit.pack import transposed

    def write(name: str, rows: Callable[[Callable[[int, int], Value]], list[Value]]) -> None:
        with build.function(name, [pointer, i64, pointer], internal=True) as (source, stride, out):

            def read(row: int, column: int) -> Value:
                return build.load(build.at(build.at(source, build.mul_int(stride, row)), column))

            for n, row in enumerate(rows(read)):
                build.store(row, build.at(out, n * SIDE))

    def woven(read: Callable[[int, int], Value]) -> list[Value]:
        return [pair(build, read(2 * p, 0), read(2 * p + 1, 0)) for p in range(SIDE)]

    def turned(read: Callable[[int, int], Value]) -> list[Value]:
        return transposed(build, [neighbours(build, read(c, 0), read(c, SIDE)) for c in range(SIDE)])

    write("weave", woven)
    write("mirror", lambda read: transposed(build, woven(read)))
    write("turn", turned)


def square(build: Build, name: str, source: Value, strides: tuple[Value, Value], out: Value, left: list[Value]) -> None:
    """Call weave or mirror on a square of which left = (steps, columns) exist, the others 0; strides of both."""
    function = build.module.globals[name]
    straight = build.compare("==", strides[1], 1)
    whole = build.b.and_(build.compare(">=", left[0], STEPS), build.compare(">=", left[1], SIDE))

    def by_numbers() -> None:
        space = build.local(STEPS)
        for row in range(STEPS):
            build.store(build.k(0.0), build.at(space, row * SIDE))

        def step(k: Value, _: list[Value]) -> None:
            here, there = build.at(source, build.mul_int(k, strides[0])), build.at(space, build.mul_int(k, SIDE))

            def column(c: Value, _: list[Value]) -> None:
                value = build.load_scalar(build.at(here, build.mul_int(c, strides[1])))
                build.store_scalar(value, build.at(there, c))

            build.loop(build.min_int(left[1], SIDE), column)

        build.loop(build.min_int(left[0], STEPS), step)
        build.b.call(function, [space, build.c(SIDE), out])

    build.choose(
        build.b.and_(straight, whole), lambda: build.b.call(function, [source, strides[0], out]), by_numbers
    )


def place(build: Build, k: Value, group: Value, K: Value) -> Value:
    """Where in a panel of K elements a tile lies: of element k, a multiple of 16, and of a group of 16 columns."""
    half, side = build.div_int(group, 2), build.b.urem(group, build.c(2))
    return build.add_int(build.mul_int(build.add_int(build.mul_int(half, K), k), HALF), build.mul_int(side, SQUARE))


def emit_pack(build: Build) -> None:
    """Write `pack`, as pack.py says, with a panel's tiles in their order and zeros beyond K."""
    emit_squares(build)
    with build.function("pack", [pointer, *[i64] * 4, pointer, i64, i64]) as arguments:
        w, stride_k, stride_n, K, N, out, first, last = arguments
        elements, groups = build.elements_int(K), build.panel // SIDE

        def group(g: Value, _: list[Value]) -> None:
            column = build.mul_int(g, SIDE)
            panel = build.at(out, build.mul_int(build.div_int(g, groups), build.mul_int(elements, build.panel)))

            def some(k: Value, _: list[Value]) -> None:
                steps, columns = build.sub_int(K, build.mul_int(k, 2)), build.sub_int(N, column)
                source = build.mul_int(build.mul_int(k, 2), stride_k), build.mul_int(column, stride_n)
                here = build.at(w, build.add_int(*source))
                there = build.at(panel, place(build, k, build.b.urem(g, build.c(groups)), elements))
                whole = build.b.and_(build.compare(">=", steps, STEPS), build.compare(">=", columns, SIDE))
                turned = build.b.and_(whole, build.compare("==", stride_k, 1))
                build.choose(
                    turned,
                    lambda: build.b.call(build.module.globals["turn"], [here, stride_n, there]),
                    lambda: square(build, "weave", here, (stride_k, stride_n), there, [steps, columns]),
                )

            build.loop(elements, some, step=SIDE)

        build.loop(build.mul_int(last, groups), group, start=build.mul_int(first, groups))


# ---- products


def emit_product(build: Build) -> None:
    """Write `product`, as product.py says: 32 rows by half a panel at a time, then what rows are left."""
    both, one = _emit_both(build), _emit_one(build)
    with build.function("product", [pointer, i64, pointer, pointer, *[i64] * 7]) as arguments:
        a, lda, w, out, ldo, count, K, N, first, last, accumulate = arguments
        whole = build.mul_int(build.div_int(count, HALF), HALF)
        rest = build.sub_int(count, whole)

        def panels(rows: Callable[[Value, Value, Value], None]) -> None:
            def panel(p: Value, _: list[Value]) -> None:
                column = build.mul_int(p, build.panel)
                rows(build.at(w, build.mul_int(column, K)), build.at(out, column), build.sub_int(N, column))

            build.loop(last, panel, start=first)

        def halves(low: Value, high: Value, weights: Value, columns: Value, left: Value) -> None:
            def half(h: Value, _: list[Value]) -> None:
                part = build.at(weights, build.mul_int(h, build.mul_int(K, HALF)))
                target = build.at(columns, build.mul_int(h, HALF))

                def some(row: Value, _: list[Value]) -> None:
                    source = build.at(a, build.mul_int(row, lda))
                    there = build.at(target, build.mul_int(row, ldo))
                    build.b.call(both, [source, lda, part, there, ldo, K, accumulate])

                build.loop(high, some, start=low, step=HALF)

            build.loop(build.b.select(build.compare(">", left, HALF), build.c(2), build.c(1)), half)

        def all_whole() -> None:
            configure(build, [SIDE] * 8)
            panels(lambda *panel: halves(build.c(0), whole, *panel))

        def two() -> None:
            more = build.sub_int(rest, SIDE)
            configure(build, [SIDE, SIDE, more, more, SIDE, more, SIDE, SIDE])
            panels(lambda *panel: halves(whole, count, *panel))

        def few() -> None:
            configure(build, [rest] * 5 + [SIDE] * 3)
            source, there = build.at(a, build.mul_int(whole, lda)), build.mul_int(whole, ldo)
            panels(lambda w, out, _: build.b.call(one, [source, lda, w, build.at(out, there), ldo, K, accumulate]))

        build.when(build.compare(">", whole, 0), all_whole)
        build.when(build.compare(">", rest, SIDE), two)
        build.when(build.b.and_(build.compare(">", rest, 0), build.compare("<=", rest, SIDE)), few)
        release(build)


def _sums(build: Build, places: list[Value], stride: Value, accumulate: Value, multiply: Callable[[], None]) -> None:
    """Four tiles of sums, from 0 or from what is at their places, which take what `multiply` makes of them."""

    def begin() -> None:
        for n, there in enumerate(places):
            tile(build, "tileloadd64", n, there, stride)

    def zero() -> None:
        for n in range(len(places)):
            tile(build, "tilezero", n)

    build.choose(build.compare("!=", accumulate, 0), begin, zero)
    multiply()
    for n, there in enumerate(places):
        tile(build, "tilestored64", n, there, stride)


def corners(build: Build, lefts: list[Value], stride: Value, apart: int, right: Value, K: Value) -> None:
    """Add two tiles of rows by two of columns to sums 0 to 3, over K.

    lefts: the first tile of each left side, `stride` bytes a row, those of later k `apart` times k elements further.
    """

    def step(k: Value, _: list[Value]) -> None:
        here = build.at(right, build.mul_int(k, HALF))
        for n, register in enumerate(RIGHT):
            tile(build, "tileloadd64", register, build.at(here, n * SQUARE), build.c(BYTES))
        for r, (register, left) in enumerate(zip(LEFT, lefts)):
            tile(build, "tileloadd64", register, build.at(left, build.mul_int(k, apart)), stride)
            for n, other in enumerate(RIGHT):
                tile(build, "tdpbf16ps", 2 * r + n, register, other)

    build.loop(K, step, step=SIDE)


def _emit_both(build: Build) -> Value:
    """Write `both(a, lda, w, out, ldo, K, accumulate)`: two tiles of rows by half a panel."""
    with build.function("both", [pointer, i64, pointer, pointer, i64, i64, i64], internal=True) as arguments:
        a, lda, w, out, ldo, K, accumulate = arguments
        below = build.at(a, build.mul_int(lda, SIDE)), build.at(out, build.mul_int(ldo, SIDE))
        stride, across = build.mul_int(lda, 4), build.mul_int(ldo, 4)
        places = [build.at(start, n * SIDE) for start in (out, below[1]) for n in range(2)]
        _sums(build, places, across, accumulate, lambda: corners(build, [a, below[0]], stride, 1, w, K))
    return build.module.globals["both"]


def _emit_one(build: Build) -> Value:
    """Write `one(a, lda, w, out, ldo, K, accumulate)`: one tile of rows by a whole panel."""
    with build.function("one", [pointer, i64, pointer, pointer, i64, i64, i64], internal=True) as arguments:
        a, lda, w, out, ldo, K, accumulate = arguments
        registers = (5, 6, 7, 5)

        def multiply() -> None:
            def step(k: Value, _: list[Value]) -> None:
                tile(build, "tileloadd64", LEFT[0], build.at(a, k), build.mul_int(lda, 4))
                for n, register in enumerate(registers):
                    there = build.add_int(build.mul_int(k, HALF), n % 2 * SQUARE)
                    there = build.add_int(there, build.mul_int(K, n // 2 * HALF))
                    tile(build, "tileloadd64", register, build.at(w, there), build.c(BYTES))
                    tile(build, "tdpbf16ps", n, LEFT[0], register)

            build.loop(K, step, step=SIDE)

        places = [build.at(out, n * SIDE) for n in range(4)]
        _sums(build, places, build.mul_int(ldo, 4), accumulate, multiply)
    return build.module.globals["one"]


# ---- sums of outer products


def emit_strips(build: Build) -> Value:
    """Write `strips(a, lda, out, steps, K, columns)`: a's columns as left sides, 32 by 32, over so many elements of K.

    The tile of element k and columns m to m + 15 begins at out[m * steps + k * 16].
    """
    emit_squares(build)
    with build.function("strips", [pointer, i64, pointer, i64, i64, i64], internal=True) as arguments:
        a, lda, out, steps, K, columns = arguments
        wide = build.mul_int(build.div_int(build.add_int(columns, HALF - 1), HALF), HALF)

        def some(k: Value, _: list[Value]) -> None:
            row = build.mul_int(k, 2)
            source, left = build.at(a, build.mul_int(row, lda)), build.sub_int(K, row)

            def column(m: Value, _: list[Value]) -> None:
                there = build.at(out, build.add_int(build.mul_int(m, steps), build.mul_int(k, SIDE)))
                square(build, "mirror", build.at(source, m), (lda, build.c(1)), there, [left, build.sub_int(columns, m)])

            build.loop(wide, column, step=SIDE)

        build.loop(steps, some, step=SIDE)
    return build.module.globals["strips"]


Scatter = Callable[[Value, int, Value, tuple[Value, Value], tuple[Value, Value], Value], None]


def emit_panel(build: Build, scatter: Scatter) -> Value:
    """Write `panel`, as outer.py says, for up to a panel of columns; tiles must have been configured whole.

    scatter(source, width, out, strides, sizes, again): for sums that cannot be stored as they are.
    """
    types = [pointer, pointer, i64, pointer, pointer, *[i64] * 7]
    with build.function("panel", types, internal=True) as arguments:
        strips, b, ldb, copy, out, down, across, steps, K, rows, columns, again = arguments
        held = build.local(HALF * HALF // build.lanes)
        wide = build.mul_int(build.div_int(build.add_int(columns, HALF - 1), HALF), HALF)

        def some(k: Value, _: list[Value]) -> None:
            row = build.mul_int(k, 2)
            source, left = build.at(b, build.mul_int(row, ldb)), build.sub_int(K, row)

            def column(n: Value, _: list[Value]) -> None:
                there = build.at(copy, place(build, k, build.div_int(n, SIDE), steps))
                square(build, "weave", build.at(source, n), (ldb, build.c(1)), there, [left, build.sub_int(columns, n)])

            build.loop(wide, column, step=SIDE)

        build.loop(steps, some, step=SIDE)

        def half(n: Value, _: list[Value]) -> None:
            right, left_over = build.at(copy, build.mul_int(n, steps)), build.sub_int(columns, n)

            def corner(m: Value, _: list[Value]) -> None:
                left = build.at(strips, build.mul_int(m, steps))
                lefts = [left, build.at(left, build.mul_int(steps, SIDE))]
                target = build.at(out, build.add_int(build.mul_int(m, down), build.mul_int(n, across)))
                sizes = build.min_int(build.sub_int(rows, m), HALF), build.min_int(left_over, HALF)

                def multiply() -> None:
                    corners(build, lefts, build.c(BYTES), SIDE, right, steps)

                def sums(start: Value, stride: Value, accumulate: Value) -> None:
                    below = build.at(start, build.mul_int(stride, SIDE))
                    places = [build.at(line, c * SIDE) for line in (start, below) for c in range(2)]
                    _sums(build, places, build.mul_int(stride, 4), accumulate, multiply)

                def apart() -> None:
                    sums(held, build.c(HALF), build.c(0))
                    scatter(held, HALF, target, (down, across), sizes, again)

                whole = build.compare("==", build.mul_int(*sizes), HALF * HALF)
                plain = build.b.and_(whole, build.compare("==", across, 1))
                build.choose(plain, lambda: sums(target, down, again), apart)

            build.loop(rows, corner, step=HALF)

        build.loop(columns, half, step=HALF)
    return build.module.globals["panel"]
